"""From a movie to a table on disk: constant memory, atomic, resumable after any interruption.

Candidates go to a work file beside the target, block by block. When the last frame is done the threshold is chosen over
the whole movie, the table is written under a temporary name and renamed, and the work file is removed.
"""

from __future__ import annotations

import time
import warnings as python_warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from smlm_pb.errors import Cancelled, ConfigurationError, OutputError
from smlm_pb.localization.candidates import DEFAULT_FLOOR
from smlm_pb.localization.from_work_file import write_table
from smlm_pb.localization.job import (
    Job,
    OnBlock,
    OnProgress,
    ShouldStop,
    choose_threshold,
    get_model,
    identify,
)
from smlm_pb.localization.model import DEFAULT_MODEL, Model
from smlm_pb.localization.resuming import read_provenance, refuse_other_settings
from smlm_pb.localization.settings import DEFAULT_REFINE, Conditions, JobSettings
from smlm_pb.localization.threshold import ProbabilityHistogram
from smlm_pb.localization.work_file import WorkFile
from smlm_pb.movies import Movie, open_movie

if TYPE_CHECKING:
    import os

    from smlm_pb.camera import Camera
    from smlm_pb.localization.cluster import Cluster

TABLE_ENDING, WORK_ENDING = "_locs.hdf5", "_locs.work"


@dataclass(frozen=True)
class FileResult:
    """A finished table on disk.

    Parameters
    ----------
    path : Path
        The table.
    provenance : dict
        The step of its history that this run is.
    seconds : float
        Time for the frames that were done in this session.
    frames_done : int
        Frames done in this session: fewer than all after a resume, none when the table was complete already.
    """

    path: Path
    provenance: dict[str, Any]
    seconds: float
    frames_done: int


def table_path(movie_name: str, out_dir: str | os.PathLike[str]) -> Path:
    """Where the table of a movie goes: ``<name>_locs.hdf5``."""
    return Path(out_dir) / f"{movie_name.replace('/', '_')}{TABLE_ENDING}"


