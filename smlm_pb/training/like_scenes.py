"""From a measured movie to training scenes like it, corrected until a model finds the same in both.

What a model reports of a movie is not what is there: in crowds molecules are missed, and two dim ones pass for a bright
one. Scenes are therefore drawn, the same model finds molecules in them, and brightness and density of the scenes are
changed by the ratio of what it finds in the movie and in the scenes (indirect inference: Gouriéroux, Monfort and
Renault, J. Appl. Econometrics 8, S85, 1993).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.camera import Camera
from smlm_pb.simulation.scenes import Scene, SceneSettings, draw_scene
from smlm_pb.training.movie_measure import Found, MovieMeasure, Triple, describe, find

if TYPE_CHECKING:
    from smlm_pb.localization.model import Model

#: Margins of the ranges: a movie of the same kind tomorrow is not quite the same.
_PSF_MARGIN, _PSF_ERRORS = 0.06, 3.0
_PHOTON_MARGIN = 1.6
_BACKGROUND_BELOW, _BACKGROUND_ABOVE, _BACKGROUND_SHIFT_E = 0.6, 1.4, 2.0
_DENSITY_BELOW, _DENSITY_ABOVE = 0.5, 1.5
_READ_NOISE_MARGIN = (0.6, 1.5)
#: A network learns little from scenes that are almost empty: the densest ones hold this much at least.
_LEAST_DENSITY_PER_PX2 = 0.005
_THINNEST_PER_PX2 = 1e-4
#: Relative range of the background over the field from which on most scenes have an uneven one.
_UNEVEN = 0.3
#: Structures of the scenes by what the movie's look like; some of all others, because the next field is another.
_STRUCTURES = {
    "uniform": {"uniform": 0.7, "filaments": 0.1, "rings": 0.05, "clusters": 0.05, "mixture": 0.1},
    "filaments": {"filaments": 0.65, "uniform": 0.2, "mixture": 0.15},
    "spots": {"rings": 0.35, "clusters": 0.35, "uniform": 0.1, "mixture": 0.2},
}
#: Rounds of correction, scenes per round, and how far a round may go.
_ROUNDS, _SCENES, _SCENE_PX, _LARGEST_STEP = 2, 48, 64, 2.0


@dataclass(frozen=True)
class LikeScenes:
    """Training scenes like a movie.

    Parameters
    ----------
    settings : SceneSettings
        The range that scenes are drawn from.
    found : Found
        What the model finds in such scenes: to be held against what it finds in the movie.
    photons_e, density_per_px2 : float
        Typical brightness and density of the scenes, after correction.
    """

    settings: SceneSettings
    found: Found
    photons_e: float
    density_per_px2: float


def scenes_like(measure: MovieMeasure, model: Model, base: Mapping[str, Any], *, seed: int) -> LikeScenes:
    """Find scene settings in which the model finds what it finds in the movie.

    Parameters
    ----------
    measure : MovieMeasure
        The movie.
    model : Model
        The model with which it was measured.
    base : mapping
        Scene settings of that model's own training: what cannot be measured is taken from there.
    seed : int
        Seed of the scenes that are compared.

    Returns
    -------
    LikeScenes
    """
    photons, density = measure.found.photons[1], measure.found.mean_density_per_px2
    spread = measure.found.photon_spread
    ranges = SceneSettings(**base)
    for round_ in range(_ROUNDS + 1):
        settings = _settings(measure, ranges, photons, density, spread)
        scenes = draw_like(settings, count=_SCENES, size_px=_SCENE_PX, seed=seed + round_)
        found = find_in_scenes(scenes, measure, model)
        if round_ < _ROUNDS:
            photons *= _step(measure.found.photons[1], found.photons[1])
            density *= _step(measure.found.mean_density_per_px2, found.mean_density_per_px2)
            # Crowds and dim light spread what is found beyond what is there.
            spread *= _step(measure.found.photon_spread, found.photon_spread)
    return LikeScenes(settings, found, photons, density)


def draw_like(settings: SceneSettings, *, count: int, size_px: int | tuple[int, int], seed: int) -> list[Scene]:
    """Draw scenes for comparison with the movie, leaving out the empty ones that training adds."""
    filled = replace(settings, empty_fraction=0.0)
    return [draw_scene(np.random.default_rng([seed, index]), filled, size_px) for index in range(count)]


def find_in_scenes(scenes: list[Scene], measure: MovieMeasure, model: Model) -> Found:
    """What the model finds in scenes, in the movie's photo-electrons."""
    camera = Camera(offset_adu=0.0, e_per_adu=1.0, read_noise_e=max(0.1, measure.read_noise_e))
    frames = np.stack([scene.electrons for scene in scenes])
    found = describe(find(frames, model, camera, measure.conditions.psf_sigma_px))

    def in_electrons(values: Triple) -> Triple:
        low, middle, high = (measure.excess_noise_factor * value for value in values)
        return low, middle, high

    return replace(found, photons=in_electrons(found.photons), background_e=in_electrons(found.background_e))


