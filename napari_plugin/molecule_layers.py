"""Between tables of molecules and napari's Points layers.

A Points layer holds ``(t, y, x)`` in single precision and Fortran order, because napari looks at the extent of
every axis at each step through the movie: with a million molecules that takes 11 ms instead of 104.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_plugin.movie_layers import Place
from smlm_pb.errors import TableError
from smlm_pb.localizations import Localizations, MovieInfo

if TYPE_CHECKING:
    import pandas as pd

#: Key of ``layer.metadata`` under which the movie and the history of a table are kept.
METADATA_KEY = "smlm_pb"
_MARKER_SIZE_PX = 1.3


def point_coordinates(table: Localizations, ndim: int = 3, frame_axis: int | None = 0) -> npt.NDArray[np.float32]:
    """Positions for a Points layer.

    Parameters
    ----------
    table : Localizations
        n molecules.
    ndim : int
        Axes of the movie's layer.
    frame_axis : int or None
        Which of them counts frames; None for a single frame.

    Returns
    -------
    array (n, ndim), float32, Fortran order
        y and x in the last two columns, the frame in its own, zeros elsewhere.
    """
    data = np.zeros((len(table), ndim), dtype=np.float32, order="F")
    if frame_axis is not None:
        data[:, frame_axis] = table.frame
    data[:, -2] = table.y
    data[:, -1] = table.x
    return data


def features_of(table: Localizations) -> pd.DataFrame:
    """All columns of the table, under our names, as a data frame for ``layer.features``."""
    import pandas as pd

    return pd.DataFrame(table.columns)


def points_arguments(table: Localizations, *, place: Place | None = None, name: str = "molecules") -> dict[str, Any]:
    """Arguments for ``viewer.add_points`` (and, without ``data``, for a reader's layer tuple).

    Parameters
    ----------
    table : Localizations
        The molecules.
    place : Place, optional
        Where the movie lies, whose scale and units they get; camera pixels when left out.
    name : str
        Name of the layer.
    """
    place = place or Place()
    return {
        "data": point_coordinates(table, place.ndim, place.frame_axis),
        "features": features_of(table),
        "name": name,
        "metadata": {METADATA_KEY: metadata_of(table)},
        "symbol": "disc",
        "size": _MARKER_SIZE_PX,
        "face_color": "transparent",
        "border_color": "#00d0ff",
        "border_width": 0.15,
        "projection_mode": "all",
        **place.as_arguments(),
    }


def metadata_of(table: Localizations) -> dict[str, Any]:
    """What a layer must keep beside the columns to become a table again."""
    return {"info": dict(vars(table.info)), "provenance": table.provenance}


def table_of_layer(layer: Any, info: MovieInfo | None = None) -> Localizations:
    """Make a table of a Points layer; positions and frames are taken from the points themselves.

    Parameters
    ----------
    layer : napari.layers.Points
        Ours, or any other with ``(t, y, x)`` or ``(y, x)``.
    info : MovieInfo, optional
        The movie, for layers that do not know theirs; made up from the extent where missing.

    Returns
    -------
    Localizations

    Raises
    ------
    TableError
        When a point has no possible position or frame.
    """
    return table_of_points(layer.data, layer.features, layer.metadata.get(METADATA_KEY, {}), info, layer.name)


def table_of_points(
    data: npt.ArrayLike,
    features: Any,
    metadata: dict[str, Any],
    info: MovieInfo | None = None,
    name: str = "points",
) -> Localizations:
    """Make a table of the parts of a Points layer; see :func:`table_of_layer`.

    Parameters
    ----------
    data : array (n, ndim)
        Coordinates.
    features : DataFrame or mapping
        Further columns.
    metadata : dict
        What :func:`metadata_of` gave.
    info : MovieInfo, optional
        The movie where ``metadata`` does not hold it.
    name : str
        Name of the layer, for messages.
    """
    coordinates = np.asarray(data, dtype=np.float32)
    if coordinates.ndim != 2 or coordinates.shape[1] < 2:
        raise TableError(f"Layer '{name}' has no points with y and x; choose a layer of molecules.")
    if not np.isfinite(coordinates).all():
        raise TableError(f"Layer '{name}' has points without a position (NaN or infinite); delete them.")
    known = metadata.get("info")
    if known:
        info = MovieInfo(**known)
    leading = coordinates[:, :-2]
    frame = np.rint(leading[:, _frame_column(leading, info)]) if leading.shape[1] else np.zeros(len(coordinates))
    if len(frame) and frame.min() < 0:
        raise TableError(f"Layer '{name}' has points before the first frame; move or delete them.")
    columns: dict[str, npt.ArrayLike] = {"frame": frame, "x": coordinates[:, -1], "y": coordinates[:, -2]}
    for key in features:
        if key not in columns:
            columns[str(key)] = np.asarray(features[key])
    if info is None:
        top = coordinates.max(axis=0) if len(coordinates) else np.zeros(3)
        last = int(frame.max()) if len(frame) else 0
        info = MovieInfo(last + 1, int(top[-2]) + 2, int(top[-1]) + 2, name=name)
    return Localizations(columns, info, metadata.get("provenance", ()))


def _frame_column(leading: npt.NDArray[np.float32], info: MovieInfo | None) -> int:
    """The leading axis that varies; the last one where none does."""
    varying = [axis for axis in range(leading.shape[1]) if len(leading) and np.ptp(leading[:, axis]) > 0]
    return varying[-1] if varying else leading.shape[1] - 1
