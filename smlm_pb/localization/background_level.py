"""The background between the molecules, from the lower tail of the smoothed frames."""

from __future__ import annotations

import numpy as np

from smlm_pb.localization.frame_sample import FloatArray, FrameSample

_SMOOTHING_PX = 1.0
_TILE_PX = 16
#: The two lower quantiles that are compared, and the pixels that must lie below the lower one.
_QUANTILES = (1e-3, 1e-2)
_MIN_BELOW = 8
_MIN_TILE_PIXELS = 4000
_Z = np.linspace(-5.5, 2.5, 1601)


def background_of_tiles(sample: FrameSample, read_variance_e2: float, excess: float) -> FloatArray:
    """Estimate the background in tiles of about 16×16 px, each over all sampled frames.

    Of the smoothed pixels a fraction f sees background only; their values are normal with mean b and a
    variance that follows from b. Light of molecules moves all others upwards, so that the lower tail is f
    times that of the background alone, and two of its quantiles determine b and f.

    Parameters
    ----------
    sample : FrameSample
        Photo-electrons.
    read_variance_e2 : float
        Read variance in e⁻².
    excess : float
        F², by which electron multiplication multiplies the photon-noise variance.

    Returns
    -------
    array (tile,)
        Background in e⁻ per pixel.
    """
    smooth, kept = _smooth(sample.patches)
    n_patches, n_frames, height, width = smooth.shape
    pixels = n_frames * _TILE_PX**2
    rows = max(1, height // _TILE_PX) if pixels >= _MIN_TILE_PIXELS else 1
    columns = max(1, width // _TILE_PX) if pixels >= _MIN_TILE_PIXELS else 1
    tiles = [part for band in np.array_split(smooth, rows, axis=2) for part in np.array_split(band, columns, axis=3)]
    if pixels < _MIN_TILE_PIXELS:
        groups = [tile.ravel() for tile in tiles]
    else:
        groups = [tile[patch].ravel() for tile in tiles for patch in range(n_patches)]
    return np.array([_lower_tail(group, kept, read_variance_e2, excess) for group in groups])


def _smooth(patches: FloatArray) -> tuple[FloatArray, float]:
    """Smooth with a Gaussian; also tell which part of the variance of independent noise is left."""
    reach = np.arange(-3, 4)
    kernel = np.exp(-0.5 * (reach / _SMOOTHING_PX) ** 2)
    kernel /= kernel.sum()
    reach_y, reach_x = min(3, (patches.shape[2] - 1) // 2), min(3, (patches.shape[3] - 1) // 2)
    kernel_y, kernel_x = kernel[3 - reach_y : 4 + reach_y], kernel[3 - reach_x : 4 + reach_x]
    kernel_y, kernel_x = kernel_y / kernel_y.sum(), kernel_x / kernel_x.sum()
    rows = patches.shape[2] - 2 * reach_y
    patches = sum(weight * patches[:, :, k : k + rows] for k, weight in enumerate(kernel_y))
    columns = patches.shape[3] - 2 * reach_x
    patches = sum(weight * patches[..., k : k + columns] for k, weight in enumerate(kernel_x))
    return patches, float((kernel_y @ kernel_y) * (kernel_x @ kernel_x))


def _lower_tail(values: FloatArray, kept: float, read_variance_e2: float, excess: float) -> float:
    """Solve two quantiles for the mean of the background."""
    from scipy.special import ndtr

    low = max(_QUANTILES[0], min(0.1, _MIN_BELOW / values.size))
    high = min(10 * low, 0.3)
    at_low, at_high = np.quantile(values, [low, high])
    below = ndtr(_Z)
    background = float(at_high)
    for _ in range(12):
        scale = np.sqrt(kept * max(excess * background + read_variance_e2, 0.05))
        growth = np.log(ndtr(_Z + (at_high - at_low) / scale) / below)
        z = _Z[int(np.abs(growth - np.log(high / low)).argmin())]
        updated = float(at_low - scale * z)
        if abs(updated - background) < 0.01:
            break
        background = updated
    return updated
