"""Trains a model from the panel: fills the ranges from the movie, compares frames, follows the run."""

from __future__ import annotations

import logging
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_plugin.background import Latest
from napari_plugin.image_layers import ASSUMED_PIXEL_SIZE_NM
from napari_plugin.long_task import OnProgress, ShouldStop
from napari_plugin.molecules import frame_on_screen
from napari_plugin.movie_layers import Place
from napari_plugin.plot import Curve
from napari_plugin.run_bar import duration
from napari_plugin.training_run import TrainingRun, TrainingState
from smlm_pb.errors import ConfigurationError, SmlmPbError

if TYPE_CHECKING:
    from napari_plugin.localize_panel import LocalizePanel
    from smlm_pb.training import Experiment, Likeness

_log = logging.getLogger(__name__)
_POLL_MS = 1000
_STOPPING = "Stopping: the error bars of the best model so far are calibrated, then it is written. It takes a minute."
#: Rows that are ranges of the scenes, under the names that the library gives them.
_RANGES = ("psf_sigma_px", "photons", "background_e")
#: What the rows of the tab Localize tell the measurement.
_MEASURE_OPTIONS = ("offset_adu", "e_per_adu", "em_gain", "psf_sigma_px", "frames")
#: Side of the frames that are compared.
_LOOK_PX = 48


