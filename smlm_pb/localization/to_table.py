"""From a movie to a table in memory."""

from __future__ import annotations

import warnings as python_warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.errors import Cancelled
from smlm_pb.localization.candidates import DEFAULT_FLOOR, as_columns, join_rows
from smlm_pb.localization.classes import has_classes
from smlm_pb.localization.job import (
    Job,
    OnBlock,
    OnProgress,
    ShouldStop,
    at_or_above,
    choose_threshold,
    get_model,
)
from smlm_pb.localization.model import DEFAULT_MODEL, Model
from smlm_pb.localization.prefetch import Prefetch
from smlm_pb.localization.range_check import check_range
from smlm_pb.localization.refining import Refining
from smlm_pb.localization.settings import DEFAULT_REFINE, JobSettings
from smlm_pb.localization.summary import SummaryBuilder
from smlm_pb.localization.threshold import ProbabilityHistogram
from smlm_pb.localizations import Localizations
from smlm_pb.movies import open_movie

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import numpy.typing as npt

    from smlm_pb.camera import Camera

    #: Whether to stop, and what to raise then.
    _Stopping = tuple[ShouldStop, Callable[[], Exception]]


class LocalizationStopped(Cancelled):
    """Localization was stopped; :attr:`finished` holds the molecules of the frames that were done."""

    def __init__(self, message: str, finished: Localizations) -> None:
        super().__init__(message)
        self.finished = finished


def localize(
    movie: Any,
    *,
    model: str | os.PathLike[str] | Model = DEFAULT_MODEL,
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
    floor: float = DEFAULT_FLOOR,
    refine: str = DEFAULT_REFINE,
    precision: str = "auto",
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    on_block: OnBlock | None = None,
    on_stop: Callable[[Localizations], None] | None = None,
) -> Localizations:
    """Find the molecules in a movie.

    What is not given is read from the file or estimated from the movie; ``provenance[-1]["conditions"]`` tells the
    values and where each comes from. The movie is read block by block; only the table is kept in memory.

    Parameters
    ----------
    movie : path, array (frame, y, x), or Movie
        Anything that :func:`smlm_pb.open_movie` opens.
    model : str, path or Model
        Name of a shipped model, folder of one's own, or a loaded model.
    camera : Camera, optional
        The whole camera; single values below replace its own.
    pixel_size_nm : float, optional
        Edge of a camera pixel in the sample, nm; without it positions are in pixels only.
    offset_adu, e_per_adu, em_gain, read_noise_e : float, optional
        Camera offset in ADU, photo-electrons per ADU before multiplication, electron-multiplication gain, standard
        deviation of the read noise in e⁻ before division by that gain.
    psf_sigma_px : float, optional
        Standard deviation of the point-spread function, px.
    threshold : float or "auto"
        Smallest probability that is kept. ``"auto"``: the one with the best expected Jaccard index.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    frames : (int, int or None), optional
        First frame and the one after the last, counted from 0.
    floor : float
        Candidates below this probability are not considered.
    refine : {"off", "auto", "on"}
        Refine the molecules by likelihood (:func:`smlm_pb.refinement.refine`): ``auto`` where the pixels agree with the
        model and the fit is the more precise, ``on`` everywhere. The movie is read a second time.
    precision : {"auto", "float32", "bfloat16", "int8"}
        Arithmetic of the network. ``auto``: 8-bit integers or bfloat16 on processors that have them, whichever is
        faster, once it was checked on simulated frames that this changes nothing.
    on_progress : callable, optional
        Called with (frames done, frames in all).
    should_stop : callable, optional
        Asked after every block and while waiting for one; when true the run stops.
    on_block : callable, optional
        Called with a :class:`FinishedBlock` after every block.
    on_stop : callable, optional
        Called with the molecules found so far when the run stops: before :class:`LocalizationStopped` is raised, which
        has to wait for the block that the network has in hand.

    Returns
    -------
    Localizations
        Ordered by frame.

    Raises
    ------
    MovieError, CameraError, ModelError, ConfigurationError
        When an input is wrong; the message says what to do.
    LocalizationStopped
        When ``should_stop`` asked for it; holds what was found until then.

    Warns
    -----
    UserWarning
        When the movie lies outside of what the model was trained for, or the camera values do not fit it.

    Examples
    --------
    >>> import smlm_pb
    >>> molecules = smlm_pb.localize("movie.tif", pixel_size_nm=100)  # doctest: +SKIP
    """
    settings = JobSettings(
        camera=camera,
        pixel_size_nm=pixel_size_nm,
        offset_adu=offset_adu,
        e_per_adu=e_per_adu,
        em_gain=em_gain,
        read_noise_e=read_noise_e,
        psf_sigma_px=psf_sigma_px,
        threshold=threshold,
        frames=frames,
        floor=floor,
        refine=refine,
        precision=precision,
    )
    opened = open_movie(movie)
    try:
        from smlm_pb.localization.conditions import prepare

        job = prepare(opened, get_model(model, device), settings)
        for warning in job.conditions.warnings:
            python_warnings.warn(warning, UserWarning, stacklevel=2)
        return _collect(job, on_progress, should_stop, on_block, on_stop)
    finally:
        if opened is not movie:
            opened.close()


