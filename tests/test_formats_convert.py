"""``smlm-pb convert``: one line of command, everything that was converted said."""

import csv

import numpy as np
import pytest

from smlm_pb.cli.main import main
from smlm_pb.formats import FORMATS, read_table
from smlm_pb.localizations import Localizations, MovieInfo

THUNDERSTORM = '"frame","x [nm]","y [nm]","intensity [photon]"\n1,50,150,700\n3,250,350,900\n'


@pytest.fixture
def storm(tmp_path):
    path = tmp_path / "storm.csv"
    path.write_text(THUNDERSTORM, encoding="utf-8")
    return path


def test_convert(storm, capsys):
    target = storm.with_name("storm_locs.hdf5")
    assert main(["convert", str(storm), str(target), "--pixel-size-nm", "100"]) == 0
    out = capsys.readouterr().out
    assert "storm.csv: 2 molecules, ThunderSTORM: nm, centre of the first pixel at 0.5 px" in out
    assert "height, width not in the file" in out
    assert out.splitlines()[-2:] == [str(target), str(target.with_suffix(".yaml"))]
    locs = read_table(target)
    assert locs.x.tolist() == [0, 2]
    assert locs.frame.tolist() == [0, 2]
    assert [step["step"] for step in locs.provenance] == ["read", "convert"]


def test_sizes_and_conventions_can_be_given(storm, capsys):
    target = storm.with_name("a.hdf5")
    options = (
        "--pixel-size-nm 100 --width 64 --height 48 --n-frames 9 --origin-px 0 --first-frame 0 --from thunderstorm"
    )
    assert main(["convert", str(storm), str(target), *options.split(), "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(target), str(target.with_suffix(".yaml"))]
    locs = read_table(target)
    assert locs.info == MovieInfo(9, 48, 64, 100.0, "storm")
    assert locs.x.tolist() == [0.5, 2.5]
    assert locs.frame.tolist() == [1, 3]


def test_a_pixel_size_in_micrometres_is_told(storm, capsys):
    assert main(["convert", str(storm), str(storm.with_name("a.hdf5")), "--pixel-size-nm", "0.16"]) == 0
    assert "--pixel-size-nm = 0.16 was given, but pixels are 10 to 2000 nm in the sample" in capsys.readouterr().out
    assert main(["convert", str(storm), str(storm.with_name("b.hdf5")), "--pixel-size-nm", "160"]) == 0
    assert "was given" not in capsys.readouterr().out


def test_losses_are_said(tmp_path, capsys):
    n = 4
    columns = {"frame": np.zeros(n), "x": np.arange(n), "y": np.arange(n), "sigma_x": np.ones(n), "sigma_y": np.ones(n)}
    Localizations({**columns, "probability": np.ones(n)}, MovieInfo(1, 9, 9, 100.0)).save(tmp_path / "a.hdf5")
    assert main(["convert", str(tmp_path / "a.hdf5"), str(tmp_path / "b.csv"), "--to", "challenge"]) == 0
    assert "the format has no place for them: sigma_x, sigma_y, probability" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "a.hdf5"), str(tmp_path / "c.csv"), "--to", "thunderstorm"]) == 0
    assert "sigma_x and sigma_y share uncertainty_xy: their root mean square is written" in capsys.readouterr().out
    with (tmp_path / "c.csv").open(encoding="utf-8", newline="") as stream:
        assert [float(row["x [nm]"]) for row in csv.DictReader(stream)] == [50, 150, 250, 350]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["storm.csv", "a.hdf5"], "give --pixel-size-nm"),
        (["nothing.csv", "a.hdf5"], "There is no file"),
        (["storm.csv", "a.txt"], "does not tell a table format"),
        (["storm.csv", "a.hdf5", "--to", "excel"], "Unknown table format 'excel'"),
        (["storm.csv", "a.hdf5", "--from", "excel"], "Unknown table format 'excel'"),
        (["storm.csv", "storm.csv", "--overwrite"], "is the table to read"),
        (["storm.csv", "there.csv", "--pixel-size-nm", "100"], "exists already"),
        (["storm.csv", "nowhere/a.csv", "--pixel-size-nm", "100"], "does not exist"),
        (["storm.csv", "a.hdf5", "--pixel-size-nm", "-3"], "must be > 0"),
        (["storm.csv", "a.hdf5", "--pixel-size-nm", "100", "--first-frame", "5"], "none of the 2 rows has"),
    ],
)
def test_one_clear_line_and_nothing_written(storm, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(storm.parent)
    (storm.parent / "there.csv").write_text("mine", encoding="utf-8")
    assert main(["convert", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert {path.name for path in storm.parent.iterdir()} == {"storm.csv", "there.csv"}
    assert storm.read_text(encoding="utf-8") == THUNDERSTORM
    assert (storm.parent / "there.csv").read_text(encoding="utf-8") == "mine"


def test_formats_are_listed(capsys):
    assert main(["convert", "--formats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(FORMATS)
    assert any("x = row" in line for line in lines)
