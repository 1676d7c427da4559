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
