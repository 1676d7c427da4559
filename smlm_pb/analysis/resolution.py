"""Resolution of the image from the correlation of two independent halves of the data.

Fourier ring correlation (Nieuwenhuizen et al., Nature Methods 10, 557, 2013; Banterle et al., J. Struct. Biol. 183,
363, 2013): the localizations are split into two halves, both are rendered, and the images are correlated on rings of
equal spatial frequency. The resolution is one over the frequency where the correlation first falls below 1/7.

The halves are made of whole blocks of consecutive frames. A split by single localizations puts the same blink into
both halves, which then agree down to the precision of one molecule instead of the structure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError, TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]

THRESHOLD = 1 / 7
_LARGEST_IMAGE_PX = 4096
# Share of the field, on each side, over which the images are faded out; hard edges correlate at every frequency.
_FADED = 0.125


@dataclass(frozen=True)
class Frc:
    """Fourier ring correlation.

    Parameters
    ----------
    resolution_nm : float
        One over the frequency where the correlation falls below 1/7, the mean over the repeats; NaN where it never
        does (see ``note``).
    spread_nm : float
        Standard deviation over the repeats; NaN for a single one.
    frequency_per_nm : array (n,)
        Centres of the rings.
    correlation : array (n,)
        Mean over the repeats, smoothed over neighbouring rings.
    pixel_size_nm : float
        Pixels of the images that were correlated.
    n_blocks, n_repeats : int
        Blocks of frames that were dealt to the halves, and how many times.
    note : str
        What the reader must know; empty where nothing.
    """

    resolution_nm: float
    spread_nm: float
    frequency_per_nm: FloatArray
    correlation: FloatArray
    pixel_size_nm: float
    n_blocks: int
    n_repeats: int
    note: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes ``None``."""
        plain: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                plain[name] = [float(v) for v in value]
            else:
                plain[name] = None if isinstance(value, float) and math.isnan(value) else value
        return plain


def frc(
    locs: Localizations,
    *,
    pixel_size_nm: float | None = None,
    n_blocks: int = 50,
    n_repeats: int = 5,
    camera_pixel_size_nm: float | None = None,
    seed: int = 0,
) -> Frc:
    """Measure the resolution of the image.

    Parameters
    ----------
    locs : Localizations
        At least 1000 molecules over many frames; drift should be corrected first.
    pixel_size_nm : float, optional
        Pixels of the images; half the median reported precision when not given (5 nm where none is reported), and
        never so small that an image has more than 4096 pixels along an edge.
    n_blocks : int
        Blocks of consecutive frames that are dealt to the two halves; a block should last much longer than a blink.
    n_repeats : int
        How many times they are dealt, each time at random.
    camera_pixel_size_nm : float, optional
        Edge of a camera pixel, where the table does not know it.
    seed : int
        Seed of the dealing.

    Returns
    -------
    Frc

    Raises
    ------
    TableError
        When there are too few molecules or frames.
    ConfigurationError
        When an option is impossible.
    """
    camera_pixel = camera_pixel_size_nm or locs.info.pixel_size_nm
    if camera_pixel is None:
        raise TableError("FRC needs the pixel size, which this table does not know; give camera_pixel_size_nm.")
    if n_blocks < 2 or n_repeats < 1:
        raise ConfigurationError(f"FRC needs n_blocks ≥ 2 and n_repeats ≥ 1, not {n_blocks} and {n_repeats}.")
    if len(locs) < 1000:
        raise TableError(f"FRC needs at least 1000 molecules; the table has {len(locs)}.")
    block = block_of_frames(locs["frame"], n_blocks)
    n_blocks = int(block.max()) + 1
    if n_blocks < 2:
        raise TableError("FRC needs molecules in at least two frames, to split them in two halves.")
    pixel = _pixel_size(locs, pixel_size_nm, camera_pixel)
    cell, shape = _cells(locs, pixel / camera_pixel)
    window = _window(shape)

    rng = np.random.default_rng(seed)
    sums: list[FloatArray] = []
    resolutions = []
    for _ in range(n_repeats):
        in_first = rng.permutation(n_blocks) < n_blocks // 2
        halves = [cell[in_first[block] == side] for side in (True, False)]
        images = [np.bincount(half, minlength=shape[0] * shape[1]).reshape(shape) * window for half in halves]
        frequency, ring_sums = ring_correlation(images[0], images[1], pixel)
        sums.append(ring_sums)
        resolutions.append(_resolution(frequency, _correlation(ring_sums)))
    known = [r for r in resolutions if math.isfinite(r)]
    note = ""
    if len(known) < n_repeats:
        note = (
            f"The correlation stays above 1/7 up to the pixels of {pixel:g} nm; use a smaller pixel_size_nm."
            if not known
            else f"{n_repeats - len(known)} of {n_repeats} splits gave no resolution."
        )
    return Frc(
        resolution_nm=float(np.mean(known)) if known else float("nan"),
        spread_nm=float(np.std(known, ddof=1)) if len(known) > 1 else float("nan"),
        frequency_per_nm=frequency,
        correlation=_correlation(np.sum(sums, axis=0)),
        pixel_size_nm=pixel,
        n_blocks=n_blocks,
        n_repeats=n_repeats,
        note=note,
    )


