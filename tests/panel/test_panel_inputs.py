"""Before the run: layers, camera, and entries that cannot be."""

import numpy as np
import pytest
from panel_driver import LIMIT_MS, errors

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


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


def test_a_region_is_drawn_in_the_units_of_the_movie(panel, viewer, qtbot, notes):
    movie = viewer.layers["filaments"]
    panel.search.draw_button.click()
    region = panel.search.region.layer
    assert viewer.layers.selection.active is region
    assert region.mode == "add_rectangle"
    assert tuple(region.units) == tuple(movie.units[-2:])  # otherwise napari does without units
    np.testing.assert_allclose(region.scale, movie.scale[-2:])
    assert panel.camera.check.text().startswith("Draw a rectangle")  # no error yet
    region.add_rectangles(np.array([[10.0, 12.0], [10.0, 40.0], [30.0, 40.0], [30.0, 12.0]]))
    cut, where, _ = panel.inputs.movie()
    assert (where.top, where.bottom, where.left, where.right) == (10, 30, 12, 40)
    assert (cut.height, cut.width) == (20, 28)
    panel.search.draw_button.click()
    assert [layer.name for layer in viewer.layers] == ["filaments", "region"]  # drawn anew in the same layer
    assert notes == []


def test_an_error_is_forgotten_when_a_row_is_corrected(panel, qtbot):
    panel.camera.e_per_adu.setText("-3")
    panel.run_bar.run_button.click()
    assert "e⁻/ADU" in panel.run_bar.status.text()
    panel.camera.e_per_adu.setText("")
    panel.camera.e_per_adu.number_changed.emit()
    assert panel.run_bar.status.text() == ""


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


def test_a_scale_or_data_set_later_are_heeded(panel, viewer, qtbot):
    def wait_for(pixel_size_nm):
        qtbot.waitUntil(
            lambda: panel.inputs.conditions is not None and panel.inputs.conditions.pixel_size_nm == pixel_size_nm,
            timeout=LIMIT_MS,
        )

    movie = viewer.layers["filaments"]
    wait_for(pytest.approx(100))
    movie.scale = (1, 0.16, 0.16)
    wait_for(pytest.approx(160))
    assert "160" in panel.camera.pixel_size_nm.placeholderText()
    movie.data = movie.data[:, :4, :4]
    assert "smaller than" in panel.movie_note.text()
    assert not panel.run_bar.run_button.isEnabled()
    panel.movie.choose(None)
    movie.scale = (1, 0.1, 0.1)  # nobody listens
    assert panel.inputs._emitters == ()
