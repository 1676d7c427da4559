"""Gain and offset of the camera, from the noise of the movie itself.

The microscope passes no light structure near the highest spatial frequency of the pixel grid, so what the
frames hold there is noise. Its variance rises linearly with the local mean,

    variance = s · mean + a,    s = F² · (ADU per e⁻),    a = −s · offset + read variance,

with the excess factor F² = 2 for electron multiplication, else 1 (Heintzmann et al., "Calibrating photon
counts from a single image", arXiv:1611.05654). Here the highest frequencies are picked by differences of
order n along both axes, whose response is a bump around the corner of the Fourier plane that narrows with n.
Static structure and fixed-pattern noise are subtracted beforehand. What a narrow PSF leaves at the corner is
measured with a lower order, at which it is much larger, and subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.frame_sample import FloatArray, FrameSample

_TILE_PX = 8
#: Largest part of a bright molecule's power (5000 e⁻) that may remain at the corner relative to its noise.
_TOLERATED_LEAK = 0.01 / 5000
_ORDERS = (3, 4, 6, 8, 10, 12, 16)
#: Order of the differences against which the noise of order ``high`` is held.
_TOP_ORDER = 24
_GROUPS = 10
_ITERATIONS = 20


@dataclass(frozen=True)
class NoiseLine:
    """Variance of the noise against the mean: ``variance = slope · mean + intercept`` in ADU.

    ``covariance`` belongs to (slope, intercept); ``mean`` and ``variance`` are averages over the sample.
    ``leak_fraction`` is the part of the slope that was ascribed to the PSF and subtracted. ``flatness`` is
    the ratio of the power at order ``high`` to that still closer to the corner, 1 for white noise, with its
    error; NaN where the patches are too small to tell.
    """

    slope: float
    intercept: float
    covariance: FloatArray
    mean: float
    variance: float
    high: int
    low: int
    leak_fraction: float
    flatness: float
    flatness_error: float

    @property
    @np.errstate(invalid="ignore")
    def variance_error(self) -> float:
        """Standard error of ``variance``."""
        row = np.array([self.mean, 1.0])
        return float(np.sqrt(row @ self.covariance @ row))


def leakage(order: int, psf_sigma_px: float) -> float:
    """Power that a pixel-integrated Gaussian leaves in the differences of order ``order``, per photon².

    Parameters
    ----------
    order : int
        Order of the differences along each axis, normalized to unit noise gain.
    psf_sigma_px : float
        Standard deviation of the PSF, px.

    Returns
    -------
    float
        Expected sum of squares that one molecule of one photon leaves, averaged over sub-pixel positions.
    """
    frequency = (np.arange(256) + 0.5) / 256 - 0.5
    response = (2 * np.sin(np.pi * frequency)) ** (2 * order) / comb(2 * order, order)
    power = np.zeros_like(frequency)
    for alias in range(-3, 4):
        shifted = frequency + alias
        power += (np.exp(-2 * (np.pi * psf_sigma_px * shifted) ** 2) * np.sinc(shifted)) ** 2
    return float(np.mean(response * power)) ** 2


def choose_orders(psf_sigma_px: float | None, shortest_px: int) -> tuple[int, int] | None:
    """Choose the order at which a PSF is gone, and a lower one that still shows it.

    Parameters
    ----------
    psf_sigma_px : float or None
        Standard deviation of the PSF; the narrowest usual one is assumed when unknown.
    shortest_px : int
        Shortest side of the patches.

    Returns
    -------
    (high, low) or None
        None when the patches are too small for any order.
    """
    sigma = 0.8 if psf_sigma_px is None else psf_sigma_px
    fitting = [order for order in _ORDERS if order + _TILE_PX <= shortest_px]
    if not fitting:
        return None
    clean = [order for order in fitting if leakage(order, sigma) < _TOLERATED_LEAK]
    high = clean[0] if clean else fitting[-1]
    low = max(1, round(0.375 * high))
    return high, low + (high - low) % 2


def _differences(values: FloatArray, order: int) -> FloatArray:
    """Differences of an order along both axes; those of a higher order go on from there."""
    for _ in range(order):
        values = np.diff(np.diff(values, axis=-1), axis=-2)
    return values


def _power(differences: FloatArray, order: int, margin: int = 0) -> FloatArray:
    """Square of differences, with unit noise gain, averaged over tiles; without a margin on every side."""
    height, width = differences.shape[-2:]
    inner = differences[..., margin : height - margin, margin : width - margin]
    return _tile((inner / comb(2 * order, order)) ** 2)


def _corner_mean(means: FloatArray, order: int) -> FloatArray:
    """Average the pixel means as `_power` averages their variances."""
    weights = np.array([comb(order, k) ** 2 for k in range(order + 1)], dtype=float) / comb(2 * order, order)
    rows = means.shape[-2] - order
    means = sum(weight * means[..., k : k + rows, :] for k, weight in enumerate(weights))
    columns = means.shape[-1] - order
    return sum(weight * means[..., k : k + columns] for k, weight in enumerate(weights))


def _unclipped(clipped: npt.NDArray[np.bool_], order: int, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Tiles (of that shape) on whose differences no clipped pixel has any influence."""
    if not clipped.any():
        return np.ones(shape, bool)
    return np.asarray(_tile(_corner_mean(clipped.astype(float), order)) == 0)


