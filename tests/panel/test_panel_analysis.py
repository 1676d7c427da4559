"""The tab Analyse: quality, links, comparison, report, drift, and what is learned from residuals and a twin."""

import numpy as np
import pytest
from panel_driver import LIMIT_MS, errors, plugin_settings, run_to_the_end

from smlm_pb.localizations import Localizations

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


def test_quality_links_comparison_and_report(sample_panel, viewer, qtbot, tmp_path):
    panel = sample_panel
    panel.analysis.compare_button.click()
    found = run_to_the_end(panel, qtbot, last_frame=29)
    section = panel.analysis
    section.quality_button.click()
    qtbot.waitUntil(lambda: "NeNA" in section.quality_note.text(), timeout=LIMIT_MS)

    section.compare_button.click()
    assert "Choose the layer" in section.compare_note.text()
    truth = viewer.layers["true molecules"]
    truth.data = truth.data[truth.data[:, 0] < 30]
    section.truth.choose(truth)
    section.compare_button.click()
    qtbot.waitUntil(lambda: "Jaccard" in section.compare_note.text(), timeout=LIMIT_MS)
    numbers = {kind: len(viewer.layers[kind].data) for kind in ("matched", "missed", "false")}
    assert numbers["matched"] + numbers["false"] == found.n_shown
    assert numbers["matched"] + numbers["missed"] == len(truth.data)
    assert f"{numbers['matched']} matched" in section.compare_note.text()  # with the colours of the layers
    assert numbers["matched"] > 0.8 * found.n_shown

    path = tmp_path / "a & b.html"
    panel.analyses.report(path)
    qtbot.waitUntil(lambda: "Written" in section.report_note.text(), timeout=LIMIT_MS)
    page = path.read_text(encoding="utf-8")
    assert "Jaccard" in page  # the chosen truth
    assert "href" in section.report_note.text()

    section.link_button.click()
    qtbot.waitUntil(lambda: "joined" in section.link_note.text(), timeout=LIMIT_MS)
    linked = panel.results.current
    assert linked is not found
    assert len(linked.table) < found.n_shown
    assert "n_localizations" in linked.layer.features
    assert linked.unlinked is not None  # for the report of the linked table
    section.tolerance_nm.setValue(50)
    assert plugin_settings().analysis.tolerance_nm == 50  # for the next time


def test_residuals_a_twin_and_added_frames(panel, viewer, qtbot, notes):
    section = panel.analysis.checks
    assert not section.residuals.button.isEnabled()
    found = run_to_the_end(panel, qtbot)
    movie = viewer.layers["filaments"]
    section.residuals.button.click()
    assert section.residuals.cancel_button.isVisibleTo(panel.analysis)
    qtbot.waitUntil(lambda: not section.residuals.running, timeout=LIMIT_MS)
    text = section.residuals.note.text()
    numbers = {kind: len(viewer.layers[f"suspected {kind}"].data) for kind in ("missed", "false", "merged")}
    for kind, number in numbers.items():
        assert f"{number} {kind}" in text
    assert sum(numbers.values()) > 0
    chi2 = viewer.layers["χ² of the pixels"]
    assert chi2.data.shape == (4, 4)  # tiles of 16 px
    for corner in (-0.5, 3.5):
        there = movie.data_to_world((0, *[16 * (corner + 0.5) - 0.5] * 2))[1:]
        np.testing.assert_allclose(chi2.data_to_world((corner, corner)), there, atol=0.001)
    assert panel.molecules.layer is found.layer  # what is suspected is nothing to filter or to save
    assert viewer.layers.selection.active == movie
    section.residuals.button.click()
    qtbot.waitUntil(lambda: not section.residuals.running, timeout=LIMIT_MS)
    assert [layer.name for layer in viewer.layers].count("χ² of the pixels") == 1

    section.twin.button.click()
    qtbot.waitUntil(lambda: section.twin_picture.isVisibleTo(panel.analysis), timeout=LIMIT_MS)
    assert "Jaccard" in section.twin.note.text()
    assert section.twin_picture.pixmap().width() <= 340
    viewer.theme = "light"  # drawn anew
    section.twin.button.click()
    qtbot.waitUntil(lambda: section.twin.progress.maximum() > 0, timeout=LIMIT_MS)
    section.twin.cancel_button.click()
    assert section.twin.note.text() == "Cancelled."
    assert section.twin.button.isVisibleTo(panel.analysis)

    section.density.button.click()
    qtbot.waitUntil(lambda: not section.density.running, timeout=LIMIT_MS)
    assert "too short" in section.density.note.text()  # 40 frames; sums are made of frames that lie 50 apart
    frames = np.tile(movie.data[:, :40, :40], (3, 1, 1))
    longer = viewer.add_image(frames, name="longer", scale=movie.scale, units=movie.units)
    panel.movie.choose(longer)
    assert section.density.note.text() == ""
    section.density.button.click()
    qtbot.waitUntil(lambda: section.density_picture.isVisibleTo(panel.analysis), timeout=LIMIT_MS)
    assert "density" in section.density.note.text()
    section.residuals.button.click()
    assert "Choose the movie" in section.residuals.note.text()  # another movie than that of the molecules
    assert errors(notes) == []


