"""Blinking: when molecules are on, and how much of each on-time falls into each frame."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.simulation.geometry import Float64Array

IntArray = npt.NDArray[np.int64]


class Blinks(NamedTuple):
    """On-times of molecules: one row per blink, times in frames."""

    molecule: IntArray
    """Index of the molecule."""
    start: Float64Array
    """Moment of switching on; 0 is the beginning of the movie, where the molecule was on already."""
    end: Float64Array
    """Moment of switching off or bleaching; may lie beyond the end of the movie."""


class LitFrames(NamedTuple):
    """What molecules leave in frames: one row per molecule and frame, ordered by frame, then molecule."""

    frame: IntArray
    molecule: IntArray
    light: Float64Array
    """Flux times overlap, summed over the blinks of that molecule in that frame."""


def draw_blinks(
    rng: np.random.Generator,
    n_molecules: int,
    n_frames: int,
    *,
    on_frames: float,
    off_frames: float,
    blinks: float | None = None,
) -> Blinks:
    """Draw the on-times of molecules that switch at random, starting in equilibrium.

    On- and off-times are exponential; after each blink a molecule bleaches with probability 1/``blinks``.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n_molecules, n_frames : int
        Number of molecules and length of the movie.
    on_frames, off_frames : float
        Mean on- and off-time in frames.
    blinks : float, optional
        Mean number of blinks before bleaching, ≥ 1; None for molecules that never bleach.

    Returns
    -------
    Blinks
        Ordered by round of blinking, not by time.
    """
    bleaching = 0.0 if blinks is None else 1.0 / blinks
    is_on = rng.random(n_molecules) < on_frames / (on_frames + off_frames)
    # Exponential times have no memory: what is left of the first on- or off-time is exponential as well.
    time = np.where(is_on, 0.0, rng.exponential(off_frames, n_molecules))
    alive = np.flatnonzero(time < n_frames)
    time = time[alive]
    molecules, starts, ends = [], [], []
    while alive.size:
        end = time + rng.exponential(on_frames, alive.size)
        molecules.append(alive)
        starts.append(time)
        ends.append(end)
        bleached = rng.random(alive.size) < bleaching
        time = end + rng.exponential(off_frames, alive.size)
        kept = ~bleached & (time < n_frames)
        alive, time = alive[kept], time[kept]
    if not molecules:
        return Blinks(np.empty(0, np.int64), np.empty(0), np.empty(0))
    return Blinks(np.concatenate(molecules), np.concatenate(starts), np.concatenate(ends))


def light_per_frame(blinks: Blinks, flux: npt.ArrayLike, n_frames: int) -> LitFrames:
    """Share the light of blinks among frames: flux × overlap of the on-time with each frame.

    Parameters
    ----------
    blinks : Blinks
        On-times in frames.
    flux : float or array (blinks,)
        Photons per frame while on.
    n_frames : int
        Length of the movie; what lies beyond is cut off.

    Returns
    -------
    LitFrames
    """
    start, end = np.maximum(blinks.start, 0.0), np.minimum(blinks.end, float(n_frames))
    seen = end > start
    start, end, molecule = start[seen], end[seen], blinks.molecule[seen]
    flux = np.broadcast_to(np.asarray(flux, dtype=np.float64), blinks.start.shape)[seen]
    first = np.floor(start).astype(np.int64)
    length = np.ceil(end).astype(np.int64) - first
    blink = np.repeat(np.arange(start.size), length)
    frame = np.arange(blink.size) - np.repeat(np.cumsum(length) - length, length) + first[blink]
    overlap = np.minimum(end[blink], frame + 1.0) - np.maximum(start[blink], frame)
    light = flux[blink] * overlap
    if frame.size == 0:
        return LitFrames(frame, molecule[blink], light)
    # A molecule that blinks twice within one frame is one molecule of that frame.
    n_molecules = int(molecule.max()) + 1
    key, inverse = np.unique(frame * n_molecules + molecule[blink], return_inverse=True)
    total = np.bincount(inverse, weights=light, minlength=key.size).astype(np.float64)
    return LitFrames(key // n_molecules, key % n_molecules, total)


def draw_flux(rng: np.random.Generator, n: int, mean: float, distribution: str, spread: float) -> npt.NDArray[Any]:
    """Draw brightnesses of a given mean.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n : int
        How many.
    mean : float
        Mean brightness.
    distribution : str
        ``constant``, ``lognormal`` or ``exponential``.
    spread : float
        Standard deviation of the logarithm, for ``lognormal``.

    Returns
    -------
    array (n,)
    """
    if distribution == "exponential":
        return rng.exponential(mean, n)
    if distribution == "lognormal":
        return mean * rng.lognormal(-(spread**2) / 2.0, spread, n)
    return np.full(n, float(mean))