def _flatness(at_high: FloatArray, clipped: npt.NDArray[np.bool_], high: int) -> tuple[float, float]:
    """Compare the noise power of differences of order ``high`` with that at a higher one, over the same pixels."""
    top = min(_TOP_ORDER, min(clipped.shape[2:]) - _TILE_PX) // 2 * 2 + high % 2
    if top < high + 4:
        return float("nan"), float("nan")
    narrow = _power(_differences(at_high, top - high), top)
    usable = _unclipped(clipped, top, narrow.shape)
    if usable.sum() < 2 * _GROUPS:
        return float("nan"), float("nan")
    wide, narrow = _power(at_high, high, (top - high) // 2)[usable], narrow[usable]
    ratio = float(wide.mean() / max(narrow.mean(), 1e-300))
    error = float(np.std(wide - ratio * narrow) / np.sqrt(wide.size) / max(narrow.mean(), 1e-300))
    return ratio, error


def _tile(values: FloatArray) -> FloatArray:
    """Average over tiles; (patch, frame, y, x) becomes (frame, tile)."""
    n_patches, n_frames, height, width = values.shape
    rows, columns = max(1, height // _TILE_PX), max(1, width // _TILE_PX)
    size_y, size_x = height // rows, width // columns
    cut = values[..., : rows * size_y, : columns * size_x]
    tiles = cut.reshape(n_patches, n_frames, rows, size_y, columns, size_x).mean(axis=(3, 5))
    return tiles.transpose(1, 0, 2, 3).reshape(n_frames, -1)


@np.errstate(over="ignore", invalid="ignore")  # where the line is not determined, its errors say so
def measure_noise(
    sample: FrameSample, psf_sigma_px: float | None, *, read_variance_e2: float, excess: float
) -> NoiseLine | None:
    """Fit the noise variance against the mean.

    Parameters
    ----------
    sample : FrameSample
        Camera values in ADU.
    psf_sigma_px : float or None
        Width of the PSF, which decides how close to the corner one must go.
    read_variance_e2 : float
        Expected read variance before multiplication, e⁻². Read noise makes the means of tiles scatter without
        changing their variance, which flattens the line; this is taken out.
    excess : float
        F², 2 with electron multiplication and 1 without.

    Returns
    -------
    NoiseLine or None
        None when frames are too small or do not fluctuate.
    """
    orders = choose_orders(psf_sigma_px, min(sample.patches.shape[2:]))
    if orders is None:
        return None
    high, low = orders
    deviations, means = sample.deviations, sample.variance_means()
    mean = _tile(_corner_mean(means, high))
    at_low = _differences(deviations, low)
    at_high = _differences(at_low, high - low)
    power_high, power_low = _power(at_high, high), _power(at_low, low, (high - low) // 2)
    clipped = sample.patches >= sample.saturation
    usable = _unclipped(clipped, high, mean.shape)
    if usable.sum() < 2 * _GROUPS or not power_high[usable].any():
        return None
    sigma = 0.8 if psf_sigma_px is None else psf_sigma_px
    ratio = leakage(high, sigma) / max(leakage(low, sigma) - leakage(high, sigma), 1e-300)
    weights = _variance_weights(mean[usable], power_high[usable])
    full = np.zeros_like(mean)
    full[usable] = weights
    sums = _moments(mean, power_high, power_low, full)
    solver = _Solver(ratio, _mean_noise(sample, high) * read_variance_e2 / excess**2)
    line, leak = solver.solve(sums.sum(axis=0))
    total = sums.sum(axis=0)
    flatness, flatness_error = _flatness(at_high, clipped, high)
    groups = _tile_groups(mean, power_high, power_low, full)
    if len(groups) < 4 and sample.n_frames < 2 * sample.static_frames:
        return None
    covariance = _jackknife(solver, groups)
    if sample.n_frames >= 2 * sample.static_frames:
        by_frames = _jackknife(solver, [part.sum(axis=0) for part in np.array_split(sums, _GROUPS)])
        covariance = max(covariance, by_frames, key=lambda matrix: float(matrix[0, 0]))
    return NoiseLine(
        slope=float(line[0]),
        intercept=float(line[1]),
        covariance=covariance,
        mean=float(total[1] / total[0]),
        variance=float(line[0] * total[1] / total[0] + line[1]),
        high=high,
        low=low,
        leak_fraction=float(abs(ratio * leak) / max(abs(line[0]), 1e-300)),
        flatness=flatness,
        flatness_error=flatness_error,
    )


def _jackknife(solver: _Solver, groups: list[FloatArray]) -> FloatArray:
    """Covariance of (slope, intercept) from leaving out one group after the other; zero for too few groups."""
    if len(groups) < 4:
        return np.zeros((2, 2))
    total = np.sum(groups, axis=0)
    left_out = np.array([solver.solve(total - group)[0] for group in groups])
    return np.asarray((len(groups) - 1) * np.cov(left_out.T, bias=True))


def _variance_weights(mean: FloatArray, power: FloatArray) -> FloatArray:
    """Weights 1 / variance² of a sum of squares, from the line itself (a gamma model with identity link)."""
    expected = np.full_like(mean, power.mean())
    for _ in range(_ITERATIONS):
        weights = expected**-2
        mean_0, power_0 = np.average(mean, weights=weights), np.average(power, weights=weights)
        spread = np.average((mean - mean_0) ** 2, weights=weights)
        slope = np.average((mean - mean_0) * (power - power_0), weights=weights) / max(spread, 1e-300)
        updated = np.maximum(power_0 + slope * (mean - mean_0), 0.05 * power_0)
        if np.allclose(updated, expected, rtol=1e-4):
            break
        expected = updated
    return expected**-2 / np.mean(expected**-2)


def _moments(mean: FloatArray, high: FloatArray, low: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted sums per frame: 1, m, m², v_high, m·v_high, v_low, m·v_low."""
    terms = (np.ones_like(mean), mean, mean**2, high, mean * high, low, mean * low)
    return np.stack([(weights * term).sum(axis=1) for term in terms], axis=1)


def _tile_groups(mean: FloatArray, high: FloatArray, low: FloatArray, weights: FloatArray) -> list[FloatArray]:
    parts = np.array_split(np.arange(mean.shape[1]), min(_GROUPS, mean.shape[1]))
    return [_moments(mean[:, part], high[:, part], low[:, part], weights[:, part]).sum(axis=0) for part in parts]


def _mean_noise(sample: FrameSample, order: int) -> float:
    """Variance of the mean of a tile, per variance of a pixel."""
    weights = np.array([comb(order, k) ** 2 for k in range(order + 1)], dtype=float) / comb(2 * order, order)
    along = np.convolve(weights, np.full(_TILE_PX, 1 / _TILE_PX))
    n = sample.static_frames
    own = sample.own_weight
    temporal = own**2 + (2 * own * (1 - own) + (1 - own) ** 2) / n
    return float((along @ along) ** 2 * temporal)


@dataclass(frozen=True)
class _Solver:
    """Weighted regression at both orders, extrapolated to vanishing leakage.

    ``read_scatter`` times slope² is the variance of a tile's mean that read noise causes. Photon noise needs
    no such correction: mean and variance of a Poisson sample scatter along the line itself.
    """

    leak_ratio: float
    read_scatter: float

    def solve(self, sums: FloatArray) -> tuple[FloatArray, float]:
        weight, m, mm, high, m_high, low, m_low = sums
        raw_spread = max(mm / weight - (m / weight) ** 2, 1e-300)
        spread = raw_spread
        for _ in range(4):
            slope_high = (m_high / weight - m * high / weight**2) / spread
            slope_low = (m_low / weight - m * low / weight**2) / spread
            slope = slope_high - self.leak_ratio * (slope_low - slope_high)
            spread = max(raw_spread - self.read_scatter * slope**2, 0.3 * raw_spread)
        variance = (high - self.leak_ratio * (low - high)) / weight
        return np.array([slope, variance - slope * m / weight]), float(slope_low - slope_high)
