"""Benchmarks of many parts: what is done is kept, what belongs to other scenes or models is not taken for it."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
KEYS = [{"kind": kind, "seed": seed} for seed in range(2) for kind in ("one", "other")]


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Import a script as if it were run from its folder, with a place of its own to keep parts in."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("_kept", "_taught"):
        monkeypatch.setattr(importlib.import_module(name), "QUICK_RESULTS", tmp_path)
    yield importlib.import_module
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


class Trainings:
    """Stands for trainings, and counts them."""

    def __init__(self):
        self.done = []

    def __call__(self, folder, args, *, kind, seed):
        assert not list(folder.iterdir())
        (folder / "movie.npy").touch()
        self.done.append((kind, seed))
        return {"score": len(self.done), "places": folder.name}


def options(script, *given):
    taught = script("_taught")
    return taught.parse_taught(taught.taught_parser("what", steps=10), list(given))


def test_trainings_go_on_where_they_stopped(script, capsys):
    taught, trainings = script("_taught").taught, Trainings()
    assert taught("name", options(script, "--at-most", "3"), KEYS, trainings) is None
    assert "run again" in capsys.readouterr().out
    runs = taught("name", options(script), KEYS, trainings)
    assert trainings.done == [(key["kind"], key["seed"]) for key in KEYS]
    assert [run["score"] for run in runs] == [1, 2, 3, 4]
    assert [{name: run[name] for name in key} for run, key in zip(runs, KEYS, strict=True)] == KEYS
    assert taught("name", options(script, "--at-most", "0"), KEYS, trainings) == runs


def test_what_is_there_can_be_published(script):
    taught, trainings = script("_taught").taught, Trainings()
    assert taught("name", options(script, "--at-most", "0", "--partial"), KEYS, trainings) is None
    assert len(taught("name", options(script, "--at-most", "1", "--partial"), KEYS, trainings)) == 1


@pytest.mark.parametrize("changed", ["steps", "settings", "model"])
def test_other_settings_are_other_trainings(script, changed):
    taught, trainings = script("_taught").taught, Trainings()
    taught("name", options(script), KEYS[:1], trainings, settings={"weight": 0.1})
    steps = ("--steps", "11") if changed == "steps" else ()
    taught(
        "name",
        options(script, *steps),
        KEYS[:1],
        trainings,
        settings={"weight": 0.2 if changed == "settings" else 0.1},
        models=["fast"] if changed == "model" else [],
    )
    assert len(trainings.done) == 2


def test_other_scenes_are_another_origin(script, monkeypatch):
    origin = script("_kept").origin
    before = origin()
    assert origin() == before
    assert len({before, origin("fast"), origin("fast", "default")}) == 3
    scenes = importlib.import_module("smlm_pb.simulation.scenes")
    monkeypatch.setattr(scenes, "log_uniform", lambda rng, low, high: low)
    origin.cache_clear()
    assert origin() != before


def test_parts_are_measured_once(script):
    module, measured = script("_kept"), []

    def measure():
        measured.append(1)
        return {"value": (1, 2), "none": float("nan")}

    assert not module.is_kept("name", "part")
    first = module.kept("name", "part", measure)
    assert module.is_kept("name", "part")
    assert first == module.kept("name", "part", measure) == {"value": [1, 2], "none": None}
    assert len(measured) == 1
