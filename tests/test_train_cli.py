"""``smlm-pb train``: from an experiment file to a model that localizes; stopped and continued."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from smlm_pb.cli import main as cli
from smlm_pb.localization import load_model
from smlm_pb.training import Experiment

ROOT = Path(__file__).parents[1]
EXPERIMENT = {
    "name": "tiny",
    "description": "For tests",
    "steps": 6,
    "batch_size": 2,
    "crop_px": 16,
    "workers": 0,
    "network": {"channels": 4, "blocks": 1},
    "validation": {"every_steps": 3, "scenes": 3},
    "checkpoint_every_steps": 2,
}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run ``smlm-pb train`` on the tiny experiment with changes; returns code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **changes):
        Path("tiny.yaml").write_text(yaml.safe_dump({**EXPERIMENT, **changes}))
        capsys.readouterr()
        code = cli.main(["train", "tiny.yaml", "--out", "run", *arguments])
        return code, *capsys.readouterr()

    return run


def test_from_experiment_to_model(run, monkeypatch):
    monkeypatch.setattr("sys.argv", ["smlm-pb", "train", "tiny.yaml"])
    code, out, err = run()
    assert code == 0
    assert out == "model: run/tiny  (smlm-pb localize --model run/tiny)\n"
    assert "step 3: loss " in err
    assert "Jaccard" in err
    assert "finished 6/6 steps" in err
    card = load_model("run/tiny", "cpu").card
    assert (card.name, card.description, card.training["steps"]) == ("tiny", "For tests", 6)
    assert card.training["command"] == "smlm-pb train tiny.yaml"
    history = json.loads(Path("run/history.json").read_text())
    assert [entry["step"] for entry in history] == [3, 6]
    assert Path("run/progress.png").read_bytes().startswith(b"\x89PNG")


def test_progress_for_scripts_counts_steps(run, monkeypatch):
    from smlm_pb.cli import progress

    monkeypatch.setattr(progress, "_JSON_INTERVAL_S", 0.0)
    _, _, err = run("--progress", "json")
    reports = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [report["done"] for report in reports] == [1, 2, 3, 4, 5, 6, 6]
    assert all(report["total"] == 6 for report in reports)


def test_the_clock_stops_a_run_that_resume_completes(run):
    code, _, err = run("--max-minutes", "1e-9")
    assert code == 0
    assert "time is up after 1 of 6 steps" in err
    assert "--resume' continues" in err
    code, _, err = run("--resume")
    assert code == 0
    assert "finished 6/6 steps" in err
    assert load_model("run/tiny", "cpu").card.training["steps"] == 6


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_ctrl_c_keeps_the_best_model_and_says_so(tmp_path, number):
    """The signal goes to all processes, as it does in a terminal."""
    if not hasattr(os, "killpg"):
        pytest.skip("no process groups on this system")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "steps": 100_000, "workers": 1}))
    with subprocess.Popen(
        [sys.executable, "-m", "smlm_pb", "train", "tiny.yaml", "--out", "run", "--progress", "lines"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        seen = [next(line for line in process.stderr if "loss" in line)]
        os.killpg(process.pid, getattr(signal, number))
        seen += process.stderr.readlines()
        out = process.stdout.read()
    err = "".join(seen)
    assert process.returncode == 130
    assert "stopped after" in err
    assert "the best model so far is kept" in err
    assert "Traceback" not in err
    assert out.startswith("model: run/tiny")
    assert load_model(tmp_path / "run" / "tiny", "cpu").card.training["steps"] >= 3


def test_a_run_that_is_there_is_not_replaced(run):
    assert run()[0] == 0
    before = Path("run/checkpoint.safetensors").read_bytes()
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "--resume" in err
    assert err.count("\n") == 1
    assert Path("run/checkpoint.safetensors").read_bytes() == before


def test_resume_refuses_another_experiment_by_name(run):
    assert run("--max-minutes", "1e-9")[0] == 0
    code, _, err = run("--resume", learning_rate=2e-3)
    assert code == 2
    assert "'learning_rate'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": -1}, ["learning_rate", "-1"]),
        ({"lerning_rate": 1e-3}, ["lerning_rate"]),
        ({"network": {"channels": 4, "depth": 3}}, ["depth"]),
        ({"name": "my model"}, ["name", "my model"]),
        ({"scenes": {"photons": [500, 100]}}, ["photons"]),
    ],
)
def test_wrong_experiments_are_one_line_before_anything_starts(run, changes, words):
    code, _, err = run(**changes)
    assert code == 2
    assert err.count("\n") == 1, err
    assert all(word in err for word in words), err
    assert not Path("run").exists()


def test_a_missing_experiment_and_a_missing_folder_are_usage_errors(run, capsys):
    assert cli.main(["train", "gone.yaml", "--out", "run"]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert run()[0] == 0
    assert cli.main(["train", "tiny.yaml"]) == 2
    assert "--out" in capsys.readouterr().err


def test_nothing_to_resume(run):
    code, _, err = run("--resume")
    assert code == 2
    assert "without --resume" in err


def test_the_example_experiment_is_valid():
    experiment = Experiment.from_yaml(ROOT / "examples" / "experiment.yaml")
    assert experiment.name == "my-microscope"
    text = (ROOT / "examples" / "experiment.yaml").read_text(encoding="utf-8")
    assert f"runs/{experiment.name}/{experiment.name}" in text
