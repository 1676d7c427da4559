"""Single frames for training: one random experiment per frame, drawn in about a millisecond.

Every scene draws its own PSF width, brightness, background, density and structure, so that a network
trained on scenes meets the whole range that a user's movie may come from. Movies with a time axis are in
:mod:`smlm_pb.simulation.movie`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smlm_pb.pair_density import FARTHEST_PX, density_around
from smlm_pb.population import Population
from smlm_pb.simulation.geometry import (
    Box,
    Float64Array,
    Mixture,
    Structure,
    Uniform,
    choose,
    log_uniform,
    random_clusters,
    random_filaments,
    random_rings,
)
from smlm_pb.simulation.molecule_classes import Labels, draw_labels, factors
from smlm_pb.simulation.photon_laws import (
    PhotonLaw,
    draw_on_overlap,
    measured_population,
    molecules_per_frame_molecule,
)
from smlm_pb.simulation.rendering import render_separable, smooth_background
from smlm_pb.simulation.sampled_psf import read_psf
from smlm_pb.simulation.scene_settings import PHOTON_SPREADS, STRUCTURES, SceneSettings

__all__ = ["PHOTON_SPREADS", "STRUCTURES", "Scene", "SceneSettings", "draw_on_overlap", "draw_scene"]

#: A molecule whose light is this many standard deviations of the background's noise under it is found.
_FOUND_ABOVE = 6.0

#: Shares of scenes whose neighbouring frames are missing, all or one of them.
_ALONE_FRACTION, _AT_END_FRACTION = 0.1, 0.1
#: The halo of a PSF is this much wider than its core.
_HALO_WIDTH = 2.0
#: Close pairs of sparse scenes are at most this far apart, px.
_PAIR_REACH_PX = 1.5
#: Molecules that the crowding of a structure is taken from.
_CROWDING_SAMPLE = 200

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """One simulated frame and what is true about it.

    Everything is on the scale that the network sees: effective electrons, i.e. photo-electrons divided by the
    camera's excess noise factor.

    Parameters
    ----------
    electrons : array (height, width), float32
        The noisy image.
    x, y, photons : array (molecules,), float32
        Molecules whose centre lies in the window [-0.5, size - 0.5) and that are bright enough.
    background : array (height, width), float32
        Expected background in each pixel.
    psf_sigma_px : float
        Mean PSF width of the scene.
    read_noise_e : float
        Standard deviation of the read noise.
    structure : str
        ``empty`` or one of :data:`STRUCTURES`.
    population : Population or None
        What a look at the whole movie would have told of its molecules; None where nobody looked.
    context : array (2 * context_frames, height, width), float32, or None
        The noisy images before and after, in the order of time; NaN where there is none.
    label : array (molecules,), int64, or None
        Class of each molecule; None where all are alike.
    """

    electrons: Float32Array
    x: Float32Array
    y: Float32Array
    photons: Float32Array
    background: Float32Array
    psf_sigma_px: float
    read_noise_e: float
    structure: str
    population: Population | None = None
    context: Float32Array | None = None
    label: Labels | None = None


def draw_scene(rng: np.random.Generator, settings: SceneSettings, size_px: int | tuple[int, int]) -> Scene:
    """Draw one random experiment and one frame of it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness; the same state gives the same scene.
    settings : SceneSettings
        Range of experiments.
    size_px : int or (int, int)
        Side of a square frame, or (height, width).

    Returns
    -------
    Scene
    """
    shape = (size_px, size_px) if isinstance(size_px, (int, np.integer)) else (int(size_px[0]), int(size_px[1]))
    frame = Box.around_frame(shape, 0.0)
    box = Box.around_frame(shape, settings.margin_px)
    law, context = PhotonLaw.draw(rng, settings), settings.context_frames
    more = molecules_per_frame_molecule(law.mean_on_frames, context) if context else 1.0
    name, structure, density, x, y = _draw_molecules(rng, settings, box, more)
    if settings.close_pair_fraction and law.is_narrow and density <= settings.sparse_density_per_px2[1]:
        x, y = _with_close_pairs(rng, x, y, settings.close_pair_fraction)
    # Rounded first, so that the window test holds for the float32 values that are returned.
    x32, y32 = x.astype(np.float32), y.astype(np.float32)
    light = law.in_frames(rng, x.size, context)
    sigma = rng.uniform(*settings.psf_sigma_px)
    sigmas = sigma * (1.0 + rng.uniform(0.0, settings.psf_spread) * rng.normal(size=x.size).clip(-3, 3))
    background = _draw_background(rng, settings, shape, structure)
    label = draw_labels(rng, settings.classes, x.size) if settings.classes else None
    if label is not None:
        light = light * factors(settings.classes, label, "photons")[:, None]
    signal = _draw_spots(rng, settings, x32, y32, light, sigmas, shape, label)
    electrons, read_noise, scale = _draw_camera(rng, settings, signal + background)
    photons32 = (light[:, context] * scale).astype(np.float32)
    true = frame.contains(x32, y32) & (photons32 >= settings.min_photons) & (photons32 > 0)
    noise = np.sqrt(4 * np.pi * sigma**2 * (float(background.mean()) * scale + read_noise**2))
    population = None
    if rng.random() >= settings.unknown_population_fraction:
        population = measured_population(
            rng,
            law,
            scale=scale,
            least_photons=max(settings.min_photons, _FOUND_ABOVE * float(noise)),
            density_per_px2=density,
            crowding=_crowding(rng.spawn(1)[0], structure, box),
        )
    return Scene(
        electrons[context].astype(np.float32),
        x32[true],
        y32[true],
        photons32[true],
        (background * scale).astype(np.float32),
        float(sigma),
        float(read_noise),
        name,
        population,
        _neighbours(rng, electrons, context) if context else None,
        None if label is None else label[true],
    )


def _crowding(rng: np.random.Generator, structure: Structure, box: Box) -> float:
    """How many times the mean density surrounds a molecule, of as many on the structure as a movie would show."""
    from scipy.spatial import cKDTree

    position = np.stack(structure.sample(rng, _CROWDING_SAMPLE), axis=1)
    if len(position) == 0:
        return 1.0
    first, second = cKDTree(position).query_pairs(FARTHEST_PX, output_type="ndarray").T
    dx, dy = (position[first] - position[second]).T
    around = density_around((dx, dy), np.ones(len(first)), len(position), np.array((box.width, box.height)))
    return around * box.area_px2 / len(position)


def _with_close_pairs(
    rng: np.random.Generator, x: Float64Array, y: Float64Array, fraction: float
) -> tuple[Float64Array, Float64Array]:
    """Put a second molecule near some, anywhere within reach."""
    near = rng.random(x.size) < fraction
    n = int(near.sum())
    distance, angle = _PAIR_REACH_PX * np.sqrt(rng.random(n)), rng.uniform(0.0, 2 * np.pi, n)
    return np.append(x, x[near] + distance * np.cos(angle)), np.append(y, y[near] + distance * np.sin(angle))


def _neighbours(rng: np.random.Generator, electrons: Float64Array, context: int) -> Float32Array:
    """The frames before and after; some are not there, as at the ends of a movie and in samples of single frames."""
    around = np.delete(electrons, context, axis=0).astype(np.float32)
    if rng.random() < _ALONE_FRACTION:
        around[:] = np.nan
    elif rng.random() < _AT_END_FRACTION:
        around[rng.integers(len(around))] = np.nan
    return around


def _draw_molecules(
    rng: np.random.Generator, settings: SceneSettings, box: Box, more: float
) -> tuple[str, Structure, float, Float64Array, Float64Array]:
    """Arrange molecules; the density is that of one frame, the number ``more`` times as large."""
    kind = rng.random()
    if kind < settings.empty_fraction:
        density = log_uniform(rng, *settings.sparse_density_per_px2)  # of the other frames of such a movie
        return "empty", Uniform(box), density, np.empty(0), np.empty(0)
    if kind < settings.empty_fraction + settings.sparse_fraction:
        density, mix = log_uniform(rng, *settings.sparse_density_per_px2), settings.sparse_structures
    else:
        density, mix = rng.uniform(*settings.dense_density_per_px2), settings.dense_structures
    name = choose(rng, tuple(mix), tuple(mix.values()))
    wanted = density * box.area_px2
    structure, most = _draw_structure(rng, settings, box, name, wanted)
    wanted = min(wanted, most)
    x, y = structure.sample(rng, int(rng.poisson(wanted * more)))
    return name, structure, wanted / box.area_px2, x, y


def _draw_spots(
    rng: np.random.Generator,
    settings: SceneSettings,
    x: Float32Array,
    y: Float32Array,
    photons: Float64Array,
    sigma_px: Float64Array,
    shape: tuple[int, int],
    label: Labels | None,
) -> Float64Array:
    """Expected light of molecules in every frame; objectives are not perfect, and no PSF is a Gaussian."""
    if settings.psf_file is not None:
        psf = read_psf(settings.psf_file)
        return np.stack([psf.render(x, y, light, shape) for light in photons.T])
    stretch = np.exp(0.5 * rng.uniform(-settings.psf_asymmetry, settings.psf_asymmetry))
    halo = rng.uniform(0.0, settings.psf_halo) if rng.random() < 0.5 else 0.0
    width_x, width_y = sigma_px * stretch, sigma_px / stretch
    if label is not None:
        width_x = width_x * factors(settings.classes, label, "width_x")
        width_y = width_y * factors(settings.classes, label, "width_y")
    core = [render_separable(x, y, light * (1 - halo), width_x, shape, sigma_y_px=width_y) for light in photons.T]
    if halo == 0:
        return np.stack(core)
    return np.stack(
        [
            image + render_separable(x, y, light * halo, _HALO_WIDTH * sigma_px, shape)
            for image, light in zip(core, photons.T, strict=True)
        ]
    )


def _draw_structure(
    rng: np.random.Generator, settings: SceneSettings, box: Box, name: str, wanted: float
) -> tuple[Structure, float]:
    """Draw a structure fit for about ``wanted`` molecules; returns it and the most molecules it may hold."""
    if name == "filaments":
        side = np.sqrt(box.area_px2)
        line_density = log_uniform(rng, 0.12, 0.7)
        n_filaments = int(np.clip(round(wanted / (line_density * 0.75 * side)), 1, 40))
        # From pairs that run side by side to the parallel sheets of a cell's edge.
        bundle_size = int(np.rint(log_uniform(rng, 1.5, 12.0))) if rng.random() < 0.4 else 1
        filaments = random_filaments(
            rng,
            box,
            n_filaments,
            width_px=rng.uniform(0.0, 0.4),
            curvature_per_px=rng.uniform(0.0, 0.04),
            bend_per_sqrt_px=rng.uniform(0.0, 0.06),
            bundle_size=bundle_size,
            bundle_gap_px=log_uniform(rng, 0.4, 4.0),
            length_px=None if rng.random() < 0.7 else rng.uniform(0.3, 1.0) * side,
        )
        return filaments, settings.max_line_density_per_px * filaments.extent
    if name == "rings":
        smallest = log_uniform(rng, 0.7, 4.0)
        largest = smallest * rng.uniform(1.0, 2.0)
        per_ring = 2 * np.pi * smallest * log_uniform(rng, 0.1, 0.6)
        n_rings = int(np.clip(round(wanted / max(per_ring, 1.0)), 1, 200))
        corners = 8 if rng.random() < 0.4 else 0
        rings = random_rings(
            rng, box, n_rings, radius_px=(smallest, largest), corners=corners, width_px=rng.uniform(0.02, 0.2)
        )
        return rings, settings.max_line_density_per_px * rings.extent
    if name == "clusters":
        smallest = log_uniform(rng, 0.6, 3.0)
        per_cluster = 4 * np.pi * smallest**2 * log_uniform(rng, 0.05, 0.4)
        n_clusters = int(np.clip(round(wanted / max(per_cluster, 2.0)), 1, 200))
        clusters = random_clusters(rng, box, n_clusters, sigma_px=(smallest, smallest * rng.uniform(1.0, 2.0)))
        return clusters, max(2.0 * n_clusters, settings.max_area_density_per_px2 * clusters.extent)
    if name == "mixture":
        names = rng.choice(("uniform", "filaments", "rings", "clusters"), int(rng.integers(2, 4)), replace=False)
        shares = rng.dirichlet(np.full(len(names), 2.0))
        drawn = [
            _draw_structure(rng, settings, box, str(part), wanted * share)
            for part, share in zip(names, shares, strict=True)
        ]
        held = [min(most, wanted * share) for (_, most), share in zip(drawn, shares, strict=True)]
        return Mixture(tuple(part for part, _ in drawn), tuple(max(h, 1e-9) for h in held)), sum(held)
    return Uniform(box), settings.max_area_density_per_px2 * box.area_px2


def _draw_background(
    rng: np.random.Generator, settings: SceneSettings, shape: tuple[int, int], structure: Structure
) -> Float64Array:
    """Draw the expected background in e⁻/px; its maximum lies in the settings' range."""
    low, high = settings.background_e
    kind = rng.random()
    if kind < 0.08:
        level = low
    elif kind < 0.3:
        level = rng.uniform(low, high)
    else:
        # Shifted by 2 e⁻ so that the logarithm is finite at 0 and faint backgrounds do not swamp the rest.
        level = log_uniform(rng, low + 2.0, high + 2.0) - 2.0
    if rng.random() >= settings.structured_background_fraction or level <= 0:
        return np.full(shape, level)
    field_ = smooth_background(rng, shape, structure)
    contrast = rng.uniform(0.1, 0.9)
    background = level * (1.0 - contrast + contrast * field_)
    return background * min(1.0, high / background.max())


def _draw_camera(
    rng: np.random.Generator, settings: SceneSettings, expected_e: Float64Array
) -> tuple[Float64Array, float, float]:
    """Add noise; returns effective electrons, effective read noise, and effective electrons per electron."""
    gain = 1.0 + rng.uniform(-settings.gain_error, settings.gain_error)
    electrons = rng.poisson(expected_e).astype(np.float64)
    if rng.random() < settings.em_fraction:
        # n electrons leave the multiplication register as Gamma(n), in units of the gain (Hirsch et al.,
        # 2013); tens of e⁻ of read noise shrink to a fraction of one when referred to its input.
        electrons = rng.standard_gamma(electrons)
        read_noise = log_uniform(rng, 0.05, 1.0)
        scale = gain / 2.0
    else:
        read_noise = log_uniform(rng, *settings.read_noise_e)
        scale = gain
    electrons += rng.normal(0.0, read_noise, electrons.shape)
    return electrons * scale, float(read_noise * scale), float(scale)
