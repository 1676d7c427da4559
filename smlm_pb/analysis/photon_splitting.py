"""Precision and repeatability on the user's own movie, without truth, by photon splitting.

The photo-electrons of every frame are divided into two independent half-exposures
(:mod:`smlm_pb.analysis.thinning`). Both are localized with the same model. A molecule that is found in both halves at
``x1`` and ``x2`` tells its precision: with half of the photons, half of the background and half of the read variance
the variance of a position is twice that of the whole exposure, and the difference of two halves has twice the variance
of one. So the precision of the whole exposure is ``sd(x1 - x2) / 2``, exactly, at every density and for every shape of
background. What is found in one half only was not found reliably.

What both halves have in common stays invisible: a bias of the localizer, a wrong camera offset or gain, and the dim
molecules that half of the light does not show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.analysis.split_comparison import PhotonBin, Repeatability, compare_halves
from smlm_pb.errors import Cancelled, ConfigurationError

if TYPE_CHECKING:
    import os

    from smlm_pb.camera import Camera
    from smlm_pb.localization.job import Job, OnProgress, ShouldStop
    from smlm_pb.localization.model import Model
    from smlm_pb.localizations import Localizations

DEFAULT_MAX_FRAMES = 300

__all__ = ["PhotonBin", "Repeatability", "compare_halves", "repeatability", "repeatability_of_table"]


def repeatability(
    movie: Any,
    *,
    model: str | os.PathLike[str] | Model = "default",
    camera: Camera | None = None,
    pixel_size_nm: float | None = None,
    offset_adu: float | None = None,
    e_per_adu: float | None = None,
    em_gain: float | None = None,
    read_noise_e: float | None = None,
    psf_sigma_px: float | None = None,
    threshold: float | str = "auto",
    device: str = "auto",
    frames: tuple[int, int | None] | None = None,
    max_frames: int = DEFAULT_MAX_FRAMES,
    tolerance_nm: float | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Repeatability:
    """Measure precision and repeatability of a model on a movie, and compare with the precision it states.

    Parameters
    ----------
    movie : path, array (frame, y, x), or Movie
        Anything that :func:`smlm_pb.open_movie` opens.
    model, camera, pixel_size_nm, offset_adu, e_per_adu, em_gain, psf_sigma_px, threshold, device, frames
        As for :func:`smlm_pb.localize`. The automatic threshold is chosen for the half-exposures.
    read_noise_e : float, optional
        Standard deviation of the read noise in e⁻; the camera's, 1.6 where nothing is known. Read noise that is larger
        than stated here stays common to both halves and makes the measured precision look better than it is.
    max_frames : int
        At most this many frames, evenly spread, are split.
    tolerance_nm : float, optional
        Largest distance of a molecule in the two halves; when not given, 4.5 times the precision of their difference,
        as measured.
    seed : int
        Seed of the splitting.
    on_progress, should_stop : callable, optional
        As for :func:`smlm_pb.localize`.

    Returns
    -------
    Repeatability

    Raises
    ------
    MovieError, CameraError, ModelError, ConfigurationError
        When an input is wrong.
    TableError
        When too few molecules are found in both halves.
    Cancelled
        When ``should_stop`` asked for it.

    Warns
    -----
    UserWarning
        As :func:`smlm_pb.localize`.
    """
    from smlm_pb.analysis.derived_movie import opened_job
    from smlm_pb.localization.settings import JobSettings

    if max_frames < 1:
        raise ConfigurationError(f"max_frames = {max_frames} is impossible; give 1 or more, e.g. {DEFAULT_MAX_FRAMES}.")
    settings = JobSettings(
        camera=camera,
        pixel_size_nm=pixel_size_nm,
        offset_adu=offset_adu,
        e_per_adu=e_per_adu,
        em_gain=em_gain,
        psf_sigma_px=psf_sigma_px,
        threshold=threshold,
        frames=frames,
    )
    with opened_job(movie, model, device, settings) as job:
        if read_noise_e is not None:
            known = replace(job.conditions.camera, read_noise_e=read_noise_e)
            job = replace(job, conditions=replace(job.conditions, camera=known))
        views, thresholds = _localize_views(job, max_frames, seed, on_progress, should_stop)
    pixel = job.conditions.pixel_size_nm
    if tolerance_nm is not None and pixel is None:
        raise ConfigurationError("tolerance_nm needs the pixel size, which the movie does not tell; give it.")
    found = compare_halves(
        *views,
        search_px=job.conditions.psf_sigma_px,
        tolerance_px=None if tolerance_nm is None or pixel is None else tolerance_nm / pixel,
    )
    conditions = {**job.conditions.as_dict(), "model": job.model.card.name, **thresholds, "seed": seed}
    return replace(found, conditions=conditions, notes=(*found.notes, *_remarks(job, found)))


def repeatability_of_table(
    locs: Localizations,
    movie: Any,
    *,
    model: str | os.PathLike[str] | Model = "default",
    device: str = "auto",
    max_frames: int = DEFAULT_MAX_FRAMES,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Repeatability:
    """Measure the repeatability of a movie under the conditions that its table was made with.

    Parameters
    ----------
    locs : Localizations
        Made by :func:`smlm_pb.localize`: camera values, PSF width and frames are taken from its history. What it does
        not tell is read or estimated from the movie.
    movie, model, device, max_frames, seed, on_progress, should_stop
        As for :func:`repeatability`.

    Returns
    -------
    Repeatability

    Raises
    ------
    SmlmPbError
        As :func:`repeatability`.
    """
    from smlm_pb.camera import Camera

    step = locs.last_step("localize")
    known = step.get("conditions", {})
    stored = known.get("camera")
    camera = None if stored is None else Camera.from_dict(stored)
    frames = known.get("frames")
    return repeatability(
        movie,
        model=model,
        camera=camera,
        pixel_size_nm=locs.info.pixel_size_nm,
        psf_sigma_px=known.get("psf_sigma_px"),
        frames=None if frames is None else (frames[0], frames[1]),
        device=device,
        max_frames=max_frames,
        seed=seed,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def _localize_views(
    job: Job, max_frames: int, seed: int, on_progress: OnProgress | None, should_stop: ShouldStop | None
) -> tuple[list[Localizations], dict[str, float]]:
    """Both halves and the whole of some frames, localized in one pass."""
    from smlm_pb.analysis.derived_movie import find_in
    from smlm_pb.analysis.split_movie import VIEWS, SplitMovie
    from smlm_pb.localization.candidates import as_columns
    from smlm_pb.localization.job import at_or_above, choose_threshold
    from smlm_pb.localization.threshold import ProbabilityHistogram
    from smlm_pb.localizations import Localizations

    def tell(finished: int) -> None:
        if on_progress is not None:
            on_progress(-(-finished // VIEWS), split.n_frames // VIEWS)
        if should_stop is not None and should_stop():
            raise Cancelled(f"Stopped the splitting of movie {job.movie.name}; nothing was measured.")

    split = SplitMovie(job.movie, job.conditions.camera, job.conditions.frames, max_frames, seed)
    found, _ = find_in(split, job, tell)
    view = found["frame"] % VIEWS
    found["frame"] //= VIEWS
    info = replace(job.info, n_frames=split.n_frames // VIEWS)
    tables, thresholds = {}, {}
    for name, members in (("halves", (0, 1)), ("whole", (2,))):
        histogram = ProbabilityHistogram()
        histogram.add(found["probability"][np.isin(view, members)])
        expectation = choose_threshold(job.settings, histogram)
        thresholds[f"threshold_{name}"] = expectation.threshold
        for member in members:
            kept = found[(view == member) & at_or_above(found["probability"], expectation.threshold)]
            tables[member] = Localizations(as_columns(kept), info)
    return [tables[member] for member in range(VIEWS)], thresholds


def _remarks(job: Job, found: Repeatability) -> Iterator[str]:
    """What limits the meaning of the figures."""
    camera, card = job.conditions.camera, job.model.card
    half = found.median_photons / camera.excess_noise_factor / 2
    if half < card.photons[0]:
        yield (
            f"Half-exposures of {half:.0f} e⁻ (median) lie below the {card.photons[0]:g} e⁻ that model '{card.name}' "
            "was trained for, so the figures are worse than for whole exposures."
        )
    if camera.em_gain > 1:
        yield "With electron multiplication the halves are uncorrelated, but not strictly independent."
    if camera.estimated:
        yield f"{' and '.join(camera.estimated)} were estimated from the movie; wrong values distort the splitting."
    pull = max(found.pull_x, found.pull_y)
    if pull > 1.25:
        yield f"The stated precisions are too small: the actual ones are at least {pull:.2f} times as large."
    if pull < 0.8:
        yield (
            f"Photon noise explains errors of {pull:.2f} times the stated precision only: the stated one is too large, "
            "or it rightly contains errors that both halves share, such as those of neighbours that lie too close."
        )
