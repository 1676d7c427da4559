"""Trains a model from the panel: fills the ranges from the movie, compares frames, follows the run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_plugin.background import Latest
from napari_plugin.image_layers import ASSUMED_PIXEL_SIZE_NM
from napari_plugin.molecules import frame_on_screen
from napari_plugin.movie_layers import Place
from napari_plugin.plot import Curve
from napari_plugin.run_bar import duration
from napari_plugin.training_run import TrainingRun, TrainingState
from napari_plugin.words import in_panel_words
from smlm_pb.errors import ConfigurationError, SmlmPbError

if TYPE_CHECKING:
    from napari_plugin.localize_panel import LocalizePanel
    from smlm_pb.training import Experiment

_log = logging.getLogger(__name__)
_POLL_MS = 1000
_STOPPING = "Stopping: the error bars of the best model so far are calibrated, then it is written. It takes a minute."
#: Measured values are widened by this before a network learns their range.
_PSF_MARGIN, _MARGIN = 1.15, 1.5
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
        self._look = Latest(self._on_look, self._on_look_failed, self)
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self.poll)
        section = panel.training
        section.fill_requested.connect(self.fill)
        section.look_requested.connect(self.look)
        section.train_requested.connect(self.start)
        section.stop_requested.connect(self._on_stop)

    def fill(self) -> None:
        """Take the ranges from what was measured of the movie, and from the molecules that are shown."""
        panel, section, conditions = self._panel, self._panel.training, self._panel.inputs.conditions
        if conditions is None:
            section.note.say("Choose a movie first, and wait until it is measured.", "error")
            return
        sigma, background = conditions.psf_sigma_px, conditions.background_e
        section.psf_sigma_px.set_value(sigma / _PSF_MARGIN, sigma * _PSF_MARGIN)
        section.background_e.set_value(background / _MARGIN, background * _MARGIN)
        said = "PSF width and background were taken from the movie"
        molecules = panel.results.current
        if molecules is not None and molecules.n_shown > 100 and "photons" in molecules.table.column_names:
            dim, bright = np.percentile(molecules.table.photons[molecules.mask], (5, 95))
            section.photons.set_value(dim / _MARGIN, bright * _MARGIN)
            _, counts = np.unique(molecules.table.frame[molecules.mask], return_counts=True)
            info = molecules.table.info
            pixel = info.pixel_size_nm or ASSUMED_PIXEL_SIZE_NM
            area_um2 = info.height * info.width * (pixel / 1000) ** 2
            section.density.set_value(float(f"{_MARGIN * np.percentile(counts, 95) / area_um2:.3g}"))
            said += ", photons and density from the molecules shown"
        else:
            said += "; run once to have photons and density, too"
        section.note.say(f"{said}.")

    def experiment(self) -> Experiment:
        """What the rows say.

        Raises
        ------
        ConfigurationError
            When a row holds something impossible.
        """
        from smlm_pb.training import Experiment

        section = self._panel.training
        faults = section.faults()
        if faults:
            raise ConfigurationError(faults[0])
        scenes: dict[str, Any] = {}
        for name in ("psf_sigma_px", "photons", "background_e"):
            value = getattr(section, name).value()
            if value is not None:
                scenes[name] = list(value)
        density = section.density.value()
        if density is not None:
            conditions = self._panel.inputs.conditions
            pixel = (conditions.pixel_size_nm if conditions else None) or ASSUMED_PIXEL_SIZE_NM
            per_px2 = density * (pixel / 1000) ** 2
            scenes["dense_density_per_px2"] = [per_px2 / 8, per_px2]
            scenes["sparse_density_per_px2"] = [per_px2 / 800, per_px2 / 4]
        steps = section.steps.value()
        content: dict[str, Any] = {
            "name": section.name.text().strip(),
            "description": "Trained in napari for one's own movies",
            "steps": steps,
            "scenes": scenes,
            "validation": {"every_steps": max(1, min(1000, steps // 12))},
        }
        card = self._panel.model.card
        if section.start_from.currentData() and card is not None:
            content |= {"start_from": self._panel.model.model, "network": card.network}
            content["description"] = f"Adapted in napari to one's own movies, from the model '{card.name}'"
        return Experiment.from_dict(content, source="The training tab")

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
            section.look_note.say(in_panel_words(str(error)), "error")
            return
        self._looks += 1
        layer, seed = panel.movie.layer, self._looks
        frame = min(max(0, frame_on_screen(panel.viewer, layer, Place.of_layer(layer))), movie.n_frames - 1)

        def work() -> tuple[Any, Any]:
            from smlm_pb.simulation.scenes import draw_scene

            camera = conditions.camera
            real = camera.to_electrons(movie.read(frame, frame + 1))[0] / camera.excess_noise_factor
            top, left = (max(0, (size - _LOOK_PX) // 2) for size in real.shape)
            return real[top : top + _LOOK_PX, left : left + _LOOK_PX], draw_scene(
                np.random.default_rng(seed), settings, _LOOK_PX
            )

        self._look.submit(work)

    def _on_look(self, answer: tuple[Any, Any]) -> None:
        real, scene = answer
        section = self._panel.training
        section.show_pictures(True)
        for picture, pixels in ((section.real, real), (section.simulated, scene.electrons)):
            picture.show_pixels(pixels, float(np.percentile(pixels, 1)), float(np.percentile(pixels, 99.8)))
        section.look_note.say(
            f"Simulated: {scene.structure}, {len(scene.x)} molecules, σ {scene.psf_sigma_px:.2f} px, background "
            f"{float(np.mean(scene.background)):.3g} e⁻/px. Press again for another one."
        )

    def _on_look_failed(self, error: Exception) -> None:
        if not isinstance(error, SmlmPbError):
            _log.error("The frames could not be compared", exc_info=error)
        self._panel.training.look_note.say(in_panel_words(str(error)), "error")

    # -- the run -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the training."""
        section = self._panel.training
        try:
            experiment = self.experiment()
            run = TrainingRun(experiment, Path(section.folder.text()).expanduser() / experiment.name)
            run.start()
        except SmlmPbError as error:
            section.note.say(in_panel_words(str(error)), "error")
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
            section.note.say(in_panel_words(state.failure), "error")

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
        jaccard = np.array([entry["validation"].get("jaccard") or np.nan for entry in state.history], float)
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
