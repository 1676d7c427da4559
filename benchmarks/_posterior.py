"""Draws of where the molecules of a frame may be, given the frame and how many there are (Metropolis et al., 1953)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from smlm_pb.compiled import compiled

#: Half the side of the window that holds a molecule's light, px.
_REACH = 6
#: How far molecules are moved at a time, px, and with what share of the trials; a tenth goes far.
_STEPS_PX = ((0.03, 0.45), (0.1, 0.45), (0.25, 0.1))
#: Farther than this a molecule of a draw is none of another, px.
_FAR_PX = 3.0


@dataclass(frozen=True)
class Known:
    """What is known of a frame beside its pixels.

    Parameters
    ----------
    psf_sigma_px : float
        Width of the PSF, px.
    background_e : float
        Background, e⁻/px.
    read_variance_e2 : float
        Variance of the read noise, e⁻².
    photons : (float, float)
        Between these the molecules' photons are evenly distributed.
    """

    psf_sigma_px: float
    background_e: float
    read_variance_e2: float
    photons: tuple[float, float]


def draw(
    frame_e: npt.NDArray[np.float64],
    start: npt.NDArray[np.float64],
    known: Known,
    *,
    sweeps: int,
    every: int,
    draws: int,
    seed: int,
) -> npt.NDArray[np.float64]:
    """Positions (draws, molecules, 2) under the likelihood of the frame, alike probable everywhere beforehand.

    Parameters
    ----------
    frame_e : ndarray (height, width)
        Photo-electrons.
    start : ndarray (molecules, 2)
        Rows and columns to begin with, px.
    known : Known
        What else is known.
    sweeps : int
        Sweeps over all molecules before the first draw.
    every : int
        Sweeps from one draw to the next.
    draws : int
        Number of draws.
    seed : int
        Seed.
    """
    steps = np.array(_STEPS_PX)
    return _chain(
        np.ascontiguousarray(frame_e, dtype=np.float64),
        np.ascontiguousarray(start, dtype=np.float64).copy(),
        known.psf_sigma_px,
        known.background_e,
        known.read_variance_e2,
        *map(float, known.photons),
        steps[:, 0].copy(),
        np.cumsum(steps[:, 1]),
        sweeps,
        every,
        draws,
        seed,
    )


def consensus(drawn: npt.NDArray[np.float64], *, rounds: int = 4) -> npt.NDArray[np.float64]:
    """Where the molecules are on average (molecules, 2), whichever of them each draw calls by which number."""
    centres = drawn[-1].copy()
    for _ in range(rounds):
        total = np.zeros_like(centres)
        for positions in drawn:
            squares = np.minimum(cdist(centres, positions), _FAR_PX) ** 2
            ours, theirs = linear_sum_assignment(squares)
            total[ours] += positions[theirs]
        centres = total / len(drawn)
    return centres


@compiled
def _light(at: float, first: int, sigma: float, out: npt.NDArray[np.float64]) -> None:
    scale = 1 / (sigma * math.sqrt(2.0))
    for k in range(len(out)):
        left = first + k - at - 0.5
        out[k] = 0.5 * (math.erf((left + 1) * scale) - math.erf(left * scale))


@compiled
def _add(image, at, photons, sigma):  # type: ignore[no-untyped-def]
    height, width = image.shape
    side = 2 * _REACH + 1
    rows, columns = np.empty(side), np.empty(side)
    top, left = round(at[0]) - _REACH, round(at[1]) - _REACH
    _light(at[0], top, sigma, rows)
    _light(at[1], left, sigma, columns)
    for i in range(max(0, -top), min(side, height - top)):
        for j in range(max(0, -left), min(side, width - left)):
            image[top + i, left + j] += photons * rows[i] * columns[j]


@compiled
def _chain(  # type: ignore[no-untyped-def]
    frame, at, sigma, background, variance, low, high, steps, shares, sweeps, every, draws, seed
):
    np.random.seed(seed)  # noqa: NPY002 - the generator that Numba compiles
    height, width = frame.shape
    n, side = len(at), 2 * _REACH + 1
    photons = np.random.uniform(low, high, n)  # noqa: NPY002
    expected = np.full((height, width), background)
    for k in range(n):
        _add(expected, at[k], photons[k], sigma)
    out = np.empty((draws, n, 2))
    rows, columns, new_rows, new_columns = np.empty(side), np.empty(side), np.empty(side), np.empty(side)
    new = np.empty(2)
    for sweep in range(1, sweeps + every * draws + 1):
        for k in range(n):
            choice = np.random.random()  # noqa: NPY002
            step = steps[np.searchsorted(shares[:-1], choice)]
            new[0] = at[k, 0] + step * np.random.normal()  # noqa: NPY002
            new[1] = at[k, 1] + step * np.random.normal()  # noqa: NPY002
            brightness = photons[k] + (high - low) * 0.2 * np.random.normal()  # noqa: NPY002
            inside = -0.5 <= new[0] <= height - 0.5 and -0.5 <= new[1] <= width - 0.5
            if not (inside and low <= brightness <= high):
                continue
            top, left = round(at[k, 0]) - _REACH, round(at[k, 1]) - _REACH
            _light(at[k, 0], top, sigma, rows)
            _light(at[k, 1], left, sigma, columns)
            _light(new[0], top, sigma, new_rows)
            _light(new[1], left, sigma, new_columns)
            gain = 0.0
            for i in range(max(0, -top), min(side, height - top)):
                for j in range(max(0, -left), min(side, width - left)):
                    before = expected[top + i, left + j] + variance
                    change = brightness * new_rows[i] * new_columns[j] - photons[k] * rows[i] * columns[j]
                    after = max(before + change, 1e-3)
                    # Read noise as so many more electrons (Huang et al., 2013).
                    gain += (frame[top + i, left + j] + variance) * math.log(after / before) - (after - before)
            if math.log(1 - np.random.random()) < gain:  # noqa: NPY002
                _add(expected, at[k], -photons[k], sigma)
                at[k] = new
                photons[k] = brightness
                _add(expected, at[k], brightness, sigma)
        if sweep > sweeps and (sweep - sweeps) % every == 0:
            out[(sweep - sweeps) // every - 1] = at
    return out
