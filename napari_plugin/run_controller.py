"""Starts a run, shows how it goes and what it finds, and hands over the result."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_plugin.localize_job import LocalizeJob, RunRequest, RunResult
from napari_plugin.molecules import GrowingPoints, Molecules, prepare, remove_safely
from napari_plugin.movie_layers import Place
from napari_plugin.result_image import ResultImage
from napari_plugin.turns import Lively, Turns, unpainted
from smlm_pb.localizations import Localizations

_POLL_MS = 100
#: Progress is shown this often: painting a window takes its time, and the localization's.
_TOLD_EVERY_S = 0.25
_POLL_STOPPING_MS = 10
_TIDY_AFTER_MS = 100
#: The growing image is shown at most this often, and never takes more than this share of the time.
_IMAGE_EVERY_S = 0.5
_IMAGE_SHARE = 0.1
#: By then the result has been drawn for the first time.
_CALM_AFTER_MS = 2000


class RunController(QObject):
    """One run at a time.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    image : ResultImage
        Shows the growing image.
    panel : QWidget
        Ends with it.
    """

    progressed = Signal(object)
    #: The job, and the molecules; None where there is nothing to show.
    finished = Signal(object, object)

    def __init__(self, viewer: Any, image: ResultImage, panel: QWidget) -> None:
        super().__init__(panel)
        self._viewer, self._image, self._panel = viewer, image, panel
        self._job: LocalizeJob | None = None
        self._worker: Any = None
        self._place = Place()
        self._points: GrowingPoints | None = None
        self._own_layer: Any = None
        self._next_image_at = self._next_told_at = 0.0
        self._n_blocks_drawn = 0
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._poll)
        self._turns, self._showing, self._lively = Turns(self), Turns(self), Lively()
        self._calm = QTimer(self)
        self._calm.setSingleShot(True)
        self._calm.setInterval(_CALM_AFTER_MS)
        self._calm.timeout.connect(self._lively.end)
        viewer.dims.events.current_step.connect(self._on_step)
        viewer.layers.events.removing.connect(self._on_removing)

    @property
    def running(self) -> bool:
        """Whether a run goes on."""
        return self._job is not None

    def start(self, request: RunRequest, place: Place, name: str, job: LocalizeJob | None = None) -> None:
        """Start a run.

        Parameters
        ----------
        request : RunRequest
            What to do.
        place : Place
            Where the movie lies.
        name : str
            Name of the layer of the molecules.
        job : LocalizeJob, optional
            Another job than that of the request.
        """
        job = LocalizeJob(request) if job is None else job
        self._job, self._place, self._points, self._name = job, place, None, name
        self._next_image_at = time.monotonic() + _IMAGE_EVERY_S

        def made_ready(result: RunResult) -> Molecules:
            return prepare(result.candidates, place, name, result.expectation)

        job.prepare = made_ready
        self._calm.stop()
        self._lively.begin()
        self._timer.start(_POLL_MS)
        self._turns.start(self._begin(job))

    def _begin(self, job: LocalizeJob) -> Generator[None, None, None]:
        """Add the layers, then start; adding and drawing one takes napari a tenth of a second, so each in its turn."""
        info = job.request.whole or job.request.movie.info
        self._points = points = GrowingPoints(self._viewer, self._place, Localizations.empty(info), self._name)
        self._own_layer = points.layer
        pixels = job.empty_image()
        yield
        with unpainted(self._panel):
            points.add()
            yield
        yield
        yield from points.show()
        yield
        if pixels is not None and job.grid is not None:
            yield from self._image.begin_growing(pixels, job.grid, self._place)
            yield
        self._start_worker(job)

    def _start_worker(self, job: LocalizeJob) -> None:
        from napari.qt.threading import create_worker

        self._worker = worker = create_worker(_Once(job), _start_thread=False)
        # Closing the window asks napari's worker to quit.
        job.also_stop_if(lambda: worker.abort_requested)
        worker.start()

    def cancel(self) -> None:
        """Ask the run to end; what was found is handed over as usual."""
        if self._job is not None:
            if self._turns.busy and self._worker is not None:  # it is ending
                return
            self._turns.stop()
            self._job.stop()
            self._job.give_up()
            self._timer.start(_POLL_STOPPING_MS)

    def close(self) -> None:
        """The panel ends: stop the run unheard."""
        self.cancel()
        self._job = None
        for timer in (self._timer, self._turns, self._showing, self._calm):
            timer.stop()
        self._lively.end()
        self._viewer.dims.events.current_step.disconnect(self._on_step)
        self._viewer.layers.events.removing.disconnect(self._on_removing)

    def _poll(self) -> None:
        job = self._job
        if job is None:
            self._timer.stop()
            return
        if job.result is not None or job.failure is not None:
            self._timer.stop()
            self._showing.stop()
            self._turns.start(self._finish(job))
            return
        now = time.monotonic()
        if now >= self._next_told_at and not self._showing.busy:
            self._next_told_at = now + _TOLD_EVERY_S
            self._showing.start(self._show(job))

    def _finish(self, job: LocalizeJob) -> Generator[None, None, None]:
        """Show what was found, complete or not, and hand it over."""
        result, molecules = job.result, None
        if result is not None and not (result.stopped and not result.n_frames):
            table = result.candidates
            molecules = job.prepared or prepare(table, self._place, self._name, result.expectation)
            empty = table.select(slice(0))
            yield from (self._points or GrowingPoints(self._viewer, self._place, empty, self._name)).finish(
                molecules, self._panel
            )
            yield
        points, self._job, self._worker, self._points = self._points, None, None, None
        self.finished.emit(job, molecules)
        self._calm.start()
        if molecules is None:
            # Later: taking away a layer lets napari collect garbage, which takes a third of a second.
            QTimer.singleShot(_TIDY_AFTER_MS, lambda: self._tidy(points))

    def _tidy(self, points: GrowingPoints | None) -> None:
        """Take away the layers of a run that found nothing."""
        if not self.running:
            self._image.end_growing()
        if points is not None and points.is_there:
            remove_safely(self._viewer, points.layer)

    def _on_removing(self, event: Any = None) -> None:
        """Somebody takes away a layer: napari must be able to collect what was there before the run."""
        if self._viewer.layers[event.index] is not self._own_layer:
            self._lively.end()

    def _on_step(self, event: Any = None) -> None:
        if self._job is not None and not self._turns.busy:
            self._show_points(self._job)

    def _show_points(self, job: LocalizeJob) -> None:
        if self._points is not None and self._points.is_there:
            frame = self._points.frame_on_screen()
            molecules = job.molecules_of_frame(frame)
            if molecules is not None:
                self._points.show_frame(molecules, frame)

    def _show(self, job: LocalizeJob) -> Generator[None, None, None]:
        """Show what was found so far: numbers, molecules and image, each in its turn."""
        progress = job.progress()
        self.progressed.emit(progress)
        if not progress.done:
            return
        yield
        self._show_points(job)
        now = time.monotonic()
        if now < self._next_image_at or job.grid is None:
            return
        yield
        pixels = job.image()
        if pixels is None:
            return
        yield from self._image.show_growing(pixels, job.grid, self._place)
        took = time.monotonic() - now
        self._next_image_at = time.monotonic() + max(_IMAGE_EVERY_S, took / _IMAGE_SHARE)


class _Once:
    """Runs a job and lets go of it: napari remembers every worker, and with it the tables of every run.

    Parameters
    ----------
    job : LocalizeJob
        The job.
    """

    def __init__(self, job: LocalizeJob) -> None:
        self._job: LocalizeJob | None = job
        self._name = repr(job)

    def __repr__(self) -> str:
        return self._name

    def __call__(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            job()
