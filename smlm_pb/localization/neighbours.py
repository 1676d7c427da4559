"""Who is near whom in the same frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.compiled import compiled

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

#: Frames are this far apart as a third coordinate: beyond any reach within a frame, px.
_FRAME_STEP = 1e4
#: Room for the pairs at first; there is more where it does not suffice.
_PAIRS_PER_ROW = 8
FloatArray = npt.NDArray[np.float64]


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
        along_x, along_y = offsets_between(rows, self.first, self.second)
        return self._replace(square=along_x**2 + along_y**2)


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
    around it. Sorted line by line, cells beside each other are one range of rows.

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
    x, y = (np.ascontiguousarray(rows[name], np.float64) for name in ("x", "y"))
    if len(x) < 2:
        return NearPairs(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0))
    cell, stride = _cells(x, y, np.asarray(rows["frame"]).astype(np.int64), reach_px)
    order = np.argsort(cell, kind="stable")
    first, second, square = _pairs(x.take(order), y.take(order), cell.take(order), stride, reach_px**2)
    return NearPairs(order.take(first), order.take(second), square)


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


@compiled
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
    ahead, behind = first.copy(), second.copy()
    for k in range(len(first)):
        lead = probability[second[k]] - probability[first[k]]
        if lead > 0 or (lead == 0 and second[k] < first[k]):
            ahead[k], behind[k] = second[k], first[k]
    return ahead, behind


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
    cell, stride = _cells(x, y, frame.astype(np.int64), reach_px)
    order = n + np.argsort(cell[n:], kind="stable")
    return _counts(x, y, cell, order, stride, reach_px**2)


def _cells(
    x: FloatArray, y: FloatArray, frame: npt.NDArray[np.int64], side: float
) -> tuple[npt.NDArray[np.int64], int]:
    """Number of the square cell (n,) that each row lies in, and by how much it grows from line to line.

    One empty column on either side and one empty line between frames: no cell has a neighbour that is none.
    """
    column, line = (((along - along.min()) / side).astype(np.int64) for along in (x, y))
    stride, lines = int(column.max()) + 3, int(line.max()) + 2
    return ((frame - frame.min()) * lines + line) * stride + column + 1, stride


@compiled
def _pairs(
    x: FloatArray, y: FloatArray, cell: npt.NDArray[np.int64], stride: int, most: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """Pairs of rows in the order of their cells, and their squared distances up to the most."""
    n, found = len(cell), 0
    first, second = np.empty(_PAIRS_PER_ROW * n, np.intp), np.empty(_PAIRS_PER_ROW * n, np.intp)
    square = np.empty(_PAIRS_PER_ROW * n)
    right, below, end = 0, 0, 0
    for i in range(n):
        # To its right in its own line, and in the next line: everyone else finds this row themselves.
        while right < n and cell[right] <= cell[i] + 1:
            right += 1
        while below < n and cell[below] < cell[i] + stride - 1:
            below += 1
        while end < n and cell[end] <= cell[i] + stride + 1:
            end += 1
        if found + right - i + end - below > len(first):
            room = len(first) + right - i + end - below
            first = np.concatenate((first, np.empty(room, np.intp)))
            second = np.concatenate((second, np.empty(room, np.intp)))
            square = np.concatenate((square, np.empty(room)))
        for start, stop in ((i + 1, right), (below, end)):
            for k in range(start, stop):
                apart = (x[i] - x[k]) ** 2 + (y[i] - y[k]) ** 2
                first[found], second[found], square[found] = i, k, apart
                found += apart <= most
    return first[:found], second[:found], square[:found]


@compiled
def _counts(
    x: FloatArray, y: FloatArray, cell: npt.NDArray[np.int64], order: npt.NDArray[np.intp], stride: int, most: float
) -> npt.NDArray[np.int64]:
    """How many of the last rows, in the order of their cells, each of the first ones has within reach."""
    n = len(cell) - len(order)
    counts = np.zeros(n, np.int64)
    sorted_cell = cell[order]
    for i in range(n):
        for line in (-1, 0, 1):
            middle = cell[i] + line * stride
            k = np.searchsorted(sorted_cell, middle - 1)
            while k < len(order) and sorted_cell[k] <= middle + 1:
                other = order[k]
                counts[i] += (x[i] - x[other]) ** 2 + (y[i] - y[other]) ** 2 <= most
                k += 1
    return counts
