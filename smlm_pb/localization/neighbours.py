"""Who is near whom in the same frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

#: Frames are this far apart as a third coordinate: beyond any reach within a frame, px.
_FRAME_STEP = 1e4
#: Three cells beside each other in a sorted list of cells: where they begin and end.
_BESIDE: tuple[tuple[int, Literal["left", "right"]], ...] = ((-1, "left"), (1, "right"))
#: Cells for every row up to which it is quicker to count all of them than to search for some.
_CELLS_PER_ROW = 30


class NearPairs(NamedTuple):
    """Pairs of rows that lie near each other in one frame, each once, in no particular order."""

    first: npt.NDArray[np.intp]
    """Index (m,) of the one row."""
    second: npt.NDArray[np.intp]
    """Index (m,) of the other row."""
    square: npt.NDArray[np.float64]
    """Their squared distance (m,), px²."""

    def within(self, reach_px: float) -> NearPairs:
        """Those that are no further apart."""
        near = np.flatnonzero(self.square <= reach_px**2)
        return NearPairs(self.first.take(near), self.second.take(near), self.square.take(near))

    def moved(self, rows: Any) -> NearPairs:
        """The same pairs where their rows are now."""
        x, y = (np.asarray(rows[name], np.float64) for name in ("x", "y"))
        return self._replace(square=squared_distance(x, y, self.first, self.second))


def places(rows: Any) -> npt.NDArray[np.float64]:
    """Coordinates (n, 3) in which neighbours are near and other frames are far.

    Parameters
    ----------
    rows : structured array (n,), table, or mapping of columns
        Molecules or candidates with ``frame``, ``x``, ``y``.
    """
    x, y = (np.asarray(rows[name], np.float64) for name in ("x", "y"))
    return np.column_stack((x, y, np.asarray(rows["frame"]) * _FRAME_STEP))


def tree_of(rows: Any) -> cKDTree:
    """Search tree over :func:`places`, for distances below some thousand pixels."""
    from scipy.spatial import cKDTree

    return cKDTree(places(rows))


def pairs_within(rows: Any, reach_px: float) -> NearPairs:
    """All pairs of one frame that are no further apart, each once.

    The rows are put into square cells as wide as the reach, so that neighbours lie in the same cell or in one of those
    around it. Sorted line by line, three cells beside each other are one range of rows.

    Parameters
    ----------
    rows : structured array (n,), table, or mapping of columns
        Molecules or candidates with ``frame``, ``x``, ``y``, in any order.
    reach_px : float
        Largest distance, px.

    Returns
    -------
    NearPairs
    """
    x, y = (np.asarray(rows[name], np.float64) for name in ("x", "y"))
    n = len(x)
    if n < 2:
        return NearPairs(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0))
    frame = np.asarray(rows["frame"]).astype(np.int64)
    column, line = _cell(x, reach_px), _cell(y, reach_px)
    # One empty column on either side and one empty line between frames: no cell has a neighbour that is none.
    stride, lines = int(column.max()) + 3, int(line.max()) + 2
    cell = ((frame - frame.min()) * lines + line) * stride + column + 1
    order = np.argsort(cell, kind="stable")
    starts, ends = _ranges(cell.take(order), stride)
    first, second = _expand(starts, ends)
    first[np.searchsorted(first, n) :] -= n
    square = squared_distance(x.take(order), y.take(order), first, second)
    near = np.flatnonzero(square <= reach_px**2)
    return NearPairs(order.take(first.take(near)), order.take(second.take(near)), square.take(near))


def offsets_between(
    rows: Any, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How far the first row of each pair lies from the second one along x (m,) and y (m,), px.

    Parameters
    ----------
    rows : structured array (n,), table, or mapping of columns
        Molecules or candidates with ``x``, ``y``.
    first, second : array (m,) of int
        Indices of the rows of each pair, as of :func:`pairs_within`.

    Returns
    -------
    array (m,), array (m,)
    """
    along_x, along_y = (
        np.asarray(rows[axis]).take(first).astype(np.float64) - np.asarray(rows[axis]).take(second) for axis in "xy"
    )
    return along_x, along_y