def localize_to_file(
    movie: Any,
    out_dir: str | os.PathLike[str],
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
    overwrite: bool = False,
    resume: bool = False,
    cluster: Cluster | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    on_block: OnBlock | None = None,
) -> Path:
    """Find the molecules in a movie and write them to ``out_dir/<name>_locs.hdf5`` (and ``.yaml``).

    Memory does not grow with the movie. Until the run is complete, what was found is in ``<name>_locs.work``; a run
    that was interrupted, by whatever, is continued with ``resume`` and then gives the same table.

    Parameters
    ----------
    movie : path, array (frame, y, x), or Movie
        Anything that :func:`smlm_pb.open_movie` opens.
    out_dir : path
        Folder of the results; made if it is missing.
    model, camera, pixel_size_nm, offset_adu, e_per_adu, em_gain, read_noise_e, psf_sigma_px, threshold, device, frames,
    floor, refine, precision
        As for :func:`smlm_pb.localize`.
    overwrite : bool
        Replace a table, or an unfinished run, that is there already.
    resume : bool
        Continue an unfinished run; a complete table is left as it is, and where there is nothing a run is started.
    cluster : Cluster, optional
        Workers that find the molecules; see :class:`smlm_pb.localization.cluster.Cluster`.
    on_progress, should_stop, on_block : callable, optional
        As for :func:`smlm_pb.localize`.

    Returns
    -------
    Path
        The table.

    Raises
    ------
    MovieError, CameraError, ModelError, ConfigurationError
        When an input is wrong, or settings differ from those of the run to continue.
    OutputError
        When the table exists, or it cannot be written.
    Cancelled
        When stopped by ``should_stop`` or Ctrl-C: what is finished is kept.

    Warns
    -----
    UserWarning
        As :func:`smlm_pb.localize`.
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
    run = FileRun(settings, out_dir, overwrite=overwrite, resume=resume, model=model, device=device, cluster=cluster)
    return run(movie, on_progress=on_progress, should_stop=should_stop, on_block=on_block).path


class FileRun:
    """Localizes one movie after the other into a folder with the same settings.

    Parameters
    ----------
    settings : JobSettings
        What is asked for.
    out_dir : path
        Folder of the results.
    overwrite, resume : bool
        See :func:`localize_to_file`.
    model : str, path or Model
        Loaded at the first movie, once the output was found free.
    device : str
        Where the network runs.
    cluster : Cluster, optional
        Workers that find the molecules.
    """

    def __init__(
        self,
        settings: JobSettings,
        out_dir: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        resume: bool = False,
        model: str | os.PathLike[str] | Model = DEFAULT_MODEL,
        device: str = "auto",
        cluster: Cluster | None = None,
    ) -> None:
        if overwrite and resume:
            raise ConfigurationError("overwrite starts anew and resume continues: choose one of them.")
        self.settings, self.out_dir, self.overwrite, self.resume = settings, Path(out_dir), overwrite, resume
        self._model, self._device, self._cluster = model, device, cluster

    def load_model(self) -> Model:
        """The model, loaded once."""
        self._model = get_model(self._model, self._device)
        return self._model

    def __call__(
        self,
        movie: Any,
        *,
        on_start: Callable[[Job], None] | None = None,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
        on_block: OnBlock | None = None,
    ) -> FileResult:
        """Localize one movie; see :func:`localize_to_file`. ``on_start`` is told what was found out before."""
        opened = open_movie(movie)
        try:
            return self._run(opened, _Callbacks(on_start, on_progress, should_stop, on_block))
        finally:
            if opened is not movie:
                opened.close()

    def _run(self, movie: Movie, callbacks: _Callbacks) -> FileResult:
        target = table_path(movie.name, self.out_dir)
        unfinished = target.with_name(target.name.removesuffix(TABLE_ENDING) + WORK_ENDING)
        make_folder(self.out_dir)
        if target.exists() and not unfinished.exists() and self.resume:
            return self._already_done(movie, target)
        self._check_free(movie, target, unfinished)
        with self._open_work(movie, unfinished) as (job, work):
            if callbacks.on_start is not None:
                callbacks.on_start(job)
            began = time.monotonic()
            first = work.done_until or job.conditions.frames[0]
            _find(job, work, first, callbacks, self._cluster)
            seconds = time.monotonic() - began
            try:
                remarks = {} if self._cluster is None else {"cluster": self._cluster.describe()}
                provenance, warnings = write_table(job, work, target, remarks=remarks)
            except KeyboardInterrupt:
                raise stopped(job, work) from None
            for warning in warnings:
                python_warnings.warn(warning, UserWarning, stacklevel=4)
            work.remove()
            return FileResult(target, provenance, seconds, job.conditions.frames[1] - first)

    def _already_done(self, movie: Movie, target: Path) -> FileResult:
        provenance = read_provenance(target)
        asked = identify(self.settings, self.load_model(), movie.fingerprint())
        refuse_other_settings(provenance.get("asked", {}), asked, target)
        return FileResult(target, provenance, 0.0, 0)

    def _check_free(self, movie: Movie, target: Path, unfinished: Path) -> None:
        """Refuse before any work what would fail at its end."""
        from smlm_pb.formats.native import NativeWriter

        if unfinished.exists() and not (self.resume or self.overwrite):
            raise OutputError(
                f"{unfinished} holds an unfinished run of this movie: continue it with resume=True, or start anew with "
                "overwrite=True."
            )
        # An unfinished run has the right to the target: it was checked, or given, when the run began.
        NativeWriter(target, movie.info, overwrite=self.overwrite or unfinished.exists()).discard()

    def _open_work(self, movie: Movie, unfinished: Path) -> OpenWork:
        model = self.load_model()
        if unfinished.exists() and self.resume:
            work = WorkFile.resume(unfinished)
            try:
                fingerprint = movie.fingerprint()
                refuse_other_settings(work.header["asked"], identify(self.settings, model, fingerprint), unfinished)
                conditions = Conditions.restore(work.header["conditions"], self.settings)
            except BaseException:
                work.close()
                raise
            return OpenWork(Job(movie, model, self.settings, conditions, fingerprint), work)
        from smlm_pb.localization.conditions import prepare

        job = prepare(movie, model, self.settings)
        for warning in job.conditions.warnings:
            python_warnings.warn(warning, UserWarning, stacklevel=5)
        header = {"asked": job.identity(), "conditions": job.conditions.as_dict()}
        return OpenWork(job, WorkFile.create(unfinished, header))


class _Callbacks(NamedTuple):
    on_start: Callable[[Job], None] | None
    on_progress: OnProgress | None
    should_stop: ShouldStop | None
    on_block: OnBlock | None


@dataclass(frozen=True)
class OpenWork:
    """A job with its work file, which is released at the end; one without any finished frame is removed."""

    job: Job
    work: WorkFile

    def __enter__(self) -> tuple[Job, WorkFile]:
        return self.job, self.work

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.work.done_until is None:
            self.work.remove()
        self.work.close()


def make_folder(folder: Path) -> None:
    """Make the folder of the results; raises OutputError where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {folder} cannot be made ({error.strerror}): choose another folder for the results."
        ) from error


def _find(job: Job, work: WorkFile, first: int, callbacks: _Callbacks, cluster: Cluster | None = None) -> None:
    """Find the candidates of all frames from ``first`` on and keep them in the work file."""
    _, on_progress, should_stop, on_block = callbacks
    start, stop = job.conditions.frames
    histogram = ProbabilityHistogram()
    if on_progress is not None and first > start:
        on_progress(first - start, stop - start)
    try:
        frames = (first, stop)
        with job.find_candidates(frames) if cluster is None else cluster.find_candidates(job, frames) as blocks:
            for block in blocks:
                work.append(block)
                if on_block is not None:
                    histogram.add(block.candidates.rows["probability"], block.candidates.expected_unlisted)
                    moment = choose_threshold(job.settings, histogram).threshold
                    on_block(job.finished_block(block.start, block.stop, block.candidates, moment))
                if on_progress is not None:
                    on_progress(block.stop - start, stop - start)
                if should_stop is not None and block.stop < stop and should_stop():
                    raise stopped(job, work)
    except KeyboardInterrupt:
        raise stopped(job, work) from None


def stopped(job: Job, work: WorkFile) -> Cancelled:
    """What the user is told of a run that was stopped."""
    start, stop = job.conditions.frames
    if work.done_until is None:
        return Cancelled(f"Stopped before the first frames of movie {job.movie.name} were done; nothing was written.")
    return Cancelled(
        f"Stopped after {work.done_until - start} of {stop - start} frames of movie {job.movie.name}; they are kept in "
        f"{work.path}: continue with resume=True."
    )
