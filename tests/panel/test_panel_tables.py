"""Tables from elsewhere: of another program, of another movie, damaged, and chosen in the middle of something."""

import threading
import warnings

import numpy as np
import pytest
from panel_driver import CAMERA, LIMIT_MS, errors, run_to_the_end

from smlm_pb.localizations import MovieInfo

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]


@pytest.fixture
def foreign(panel, viewer, qtbot, tmp_path):
    """Opens the result of a run as another program would have saved it: without camera, PSF width and size."""

    def make():
        molecules = run_to_the_end(panel, qtbot, last_frame=20)
        written = molecules.shown_table().save(tmp_path / "theirs.csv", format="thunderstorm")
        for companion in written[1:]:
            companion.unlink()
        (layer,) = viewer.open(str(tmp_path / "theirs.csv"), plugin="smlm-pb")
        panel.molecules.choose(layer)
        return panel.results.current

    return make


def test_residuals_of_another_programs_table_use_the_camera_of_the_rows(panel, qtbot, foreign):
    found = foreign()
    assert found.table.info.n_frames < 40  # only what the outermost molecules tell
    task = panel.analysis.checks.residuals
    panel.camera.set_values(CAMERA)
    panel.inputs.measure()
    qtbot.waitUntil(lambda: panel.inputs.conditions is not None, timeout=LIMIT_MS)
    task.button.click()
    qtbot.waitUntil(lambda: not task.running and bool(task.note.text()), timeout=LIMIT_MS)
    assert "χ² per pixel" in task.note.text()
    panel.inputs.conditions = None  # nothing is known yet
    task.button.click()
    qtbot.waitUntil(lambda: not task.running and bool(task.note.text()), timeout=LIMIT_MS)
    assert task.note.level == "error"
    assert task.note.text().endswith("give Offset and e⁻ per ADU in the tab Localize.")


def test_a_table_of_another_movie_keeps_the_units_of_the_scene(panel, viewer, qtbot, notes, tmp_path):
    table = run_to_the_end(panel, qtbot, last_frame=3).shown_table()
    for pixel_size_nm, edge_um in ((160.0, 0.16), (None, 0.1)):  # one that is not known is that of the movie
        table.with_info(MovieInfo(900, 512, 512, pixel_size_nm, "another")).save(tmp_path / "a.hdf5", overwrite=True)
        (layer,) = viewer.open(str(tmp_path / "a.hdf5"), plugin="smlm-pb")
        assert [str(unit) for unit in layer.units] == ["pixel", "micrometer", "micrometer"]
        np.testing.assert_allclose(layer.scale, (1, edge_um, edge_um))
    assert not [note for note in notes if "nits" in str(note.message)]


def test_points_without_a_position_are_refused_in_one_sentence(panel, viewer, qtbot, notes):
    molecules = run_to_the_end(panel, qtbot, last_frame=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # napari's own
        layer = viewer.add_points(np.array([[0, np.nan, 3.0], [1, 2, 3]]), name="clicks", scale=molecules.layer.scale)
        panel.molecules.choose(layer)
        assert "Layer 'clicks' has points without a position" in panel.run_bar.status.text()
        assert panel.results.current is None
        viewer.layers.remove(layer)
    assert errors(notes) == []


def test_points_are_coloured_by_columns_without_values(panel, viewer, qtbot):
    table = run_to_the_end(panel, qtbot, last_frame=3).table
    half = np.where(np.arange(len(table)) % 2, np.nan, np.arange(len(table))).astype(np.float32)
    panel.results.add_table(table.with_columns(chi2=half, llr=np.full(len(table), np.nan, np.float32)), "with gaps")
    for name in ("chi2", "llr"):  # warnings are errors here
        panel.results.colour_points(name)
        assert np.isfinite(panel.results.current.layer.border_color).all()


def test_molecules_outside_of_the_frame_are_told_below_the_image_and_in_no_notification(panel, viewer, qtbot, notes):
    table = run_to_the_end(panel, qtbot, last_frame=3).table
    notes.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # napari makes a notification of every warning
        panel.results.add_table(table.with_columns(x=table.x + 1000), "far off")
        qtbot.waitUntil(lambda: "lie outside of the frame" in panel.image.note.text(), timeout=LIMIT_MS)
    assert panel.image.note.level == "warning"
    panel.molecules.choose(viewer.layers["molecules of filaments"])
    qtbot.waitUntil(lambda: panel.image.note.level == "plain", timeout=LIMIT_MS)
    assert not notes


def test_answers_about_other_molecules_are_not_shown(panel, viewer, qtbot, notes, monkeypatch):
    """The second result is chosen while the drift of the first one is still computed."""
    import smlm_pb.analysis

    first = run_to_the_end(panel, qtbot, last_frame=5)
    second = run_to_the_end(panel, qtbot, last_frame=3)
    panel.molecules.choose(first.layer)
    free, done, link = threading.Event(), threading.Event(), smlm_pb.analysis.link

    def slow(*args, **options):
        assert free.wait(LIMIT_MS / 1000)
        try:
            return link(*args, **options)
        finally:
            done.set()

    monkeypatch.setattr("smlm_pb.analysis.link", slow)
    panel.analysis.link_button.click()
    assert panel.analysis.link_note.text() == "Computing …"
    panel.molecules.choose(second.layer)
    free.set()
    qtbot.waitUntil(done.is_set, timeout=LIMIT_MS)
    qtbot.wait(200)
    assert panel.analysis.link_note.text() == ""
    assert panel.results.current is second
    assert "linked molecules" not in [layer.name for layer in viewer.layers]
    panel.analysis.link_button.click()
    qtbot.waitUntil(lambda: "were joined" in panel.analysis.link_note.text(), timeout=LIMIT_MS)
    assert errors(notes) == []
