"""Is there light at all? Control of false alarms where next to nothing is on.

A network is trained on scenes most of which hold molecules, and on a movie of bare background it sees them in the
highest of millions of noise peaks. How high noise peaks is known: a matched filter turns background noise into a
smooth Gaussian field, whose maxima have a known density. So every candidate that stands alone gets the significance of
its light, the amplitude of a least-squares fit of PSF and background in units of its noise; and from a sample of the
movie follows how significant a lone candidate must be for at most one in twenty to be noise (Benjamini and Hochberg,
1995). Where many molecules are on, hardly anything is asked for; where nothing is on, more than noise ever reaches.

Candidates with a bright neighbour are left alone: their light cannot be told apart by a fit this simple, and where
molecules crowd, noise is not what is mistaken for them.

References
----------
R. J. Adler, "The Geometry of Random Fields", Wiley 1981: density of the maxima of a Gaussian field.
Y. Benjamini, Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289: rate of false discoveries.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.neighbours import count_within
from smlm_pb.localization.threshold import LOWEST_AUTOMATIC
from smlm_pb.localization.windows import cut_windows, spots
from smlm_pb.movies import check_block

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.movies import Movie

FloatArray = npt.NDArray[np.float64]

#: Share of noise that is accepted among the lone candidates.
FALSE_SHARE = 0.05
#: Chance, at most, that noise alone gives as many candidates as are taken for evidence of light.
LARGEST_CHANCE = 0.001
#: Noise peaks per pixel that are accepted where nothing is on: one in 5000 frames of 64×64 px.
LARGEST_RATE_PER_PX = 1 / (5000 * 64 * 64)
#: Below, all noise peaks run into each other, and nothing is asked for.
LEAST_ASKED = 3.0
#: Candidates as probable as this are judged: the automatic threshold keeps none below.
_JUDGED_FROM = LOWEST_AUTOMATIC
#: A neighbour whose stated photons are this many standard deviations of the noise is no noise, and in the way.
_BRIGHT = 8.0
#: Noise goes no higher, and the expansion for its tail does not hold beyond.
_HIGHEST_NOISE = 6.0
#: Pixels of the sample that a movie is judged by: a fraction of a second of the network's time.
_SAMPLE_PX, _SAMPLE_SIDE_PX, _LEAST_FRAMES = 1 << 16, 128, 4


def noise_peaks_per_px(significance: npt.ArrayLike, psf_sigma_px: float) -> FloatArray:
    """Expected density of noise peaks above a significance.

    Parameters
    ----------
    significance : float or array
        Height in standard deviations, large enough for peaks to be islands (above about 3).
    psf_sigma_px : float
        PSF width, px; the filtered noise is correlated as exp(-d²/4σ²).

    Returns
    -------
    float or array
        Peaks per pixel.
    """
    z = np.asarray(significance, np.float64)
    return z * np.exp(-(z**2) / 2) / (2 * psf_sigma_px**2 * (2 * math.pi) ** 1.5)


def lone_significance(
    rows: npt.NDArray[Any],
    electrons: npt.NDArray[np.float32],
    *,
    first_frame: int,
    psf_sigma_px: float,
    camera: Camera,
) -> FloatArray:
    """Significance of the light of candidates that stand alone.

    Parameters
    ----------
    rows : structured array (n,)
        Candidates with ``frame``, ``x``, ``y``, ``photons``, ``background``, ``probability``.
    electrons : array (frame, y, x), float32
        The frames from ``first_frame`` on, in electrons whose noise has variance = mean.
    first_frame : int
        Frame number of the first frame.
    psf_sigma_px : float
        PSF width, px.
    camera : Camera
        Where the electrons come from.

    Returns
    -------
    array (n,)
        Standard deviations; infinite for candidates with a bright neighbour, and for those too improbable to be kept.
    """
    half = _half_window(psf_sigma_px)
    result = np.full(len(rows), np.inf)
    likely = np.flatnonzero(rows["probability"] >= _JUDGED_FROM)
    asked = rows.take(likely)  # far quicker than an index, with structured arrays
    bright = _bright(asked, psf_sigma_px, camera)
    judged = likely[~_has_neighbour(asked, bright, _reach(psf_sigma_px))]
    if len(judged) == 0:
        return result
    chosen = rows.take(judged)
    cut = cut_windows(chosen, electrons, half, first_frame=first_frame)
    x, y = chosen["x"].astype(np.float64), chosen["y"].astype(np.float64)
    shape = spots(x, y, cut.rows_at, cut.columns_at, psf_sigma_px)
    result[judged] = _amplitude_over_noise(cut.pixels, shape, cut.seen, camera)
    return result


def least_significance(
    significance: FloatArray, *, judged_px: float, psf_sigma_px: float, false_share: float = FALSE_SHARE
) -> float:
    """How significant a lone candidate must be.

    Parameters
    ----------
    significance : array (n,)
        Of the lone candidates of a sample.
    judged_px : float
        Area in which a candidate would have been alone, summed over the sample's frames, px.
    psf_sigma_px : float
        PSF width, px.
    false_share : float
        Largest expected share of noise among the lone candidates that stay.

    Returns
    -------
    float
        Between :data:`LEAST_ASKED` and the height that noise reaches at :data:`LARGEST_RATE_PER_PX`.
    """
    from scipy.special import gammainc

    steps = np.arange(LEAST_ASKED, 9.0, 0.05)
    rate = noise_peaks_per_px(steps, psf_sigma_px)
    highest = float(steps[np.argmax(rate <= LARGEST_RATE_PER_PX)])
    found = (significance[None] >= steps[:, None]).sum(1)
    # Of few candidates one in twenty says little: a blank movie must not pass because its sample held one high peak.
    chance = gammainc(found, rate * judged_px)  # that a Poisson distribution gives as many
    enough = (rate * judged_px <= false_share * found) & (chance <= LARGEST_CHANCE)
    return min(highest, float(steps[np.argmax(enough)])) if enough.any() else highest


def measure_least_significance(
    rows: npt.NDArray[Any], electrons: npt.NDArray[np.float32], *, camera: Camera, psf_sigma_px: float
) -> float:
    """Judge a movie by a sample: how significant its lone candidates must be.

    Parameters
    ----------
    rows : structured array (n,)
        What the network lists in the sample, see :func:`smlm_pb.localization.sample_look.look_at`.
    electrons : array (frame, y, x), float32
        From :func:`sample_electrons`.
    camera : Camera
        Where the electrons come from.
    psf_sigma_px : float
        PSF width that the network is told, px.

    Returns
    -------
    float
        Standard deviations.
    """
    found = lone_significance(rows, electrons, first_frame=0, psf_sigma_px=psf_sigma_px, camera=camera)
    n_bright = int(_bright(rows, psf_sigma_px, camera).sum())
    crowding = n_bright / electrons.size * math.pi * _reach(psf_sigma_px) ** 2
    return least_significance(
        found[np.isfinite(found)], judged_px=electrons.size * math.exp(-crowding), psf_sigma_px=psf_sigma_px
    )


def sample_electrons(movie: Movie, camera: Camera, frames: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Evenly spaced frames, of large ones the middle, in electrons whose noise has variance = mean.

    Dropped frames, which hold one constant value, tell nothing of the others and are left out.
    """
    side_y, side_x = min(movie.height, _SAMPLE_SIDE_PX), min(movie.width, _SAMPLE_SIDE_PX)
    top, left = (movie.height - side_y) // 2, (movie.width - side_x) // 2
    n = min(frames[1] - frames[0], max(_LEAST_FRAMES, _SAMPLE_PX // (side_y * side_x)))
    read: list[npt.NDArray[np.float32]] = []
    dropped: list[npt.NDArray[np.float32]] = []
    for index in np.linspace(frames[0], frames[1] - 1, n).round().astype(int):
        adu = movie.read(int(index), int(index) + 1)
        check_block(adu, int(index), movie.name)
        electrons = camera.to_electrons(adu) / np.float32(camera.excess_noise_factor)
        (dropped if adu.min() == adu.max() else read).append(electrons[:, top : top + side_y, left : left + side_x])
    return np.ascontiguousarray(np.concatenate(read or dropped), dtype=np.float32)


def read_variance(camera: Camera) -> float:
    """Variance of read noise and of rounding in the converter, e⁻², where photon noise has variance = mean."""
    step_e = float(np.median(camera.e_per_adu)) / camera.em_gain
    return (float(np.median(camera.read_variance_e2)) + step_e**2 / 12) / camera.excess_noise_factor**2


def _skewness(camera: Camera) -> float:
    """Skewness of the photon noise as a multiple of a Poisson distribution's: 1.5 for a large EM gain."""
    return 1 + 0.5 * (camera.excess_noise_factor - 1)


def filter_sizes(psf_sigma_px: float) -> tuple[int, float]:
    """Half the width of the window that significance is measured in.

    And how far from something bright candidates may have it as a neighbour, px.
    """
    return _half_window(psf_sigma_px), _reach(psf_sigma_px) + 2


def _half_window(psf_sigma_px: float) -> int:
    return max(4, math.ceil(4.5 * psf_sigma_px))


def _reach(psf_sigma_px: float) -> float:
    """A molecule this far away leaves no light in the window of another."""
    return math.sqrt(2) * _half_window(psf_sigma_px) + 2 * psf_sigma_px


def _bright(rows: npt.NDArray[Any], psf_sigma_px: float, camera: Camera) -> npt.NDArray[np.bool_]:
    """Which candidates hold more light than noise ever does, as the network states it."""
    scale = camera.excess_noise_factor
    noise = np.sqrt(4 * math.pi * psf_sigma_px**2 * (rows["background"].clip(0) / scale + read_variance(camera)))
    bright: npt.NDArray[np.bool_] = (rows["probability"] >= _JUDGED_FROM) & (rows["photons"] / scale >= _BRIGHT * noise)
    return bright


def _has_neighbour(rows: npt.NDArray[Any], bright: npt.NDArray[np.bool_], reach_px: float) -> npt.NDArray[np.bool_]:
    """Which candidates have a bright one other than themselves within reach in their frame."""
    if not bright.any():
        return np.zeros(len(rows), bool)
    # In a cell with this diagonal everyone is within reach: in a crowd that settles nearly all.
    cell = _cells(rows, reach_px / math.sqrt(2))
    has: npt.NDArray[np.bool_] = np.bincount(cell[bright], minlength=int(cell.max()) + 1)[cell] > bright
    open_ones = np.flatnonzero(~has)
    bright_ones = rows.take(np.flatnonzero(bright))
    has[open_ones] = count_within(rows.take(open_ones), bright_ones, reach_px) > bright[open_ones]
    return has


def _cells(rows: npt.NDArray[Any], side_px: float) -> npt.NDArray[np.int64]:
    """Number of the square cell that each candidate lies in, frame by frame."""
    column, line = (np.floor((rows[a] - rows[a].min()) / side_px).astype(np.int64) for a in "xy")
    frame = rows["frame"].astype(np.int64)
    cell: npt.NDArray[np.int64] = ((frame - frame.min()) * (line.max() + 1) + line) * (column.max() + 1) + column
    return cell


def _amplitude_over_noise(
    window: FloatArray, shape: FloatArray, seen: npt.NDArray[np.bool_], camera: Camera
) -> FloatArray:
    """Amplitude of a least-squares fit of spot and constant background (n, y, x), in standard deviations."""
    window, shape, inside = (values.reshape(len(seen), -1) for values in (window, shape, seen.astype(np.float64)))
    n = inside.sum(1)
    mean_shape, mean = (np.einsum("ij,ij->i", values, inside) / n for values in (shape, window))
    weight = (shape - mean_shape[:, None]) * inside
    norm = np.einsum("ij,ij->i", weight, weight)
    amplitude = np.einsum("ij,ij->i", weight, window) / norm
    background = mean - amplitude * mean_shape
    rest = (window - background[:, None] - amplitude[:, None] * shape) * inside
    # Where gain or read noise are not what they are said to be, or the background is not smooth, the pixels tell.
    scatter = np.einsum("ij,ij->i", rest, rest) / np.maximum(n - 2, 1)
    variance = np.maximum(background + read_variance(camera), scatter).clip(1e-3)
    z = amplitude * np.sqrt(norm / variance)
    # Noise of few electrons has a heavier upper tail than a Gaussian (first term of Cornish and Fisher's expansion).
    cubes = np.einsum("ij,ij->i", weight * weight, weight)
    asymmetry = _skewness(camera) * cubes / norm**1.5 * background.clip(0) / variance**1.5
    corrected: FloatArray = z - asymmetry * (z.clip(-_HIGHEST_NOISE, _HIGHEST_NOISE) ** 2 - 1) / 6
    return corrected
