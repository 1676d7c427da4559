"""Runs that end otherwise: cancelled, failed, or with their layers or their window gone."""

import numpy as np
import pytest
from panel_driver import LIMIT_MS, errors, run_to_the_end, start_and_wait_for_frames

import smlm_pb

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


def test_cancel_keeps_what_is_there_and_says_so(panel, viewer, qtbot, notes, one_frame_blocks):
    start_and_wait_for_frames(panel, qtbot)
    qtbot.waitUntil(lambda: panel.runs._points is not None, timeout=LIMIT_MS)
    viewer.dims.set_current_step(0, 1)
    growing = panel.runs._points.layer
    assert len(growing.data) > 0  # finished frames show their molecules during the run
    assert set(growing.data[:, 0]) == {1.0}
    assert panel.run_bar.cancel_button.isVisibleTo(panel)
    qtbot.waitUntil(lambda: "frames/s" in panel.run_bar.timing.text(), timeout=LIMIT_MS)
    done = panel.runs._job.progress().done
    panel.run_bar.cancel_button.click()
    assert panel.run_bar.cancel_button.text() == "Cancelling …"
    qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)
    assert panel.results.current.table.frame.max() < done + 10  # blocks on their way are finished, no more
    assert "Cancelled" in panel.run_bar.status.text()
    molecules = panel.results.current
    assert [layer.name for layer in viewer.layers].count("molecules of filaments") == 1
    assert growing is molecules.layer  # so few are put into the layer that is there
    assert 2 < molecules.table.frame.max() < 39
    assert not panel.run_bar.cancel_button.isVisibleTo(panel)
    assert errors(notes) == []


def test_cancelling_before_the_first_frame_ends_at_once(panel, viewer, qtbot, monkeypatch):
    """The library is held up until the panel is free again."""
    import threading

    free = threading.Event()
    real = smlm_pb.localization.localize

    def slow(*args, **options):
        assert free.wait(LIMIT_MS / 1000)
        return real(*args, **options)

    monkeypatch.setattr("smlm_pb.localization.localize", slow)
    panel.run_bar.run_button.click()
    qtbot.waitUntil(lambda: panel.runs._worker is not None, timeout=LIMIT_MS)
    panel.run_bar.cancel_button.click()
    qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)
    worker_runs = not free.is_set()
    free.set()
    assert worker_runs
    assert "Cancelled before the first frame" in panel.run_bar.status.text()
    qtbot.waitUntil(lambda: [layer.name for layer in viewer.layers] == ["filaments"], timeout=LIMIT_MS)
    assert panel.molecules.layer is None
    molecules = run_to_the_end(panel, qtbot, last_frame=5)
    assert molecules.n_shown > 10


def test_a_failing_run_gives_one_clear_notification(panel, qtbot, notes, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr("smlm_pb.localization.localize", broken)
    panel.run_bar.run_button.click()
    qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)
    qtbot.wait(100)
    assert len(errors(notes)) == 1
    assert "the disk is on fire" in errors(notes)[0]
    assert panel.run_bar.run_button.isVisibleTo(panel)
    assert "Traceback" in caplog.text  # for the log, not for the user

    monkeypatch.setattr("smlm_pb.localization.localize", lambda *a, **k: pytest.fail("never called"))
    panel.model.names.addItem("gone", "/no/such/model")
    panel.model.choose("/no/such/model")


def test_deleting_the_movie_or_the_points_during_a_run_is_harmless(panel, viewer, qtbot, notes, one_frame_blocks):
    panel.search.last_frame.set_value(25)
    start_and_wait_for_frames(panel, qtbot)
    qtbot.waitUntil(lambda: panel.runs._points is not None, timeout=LIMIT_MS)
    viewer.layers.remove(panel.runs._points.layer)
    viewer.layers.remove("filaments")
    qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)
    molecules = panel.results.current
    assert molecules.layer in viewer.layers
    assert molecules.table.frame.max() == 25
    np.testing.assert_allclose(molecules.layer.scale, (1, 0.1, 0.1))
    assert errors(notes) == []


def test_closing_the_panel_or_the_window_during_a_run_ends_the_run(panel, viewer, qtbot, notes, one_frame_blocks):
    start_and_wait_for_frames(panel, qtbot)
    job = panel.runs._job
    viewer.close()
    qtbot.waitUntil(lambda: job.result is not None or job.failure is not None, timeout=LIMIT_MS)
    assert job.result is not None
    assert job.result.stopped


def test_removing_the_panel_during_a_run_ends_the_run(panel, viewer, qtbot, notes, one_frame_blocks):
    start_and_wait_for_frames(panel, qtbot)
    job = panel.runs._job
    viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(lambda: job.result is not None, timeout=LIMIT_MS)
    assert job.result.stopped
    viewer.add_image(np.zeros((4, 16, 16)))  # nobody listens any more
    viewer.dims.set_current_step(0, 1)
    viewer.theme = "light"
    assert errors(notes) == []


def test_a_panel_that_is_gone_leaves_no_threads_and_no_timers(panel, viewer, qtbot):
    import threading

    run_to_the_end(panel, qtbot, last_frame=5)
    panel.search.live_preview.setChecked(True)
    panel.analysis.quality_button.click()
    panel.image.pixel_size_nm.setValue(30)
    timers = [panel.runs._timer, panel.results.image._timer, panel.inputs.survey._timer, panel.trainings._timer]
    viewer.window.remove_dock_widget("all")
    assert not any(timer.isActive() for timer in timers)

    def ours():
        return [thread for thread in threading.enumerate() if thread.name.startswith("smlm-pb")]

    qtbot.waitUntil(lambda: not ours(), timeout=LIMIT_MS)
    for emitter in (viewer.dims.events.current_step, viewer.layers.events.removed, viewer.events.theme):
        assert "napari_plugin" not in str(emitter.callbacks)


def test_taking_the_movie_away_ends_the_preview(panel, viewer, qtbot, notes):
    """napari goes to another frame while it takes the movie away, and that frame is known already."""
    panel.search.live_preview.setChecked(True)
    for frame in (5, 0, 5):
        viewer.dims.set_current_step(0, frame)
        qtbot.waitUntil(lambda frame=frame: f"Frame {frame}:" in panel.search.preview_note.text(), timeout=LIMIT_MS)
    viewer.layers.clear()
    qtbot.wait(100)
    assert list(viewer.layers) == []
    assert errors(notes) == []


def test_a_panel_that_is_opened_again_goes_on_where_it_was(panel, viewer, qtbot, notes):
    found = run_to_the_end(panel, qtbot, last_frame=5)
    qtbot.waitUntil(lambda: panel.results.image.rendering is not None, timeout=LIMIT_MS)
    n_shown, names = found.n_shown, [layer.name for layer in viewer.layers]
    viewer.window.remove_dock_widget("all")
    _, again = viewer.window.add_plugin_dock_widget("smlm-pb", "Localize molecules")
    assert again.molecules.layer is found.layer
    assert again.results.current.n_shown == n_shown
    qtbot.waitUntil(lambda: again.results.image.rendering is not None, timeout=LIMIT_MS)
    assert [layer.name for layer in viewer.layers] == names  # no second image over the first one
    assert errors(notes) == []
