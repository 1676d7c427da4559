"""Localize a movie while it is being recorded: frames as they arrive, a table that is whole at any moment.

What has been found lies in a work file, as in every run. Now and then a table is made of it, so that the
picture can be looked at during the recording; the last table is the one that localizing the finished movie gives.
"""

from __future__ import annotations

import hashlib
import time
import warnings as python_warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb.errors import Cancelled, ConfigurationError, MovieError, OutputError
from smlm_pb.localization.from_work_file import write_table
from smlm_pb.localization.job import Job, OnProgress, ShouldStop, get_model, identify
from smlm_pb.localization.model import DEFAULT_MODEL, Model
from smlm_pb.localization.resuming import refuse_other_settings
from smlm_pb.localization.settings import Conditions, JobSettings
from smlm_pb.localization.to_file import TABLE_ENDING, WORK_ENDING, FileResult, make_folder, table_path
from smlm_pb.localization.work_file import WorkFile
from smlm_pb.localizations import MovieInfo
from smlm_pb.movies.growing import GrowingMovie

if TYPE_CHECKING:
    import os

    from smlm_pb.movies import Movie

#: The camera and the width of the PSF are estimated from so many frames at first.
_FIRST_FRAMES = 200
#: Where both are told, so many are enough to check them.
_FIRST_FRAMES_TOLD = 8
#: Looking for frames, and writing tables, may each take this share of the time.
_SHARE = 0.1


@dataclass(frozen=True)
class WatchOptions:
    """How a growing movie is followed.

    Parameters
    ----------
    idle_s : float
        The recording is over when no frame has come for so long, s.
    update_s : float
        The table is written anew this often, s; less often where writing takes long.
    poll_s : float
        How often new frames are looked for, s; less often where looking takes long.
    second_pass : bool
        Whether to localize the movie once more at the end, when what is estimated from the finished movie (camera,
        width of the PSF, significance of lone molecules) differs from what its first frames told. Without it the first
        estimates are kept.
    """

    idle_s: float = 60.0
    update_s: float = 10.0
    poll_s: float = 0.5
    second_pass: bool = True

    def __post_init__(self) -> None:
        for name in ("idle_s", "update_s", "poll_s"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} = {getattr(self, name)!r} must be a number of seconds > 0.")


def watch(
    path: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    settings: JobSettings | None = None,
    options: WatchOptions | None = None,
    model: str | os.PathLike[str] | Model = DEFAULT_MODEL,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    on_start: Callable[[Job], None] | None = None,
    on_progress: OnProgress | None = None,
    on_update: Callable[[Path, int], None] | None = None,
    should_stop: ShouldStop | None = None,
) -> FileResult:
    """Localize a movie while it is being recorded.

    Parameters
    ----------
    path : path
        A growing TIFF file (of an OME series: its first file), or the folder into which frames or parts are written;
        it may come into being later.
    out_dir : path
        Folder of the results; made if it is missing.
    settings : JobSettings, optional
        As for :func:`smlm_pb.localize`; ``frames`` cannot be given.
    options : WatchOptions, optional
        How the movie is followed.
    model, device, overwrite : see :func:`smlm_pb.localize_to_file`
    resume : bool
        Continue after ``watch`` itself was interrupted.
    on_start : callable, optional
        Told the job when the first frames are there.
    on_progress : callable, optional
        Called with (frames done, frames there).
    on_update : callable, optional
        Called with (table, frames in it) whenever the table was written.
    should_stop : callable, optional
        When true, no more frames are waited for; those that are there are done.

    Returns
    -------
    FileResult
        The complete table, equal to that of localizing the finished movie.

    Raises
    ------
    MovieError
        When no frame came, or they are no movie.
    ConfigurationError, CameraError, ModelError, OutputError
        As :func:`smlm_pb.localize_to_file`.
    Cancelled
        At Ctrl-C: the table holds the frames that were done, and ``resume`` continues.
    """
    settings = settings or JobSettings()
    if settings.frames is not None:
        raise ConfigurationError("frames cannot be chosen while a movie grows: localize the finished movie instead.")
    if overwrite and resume:
        raise ConfigurationError("overwrite starts anew and resume continues: choose one of them.")
    growing = GrowingMovie(Path(path))
    target = table_path(growing.name, out_dir)
    unfinished = target.with_name(target.name.removesuffix(TABLE_ENDING) + WORK_ENDING)
    make_folder(target.parent)
    _check_free(growing.name, target, unfinished, overwrite=overwrite, resume=resume)
    run = _Watch(growing, settings, options or WatchOptions(), get_model(model, device), target, unfinished)
    run.on_progress, run.on_update, run.should_stop = on_progress, on_update, should_stop
    return run(on_start, resume=resume and unfinished.exists())


