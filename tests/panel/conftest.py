"""The real panel in a real window, with the sample movie or a piece of it."""

import time

import pytest
from hand_made_model import make_model
from panel_driver import end, open_panel, plugin_settings


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("models") / "hand-made"))


@pytest.fixture(autouse=True)
def settings_as_installed():
    """What one test makes the panel remember is unknown to the next one."""
    plugin_settings().reset()


@pytest.fixture
def notes():
    from napari.utils.notifications import notification_manager

    notification_manager.records.clear()
    yield notification_manager.records
    notification_manager.records.clear()


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def sample_panel(viewer, qtbot, model, notes):
    """The panel in a viewer with the sample movie and its truth, the hand-made model chosen."""
    viewer.open_sample("smlm-pb", "filaments_truth")
    widget = open_panel(viewer, model)
    widget.movie.choose(viewer.layers["filaments"])
    yield widget
    end(widget, qtbot)


@pytest.fixture
def panel(viewer, qtbot, model, notes):
    """The panel in a viewer with a small piece of the sample movie: 40 frames of 64×64 px."""
    from napari_plugin.samples import filaments

    frames, attributes, _ = filaments()[0]
    viewer.add_image(frames[:40, :64, :64], **attributes)
    widget = open_panel(viewer, model)
    yield widget
    end(widget, qtbot)


@pytest.fixture
def one_frame_blocks(monkeypatch):
    """Every frame is a block of its own, and takes its time: a run can be caught in the middle."""
    from smlm_pb.localization import localize, pipeline

    monkeypatch.setattr(pipeline, "_CPU_BLOCK_PX", 1)

    def slow(*args, on_block, **options):
        def on_block_slowly(block):
            on_block(block)
            time.sleep(0.03)

        return localize(*args, on_block=on_block_slowly, **options)

    monkeypatch.setattr("smlm_pb.localization.localize", slow)
