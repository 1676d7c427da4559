"""Movies of the robustness suite: the same seed gives the same movie."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation.aberrations import PupilPsf
from smlm_pb.simulation.corruptions import PIXEL_SIZE_NM, Experiment
from smlm_pb.simulation.geometry import Float64Array
from smlm_pb.simulation.rendering import render_separable

_MARGIN_PX = 6.0
_MOTION_STEPS = 9
_HOT_E = 300.0
_HAZE_CORRELATION_PX = 12.0
#: Place of the bead, as shares of the sides: not at the centre of a pixel, nor of the field.
_BEAD = (0.47, 0.56)


def simulate_corrupted(
    experiment: Experiment, *, frames: int, size_px: int = 64, seed: int = 0
) -> tuple[npt.NDArray[np.uint16], Localizations]:
    """Simulate one movie of the suite.

    Parameters
    ----------
    experiment : Experiment
        Clean, or with a corruption.
    frames : int
        Length of the movie.
    size_px : int
        Side of its frames, px.
    seed : int
        Seed of all randomness.

    Returns
    -------
    movie : array (frames, size, size), uint16
        Camera values in ADU.
    truth : Localizations
        Molecules in the frame; of one that moves, the middle of its way. A bead is not among them.
    """
    fixed, shape = np.random.default_rng([seed, 0]), (size_px, size_px)
    psf = None if experiment.aberrations_mwaves is None else PupilPsf(experiment.aberrations_mwaves)
    light = _illumination(experiment, shape)
    background = experiment.background_e * _haze(experiment, fixed, shape) * light
    gain = np.asarray(np.maximum(0.1, 1 + experiment.gain_map * fixed.normal(size=shape)), dtype=np.float64)
    dark = np.where(fixed.random(shape) < experiment.hot_pixels, _HOT_E, 0.0)
    movie = np.empty((frames, *shape), np.uint16)
    columns: list[dict[str, npt.NDArray[Any]]] = []
    for index in range(frames):
        rng = np.random.default_rng([seed, 1, index])
        x, y = _positions(experiment, rng, size_px)
        photons = experiment.photons * light[_pixel(y, size_px), _pixel(x, size_px)]
        signal = _image(experiment, psf, x, y, photons, rng, shape) + _bead(experiment, psf, shape)
        movie[index] = _record(experiment, background + signal, gain, dark, rng)
        inside = (abs(x - size_px / 2 + 0.5) < size_px / 2) & (abs(y - size_px / 2 + 0.5) < size_px / 2)
        frame = np.full(inside.sum(), index)
        columns.append({"frame": frame, "x": x[inside], "y": y[inside], "photons": photons[inside]})
    info = MovieInfo(frames, size_px, size_px, PIXEL_SIZE_NM, "smlm-c")
    return movie, Localizations({name: np.concatenate([c[name] for c in columns]) for name in columns[0]}, info)


def bead_position(experiment: Experiment, size_px: int) -> tuple[float, float] | None:
    """Position (x, y) of the bead in px; None where there is none."""
    return (_BEAD[0] * size_px, _BEAD[1] * size_px) if experiment.fiducial_photons else None


def _positions(experiment: Experiment, rng: np.random.Generator, size_px: int) -> tuple[Float64Array, Float64Array]:
    side = size_px + 2 * _MARGIN_PX
    count = rng.poisson(experiment.density_per_um2 * (side * PIXEL_SIZE_NM / 1000) ** 2)
    # Rounded as the table stores them.
    x, y = rng.uniform(-0.5 - _MARGIN_PX, size_px - 0.5 + _MARGIN_PX, (2, count)).astype(np.float32)
    return x.astype(np.float64), y.astype(np.float64)


def _pixel(position: Float64Array, size_px: int) -> npt.NDArray[np.intp]:
    return np.clip(np.rint(position), 0, size_px - 1).astype(np.intp)


def _image(
    experiment: Experiment,
    psf: PupilPsf | None,
    x: Float64Array,
    y: Float64Array,
    photons: Float64Array,
    rng: np.random.Generator,
    shape: tuple[int, int],
) -> Float64Array:
    if not experiment.motion_px:
        return _still(experiment, psf, x, y, photons, shape)
    angle = rng.uniform(0, 2 * np.pi)
    way = np.linspace(-0.5, 0.5, _MOTION_STEPS) * experiment.motion_px
    steps = [
        _still(experiment, psf, x + step * np.cos(angle), y + step * np.sin(angle), photons, shape) for step in way
    ]
    return np.mean(steps, axis=0)


def _still(
    experiment: Experiment,
    psf: PupilPsf | None,
    x: Float64Array,
    y: Float64Array,
    photons: Float64Array,
    shape: tuple[int, int],
) -> Float64Array:
    if psf is not None:
        return psf.render(x, y, photons, shape)
    return render_separable(x, y, photons, experiment.psf_sigma_px, shape)


def _bead(experiment: Experiment, psf: PupilPsf | None, shape: tuple[int, int]) -> Float64Array:
    place = bead_position(experiment, shape[0])
    if place is None:
        return np.zeros(shape)
    x, y, photons = (np.array([value]) for value in (*place, experiment.fiducial_photons))
    return _still(experiment, psf, x, y, photons, shape)


def _illumination(experiment: Experiment, shape: tuple[int, int]) -> Float64Array:
    """Gaussian light that falls to the given share at the corners."""
    y, x = ((np.arange(side) - (side - 1) / 2) / ((side - 1) / 2) for side in shape)
    return np.asarray(experiment.edge_illumination ** ((y[:, None] ** 2 + x**2) / 2))


def _haze(experiment: Experiment, rng: np.random.Generator, shape: tuple[int, int]) -> Float64Array:
    """Smooth random field of mean one that goes from 1 - contrast to at most 1 + 2 contrast."""
    from scipy.ndimage import gaussian_filter

    if experiment.haze_contrast is None:
        return np.ones(shape)
    field = gaussian_filter(rng.normal(size=shape), _HAZE_CORRELATION_PX / 2, mode="wrap")
    field -= field.mean()
    return np.asarray(1 + experiment.haze_contrast * np.clip(field / -field.min(), -1, 2))


def _record(
    experiment: Experiment,
    expected: Float64Array,
    gain: Float64Array,
    dark: Float64Array,
    rng: np.random.Generator,
) -> npt.NDArray[np.uint16]:
    camera = experiment.camera
    adu = camera.digitize(expected * gain + dark, rng)
    if experiment.full_well_e is None:
        return adu
    highest = round(experiment.full_well_e / float(np.median(camera.e_per_adu)) + float(np.median(camera.offset_adu)))
    return np.minimum(adu, np.uint16(highest))
