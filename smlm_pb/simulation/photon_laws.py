"""How bright molecules are: the law that a scene's photons are drawn from, and what it looks like as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smlm_pb.population import CROWDING_RANGE, EVEN_CROWDING, Population
from smlm_pb.simulation.geometry import Float64Array, choose, log_uniform
from smlm_pb.simulation.scene_settings import SceneSettings

#: Molecules that the percentiles of a law are taken from.
_SAMPLE = 400
_PERCENTILES = (16, 50, 84)
#: Measured values are not quite the true ones: relative errors (natural logarithm) of level, spread, density and
#: crowding.
_LEVEL_ERROR, _SPREAD_ERROR, _DENSITY_ERROR, _CROWDING_ERROR = 0.03, 0.1, 0.1, 0.06
#: Where molecules keep together and overlap, they are taken for brighter than they are (natural logarithm), all the
#: more where this many molecules per px² surround one.
_TOO_BRIGHT, _CROWDED_PER_PX2 = 0.05, 0.04
_LEAST_RATIO = 1.02


@dataclass(frozen=True)
class PhotonLaw:
    """The distribution of the photo-electrons that molecules of one scene leave in one frame.

    Parameters
    ----------
    level : float
        Median (``exponential``: mean) brightness in e⁻ per frame.
    spread : str
        ``constant``, ``lognormal`` or ``exponential``.
    width : float
        Standard deviation of the logarithm; without meaning for ``exponential``.
    mean_on_frames : float or None
        Mean on-time in frames where molecules switch on and off within the frame.
    most : float
        No molecule is brighter, e⁻.
    """

    level: float
    spread: str
    width: float
    mean_on_frames: float | None
    most: float

    @classmethod
    def draw(cls, rng: np.random.Generator, settings: SceneSettings) -> PhotonLaw:
        """Draw the law of one scene."""
        level = log_uniform(rng, *settings.photons)
        spread = choose(rng, tuple(settings.photon_spreads), tuple(settings.photon_spreads.values()))
        width = {"constant": rng.uniform(0.05, 0.15), "lognormal": rng.uniform(0.3, 0.6)}.get(spread, 0.0)
        on_frames = log_uniform(rng, 0.3, 8.0) if rng.random() < settings.partial_on_fraction else None
        return cls(level, spread, width, on_frames, 3.0 * settings.photons[1])

    @property
    def is_narrow(self) -> bool:
        """Whether all molecules are about equally bright, so that brightness tells one from two."""
        return self.spread == "constant" and self.mean_on_frames is None

    def sample(self, rng: np.random.Generator, n: int) -> Float64Array:
        """Draw the photo-electrons of ``n`` molecules in e⁻."""
        photons = self.brightness(rng, n)
        if self.mean_on_frames is not None:
            photons = photons * draw_on_overlap(rng, self.mean_on_frames, n)
        return np.minimum(photons, self.most)

    def in_frames(self, rng: np.random.Generator, n: int, context_frames: int) -> Float64Array:
        """Draw the photo-electrons of ``n`` molecules in neighbouring frames (n, 2 * context_frames + 1), e⁻."""
        if context_frames == 0:
            return self.sample(rng, n)[:, None]
        share = draw_in_neighbouring_frames(rng, self.mean_on_frames, n, context_frames)
        return np.minimum(self.brightness(rng, n)[:, None] * share, self.most)

    def brightness(self, rng: np.random.Generator, n: int) -> Float64Array:
        """Draw what ``n`` molecules would leave in a frame in which they are on throughout, e⁻."""
        relative = rng.exponential(1.0, n) if self.spread == "exponential" else rng.lognormal(0.0, self.width, n)
        photons: Float64Array = self.level * relative
        return photons


def draw_on_overlap(rng: np.random.Generator, mean_on_frames: float, n: int) -> Float64Array:
    """Draw which part of one frame molecules are on, given that they are on at some moment of it.

    On-times are exponential. Of the molecules seen in a frame, a share mean/(1 + mean) was on when it began
    (and stays on for a further exponential time), the others switch on at a uniform moment within it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    mean_on_frames : float
        Mean on-time in frames.
    n : int
        Number of molecules.

    Returns
    -------
    array (n,)
        Overlap of on-time and frame in (0, 1].
    """
    was_on = rng.random(n) < mean_on_frames / (1.0 + mean_on_frames)
    available = np.where(was_on, 1.0, 1.0 - rng.random(n))
    return np.minimum(available, rng.exponential(mean_on_frames, n))


def draw_in_neighbouring_frames(
    rng: np.random.Generator, mean_on_frames: float | None, n: int, context_frames: int
) -> Float64Array:
    """Draw which part of neighbouring frames molecules are on that are on at some moment of them.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    mean_on_frames : float or None
        Mean of the exponential on-times in frames; None for molecules that are on for exactly one frame.
    n : int
        Number of molecules.
    context_frames : int
        Frames before and after the middle one.

    Returns
    -------
    array (n, 2 * context_frames + 1)
        Overlap of on-time and each frame, 0 to 1.
    """
    frames = 2 * context_frames + 1
    if mean_on_frames is None:
        return np.eye(frames)[rng.integers(0, frames, n)]
    # On at a moment of the window: on when it begins, or switched on within it, in proportion to on-time and length.
    was_on = rng.random(n) < mean_on_frames / (frames + mean_on_frames)
    start = np.where(was_on, 0.0, frames * rng.random(n))
    end = start + rng.exponential(mean_on_frames, n)
    first = np.arange(frames)
    overlap: Float64Array = np.clip(np.minimum(end[:, None], first + 1) - np.maximum(start[:, None], first), 0.0, None)
    return overlap


def molecules_per_frame_molecule(mean_on_frames: float | None, context_frames: int) -> float:
    """How many molecules are on at some moment of neighbouring frames, per molecule in one of them."""
    frames = 2 * context_frames + 1
    return float(frames) if mean_on_frames is None else (frames + mean_on_frames) / (1 + mean_on_frames)


def measured_population(
    rng: np.random.Generator,
    law: PhotonLaw,
    *,
    scale: float,
    least_photons: float,
    density_per_px2: float,
    crowding: float = 1.0,
) -> Population:
    """What a measurement of the whole movie would say of a scene's molecules, errors included.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    law : PhotonLaw
        Where the molecules' photons come from.
    scale : float
        Effective electrons per electron.
    least_photons : float
        Fainter molecules are not found, effective e⁻.
    density_per_px2 : float
        Mean density of the scene.
    crowding : float
        How many times that density surrounds a molecule.

    Returns
    -------
    Population
        In effective electrons.
    """
    photons = law.sample(rng, _SAMPLE) * scale
    found = photons[photons >= least_photons]
    if len(found) < _SAMPLE // 20:
        found = np.maximum(photons, least_photons)
    low, middle, high = np.percentile(found, _PERCENTILES)
    level_error = rng.normal(0.0, _LEVEL_ERROR)
    below, above = (
        max(_LEAST_RATIO, float(ratio ** np.exp(rng.normal(0.0, _SPREAD_ERROR)) + abs(rng.normal(0.0, 0.02))))
        for ratio in (middle / low, high / middle)
    )
    density = max(density_per_px2, 1e-6) * np.exp(rng.normal(0.0, _DENSITY_ERROR))
    # A generator of its own: all else that is drawn stays what it was before crowding was told.
    error = float(rng.spawn(1)[0].normal(0.0, _CROWDING_ERROR))
    around = density * float(np.clip(crowding * np.exp(error), *CROWDING_RANGE))
    if crowding >= EVEN_CROWDING:
        level_error += _TOO_BRIGHT * min(1.0, crowding * density_per_px2 / _CROWDED_PER_PX2)
    level = middle * np.exp(level_error)
    return Population(float(level), float(level / below), float(level * above), float(density), around)
