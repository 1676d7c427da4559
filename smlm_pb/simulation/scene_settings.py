"""The range of experiments that training scenes are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from smlm_pb.errors import ConfigurationError
from smlm_pb.simulation.molecule_classes import MoleculeClass, checked_classes

STRUCTURES = ("uniform", "filaments", "rings", "clusters", "mixture")
PHOTON_SPREADS = ("constant", "lognormal", "exponential")


def _dense_structures() -> Mapping[str, float]:
    return {"uniform": 0.35, "filaments": 0.35, "rings": 0.08, "clusters": 0.08, "mixture": 0.14}


def _sparse_structures() -> Mapping[str, float]:
    return {"uniform": 0.6, "filaments": 0.2, "rings": 0.08, "clusters": 0.06, "mixture": 0.06}


def _photon_spreads() -> Mapping[str, float]:
    return {"constant": 0.4, "lognormal": 0.4, "exponential": 0.2}


@dataclass(frozen=True)
class SceneSettings:
    """The range of experiments that scenes are drawn from.

    Parameters
    ----------
    psf_sigma_px : (float, float)
        Smallest and largest PSF width in px; one uniform draw per scene.
    psf_spread : float
        Largest relative spread of the width from molecule to molecule; one uniform draw per scene.
    psf_asymmetry : float
        Largest difference of the widths along x and y, as the logarithm of their ratio; one uniform draw per scene.
    psf_halo : float
        Largest share of the light in a halo twice as wide as the core, as objectives have it; half of the scenes have
        one.
    photons : (float, float)
        Smallest and largest brightness level in e⁻ per frame; one log-uniform draw per scene.
    photon_spreads : mapping name -> weight
        How molecules of one scene differ: ``constant`` (5-15 %), ``lognormal`` (0.3-0.6), ``exponential``.
    partial_on_fraction : float
        Share of scenes in which molecules switch on or off within the frame and so lose part of their light.
    background_e : (float, float)
        Smallest and largest mean background level in e⁻/px.
    structured_background_fraction : float
        Share of scenes with a smoothly varying background.
    read_noise_e : (float, float)
        Read noise of CCD and sCMOS scenes in e⁻; log-uniform.
    em_fraction : float
        Share of scenes taken with an electron-multiplying camera. They are divided by the excess noise
        factor 2 ("effective electrons"), so that variance equals mean for every camera.
    gain_error : float
        Largest relative error of the assumed gain; uniform in ±value.
    empty_fraction, sparse_fraction : float
        Shares of scenes without molecules and with few; the rest is dense.
    sparse_density_per_px2, dense_density_per_px2 : (float, float)
        Mean density of molecules; log-uniform for sparse, uniform for dense scenes. 0.08/px² is
        8 molecules/µm² at 100-nm pixels.
    dense_structures, sparse_structures : mapping name -> weight
        How molecules are arranged.
    close_pair_fraction : float
        Share of the molecules of sparse scenes of constant brightness that get a second one within 1.5 px. Close pairs
        are rare where molecules are, but there brightness tells them from single molecules, which must be learned.
    max_line_density_per_px, max_area_density_per_px2 : float
        Molecules on a structure never sit denser than this at one moment.
    min_photons : float
        Molecules that leave fewer effective electrons in the frame stay in the image, not in the truth.
    unknown_population_fraction : float
        Share of scenes of whose molecules the network is told nothing.
    context_frames : int
        Frames before and after the one that is looked at, 0 or 1.
    margin_px : float
        Molecules lie up to this far outside the frame and shine into it.
    psf_file : str, optional
        Measured PSF (:func:`smlm_pb.simulation.sampled_psf.read_psf`) instead of Gaussians; ``psf_sigma_px`` is then
        what the network is told, and ``psf_spread`` plays no part.
    classes : tuple of MoleculeClass
        Classes of molecules that lie side by side (:mod:`smlm_pb.simulation.molecule_classes`); empty: all are alike.

    Raises
    ------
    ConfigurationError
        When a value is impossible.
    """

    psf_sigma_px: tuple[float, float] = (0.8, 1.6)
    psf_spread: float = 0.04
    psf_asymmetry: float = 0.0
    psf_halo: float = 0.0
    photons: tuple[float, float] = (200.0, 10_000.0)
    photon_spreads: Mapping[str, float] = field(default_factory=_photon_spreads)
    partial_on_fraction: float = 0.35
    background_e: tuple[float, float] = (0.0, 200.0)
    structured_background_fraction: float = 0.4
    read_noise_e: tuple[float, float] = (0.3, 3.0)
    em_fraction: float = 0.2
    gain_error: float = 0.03
    empty_fraction: float = 0.03
    sparse_fraction: float = 0.42
    sparse_density_per_px2: tuple[float, float] = (1e-4, 0.02)
    dense_density_per_px2: tuple[float, float] = (0.01, 0.08)
    dense_structures: Mapping[str, float] = field(default_factory=_dense_structures)
    sparse_structures: Mapping[str, float] = field(default_factory=_sparse_structures)
    close_pair_fraction: float = 0.0
    max_line_density_per_px: float = 0.8
    max_area_density_per_px2: float = 0.5
    min_photons: float = 50.0
    margin_px: float = 8.0
    unknown_population_fraction: float = 0.25
    context_frames: int = 0
    psf_file: str | None = None
    classes: tuple[MoleculeClass, ...] = ()

    def __post_init__(self) -> None:
        for name in _RANGES:
            object.__setattr__(self, name, _checked_range(name, getattr(self, name), _RANGES[name]))
        for name in _FRACTIONS:
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigurationError(f"Scene setting {name} = {value} must lie in [0, 1].")
        if self.empty_fraction + self.sparse_fraction > 1.0:
            raise ConfigurationError("Scene settings empty_fraction + sparse_fraction must not exceed 1: lower one.")
        if self.context_frames not in (0, 1):
            raise ConfigurationError(f"Scene setting context_frames = {self.context_frames!r} must be 0 or 1.")
        for name in ("max_line_density_per_px", "max_area_density_per_px2", "min_photons", "margin_px"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigurationError(f"Scene setting {name} = {getattr(self, name)} must be ≥ 0.")
        if self.psf_file is not None and not (isinstance(self.psf_file, str) and self.psf_file):
            raise ConfigurationError(f"Scene setting psf_file = {self.psf_file!r} must be the path of a file, or null.")
        object.__setattr__(self, "classes", checked_classes(self.classes))
        if self.classes and self.psf_file is not None:
            raise ConfigurationError("Scene settings classes and psf_file do not go together: leave one of them out.")
        for name, known in _MIXES.items():
            object.__setattr__(self, name, _checked_mix(name, getattr(self, name), known))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


_RANGES: dict[str, float] = {  # name -> lower limit that the range must respect
    "psf_sigma_px": 0.3,
    "photons": 1.0,
    "background_e": 0.0,
    "read_noise_e": 1e-3,
    "sparse_density_per_px2": 1e-7,
    "dense_density_per_px2": 1e-7,
}
_FRACTIONS = (
    "psf_spread",
    "psf_asymmetry",
    "psf_halo",
    "unknown_population_fraction",
    "partial_on_fraction",
    "structured_background_fraction",
    "em_fraction",
    "gain_error",
    "empty_fraction",
    "sparse_fraction",
    "close_pair_fraction",
)
_MIXES = {"photon_spreads": PHOTON_SPREADS, "dense_structures": STRUCTURES, "sparse_structures": STRUCTURES}


def _checked_range(name: str, value: Any, lowest: float) -> tuple[float, float]:
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        raise ConfigurationError(f"Scene setting {name} = {value!r} must be two numbers [low, high].") from None
    if not (lowest <= low <= high < np.inf):
        raise ConfigurationError(f"Scene setting {name} = [{low:g}, {high:g}] must satisfy {lowest:g} ≤ low ≤ high.")
    return low, high


def _checked_mix(name: str, mix: Any, known: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(mix, Mapping):
        raise ConfigurationError(
            f"Scene setting {name} = {mix!r} must map names to weights; known: {', '.join(known)}."
        )
    unknown = [key for key in mix if key not in known]
    if unknown:
        raise ConfigurationError(f"Scene setting {name} names {unknown[0]!r}; known are {', '.join(known)}.")
    weights = {str(key): float(weight) for key, weight in mix.items()}
    if not (weights and min(weights.values()) >= 0 and 0 < sum(weights.values()) < np.inf):
        raise ConfigurationError(f"Scene setting {name} needs weights ≥ 0 with a positive sum.")
    return weights
