"""The real panel in a real window: from the sample to a saved table, and everything that can go wrong on the way."""

import itertools
import time

import numpy as np
import pytest
from hand_made_model import PSF_SIGMA_PX, make_model, make_movie

pytestmark = [pytest.mark.gui, pytest.mark.timeout(120)]

pytest.importorskip("napari", reason="napari is not installed: pip install 'smlm-pb[napari]'")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed: pip install 'smlm-pb[test]'")

from napari.settings import get_plugin_settings  # noqa: E402

import smlm_pb  # noqa: E402
from smlm_pb.localizations import Localizations  # noqa: E402

LIMIT_MS = 60_000
CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "pixel_size_nm": 100.0}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("models") / "hand-made"))


@pytest.fixture
def notes():
    from napari.utils.notifications import notification_manager

    notification_manager.records.clear()
    yield notification_manager.records
    notification_manager.records.clear()


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


def open_panel(viewer, model):
    from napari_plugin.settings import remember

    remember("localization", "live_preview", False)
    _, panel = viewer.window.add_plugin_dock_widget("smlm-pb", "Localize molecules")
    panel.model.add_folder(model)
    return panel


def end(panel, qtbot):
    if panel.is_running:
        panel.runs.cancel()
        qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)


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
    import smlm_pb.localization.pipeline as pipeline

    monkeypatch.setattr(pipeline, "_CPU_BLOCK_PX", 1)
    real = smlm_pb.localization.localize

    def slow(*args, on_block, **options):
        def on_block_slowly(block):
            on_block(block)
            time.sleep(0.03)

        return real(*args, on_block=on_block_slowly, **options)

    monkeypatch.setattr("smlm_pb.localization.localize", slow)


def run_to_the_end(panel, qtbot, last_frame=None):
    if last_frame is not None:
        panel.search.last_frame.set_value(last_frame)
    panel.run_bar.run_button.click()
    assert panel.is_running
    qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)
    return panel.results.current


def start_and_wait_for_frames(panel, qtbot, n_frames=3):
    panel.run_bar.run_button.click()
    qtbot.waitUntil(lambda: panel.runs._job is None or panel.runs._job.progress().done >= n_frames, timeout=LIMIT_MS)
    assert panel.is_running


def status(panel):
    return panel.run_bar.status.text().replace(" ", "").replace("of", " of").replace("molecules", " molecules")


def errors(notes):
    return [note.message for note in notes if str(note.severity) == "error"]


# -- the way through ---------------------------------------------------------------------------------------------------


def test_from_the_sample_to_molecules_image_and_a_saved_table(sample_panel, viewer, qtbot, notes, tmp_path):
    panel = sample_panel
    from smlm_pb.localization.settings import DEFAULT_REFINE

    assert panel.search.refine.currentData() == DEFAULT_REFINE  # as in the other doors
    panel.search.refine.setCurrentIndex(panel.search.refine.findData("auto"))
    assert get_plugin_settings("smlm-pb").localization.refine == "auto"
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


def test_image_is_drawn_anew_by_settings_and_by_zoom(panel, viewer, qtbot):
    molecules = run_to_the_end(panel, qtbot, last_frame=9)
    image = panel.results.image
    drawn = []
    image.drawn.connect(drawn.append)

    def wait_for(condition):
        qtbot.waitUntil(lambda: bool(drawn) and condition(drawn[-1]), timeout=LIMIT_MS)

    panel.image.pixel_size_nm.setValue(40)
    wait_for(lambda rendering: rendering.pixel_size_nm == 40)
    assert image.layer.data.shape == (160, 160)
    panel.image.method.setCurrentIndex(panel.image.method.findData("histogram"))
    wait_for(lambda rendering: rendering.method == "histogram")
    assert image.layer.data.sum() == molecules.n_shown
    assert "160 × 160" in panel.image.note.text()

    panel.image.colour_by.setCurrentIndex(panel.image.colour_by.findData("frame"))
    wait_for(lambda rendering: rendering.colour is not None)
    assert image.layer.rgb
    assert [layer.visible for layer in viewer.layers if layer.name == "super-resolved"] == [False]
    panel.image.colour_by.setCurrentIndex(0)
    wait_for(lambda rendering: rendering.colour is None)

    panel.image.follow_view.setChecked(True)
    viewer.scene.camera.zoom *= 20
    viewer.scene.camera.center = (0.0, 3.2, 3.2)
    wait_for(lambda rendering: rendering.grid.height < 6400 / rendering.pixel_size_nm / 2)
    low, high = image.layer.extent.world
    assert np.all(low < 3.2)
    assert np.all(high > 3.2)
    assert np.all(high - low < 3.5)


