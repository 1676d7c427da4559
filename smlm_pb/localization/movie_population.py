"""What a movie's molecules are like as a whole: their brightness and number, from a sample of frames.

A network that is told can tell one bright molecule from two of the usual brightness. It looks at the sample twice:
first without knowing, then knowing what the first look has told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.neighbours import offsets_between, pairs_within
from smlm_pb.localization.photometry import photon_scale
from smlm_pb.pair_density import FARTHEST_PX, density_around
from smlm_pb.population import CROWDING_RANGE, EVEN_CROWDING, Population

if TYPE_CHECKING:
    from collections.abc import Callable

    from smlm_pb.camera import Camera
    from smlm_pb.localization.model import Model

#: Candidates from here on count as found molecules.
_FOUND = 0.5
#: Fewer tell nothing of their distribution.
LEAST_MOLECULES = 25
#: Molecules without a neighbour within this many PSF widths have photons of their own.
_ALONE_WIDTHS = 4.0
#: Where fewer than this stand alone, those that are least crowded are taken.
_ENOUGH, _LEAST_CROWDED_SHARE = 100, 0.25
#: Where fewer stand alone because molecules keep together (density around one over mean density), those that seem to
#: are lit by others that nobody found: their pixels tell nothing. In an even field they stand alone by chance.
_ALONE_SHARE = 0.05
_PERCENTILES = (16, 50, 84)
_LEAST_RATIO = 1.02


def measure_population(
    look: Callable[[Population | None], npt.NDArray[Any]],
    electrons: npt.NDArray[np.float32],
    *,
    camera: Camera,
    psf_sigma_px: float,
) -> tuple[Population | None, npt.NDArray[Any]]:
    """Measure brightness and number of the molecules in a sample of frames.

    Parameters
    ----------
    look : callable
        What the network lists in the sample, by what it is told of the population.
    electrons : array (frame, y, x), float32
        The sample, in electrons whose noise has variance = mean.
    camera : Camera
        Where the electrons come from.
    psf_sigma_px : float
        PSF width that the network is told, px.

    Returns
    -------
    Population or None
        None where too few molecules are in the sample.
    structured array (n,)
        What the network has listed in its last look.
    """
    rows = look(None)
    first = population_of(rows, electrons.shape, camera=camera, psf_sigma_px=psf_sigma_px, electrons=electrons)
    if first is None:
        return None, rows
    rows = look(replace(first, photon_scale=1.0))
    second = population_of(rows, electrons.shape, camera=camera, psf_sigma_px=psf_sigma_px, electrons=electrons)
    return second, rows


def is_told(model: Model) -> bool:
    """Whether a network is told of the population."""
    return bool(model.card.network.get("told", "psf") != "psf")


def population_of(
    rows: npt.NDArray[Any],
    shape: tuple[int, ...],
    *,
    camera: Camera,
    psf_sigma_px: float,
    electrons: npt.NDArray[np.float32] | None = None,
) -> Population | None:
    """The population that candidates speak of.

    Parameters
    ----------
    rows : structured array (n,)
        Candidates with ``frame``, ``x``, ``y``, ``photons``, ``background``, ``probability``.
    shape : (int, int, int)
        Frames, height and width in which they were found.
    camera : Camera
        Where the electrons come from.
    psf_sigma_px : float
        PSF width, px.
    electrons : array (frame, y, x), float32, optional
        The frames, in electrons whose noise has variance = mean: what is told of brightness is then what the pixels
        hold, and not the network's opinion, which would confirm itself.

    Returns
    -------
    Population or None
        In electrons divided by the camera's excess noise factor; None where fewer than :data:`LEAST_MOLECULES` are
        found.
    """
    found = rows[rows["probability"] >= _FOUND]
    if len(found) < LEAST_MOLECULES:
        return None
    excess = camera.excess_noise_factor
    distance = _to_the_nearest(found, psf_sigma_px)
    least_crowded, alone = _least_crowded(distance), np.flatnonzero(np.isinf(distance))
    scale = 1.0
    probability = rows["probability"].astype(np.float64)
    density = float(probability.sum()) / float(np.prod(shape))
    around = measured_density_around(rows, probability, shape)
    trusted = len(alone) >= _ALONE_SHARE * len(found) or around < EVEN_CROWDING * density
    if electrons is not None and trusted and len(alone) >= LEAST_MOLECULES:
        scale = photon_scale(found, alone, electrons * np.float32(excess), psf_sigma_px)
    chosen = found[least_crowded]
    photons = scale * chosen["photons"].astype(np.float64).clip(1.0) / excess
    low, middle, high = np.percentile(photons, _PERCENTILES)
    blur = _photon_error(middle, float(np.median(chosen["background"])) / excess, camera, psf_sigma_px)
    below, above = (np.sqrt(max(np.log(ratio) ** 2 - blur**2, 0.0)) for ratio in (middle / low, high / middle))
    return Population(
        photons=float(middle),
        photons_low=float(middle / max(_LEAST_RATIO, np.exp(below))),
        photons_high=float(middle * max(_LEAST_RATIO, np.exp(above))),
        density_per_px2=density,
        density_around_px2=around,
        photon_scale=scale,
    )


def measured_density_around(rows: Any, probability: npt.NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Density of others around a molecule, every candidate counted as far as it is likely.

    Parameters
    ----------
    rows : structured array (n,), or mapping of columns
        Candidates with ``frame``, ``x``, ``y``.
    probability : array (n,)
        Of each.
    shape : (int, int, int)
        Frames, height and width in which they were found.

    Returns
    -------
    float
        Molecules per px², within :data:`~smlm_pb.population.CROWDING_RANGE` times the mean density.
    """
    first, second, _ = pairs_within(rows, FARTHEST_PX)
    total = float(probability.sum())
    box = np.array(shape[:0:-1], np.float64)
    weight = probability.take(first) * probability.take(second)
    around = density_around(offsets_between(rows, first, second), weight, total, box)
    lowest, highest = (factor * total / float(np.prod(shape)) for factor in CROWDING_RANGE)
    return min(max(around, lowest), highest)


def _to_the_nearest(found: npt.NDArray[Any], psf_sigma_px: float) -> npt.NDArray[np.float64]:
    """Squared distance (n,) to the nearest other molecule, px²; infinite for those that stand alone."""
    distance = np.full(len(found), np.inf)
    first, second, square = pairs_within(found, _ALONE_WIDTHS * psf_sigma_px)
    for one in (first, second):
        np.minimum.at(distance, one, square)
    return distance


def _least_crowded(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Indices of molecules that stand alone, or of those that come closest to it."""
    alone = np.flatnonzero(np.isinf(distance))
    if len(alone) >= _ENOUGH:
        return alone
    at_least = max(len(alone), min(len(distance), max(_ENOUGH, int(_LEAST_CROWDED_SHARE * len(distance)))))
    return np.argsort(-distance, kind="stable")[:at_least]


def _photon_error(photons: float, background_e: float, camera: Camera, psf_sigma_px: float) -> float:
    """Relative error of the photons of a lone molecule, by which the measured spread is too wide."""
    from smlm_pb.refinement.crlb import crlb

    read_variance = float(np.median(camera.read_variance_e2)) / camera.excess_noise_factor
    bound = crlb(photons, max(background_e, 0.01), psf_sigma_px, read_variance_e2=read_variance)
    return float(bound.sigma_photons) / photons