def likelier_first(
    probability: npt.NDArray[Any], first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The likelier and the other one of each pair; of two that are equally likely the earlier one counts as likelier.

    Parameters
    ----------
    probability : array (n,)
        Of all rows.
    first, second : array (m,) of int
        Indices of the rows of each pair.

    Returns
    -------
    array (m,), array (m,) of int
    """
    lead = probability.take(first) - probability.take(second)
    ahead = np.where(lead == 0, first < second, lead > 0)
    return np.where(ahead, first, second), np.where(ahead, second, first)


def _ranges(cell: npt.NDArray[np.int64], stride: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the neighbours of each row begin and end: to its right in its own line (n), and in the next line (n).

    Everyone else finds this row themselves.
    """
    own, last = np.arange(len(cell)), int(cell[-1]) + stride + 2
    # Cells are counted where there are not too many of them for that, and searched for elsewhere.
    if last < _CELLS_PER_ROW * len(cell):
        at = np.zeros(last + 1, np.int64)
        np.cumsum(np.bincount(cell, minlength=last), out=at[1:])
        right, start, end = (at.take(cell + step) for step in (2, stride - 1, stride + 2))
    else:
        right, start, end = (np.searchsorted(cell, cell + step) for step in (2, stride - 1, stride + 2))
    return np.concatenate((own + 1, start)), np.concatenate((right, end))


def _expand(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All members of some ranges: the number of the range, and the member."""
    until = np.cumsum(ends - starts)
    total = int(until[-1])
    number = np.cumsum(np.bincount(until[:-1], minlength=total)[:total])
    return number, np.arange(total) + (ends - until).take(number)


def count_within(rows: Any, others: Any, reach_px: float) -> npt.NDArray[np.int64]:
    """How many others each row has within reach in its frame.

    Parameters
    ----------
    rows, others : structured array (n,), (m,), table, or mapping of columns
        Molecules or candidates with ``frame``, ``x``, ``y``, in any order; a row that is among the others has itself.
    reach_px : float
        Largest distance, px.

    Returns
    -------
    array (n,) of int
    """
    both = [[np.asarray(one[name], np.float64) for one in (rows, others)] for name in ("x", "y", "frame")]
    n = len(both[0][0])
    if n == 0 or len(both[0][1]) == 0:
        return np.zeros(n, np.int64)
    x, y, frame = (np.concatenate(pair) for pair in both)
    column, line = _cell(x, reach_px), _cell(y, reach_px)
    stride, lines = int(column.max()) + 3, int(line.max()) + 2
    cell = ((frame - frame.min()).astype(np.int64) * lines + line) * stride + column + 1
    order = np.argsort(cell[n:], kind="stable")
    around = np.concatenate([cell[:n] + step * stride for step in (-1, 0, 1)])
    starts, ends = (np.searchsorted(cell[n:], around + step, side, sorter=order) for step, side in _BESIDE)
    if (ends == starts).all():
        return np.zeros(n, np.int64)
    one, other = _expand(starts, ends)
    one %= n
    near = squared_distance(x, y, one, n + order.take(other)) <= reach_px**2
    return np.bincount(one[near], minlength=n)


def squared_distance(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Squared distance (m,) of the two rows of each pair."""
    return squares_between(as_complex(x, y), first, second)


def as_complex(x: npt.NDArray[np.floating[Any]], y: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.complex128]:
    """Places (n,) in the complex plane: both coordinates beside each other in memory are found at once."""
    place = x.astype(np.complex128)
    place.imag = y
    return place


def squares_between(
    place: npt.NDArray[np.complex128], first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Squared distance (m,) of the two places of each pair."""
    apart = place.take(first)
    apart -= place.take(second)
    square = np.square(apart.real)
    square += np.square(apart.imag)
    return square


def _cell(position: npt.NDArray[np.float64], side: float) -> npt.NDArray[np.int64]:
    return ((position - position.min()) / side).astype(np.int64)
