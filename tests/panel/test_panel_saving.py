"""What the dialogs give: names without endings, with wrong ones, with too many letters."""

import numpy as np
import pytest
from panel_driver import LIMIT_MS, errors, run_to_the_end

from smlm_pb.formats import read_table, sniff

pytestmark = [pytest.mark.gui, pytest.mark.timeout(600)]

THUNDERSTORM = "ThunderSTORM (*.csv)"


@pytest.fixture
def answer(monkeypatch):
    """Answers the dialogs: a path, and the kind of file; None is the one that stands there."""
    from qtpy.QtWidgets import QFileDialog

    def give(path, kind=None):
        def ask(_parent, _title, proposed, kinds):
            offered = kinds.split(";;")
            assert kind is None or kind in offered
            give.proposed = proposed
            return str(path), kind or offered[0]

        monkeypatch.setattr(QFileDialog, "getSaveFileName", ask)

    return give


def save(panel, qtbot):
    panel.run_bar.save_button.click()
    qtbot.waitUntil(panel.run_bar.save_button.isEnabled, timeout=LIMIT_MS)
    return panel.run_bar.status.text()


@pytest.mark.parametrize(
    ("typed", "kind", "written", "form"),
    [
        ("out", None, "out.hdf5", "native"),  # many dialogs add no ending
        ("imager_0.5nM", None, "imager_0.5nM.hdf5", "native"),
        ("out.csv", None, "out.csv", "csv"),  # nobody chose a kind: the ending tells
        ("out", THUNDERSTORM, "out.csv", "thunderstorm"),
        ("out_locs.hdf5", THUNDERSTORM, "out_locs.csv", "thunderstorm"),  # the name proposed, another kind chosen
    ],
)
def test_the_ending_tells_what_is_inside(panel, qtbot, answer, tmp_path, typed, kind, written, form):
    molecules = run_to_the_end(panel, qtbot, last_frame=3)
    answer(tmp_path / typed, kind)
    assert f"Saved {written}" in save(panel, qtbot)
    assert sniff(tmp_path / written) == form
    assert len(read_table(tmp_path / written)) == molecules.n_shown


def test_a_file_that_the_dialog_did_not_ask_about_is_not_replaced(panel, qtbot, notes, answer, tmp_path):
    run_to_the_end(panel, qtbot, last_frame=3)
    (tmp_path / "out.hdf5").write_bytes(b"precious")
    answer(tmp_path / "out")
    assert save(panel, qtbot).endswith("out.hdf5 exists already; choose another name.")
    assert len(errors(notes)) == 1
    assert (tmp_path / "out.hdf5").read_bytes() == b"precious"
    answer(tmp_path / "out.hdf5")  # asked about
    assert "Saved out.hdf5" in save(panel, qtbot)


def test_image_and_report_get_their_endings(panel, qtbot, answer, tmp_path):
    run_to_the_end(panel, qtbot, last_frame=3)
    for name, kind, written in (("a", None, "a.png"), ("b", "TIFF (*.tif)", "b.tif"), ("c.tif", None, "c.tif")):
        answer(tmp_path / name, kind)
        panel.image.save_button.click()
        qtbot.waitUntil(lambda written=written: f"Saved {written}" in panel.run_bar.status.text(), timeout=LIMIT_MS)
        assert (tmp_path / written).stat().st_size > 100
    answer(tmp_path / "page")
    panel.analysis.report_button.click()
    qtbot.waitUntil(lambda: "page.html" in panel.analysis.report_note.text(), timeout=LIMIT_MS)
    assert (tmp_path / "page.html").exists()


def test_a_name_is_proposed_that_can_be_written_and_tells_movies_apart(panel, viewer, qtbot, notes, answer, tmp_path):
    run_to_the_end(panel, qtbot, last_frame=3)
    movie = viewer.layers["filaments"]
    for name, proposed in (
        ("imager 0.5nM", "imager 0.5nM_locs.hdf5"),
        ("cell.ome.tif", "cell_locs.hdf5"),
        ("a/b: <c>?", "a_b_ _c__locs.hdf5"),
        ("..", "movie_locs.hdf5"),
    ):
        movie.name = name
        assert panel.results.default_path("_locs.hdf5").name == proposed
    movie.name = "ä" * 400
    assert 150 < len(panel.results.default_path("_locs.hdf5").name.encode()) < 240
    answer(tmp_path / ("x" * 300 + ".hdf5"))
    assert "File name too long" in save(panel, qtbot)
    assert "Unexpected" not in errors(notes)[0]


def test_saved_molecules_are_those_on_the_screen(panel, qtbot, answer, tmp_path):
    molecules = run_to_the_end(panel, qtbot, last_frame=3)
    panel.search.threshold.spin.setValue(0.95)
    answer(tmp_path / "out")
    save(panel, qtbot)
    np.testing.assert_array_equal(read_table(tmp_path / "out.hdf5").x, molecules.table.x[molecules.mask])