class Training(QObject):
    """The training tab at work.

    Parameters
    ----------
    panel : LocalizePanel
        Whose rows.
    """

    def __init__(self, panel: LocalizePanel) -> None:
        super().__init__(panel)
        self._panel = panel
        self._run: TrainingRun | None = None
        self._looks = 0
        self._likeness: Likeness | None = None
        self._filled_density: float | None = None
        self._look = Latest(self._on_look, self._on_look_failed, self)
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self.poll)
        section = panel.training
        section.measure.requested.connect(self.fill)
        panel.movie.layer_changed.connect(lambda _layer: self._forget_likeness())
        panel.model.changed.connect(self._forget_likeness)
        section.look_requested.connect(self.look)
        section.train_requested.connect(self.start)
        section.stop_requested.connect(self._on_stop)

    # -- what the movie is like ------------------------------------------------------------------------------

    def fill(self) -> None:
        """Measure the movie with the chosen model, and fill the ranges with scenes in which it finds the same."""
        section = self._panel.training
        try:
            request = self._panel.inputs.run_request()
        except SmlmPbError as error:
            section.measure.note.say(str(error), "error")
            return
        given = {name: value for name, value in request.options.items() if name in _MEASURE_OPTIONS}
        start, name, steps = self._panel.model.model, section.name.text().strip(), section.steps.value()

        def work(on_progress: OnProgress, should_stop: ShouldStop) -> Likeness:
            from smlm_pb.training import propose_like

            return propose_like(
                request.movie,
                start=start,
                name=name or None,
                steps=steps,
                **given,
                on_progress=on_progress,
                should_stop=should_stop,
            )

        self._forget_likeness()
        section.measure.run(work, self._on_measured)

    def _on_measured(self, likeness: Likeness) -> None:
        section, settings = self._panel.training, likeness.scenes.settings
        for name in _RANGES:
            getattr(section, name).set_value(*getattr(settings, name))
        density = settings.dense_density_per_px2[1] / self._pixel_area_um2()
        section.density.set_value(float(f"{density:.3g}"))
        self._likeness, self._filled_density = likeness, section.density.value()
        section.measure.note.say(describe_likeness(likeness, self._pixel_area_um2()))
        section.warnings.say("\n".join(likeness.warnings), "warning")
        self.look()

    def _forget_likeness(self) -> None:
        """Movie or model are others now: what was measured does not hold for them."""
        section = self._panel.training
        self._likeness = None
        section.measure.forget()
        section.warnings.say("")

    def _pixel_area_um2(self) -> float:
        conditions = self._panel.inputs.conditions
        pixel = (conditions.pixel_size_nm if conditions else None) or ASSUMED_PIXEL_SIZE_NM
        return float((pixel / 1000) ** 2)

    def experiment(self) -> Experiment:
        """What the rows say; what they do not name is as it was measured, or the library's default.

        Raises
        ------
        ConfigurationError
            When a row holds something impossible.
        """
        from smlm_pb.training import Experiment

        section, card, likeness = self._panel.training, self._panel.model.card, self._likeness
        faults = section.faults()
        if faults:
            raise ConfigurationError(faults[0])
        measured: dict[str, Any] = {} if likeness is None else likeness.experiment.model_dump(mode="json")
        steps = section.steps.value()
        content: dict[str, Any] = {
            "name": section.name.text().strip(),
            "description": "Trained in napari for one's own movies",
            "steps": steps,
            "scenes": self._scenes(measured.get("scenes", {})),
            "validation": {"every_steps": max(1, min(1000, steps // 12))},
        }
        if not section.start_from.currentData() or card is None:
            content |= {"like": measured.get("like")}
        elif measured:
            content = {**measured, **content, "description": measured["description"]}
            content["validation"] = {**measured["validation"], **content["validation"]}
        else:
            content |= {"start_from": self._panel.model.model, "network": card.network}
            content["description"] = f"Adapted in napari to one's own movies, from the model '{card.name}'"
        return Experiment.from_dict(content, source="The training tab")

    def _scenes(self, measured: dict[str, Any]) -> dict[str, Any]:
        """The range of scenes: as measured, with what the rows say in its place."""
        section, scenes = self._panel.training, dict(measured)
        for name in _RANGES:
            value = getattr(section, name).value()
            if value is not None:
                scenes[name] = list(value)
        density = section.density.value()
        if density is not None and not (measured and density == self._filled_density):
            per_px2 = density * self._pixel_area_um2()
            scenes["dense_density_per_px2"] = [per_px2 / 8, per_px2]
            scenes["sparse_density_per_px2"] = [per_px2 / 800, per_px2 / 4]
        return scenes

    # -- real and simulated --------------------------------------------------------------------------------

    def look(self) -> None:
        """Show a real frame beside a simulated one."""
        panel, section = self._panel, self._panel.training
        conditions = panel.inputs.conditions
        if conditions is None:
            section.look_note.say("Choose a movie first, and wait until it is measured.", "error")
            return
        try:
            settings = self.experiment().scene_settings()
            movie, _, _ = panel.inputs.movie()
        except SmlmPbError as error:
            section.look_note.say(str(error), "error")
            return
        self._looks += 1
        layer, seed = panel.movie.layer, self._looks
        frame = min(max(0, frame_on_screen(panel.viewer, layer, Place.of_layer(layer))), movie.n_frames - 1)

        def work() -> tuple[Any, Any]:
            from smlm_pb.training.like_scenes import draw_like

            camera = conditions.camera
            real = camera.to_electrons(movie.read(frame, frame + 1))[0] / camera.excess_noise_factor
            top, left = (max(0, (size - _LOOK_PX) // 2) for size in real.shape)
            (scene,) = draw_like(settings, count=1, size_px=_LOOK_PX, seed=seed)
            return real[top : top + _LOOK_PX, left : left + _LOOK_PX], scene

        self._look.submit(work)

    def _on_look(self, answer: tuple[Any, Any]) -> None:
        real, scene = answer
        section = self._panel.training
        section.show_pictures(True)
        low, high = (float(value) for value in np.percentile(real, (1, 99.8)))
        for picture, pixels in ((section.real, real), (section.simulated, scene.electrons)):
            picture.show_pixels(pixels, low, max(high, low + 1))  # both alike, so that they can be compared
        section.look_note.say(
            f"In the same grey scale. Simulated: {scene.structure}, {len(scene.x)} molecules, "
            f"σ {scene.psf_sigma_px:.2f} px, background {float(np.mean(scene.background)):.3g} e⁻/px. "
            "Press again for another one."
        )
        self._panel.reveal(section.look_note)

    def _on_look_failed(self, error: Exception) -> None:
        if not isinstance(error, SmlmPbError):
            _log.error("The frames could not be compared", exc_info=error)
        self._panel.training.look_note.say(str(error), "error")

    # -- the run -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the training."""
        section = self._panel.training
        try:
            experiment = self.experiment()
            if not section.folder.text().strip():
                raise ConfigurationError("There is no folder for the new model: give one in the row Folder.")
            run = TrainingRun(experiment, Path(section.folder.text()).expanduser() / experiment.name)
            run.start()
        except SmlmPbError as error:
            section.note.say(str(error), "error")
            return
        self._run = run
        section.note.say("Starting …")
        section.set_running(True)
        self._timer.start()

    def poll(self) -> None:
        """Show how far the training is."""
        if self._run is None:
            return
        section, state = self._panel.training, self._run.state()
        self._show(state)
        if state.running:
            return
        self._timer.stop()
        self._run = None
        section.set_running(False)
        if state.model is not None:
            self._panel.model.add_folder(str(state.model))
            section.note.say(
                f"The model '{state.model.name}' is ready, and chosen in the tab Localize. {_describe_best(state)}.\n"
                f"{state.model}"
            )
        else:
            section.note.say(state.failure, "error")

    def _show(self, state: TrainingState) -> None:
        section = self._panel.training
        if state.done:
            section.progress.setRange(0, state.total)
            section.progress.setValue(state.done)
            section.progress.setFormat(f"{state.done} / {state.total} steps")
            left = "" if state.seconds_left is None else f", {duration(state.seconds_left)} left"
            if section.stop_button.isEnabled():
                section.note.say(f"{_describe_best(state)}{left}".lstrip(", "))
        steps = np.array([entry["step"] for entry in state.history], float)
        # None, where nothing could be judged, becomes NaN.
        jaccard = np.array([entry["validation"].get("jaccard") for entry in state.history], float)
        loss = np.array([entry["loss"].get("total", np.nan) for entry in state.history], float)
        section.plot.show_curves([Curve("", steps, jaccard)])
        section.loss_plot.show_curves([Curve("", steps, loss)])

    def _on_stop(self) -> None:
        if self._run is not None:
            self._run.stop()
            self._panel.training.stop_button.setEnabled(False)
            self._panel.training.note.say(_STOPPING)

    def close(self) -> None:
        """The panel ends: end the training too; it keeps the best model so far."""
        self._look.close()
        self._panel.training.measure.close_task()
        if self._run is not None:
            self._run.stop()
        self._timer.stop()


def _describe_best(state: TrainingState) -> str:
    """The best score so far, and that of the model that the training began with."""
    scores = {entry["step"]: entry["validation"].get("jaccard") or 0.0 for entry in state.history}
    if not scores:
        return ""
    best = f"Best Jaccard index so far {max(scores.values()):.2f}"
    return f"{best} (at the start {scores[0]:.2f})" if 0 in scores else best


def describe_likeness(likeness: Likeness, pixel_area_um2: float) -> str:
    """What the model finds in the movie and in simulated frames, as a small HTML table.

    Parameters
    ----------
    likeness : Likeness
        What was measured.
    pixel_area_um2 : float
        Area of a camera pixel.
    """
    movie, simulated, width = likeness.measure.found, likeness.scenes.found, likeness.measure.conditions.psf_sigma_px
    pairs = (
        ("Photons [e⁻]", movie.photons, simulated.photons, 1.0),
        ("Background [e⁻/px]", movie.background_e, simulated.background_e, 1.0),
        ("Density [/µm²]", movie.density_per_px2, simulated.density_per_px2, 1 / pixel_area_um2),
    )
    cells = [("", "movie", "simulated")]
    cells += [(name, _spread(one, factor), _spread(other, factor)) for name, one, other, factor in pairs]
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}&nbsp; </td>' for cell in row)}</tr>" for row in cells)
    return (
        f"<table>{rows}</table>Median (5 % to 95 %) of {movie.molecules} molecules in {movie.frames} frames, found by "
        f"model '{escape(likeness.start)}' in both. PSF width {width:.3g} ± {likeness.measure.psf_error_px:.1g} px; "
        f"the molecules lie as: {escape(movie.arrangement)}."
    )


def _spread(values: tuple[float, float, float], factor: float) -> str:
    """Median and range, in numbers without exponents."""
    low, middle, high = (f"{float(f'{factor * value:.3g}'):g}" for value in values)
    return f"{middle} ({low}–{high})"
