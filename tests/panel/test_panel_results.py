"""What is done with molecules: image, views, colours, a close look."""

import numpy as np
import pytest
from panel_driver import LIMIT_MS, run_to_the_end

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


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


def test_of_two_runs_the_last_one_is_shown_and_described(panel, viewer, qtbot):
    first = run_to_the_end(panel, qtbot, last_frame=5)
    second = run_to_the_end(panel, qtbot, last_frame=9)
    assert second.layer is not first.layer
    assert (first.layer.visible, second.layer.visible) == (False, True)
    assert "10 frames in" in panel.run_bar.status.text()
    panel.molecules.choose(first.layer)
    assert "6 frames in" in panel.run_bar.status.text()
    viewer.add_points(np.array([[0.0, 5.0, 5.0]]), name="by hand")
    panel.molecules.choose(viewer.layers["by hand"])
    assert panel.run_bar.status.text() == "1 molecule."  # no run has found it


def test_points_deleted_by_hand_are_gone_from_the_table(panel, qtbot):
    molecules = run_to_the_end(panel, qtbot, last_frame=9)
    layer, n = molecules.layer, len(molecules.table)
    layer.selected_data = {0, 1, 2}
    layer.remove_selected()
    panel.molecules.choose(None)
    panel.molecules.choose(layer)
    assert len(panel.results.current.table) == n - 3


def test_many_molecules_get_a_layer_made_beside_the_screen(panel, viewer, qtbot, monkeypatch):
    monkeypatch.setattr("napari_plugin.molecules._MOST_IN_PLACE", 5)
    molecules = run_to_the_end(panel, qtbot, last_frame=5)
    assert [layer.name for layer in viewer.layers].count("molecules of filaments") == 1
    assert molecules.layer in viewer.layers
    assert molecules.layer.data.flags.f_contiguous
    assert len(molecules.table) == len(molecules.layer.data) > 5
    np.testing.assert_array_equal(molecules.layer.shown, molecules.mask)


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
