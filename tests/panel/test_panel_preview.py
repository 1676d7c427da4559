"""The live preview."""

import numpy as np
import pytest
from hand_made_model import PSF_SIGMA_PX, make_movie
from panel_driver import CAMERA, LIMIT_MS, open_panel, run_to_the_end

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


def test_live_preview_follows_the_frame_and_the_threshold(panel, viewer, qtbot):
    panel.search.live_preview.setChecked(True)
    shown = []
    panel.inputs.preview.shown.connect(shown.append)
    qtbot.waitUntil(lambda: bool(shown), timeout=LIMIT_MS)
    for frame in (3, 4, 5, 6, 20):
        viewer.dims.set_current_step(0, frame)
    qtbot.waitUntil(lambda: shown[-1].frame == 20, timeout=LIMIT_MS)
    layer = panel.inputs.preview.layer
    assert len(layer._view_data) == len(shown[-1].candidates) > 0
    assert "Frame 20:" in panel.search.preview_note.text()
    assert viewer.layers.selection.active == viewer.layers["filaments"]
    n = len(layer._view_data)
    panel.search.threshold.spin.setValue(0.999)
    assert len(layer._view_data) < n
    panel.search.live_preview.setChecked(False)
    assert panel.inputs.preview.layer is None
    assert panel.molecules.layer is None  # a preview is nothing to filter or to save


def test_live_preview_localizes_the_next_frames_ahead_and_remembers(panel, viewer, qtbot):
    viewer.dims.set_current_step(0, 10)
    panel.search.live_preview.setChecked(True)
    preview, shown = panel.inputs.preview, []
    preview.shown.connect(lambda result: shown.append(result.frame))
    qtbot.waitUntil(lambda: {10, 11, 12, 13, 14} <= set(preview._known), timeout=LIMIT_MS)
    assert set(shown) == {10}  # what is ahead is not on the screen
    qtbot.waitUntil(lambda: {10, 11, 12, 13, 14} <= set(preview.layer.data[:, 0]), timeout=LIMIT_MS)
    data = preview.layer.data
    viewer.dims.set_current_step(0, 11)
    assert shown[-1] == 11  # at once, and
    assert preview.layer.data is data  # without a new layer's worth of points
    assert len(preview.layer._view_data) == np.count_nonzero(data[:, 0] == 11) > 0
    viewer.dims.set_current_step(0, 9)
    qtbot.waitUntil(lambda: 6 in preview._known, timeout=LIMIT_MS)  # backwards, too
    panel.search.psf_sigma_px.setText("2.5")
    panel.search.psf_sigma_px.number_changed.emit()
    qtbot.waitUntil(lambda: 13 not in preview._known and 9 in preview._known, timeout=LIMIT_MS)
    panel.search.live_preview.setChecked(False)


def test_live_preview_shows_what_a_run_would_find(make_napari_viewer, qtbot, model, monkeypatch):
    """A run leaves out lone candidates that are not significant in the whole movie: here, the dimmer half."""
    monkeypatch.setattr("smlm_pb.localization.significance.measure_least_significance", lambda *_, **__: 80.0)
    viewer = make_napari_viewer()
    one, other = (make_movie(30, (64, 64), per_frame=5, seed=seed)[0] for seed in (4, 5))
    viewer.add_image((one + 2 * (other - np.median(other))).clip(0, 65535).astype(np.uint16), name="two kinds")
    panel = open_panel(viewer, model)
    panel.camera.set_values(CAMERA)
    panel.search.psf_sigma_px.set_value(PSF_SIGMA_PX)
    panel.camera.changed.emit()
    panel.search.live_preview.setChecked(True)
    shown = {}
    panel.inputs.preview.shown.connect(lambda result: shown.__setitem__(result.frame, result.candidates))
    frames = (0, 8, 21)
    for frame in frames:
        viewer.dims.set_current_step(0, frame)
        qtbot.waitUntil(lambda frame=frame: frame in shown, timeout=LIMIT_MS)
    automatic = dict(shown)
    shown.clear()
    panel.search.threshold.spin.setValue(0.3)  # who chooses the threshold gets everything above it
    qtbot.waitUntil(lambda: len(shown.get(21, ())) > len(automatic[21]), timeout=LIMIT_MS)
    panel.search.threshold.auto.setChecked(True)
    panel.search.live_preview.setChecked(False)
    table = run_to_the_end(panel, qtbot).shown_table()
    assert table.provenance[-1]["conditions"]["least_significance"] == 80
    n_same = n_all = 0
    for frame in frames:
        run, preview = set(table.x[table.frame == frame].tolist()), set(automatic[frame].x.tolist())
        n_same, n_all = n_same + len(run & preview), n_all + len(run | preview)
    assert n_same >= 0.9 * n_all > 0  # the threshold of the movie is told by a dozen frames of it