def test_views_points_in_colour_and_a_click_on_a_molecule(panel, viewer, qtbot):
    molecules = run_to_the_end(panel, qtbot, last_frame=9)
    qtbot.waitUntil(lambda: panel.results.image.layer is not None, timeout=LIMIT_MS)
    for view, visible in (("image", (False, False, True)), ("frames", (True, True, False)), ("both", (True,) * 3)):
        panel.run_bar._view_buttons[view].click()
        layers = (panel.movie.layer, molecules.layer, panel.results.image.layer)
        assert tuple(layer.visible for layer in layers) == visible

    panel.results.colour_points("probability")
    brightest, dimmest = np.argmax(molecules.table.probability), np.argmin(molecules.table.probability)
    assert not np.allclose(molecules.layer.border_color[brightest], molecules.layer.border_color[dimmest])
    choices = [panel.filter.colour.itemData(index) for index in range(panel.filter.colour.count())]
    assert set(molecules.table.column_names) <= set(choices)  # any column
    panel.filter.colour.setCurrentIndex(choices.index("x"))
    colours = molecules.layer.border_color[np.argsort(molecules.table.x)]
    assert not np.allclose(colours[0], colours[-1])
    panel.results.colour_points("")
    assert np.allclose(molecules.layer.border_color[brightest], molecules.layer.border_color[dimmest])

    panel.tabs.setCurrentWidget(panel._pages["Inspect"])
    row = int(np.flatnonzero(molecules.mask)[0])
    panel.results.inspect_at(molecules.layer.data_to_world(molecules.layer.data[row]))
    assert panel.inspect.values.item(0, 1).text() == str(molecules.table.frame[row])
    assert "residual" in panel.inspect.scale_note.text()
    panel.inspect.grab()

    # The same without a mouse, from frame to frame.
    rows = np.flatnonzero(molecules.mask)
    last_of_0 = rows[molecules.table.frame[rows] == 0][-1]
    panel.results.inspect_row(int(last_of_0))
    panel.inspect.next.click()
    assert panel.inspect.values.item(0, 1).text() == "1"
    assert viewer.dims.current_step[0] == 1
    panel.inspect.previous.click()
    assert panel.results._inspected == last_of_0
    assert viewer.dims.current_step[0] == 0


def test_points_deleted_by_hand_are_gone_from_the_table(panel, qtbot):
    molecules = run_to_the_end(panel, qtbot, last_frame=9)
    layer, n = molecules.layer, len(molecules.table)
    layer.selected_data = {0, 1, 2}
    layer.remove_selected()
    panel.molecules.choose(None)
    panel.molecules.choose(layer)
    assert len(panel.results.current.table) == n - 3


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
    assert get_plugin_settings("smlm-pb").analysis.tolerance_nm == 50  # for the next time


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


# -- before the run ----------------------------------------------------------------------------------------------------


def test_camera_is_measured_and_what_is_typed_wins(panel, qtbot):
    qtbot.waitUntil(lambda: panel.inputs.conditions is not None, timeout=LIMIT_MS)
    assert "100" in panel.camera.pixel_size_nm.placeholderText()
    assert "estimated" in panel.camera.offset_adu.placeholderText()
    assert "estimated" in panel.search.psf_sigma_px.placeholderText()
    qtbot.keyClicks(panel.camera.offset_adu, "100,5")  # a decimal comma is understood
    assert panel.camera.values() == {"offset_adu": 100.5}
    qtbot.waitUntil(
        lambda: panel.inputs.conditions is not None and panel.inputs.conditions.camera.offset_adu == 100.5,
        timeout=LIMIT_MS,
    )
    panel.camera.offset_adu.set_value(None)
    qtbot.keyClicks(panel.camera.offset_adu, "60000")
    qtbot.waitUntil(lambda: "Offset" in panel.camera.check.text(), timeout=LIMIT_MS)


