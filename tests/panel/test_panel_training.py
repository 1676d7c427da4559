"""The tab Train."""

import pytest
from hand_made_model import make_model
from panel_driver import LIMIT_MS

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


def test_ranges_are_filled_and_a_trained_model_is_chosen(panel, qtbot, monkeypatch, tmp_path):
    from napari_plugin import panel_training
    from napari_plugin.training_run import TrainingState
    from smlm_pb.training import propose_like

    section, history = panel.training, [{"step": 100, "loss": {"total": 9.0}, "validation": {"jaccard": 0.6}}]
    qtbot.waitUntil(lambda: panel.inputs.conditions is not None, timeout=LIMIT_MS)
    told = []

    def propose(*args, **options):
        told.append(propose_like(*args, **options))
        return told[-1]

    monkeypatch.setattr("smlm_pb.training.propose_like", propose)
    section.measure.button.click()
    assert section.measure.cancel_button.isVisibleTo(section)
    qtbot.waitUntil(lambda: "molecules" in section.look_note.text(), timeout=LIMIT_MS)  # real and simulated, at once
    assert section.simulated.isVisibleTo(section)
    section.grab()

    # What the library proposes for this movie and this model is what is trained.
    (likeness,) = told
    assert str(likeness.measure.found.molecules) in section.measure.note.text()
    assert "simulated" in section.measure.note.text()
    assert all(warning[:40] in section.warnings.text() for warning in likeness.warnings)
    low, high = section.psf_sigma_px.value()
    assert low < panel.inputs.conditions.psf_sigma_px < high
    experiment = panel.trainings.experiment()
    assert experiment.start_from == panel.model.model == likeness.experiment.start_from
    assert experiment.scene_settings() == likeness.scenes.settings
    assert experiment.learning_rate == likeness.experiment.learning_rate
    assert (experiment.name, experiment.steps) == (section.name.text(), section.steps.value())
    section.density.set_value(3.0)  # what is typed wins
    assert panel.trainings.experiment().scene_settings().dense_density_per_px2[1] == pytest.approx(0.03)
    section.start_from.setCurrentIndex(0)
    assert panel.trainings.experiment().start_from is None
    panel.movie.choose(None)  # of another movie, nothing is known
    assert section.measure.note.text() == ""
    panel.movie.choose(panel.viewer.layers["filaments"])
    assert panel.trainings.experiment().like is None

    section.photons.set_value(5000, 100)
    section.train_button.click()
    assert "photons" in section.note.text()  # from bright to dim is no range
    section.photons.set_value(100, 5000)
    states = [
        TrainingState(100, 1500, 60.0, history, running=True),
        TrainingState(1500, 1500, 0.0, history * 2, model=make_model(tmp_path / "mine", name="mine")),
    ]

    class Run:
        def __init__(self, experiment, folder):
            assert experiment.steps == section.steps.value()

        def start(self):
            pass

        def state(self):
            return states.pop(0)

    monkeypatch.setattr(panel_training, "TrainingRun", Run)
    section.train_button.click()
    panel.trainings.poll()
    assert "0.60" in section.note.text()
    assert section.stop_button.isVisibleTo(section)
    section.grab()
    panel.trainings.poll()
    assert panel.model.model == str(tmp_path / "mine")
    assert section.train_button.isVisibleTo(section)


def test_a_training_needs_a_folder(panel):
    panel.training.folder.setText(" ")
    panel.training.train_button.click()
    assert "no folder" in panel.training.note.text()
    assert panel.training.train_button.isVisibleTo(panel.training)


def test_a_training_is_watched_and_stopped_and_its_best_model_is_chosen(panel, qtbot, monkeypatch, tmp_path):
    """The real thing, with a network of a few weights."""
    from napari_plugin import panel_training
    from smlm_pb.training import Experiment

    tiny = Experiment.from_dict(
        {
            "name": "tiny",
            "steps": 100_000,
            "batch_size": 1,
            "crop_px": 16,
            "workers": 0,
            "network": {"channels": 4, "blocks": 1},
            "validation": {"every_steps": 3, "scenes": 2},
        }
    )
    section = panel.training
    section.folder.setText(str(tmp_path))
    monkeypatch.setattr(panel.trainings, "experiment", lambda: tiny)
    monkeypatch.setattr(panel_training, "_POLL_MS", 50)
    section.train_button.click()
    qtbot.waitUntil(
        lambda: section.plot.isVisibleTo(section) and section.loss_plot.isVisibleTo(section), timeout=LIMIT_MS
    )
    qtbot.waitUntil(lambda: "Jaccard" in section.note.text(), timeout=LIMIT_MS)
    section.grab()
    section.stop_button.click()
    assert "Stopping" in section.note.text()
    qtbot.waitUntil(lambda: section.train_button.isVisibleTo(section), timeout=LIMIT_MS)
    assert "is ready" in section.note.text()
    assert panel.model.model == str(tmp_path / "tiny" / "tiny")
    assert panel.model.names.currentText() == "tiny"