def _collect(
    job: Job,
    on_progress: OnProgress | None,
    should_stop: ShouldStop | None,
    on_block: OnBlock | None,
    on_stop: Callable[[Localizations], None] | None,
) -> Localizations:
    """Gather all candidates, choose the threshold, select."""
    histogram = ProbabilityHistogram()
    parts: list[npt.NDArray[Any]] = []
    start, stop = job.conditions.frames
    done = 0
    with job.find_candidates((start, stop)) as blocks:
        if should_stop is not None:
            blocks.end_when(should_stop)
        for block in blocks:
            parts.append(block.candidates.rows)
            histogram.add(block.candidates.rows["probability"], block.candidates.expected_unlisted)
            done = block.stop - start
            if on_block is not None:
                moment = choose_threshold(job.settings, histogram).threshold
                on_block(job.finished_block(block.start, block.stop, block.candidates, moment))
            if on_progress is not None:
                on_progress(done, stop - start)
        if done < stop - start:
            when = f"after frame {start + done - 1}" if done else "before the first frame"
            raise _stopped(job, parts, histogram, done, when, on_stop)
    stopping = None
    if should_stop is not None:
        stopping = should_stop, lambda: _stopped(job, parts, histogram, done, "before the refinement was done", on_stop)
    return _select(job, parts, histogram, done, stopping)


def _stopped(
    job: Job,
    parts: list[npt.NDArray[Any]],
    histogram: ProbabilityHistogram,
    n_frames: int,
    when: str,
    on_stop: Callable[[Localizations], None] | None,
) -> LocalizationStopped:
    """Hand over what was found, as the network found it: refining would let the caller wait."""
    finished = _select(job, parts, histogram, n_frames, refine=False)
    if on_stop is not None:
        on_stop(finished)
    return LocalizationStopped(
        f"Stopped {when} of movie {job.movie.name}; {len(finished)} molecules were found until then.", finished
    )


def _select(
    job: Job,
    parts: list[npt.NDArray[Any]],
    histogram: ProbabilityHistogram,
    n_frames: int,
    stopping: _Stopping | None = None,
    *,
    refine: bool = True,
) -> Localizations:
    expectation = choose_threshold(job.settings, histogram)
    rows = join_rows(parts)
    rows = rows.take(np.flatnonzero(at_or_above(rows["probability"], expectation.threshold)))
    builder = SummaryBuilder(n_frames, job.movie.height * job.movie.width)
    table, refinement = Localizations(as_columns(rows), job.info), {"mode": "off"}
    if refine and (job.settings.refine != "off" or has_classes(job)):
        table, refinement = _refined(job, rows, stopping)
    builder.add(table)
    summary = builder.finish()
    report = check_range(job, summary, expectation)
    for warning in report.warnings:
        python_warnings.warn(warning, UserWarning, stacklevel=4)
    step = job.provenance(expectation, summary, list(report.warnings))
    return table.with_provenance({**step, "range": report.as_dict(), "refinement": refinement})


def _refined(job: Job, rows: npt.NDArray[Any], stopping: _Stopping | None) -> tuple[Localizations, dict[str, Any]]:
    """Refine in a thread, so that a wish to stop is heard meanwhile; what was found is handed over before it ends."""
    refining = Refining(job)
    with Prefetch(refining.tables([rows]), 1) as portions:
        if stopping is not None:
            portions.end_when(stopping[0])
        tables = list(portions)
        if stopping is not None and (not tables or sum(map(len, tables)) < len(rows)):
            raise stopping[1]()
    return Localizations.concatenate(tables), refining.as_dict()
