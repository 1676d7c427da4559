"""The window stays alive during a run."""

import time

import numpy as np
import pytest
from panel_driver import CAMERA, LIMIT_MS, open_panel, run_to_the_end, start_and_wait_for_frames

import smlm_pb

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


def test_the_window_stays_alive_during_a_run(panel, viewer, qtbot, monkeypatch):
    """The run cannot end before the window worked off 20 events of its own: were it in the way, both would wait."""
    import threading

    from qtpy.QtCore import QTimer

    beats, lived, waited = [], threading.Event(), []
    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(lambda: (beats.append(panel.is_running), sum(beats) >= 20 and lived.set()))
    real = smlm_pb.localization.localize

    def wait_in_the_middle(*args, on_block, **options):
        def on_block_wait(block):
            on_block(block)
            waited.append(lived.wait(LIMIT_MS / 2000))

        return real(*args, on_block=on_block_wait, **options)

    monkeypatch.setattr("smlm_pb.localization.localize", wait_in_the_middle)
    timer.start()
    run_to_the_end(panel, qtbot)
    timer.stop()
    assert waited
    assert all(waited)
    assert len(panel.results.current.table)


def processor_time_of_one_layer(viewer):
    """Seconds of the processor that napari needs to add an empty layer of points and to draw it; garbage aside."""
    import gc

    from qtpy.QtWidgets import QApplication

    gc.collect()
    gc.disable()
    try:
        began = time.thread_time()
        layer = viewer.add_points(np.zeros((0, 3)))
        for _ in range(5):
            QApplication.processEvents()
        return time.thread_time() - began
    finally:
        gc.enable()
        viewer.layers.remove(layer)


@pytest.mark.parametrize("most_in_place", [60_000, 100])
def test_nothing_holds_up_the_window_from_run_to_the_first_image(
    make_napari_viewer, qtbot, model, monkeypatch, most_in_place
):
    """No step takes half as long as napari needs to add a layer and to draw it: in processor time, on any machine."""
    from qtpy.QtCore import QTimer

    from napari_plugin import molecules
    from napari_plugin.samples import filaments

    monkeypatch.setattr(molecules, "_MOST_IN_PLACE", most_in_place)  # above it, layers are exchanged
    viewer = make_napari_viewer(show=True)
    frames, attributes, _ = filaments()[0]
    viewer.add_image(frames[:40, :64, :64], **attributes)
    panel = open_panel(viewer, model)
    qtbot.waitUntil(lambda: panel.inputs.conditions is not None, timeout=LIMIT_MS)
    panel.camera.set_values(CAMERA)
    run_to_the_end(panel, qtbot, last_frame=2)  # so that everything is imported
    viewer.layers.remove(panel.results.image.layer)  # so that it is added anew
    one_layer = sorted(processor_time_of_one_layer(viewer) for _ in range(3))[1]

    beats, drawn = [], []
    timer = QTimer()
    timer.setInterval(5)
    timer.timeout.connect(lambda: beats.append(time.thread_time()))
    panel.results.image.drawn.connect(drawn.append)
    timer.start()
    qtbot.wait(50)
    run_to_the_end(panel, qtbot, last_frame=39)
    n_drawn = len(drawn)
    qtbot.waitUntil(lambda: len(drawn) > n_drawn, timeout=LIMIT_MS)
    qtbot.wait(200)
    timer.stop()
    assert len(panel.results.current.table) > 100
    longest = np.diff(beats).max()
    assert longest < 0.5 * one_layer, f"{1e3 * longest:.0f} of {1e3 * one_layer:.0f} ms"


def test_python_is_as_it_was_after_a_run(panel, viewer, qtbot):
    import gc
    import sys

    hand_over_s = sys.getswitchinterval()
    run_to_the_end(panel, qtbot, last_frame=3)
    qtbot.waitUntil(lambda: gc.get_freeze_count() == 0, timeout=LIMIT_MS)
    assert sys.getswitchinterval() == hand_over_s
    start_and_wait_for_frames(panel, qtbot, 1)
    assert gc.get_freeze_count() > 0
    viewer.layers.remove("filaments")  # of which napari frees the graphics memory
    assert gc.get_freeze_count() == 0
    qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)
    assert panel.window().updatesEnabled()