def test_a_table_without_a_pixel_size_takes_that_of_the_row(panel, viewer, qtbot, tmp_path):
    rng = np.random.default_rng(0)
    viewer.add_points(np.column_stack([rng.integers(0, 40, 300), *rng.uniform(5, 58, (2, 300))]), name="by hand")
    panel.molecules.choose(viewer.layers["by hand"])
    assert panel.results.current.table.info.pixel_size_nm is None
    panel.camera.pixel_size_nm.setText("108")
    panel.camera.pixel_size_nm.number_changed.emit()
    assert panel.results.shown_table().info.pixel_size_nm == 108
    panel.analysis.quality_button.click()
    qtbot.waitUntil(lambda: "molecules per frame" in panel.analysis.quality_note.text(), timeout=LIMIT_MS)
    assert "needs the pixel size" not in panel.analysis.quality_note.text()
    panel.results.save(tmp_path / "by-hand.csv")
    qtbot.waitUntil(lambda: "Saved" in panel.run_bar.status.text(), timeout=LIMIT_MS)
    assert Localizations.load(tmp_path / "by-hand.csv").info.pixel_size_nm == 108


def test_drift_is_removed_in_a_new_layer(make_napari_viewer, qtbot):
    from napari_plugin.molecule_layers import points_arguments
    from smlm_pb.localizations import MovieInfo

    rng = np.random.default_rng(0)
    n, n_frames = 6000, 300
    frame = np.sort(rng.integers(0, n_frames, n))
    site_y, site_x = rng.uniform(3, 60, (2, 150))[:, rng.integers(0, 150, n)]
    drift_px = 3.0 * frame / n_frames
    columns = {
        "frame": frame,
        "x": site_x + drift_px + rng.normal(0, 0.1, n),
        "y": site_y + rng.normal(0, 0.1, n),
        "sigma_x": np.full(n, 0.1),
        "sigma_y": np.full(n, 0.1),
    }
    table = Localizations(columns, MovieInfo(n_frames, 64, 64, 100.0))
    viewer = make_napari_viewer()
    _, panel = viewer.window.add_plugin_dock_widget("smlm-pb", "Localize molecules")
    layer = viewer.add_points(**points_arguments(table))
    assert panel.molecules.layer is layer
    panel.analysis.drift_button.click()
    qtbot.waitUntil(lambda: "Removed a drift" in panel.analysis.drift_note.text(), timeout=LIMIT_MS)
    corrected = panel.results.current
    assert corrected.layer is not layer
    left = np.polyfit(frame, corrected.table.x - site_x, 1)[0] * n_frames
    assert abs(left) < 0.2  # of three pixels
    panel.analysis.drift_plot.grab()

    panel.molecules.choose(layer)
    panel.filter.range_changed.emit("frame", None, 3.0)
    panel.analysis.drift_button.click()
    qtbot.waitUntil(lambda: "Computing" not in panel.analysis.drift_note.text(), timeout=LIMIT_MS)
    assert "Removed" not in panel.analysis.drift_note.text()  # a handful of molecules in four frames
