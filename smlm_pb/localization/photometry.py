"""How bright molecules are, measured on the pixels: by what factor a network's photons are wrong in a movie."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.neighbours import pairs_within
from smlm_pb.localization.windows import Windows, cut_windows, spots

FloatArray = npt.NDArray[np.float64]

#: Half the window in which light is measured, in PSF widths.
_HALF_WINDOW = 3.0
#: Light further from a molecule than this is not seen, in PSF widths.
_SEEN = 3.5
#: Candidates from here on shine into the windows of others.
_SHINES = 0.3
#: Molecules that suffice.
_MOST = 400
#: What neighbours shine is corrected by the factor in turn.
_ROUNDS = 2
_RANGE = (0.4, 2.5)


def photon_scale(
    rows: npt.NDArray[Any], chosen: npt.NDArray[np.intp], electrons: npt.NDArray[np.float32], psf_sigma_px: float
) -> float:
    """By what factor the photons of molecules must be multiplied so that they are those in the pixels.

    In a window around each chosen molecule the light of its neighbours is taken away, and an amplitude of the PSF at
    its place and a constant background are fitted by least squares. The median over the molecules counts.

    Parameters
    ----------
    rows : structured array (n,)
        Candidates with ``frame`` (from 0), ``x``, ``y``, ``photons``, ``probability``.
    chosen : array of int
        Those that are measured; the less crowded the better.
    electrons : array (frame, y, x), float32
        The frames, in the electrons that ``photons`` are counted in.
    psf_sigma_px : float
        PSF width, px.

    Returns
    -------
    float
        1 where nothing can be measured; between 0.4 and 2.5.
    """
    if len(chosen) == 0:
        return 1.0
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), _MOST)).round().astype(int)]
    stated = rows["photons"][chosen].astype(np.float64)
    cut = cut_windows(rows[chosen], electrons, math.ceil(_HALF_WINDOW * psf_sigma_px))
    seen = cut.seen & np.isfinite(cut.pixels)
    pixels = np.where(seen, cut.pixels, 0.0)
    x, y = rows["x"][chosen].astype(np.float64), rows["y"][chosen].astype(np.float64)
    shape = spots(x, y, cut.rows_at, cut.columns_at, psf_sigma_px)
    others = _light_of_others(rows, chosen, cut, psf_sigma_px)
    scale = 1.0
    for _ in range(_ROUNDS):
        amplitude = _amplitudes(pixels - scale * others, shape, seen)
        ratio = amplitude[stated > 0] / stated[stated > 0]
        if not len(ratio):
            return 1.0
        scale = float(np.clip(np.median(ratio), *_RANGE))
    return scale


def _light_of_others(
    rows: npt.NDArray[Any],
    chosen: npt.NDArray[np.intp],
    cut: Windows,
    psf_sigma_px: float,
) -> FloatArray:
    """What the other candidates shine into each window (n, y, x)."""
    rows_at, columns_at = cut.rows_at, cut.columns_at
    shines = rows["probability"] >= _SHINES
    reach = math.sqrt(2) * (rows_at.shape[1] / 2 + 0.5) + _SEEN * psf_sigma_px
    both = np.union1d(chosen, np.flatnonzero(shines))
    pairs = both[np.stack(pairs_within(rows.take(both), reach)[:2])]
    one, other = np.hstack((pairs, pairs[::-1]))
    window = np.full(len(rows), -1)
    window[chosen] = np.arange(len(chosen))
    meant = (window[one] >= 0) & shines[other]
    window, other = window[one[meant]], other[meant]
    x, y = rows["x"][other].astype(np.float64), rows["y"][other].astype(np.float64)
    shares = spots(x, y, rows_at[window], columns_at[window], psf_sigma_px)
    light: FloatArray = np.zeros((len(chosen), rows_at.shape[1], columns_at.shape[1]))
    np.add.at(light, window, rows["photons"][other].astype(np.float64)[:, None, None] * shares)
    return light


def _amplitudes(window: FloatArray, shape: FloatArray, seen: npt.NDArray[np.bool_]) -> FloatArray:
    """Amplitudes (n,) of least-squares fits of spot and constant background."""
    axes = (1, 2)
    pixels = np.maximum(seen.sum(axes), 1)
    centred = (shape - ((shape * seen).sum(axes) / pixels)[:, None, None]) * seen
    amplitudes: FloatArray = (centred * window).sum(axes) / np.maximum((centred**2).sum(axes), 1e-12)
    return amplitudes
