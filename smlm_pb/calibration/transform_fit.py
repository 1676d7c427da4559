"""Fitting polynomial maps to pairs of points: robustly, of no higher order than the points call for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smlm_pb.calibration.transform import Transform, exponents, terms
from smlm_pb.errors import TableError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """A map and how well it holds."""

    transform: Transform
    #: Points that took part; the others lay too far off.
    used: npt.NDArray[np.bool_]
    #: Target minus mapped position of every point (n, 2), px.
    residual: FloatArray
    #: Root mean square distance of points that had no part in the fit (cross-validation), px.
    held_out_px: float


#: Points further off than this many robust deviations take no part.
_REJECT = 5.0
_FOLDS = 10


def fit_transform(
    source: FloatArray, target: FloatArray, *, purpose: str, order: int | str = "auto", highest: int = 3
) -> Fit:
    """Fit a map from points to points, robustly.

    Parameters
    ----------
    source, target : array (n, 2)
        Positions as (x, y), px.
    purpose : str
        One of :data:`PURPOSES`.
    order : int or "auto"
        Order of the polynomial; ``"auto"``: the lowest one whose error on points left out is no more than 2 % above
        the best.
    highest : int
        Highest order tried.

    Raises
    ------
    TableError
        When there are too few points for the order.
    """
    needed = 2 * len(exponents(1 if order == "auto" else int(order)))
    if len(source) < needed:
        raise TableError(f"{len(source)} points are too few for a map of order {order}: it needs {needed}.")
    if order != "auto":
        return _fit(source, target, purpose, int(order))
    fits = [
        _fit(source, target, purpose, candidate)
        for candidate in range(1, highest + 1)
        if len(source) >= 2 * len(exponents(candidate))
    ]
    best = min(fit.held_out_px for fit in fits)
    return next(fit for fit in fits if fit.held_out_px <= 1.02 * best)


def _fit(source: FloatArray, target: FloatArray, purpose: str, order: int) -> Fit:
    low, high = source.min(0), source.max(0)
    centre, scale = np.asarray((low + high) / 2, np.float64), float(max((high - low).max() / 2, 1e-9))
    design = terms(source, order, centre, scale)
    used = np.ones(len(source), bool)
    for _ in range(10):
        coefficients = np.linalg.lstsq(design[used], target[used], rcond=None)[0]
        residual = target - design @ coefficients
        distance = np.hypot(*residual.T)
        # The median distance of a 2-D normal distribution is 1.177 sigma.
        limit = _REJECT * float(np.median(distance[used])) / 1.177 + 1e-6
        kept = distance <= limit
        if (kept == used).all() or kept.sum() < 2 * design.shape[1]:
            break
        used = kept
    transform = Transform(
        purpose, order, np.asarray(coefficients.T, np.float64), centre, scale, (*low.tolist(), *high.tolist())
    )
    return Fit(transform, used, residual, _held_out(design[used], target[used]))


def _held_out(design: FloatArray, target: FloatArray) -> float:
    """Root mean square distance of points to maps that were fitted without them."""
    fold = np.random.default_rng(0).permutation(len(target)) % min(_FOLDS, len(target))
    square = 0.0
    for k in range(int(fold.max()) + 1):
        out = fold == k
        if (~out).sum() < design.shape[1]:
            return math.inf
        coefficients = np.linalg.lstsq(design[~out], target[~out], rcond=None)[0]
        square += float(((target[out] - design[out] @ coefficients) ** 2).sum())
    return math.sqrt(square / len(target))
