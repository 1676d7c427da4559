"""From what was asked to what holds: values given, read from the file or estimated, and what to warn of."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.camera import Camera
from smlm_pb.localization.job import Job
from smlm_pb.localization.noise_floor import noise_floor
from smlm_pb.localization.settings import (
    ASSUMED,
    CAMERA_VALUES,
    ESTIMATED,
    FROM_FILE,
    GIVEN,
    Conditions,
    JobSettings,
    frame_range,
)
from smlm_pb.movies import ReadOnce, check_movie, check_offset, find_hot_pixels, tell_hot_pixels
from smlm_pb.pixel_size import tell_implausible

if TYPE_CHECKING:
    import numpy.typing as npt

    from smlm_pb.localization.frame_sample import FrameSample
    from smlm_pb.localization.model import Model
    from smlm_pb.localization.model_card import ModelCard
    from smlm_pb.movies import Movie
    from smlm_pb.population import Population

#: A PSF width this far outside a model's range is within the error of an estimate, relative.
_PSF_TOLERANCE = 0.03
_BACKGROUND_TOLERANCE = 1.25


def prepare(movie: Movie, model: Model, settings: JobSettings) -> Job:
    """Make a run ready to start.

    Parameters
    ----------
    movie : Movie
        The movie.
    model : Model
        The network and its range of validity.
    settings : JobSettings
        What is asked for.

    Returns
    -------
    Job

    Raises
    ------
    MovieError, CameraError, ConfigurationError
        When the movie cannot be localized with these values.
    """
    from smlm_pb.localization.threads import fit_threads

    fit_threads(model)
    return look_closer(Job(movie, model, settings, resolve(movie, settings, model.card), movie.fingerprint()))


def look_closer(job: Job) -> Job:
    """Find out what only the network can tell: by a sample of the movie, in a fraction of a second.

    Parameters
    ----------
    job : Job
        With what :func:`resolve` has found out.

    Returns
    -------
    Job
        With the arithmetic that is fast enough and exact, what is known of the population, and how significant lone
        candidates must be; the latter only where the threshold is automatic.
    """
    from smlm_pb.localization.movie_population import is_told, measure_population
    from smlm_pb.localization.precision import choose_precision
    from smlm_pb.localization.sample_look import look_at
    from smlm_pb.localization.significance import measure_least_significance, sample_electrons

    model, settings = job.model, job.settings
    conditions = replace(job.conditions, precision=choose_precision(model, settings.precision))
    by_threshold = settings.threshold != "auto"  # then every candidate above it is asked for
    if by_threshold and not is_told(model):
        return replace(job, conditions=conditions)
    electrons = sample_electrons(job.movie, conditions.camera, conditions.frames)
    what: dict[str, Any] = {"camera": conditions.camera, "psf_sigma_px": job.network_psf_sigma_px}

    def look(population: Population | None) -> npt.NDArray[Any]:
        return look_at(electrons, model, population=population, precision=conditions.precision, **what)

    if is_told(model):
        population, rows = measure_population(look, electrons, **what)
    else:
        population, rows = None, look(None)
    least = 0.0 if by_threshold else round(measure_least_significance(rows, electrons, **what), 2)
    return replace(job, conditions=replace(conditions, population=population, least_significance=least))


def resolve(movie: Movie, settings: JobSettings, card: ModelCard) -> Conditions:
    """Find out what was not given, and what the user should know before the run.

    Parameters
    ----------
    movie : Movie
        The movie; some of its frames are read.
    settings : JobSettings
        What is asked for.
    card : ModelCard
        Range of validity of the model that will be used.

    Returns
    -------
    Conditions
        With one warning per problem.

    Raises
    ------
    MovieError
        When the movie cannot be read, or is constant, saturated or holds values that are no numbers.
    CameraError
        When a camera value is impossible, contradicts the movie, or is neither given nor to be told from the movie.
    ConfigurationError
        When the movie has none of the frames asked for.
    """
    from smlm_pb.localization.frame_sample import draw_sample

    frames, warnings = frame_range(settings.frames, movie)
    origin: dict[str, str] = {}
    pixel_size_nm = settings.pixel_size_nm
    if pixel_size_nm is not None:
        origin["pixel_size_nm"] = GIVEN
        told = tell_implausible(pixel_size_nm)
        warnings += [f"Movie {movie.name}: {what}; all lengths in nm are wrong otherwise." for what in told]
    elif movie.pixel_size_nm is not None:
        pixel_size_nm, origin["pixel_size_nm"] = movie.pixel_size_nm, FROM_FILE
    looked_at = ReadOnce(movie)
    warnings += check_movie(looked_at)
    sample = draw_sample(looked_at)
    psf_sigma_px, remarks = _psf_sigma(sample, settings, card, origin)
    warnings += remarks
    known_sigma_px = psf_sigma_px if origin["psf_sigma_px"] != ASSUMED else None
    camera, remarks = _camera(looked_at, sample, settings, known_sigma_px, origin)
    warnings += remarks
    hot = find_hot_pixels(looked_at, camera)
    warnings += tell_hot_pixels(movie.name, hot)
    camera = replace(camera, bad_pixels=(*camera.bad_pixels, *hot.tolist()))
    background_e, remarks = _background(sample, camera, origin)
    warnings += remarks
    warnings += _outside(movie.name, card, psf_sigma_px, background_e / camera.excess_noise_factor, camera, origin)
    once = tuple(dict.fromkeys(warnings))
    return Conditions(camera, pixel_size_nm, psf_sigma_px, background_e, frames, origin, once)


def _psf_sigma(
    sample: FrameSample, settings: JobSettings, card: ModelCard, origin: dict[str, str]
) -> tuple[float, list[str]]:
    if settings.psf_sigma_px is not None:
        origin["psf_sigma_px"] = GIVEN
        return float(settings.psf_sigma_px), []
    from smlm_pb.localization.estimate import estimate_psf_sigma

    estimate = estimate_psf_sigma(sample)
    if estimate.sigma_px is not None:
        origin["psf_sigma_px"] = ESTIMATED
        return float(estimate.sigma_px), list(estimate.warnings)
    origin["psf_sigma_px"] = ASSUMED
    assumed = round(math.sqrt(card.psf_sigma_px[0] * card.psf_sigma_px[1]), 2)
    *others, refused = estimate.warnings
    return assumed, [*others, f"{refused.rstrip('.')}; until then {assumed:g} px is assumed."]


def _camera(
    movie: Movie, sample: FrameSample, settings: JobSettings, psf_sigma_px: float | None, origin: dict[str, str]
) -> tuple[Camera, list[str]]:
    from smlm_pb.localization.estimate import estimate_camera, judge_camera

    given = settings.given_camera_values
    origin |= dict.fromkeys(CAMERA_VALUES if settings.camera is not None else given, GIVEN)
    origin.setdefault("em_gain", ASSUMED)
    if settings.camera is not None or ("offset_adu" in given and "e_per_adu" in given):
        camera = replace(settings.camera or Camera(), **given)
        remarks, read_noise_e = judge_camera(sample, camera, psf_sigma_px=psf_sigma_px)
        if read_noise_e is not None and "read_noise_e" not in given and not np.ndim(camera.read_noise_e):
            # Wherever it comes from: what is noise must not be taken for molecules.
            camera, origin["read_noise_e"] = replace(camera, read_noise_e=read_noise_e), ESTIMATED
            remarks = [
                f"{remark} Until then the rest counts as a read noise of {read_noise_e:.2g} e⁻." for remark in remarks
            ]
        return camera, check_offset(movie, camera) + remarks
    estimate = estimate_camera(sample, psf_sigma_px=psf_sigma_px, **given)
    camera = estimate.to_camera()
    check_offset(movie, camera)  # refuses an estimate that the pixels contradict, as after cosmic rays
    origin |= dict.fromkeys(estimate.estimated, ESTIMATED)
    return camera, list(estimate.warnings)


def _background(sample: FrameSample, camera: Camera, origin: dict[str, str]) -> tuple[float, list[str]]:
    from smlm_pb.localization.estimate import estimate_background

    origin["background_e"] = ESTIMATED
    estimate = estimate_background(sample, camera)
    return float(estimate.background), list(estimate.warnings)


def _outside(
    name: str, card: ModelCard, psf_sigma_px: float, background_e: float, camera: Camera, origin: dict[str, str]
) -> list[str]:
    """Say where the movie lies outside what the model was trained for; ``background_e`` in effective electrons."""
    warnings = []
    low, high = card.psf_sigma_px
    if not low * (1 - _PSF_TOLERANCE) <= psf_sigma_px <= high * (1 + _PSF_TOLERANCE):
        nearest = low if psf_sigma_px < low else high
        remedy = (
            "choose a model for this width" if origin["psf_sigma_px"] == GIVEN else "give psf_sigma_px if it is wrong"
        )
        warnings.append(
            f"Movie {name}: the PSF of {psf_sigma_px:.3g} px ({origin['psf_sigma_px']}) lies outside the {low:g} to "
            f"{high:g} px of model '{card.name}', which is told {nearest:g} px: {remedy}, or train one."
        )
    most_e = card.background_e[1] * _BACKGROUND_TOLERANCE
    of_noise_e = noise_floor(camera, card.read_noise_e[1])
    if background_e + of_noise_e > most_e:
        alone = background_e > most_e
        extra = " is" if alone else f" and its read noise, which counts as {of_noise_e:.3g} e⁻ more, are"
        warnings.append(
            f"Movie {name}: the background of {background_e:.3g} e⁻ per pixel{extra} beyond the "
            f"{card.background_e[1]:g} e⁻ of model '{card.name}': check offset_adu and e_per_adu, or use another model."
        )
    return warnings
