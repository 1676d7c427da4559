"""What the panel asks for: the chosen movie and its region, the settings, what is measured, the live preview."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_plugin.localize_job import RunRequest
from napari_plugin.molecules import frame_on_screen
from napari_plugin.movie_layers import (
    Place,
    Region,
    movie_of_layer,
    pixel_size_of_source,
    region_of_shapes,
    why_no_movie,
)
from napari_plugin.settings import remember, remembered
from napari_plugin.survey import Preview, PreviewRequest, PreviewResult, Survey
from smlm_pb.errors import ConfigurationError, MovieError, SmlmPbError

if TYPE_CHECKING:
    from napari_plugin.localize_panel import LocalizePanel
    from smlm_pb.localization import Conditions, JobSettings
    from smlm_pb.localizations import MovieInfo
    from smlm_pb.movies import Movie

_log = logging.getLogger(__name__)


class Inputs(QObject):
    """Reads the panel's rows, and keeps what is measured and previewed in step with them.

    Parameters
    ----------
    panel : LocalizePanel
        Whose rows.
    """

    movie_changed = Signal()

    def __init__(self, panel: LocalizePanel) -> None:
        super().__init__(panel)
        self._panel = panel
        self._viewer = panel.viewer
        self._source_pixel_size: dict[str, float | None] = {}
        self._emitters: tuple[Any, ...] = ()
        self.conditions: Conditions | None = None
        self.survey = Survey(self._on_measured, self._on_measuring_failed, self)
        self.preview = Preview(self._viewer, self._on_preview_failed, self)
        self.preview.shown.connect(self._on_previewed)
        panel.movie.layer_changed.connect(self._on_movie)
        panel.camera.changed.connect(self.measure)
        panel.model.changed.connect(self.measure)
        panel.search.changed.connect(self.measure)
        panel.search.live_preview.setChecked(bool(remembered("localization", "live_preview")))
        panel.search.live_preview.toggled.connect(self._on_live)
        panel.search.draw_requested.connect(self._on_draw)
        for section in (panel.camera, panel.model, panel.search):
            section.changed.connect(panel.run_bar.forget_error)  # it was about what has been changed
        panel.search.threshold.threshold_changed.connect(self._on_threshold)
        self._viewer.dims.events.current_step.connect(self._on_step)

    # -- what is asked for ---------------------------------------------------------------------------------

    @property
    def layer(self) -> Any:
        """The chosen movie layer, or None."""
        return self._panel.movie.layer

    @property
    def pixel_size_nm(self) -> float | None:
        """Edge of a camera pixel in the sample: as typed, else as the movie tells."""
        typed: float | None = self._panel.camera.pixel_size_nm.value()
        return typed or (None if self.conditions is None else self.conditions.pixel_size_nm)

    def movie(self) -> tuple[Movie, Region | None, MovieInfo | None]:
        """The movie, cut to the region; the region; the whole movie where it was cut.

        Raises
        ------
        MovieError
            When there is none, or the layer is no movie.
        """
        layer = self.layer
        if layer is None:
            raise MovieError("There is no movie: open one, then choose its layer in the panel.")
        whole = movie_of_layer(layer)
        region = None if self._panel.search.region.layer is None else self._region()
        movie = whole if region is None else movie_of_layer(layer, region)
        movie.pixel_size_nm = whole.pixel_size_nm = whole.pixel_size_nm or self._pixel_size_of_file(layer)
        return movie, region, None if region is None else whole.info

    def settings(self, n_frames: int) -> JobSettings:
        """What the rows say.

        Raises
        ------
        ConfigurationError
            When a row holds something impossible.
        """
        from smlm_pb.localization import JobSettings

        fault = self._panel.camera.fault() or self._panel.search.fault()
        if fault is not None:
            raise ConfigurationError(fault)
        threshold = self._panel.search.threshold.threshold
        return JobSettings(
            **self._panel.camera.values(),  # type: ignore[arg-type]
            psf_sigma_px=self._panel.search.psf_sigma_px.value(),
            frames=self._panel.search.frames(n_frames),
            threshold="auto" if threshold is None else threshold,
        )

    def run_request(self) -> RunRequest:
        """Everything a run needs.

        Raises
        ------
        SmlmPbError
            When something is missing or impossible.
        """
        movie, region, whole = self.movie()
        settings = self.settings(movie.n_frames)
        if not self._panel.model.model:
            raise ConfigurationError("There is no model: choose the folder of one, or train one with 'smlm-pb train'.")
        options = {
            "model": self._panel.model.model,
            **self._panel.camera.values(),
            "psf_sigma_px": settings.psf_sigma_px,
            "frames": settings.frames,
            "threshold": settings.threshold,
            "refine": str(self._panel.search.refine.currentData()),
        }
        return RunRequest(movie, options, region, whole, self._panel.image.pixel_size_nm.value())

    def _region(self) -> Region:
        shapes = self._panel.search.region.layer
        region = region_of_shapes(shapes, self.layer)
        if region is None:
            raise ConfigurationError(
                f"Layer '{shapes.name}' has no rectangle on the movie: draw one, or choose the whole frame as region."
            )
        return region

    def _pixel_size_of_file(self, layer: Any) -> float | None:
        path = str(getattr(getattr(layer, "source", None), "path", "") or "")
        if path and path not in self._source_pixel_size:
            self._source_pixel_size[path] = pixel_size_of_source(layer)[0]
        return self._source_pixel_size.get(path)

    # -- what is measured ----------------------------------------------------------------------------------

    def measure(self) -> None:
        """Measure camera and PSF width anew, soon; then preview."""
        panel = self._panel
        self.conditions = None
        card = panel.model.card
        if self.layer is None or card is None or why_no_movie(self.layer) is not None:
            self.survey.forget()
            panel.camera.show_measured({})
            panel.search.psf_sigma_px.set_measured(None)
            panel.camera.check.say("")
            return
        region = panel.search.region.layer
        if region is not None and not len(region.data):
            self.survey.forget()
            panel.camera.check.say("Draw a rectangle on the movie, or choose the whole frame as region.")
            return
        try:
            movie, _, _ = self.movie()
            self.survey.request(movie, self.settings(movie.n_frames), card)
        except SmlmPbError as error:
            self.survey.forget()
            panel.camera.check.say(str(error), "error")

    def _on_measured(self, conditions: Conditions) -> None:
        panel = self._panel
        self.conditions = conditions
        camera = conditions.camera
        values: dict[str, float] = {"offset_adu": _number(camera.offset_adu), "e_per_adu": _number(camera.e_per_adu)}
        if camera.em_gain > 1:
            values["em_gain"] = camera.em_gain
        if "read_noise_e" in conditions.origin:
            values["read_noise_e"] = _number(camera.read_noise_e)
        if conditions.pixel_size_nm is not None:
            values["pixel_size_nm"] = conditions.pixel_size_nm
        panel.camera.show_measured(values, {**conditions.origin, "pixel_size_nm": "from the movie"})
        panel.search.psf_sigma_px.set_measured(
            conditions.psf_sigma_px, conditions.origin.get("psf_sigma_px", "measured")
        )
        panel.camera.check.say("\n".join(conditions.warnings), "warning")
        panel.model.set_pixel_size(conditions.pixel_size_nm)
        self.request_preview()

    def _on_measuring_failed(self, error: Exception) -> None:
        if not isinstance(error, SmlmPbError):
            _log.error("The movie could not be measured", exc_info=error)
        self._panel.camera.check.say(str(error), "error")

    # -- live preview --------------------------------------------------------------------------------------

    def request_preview(self) -> None:
        """Localize the frame on the screen, where that is wanted and possible."""
        panel = self._panel
        if not panel.search.live_preview.isChecked() or self.conditions is None or panel.is_running:
            return
        try:
            movie, region, whole = self.movie()
            settings = self.settings(movie.n_frames)
        except SmlmPbError as error:
            panel.search.preview_note.say(str(error), "error")
            return
        place = Place.of_layer(self.layer)
        frame = frame_on_screen(self._viewer, self.layer, place)
        if not 0 <= frame < movie.n_frames or not panel.model.model:
            return
        request = PreviewRequest(movie, panel.model.model, settings, self.conditions, frame, region, whole)
        self.preview.request(request, place, panel.search.threshold.threshold)

    def _on_live(self, wanted: bool) -> None:
        remember("localization", "live_preview", wanted)
        if wanted:
            self._panel.search.preview_note.say("Loading the model …")
            self.request_preview()
        else:
            self._panel.search.preview_note.say("")
            self.preview.end()

    def _on_draw(self) -> None:
        try:
            movie = movie_of_layer(self.layer) if self.layer is not None else self.movie()[0]
        except SmlmPbError as error:
            self._panel.fail(error)
            return
        self._panel.search.draw_on(Place.of_layer(self.layer), (movie.height, movie.width))

    def _on_threshold(self, threshold: float | None) -> None:
        self.preview.set_threshold(threshold)
        self.request_preview()  # an automatic threshold also leaves out what a run would

    def _on_previewed(self, result: PreviewResult) -> None:
        panel = self._panel
        if not panel.search.live_preview.isChecked():
            return
        molecules = result.candidates
        parts = [f"Frame {result.frame}: {len(molecules)} molecules"]
        if len(molecules):
            import numpy as np

            sigma = float(np.median(np.sqrt((molecules.sigma_x**2 + molecules.sigma_y**2) / 2)))
            pixel = molecules.info.pixel_size_nm
            parts.append(f"precision {sigma:.2f} px" if pixel is None else f"precision {sigma * pixel:.0f} nm")
        if panel.search.threshold.threshold is None:
            if panel.results.current is None:
                panel.search.threshold.set_best(result.expectation.threshold)
            parts.append(f"threshold {result.expectation.threshold:.2f}")
            if result.expectation.jaccard is not None:
                parts.append(f"expected Jaccard {result.expectation.jaccard:.2f}")
        panel.search.preview_note.say(", ".join(parts))

    def _on_preview_failed(self, error: Exception) -> None:
        if not isinstance(error, SmlmPbError):
            _log.error("The preview failed", exc_info=error)
        self._panel.search.preview_note.say(str(error), "error")

    # -- events --------------------------------------------------------------------------------------------

    def _listen_to(self, layer: Any) -> None:
        """The pixel size is the layer's scale, which may be set at any time, as may its data."""
        for emitter in self._emitters:
            emitter.disconnect(self._on_altered)
        events = None if layer is None else layer.events
        self._emitters = () if events is None else (events.scale, events.units, events.data)
        for emitter in self._emitters:
            emitter.connect(self._on_altered)

    def _on_altered(self, event: Any = None) -> None:
        if self.layer is not None:
            self._on_movie(self.layer)

    def _on_movie(self, layer: Any) -> None:
        panel = self._panel
        self._listen_to(layer)
        why = None if layer is None else why_no_movie(layer)
        panel.show_movie_fault(why)
        self.preview.end()
        if layer is not None and why is None:
            # Otherwise napari averages the frames as soon as a thicker slice is shown.
            layer.projection_mode = "none"
            # Here, because drawing its letters for the first time takes a while: not in the middle of a run.
            self._viewer.canvas.overlays.scale_bar.visible = True
        self.measure()
        self.movie_changed.emit()

    def _on_step(self, event: Any = None) -> None:
        if self.layer in self._viewer.layers:  # napari also steps while it takes the movie away
            self.request_preview()

    def close(self) -> None:
        """Let go of the viewer."""
        self.survey.close()
        self.preview.close()
        self._listen_to(None)
        self._viewer.dims.events.current_step.disconnect(self._on_step)


def _number(value: Any) -> float:
    import numpy as np

    return float(np.median(value))
