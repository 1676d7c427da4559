"""The way of a user: from a movie to a saved table, and back."""

import numpy as np
import pytest
from panel_driver import CAMERA, LIMIT_MS, errors, plugin_settings, run_to_the_end, status

import smlm_pb
from smlm_pb.localizations import Localizations

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


def test_from_the_sample_to_molecules_image_and_a_saved_table(sample_panel, viewer, qtbot, notes, tmp_path):
    panel = sample_panel
    from smlm_pb.localization.settings import DEFAULT_REFINE

    assert panel.search.refine.currentData() == DEFAULT_REFINE  # as in the other doors
    panel.search.refine.setCurrentIndex(panel.search.refine.findData("auto"))
    assert plugin_settings().localization.refine == "auto"
    molecules = run_to_the_end(panel, qtbot, last_frame=29)
    movie, layer = viewer.layers["filaments"], molecules.layer

    # The same molecules as the library's, with all its columns.
    path = movie.source.path
    assert path is None  # a sample has none, so that this compares arrays
    options = {"model": panel.model.model, "frames": (0, 30), "pixel_size_nm": 100, "refine": "auto"}
    expected = smlm_pb.localize(movie.data, **options)
    assert "refinement" in expected.column_names
    assert tuple(layer.features.columns) == expected.column_names
    shown = molecules.shown_table()
    for name in expected.column_names:
        np.testing.assert_array_equal(shown[name], expected[name])
    assert shown.provenance[-1]["threshold"] == expected.provenance[-1]["threshold"]

    # On the movie, fast to step through, and the movie stays the active layer.
    assert layer.data.dtype == np.float32
    assert layer.data.flags.f_contiguous
    np.testing.assert_allclose(layer.scale, movie.scale)
    assert tuple(layer.units) == tuple(movie.units)
    assert viewer.layers.selection.active == movie
    for frame in (0, 7, 29):
        viewer.dims.set_current_step(0, frame)
        assert len(layer._view_data) == np.count_nonzero(molecules.mask & (molecules.table.frame == frame))

    # The image is there, where it should be, in µm.
    qtbot.waitUntil(lambda: panel.results.image.rendering is not None, timeout=LIMIT_MS)
    image = panel.results.image.layer
    assert image.data.sum() == pytest.approx(molecules.n_shown, rel=0.02)
    np.testing.assert_allclose(image.extent.world[1] - image.extent.world[0], (9.6, 9.6), atol=0.02)
    assert viewer.canvas.overlays.scale_bar.visible
    assert list(viewer.layers).index(image) < list(viewer.layers).index(layer)
    assert f"{molecules.n_shown} molecules" in status(panel)
    assert "expected Jaccard" in panel.run_bar.status.text()

    # The threshold acts at once, without another run.
    panel.search.threshold.spin.setValue(0.9)
    assert np.array_equal(layer.shown, molecules.table.probability >= np.float32(0.9))
    panel.filter.histograms["photons"].set_limits(1400, None)
    panel.filter.range_changed.emit("photons", 1400.0, None)
    mask = (molecules.table.probability >= np.float32(0.9)) & (molecules.table.photons >= 1400)
    assert np.array_equal(layer.shown, mask)
    assert f"{mask.sum()} of" in status(panel)

    # What is shown is saved, and comes back.
    panel.results.save(tmp_path / "out.hdf5")
    qtbot.waitUntil(lambda: "Saved" in panel.run_bar.status.text(), timeout=LIMIT_MS)
    back = Localizations.load(tmp_path / "out.hdf5")
    assert len(back) == mask.sum()
    step = back.provenance[-1]
    assert step["step"] == "filter"
    assert step["condition"] == "probability >= 0.9 and photons >= 1400"
    (reopened,) = viewer.open(str(tmp_path / "out.hdf5"), plugin="smlm-pb")
    np.testing.assert_allclose(reopened.scale, movie.scale)
    assert tuple(reopened.units) == tuple(movie.units)
    panel.molecules.choose(reopened)
    assert panel.results.current.n_shown == mask.sum()

    # All of it again with the automatic threshold.
    panel.molecules.choose(layer)
    panel.filter.reset.click()
    panel.search.threshold.auto.setChecked(True)
    assert molecules.n_shown == len(expected)
    assert errors(notes) == []


