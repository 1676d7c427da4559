"""What is measured from a movie before the run, and the live preview of one frame: both beside the screen's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_plugin.background import Latest
from napari_plugin.layer_steps import insert_quietly
from napari_plugin.molecule_layers import point_coordinates, points_arguments
from napari_plugin.molecules import remove_safely
from napari_plugin.movie_layers import HELPER_KEY, Place, Region, placed_in_whole
from smlm_pb.localizations import Localizations, MovieInfo

if TYPE_CHECKING:
    from smlm_pb.localization import Conditions, Expectation, JobSettings, Model, ModelCard
    from smlm_pb.localization.job import Job
    from smlm_pb.localization.threshold import ProbabilityHistogram
    from smlm_pb.movies import Movie

#: Wait this long after the last key before measuring anew, ms.
_SETTLE_MS = 300
_PREVIEW = "preview"
#: Whoever steps through a movie goes on: so many frames are localized ahead, and so many are remembered.
_AHEAD, _REMEMBERED = 4, 256
#: Frames and pixels of a sample by which the automatic threshold of the whole movie is told.
_SAMPLE_FRAMES, _SAMPLE_PX = 12, 1 << 18
#: Known frames this near are put into the layer together: giving it new points takes longer than a step among them.
_NEAR = 16


class Survey(QObject):
    """Measures camera, PSF width and background of the chosen movie, as the library does before a run.

    Parameters
    ----------
    on_result, on_error : callable
        Called with the conditions, or with what went wrong.
    """

    def __init__(
        self,
        on_result: Callable[[Conditions], None],
        on_error: Callable[[Exception], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._latest = Latest(on_result, on_error, self)
        self._job: Callable[[], Conditions] | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self._start)

    def request(self, movie: Movie, settings: JobSettings, card: ModelCard) -> None:
        """Measure, soon."""

        def work() -> Conditions:
            from smlm_pb.localization.conditions import resolve

            return resolve(movie, settings, card)

        self._latest.forget()
        self._job = work
        self._timer.start()

    def forget(self) -> None:
        """There is nothing to measure any more."""
        self._timer.stop()
        self._latest.forget()

    def close(self) -> None:
        """Take no more requests."""
        self._timer.stop()
        self._latest.close()

    def _start(self) -> None:
        if self._job is not None:
            self._latest.submit(self._job)


@dataclass(frozen=True)
class PreviewRequest:
    """One frame to localize.

    Parameters
    ----------
    movie : Movie
        The movie.
    model : str
        Name or folder.
    settings : JobSettings
        What was asked for.
    conditions : Conditions
        What was measured.
    frame : int
        Number of the frame.
    region : Region, optional
        Where the movie was cut.
    whole : MovieInfo, optional
        The whole movie, where it was cut.
    """

    movie: Movie
    model: str
    settings: JobSettings
    conditions: Conditions
    frame: int
    region: Region | None = None
    whole: MovieInfo | None = None

    @property
    def kind(self) -> tuple[Conditions, str, bool]:
        """What must be the same for two frames to belong together: every change of the settings measures anew."""
        return self.conditions, self.model, self.settings.threshold == "auto"


@dataclass(frozen=True)
class PreviewResult:
    """Candidates of a frame, and what is expected at the threshold."""

    frame: int
    candidates: Localizations
    expectation: Expectation


@dataclass(frozen=True)
class _Found:
    """Candidates of a frame, and how probable they are; also those below the floor."""

    candidates: Localizations
    histogram: ProbabilityHistogram


@dataclass(frozen=True)
class _WholeMovie:
    """What a run knows of the whole movie, so that a frame shows what a run would find on it."""

    job: Job
    threshold: float | None


class Preview(QObject):
    """Localizes the frame on the screen; the newest request wins, so stepping is never held up.

    What is known is shown at once, and the frames that come next are localized while the present one is looked at.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    on_error : callable
        Called with what went wrong.
    """

    shown = Signal(object)

    def __init__(self, viewer: Any, on_error: Callable[[Exception], None], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._latest = Latest(self._on_result, on_error, self)
        self._known: dict[int, _Found] = {}
        self._known_for: tuple[Conditions, str, bool] | None = None
        self._whole: tuple[tuple[Conditions, str, bool], _WholeMovie] | None = None
        self._in_layer: set[int] = set()
        self._last: PreviewRequest | None = None
        self._direction = 1
        self._models: dict[str, Model] = {}
        self._place: Place | None = None
        self._layer: Any = None
        self._result: PreviewResult | None = None
        self._threshold: float | None = None

    @property
    def layer(self) -> Any:
        """The layer of the preview, if it is in the viewer."""
        return self._layer if self._layer is not None and self._layer in self._viewer.layers else None

    def request(self, request: PreviewRequest, place: Place, threshold: float | None) -> None:
        """Localize a frame; None for the automatic threshold."""
        self._place, self._threshold = place, threshold
        if not _is_same(request.kind, self._known_for):
            self._known, self._known_for = {}, request.kind
            self._in_layer.clear()
        elif self._last is not None and request.frame != self._last.frame:
            self._direction = 1 if request.frame > self._last.frame else -1
        self._last = request
        known = self._known.get(request.frame)
        whole = self._whole_movie_of(request)
        if known is None or whole is None:
            self._latest.submit(lambda: self._localize(request))
        else:
            self._latest.forget()
            self._on_result(_result(request.frame, known, whole))

    def set_threshold(self, threshold: float | None) -> None:
        """Show the same candidates at another threshold."""
        self._threshold = threshold
        self._in_layer.clear()
        if self._result is not None and self.layer is not None:
            self._show(self._result)

    def end(self) -> None:
        """Take the preview off the screen."""
        self._latest.forget()
        self._result, self._known, self._known_for, self._whole = None, {}, None, None
        self._in_layer.clear()
        layer, self._layer = self.layer, None
        if layer is not None:
            remove_safely(self._viewer, layer)

    def close(self) -> None:
        """Take no more requests."""
        self._latest.close()

    def _on_result(self, result: PreviewResult | None) -> None:
        if result is None:  # frames ahead, which are not on the screen yet
            if self._result is not None and self.layer is not None and not self._latest.overtaken:
                self._fill_layer(self._result)
            return
        self._show(result)
        request = self._last
        if request is not None and _is_same(request.kind, self._known_for):
            self._latest.submit(lambda: self._look_ahead(request, self._direction))

    def _look_ahead(self, request: PreviewRequest, direction: int) -> None:
        last = request.movie.n_frames - 1
        for frame in range(request.frame + direction, request.frame + direction * (_AHEAD + 1), direction):
            if self._latest.overtaken:
                return
            if 0 <= frame <= last and frame not in self._known:
                self._localize(replace(request, frame=frame))

    # -- beside the screen's thread ------------------------------------------------------------------------

    def _localize(self, request: PreviewRequest) -> PreviewResult:
        whole = self._whole_movie_of(request) or self._look_at_the_movie(request)
        return _result(request.frame, self._find(request, whole.job, request.frame), whole)

    def _whole_movie_of(self, request: PreviewRequest) -> _WholeMovie | None:
        known = self._whole
        return known[1] if known is not None and _is_same(request.kind, known[0]) else None

    def _look_at_the_movie(self, request: PreviewRequest) -> _WholeMovie:
        """Learn by a sample, once, what a run learns of the whole movie."""
        from smlm_pb.localization import load_model
        from smlm_pb.localization.conditions import look_closer
        from smlm_pb.localization.job import Job
        from smlm_pb.localization.threshold import ProbabilityHistogram
        from smlm_pb.movies.movie import even_frames

        if request.model not in self._models:
            self._models = {request.model: load_model(request.model)}
        movie, settings = request.movie, request.settings
        job = look_closer(Job(movie, self._models[request.model], settings, request.conditions, ""))
        threshold = None
        if settings.threshold == "auto":
            histogram = ProbabilityHistogram()
            start, stop = request.conditions.frames
            count = min(_SAMPLE_FRAMES, _SAMPLE_PX // (movie.height * movie.width))
            for frame in even_frames(stop - start, count) or [request.frame - start]:
                found = self._find(request, job, start + frame).histogram
                histogram.count += found.count
                histogram.mass += found.mass
                histogram.expected_unlisted += found.expected_unlisted
            threshold = histogram.best(floor=settings.floor).threshold
        whole = _WholeMovie(job, threshold)
        self._whole = (request.kind, whole)
        return whole

    def _find(self, request: PreviewRequest, job: Job, frame: int) -> _Found:
        from smlm_pb.localization.candidates import as_columns
        from smlm_pb.localization.threshold import ProbabilityHistogram

        known = self._known.get(frame)
        if known is not None and _is_same(request.kind, self._known_for):  # by now
            return known
        with job.find_candidates((frame, frame + 1)) as blocks:
            block = next(blocks)
        table = Localizations(as_columns(block.candidates.rows), job.info)
        found = _Found(placed_in_whole(table, request.region, request.whole), ProbabilityHistogram())
        found.histogram.add(table.probability, block.candidates.expected_unlisted)
        if _is_same(request.kind, self._known_for):
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[frame] = found
        return found

    # -- in the screen's thread ----------------------------------------------------------------------------

    def _show(self, result: PreviewResult) -> None:
        self._result = result
        if self.layer is None:
            self._add(result.candidates.info, self._place or Place())
            self._in_layer.clear()
        if result.frame not in self._in_layer:
            self._fill_layer(result)
        self.shown.emit(PreviewResult(result.frame, self._above_threshold(result), result.expectation))

    def _fill_layer(self, result: PreviewResult) -> None:
        """Give the layer the molecules of a frame, and of all known frames near it."""
        known, whole = {result.frame: result}, self._whole
        for frame in range(result.frame - _NEAR, result.frame + _NEAR + 1):
            near = self._known.get(frame)
            if near is not None and whole is not None and frame != result.frame:
                known[frame] = _result(frame, near, whole[1])
        if not set(known) <= self._in_layer:
            place = self._place or Place()
            table = Localizations.concatenate([self._above_threshold(known[frame]) for frame in sorted(known)])
            self._layer.data = point_coordinates(table, place.ndim, place.frame_axis)
            self._in_layer = set(known)

    def _above_threshold(self, result: PreviewResult) -> Localizations:
        threshold = result.expectation.threshold if self._threshold is None else self._threshold
        return result.candidates.select(result.candidates.probability >= np.float32(threshold))

    def _add(self, info: MovieInfo, place: Place) -> None:
        from napari.layers import Points

        arguments = points_arguments(Localizations.empty(info), place=place, name=_PREVIEW)
        self._layer = Points(**arguments | {"border_color": "#ff9d00", "metadata": {HELPER_KEY: "preview"}})
        insert_quietly(self._viewer, self._layer)


def _is_same(one: tuple[Conditions, str, bool], other: tuple[Conditions, str, bool] | None) -> bool:
    """Whether two requests belong together; conditions hold arrays, and are the same object then."""
    return other is not None and one[0] is other[0] and one[1:] == other[1:]


def _result(frame: int, found: _Found, whole: _WholeMovie) -> PreviewResult:
    """What is shown of a frame."""
    asked = whole.job.settings.threshold
    threshold = whole.threshold if whole.threshold is not None else float(asked)
    expectation = found.histogram.at(threshold, automatic=whole.threshold is not None)
    return PreviewResult(frame, found.candidates, expectation)
