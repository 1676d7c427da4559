"""The benchmarks: each runs, and its figures mean what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from smlm_pb.errors import ConfigurationError
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation import simulate
from smlm_pb.simulation.presets import density_sweep


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Make a folder with an untrained network that reports candidates everywhere, or nowhere."""
    import torch

    from smlm_pb.networks import build_network
    from smlm_pb.training.experiment import Experiment
    from smlm_pb.training.export import export_model

    def make(start_logit):
        folder = tmp_path_factory.mktemp("model")
        network = {"channels": 8, "blocks": 1, "n_candidates": 1, "start_logit": start_logit}
        experiment = Experiment.model_validate({"name": "tiny", "steps": 1, "network": network})
        torch.manual_seed(0)
        net = build_network(experiment.network)
        return export_model(net, experiment, folder, steps=1, seconds=1.0, validation=None, command="")

    return {"busy": make(-0.5), "silent": make(-12.0)}


@pytest.fixture(scope="session")
def movie_and_truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movie")
    movie, truth = simulate(density_sweep(0.5, frames=16, size_px=48))
    tifffile.imwrite(folder / "movie.tif", movie, photometric="minisblack")
    truth.save(folder / "truth.csv", format="thunderstorm")
    truth.save(folder / "picasso.hdf5", format="picasso")
    return folder


def run_quick(script, name, model, out, *options):
    assert script(name).main(["--quick", "--model", str(model), "--out", str(out), *map(str, options)]) == 0
    record = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    assert (out / f"{name}.png").stat().st_size > 5000
    assert record["quick"]
    assert str(Path(model).parent) not in json.dumps(record), "results name folders of one machine"
    assert all(len(row) == len(table["columns"]) for table in record["tables"] for row in table["rows"])
    return record


@pytest.mark.parametrize("kind", ["busy", "silent"])
@pytest.mark.parametrize("name", ["density_sweep", "isolated", "blank"])
def test_simulated_benchmarks_run(script, tiny_model, tmp_path, name, kind):
    record = run_quick(script, name, tiny_model[kind], tmp_path)
    assert record["model"]["name"] == "tiny"
    assert record["settings"]["seeds"] == 1
    if name == "blank":
        false = [point["false_molecules"]["automatic"] for point in record["results"]]
        assert (sum(false) > 0) == (kind == "busy")


def test_microtubules_run(script, tiny_model, movie_and_truth, tmp_path):
    paths = ("--movie", movie_and_truth / "movie.tif", "--truth", movie_and_truth / "truth.csv")
    record = run_quick(script, "microtubules", tiny_model["busy"], tmp_path, *paths)
    rows = record["results"]["tolerances"]
    assert [row["tolerance_nm"] for row in rows] == [25, 50, 100]
    assert all(row["best_jaccard"] >= 0 and row["chance_jaccard"] is not None for row in rows)
    assert record["results"]["facts"]["origin"]["e_per_adu"] == "estimated"


def test_information_runs(script, tiny_model, movie_and_truth, tmp_path):
    paths = ("--movie", movie_and_truth / "movie.tif", "--truth", movie_and_truth / "truth.csv")
    options = [*paths, "--models", tiny_model["silent"], tiny_model["busy"], "--threads", 1]
    assert script("information").main(["--quick", "--out", str(tmp_path), *map(str, options)]) == 0
    record = json.loads((tmp_path / "information.json").read_text(encoding="utf-8"))
    assert len(record["results"]["crowds"]) == 10
    assert all(0 <= j <= 1 for row in record["results"]["crowds"] for j in row["jaccard"].values())
    assert all(len(row) == len(table["columns"]) for table in record["tables"] for row in table["rows"])
    assert (tmp_path / "information.png").stat().st_size > 5000


def test_picasso_movie_runs(script, tiny_model, movie_and_truth, tmp_path):
    paths = ("--movie", movie_and_truth / "movie.tif", "--picasso-table", movie_and_truth / "picasso.hdf5")
    record = run_quick(script, "picasso_movie", tiny_model["busy"], tmp_path, *paths, "--offset-adu", 100)
    assert record["results"]["picasso"] > 0


def test_startup_runs(script, tiny_model, tmp_path):
    record = run_quick(script, "startup", tiny_model["busy"], tmp_path)
    seconds = record["results"]["median_s"]
    assert seconds["localize: first molecules"] <= seconds["localize: finished file (6 frames)"]