def block_of_frames(frame: npt.NDArray[Any], n_blocks: int) -> npt.NDArray[np.intp]:
    """Number of the block of consecutive frames every row lies in; blocks are equally long, the last may be shorter."""
    first = int(frame.min())
    n_frames = int(frame.max()) - first + 1
    length = max(1, math.ceil(n_frames / n_blocks))
    return ((frame.astype(np.int64) - first) // length).astype(np.intp)


def ring_correlation(a: FloatArray, b: FloatArray, pixel_size_nm: float) -> tuple[FloatArray, FloatArray]:
    """Sums over rings of equal spatial frequency.

    Parameters
    ----------
    a, b : array (height, width)
        Two images of the same field.
    pixel_size_nm : float
        Edge of a pixel.

    Returns
    -------
    frequency_per_nm : array (n,)
        Centres of the rings, up to the Nyquist frequency; the ring of frequency 0 is left out.
    sums : array (3, n)
        Per ring Σ Re(F_a F_b*), Σ |F_a|², Σ |F_b|².
    """
    from scipy import fft

    height, width = a.shape
    fa, fb = (fft.rfft2(image.astype(np.float32), workers=2) for image in (a, b))
    fy, fx = fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None, :]
    longest = max(height, width)
    ring = np.rint(np.hypot(fy, fx) * longest).astype(np.intp)
    n_rings = longest // 2 + 1
    # Of a real image only half the plane is kept; the columns that stand for two count twice.
    weight = np.full(fa.shape[1], 2.0)
    weight[0] = 1.0
    if width % 2 == 0:
        weight[-1] = 1.0
    inside = ring < n_rings
    rings, weights = ring[inside], np.broadcast_to(weight, fa.shape)[inside]
    products = ((fa * fb.conj()).real, np.abs(fa) ** 2, np.abs(fb) ** 2)
    sums = [np.bincount(rings, (p[inside] * weights).astype(np.float64), minlength=n_rings) for p in products]
    frequency = np.arange(1, n_rings, dtype=np.float64) / (longest * pixel_size_nm)
    return frequency, np.stack(sums).astype(np.float64)[:, 1:]


def _correlation(sums: FloatArray) -> FloatArray:
    """Correlation from ring sums, each smoothed over neighbouring rings (2 % of them, at least one)."""
    from scipy.ndimage import gaussian_filter1d

    width = max(1.0, 0.01 * sums.shape[1])
    cross, first, second = (gaussian_filter1d(row, width, mode="nearest") for row in sums)
    return np.asarray(cross / np.sqrt(np.maximum(first * second, 1e-30)))


def _resolution(frequency: FloatArray, correlation: FloatArray) -> float:
    """One over the frequency of the first crossing of 1/7, interpolated; NaN where there is none."""
    below = np.flatnonzero(correlation < THRESHOLD)
    if not len(below):
        return float("nan")
    k = int(below[0])
    if k == 0:
        return float(1 / frequency[0])
    high, low = correlation[k - 1], correlation[k]
    crossing = frequency[k - 1] + (frequency[k] - frequency[k - 1]) * (high - THRESHOLD) / (high - low)
    return float(1 / crossing)


def _pixel_size(locs: Localizations, given_nm: float | None, camera_pixel_nm: float) -> float:
    if given_nm is not None:
        if not (math.isfinite(given_nm) and given_nm > 0):
            raise ConfigurationError(f"pixel_size_nm = {given_nm} is impossible; give nm above 0, e.g. 5.")
        wanted = float(given_nm)
    elif "sigma_x" in locs and (locs["sigma_x"] > 0).any():
        wanted = 0.5 * float(np.median(locs["sigma_x"][locs["sigma_x"] > 0])) * camera_pixel_nm
    else:
        wanted = 5.0
    extent = max(float(np.ptp(locs[axis])) for axis in "xy") * camera_pixel_nm
    return max(wanted, extent / (_LARGEST_IMAGE_PX - 1))


def _cells(locs: Localizations, step_px: float) -> tuple[npt.NDArray[np.intp], tuple[int, int]]:
    """Pixel of every row in an image around all of them, with an even number of rows and columns."""
    index = [np.floor((locs[axis] - locs[axis].min()) / step_px).astype(np.intp) for axis in "yx"]
    height, width = (int(i.max()) + 2 & ~1 for i in index)
    return index[0] * width + index[1], (height, width)


def _window(shape: tuple[int, int]) -> FloatArray:
    from scipy.signal.windows import tukey

    return np.outer(*(tukey(size, 2 * _FADED) for size in shape))
