"""Localization precision without truth, from molecules that stay on for more than one frame.

A molecule seen in two consecutive frames is localized twice, and the distance of the two positions tells the
precision. NeNA (Endesfelder et al., Histochem. Cell Biol. 141, 629, 2014) fits the distances to the nearest neighbour
in the next frame with ``d/(2σ²) · exp(−d²/4σ²)`` plus a term for other molecules that happen to lie closer. Here that
term is not fitted but measured, as the nearest neighbour in far frames: with ``S(d)`` the fraction of molecules that
have no neighbour within ``d``,

    S_next(d) = S_far(d) · (1 − a·(1 − exp(−d²/4σ²))),

where ``a`` is the fraction that stays on and ``σ`` the precision per axis (not the √2 larger one of a pair).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError, TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]

LEAST_PAIRS = 100
#: A molecule without another one within this distance in its frame stands alone, px.
ALONE_PX = 4.0
_N_BINS = 120
_N_LAGS = 4


@dataclass(frozen=True)
class Nena:
    """Precision from consecutive frames.

    Parameters
    ----------
    sigma_nm : float
        Precision per axis: standard deviation of the position error along x or y.
    standard_error_nm : float
        Statistical uncertainty of it.
    staying_fraction : float
        Fraction of the molecules that are on in the next frame too.
    n_pairs : float
        Expected number of pairs of the same molecule that were used.
    pull : float or None
        Actual over reported precision of the molecules that stand alone in their frame (:data:`ALONE_PX`), from
        distances divided by what ``sigma_x`` and ``sigma_y`` promise; 1 when the reported precision is honest, None
        where the table reports none or too few stand alone. The errors of close ones have much in common from frame
        to frame, as the same neighbours shine there, and what is common does not show in distances.
    distance_nm, observed, fitted : array (n_bins,)
        Centres of the distance bins, and the fraction of nearest neighbours in each: found and fitted.
    """

    sigma_nm: float
    standard_error_nm: float
    staying_fraction: float
    n_pairs: float
    pull: float | None
    distance_nm: FloatArray
    observed: FloatArray
    fitted: FloatArray

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the curves."""
        curves = ("distance_nm", "observed", "fitted")
        return {name: value for name, value in vars(self).items() if name not in curves}


def nena(
    locs: Localizations, *, max_distance_nm: float | None = None, pixel_size_nm: float | None = None, seed: int = 0
) -> Nena:
    """Measure the localization precision from molecules that stay on.

    Parameters
    ----------
    locs : Localizations
        Not linked: every frame of a molecule is a row.
    max_distance_nm : float, optional
        Largest distance that is looked at; should be several times the precision. Found by itself when not given.
    pixel_size_nm : float, optional
        Edge of a camera pixel, where the table does not know it.
    seed : int
        Seed of the choice of far frames.

    Returns
    -------
    Nena

    Raises
    ------
    TableError
        When too few molecules stay on, or they lie too dense to be told apart.

    Notes
    -----
    The first and last frame of a blink hold fewer photons, so the result is a little worse than the precision in full
    frames. Where precisions differ from molecule to molecule it lies near their root mean square.
    """
    pixel = pixel_size_nm or locs.info.pixel_size_nm
    if pixel is None:
        raise TableError("NeNA needs the pixel size, which this table does not know; give pixel_size_nm.")
    if max_distance_nm is not None and not (np.isfinite(max_distance_nm) and max_distance_nm > 0):
        raise ConfigurationError(f"max_distance_nm = {max_distance_nm} is impossible; give nm above 0, e.g. 200.")
    reach_px = 3.0 if max_distance_nm is None else max_distance_nm / pixel
    points = np.stack([locs["frame"], locs["y"], locs["x"]], axis=1).astype(np.float64)
    next_px, far_px, _ = _neighbour_distances(points, reach_px, seed)
    fit = _fit_in_range(next_px, far_px, reach_px, adapt=max_distance_nm is None)
    _refuse_unless_sound(fit, pixel)
    centres = (np.arange(_N_BINS) + 0.5) * fit.range / _N_BINS
    return Nena(
        sigma_nm=fit.sigma * pixel,
        standard_error_nm=fit.standard_error * pixel,
        staying_fraction=fit.fraction,
        n_pairs=fit.fraction * len(points),
        pull=_pull_of_lone(locs, points, reach_px, seed),
        distance_nm=centres * pixel,
        observed=fit.observed,
        fitted=fit.expected,
    )


@dataclass(frozen=True)
class _Fit:
    sigma: float
    standard_error: float
    fraction: float
    range: float
    observed: FloatArray
    expected: FloatArray
    n: int

    @property
    def n_bins_in_peak(self) -> float:
        return self.sigma / (self.range / _N_BINS)


def _neighbour_distances(
    points: FloatArray, reach_px: float, seed: int
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.intp]]:
    """Distance to the nearest molecule of the next frame and of some far frames; infinite where there is none.

    Returns
    -------
    next_px : array (n,)
    far_px : array (n_lags, n)
    partner : int array (n,)
        Row of the nearest molecule of the next frame.
    """
    from scipy.spatial import cKDTree

    if len(points) < LEAST_PAIRS:
        raise TableError(f"NeNA needs some hundred molecules; the table has {len(points)}.")
    first, last = points[:, 0].min(), points[:, 0].max()
    n_frames = int(last - first) + 1
    if n_frames < 20:
        raise TableError(f"NeNA needs molecules over at least 20 frames; these span {n_frames}.")
    stretch = np.array([4 * reach_px, 1.0, 1.0])
    tree = cKDTree(points * stretch)
    has_next = points[:, 0] < last

    def nearest(lag: int) -> tuple[FloatArray, npt.NDArray[np.intp]]:
        moved = points.copy()
        moved[:, 0] = (moved[:, 0] - first + lag) % n_frames + first
        return tree.query(moved * stretch, distance_upper_bound=reach_px)

    next_px, partner = nearest(1)
    lags = np.random.default_rng(seed).integers(
        n_frames // 4, max(n_frames - n_frames // 4, n_frames // 4 + 1), _N_LAGS
    )
    far_px = np.stack([nearest(int(lag))[0] for lag in lags])
    return next_px[has_next], far_px[:, has_next], partner[has_next]


def _fit(next_px: FloatArray, far_px: FloatArray, range_px: float) -> _Fit:
    """Maximum likelihood of the binned distances."""
    from scipy.optimize import minimize

    edges = np.linspace(0, range_px, _N_BINS + 1)
    n = len(next_px)
    counts = np.histogram(next_px, edges)[0].astype(np.float64)
    beyond = n - counts.sum()
    far_cumulated = np.concatenate([[0], np.cumsum(np.histogram(far_px, edges)[0])]) / far_px.size
    far_survival = np.maximum(1 - far_cumulated, 1e-12)

    def survival(parameters: FloatArray) -> FloatArray:
        log_sigma, logit = parameters
        fraction = 1 / (1 + np.exp(-logit))
        gone = -np.expm1(-(edges**2) / (4 * np.exp(2 * log_sigma)))
        return np.asarray(far_survival * (1 - fraction * gone))

    def cost(parameters: FloatArray) -> float:
        s = survival(parameters)
        cells = np.maximum(-np.diff(s), 1e-15)
        return float(-(counts * np.log(cells)).sum() - beyond * np.log(max(s[-1], 1e-15)))

    # An excess of near neighbours over the far frames is what is looked for; start where it rises.
    starts = [(np.log(range_px * share), logit) for share in (0.02, 0.06, 0.15, 0.3) for logit in (-2.0, 0.5)]
    bounds = [(np.log(range_px / 500), np.log(range_px)), (-8.0, 8.0)]
    best = min((minimize(cost, s, method="L-BFGS-B", bounds=bounds) for s in starts), key=lambda result: result.fun)
    log_sigma, logit = best.x
    expected = -np.diff(survival(best.x))
    return _Fit(
        sigma=float(np.exp(log_sigma)),
        standard_error=float(np.exp(log_sigma) * _standard_error(cost, best.x)),
        fraction=float(1 / (1 + np.exp(-logit))),
        range=range_px,
        observed=counts / n,
        expected=expected,
        n=n,
    )


