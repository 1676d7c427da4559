"""The width of the point-spread function, from the correlation of neighbouring pixels.

Molecules that blink at random places are a Poisson process, however densely they lie and whatever structure
they sit on. Once the static part of the movie is subtracted, the covariance of two pixels at distance r is

    C(r) = A · c(r_y) · c(r_x) + B     for r ≠ 0,

where c is the autocorrelation of the pixel-integrated Gaussian of standard deviation σ, A = density ·
E[photons²], and B takes up slow fluctuations of the background. Camera noise is independent between pixels
and so appears at r = 0 only, which is left out: neither gain, offset nor noise level need be known.
(Fluctuation spectroscopy uses the same identity: Petersen et al., Biophys. J. 65, 1135, 1993; Campbell's
theorem.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.frame_sample import FloatArray, FrameSample

#: Widths that are tried, in px.
_GRID = np.geomspace(0.4, 4.0, 241)
_MAX_LAG = 7
_GROUPS = 10
#: In a small part of the field a rough error is enough, and a covariance this strong, in units of its noise.
_GROUPS_OF_WINDOW, _SIGNIFICANT = 5, 6.0
#: Shorter movies are grouped by parts of the field of at least this size.
_FEW_FRAMES = 16
_PART_PX = 16


@dataclass(frozen=True)
class CovarianceFit:
    """Least-squares fit of the pixel covariance; ``amplitude`` is A and ``floor`` is B."""

    sigma_px: float
    amplitude: float
    floor: float
    on_edge: bool


@dataclass(frozen=True)
class WidthStatistics:
    """The fit to all frames, and its standard errors from leaving out one group after the other.

    ``significance`` is the strength of the covariance in units of its error in a movie of pure noise, and
    ``frame_weights`` the weights of the sampled frames.
    """

    fit: CovarianceFit
    sigma_error_px: float
    significance: float
    ellipticity: float
    ellipticity_error: float
    frame_weights: FloatArray


def gaussian_autocorrelation(lag: npt.ArrayLike, sigma_px: npt.ArrayLike) -> FloatArray:
    """Autocorrelation of a Gaussian integrated over pixels, along one axis, averaged over sub-pixel positions.

    Parameters
    ----------
    lag : array
        Distance of the two pixels, px.
    sigma_px : float or array
        Standard deviation of the Gaussian, px; an array is broadcast against the lags.

    Returns
    -------
    array
        ∫ p(x) p(x + lag) dx with p the pixel-integrated Gaussian: the second difference of the second
        integral of a Gaussian of variance 2σ².
    """
    from scipy.special import ndtr

    width = np.sqrt(2.0) * np.asarray(sigma_px, dtype=np.float64)

    def second_integral(x: FloatArray) -> FloatArray:
        scaled = x / width
        density = np.exp(-0.5 * scaled**2) / np.sqrt(2 * np.pi)
        return np.asarray(x * ndtr(scaled) + width * density)

    distance = np.asarray(lag, dtype=np.float64)
    return second_integral(distance + 1) - 2 * second_integral(distance) + second_integral(distance - 1)


#: What was measured of samples that are still in use: width, gain and offset of a movie are asked for one by one.
_MEASURED: WeakKeyDictionary[FrameSample, WidthStatistics | None] = WeakKeyDictionary()


def measure_width(sample: FrameSample) -> WidthStatistics | None:
    """Fit the pixel covariance of a sample, once.

    Parameters
    ----------
    sample : FrameSample
        Frames in any unit proportional to light.

    Returns
    -------
    WidthStatistics or None
        None when the frames are too small or hold no fluctuation at all.
    """
    if sample not in _MEASURED:
        _MEASURED[sample] = _measure(sample.deviations)
    return _MEASURED[sample]


def _measure(deviations: FloatArray) -> WidthStatistics | None:
    weights = _frame_weights(deviations)
    images, labels = _groups(deviations)
    max_lag = min(_MAX_LAG, (min(images.shape[1:]) - 1) // 2)
    if max_lag < 3 or not weights.any():
        return None
    image_weights = np.tile(weights, len(images) // len(weights))
    sums, shares = _covariances(images, image_weights, labels, max_lag)
    fitter = _Fitter(max_lag, (images.shape[1], images.shape[2]))
    mean = sums.sum(axis=0) / shares.sum()
    fit = fitter.fit(mean)
    rest = [
        (sums.sum(axis=0) - part) / (shares.sum() - share)
        for part, share in zip(sums, shares, strict=True)
        if share < shares.sum()
    ]
    fits = [fitter.fit(part) for part in rest]
    shapes = [fitter.log_elongation(part, one.sigma_px) for part, one in zip(rest, fits, strict=True)]
    n_pixels = images[0].size * shares.sum() ** 2 / (image_weights**2).sum()
    return WidthStatistics(
        fit=fit,
        sigma_error_px=_jackknife([one.sigma_px for one in fits]),
        significance=fitter.norm(fit) * np.sqrt(n_pixels) / mean[max_lag, 0],
        ellipticity=float(np.exp(fitter.log_elongation(mean, fit.sigma_px))),
        ellipticity_error=_jackknife(shapes),
        frame_weights=weights,
    )


def _frame_weights(deviations: FloatArray) -> FloatArray:
    """Weigh frames by how much their fluctuation exceeds the noise, divided by its square.

    Frames without molecules add only noise, and a few very bright frames must not decide alone.
    """
    rough = deviations
    for _ in range(4):
        rough = np.diff(np.diff(rough, axis=2), axis=3)
    # One noise level for all frames: its error in a single frame would be correlated with that frame's
    # covariance.
    noise = float(np.median((rough**2).mean(axis=(0, 2, 3)))) / comb(8, 4) ** 2
    energy = (deviations**2).mean(axis=(0, 2, 3))
    return np.asarray(np.maximum(energy - noise, 0.0) / np.maximum(energy**2, np.finfo(float).tiny))


def _groups(deviations: FloatArray) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Arrange patches and frames as images in independent groups.

    Groups are runs of frames; of a short movie, whose frames share their average, groups are parts of the
    field.

    Returns
    -------
    images : array (image, y, x)
        Patch by patch, all frames of each.
    labels : array (image,)
        Group of every image.
    """
    n_patches, n_frames, height, width = deviations.shape
    if n_frames >= _FEW_FRAMES:
        label = np.arange(n_frames) * _GROUPS // n_frames
        return deviations.reshape(-1, height, width), np.tile(label, n_patches)
    rows, columns = max(1, min(4, height // _PART_PX)), max(1, min(4, width // _PART_PX))
    size_y, size_x = height // rows, width // columns
    cut = deviations[..., : rows * size_y, : columns * size_x]
    parts = cut.reshape(n_patches, n_frames, rows, size_y, columns, size_x).transpose(0, 2, 4, 1, 3, 5)
    images = parts.reshape(-1, size_y, size_x)
    return images, np.repeat(np.arange(n_patches * rows * columns), n_frames)


def _covariances(
    images: FloatArray, weights: FloatArray, labels: npt.NDArray[np.intp], max_lag: int
) -> tuple[FloatArray, FloatArray]:
    """Sum the weighted pixel covariance over each group.

    Returns
    -------
    sums : array (group, 2 max_lag + 1, max_lag + 1)
        Lags y = −max_lag … max_lag, x = 0 … max_lag.
    shares : array (group,)
        Sum of the weights.
    """
    height, width = images.shape[1:]
    padded = (_fast_length(height + max_lag), _fast_length(width + max_lag))
    lags_y, lags_x = np.arange(-max_lag, max_lag + 1), np.arange(max_lag + 1)
    pairs = (height - np.abs(lags_y))[:, None] * (width - lags_x)[None, :]
    sums, shares = [], []
    for label in np.unique(labels):
        chosen = labels == label
        spectrum = np.abs(np.fft.rfft2(images[chosen], s=padded)) ** 2
        mean = np.tensordot(weights[chosen], spectrum, axes=(0, 0))
        sums.append(np.fft.irfft2(mean, s=padded)[lags_y][:, lags_x] / pairs)
        shares.append(weights[chosen].sum())
    return np.array(sums), np.array(shares)


def _jackknife(values: list[float]) -> float:
    """Standard error from the estimates with one group left out."""
    if len(values) < 2:
        return float("inf")
    return float(np.sqrt((len(values) - 1) * np.var(values)))


def _fast_length(length: int) -> int:
    """Round up to a multiple of 8, which the Fourier transform likes."""
    return -(-length // 8) * 8


@cache
def _curves(max_lag: int) -> FloatArray:
    """Autocorrelation for every width of the grid (width, lag)."""
    return gaussian_autocorrelation(np.arange(max_lag + 1), _GRID[:, None])


class _Models(NamedTuple):
    """Shapes (model, lag) without their weighted mean, that mean, and their weighted sum of squares."""

    centred: FloatArray
    mean: FloatArray
    norm: FloatArray


class _Fitter:
    """Weighted least squares of the covariance model on the lags up to ``max_lag``."""

    def __init__(self, max_lag: int, shape: tuple[int, int]) -> None:
        self._axis = np.arange(max_lag + 1)
        lag_y, lag_x = np.mgrid[-max_lag : max_lag + 1, 0 : max_lag + 1]
        # Half of the lags on the axis x = 0 repeat the other half; r = 0 holds the noise.
        self._keep = ~((lag_x == 0) & (lag_y <= 0))
        self._lag_y, self._lag_x = np.abs(lag_y[self._keep]), lag_x[self._keep]
        self._weights = ((shape[0] - self._lag_y) * (shape[1] - self._lag_x)).astype(float)
        self._weights /= self._weights.sum()
        self._curves = _curves(max_lag)
        self._grid = self._centred(self._curves[:, self._lag_y] * self._curves[:, self._lag_x])

    def _centred(self, models: FloatArray) -> _Models:
        """What is the same of models for all covariances."""
        mean = models @ self._weights
        centred = models - mean[:, None]
        return _Models(centred, mean, centred**2 @ self._weights)

    def _solve(self, models: _Models, values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Best amplitude and floor for each model, and the remaining sum of squares."""
        level = float(values @ self._weights)
        scatter = values - level
        amplitude = (models.centred @ (self._weights * scatter)) / models.norm
        misfit = float(scatter**2 @ self._weights) - amplitude**2 * models.norm
        return amplitude, level - amplitude * models.mean, misfit

    def fit(self, covariance: FloatArray) -> CovarianceFit:
        """Find the width on the grid, refined by a parabola."""
        values = covariance[self._keep]
        _, _, misfit = self._solve(self._grid, values)
        best = int(misfit.argmin())
        sigma = _GRID[best]
        inside = 0 < best < len(_GRID) - 1
        if inside:
            left, middle, right = misfit[best - 1 : best + 2]
            shift = 0.5 * (left - right) / max(left - 2 * middle + right, np.finfo(float).tiny)
            sigma *= (_GRID[1] / _GRID[0]) ** float(np.clip(shift, -1, 1))
        curve = gaussian_autocorrelation(self._axis, float(sigma))
        amplitude, floor, _ = self._solve(self._centred((curve[self._lag_y] * curve[self._lag_x])[None]), values)
        return CovarianceFit(float(sigma), float(amplitude[0]), float(floor[0]), not inside)

    def norm(self, fit: CovarianceFit) -> float:
        """Root of the sum of squares of the fitted covariance over all lags but zero."""
        curve = gaussian_autocorrelation(self._axis, fit.sigma_px)
        return float(fit.amplitude * np.linalg.norm(curve[self._lag_y] * curve[self._lag_x]))

    def log_elongation(self, covariance: FloatArray, sigma_px: float) -> float:
        """Find ln(σ_y / σ_x) at a given geometric mean of the two."""
        values = covariance[self._keep]
        trials = np.linspace(-0.6, 0.6, 61)
        along_y, along_x = (
            gaussian_autocorrelation(self._axis, sigma_px * np.exp(sign * trials[:, None] / 2)) for sign in (1, -1)
        )
        _, _, misfit = self._solve(self._centred(along_y[:, self._lag_y] * along_x[:, self._lag_x]), values)
        return float(trials[int(misfit.argmin())])


def measure_widths(
    windows: FloatArray, apply: Callable[..., Iterable[Any]] = map
) -> tuple[FloatArray, FloatArray, tuple[float, float]]:
    """Fit the pixel covariance in many parts of the field, leaner than :func:`measure_width`.

    Parameters
    ----------
    windows : array (window, frame, y, x)
        The same frames, at least ten, of every window, in any unit proportional to light.
    apply : callable
        As the built-in ``map``: that of an executor looks at several windows at a time.

    Returns
    -------
    sigma_px, error_px : array (window,)
        Width of the PSF and its standard error; NaN where the window does not tell.
    together : (float, float)
        The same of all windows as one.
    """
    n_windows, n_frames, height, width = windows.shape
    max_lag = min(_MAX_LAG, (min(height, width) - 1) // 2)
    sigma, error = np.full(n_windows, np.nan), np.full(n_windows, np.nan)
    if max_lag < 3:
        return sigma, error, (np.nan, np.nan)
    fitter = _Fitter(max_lag, (height, width))
    all_sums, all_shares = np.zeros((_GROUPS_OF_WINDOW, 2 * max_lag + 1, max_lag + 1)), np.zeros(_GROUPS_OF_WINDOW)
    labels = np.arange(n_frames) * _GROUPS_OF_WINDOW // n_frames

    def look_at(window: FloatArray) -> tuple[FloatArray, FloatArray, tuple[float, float]] | None:
        deviations = FrameSample(window[np.newaxis], False, np.inf, "", n_frames).deviations
        weights = _frame_weights(deviations)
        if not weights.any():
            return None
        sums, shares = _covariances(deviations[0], weights, labels, max_lag)
        return sums, shares, _width_of_window(fitter, sums, shares, height * width, weights)

    for k, found in enumerate(apply(look_at, windows)):
        if found is not None:
            sums, shares, (sigma[k], error[k]) = found
            all_sums, all_shares = all_sums + sums, all_shares + shares
    together = _width_of_groups(fitter, all_sums, all_shares) if np.isfinite(sigma).any() else (np.nan, np.nan)
    return sigma, error, together


def _width_of_window(
    fitter: _Fitter, sums: FloatArray, shares: FloatArray, area_px2: int, weights: FloatArray
) -> tuple[float, float]:
    """Width and error of one window; NaN where its covariance is no more than noise."""
    mean = sums.sum(axis=0) / shares.sum()
    fit = fitter.fit(mean)
    n_pixels = area_px2 * shares.sum() ** 2 / (weights**2).sum()
    significance = fitter.norm(fit) * np.sqrt(n_pixels) / mean[mean.shape[0] // 2, 0]
    if fit.on_edge or fit.amplitude <= 0 or not significance >= _SIGNIFICANT:
        return float("nan"), float("nan")
    return _width_of_groups(fitter, sums, shares)


def _width_of_groups(fitter: _Fitter, sums: FloatArray, shares: FloatArray) -> tuple[float, float]:
    """Width of all groups of frames together, and its error from leaving out one after the other."""
    rest = [
        fitter.fit((sums.sum(axis=0) - part) / (shares.sum() - share)).sigma_px
        for part, share in zip(sums, shares, strict=True)
        if share < shares.sum()
    ]
    return fitter.fit(sums.sum(axis=0) / shares.sum()).sigma_px, _jackknife(rest)