def test_throughput_runs(script, tiny_model, tmp_path):
    record = run_quick(script, "throughput", tiny_model["silent"], tmp_path)
    assert record["results"]["memory"][0]["peak_mb"] > 50
    assert all(row["frames_per_s"] > 0 for row in record["results"]["end_to_end"])


def test_arithmetic_is_compared(script, tiny_model, tmp_path):
    record = run_quick(script, "arithmetic", tiny_model["busy"], tmp_path, "--repeats", 1)
    exact, *others = record["results"]
    assert exact["arithmetic"] == "float32"
    assert exact["moved"] == [0.0]
    assert exact["speed_up"] == 1.0
    for point in others:
        assert point["speed_up"] > 0
        assert abs(point["repetitions"][0]["jaccard"] - exact["repetitions"][0]["jaccard"]) < 0.1


def test_steps_are_timed(script, tmp_path):
    assert script("steps").main(["--quick", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "steps.json").read_text(encoding="utf-8"))
    assert {p["unit"] for p in record["results"]} == {"frames", "molecules", "scenes"}
    assert all(p["per_second"] == pytest.approx(p["amount"] / p["seconds"], rel=1e-3) for p in record["results"])
    assert (tmp_path / "steps.png").stat().st_size > 5000


def test_workers_run(script, tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    record = run_quick(script, "workers", tiny_model["silent"], tmp_path)
    assert set(record["results"]["seconds"]) == {"1", "2"}


def test_killed_runs_end_alike(script, tiny_model, tmp_path):
    record = run_quick(script, "kill_and_resume", tiny_model["busy"], tmp_path)
    assert record["results"]["identical"] == 2
    assert not any(run["left_over"] for run in record["results"]["runs"])


def test_a_card_names_the_goals_that_are_missed(script):
    goals_missed = script("update_cards").goals_missed
    stack = {"jaccard_25nm": 0.42, "jaccard_50nm": 0.76, "jaccard_100nm": 0.1}
    assert goals_missed(stack) == {"jaccard_25nm_goal": 0.45}
    sweep = {"jaccard_100nm_at_0.25_per_um2": 0.997, "jaccard_100nm_at_6_per_um2": 0.99}
    assert goals_missed(sweep) == {"jaccard_100nm_at_0.25_per_um2_goal": 0.998}
    alone = {"rmse_over_bound_sigma_0.9px": 1.2, "worst_rmse_over_bound_sigma_0.9px": 1.06}
    assert goals_missed(alone) == {"worst_rmse_over_bound_sigma_0.9px_goal": 1.05}
    assert goals_missed({"false_per_1000_frames_background_10": 0.5, "clean": 0.3}) == {
        "false_per_1000_frames_background_10_goal": 0.5
    }


def test_a_truth_that_is_found_scores_one(script):
    """The scores of a sweep, for a run that returns the truth itself with honest errors."""
    runs = script("_runs")
    _, truth = simulate(density_sweep(0.5, frames=40, size_px=64))
    rng = np.random.default_rng(1)
    moved = {axis: truth[axis] + rng.normal(0, 0.05, len(truth)) for axis in "xy"}
    columns = {"sigma_x": 0.05, "sigma_y": 0.05, "probability": 1.0}
    found = truth.with_columns(**moved, **columns)
    run = runs.Run(found, found, 0.5, 1.0, {}, (), 1.0)
    scores = runs.score(run, truth, tolerance_nm=100, border_nm=400)
    assert scores["jaccard"] == scores["jaccard_inner"] == scores["best_jaccard"] == 1.0
    assert scores["pull"] == pytest.approx(1.0, abs=0.05)
    assert scores["rmse_nm"] == pytest.approx(5.0, rel=0.05)
    assert scores["robust_error_nm"] == pytest.approx(5.0, rel=0.08)
    assert scores["calibration_error"] == 0.0


def test_half_a_pixel_is_noticed(script):
    compare = script("picasso_movie").compare
    rng = np.random.default_rng(2)
    info = MovieInfo(50, 32, 32, 160.0)
    columns = {"frame": np.repeat(np.arange(50), 4), "x": rng.uniform(3, 28, 200), "y": rng.uniform(3, 28, 200)}
    columns |= {"photons": np.full(200, 5000.0), "sigma_x": np.full(200, 0.02), "sigma_y": np.full(200, 0.02)}
    theirs = Localizations(columns, info)
    same = compare(theirs, theirs)
    assert same["found"] == 1.0
    assert same["median_distance_px"] == 0.0
    assert same["convention"] == "the same"
    shifted = compare(theirs.with_columns(x=theirs.x + 0.5, y=theirs.y + 0.5), theirs)
    assert shifted["median_dx_px"] == pytest.approx(0.5, abs=1e-5)
    assert "corner of the first pixel" in shifted["convention"]


def test_attraction_to_the_pixel_centre_is_noticed(script):
    flatness = script("isolated").subpixel_flatness
    even = np.random.default_rng(3).uniform(-0.5, 0.5, (20_000, 2))
    assert flatness(even)["x"]["p_value"] > 0.01
    drawn = even - 0.02 * np.sin(2 * np.pi * even)
    result = flatness(drawn)
    assert result["y"]["p_value"] < 1e-4
    assert result["y"]["largest_deviation"] > 3 * result["y"]["expected_deviation"]


def test_upper_limit_of_nothing_seen_is_three(script):
    assert script("blank").upper_limit(0) == pytest.approx(-np.log(0.05))
    assert script("blank").upper_limit(3) > 7


@pytest.mark.parametrize(
    ("kind", "weights", "gflop"), [("DecodeSized", 2.199e6, 8.53), ("LiteLocSized", 1.332e6, 3.49)]
)
def test_stand_ins_are_as_large_as_the_originals(script, kind, weights, gflop):
    stand_ins = script("_stand_ins")
    measured = stand_ins.weights_and_gflop(getattr(stand_ins, kind)().eval())
    assert measured[0] == pytest.approx(weights, rel=0.03)
    assert measured[1] == pytest.approx(gflop, rel=0.03)


def test_picasso_that_finds_nothing_gives_empty_tables(script, tmp_path):
    picasso = script("_picasso")
    movie = np.zeros((2, 8, 8), np.uint16)
    options = {"offset_adu": 100, "e_per_adu": 0.5, "pixel_size_nm": 100}
    settings = picasso.PicassoSettings("lq", 5, 5000)
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n', encoding="utf-8")
    fake.chmod(0o755)
    tables = picasso.run_picasso(fake, {"a": movie}, settings, **options)
    assert len(tables["a"]) == 0
    assert tables["a"].info.n_frames == 2
    assert "-g 5000 -bl 100 -s 0.5" in (tmp_path / "asked").read_text()
    fake.write_text("#!/bin/sh\necho broken >&2\nexit 3\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="broken"):
        picasso.run_picasso(fake, {"a": movie}, settings, **options)
    with pytest.raises(ConfigurationError, match="cannot be run"):
        picasso.run_picasso(tmp_path / "nothing", {"a": movie}, settings, **options)


def test_numbers_for_people(script):
    report = script("_report")
    assert report.spread([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"
    assert report.spread([float("nan")]) == report.number(None) == "–"
    assert report.mean([1.0, None, 3.0, float("nan")]) == 2.0
    plain = json.loads(
        report.to_json({"a": np.array([1, 2]), "b": [{"c": float("nan")}], "d": np.float32(0.5), "e": ()})
    )
    assert plain == {"a": [1, 2], "b": [{"c": None}], "d": 0.5, "e": []}
    lines = report.Table("t", ("name", "J"), [("a", "0.5"), ("longer", "1")]).text().splitlines()
    assert lines[1:] == ["name      J", "-----------", "a       0.5", "longer    1"]


def test_the_page_shows_the_results(script, tiny_model, tmp_path):
    run_quick(script, "blank", tiny_model["silent"], tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- results: blank -->\nold\n<!-- end -->\nB <!-- results: absent -->\n<!-- end -->\n")
    write_page = script("write_page").main
    write_page(["--page", str(page), "--results", str(tmp_path)])
    text = page.read_text(encoding="utf-8")
    assert "\nold\n" not in text
    assert "| background (e⁻/px) | frames |" in text
    assert "![blank](blank.png)" in text
    assert text.endswith("B <!-- results: absent -->\n<!-- end -->\n")
    write_page(["--page", str(page), "--results", str(tmp_path)])
    assert page.read_text(encoding="utf-8") == text


def test_the_pages_are_those_of_the_results(script):
    """Whoever publishes results also rewrites the pages."""
    write_page = script("write_page")
    shown = set()
    for page in sorted(write_page.DOCS.rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        for place, name, end in write_page._PLACE.findall(before):
            expected = write_page.section(name, write_page.RESULTS, page)
            assert f"{place}{expected}{end}" in before, f"run python benchmarks/write_page.py: {page.name}, {name}"
            shown.add(name)
    assert {"density_sweep", "isolated", "blank", "microtubules", "picasso_movie"} <= shown
