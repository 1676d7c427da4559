"""Who is near whom in the same frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

#: Frames are this far apart as a third coordinate: beyond any reach within a frame, px.
_FRAME_STEP = 1e4


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


def pairs_within(rows: Any, reach_px: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
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
    (array (m,), array (m,)) of int
        Indices of the two rows of each pair, in no particular order.
    """
    x, y = (np.asarray(rows[name], np.float64) for name in ("x", "y"))
    n = len(x)
    if n < 2:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    frame = np.asarray(rows["frame"]).astype(np.int64)
    column, line = _cell(x, reach_px), _cell(y, reach_px)
    # One empty column on either side and one empty line between frames: no cell has a neighbour that is none.
    stride, lines = int(column.max()) + 3, int(line.max()) + 2
    cell = ((frame - frame.min()) * lines + line) * stride + column + 1
    order = np.argsort(cell, kind="stable")
    cell = cell.take(order)
    own = np.arange(n)
    # To the right in the own line, and the three cells of the next line: everyone else finds this row themselves.
    ends = np.searchsorted(cell, np.concatenate((cell + 1, cell + stride + 1)), side="right")
    starts = np.concatenate((own + 1, np.searchsorted(cell, cell + stride - 1, side="left")))
    lengths = ends - starts
    first = np.concatenate((own, own)).repeat(lengths)
    second = np.arange(len(first))
    second += (starts - np.cumsum(lengths) + lengths).repeat(lengths)
    near = np.flatnonzero(squared_distance(x.take(order), y.take(order), first, second) <= reach_px**2)
    return order.take(first.take(near)), order.take(second.take(near))


def squared_distance(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Squared distance (m,) of the two rows of each pair."""
    distance, across = x.take(first), y.take(first)
    distance -= x.take(second)
    across -= y.take(second)
    distance *= distance
    across *= across
    distance += across
    return distance


def _cell(position: npt.NDArray[np.float64], side: float) -> npt.NDArray[np.int64]:
    return ((position - position.min()) / side).astype(np.int64)