def _check_free(name: str, target: Path, unfinished: Path, *, overwrite: bool, resume: bool) -> None:
    from smlm_pb.formats.native import NativeWriter

    if unfinished.exists() and not (resume or overwrite):
        raise OutputError(
            f"{unfinished} holds an unfinished run of this movie: continue it with resume=True, or start anew with "
            "overwrite=True."
        )
    NativeWriter(target, MovieInfo(1, 5, 5, None, name), overwrite=overwrite or unfinished.exists()).discard()


class _Watch:
    """One recording that is followed."""

    on_progress: OnProgress | None = None
    on_update: Callable[[Path, int], None] | None = None
    should_stop: ShouldStop | None = None

    def __init__(
        self,
        growing: GrowingMovie,
        settings: JobSettings,
        options: WatchOptions,
        model: Model,
        target: Path,
        unfinished: Path,
    ) -> None:
        self._growing, self._settings, self._options = growing, settings, options
        self._model, self._target, self._unfinished = model, target, unfinished
        self._seen = 0
        self._news_at = time.monotonic()
        self._look_again_at = 0.0
        self._update_at = time.monotonic() + options.update_s
        self._latest: Movie | None = None
        self._work: WorkFile
        self._is_second_pass = False

    def __call__(self, on_start: Callable[[Job], None] | None, *, resume: bool) -> FileResult:
        job, self._work = self._begin_again() if resume else self._begin()
        began, first = time.monotonic(), self._work.done_until or 0
        try:
            if on_start is not None:
                on_start(job)
            self._follow(job)
            final = self._complete(job)
            frames = final.conditions.n_frames
            provenance, warnings = write_table(final, self._work, self._target, remarks=_remarks(frames, complete=True))
            new = [warning for warning in final.conditions.warnings if warning not in job.conditions.warnings]
            for warning in (*new, *warnings):
                python_warnings.warn(warning, UserWarning, stacklevel=3)
            self._work.remove()
            return FileResult(self._target, provenance, time.monotonic() - began, max(0, frames - first))
        except KeyboardInterrupt:
            raise self._interrupted(job) from None
        finally:
            if self._work.done_until is None:
                self._work.remove()
            self._work.close()

    # -- while it grows --------------------------------------------------------------------------------------

    def _begin(self) -> tuple[Job, WorkFile]:
        """Wait for the first frames, and find out what they tell of camera and optics."""
        asked = self._settings
        told = asked.psf_sigma_px is not None and (
            asked.camera is not None or (asked.offset_adu is not None and asked.e_per_adu is not None)
        )
        wanted = _FIRST_FRAMES_TOLD if told else _FIRST_FRAMES
        while self._look() < wanted and not self._is_over():
            time.sleep(min(self._options.poll_s, self._options.idle_s / 4))
        movie = self._latest if self._latest is not None else self._growing_finish()
        job = self._prepare(movie)
        for warning in job.conditions.warnings:
            python_warnings.warn(warning, UserWarning, stacklevel=5)
        header = {"asked": job.identity(), "conditions": job.conditions.as_dict()}
        return job, WorkFile.create(self._unfinished, header)

    def _begin_again(self) -> tuple[Job, WorkFile]:
        work = WorkFile.resume(self._unfinished)
        try:
            while self._look() < max(1, work.done_until or 0) and not self._is_over():
                time.sleep(self._options.poll_s)
            movie = self._latest if self._latest is not None else self._growing_finish()
            fingerprint = _beginning(movie)
            asked = identify(self._settings, self._model, fingerprint)
            refuse_other_settings(work.header["asked"], asked, self._unfinished)
            conditions = Conditions.restore(work.header["conditions"], self._settings)
        except BaseException:
            work.close()
            raise
        return Job(movie, self._model, self._settings, conditions, fingerprint), work

    def _growing_finish(self) -> Movie:
        if self._is_told_to_stop() and self._seen == 0:
            raise Cancelled(f"Stopped before the first frame of movie {self._growing.name} had come.")
        if not self._growing.path.exists():
            raise MovieError(
                f"Nothing was recorded to {self._growing.path} within {self._options.idle_s:g} s: check the path, or "
                "wait longer (idle_s)."
            )
        return self._growing.finish()[0]

    def _prepare(self, movie: Movie) -> Job:
        from smlm_pb.localization.conditions import prepare

        return replace(prepare(movie, self._model, self._settings), fingerprint=_beginning(movie))

    def _look(self) -> int:
        """Frames that are whole by now."""
        began = time.monotonic()
        if began < self._look_again_at:
            return self._seen
        movie = self._growing.look()
        now = time.monotonic()
        self._look_again_at = now + max(self._options.poll_s, (now - began) / _SHARE)
        if movie is not None and movie.n_frames > self._seen:
            self._latest, self._seen, self._news_at = movie, movie.n_frames, now
        return self._seen

    def _is_over(self) -> bool:
        if self._is_told_to_stop():
            return True
        if time.monotonic() - self._news_at <= self._options.idle_s:
            return False
        self._look_again_at = 0.0  # the last look may be long ago
        self._look()
        return time.monotonic() - self._news_at > self._options.idle_s

    def _is_told_to_stop(self) -> bool:
        return self.should_stop is not None and self.should_stop()

    def _follow(self, job: Job) -> None:
        """Localize whole blocks as they come, until the recording is over."""
        from smlm_pb.localization.pipeline import plan_work

        step = plan_work(job.movie.height, job.movie.width, self._model.device).block_frames
        while not self._is_told_to_stop():
            seen = max(0, self._look() - job.model.network.context_frames)  # the last ones wait for the next
            # The same blocks as those of the finished movie give the same result to the last digit.
            whole = seen - seen % step
            if self._latest is not None and whole > (self._work.done_until or 0):
                self._find(replace(job, movie=self._latest), whole)
            elif self._is_over():
                return
            else:
                time.sleep(self._options.poll_s)
            self._update(job)

    def _find(self, job: Job, stop: int) -> None:
        with job.find_candidates((self._work.done_until or 0, stop)) as blocks:
            for block in blocks:
                self._work.append(block)
                if self.on_progress is not None:
                    self.on_progress(block.stop, max(self._look(), stop))
                self._update(job)

    def _update(self, job: Job) -> None:
        """Write the table of what is done, when it is time."""
        began = time.monotonic()
        if began < self._update_at or self._work.done_until is None or self._is_second_pass:
            return
        self._write_unfinished(job)
        now = time.monotonic()
        self._update_at = now + max(self._options.update_s, (now - began) / _SHARE)

    def _write_unfinished(self, job: Job) -> int:
        done = self._work.done_until or 0
        # Refinement waits for the end: what it measures of a movie must not depend on the moment.
        movie = self._latest if self._latest is not None and job.movie.n_frames < done else job.movie
        so_far = replace(
            job,
            movie=movie,
            settings=replace(job.settings, refine="off"),
            conditions=replace(job.conditions, frames=(0, done)),
        )
        write_table(so_far, self._work, self._target, remarks=_remarks(done, complete=False))
        if self.on_update is not None:
            self.on_update(self._target, done)
        return done

    # -- at the end ------------------------------------------------------------------------------------------

    def _complete(self, job: Job) -> Job:
        """Do the last frames; once more from the start where the finished movie tells otherwise than its beginning."""
        from smlm_pb.localization.conditions import prepare

        movie, problem = self._growing.finish()
        if problem is not None:
            python_warnings.warn(f"{problem} The {movie.n_frames} whole frames are used.", UserWarning, stacklevel=4)
        if (self._work.done_until or 0) > movie.n_frames or _beginning(movie) != job.fingerprint:
            raise MovieError(
                f"{self._growing.path} was replaced by another movie while it was followed: watch it anew."
            )
        final = prepare(movie, self._model, self._settings)
        if _decisive(final.conditions) != _decisive(job.conditions):
            if self._options.second_pass:
                self._start_over(job, final)
            else:
                final = replace(final, conditions=replace(job.conditions, frames=final.conditions.frames))
        if (self._work.done_until or 0) < movie.n_frames:
            self._find(final, movie.n_frames)
        return final

    def _start_over(self, job: Job, final: Job) -> None:
        if not self._is_second_pass and self._work.done_until is not None:
            self._write_unfinished(job)  # to be looked at until the new one is done
        self._is_second_pass = True
        self._work.close()
        header = {"asked": job.identity(), "conditions": final.conditions.as_dict()}
        self._work = WorkFile.create(self._unfinished, header)

    def _interrupted(self, job: Job) -> Cancelled:
        if self._is_second_pass:
            return Cancelled(
                f"Stopped while the finished movie {self._growing.name} was localized once more; until then "
                f"{self._target} holds what its first frames told; continue with resume=True."
            )
        if self._work.done_until is None:
            return Cancelled(f"Stopped before the first frames of movie {self._growing.name} were done.")
        done = self._write_unfinished(job)
        return Cancelled(
            f"Stopped: {self._target} holds the first {done} frames of movie {self._growing.name}; continue with "
            "resume=True."
        )


def _decisive(conditions: Conditions) -> dict[str, Any]:
    """What the candidates depend on: all that is not said of the movie as a whole."""
    aside = ("frames", "warnings", "origin", "background_e", "pixel_size_nm")
    return {name: value for name, value in conditions.as_dict().items() if name not in aside}


def _remarks(frames: int, *, complete: bool) -> dict[str, Any]:
    return {"watch": {"frames": frames, "complete": complete}}


def _beginning(movie: Movie) -> str:
    """Tells movies apart by their first frame: all that does not change while they grow."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((movie.height, movie.width, movie.dtype.newbyteorder("<").str)).encode())
    digest.update(movie.read(0, 1).astype(movie.dtype.newbyteorder("<"), copy=False).tobytes())
    return f"beginning {digest.hexdigest()}"
