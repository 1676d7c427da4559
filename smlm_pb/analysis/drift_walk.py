"""A path through noisy measurements: a random walk with heavy-tailed steps around a smooth curve.

How flexible the curve is, how far the walk steps, and how much noisier the measurements are than they claim follow from
the measurements, by their marginal likelihood.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[Any]

# Degrees of freedom of the steps; 2 lets single steps be 30 times the typical one.
TAIL = 2.0
# Pieces of the smooth curve around which the path walks: none, a line, splines.
_KNOTS = (0, 1, 4, 10, 25)
# With so many stretches the choice of the curve is kept for the finer ones.
_ENOUGH_TO_CHOOSE = 300


class Walk(NamedTuple):
    """A random walk around a smooth curve: typical squared step, weights of the steps, excess noise, knots."""

    step_variance: float
    weight: FloatArray
    excess: float
    n_knots: int


def follow(
    measured: FloatArray, information: FloatArray, walk: Walk | None, coarser: Walk | None
) -> tuple[FloatArray, Walk]:
    """Fit a random walk with heavy-tailed steps around a smooth curve through measurements; update its strength.

    In the first round of a level (no ``walk`` yet) the flexibility of the curve and the strength are chosen by the
    marginal likelihood, with the usual penalty for every coefficient, around what was found with fewer stretches.
    """
    if walk is None:
        walk = _choose(measured, information, coarser)
    return _follow_around(measured, information, walk)


def _choose(measured: FloatArray, information: FloatArray, coarser: Walk | None) -> Walk:
    n = len(measured)
    if coarser is None or len(coarser.weight) < _ENOUGH_TO_CHOOSE:
        curves = [n_knots for n_knots in _KNOTS if n_knots * 4 <= n]
        variances: FloatArray = 10.0 ** np.arange(-7, 3.5, 0.75) / max(float(np.median(information)), 1e-12)
    else:
        k = _KNOTS.index(coarser.n_knots)
        curves = list(_KNOTS[k : k + 2])
        # The variance of the steps of a random walk falls with their length.
        variances = coarser.step_variance * (len(coarser.weight) + 1) / n * 10.0 ** np.arange(-1, 4)
    best, best_evidence = Walk(float(variances[0]), np.ones(n - 1), 1.0, 0), -math.inf
    for n_knots in curves:
        rest = measured - _smooth_curve(measured, information, n_knots)
        penalty = 0.5 * (n_knots + 2) * math.log(n) if n_knots else 0.0
        for variance in variances:
            weight, evidence = np.ones(n - 1), 0.0
            for _ in range(3):
                _, _, squared_step, evidence = smooth(rest, information, weight / variance)
                evidence += 0.5 * TAIL * float((np.log(weight) - weight).sum())  # of the tail's scale mixture
                weight = (TAIL + 1) / (TAIL + squared_step / variance)
            if evidence - penalty > best_evidence:
                best, best_evidence = Walk(float(variance), weight, 1.0, n_knots), evidence - penalty
    return best


def _follow_around(
    measured: FloatArray, information: FloatArray, walk: Walk, n_rounds: int = 5
) -> tuple[FloatArray, Walk]:
    """Expectation maximisation of the strength of the walk, around a given curve."""
    curve = _smooth_curve(measured, information, walk.n_knots)
    rest: FloatArray = measured - curve
    step_variance, weight, excess = walk.step_variance, walk.weight, walk.excess
    known = information > 0
    mean: FloatArray = rest
    for _ in range(n_rounds):
        mean, variance, squared_step, _ = smooth(rest, information / excess, weight / step_variance)
        weight = (TAIL + 1) / (TAIL + squared_step / step_variance)
        step_variance = max(float(np.mean(weight * squared_step)), 1e-8)
        misfit = ((rest - mean) ** 2 + variance) * information
        excess = float(np.clip(misfit[known].mean(), 1.0, 20.0)) if known.any() else 1.0
    return mean + curve, Walk(step_variance, weight, excess, walk.n_knots)


def _smooth_curve(measured: FloatArray, information: FloatArray, n_knots: int) -> FloatArray:
    """Weighted least-squares curve: none (0), a line (1), or a cubic spline of so many pieces."""
    design = spline_design(len(measured), n_knots)
    if not design.shape[1]:
        return np.zeros(len(measured))
    root = np.sqrt(information + 1e-9 * information.max())[:, None]
    return np.asarray(design @ np.linalg.lstsq(design * root, measured * root[:, 0], rcond=None)[0])


def spline_design(n: int, n_knots: int) -> FloatArray:
    """Columns (n, …) of which a curve is composed: none (0), a line (1), or cubic splines of so many pieces."""
    from scipy.interpolate import BSpline

    if n_knots == 0:
        return np.zeros((n, 0))
    degree, t = (1 if n_knots == 1 else 3), np.linspace(0, 1, n)
    knots = np.concatenate([np.zeros(degree), np.linspace(0, 1, n_knots + 1), np.ones(degree)])
    return np.asarray(BSpline.design_matrix(t, knots, degree).toarray())


def smooth(
    measured: FloatArray, information: FloatArray, stiffness: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Posterior of a random walk: mean, variance, expected squares of the steps, and log marginal likelihood.

    The precision matrix is tridiagonal; the diagonal of its inverse follows from the pivots of its factorisation from
    either end, and the one beside it from these (Meurant, SIAM J. Matrix Anal. Appl. 13, 707, 1992).
    """
    from scipy.linalg.lapack import dpttrf, dpttrs

    diagonal = information.copy()
    diagonal[:-1] += stiffness
    diagonal[1:] += stiffness
    diagonal += 1e-9 * diagonal.max()
    pivot, factor, _ = dpttrf(diagonal, -stiffness)
    mean = dpttrs(pivot, factor, information * measured)[0]
    backward = dpttrf(diagonal[::-1], -stiffness[::-1])[0][::-1]
    v = 1 / (pivot + backward - diagonal)
    covariance = -factor * v[1:]
    squared_step = np.diff(mean) ** 2 + v[1:] + v[:-1] - 2 * covariance
    # Of the Gaussian measurements and steps, integrated over the path (flat over its mean level).
    misfit = float(information @ (measured - mean) ** 2 + stiffness @ np.diff(mean) ** 2)
    logs = float(np.log(information[information > 0]).sum() + np.log(stiffness).sum() - np.log(pivot).sum())
    return mean, v, squared_step, 0.5 * (logs - misfit)
