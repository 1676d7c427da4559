"""Keeping some of the molecules: by conditions, regions, or the number of their neighbours.

Every filter adds a step to the table's history: what was asked, and how many rows were left.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.expressions import evaluate_condition
from smlm_pb.errors import ConfigurationError, TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations


def filter_by(locs: Localizations, expression: str) -> Localizations:
    """Keep the rows that fulfil a condition.

    Parameters
    ----------
    locs : Localizations
        The table.
    expression : str
        For example ``"photons > 500 and sigma_nm < 20"``; see
        :func:`smlm_pb.analysis.expressions.evaluate_condition`. A row with an unknown value (NaN) fulfils no
        comparison.

    Returns
    -------
    Localizations

    Raises
    ------
    ConfigurationError
        When the condition cannot be read or names an unknown column.

    Examples
    --------
    >>> from smlm_pb.localizations import Localizations, MovieInfo
    >>> columns = {"frame": [0, 1], "x": [1, 2], "y": [1, 2], "photons": [100, 900]}
    >>> locs = Localizations(columns, MovieInfo(2, 8, 8))
    >>> filter_by(locs, "photons > 500").photons.tolist()
    [900.0]
    """
    return _keep(locs, evaluate_condition(locs, expression), {"condition": expression})


def filter_region(locs: Localizations, region: npt.ArrayLike, *, outside: bool = False) -> Localizations:
    """Keep the rows inside a region.

    Parameters
    ----------
    locs : Localizations
        The table.
    region : (y0, x0, y1, x1), or array (n, 2) of corners (y, x)
        A rectangle, or a polygon as napari's Shapes layer draws it; in camera pixels, the centre of the first pixel
        at 0. Coordinates of the rows do not change.
    outside : bool
        Keep what lies outside instead.

    Returns
    -------
    Localizations

    Raises
    ------
    ConfigurationError
        When the region is neither, or empty.
    """
    corners = np.asarray(region, dtype=np.float64)
    if not np.isfinite(corners).all():
        raise ConfigurationError("The region holds numbers that are not finite.")
    if corners.shape == (4,):
        y0, x0, y1, x1 = corners
        if not (y1 > y0 and x1 > x0):
            raise ConfigurationError(f"The region {tuple(corners.tolist())} is empty; give y0 < y1 and x0 < x1.")
        inside = (locs["y"] >= y0) & (locs["y"] < y1) & (locs["x"] >= x0) & (locs["x"] < x1)
    elif corners.ndim == 2 and corners.shape[1] == 2 and len(corners) >= 3:
        from matplotlib.path import Path

        inside = np.asarray(Path(corners).contains_points(np.stack([locs["y"], locs["x"]], axis=1)), dtype=bool)
    else:
        raise ConfigurationError("A region is (y0, x0, y1, x1) or at least three corners (y, x).")
    return _keep(locs, ~inside if outside else inside, {"region_yx": corners.tolist(), "outside": outside})


def filter_neighbours(
    locs: Localizations, *, radius_nm: float, min_neighbours: int, pixel_size_nm: float | None = None
) -> Localizations:
    """Keep the rows that have enough others, of any frame, around them.

    Parameters
    ----------
    locs : Localizations
        The table.
    radius_nm : float
        Radius of the surroundings.
    min_neighbours : int
        Others that must lie in them.
    pixel_size_nm : float, optional
        Edge of a camera pixel, where the table does not know it.

    Returns
    -------
    Localizations

    Raises
    ------
    TableError
        When the pixel size is unknown.
    ConfigurationError
        When an option is impossible.
    """
    from scipy.spatial import cKDTree

    pixel = pixel_size_nm or locs.info.pixel_size_nm
    if pixel is None:
        raise TableError("radius_nm needs the pixel size, which this table does not know; give pixel_size_nm.")
    if not (math.isfinite(radius_nm) and radius_nm > 0) or min_neighbours < 0:
        raise ConfigurationError("Give radius_nm above 0 and min_neighbours from 0.")
    step = {"radius_nm": radius_nm, "min_neighbours": min_neighbours}
    if not len(locs):
        return _keep(locs, np.zeros(0, bool), step)
    points = np.stack([locs["y"], locs["x"]], axis=1).astype(np.float64)
    tree = cKDTree(points)
    # The distance to the k-th neighbour decides; counting all of them would take long in dense places.
    reach = radius_nm / pixel
    distance = tree.query(points, k=[min_neighbours + 1], distance_upper_bound=np.nextafter(reach, np.inf))[0][:, 0]
    return _keep(locs, distance <= reach, step)


def _keep(locs: Localizations, mask: npt.NDArray[np.bool_], what: dict[str, Any]) -> Localizations:
    kept = locs.select(mask)
    return kept.with_provenance({"step": "filter", **what, "rows_before": len(locs), "rows_after": len(kept)})