def test_cameras_are_saved_under_names(panel):
    panel.camera.set_values({"offset_adu": 398.0, "e_per_adu": 4.2, "em_gain": 300.0})
    panel.camera.save_as("iXon")
    panel.camera.set_values({})
    panel.camera.refresh_presets()
    panel.camera.presets.setCurrentText("iXon")
    panel.camera.presets.activated.emit(panel.camera.presets.currentIndex())
    assert panel.camera.values() == {"offset_adu": 398.0, "e_per_adu": 4.2, "em_gain": 300.0}
    panel.camera.forget_button.click()
    assert panel.camera.presets.findText("iXon") < 0


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


def test_many_molecules_get_a_layer_made_beside_the_screen(panel, viewer, qtbot, monkeypatch):
    monkeypatch.setattr("napari_plugin.molecules._MOST_IN_PLACE", 5)
    molecules = run_to_the_end(panel, qtbot, last_frame=5)
    assert [layer.name for layer in viewer.layers].count("molecules of filaments") == 1
    assert molecules.layer in viewer.layers
    assert molecules.layer.data.flags.f_contiguous
    assert len(molecules.table) == len(molecules.layer.data) > 5
    np.testing.assert_array_equal(molecules.layer.shown, molecules.mask)


def test_impossible_entries_end_in_one_sentence(panel, notes):
    for fill, says in (
        (lambda: panel.search.first_frame.set_value(500), "frames 0 to 39"),
        (lambda: panel.camera.e_per_adu.setText("-3"), "e⁻/ADU: '-3'"),
        (lambda: panel.search.draw_button.click(), "no rectangle"),
    ):
        notes.clear()
        fill()
        panel.run_bar.run_button.click()
        assert not panel.is_running
        assert says in panel.run_bar.status.text()
        assert len(errors(notes)) == 1
        assert says in errors(notes)[0]


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


def test_layers_come_and_go_and_wrong_ones_are_explained(make_napari_viewer, qtbot, model):
    viewer = make_napari_viewer()
    _, panel = viewer.window.add_plugin_dock_widget("smlm-pb", "Localize molecules")
    assert not panel.run_bar.run_button.isEnabled()
    assert "Open a movie" in panel.movie_note.text()
    colour = viewer.add_image(np.zeros((4, 16, 16, 3), np.uint8), rgb=True, name="colour")
    assert panel.movie.layer is colour
    assert "colour image" in panel.movie_note.text()
    assert not panel.run_bar.run_button.isEnabled()
    movie = viewer.add_image(np.zeros((4, 16, 16), np.uint16), name="movie")
    panel.movie.choose(movie)
    assert panel.movie_note.text() == ""
    assert panel.run_bar.run_button.isEnabled()
    movie.name = "renamed"
    assert panel.movie.currentText() == "renamed"
    viewer.layers.remove(colour)
    assert panel.movie.layer is movie
    viewer.layers.remove(movie)
    assert panel.movie.layer is None
    assert not panel.run_bar.run_button.isEnabled()


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


# -- what can go wrong -------------------------------------------------------------------------------------------------


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


def test_runs_and_their_tables_are_not_kept(panel, viewer, qtbot):
    """napari remembers every worker; what a worker has done must not hang on it."""
    import gc
    import weakref

    molecules = run_to_the_end(panel, qtbot, last_frame=3)
    gone = weakref.ref(molecules.table), weakref.ref(molecules)
    viewer.layers.remove(molecules.layer)
    del molecules
    run_to_the_end(panel, qtbot, last_frame=3)

    def are_gone():
        gc.collect()
        return all(one() is None for one in gone)

    qtbot.waitUntil(are_gone, timeout=LIMIT_MS)


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
    """No step takes as long as napari itself needs to add a layer and to draw it: in processor time, on any machine."""
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
    assert np.diff(beats).max() < 0.8 * one_layer


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


