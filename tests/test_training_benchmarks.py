"""The benchmarks of trainings: they run, continue where they stopped, and compare seed by seed."""

import argparse
import importlib
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from smlm_pb.simulation import simulate
from smlm_pb.simulation.presets import density_sweep
from smlm_pb.simulation.scenes import SceneSettings, draw_scene
from smlm_pb.training.methods import DEFAULT_METHOD, METHODS

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture
def script(monkeypatch):
    """Import a script as if it were run from its folder, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    movie, truth = simulate(density_sweep(1.0, frames=3, size_px=32))
    tifffile.imwrite(folder / "movie.tif", movie, photometric="minisblack")
    truth.save(folder / "truth.csv", format="thunderstorm")
    return folder


def run(script, name, stack, out, *options):
    # What the camera is like is not estimated here from three frames.
    conditions = {"e_per_adu": 0.5, "psf_sigma_px": 1.1}
    script("_study_scores").Stack._conditions = lambda self, path: conditions
    paths = ("--movie", stack / "movie.tif", "--truth", stack / "truth.csv", "--cache", out / "cache", "--out", out)
    return script(name).main(["--quick", "--threads", "1", *map(str, (*paths, *options))])


def test_baselines_run_and_continue(script, stack, tmp_path, capsys):
    keys = "heatmap-matching,upsampling"
    assert run(script, "baselines", stack, tmp_path, "--only", keys) == 0
    record = json.loads((tmp_path / "baselines.json").read_text(encoding="utf-8"))
    assert set(record["results"]["runs"]) == set(keys.split(","))
    assert record["settings"]["seeds"] == 1
    assert all(len(row) == len(table["columns"]) for table in record["tables"] for row in table["rows"])
    assert (tmp_path / "baselines.png").stat().st_size > 5000
    assert not list((tmp_path / "cache").glob("*.running"))
    assert capsys.readouterr().out.count("s of training") == 2
    # Nothing is trained twice, and a run that another process does is left to it.
    (tmp_path / "cache" / "upsampling-seed0.json").unlink()
    (tmp_path / "cache" / "upsampling-seed0.running").touch()
    assert run(script, "baselines", stack, tmp_path, "--only", keys) == 0
    assert "s of training" not in capsys.readouterr().out
    old = tmp_path / "cache" / "upsampling-seed0.running"
    os.utime(old, (0, 0))
    assert run(script, "baselines", stack, tmp_path, "--only", keys) == 0
    assert capsys.readouterr().out.count("s of training") == 1


def test_ablations_run(script, stack, tmp_path):
    assert run(script, "ablations", stack, tmp_path, "--only", "heatmap-matching,n-1,lambda-0.4") == 0
    record = json.loads((tmp_path / "ablations.json").read_text(encoding="utf-8"))
    assert set(record["results"]["runs"]) == {DEFAULT_METHOD, "n-1", "lambda-0.4"}
    assert [len(table["rows"]) for table in record["tables"]] == [3, 2]
    assert all(len(row) == len(table["columns"]) for table in record["tables"] for row in table["rows"])


def test_every_arm_differs_in_what_it_says(script):
    ablations = script("ablations")
    study = {arm.key: arm for arm in ablations.arms()}
    base = study[ablations.BASE].experiment(0).model_dump()
    for key, arm in study.items():
        changed = {name for name, value in arm.experiment(0).model_dump().items() if value != base[name]}
        assert changed <= {"method", "loss", "network"}, key
        assert bool(changed) == (key != ablations.BASE), key
    assert study["lambda-0.4"].experiment(1).loss.bandwidth_px.end == 0.4
    assert study["lambda-2"].experiment(1).loss.bandwidth_px.start == 2.0
    assert study["count-3"].experiment(1).loss.count_weight.end == 3.0
    assert study["n-3"].experiment(1, steps=900).steps == 900


def test_methods_keep_their_own_defaults(script):
    study = {arm.key: arm for arm in script("baselines").arms()}
    assert list(study) == list(METHODS)
    paper, ours = (study[name].experiment(2) for name in ("paper", DEFAULT_METHOD))
    assert (paper.loss.bandwidth_px.end, paper.loss.tile_weight) == (0.2, 0.0)
    assert (ours.loss.bandwidth_px.end, ours.loss.tile_weight) == (0.3, 0.5)
    assert (paper.seed, paper.steps, paper.scenes) == (ours.seed, ours.steps, ours.scenes)


def test_all_arms_of_a_seed_see_the_same_scenes(script):
    trainings = script("_trainings")
    study = [*script("baselines").arms(), *script("ablations").arms()]
    begins = [{trainings.first_scenes(arm.experiment(seed)) for arm in study} for seed in (0, 1)]
    assert len(begins[0]) == len(begins[1]) == 1
    assert begins[0] != begins[1]


def test_differences_are_taken_seed_by_seed(script):
    trainings = script("_trainings")
    runs = {0: {"a": {"b": 0.5}}, 2: {"a": {"b": 0.9}}, 3: {"a": {"b": None}}}
    reference = {0: {"a": {"b": 0.4}}, 1: {"a": {"b": 0.1}}, 2: {"a": {"b": 1.0}}}
    assert trainings.paired(runs, reference, "a", "b") == pytest.approx([0.1, -0.1])
    assert math.isnan(trainings.values(runs, "a", "b")[2])


def test_noise_is_pooled_over_arms(script):
    trainings = script("_trainings")

    def runs(*scores):
        return {seed: {"j": score} for seed, score in enumerate(scores)}

    results = {"base": runs(0.5, 0.6, 0.7), "a": runs(0.5, 0.6, 0.8), "b": runs(0.7, 0.8), "c": runs(0.9)}
    # Differences 0, 0, .1 and .2, .2: a sum of squares of .02/3, two degrees of freedom and one.
    assert trainings.noise(results, "base", "j") == pytest.approx(math.sqrt(0.02 / 3 / 3))
    assert math.isnan(trainings.noise({"base": results["base"], "c": results["c"]}, "base", "j"))


def test_other_settings_are_trained_anew(script, tmp_path, monkeypatch):
    trainings = script("_trainings")
    args = argparse.Namespace(cache=tmp_path, quick=True, frames=5, steps=trainings.QUICK_STEPS)
    arm = trainings.Arm("x", "x")
    experiment = arm.experiment(0, steps=args.steps)
    record = {
        "experiment": experiment.model_dump(mode="json"),
        "first_scenes": trainings.first_scenes(experiment),
        "scored_on": trainings.scored_on(args),
        "scores": {"s": 1},
    }
    (tmp_path / "x-seed0.json").write_text(json.dumps(record))
    assert trainings.stored(arm, 0, args) == {"s": 1}
    assert trainings.stored(arm, 1, args) is None
    assert trainings.stored(trainings.Arm("x", "x", {"loss": {"tile_weight": 0.0}}), 0, args) is None
    monkeypatch.setattr(trainings, "first_scenes", lambda experiment: "others")
    assert trainings.stored(arm, 0, args) is None
    monkeypatch.undo()
    args.frames = 6
    assert trainings.stored(arm, 0, args) is None


def test_other_scores_need_no_other_training(script, stack, tmp_path, capsys):
    options = ("--only", "no-count")
    assert run(script, "baselines", stack, tmp_path, *options) == 0
    weights = tmp_path / "cache" / "no-count-seed0" / "arm" / "weights.safetensors"
    trained = weights.stat().st_mtime_ns
    assert run(script, "baselines", stack, tmp_path, *options, "--frames", "3") == 0
    assert capsys.readouterr().out.count("s of scoring") == 2
    assert weights.stat().st_mtime_ns == trained


def test_exact_scenes_hold_nothing_but_the_movie(script):
    fine_tune = script("fine_tune")
    settings = SceneSettings(**fine_tune._exact_scenes(1.6))
    scenes = [draw_scene(np.random.default_rng(seed), settings, 48) for seed in range(20)]
    assert {scene.psf_sigma_px for scene in scenes} == {fine_tune.PSF_SIGMA_PX}
    assert all(np.ptp(scene.background) == 0 for scene in scenes)
    assert np.mean([scene.background.mean() for scene in scenes]) == pytest.approx(fine_tune.BACKGROUND_E)
    photons = np.concatenate([scene.photons for scene in scenes])
    assert photons.mean() == pytest.approx(fine_tune.PHOTONS, rel=0.1)
    per_um2 = len(photons) / (20 * 4.8**2)
    assert per_um2 == pytest.approx(fine_tune.DENSITY_PER_UM2, rel=0.15)


def test_time_to_most_of_a_gain(script):
    fine_tune = script("fine_tune")
    assert fine_tune._time_to([(1, 0.5), (2, 0.6), (3, 0.69), (4, 0.7), (5, 0.68)], 0.9) == 3
    assert fine_tune._time_to([(1, 0.5), (2, 0.5), (3, 0.4)], 0.95) is None


# ---- optimizers


def a_curve(*losses, kind="nothing", optimizer="adamw", rate=1e-3, seed=0):
    """A run with a loss every ten steps, and a Jaccard index that rises as it falls."""
    curve = [{"step": 10 * k, "loss": loss, "jaccard": 1 - loss / 10} for k, loss in enumerate(losses)]
    times = {"step_s": 0.06, "optimizer_ms": 1.0, "steps_done": 10 * (len(losses) - 1)}
    return {"kind": kind, "optimizer": optimizer, "learning_rate": rate, "seed": seed, "curve": curve, **times}


def test_optimizers_are_compared_and_continue(script, tmp_path, monkeypatch, capsys):
    optimizers = script("optimizers")
    monkeypatch.setattr(script("_taught"), "QUICK_RESULTS", tmp_path)
    monkeypatch.setattr(optimizers, "ADAMW_RATES", (1e-3,))
    monkeypatch.setattr(optimizers, "MUON_RATES", (1e-3,))
    monkeypatch.setattr(optimizers, "FAR_RATES", ())
    for kind in ("example", "positions"):
        monkeypatch.delitem(optimizers.KINDS, kind)
    options = ["--quick", "--threads", "1", "--out", str(tmp_path)]
    assert optimizers.main([*options, "--only", "nothing"]) == 0
    assert not (tmp_path / "optimizers.json").exists()
    trained = capsys.readouterr().out.count('"origin"')
    assert optimizers.main(options) == 0
    assert trained == 2
    assert capsys.readouterr().out.count('"origin"') == 6
    record = json.loads((tmp_path / "optimizers.json").read_text(encoding="utf-8"))
    arms = {(arm["kind"], arm["optimizer"]): arm["runs"]["0"] for arm in reversed(record["results"]["arms"])}
    assert {kind for kind, _ in arms} == {"nothing", "counts", "fine-tune"}
    for kind in ("nothing", "counts", "fine-tune"):
        curves = [arms[kind, name]["curve"] for name in ("adamw", "muon")]
        assert curves[0][0] == curves[1][0]  # the same start, judged on the same scenes
        assert curves[0][-1]["loss"] != curves[1][-1]["loss"]
    assert all(len(row) == len(table["columns"]) for table in record["tables"] for row in table["rows"])
    assert (tmp_path / "optimizers.png").stat().st_size > 5000


def test_steps_to_a_loss_lie_between_the_points_of_a_curve(script):
    optimizers = script("optimizers")
    run = a_curve(9.0, 5.0, 3.0, 4.0)
    assert optimizers._steps_to(run, 4.0, "loss") == pytest.approx(15)
    assert optimizers._steps_to(run, 0.7, "jaccard", rising=True) == pytest.approx(20)
    assert math.isnan(optimizers._steps_to(run, 2.0, "loss"))


def test_muon_is_held_against_adamws_best_rate(script):
    optimizers = script("optimizers")
    runs = [
        a_curve(9.0, 6.0, final, rate=rate, seed=seed) for rate, final in ((1e-3, 5.0), (2e-3, 4.0)) for seed in (0, 1)
    ]
    runs += [a_curve(9.0, 4.0, 3.0 + 2 * seed, optimizer="muon", seed=seed) for seed in (0, 1)]
    runs += [
        a_curve(9.0, final, kind="fine-tune", optimizer=name, rate=rate)
        for name, rate, final in (("adamw", 1e-3, 5.0), ("adamw", 2e-3, 4.5), ("muon", 1e-3, 4.0))
    ]
    arms = optimizers._arms(runs)
    assert optimizers._best_adamw(arms) == ("nothing", "adamw", 2e-3)
    rows = {row[0]: row for row in optimizers._table(arms).rows}
    assert rows["AdamW, 0.002"][4] == "–"
    assert rows["AdamW, 0.001"][4] == "never"
    assert rows["Muon, 0.001 (0.002 for convolutions)"][4] == "10 ± 0"
    assert [row[-1] for row in optimizers._proposed_table(arms).rows] == ["0.050"]
    assert optimizers._reached([10.0, math.nan]) == "10 (1 of 2 seeds)"
