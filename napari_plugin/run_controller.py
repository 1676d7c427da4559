"""Starts a run, shows how it goes and what it finds, and hands over the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_plugin.localize_job import LocalizeJob, RunRequest, RunResult
from napari_plugin.molecules import GrowingPoints, Molecules, layer_of_many, remove_safely
from napari_plugin.movie_layers import Place
from napari_plugin.result_image import ResultImage
from smlm_pb.localizations import Localizations

_POLL_MS = 100
_POLL_STOPPING_MS = 10
_TIDY_AFTER_MS = 100
#: The growing image is shown at most this often, and never takes more than this share of the time.
_IMAGE_EVERY_S = 0.5
_IMAGE_SHARE = 0.1


class RunController(QObject):
    """One run at a time.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    image : ResultImage
        Shows the growing image.
    """

    progressed = Signal(object)
    #: The job, and the molecules; None where there is nothing to show.
    finished = Signal(object, object)

    def __init__(self, viewer: Any, image: ResultImage, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._image = viewer, image
        self._job: LocalizeJob | None = None
        self._worker: Any = None
        self._place = Place()
        self._points: GrowingPoints | None = None
        self._next_image_at = 0.0
        self._n_blocks_drawn = 0
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._poll)
        viewer.dims.events.current_step.connect(self._on_step)

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

        def prepare(result: RunResult) -> Any:
            return layer_of_many(result.candidates, place, name)

        job.prepare = prepare
        self._timer.start(_POLL_MS)
        # Adding a layer takes napari a tenth of a second or two: one after the other, and before the run, not in it.
        self._in_turn(job, self._add_points, self._add_image, self._start_worker)

    def _in_turn(self, job: LocalizeJob, *steps: Callable[[LocalizeJob], None]) -> None:
        def take_step() -> None:
            if self._job is job and not job.stopping:
                steps[0](job)
                self._in_turn(job, *steps[1:])

        if steps:
            QTimer.singleShot(0, take_step)

    def _add_points(self, job: LocalizeJob) -> None:
        active = self._viewer.layers.selection.active
        info = job.request.whole or job.request.movie.info
        self._points = GrowingPoints(self._viewer, self._place, Localizations.empty(info), self._name)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active

    def _add_image(self, job: LocalizeJob) -> None:
        if (pixels := job.empty_image()) is not None and job.grid is not None:
            self._image.show_growing(pixels, job.grid, self._place)

    def _start_worker(self, job: LocalizeJob) -> None:
        from napari.qt.threading import create_worker

        self._worker = worker = create_worker(job, _start_thread=False)
        # Closing the window asks napari's worker to quit.
        job.also_stop_if(lambda: worker.abort_requested)
        worker.start()

    def cancel(self) -> None:
        """Ask the run to end; what was found is handed over as usual."""
        if self._job is not None:
            self._job.stop()
            self._job.give_up()
            self._timer.start(_POLL_STOPPING_MS)

    def close(self) -> None:
        """The panel ends: stop the run unheard."""
        self.cancel()
        self._job = None
        self._timer.stop()
        self._viewer.dims.events.current_step.disconnect(self._on_step)

    def _poll(self) -> None:
        job = self._job
        if job is None:
            self._timer.stop()
            return
        if job.result is not None or job.failure is not None:
            self._timer.stop()
            molecules = self._show_all(job)
            # napari draws in between: no single event should take long.
            QTimer.singleShot(0, lambda: self._hand_over(job, molecules))
            return
        progress = job.progress()
        self.progressed.emit(progress)
        if progress.done:
            self._show_points(job)
            self._show_image(job)

    def _show_all(self, job: LocalizeJob) -> Molecules | None:
        """Show what was found, complete or not."""
        result = job.result
        if result is None or (result.stopped and not result.n_frames):
            return None
        table = result.candidates
        points = self._points or GrowingPoints(self._viewer, self._place, table.select(slice(0)), self._name)
        return points.finish(table, result.expectation, job.prepared)

    def _hand_over(self, job: LocalizeJob, molecules: Molecules | None) -> None:
        if self._job is not job:
            return
        points, self._job, self._worker, self._points = self._points, None, None, None
        self.finished.emit(job, molecules)
        if molecules is None:
            # Later: taking away a layer lets napari collect garbage, which takes a third of a second.
            QTimer.singleShot(_TIDY_AFTER_MS, lambda: self._tidy(points))

    def _tidy(self, points: GrowingPoints | None) -> None:
        """Take away the layers of a run that found nothing."""
        if not self.running:
            self._image.end_growing()
        if points is not None and points.is_there:
            remove_safely(self._viewer, points.layer)

    def _on_step(self, event: Any = None) -> None:
        if self._job is not None:
            self._show_points(self._job)

    def _show_points(self, job: LocalizeJob) -> None:
        if self._points is not None and self._points.is_there:
            frame = self._points.frame_on_screen()
            molecules = job.molecules_of_frame(frame)
            if molecules is not None:
                self._points.show_frame(molecules, frame)

    def _show_image(self, job: LocalizeJob) -> None:
        now = time.monotonic()
        if now < self._next_image_at or job.grid is None:
            return
        pixels = job.image()
        if pixels is None:
            return
        self._image.show_growing(pixels, job.grid, self._place)
        took = time.monotonic() - now
        self._next_image_at = time.monotonic() + max(_IMAGE_EVERY_S, took / _IMAGE_SHARE)