# -- looks -------------------------------------------------------------------------------------------------------------


def test_nothing_is_cut_off_on_a_small_screen(panel, qtbot):
    from qtpy.QtWidgets import QLabel, QPushButton

    run_to_the_end(panel, qtbot, last_frame=5)
    panel.resize(390, 690)  # what 1280×800 leave for a dock
    for index in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(index)
        page = panel.tabs.currentWidget().widget()
        panel.grab()  # lays everything out
        assert page.minimumSizeHint().width() <= 370, panel.tabs.tabText(index)
        for button in page.findChildren(QPushButton):
            if button.isVisibleTo(page):
                assert button.width() >= button.sizeHint().width() - 1, button.text()
        for label in page.findChildren(QLabel):
            if label.isVisibleTo(page) and not label.wordWrap():
                assert label.width() >= label.sizeHint().width() - 1, label.text()
    assert panel.minimumSizeHint().height() < 690


def test_notes_do_not_squeeze_the_rows_above(panel, qtbot):
    panel.resize(390, 690)
    panel.grab()

    def places():
        fields = (panel.search.psf_sigma_px, panel.search.first_frame, panel.search.region, panel.search.threshold)
        return [field.mapTo(panel.search, field.rect().topLeft()).y() for field in fields]

    before = places()
    panel.search.preview_note.say("Frame 99: 264 molecules, precision 29 nm, threshold 0.45, expected Jaccard 0.83")
    qtbot.wait(50)
    panel.grab()
    assert places() == before


def test_every_control_explains_itself_and_is_reached_by_the_tab_key(panel, qtbot):
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QFormLayout, QLineEdit, QSlider, QWidget

    def is_inner(widget):
        return isinstance(widget.parent(), (QAbstractSpinBox, QComboBox, QLineEdit))

    run_to_the_end(panel, qtbot, last_frame=5)
    panel.resize(390, 690)
    controls = (QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QSlider)
    for index in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(index)
        panel.grab()  # lays everything out
        title = panel.tabs.tabText(index)
        chain, widget = [], panel.movie
        while panel.isAncestorOf(widget) and widget not in chain:
            chain.append(widget)
            widget = widget.nextInFocusChain()
        reached = [
            one
            for one in chain
            if one.isVisibleTo(panel)
            and one.focusPolicy() in (Qt.FocusPolicy.StrongFocus, Qt.FocusPolicy.WheelFocus, Qt.FocusPolicy.TabFocus)
            and not is_inner(one)
            and one.focusProxy() is None
        ]
        page = panel.tabs.currentWidget().widget()
        zones = [page.isAncestorOf(one) + 2 * panel.run_bar.isAncestorOf(one) for one in reached]
        assert [zone for zone, _ in itertools.groupby(zones)] in ([0, 1, 2], [0, 2])  # head, tab, foot
        rows = [(one.mapTo(panel, QPoint(0, 0)).y(), type(one).__name__, one.toolTip()[:20]) for one in reached]
        steps = zip(zones, zones[1:], itertools.pairwise(rows), strict=False)
        wrong = [pair for zone, other, pair in steps if zone == other and pair[1][0] < pair[0][0] - 10]
        assert not wrong, (title, wrong)
        for control in page.findChildren(QWidget):
            if isinstance(control, controls) and control.isVisibleTo(page) and not is_inner(control):
                assert control.toolTip(), (title, control.accessibleName())
                assert control in reached or not control.isEnabled(), (title, control.toolTip())
        for form in page.findChildren(QFormLayout):
            for row in range(form.rowCount()):
                label = form.itemAt(row, QFormLayout.ItemRole.LabelRole).widget()
                assert label.toolTip(), (title, label.text())