def test_the_whole_way_with_mouse_and_keys(sample_panel, viewer, qtbot, notes, tmp_path, monkeypatch):
    """Sample, preview, run, filter, drift, save, reopen: as a user does it."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtWidgets import QFileDialog

    def press(button):
        assert button.isEnabled()
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    panel, movie = sample_panel, viewer.layers["filaments"]
    n_frames, steps_px = len(movie.data), 3
    for frame in range(n_frames):  # a stage that wanders off, by whole pixels
        movie.data[frame] = np.roll(movie.data[frame], steps_px * frame // n_frames, axis=1)

    # Preview.
    shown = []
    panel.inputs.preview.shown.connect(shown.append)
    qtbot.keyClick(panel.search.live_preview, Qt.Key.Key_Space)
    viewer.dims.set_current_step(0, 3)
    qtbot.waitUntil(lambda: bool(shown) and shown[-1].frame == 3, timeout=LIMIT_MS)
    assert len(shown[-1].candidates)
    qtbot.keyClick(panel.search.live_preview, Qt.Key.Key_Space)

    # Run.
    press(panel.run_bar.run_button)
    qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)
    found = panel.results.current
    assert found.table.frame.max() == n_frames - 1
    n_found = found.n_shown

    # Filter: drag the lower handle of the probability.
    panel.tabs.setCurrentWidget(panel._pages["Filter"])
    histogram = panel.filter.histograms["probability"]
    histogram.resize(212, 52)
    qtbot.mousePress(histogram, Qt.MouseButton.LeftButton, pos=QPoint(100, 20))
    qtbot.mouseMove(histogram, QPoint(150, 20))
    qtbot.mouseRelease(histogram, Qt.MouseButton.LeftButton, pos=QPoint(150, 20))
    least = found.filters.ranges["probability"][0]
    assert panel.search.threshold.spin.value() == pytest.approx(least, abs=0.01)
    assert 0 < found.n_shown < n_found
    assert found.layer.shown.sum() == found.n_shown

    # Drift.
    panel.tabs.setCurrentWidget(panel._pages["Analyse"])
    press(panel.analysis.drift_button)
    qtbot.waitUntil(lambda: "Removed a drift" in panel.analysis.drift_note.text(), timeout=LIMIT_MS)
    corrected = panel.results.current
    x_nm, y_nm = corrected.drift.range_nm
    assert x_nm == pytest.approx(100 * (steps_px - 1), abs=60)
    assert y_nm < 60
    assert not found.layer.visible
    qtbot.waitUntil(lambda: panel.results.image.rendering.n_molecules == corrected.n_shown, timeout=LIMIT_MS)

    # Save, through the dialog.
    path = tmp_path / "steady.hdf5"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), "HDF5"))
    press(panel.run_bar.save_button)
    qtbot.waitUntil(lambda: "Saved steady.hdf5" in panel.run_bar.status.text(), timeout=LIMIT_MS)

    # Reopen.
    (reopened,) = viewer.open(str(path), plugin="smlm-pb")
    panel.molecules.choose(reopened)
    again = panel.results.current.table
    for name in corrected.table.column_names:
        np.testing.assert_array_equal(again[name], corrected.table[name])
    history = [step["step"] for step in again.provenance]
    assert history[:3] == ["localize", "filter", "drift"]
    assert f"probability >= {least:.6g}" in again.provenance[1]["condition"]
    np.testing.assert_allclose(reopened.scale, movie.scale)
    assert errors(notes) == []


def test_a_single_frame_is_localized_too(make_napari_viewer, qtbot, model):
    from napari_plugin.samples import filaments

    frames, attributes, _ = filaments()[0]
    viewer = make_napari_viewer()
    viewer.add_image(frames[7], name="one frame", scale=attributes["scale"][1:], units=attributes["units"][1:])
    _, panel = viewer.window.add_plugin_dock_widget("smlm-pb", "Localize molecules")
    panel.model.add_folder(model)
    panel.camera.set_values(CAMERA)
    panel.search.psf_sigma_px.set_value(1.1)
    molecules = run_to_the_end(panel, qtbot)
    assert molecules.n_shown > 10
    assert molecules.layer.ndim == 2
    shown = molecules.layer.data[molecules.mask]
    panel.results.inspect_at(molecules.layer.data_to_world(shown[0]))
    assert panel.inspect.values.rowCount() > 5


def test_only_the_region_is_localized(panel, viewer, qtbot):
    shapes = viewer.add_shapes(
        [np.array([[1.0, 2.0], [1.0, 5.0], [6.0, 5.0], [6.0, 2.0]])], shape_type="rectangle", units=("um", "um")
    )
    panel.search.region.choose(shapes)
    molecules = run_to_the_end(panel, qtbot, last_frame=9)
    table = molecules.shown_table()
    assert len(table)
    assert table.x.min() >= 19
    assert table.x.max() <= 50.5
    assert table.y.min() >= 9
    assert table.y.max() <= 60.5
    assert table.info.width == 64