def _step(wanted: float, got: float) -> float:
    """Factor of a correction, bounded so that a bad round cannot run away."""
    if wanted <= 0 or got <= 0:
        return 1.0
    return float(np.clip(wanted / got, 1 / _LARGEST_STEP, _LARGEST_STEP))


def _settings(
    measure: MovieMeasure, base: SceneSettings, photons: float, density: float, spread: float
) -> SceneSettings:
    """Scene settings around typical values."""
    found, conditions = measure.found, measure.conditions
    sigma = conditions.psf_sigma_px
    margin = max(_PSF_MARGIN * sigma, _PSF_ERRORS * measure.psf_error_px)
    relative = [value / max(found.mean_density_per_px2, 1e-9) for value in found.density_per_px2]
    # The typical region may be empty where molecules sit together; the mean is then what counts.
    thin = max(_THINNEST_PER_PX2, _DENSITY_BELOW * density * relative[0])
    middle = max(2 * thin, density * min(max(relative[1], 0.5), 1.0))
    dense = max(_LEAST_DENSITY_PER_PX2, 1.2 * middle, _DENSITY_ABOVE * density * relative[2])
    structures = _STRUCTURES.get(found.arrangement)
    changes: dict[str, Any] = {
        "psf_sigma_px": _rounded(max(0.3, sigma - margin), sigma + margin),
        "photons": _rounded(max(20.0, photons / _PHOTON_MARGIN), max(30.0, photons * _PHOTON_MARGIN)),
        "photon_spreads": _photon_spreads(spread),
        "partial_on_fraction": base.partial_on_fraction * float(np.clip((spread - 0.1) / 0.4, 0.25, 1.0)),
        "background_e": _background(measure),
        "structured_background_fraction": 0.7 if _is_uneven(measure) else 0.3,
        "sparse_density_per_px2": _rounded(thin, middle),
        "dense_density_per_px2": _rounded(middle, dense),
        "sparse_fraction": 0.35,
        "sparse_structures": dict(structures or base.sparse_structures),
        "dense_structures": dict(structures or base.dense_structures),
        "em_fraction": 1.0 if measure.excess_noise_factor > 1 else 0.0,
        "min_photons": min(base.min_photons, 0.25 * photons),
    }
    if measure.excess_noise_factor == 1:
        low, high = (factor * max(measure.read_noise_e, 0.2) for factor in _READ_NOISE_MARGIN)
        changes["read_noise_e"] = _rounded(low, high)
    return replace(base, **changes)


def _background(measure: MovieMeasure) -> tuple[float, float]:
    low = min(measure.background_e[0], measure.background_e[1])
    high = max(measure.background_e[2], measure.found.background_e[1])
    return _rounded(_BACKGROUND_BELOW * low, _BACKGROUND_ABOVE * high + _BACKGROUND_SHIFT_E)


def _is_uneven(measure: MovieMeasure) -> bool:
    low, middle, high = measure.background_e
    return (high - low) > _UNEVEN * max(middle, _BACKGROUND_SHIFT_E)


def _photon_spreads(spread: float) -> dict[str, float]:
    """How scenes mix the kinds of brightness: mostly the one that spreads like the movie."""
    if spread < 0.3:
        return {"constant": 0.7, "lognormal": 0.3}
    if spread < 0.8:
        return {"constant": 0.2, "lognormal": 0.6, "exponential": 0.2}
    return {"lognormal": 0.4, "exponential": 0.6}


def _rounded(low: float, high: float) -> tuple[float, float]:
    """Three digits are enough for a file that people read."""
    return float(f"{low:.3g}"), float(f"{high:.3g}")