def test_shortcuts_open_tabs_run_and_cancel(panel, qtbot):
    from qtpy.QtGui import QShortcut

    keys = {shortcut.key().toString(): shortcut for shortcut in panel.findChildren(QShortcut)}
    keys["Alt+3"].activated.emit()
    assert panel.tabs.tabText(panel.tabs.currentIndex()) == "Filter"
    assert "Alt+3" in panel.tabs.tabToolTip(2)
    panel.search.last_frame.set_value(3)
    keys["Ctrl+Return"].activated.emit()
    assert panel.is_running
    keys["Ctrl+Return"].activated.emit()  # a second run is not begun
    keys["Esc"].activated.emit()
    qtbot.waitUntil(lambda: not panel.is_running, timeout=LIMIT_MS)


def test_help_tells_the_steps_and_leads_to_the_documentation(panel, qtbot):
    from qtpy.QtWidgets import QMessageBox

    panel.help_button.click()
    (box,) = panel.findChildren(QMessageBox)
    assert "Run" in box.text()
    assert 'href="' in box.text()
    box.close()


def test_help_of_an_installed_package_leads_to_its_address_or_explains_itself(monkeypatch, tmp_path):
    from email.message import Message

    from napari_plugin import help as panel_help

    installed = Message()
    installed["Project-URL"] = "Documentation, https://example.org/docs?a=1&b=2"
    monkeypatch.setattr(panel_help, "metadata", lambda name: installed)
    assert 'href="https://example.org/docs?a=1&amp;b=2"' in panel_help._link()
    monkeypatch.setattr(panel_help, "metadata", lambda name: Message())
    monkeypatch.setattr(panel_help, "__file__", str(tmp_path / "site-packages" / "napari_plugin" / "help.py"))
    assert "smlm-pb --help" in panel_help._link()  # no address, no checkout: nothing leads nowhere
    assert "href" not in panel_help._link()


def test_warnings_can_be_read_in_every_theme(viewer):
    from napari.utils.theme import available_themes

    from napari_plugin.theme import _contrast, readable_color, theme_color

    for theme in available_themes():
        if theme == "system":
            continue
        viewer.theme = theme
        for level in ("warning", "error"):
            color = readable_color(viewer, level)
            assert _contrast(color, theme_color(viewer, "background")) >= 4.5 or color == theme_color(viewer, "text")


def test_histogram_is_moved_by_mouse_and_keys(viewer, qtbot):
    from qtpy.QtCore import QPoint, Qt

    from napari_plugin.histogram import RangeHistogram

    histogram = RangeHistogram(viewer, logarithmic=True)
    qtbot.addWidget(histogram)
    histogram.resize(212, 52)
    histogram.set_values(np.geomspace(10, 1000, 1001))
    moved = []
    histogram.range_changed.connect(lambda low, high: moved.append((low, high)))
    qtbot.mousePress(histogram, Qt.MouseButton.LeftButton, pos=QPoint(56, 20))  # a quarter of the axis
    qtbot.mouseRelease(histogram, Qt.MouseButton.LeftButton, pos=QPoint(56, 20))
    low, high = moved[-1]
    assert low == pytest.approx(10 * 100**0.25, rel=0.05)
    assert high is None
    qtbot.keyClick(histogram, Qt.Key.Key_Up)
    for _ in range(10):
        qtbot.keyClick(histogram, Qt.Key.Key_Left)
    assert moved[-1][1] == pytest.approx(1000 * 100**-0.05, rel=0.05)
    qtbot.mouseDClick(histogram, Qt.MouseButton.LeftButton, pos=QPoint(100, 20))
    assert histogram.limits == (None, None)
    for values in (np.zeros(0), np.full(5, 3.0), np.array([np.nan, 1.0])):
        histogram.set_values(values)
        histogram.grab()


def test_every_row_has_a_tooltip_and_can_be_reached_by_keys(panel):
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QAbstractSpinBox, QCheckBox, QComboBox, QLineEdit, QPushButton, QSlider

    kinds = (QLineEdit, QComboBox, QCheckBox, QAbstractSpinBox, QSlider, QPushButton)
    for kind in kinds:
        for widget in panel.findChildren(kind):
            if widget.objectName().startswith("qt_") or isinstance(widget.parent(), QAbstractSpinBox | QComboBox):
                continue
            assert widget.toolTip(), f"{type(widget).__name__} {widget.accessibleName() or widget.objectName()}"
            assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus
