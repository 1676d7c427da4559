"""``smlm-pb evaluate``: what it prints, writes and refuses."""

import json
import warnings

import numpy as np
import pytest

from smlm_pb.cli.main import main
from smlm_pb.localizations import Localizations, MovieInfo


@pytest.fixture
def tables(tmp_path):
    rng = np.random.default_rng(0)
    info = MovieInfo(50, 64, 64, 100.0)
    n = 1000
    truth = Localizations(
        {
            "frame": np.arange(n) // 20,
            "x": rng.uniform(0, 63, n),
            "y": rng.uniform(0, 63, n),
            "photons": rng.uniform(100, 2000, n),
        },
        info,
    )
    found = truth.select(rng.random(n) < 0.9)
    found = found.with_columns(
        x=found.x + rng.normal(0, 0.1, len(found)),
        y=found.y + rng.normal(0, 0.1, len(found)),
        sigma_x=0.1,
        sigma_y=0.1,
        probability=np.full(len(found), 0.93),
    )
    pred_path, truth_path = tmp_path / "found_locs.hdf5", tmp_path / "truth.hdf5"
    found.save(pred_path)
    truth.save(truth_path)
    return str(pred_path), str(truth_path)


def test_table_shows_scores_and_chance(tables, capsys):
    assert main(["evaluate", *tables, "--tolerance-nm", "50", "25"]) == 0

    printed = capsys.readouterr().out
    assert "chance J" in printed
    assert [line.split()[0] for line in printed.splitlines() if line.strip()[:2] in ("25", "50")] == ["25", "50"]


def test_json_holds_the_same_numbers(tables, capsys, tmp_path):
    out = tmp_path / "scores.json"
    assert main(["evaluate", *tables, "--tolerance-nm", "50", "--json", "--out", str(out), "--calibration"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.read_text())
    scores = report["scores"][0]
    assert scores["tolerance_nm"] == 50
    assert 0.8 < scores["jaccard"] <= 0.95
    assert scores["chance_jaccard"] < 0.1
    assert scores["pull_std_x"] == pytest.approx(1, abs=0.1)
    assert report["calibration"]["reliability"]["count"][-1] > 800
    assert report["calibration"]["best_threshold"][0]["best_jaccard"] == pytest.approx(scores["jaccard"])


def test_options_reach_the_evaluation(tables, capsys):
    options = ["--matching", "greedy", "--border-nm", "450", "--min-photons", "500", "--rolls", "2", "--json"]
    assert main(["evaluate", *tables, "--tolerance-nm", "100", *options, "--border-rule", "exclude"]) == 0

    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["matching"] == "greedy"
    assert settings["border_nm"] == 450
    assert settings["border_rule"] == "exclude"
    assert settings["min_photons"] == 500
    assert settings["n_rolls"] == 2


def test_min_probability_drops_predictions(tables, capsys):
    assert main(["evaluate", *tables, "--min-probability", "0.95", "--json", "--no-chance"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["n_pred"] == 0
    assert report["scores"][0]["chance_jaccard"] is None
    assert [entry["tolerance_nm"] for entry in report["scores"]] == [25, 50, 100, 250]


def test_calibration_is_printed_for_people(tables, capsys):
    assert main(["evaluate", *tables, "--calibration"]) == 0

    printed = capsys.readouterr().out
    assert "Best threshold at 25 nm" in printed
    assert "Pull at" in printed


def test_half_pixel_is_warned_of_in_one_line(tables, capsys, tmp_path):
    moved = Localizations.load(tables[0])
    moved = moved.with_columns(x=moved.x + 0.5, y=moved.y + 0.5)
    path = tmp_path / "moved.hdf5"
    moved.save(path)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["evaluate", str(path), tables[1], "--json"]) == 0
        as_json = capsys.readouterr()
        assert main(["evaluate", str(path), tables[1]]) == 0
        as_table = capsys.readouterr()

    assert as_json.err.count("\n") == 1
    assert "moving them by (-0.5, -0.5) px" in as_json.err
    assert "Note: The predictions fit the truth better" in as_table.out
    assert as_table.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv"], "does not exist"),
        (["--tolerance-nm", "0"], "must be > 0"),
        (["--border-nm", "5000"], "leaves nothing"),
        (["--matching", "nearest"], "invalid choice"),
        (["--min-probability", "1.5"], "between 0 and 1"),
    ],
)
def test_wrong_input_ends_in_one_line(tables, capsys, arguments, message):
    files = [*arguments, tables[1]] if arguments[0].endswith(".csv") else [*tables, *arguments]
    assert main(["evaluate", *files]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_existing_report_is_kept(tables, capsys, tmp_path):
    out = tmp_path / "scores.json"
    out.write_text("precious")
    assert main(["evaluate", *tables, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert main(["evaluate", *tables, "--out", str(out), "--overwrite"]) == 0
    json.loads(out.read_text())


def test_unreadable_truth_is_named(tables, capsys, tmp_path):
    broken = tmp_path / "truth.csv"
    broken.write_text("nothing useful\n")
    assert main(["evaluate", tables[0], str(broken)]) == 2
    assert "truth.csv" in capsys.readouterr().err