def _standard_error(cost: Any, at: FloatArray, step: float = 1e-3) -> float:
    """Standard error of the first parameter from the curvature of the cost; infinite where there is none."""
    curvature = np.zeros((2, 2))
    unit = np.eye(2) * step
    for i in range(2):
        for j in range(2):
            corners = [cost(at + a * unit[i] + b * unit[j]) for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
            curvature[i, j] = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * step**2)
    try:
        variance = np.linalg.inv(curvature)[0, 0]
    except np.linalg.LinAlgError:
        return float("inf")
    return float(np.sqrt(variance)) if variance > 0 else float("inf")


def _fit_in_range(next_px: FloatArray, far_px: FloatArray, reach_px: float, *, adapt: bool) -> _Fit:
    """Fit distances up to the reach, or up to less where bins of a fixed number would not resolve the peak."""
    fit = _fit(next_px, far_px, reach_px)
    if adapt:
        for _ in range(4):
            range_px = min(reach_px, 8 * fit.sigma)
            if fit.n_bins_in_peak >= 8 or range_px >= 0.99 * fit.range:
                break
            fit = _fit(next_px, far_px, range_px)
    return fit


def _refuse_unless_sound(fit: _Fit, pixel_size_nm: float) -> None:
    if fit.fraction * fit.n < LEAST_PAIRS:
        raise TableError(
            f"NeNA needs at least {LEAST_PAIRS} molecules that stay on for two frames; here about "
            f"{fit.fraction * fit.n:.0f} do. Use a shorter exposure, or a longer movie."
        )
    if not fit.standard_error < 0.2 * fit.sigma:
        raise TableError(
            f"NeNA cannot tell the precision: {fit.sigma * pixel_size_nm:.1f} ± "
            f"{fit.standard_error * pixel_size_nm:.1f} nm; the molecules lie too dense, or too few stay on."
        )


def _pull_of_lone(locs: Localizations, points: FloatArray, reach_px: float, seed: int) -> float | None:
    """Actual over reported precision of the molecules (rows of frame, y, x in ``points``) that stand alone."""
    if "sigma_x" not in locs or "sigma_y" not in locs:
        return None
    from smlm_pb.localization.neighbours import count_within

    lone = np.flatnonzero(count_within(locs, locs, ALONE_PX) == 1)
    try:
        next_px, far_px, partner = _neighbour_distances(points[lone], reach_px, seed)
        fit = _fit_in_range(next_px, far_px, reach_px, adapt=True)
        _refuse_unless_sound(fit, 1.0)
    except TableError:
        return None
    return _pull(locs.select(lone), next_px, far_px, partner, fit)


def _pull(
    locs: Localizations,
    next_px: FloatArray,
    far_px: FloatArray,
    partner: npt.NDArray[np.intp],
    fit: _Fit,
) -> float | None:
    """Actual over reported precision: the same fit on distances in units of the reported precision of the pair."""
    variance = (locs["sigma_x"].astype(np.float64) ** 2 + locs["sigma_y"].astype(np.float64) ** 2) / 2
    has_next = locs["frame"] < locs["frame"].max()
    found = np.isfinite(next_px)
    own = variance[has_next]
    pair = own.copy()
    pair[found] = (own[found] + variance[partner[found]]) / 2
    usable = np.isfinite(own) & np.isfinite(pair) & (own > 0) & (pair > 0)
    if np.count_nonzero(usable) < LEAST_PAIRS:
        return None
    reported = np.sqrt(pair[usable])
    scale = fit.sigma / float(np.sqrt(np.median(own[usable])))
    in_units = _fit(next_px[usable] / reported, far_px[:, usable] / np.sqrt(own[usable]), 8 * scale)
    return in_units.sigma
