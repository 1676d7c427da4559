"""What a table leaves unexplained in some frames: expected image, residual, and light where nothing was found.

Everything is in effective photo-electrons with the read variance added (see :mod:`smlm_pb.refinement.spots`): variance
and mean of a pixel are then equal for every camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

#: A pixel farther than this from the level of its tile holds light, and does not tell the background.
_CLIP = 3.0
_ROUNDS = 4
_BACKGROUND_TILE_PX = 16


@dataclass(frozen=True)
class Peaks:
    """Places where light is left over: all arrays (n,), positions and photons in px and effective e⁻."""

    y: FloatArray
    x: FloatArray
    photons: FloatArray
    score: FloatArray


def smooth_level(image: FloatArray, spread: FloatArray) -> FloatArray:
    """Level of a frame without molecules, smooth over some 16 px.

    Parameters
    ----------
    image : array (height, width)
        Frame minus the light of its molecules.
    spread : array (height, width)
        Standard deviation of every pixel.

    Returns
    -------
    array (height, width)
        Clipped means of tiles, interpolated between their centres.
    """
    from scipy.ndimage import map_coordinates

    height, width = image.shape
    edges = [np.linspace(0, n, max(1, round(n / _BACKGROUND_TILE_PX)) + 1).round().astype(int) for n in image.shape]
    levels = np.empty((len(edges[0]) - 1, len(edges[1]) - 1))
    for i in range(levels.shape[0]):
        for j in range(levels.shape[1]):
            part = np.s_[edges[0][i] : edges[0][i + 1], edges[1][j] : edges[1][j + 1]]
            levels[i, j] = _clipped_mean(image[part].ravel(), spread[part].ravel())
    centres = [(e[:-1] + e[1:] - 1) / 2 for e in edges]
    places = [
        np.interp(np.arange(n), c, np.arange(len(c))) if len(c) > 1 else np.zeros(n)
        for n, c in zip((height, width), centres, strict=True)
    ]
    level: FloatArray = map_coordinates(levels, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    return level


def _clipped_mean(values: FloatArray, spread: FloatArray) -> float:
    level = float(np.median(values))
    for _ in range(_ROUNDS):
        kept = np.abs(values - level) < _CLIP * spread
        if not kept.any():
            break
        level = float(values[kept].mean())
    return level


def matched_filter(residual: FloatArray, variance: FloatArray, psf_sigma_px: float) -> tuple[FloatArray, FloatArray]:
    """Brightness of a molecule at the centre of every pixel, and its significance.

    Parameters
    ----------
    residual, variance : array (height, width)
        Frame minus expectation, and variance of every pixel.
    psf_sigma_px : float
        Width of the point-spread function, px.

    Returns
    -------
    photons, score : array (height, width)
        Σ h r / v ÷ Σ h² / v, and the same over its standard deviation: of normal distribution where nothing is.
    """
    from scipy.ndimage import correlate1d

    from smlm_pb.simulation.rendering import pixel_integrals

    reach = math.ceil(3.5 * psf_sigma_px)
    spot = pixel_integrals(np.array([reach]), psf_sigma_px, 2 * reach + 1)[0]

    def filtered(image: FloatArray, kernel: FloatArray) -> FloatArray:
        along_y = correlate1d(image, kernel, axis=0, mode="constant")
        return np.asarray(correlate1d(along_y, kernel, axis=1, mode="constant"))

    information = np.maximum(filtered(1.0 / variance, spot**2), 1e-12)
    photons = filtered(residual / variance, spot) / information
    return photons, photons * np.sqrt(information)


def find_peaks(photons: FloatArray, score: FloatArray, least_score: float, psf_sigma_px: float) -> Peaks:
    """Local maxima of the matched filter at or above a score; positions to a fraction of a pixel by parabolas."""
    from scipy.ndimage import maximum_filter

    side = 2 * max(1, round(psf_sigma_px)) + 1
    row, column = np.nonzero(
        (score == maximum_filter(score, side, mode="constant", cval=-np.inf)) & (score >= least_score)
    )
    y, x = row.astype(np.float64), column.astype(np.float64)
    for position, index, size, step in ((y, row, score.shape[0], (1, 0)), (x, column, score.shape[1], (0, 1))):
        inside = (index > 0) & (index < size - 1)
        r, c = row[inside], column[inside]
        before, here, after = score[r - step[0], c - step[1]], score[r, c], score[r + step[0], c + step[1]]
        curvature = 2 * here - before - after
        shift = np.divide(after - before, 2 * curvature, out=np.zeros(len(r)), where=curvature > 1e-9)
        position[inside] += np.clip(shift, -0.5, 0.5)
    return Peaks(y, x, photons[row, column], score[row, column])


def tile_sums(squared: FloatArray, tile_px: int) -> tuple[FloatArray, IntArray]:
    """Sums of squared residuals over tiles (rows, columns), and pixels per tile; the last ones may be smaller."""
    starts = [np.arange(0, n, tile_px) for n in squared.shape]
    sums = np.add.reduceat(np.add.reduceat(squared, starts[0], axis=0), starts[1], axis=1)
    sizes = [np.diff(np.append(s, n)) for s, n in zip(starts, squared.shape, strict=True)]
    return sums, np.outer(*sizes).astype(np.intp)


def distance_to_nearest(peaks: Peaks, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> FloatArray:
    """Distance of every peak to the nearest of some points, px; infinite where there are none."""
    from scipy.spatial import cKDTree

    if not len(x) or not len(peaks.x):
        return np.full(len(peaks.x), np.inf)
    found: FloatArray = cKDTree(np.column_stack([y, x])).query(np.column_stack([peaks.y, peaks.x]))[0]
    return found


def least_of_neighbours(
    frame: npt.NDArray[Any], x: FloatArray, y: FloatArray, value: FloatArray, radius_px: float
) -> npt.NDArray[np.bool_]:
    """Which points have no neighbour of their frame within the radius with a smaller value."""
    from scipy.spatial import cKDTree

    least = np.ones(len(x), bool)
    if len(x) < 2:
        return least
    # Frames lie farther apart than the radius.
    points = np.column_stack([np.asarray(frame, np.float64) * 4.0 * radius_px, y, x])
    pairs = cKDTree(points).query_pairs(radius_px, output_type="ndarray")
    first_is_less = value[pairs[:, 0]] <= value[pairs[:, 1]]
    least[np.where(first_is_less, pairs[:, 1], pairs[:, 0])] = False
    return least
