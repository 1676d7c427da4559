"""Training: it learns, repeats exactly, continues exactly, survives faults, and leaves a model that can be used."""

import errno
import json
import math
import re
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from marks import NEEDS_CARD
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from smlm_pb.errors import Cancelled, ConfigurationError, OutputError
from smlm_pb.localization import load_model
from smlm_pb.networks import PointField
from smlm_pb.simulation.scenes import SceneSettings, draw_scene
from smlm_pb.training import Experiment, crop_source, train
from smlm_pb.training import loop as training_loop
from smlm_pb.training import progress as training_progress
from smlm_pb.training.batches import Batch, batch_stream, collate
from smlm_pb.training.crop_source import SimulatedScenes, SourceBatches
from smlm_pb.training.experiment import LossSettings, Schedule
from smlm_pb.training.loop import Trainer, learning_rate
from smlm_pb.training.methods.heatmap_matching import HeatmapMatching
from smlm_pb.training.objective import matched_terms, objective
from smlm_pb.training.progress import write_history
from smlm_pb.training.validation import ValidationResult, validate, validation_scenes

CPU = torch.device("cpu")
TINY = {
    "name": "tiny",
    "seed": 5,
    "steps": 6,
    "batch_size": 2,
    "crop_px": 16,
    "workers": 0,
    "checkpoint_every_steps": 100,
    "network": {"channels": 8, "blocks": 1, "start_logit": -1.0},
    "scenes": {"empty_fraction": 0.1, "sparse_fraction": 0.2},
    "validation": {"every_steps": 3, "scenes": 4, "calibration_scenes": 0},
}


def tiny(**changes):
    return Experiment.from_dict({**TINY, **changes})


def run(folder, experiment=None, **options):
    return train(experiment or tiny(), folder, device="cpu", **options)


def weights(folder):
    return load_model(folder, "cpu").network.state_dict()


def assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def a_result(jaccard):
    return ValidationResult(0.5, jaccard, 0.5, 0.5, 0.1, 1.0, jaccard, 0.0)


def stop_after(steps):
    """An ``on_step`` and a ``should_stop`` that end a run after so many steps."""
    done = []
    return {"on_step": lambda step, of, terms: done.append(step), "should_stop": lambda: len(done) >= steps}


@pytest.fixture
def real_figure():
    """For tests that look at the figure."""


@pytest.fixture(autouse=True)
def quick_figure(request, monkeypatch):
    """Drawing takes longer than training here; done in earnest where it is tested, and by ``finished``."""
    if "real_figure" not in request.fixturenames:
        monkeypatch.setattr(training_progress, "_draw", lambda path, history: path.write_bytes(b"figure"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that went through, and what it reported."""
    folder, steps, validations = tmp_path_factory.mktemp("run"), [], []
    result = run(
        folder,
        command="smlm-pb train tiny.yaml",
        on_step=lambda step, of, terms: steps.append((step, of, terms)),
        on_validation=lambda step, result: validations.append((step, result)),
    )
    return folder, result, steps, validations


# ---- a run


def test_a_run_reports_and_leaves_its_files(finished):
    folder, result, steps, validations = finished
    assert [step for step, _, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert {of for _, of, _ in steps} == {6}
    assert set(steps[0][2]) == {"total", "matching", "count", "tile_count", "position", "photons", "background"}
    assert [step for step, _ in validations] == [3, 6]
    assert result.steps == 6
    assert result.model_folder == folder / "tiny"
    assert result.validation in [outcome for _, outcome in validations]
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    model_files = {"weights.safetensors", "card.json", "experiment.yaml"}
    assert names == {"checkpoint.safetensors", "history.json", "progress.png"} | model_files


def test_history_and_figure(finished):
    folder, _, steps, validations = finished
    text = (folder / "history.json").read_text()
    history = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [entry["step"] for entry in history] == [3, 6]
    expected = np.mean([terms["total"] for _, _, terms in steps[3:]])
    assert history[1]["loss"]["total"] == pytest.approx(expected)
    assert history[1]["validation"]["jaccard"] == validations[1][1].jaccard
    assert (folder / "progress.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "progress.png").stat().st_size > 5000


def test_the_figure_stands_missing_values(tmp_path, real_figure):
    loss = {"matching": 1.0, "count": math.nan, "tile_count": 0.0}
    scores = {**a_result(0.0).as_dict(), "rmse_px": math.nan, "pull": math.nan}
    write_history(tmp_path, [{"step": 1, "loss": loss, "validation": scores}] * 2)
    assert json.loads((tmp_path / "history.json").read_text())[0]["validation"]["pull"] is None
    assert (tmp_path / "progress.png").exists()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_falls(tmp_path, optimizer):
    totals = []
    steady = {"start": 0.9, "end": 0.9}
    experiment = tiny(
        steps=50,
        batch_size=3,
        optimizer=optimizer,
        learning_rate=5e-3,
        warmup=0.1,
        loss={"bandwidth_px": steady, "count_weight": steady},
        scenes={"background_e": [40, 60], "structured_background_fraction": 0.0},  # or luck decides
        validation={"every_steps": 50, "scenes": 2},
    )
    run(tmp_path, experiment, on_step=lambda step, of, terms: totals.append(terms))
    for name in ("matching", "background", "count"):
        assert np.mean([t[name] for t in totals[-15:]]) < 0.8 * np.mean([t[name] for t in totals[:5]]), name


def test_same_seed_same_weights(tmp_path, finished):
    again = run(tmp_path / "a")
    assert_equal_weights(weights(again.model_folder), weights(finished[1].model_folder))
    other = run(tmp_path / "b", tiny(seed=6))
    assert not torch.equal(weights(other.model_folder)["head.weight"], weights(again.model_folder)["head.weight"])


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, finished, stop):
    partial = run(tmp_path, **stop_after(stop))
    assert partial.steps == stop
    final = run(tmp_path, resume=True)
    assert final.steps == 6
    assert final.validation.as_dict() == pytest.approx(finished[1].validation.as_dict(), rel=0, nan_ok=True)
    assert_equal_weights(weights(final.model_folder), weights(finished[1].model_folder))
    histories = [json.loads((folder / "history.json").read_text()) for folder in (tmp_path, finished[0])]
    for entry in histories[0] + histories[1]:
        entry.pop("seconds")
        entry.pop("waiting_share")
    assert histories[0] == histories[1]


def test_a_resumed_run_with_muon_equals_an_uninterrupted_one(tmp_path):
    experiment = tiny(optimizer="muon", network={"channels": 8, "blocks": 2})
    whole = run(tmp_path / "whole", experiment)
    run(tmp_path / "parts", experiment, **stop_after(2))
    run(tmp_path / "parts", experiment, resume=True, **stop_after(3))
    final = run(tmp_path / "parts", experiment, resume=True)
    assert_equal_weights(weights(final.model_folder), weights(whole.model_folder))
    moments = [load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts")]
    assert_equal_weights(*moments)
    # One momentum for each of the four convolutions, two moments and a step for everything else.
    kinds = [name.rsplit(".", 1)[1] for name in moments[0] if name.startswith("optimizer.")]
    assert kinds.count("momentum") == 4
    assert kinds.count("exp_avg") == kinds.count("step") == sum(1 for _ in moments[0] if _.startswith("network.")) - 4


def test_a_checkpoint_from_before_there_was_a_choice_of_optimizers(tmp_path, finished):
    run(tmp_path, **stop_after(3))
    path = tmp_path / "checkpoint.safetensors"
    with safe_open(path, framework="pt") as handle:
        metadata = json.loads(handle.metadata()["training"])
    del metadata["experiment"]["optimizer"]
    save_file(load_file(path), path, metadata={"training": json.dumps(metadata)})
    with pytest.raises(ConfigurationError, match=r"'optimizer' is 'adamw' there and 'muon' here"):
        run(tmp_path, tiny(optimizer="muon"), resume=True)
    assert_equal_weights(weights(run(tmp_path, resume=True).model_folder), weights(finished[1].model_folder))


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first = run(tmp_path)
    before = weights(first.model_folder)
    again = run(tmp_path, resume=True)
    assert again.steps == first.steps == 6
    assert again.validation.as_dict() == pytest.approx(first.validation.as_dict(), nan_ok=True)
    assert_equal_weights(weights(again.model_folder), before)


def test_waiting_for_scenes_is_measured(tmp_path, monkeypatch):
    original = training_loop.batch_stream

    def slow(batches, workers):
        for batch in original(batches, workers):
            time.sleep(0.5)
            yield batch

    quick = run(tmp_path / "quick")
    monkeypatch.setattr(training_loop, "batch_stream", slow)
    starved = run(tmp_path / "slow")
    assert starved.waiting_share > 0.5
    assert starved.waiting_share > quick.waiting_share > 0
    last = json.loads((tmp_path / "slow" / "history.json").read_text())[-1]
    assert last["waiting_share"] == pytest.approx(starved.waiting_share)
    assert run(tmp_path / "short", max_seconds=0.0).waiting_share is None  # the first step waits for the workers


def test_time_limit(tmp_path):
    result = run(tmp_path, max_seconds=0.0)
    assert result.steps == 1
    assert result.validation is None
    assert (tmp_path / "checkpoint.safetensors").exists()
    assert weights(result.model_folder)


def test_stopped_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(training_loop, "batch_stream", lambda batches, workers: iter(()))
    with pytest.raises(Cancelled, match="before its first step"):
        run(tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_mixed_precision_returns_to_full_precision(tmp_path, monkeypatch):
    seen = []
    original = HeatmapMatching.objective

    def watch(*args, **options):
        seen.append(torch.is_autocast_enabled("cpu"))
        return original(*args, **options)

    monkeypatch.setattr(HeatmapMatching, "objective", watch)
    result = run(tmp_path, tiny(precision="bfloat16", float32_at=0.5, steps=4))
    assert seen == [False] * 4  # losses never run in reduced precision
    assert all(value.dtype == torch.float32 for value in weights(result.model_folder).values())


def test_the_best_weights_are_kept(tmp_path, monkeypatch):
    judged, scores = [], iter((0.1, 0.7, 0.695, 0.4))

    def scripted(network, *args, **options):
        judged.append({name: value.clone() for name, value in network.state_dict().items()})
        return a_result(next(scores))

    monkeypatch.setattr(crop_source, "validate", scripted)
    experiment = tiny(steps=8, validation={"every_steps": 2, "scenes": 1})
    run(tmp_path, experiment, **stop_after(6))  # also across an interruption
    result = run(tmp_path, experiment, resume=True)
    # The third is the later one of two that the scenes cannot tell apart.
    assert result.validation.jaccard == 0.695
    assert_equal_weights(weights(result.model_folder), judged[2])


# ---- divergence


def a_trainer(tmp_path, **changes):
    experiment = tiny(**changes)
    trainer = Trainer(experiment, tmp_path, CPU)
    return trainer, batches_of(experiment.model_copy(update={"seed": 1, "batch_size": 2, "crop_px": 16}), 0, 9)


def batches_of(experiment, first, last):
    return SourceBatches(SimulatedScenes(experiment), experiment, first=first, last=last)


def test_a_bad_step_is_left_out(tmp_path):
    trainer, batches = a_trainer(tmp_path)
    trainer.improve(batches[0])
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    poisoned = batches[1]._replace(electrons=batches[1].electrons * math.nan)
    assert math.isnan(trainer.improve(poisoned)["total"])
    assert trainer.step == 2
    assert_equal_weights(trainer.network.state_dict(), before)
    assert math.isfinite(trainer.improve(batches[2])["total"])
    assert not torch.equal(trainer.network.head.weight, before["head.weight"])
    trainer.judge(a_result(0.5))
    assert all(math.isfinite(value) for value in trainer.history[0]["loss"].values())


def test_divergence_ends_in_one_line(tmp_path):
    trainer, batches = a_trainer(tmp_path)
    poisoned = batches[1]._replace(electrons=batches[1].electrons * math.inf)
    for _ in range(25):
        trainer.improve(poisoned)
    with pytest.raises(ConfigurationError, match=r"diverged at step 25.*lower learning_rate") as caught:
        trainer.improve(poisoned)
    assert "\n" not in str(caught.value)
    assert all(torch.isfinite(value).all() for value in trainer.network.state_dict().values())


def test_large_gradients_are_clipped(tmp_path):
    trainer, batches = a_trainer(tmp_path)
    for index in range(3):
        trainer.improve(batches[index])
    trainer.norms.clear()
    trainer.norms.append(1e-6)
    trainer.improve(batches[4])
    total = math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.network.parameters()))
    assert total == pytest.approx(2e-6, rel=1e-3)


def test_a_large_psf_jitter_keeps_widths_positive(tmp_path):
    experiment = tiny(psf_sigma_jitter=0.3)
    sigma = torch.full((20_000,), 1.2)
    told = training_loop._jittered(sigma, experiment, 3)
    assert told.min() > 0
    assert (told / sigma).std().item() == pytest.approx(0.3, rel=0.05)


# ---- schedules


def test_schedule_moves_geometrically_and_stays():
    schedule = Schedule(start=0.9, end=0.1, reached_at=0.5)
    assert schedule.at(0) == pytest.approx(0.9)
    assert schedule.at(0.25) == pytest.approx(0.3)
    assert schedule.at(0.5) == schedule.at(0.9) == schedule.at(1) == pytest.approx(0.1)


def test_learning_rate_rises_and_falls():
    experiment = tiny(learning_rate=1e-2, warmup=0.1)
    rates = [learning_rate(experiment, progress) for progress in np.linspace(0, 1, 201)]
    assert rates[0] == pytest.approx(0.05e-2)
    assert max(rates) == rates[20] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-4)
    assert (np.diff(rates[:21]) > 0).all()
    assert (np.diff(rates[20:]) < 0).all()
    assert learning_rate(tiny(warmup=0), 0) == pytest.approx(1e-3)


# ---- faults on disk


def test_a_run_is_not_overwritten(tmp_path, finished):
    with pytest.raises(OutputError, match=r"already holds a run: continue it with resume=True"):
        run(finished[0])
    with pytest.raises(ConfigurationError, match=r"No checkpoint in .*without resume=True"):
        run(tmp_path, resume=True)
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(OutputError, match="cannot be made"):
        run(blocked)


def fill_disk(monkeypatch, method, ending):
    """Let the disk be full for files with this ending."""
    original = getattr(Path, method)

    def full(path, *args, **options):
        if ending in path.name:
            original(path, args[0][:10])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return original(path, *args, **options)

    monkeypatch.setattr(Path, method, full)


@pytest.mark.parametrize(
    ("method", "ending", "message"),
    [
        ("write_bytes", "checkpoint.safetensors", r"Checkpoint in .* \(No space left on device\): free some space"),
        ("write_bytes", "card.json", r"Model folder .* \(No space left on device\): free some space"),
        ("write_text", "history.json", r"History in .* \(No space left on device\): free some space"),
    ],
)
def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch, method, ending, message):
    run(tmp_path, **stop_after(4))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        fill_disk(patch, method, ending)
        with pytest.raises(OutputError, match=message) as caught:
            run(tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {path.name for path in before}
    broken = next(path for path in before if path.name == ending)
    assert broken.read_bytes() == before[broken]
    assert run(tmp_path, resume=True).steps == 6


def test_a_figure_that_cannot_be_written(tmp_path, monkeypatch, real_figure):
    from matplotlib.figure import Figure

    def full(figure, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OutputError, match="History in"):
        run(tmp_path)
    assert not [path for path in tmp_path.iterdir() if "progress" in path.name]


def test_a_damaged_checkpoint(tmp_path):
    run(tmp_path, **stop_after(1))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigurationError, match=r"Checkpoint .* is damaged: delete it"):
        run(tmp_path, resume=True)


def test_a_foreign_checkpoint(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "checkpoint.safetensors")
    with pytest.raises(ConfigurationError, match="is not a training checkpoint of this version"):
        run(tmp_path, resume=True)


def test_a_checkpoint_of_another_network(tmp_path, monkeypatch):
    run(tmp_path, **stop_after(1))
    monkeypatch.setattr(training_loop, "build_network", lambda settings: torch.nn.Linear(2, 3))
    with pytest.raises(ConfigurationError, match="network of another version"):
        run(tmp_path, resume=True)


def test_a_checkpoint_of_another_experiment(tmp_path):
    run(tmp_path, **stop_after(1))
    with pytest.raises(ConfigurationError, match=r"other settings: 'learning_rate' is 0\.001 there and 0\.002 here"):
        run(tmp_path, tiny(learning_rate=2e-3), resume=True)
    # How it is run, and what people are told, may change.
    changed = tiny(checkpoint_every_steps=2, description="better words")
    assert run(tmp_path, changed, resume=True).steps == 6


# ---- the experiment file


def experiment_file(tmp_path, text):
    path = tmp_path / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_experiment_file(tmp_path):
    path = experiment_file(
        tmp_path,
        "name: a\nsteps: 10\nloss: {bandwidth_px: {start: 1.0, end: 0.2}}\nscenes: {photons: [100, 900]}\n",
    )
    experiment = Experiment.from_yaml(path)
    assert experiment.steps == 10
    assert experiment.loss.bandwidth_px.at(1) == pytest.approx(0.2)
    assert experiment.loss.tile_px == LossSettings().tile_px
    assert experiment.scene_settings().photons == (100.0, 900.0)
    again = Experiment.from_dict(json.loads(json.dumps(experiment.model_dump(mode="json"))))
    assert again == experiment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 3\n", r"the key name is missing.*name: my-microscope"),
        ("name: a b\n", r"name = a b must match pattern"),
        ("name: a\nstesp: 3\n", r"unknown key stesp; did you mean steps\?"),
        ("name: a\nloss: {tile: 3}\n", r"unknown key loss\.tile; (did you mean|known keys)"),
        ("name: a\nloss: {bandwidth_px: {start: 1, end: 1, at: 1}}\n", r"unknown key loss\.bandwidth_px\.at; "),
        ("name: a\nsteps: 0\n", r"steps = 0 must be greater than or equal to 1"),
        ("name: a\nsteps: many\n", r"steps = many must be a valid integer"),
        ("name: a\nlearning_rate: .nan\n", r"learning_rate = nan must be"),
        ("name: a\nweight_decay: .inf\n", r"weight_decay = inf must be a finite number"),
        ("name: a\nseed: -1\n", r"seed = -1 must be greater than or equal to 0"),
        ("name: a\nnetwork: {channels: 1}\n", r"network\.channels = 1 must be greater than or equal to 4"),
        ("name: a\nnetwork: 3\n", r"network = 3 must hold 'key: value' lines"),
        ("name: a\nscenes: {photon: 3}\n", r"scenes: unknown key photon; did you mean photons\?"),
        ("name: a\nscenes: {photons: [9, 1]}\n", r"scenes: .*photons = \[9, 1\]"),
        ("name: a\nscenes: {psf_spread: lots}\n", r"scenes: psf_spread = 'lots' holds something else than numbers"),
        ("name: a\nscenes: {empty_fraction: .6, sparse_fraction: .6}\n", r"empty_fraction \+ sparse_fraction"),
        ("name: a\nscenes: {dense_structures: {uniform: .nan}}\n", r"dense_structures needs weights"),
        ("name: a\ncrop_px: 32\nloss: {tile_px: 40}\n", r"loss\.tile_px = 40 must not exceed crop_px = 32"),
        ("name: a\nloss: {tile_px: 4\nsteps: 3\n", r"line 3: not valid YAML"),
        ("name: a\n\tsteps: 3\n", r"line 2: not valid YAML"),
        ("- a\n- b\n", r"holds a list"),
        ("", r"holds nothing"),
    ],
)
def test_wrong_experiment_files(tmp_path, text, message):
    path = experiment_file(tmp_path, text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        Experiment.from_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_unreadable_experiment_files(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Experiment.from_yaml(tmp_path / "missing.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigurationError, match="not a text file"):
        Experiment.from_yaml(binary)


# ---- the model that results


def test_the_model_and_its_card(finished):
    folder, result, *_ = finished
    model = load_model(folder / "tiny", "cpu")
    assert model.card.name == "tiny"
    assert model.card.psf_sigma_px == (0.8, 1.6)
    assert model.card.density_per_px2 == (0.0, 0.08)
    assert model.card.training["command"] == "smlm-pb train tiny.yaml"
    assert model.card.training["steps"] == 6
    assert model.card.accuracy["validation"] == pytest.approx(result.validation.as_dict(), nan_ok=True)
    assert Experiment.from_yaml(folder / "tiny" / "experiment.yaml") == tiny()
    scenes = validation_scenes(tiny().validation, tiny().scene_settings(), 16)
    again = validate(model.network, scenes, tolerance_px=0.5, device=CPU)
    assert again.as_dict() == pytest.approx(result.validation.as_dict())


# ---- batches


def same(one, other):
    return all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) if isinstance(a, torch.Tensor) else a is b is None
        for a, b in zip(Batch(*one), Batch(*other), strict=True)
    )


def test_a_batch_is_the_same_whenever_it_is_drawn():
    experiment = tiny(seed=3, batch_size=2, crop_px=16)
    early, late = batches_of(experiment, 0, 9), batches_of(experiment, 5, 9)
    assert len(late) == 4
    assert same(early[7], late[2])
    assert not torch.equal(early[6].electrons, early[7].electrons)
    other = batches_of(tiny(seed=4, batch_size=2, crop_px=16), 0, 9)
    assert not torch.equal(early[7].electrons, other[7].electrons)


# From Python 3.12 on, forking a process that has threads is announced to change.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_worker_processes_draw_the_same_batches():
    batches = batches_of(tiny(seed=3, batch_size=1, crop_px=16), 2, 5)
    streams = batch_stream(batches, 0), batch_stream(batches, 1)
    for drawn in zip(*streams, strict=True):
        assert same(*drawn)


def test_molecules_know_their_scene():
    scenes = [draw_scene(np.random.default_rng(seed), SceneSettings(), 20) for seed in range(6)]
    batch = collate(scenes)
    assert batch.electrons.shape == (6, 1, 20, 20)
    for index, scene in enumerate(scenes):
        mine = batch.item == index
        np.testing.assert_array_equal(batch.position[mine, 1], scene.x)
        np.testing.assert_array_equal(batch.position[mine, 0], scene.y)
        np.testing.assert_array_equal(batch.photons[mine], scene.photons)


# ---- objective


def a_field(batch=2, n=2, size=9, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    shape = (batch, n, size, size)
    return PointField(
        logit=random(*shape) - 1,
        dy=0.6 * torch.tanh(random(*shape)),
        dx=0.6 * torch.tanh(random(*shape)),
        log_sigma_y=-1.5 + 0.3 * random(*shape),
        log_sigma_x=-1.5 + 0.3 * random(*shape),
        log_photons=7 + 0.5 * random(*shape),
        background=random(batch, size, size).exp(),
    )


def a_batch(batch=2, size=9, molecules=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        electrons=torch.zeros(batch, 1, size, size),
        background=torch.rand(batch, size, size, generator=generator),
        psf_sigma_px=torch.ones(batch),
        position=torch.rand(molecules, 2, generator=generator) * size - 0.5,
        photons=500 + 1000 * torch.rand(molecules, generator=generator),
        item=torch.arange(molecules) % batch,
    )


def test_the_total_is_the_weighted_sum():
    field, batch, settings = a_field(), a_batch(), LossSettings()
    terms = objective(field, batch, settings, progress=0.4, reach_px=0.6)
    weight = settings.count_weight.at(0.4)
    expected = (
        terms["matching"]
        + weight * (terms["count"] + settings.tile_weight * terms["tile_count"])
        + settings.position_weight * terms["position"]
        + settings.photon_weight * terms["photons"]
        + settings.background_weight * terms["background"]
    )
    torch.testing.assert_close(terms["total"], expected)


def test_every_output_gets_a_gradient_also_from_empty_scenes():
    for molecules in (5, 0):
        field = PointField(*(values.requires_grad_() for values in a_field()))
        terms = objective(field, a_batch(molecules=molecules), LossSettings(), progress=1.0, reach_px=0.6)
        terms["total"].backward()
        for name, values in field._asdict().items():
            assert torch.isfinite(values.grad).all(), name
        assert field.logit.grad.abs().min() > 0
        assert field.background.grad.abs().max() > 0


def test_more_molecules_than_candidates_do_not_end_a_run():
    # A ragged tile at the border has few candidates, a cluster may put more molecules there.
    batch = a_batch(molecules=20)
    crowded = batch._replace(position=torch.full((20, 2), 8.2))
    field = PointField(*(values.requires_grad_() for values in a_field()))
    terms = objective(field, crowded, LossSettings(tile_px=8), progress=0.5, reach_px=0.6)
    assert torch.isfinite(terms["total"])
    terms["tile_count"].backward()
    assert (field.logit.grad[:, :, 8, 8] < 0).all()


def test_the_published_matching_ignores_stated_precision():
    settings = LossSettings(uncertainty_aware=False, position_weight=0)
    field = PointField(*(values.requires_grad_() for values in a_field()))
    objective(field, a_batch(), settings, progress=0.5, reach_px=0.6)["total"].backward()
    assert not field.log_sigma_x.grad.any()


def test_matched_terms_equal_a_plain_loop():
    field, batch, bandwidth = a_field(size=6), a_batch(size=6, molecules=4), 0.5
    offset = torch.stack((field.dy, field.dx), dim=2)
    log_sigma = torch.stack((field.log_sigma_y, field.log_sigma_x), dim=2)
    position, photons = matched_terms(field, offset, log_sigma, batch, bandwidth)
    expected_position = expected_photons = 0.0
    for (y, x), light, item in zip(batch.position.tolist(), batch.photons.tolist(), batch.item.tolist(), strict=True):
        row, column = math.floor(y + 0.5), math.floor(x + 0.5)
        near = []
        for r, c, k in product(range(row - 2, row + 3), range(column - 2, column + 3), range(2)):
            if not (0 <= r < 6 and 0 <= c < 6):
                continue
            dy, dx = r + field.dy[item, k, r, c].item() - y, c + field.dx[item, k, r, c].item() - x
            sigma_y, sigma_x = (math.exp(m[item, k, r, c].item()) for m in (field.log_sigma_y, field.log_sigma_x))
            kernel = torch.sigmoid(field.logit[item, k, r, c]).item()
            for d, s in ((dy, sigma_y), (dx, sigma_x)):
                kernel *= bandwidth / math.hypot(bandwidth, s) * math.exp(-(d**2) / (2 * (bandwidth**2 + s**2)))
            surprise = dy**2 / (2 * sigma_y**2) + dx**2 / (2 * sigma_x**2) + math.log(sigma_y * sigma_x)
            error = abs(field.log_photons[item, k, r, c].item() - math.log(light))
            near.append((kernel, surprise, error))
        owned = sum(kernel for kernel, _, _ in near) + 0.05
        expected_position += sum(kernel * surprise for kernel, surprise, _ in near) / owned / 2
        expected_photons += sum(kernel * error for kernel, _, error in near) / owned / 2
    assert position.item() == pytest.approx(expected_position, rel=1e-4)
    assert photons.item() == pytest.approx(expected_photons, rel=1e-4)


# ---- validation


class Oracle:
    """A network that knows the truth, with errors of a stated size."""

    def __init__(self, scenes, sigma, false_in_empty=0):
        self.scenes, self.sigma, self.false_in_empty = iter(scenes), sigma, false_in_empty
        self.rng = np.random.default_rng(0)

    def __call__(self, electrons, psf_sigma_px, population=None):
        batch, _, height, width = electrons.shape
        field = {name: torch.zeros(batch, 8, height, width) for name in PointField._fields[:-1]}
        field["logit"] -= 20
        for item in range(batch):
            scene = next(self.scenes)
            for k, (y, x) in enumerate(zip(scene.y, scene.x, strict=True)):
                row, column, slot = round(float(y)), round(float(x)), k % 8
                error_y, error_x = self.rng.normal(0, self.sigma, 2)
                field["logit"][item, slot, row, column] = 5
                field["dy"][item, slot, row, column] = y - row + error_y
                field["dx"][item, slot, row, column] = x - column + error_x
            if not len(scene.x):
                field["logit"][item, 0, 0, : self.false_in_empty] = 5
        for name in ("log_sigma_y", "log_sigma_x"):
            field[name] += math.log(self.sigma)
        return PointField(**field, background=torch.zeros(batch, height, width))


def test_validation_of_a_perfect_network():
    settings = SceneSettings(empty_fraction=0.3, sparse_fraction=0.7, sparse_density_per_px2=(1e-3, 5e-3))
    scenes = [draw_scene(np.random.default_rng(seed), settings, 40) for seed in range(60)]
    result = validate(Oracle(scenes, 0.02), scenes, tolerance_px=0.5, device=CPU)
    assert result.jaccard > 0.98  # two molecules in one slot of one pixel are one
    assert result.rmse_px == pytest.approx(0.02 * math.sqrt(2), rel=0.15)
    assert result.pull == pytest.approx(1, rel=0.15)
    assert result.false_per_empty_scene == 0
    empty = sum(len(scene.x) == 0 for scene in scenes)
    assert empty > 5
    noisy = validate(Oracle(scenes, 0.02, false_in_empty=2), scenes, tolerance_px=0.5, device=CPU)
    assert noisy.false_per_empty_scene == 2
    assert noisy.precision < result.precision


def test_validation_of_a_silent_network():
    scenes = [draw_scene(np.random.default_rng(seed), SceneSettings(), 16) for seed in range(4)]
    silent = Oracle(scenes, 1.0)
    silent.scenes = iter(
        [draw_scene(np.random.default_rng(0), SceneSettings(empty_fraction=1, sparse_fraction=0), 16)] * 4
    )
    result = validate(silent, scenes, tolerance_px=0.5, device=CPU)
    assert (result.jaccard, result.precision, result.recall) == (0, 0, 0)
    assert math.isnan(result.rmse_px)


# ---- graphics cards


@NEEDS_CARD
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_on_a_graphics_card(tmp_path, precision):
    result = train(tiny(precision=precision), tmp_path, device="cuda", **stop_after(4))
    assert result.steps == 4
    assert train(tiny(precision=precision), tmp_path, device="cuda", resume=True).steps == 6
    assert re.match(r"[0-9a-f]{64}$", load_model(tmp_path / "tiny", "cpu").card.weights_sha256)


def test_a_run_that_starts_from_a_model_may_reach_further(tmp_path, finished):
    """What lies near the pixel's centre stays where it was."""
    start = finished[1].model_folder
    before = load_model(start, "cpu").network
    reach = 1.5 * before.reach_px
    network = {**tiny().network.model_dump(), "reach_px": reach}
    result = run(tmp_path, tiny(name="second", steps=1, learning_rate=1e-9, start_from=str(start), network=network))
    after = load_model(result.model_folder, "cpu").network
    assert after.reach_px == pytest.approx(reach)
    image, width = torch.rand(1, 1, 16, 16) * 100, torch.full((1,), 1.2)
    with torch.no_grad():
        one, two = before(image, width), after(image, width)
    near = one.dx.abs() < 0.15 * before.reach_px
    assert near.any()
    assert torch.allclose(one.dx[near], two.dx[near], atol=0.01)
    assert torch.allclose(one.logit, two.logit, atol=1e-3)


def test_a_run_that_starts_from_a_model_may_be_deeper(tmp_path, finished):
    """Blocks that are new do nothing at first."""
    start = finished[1].model_folder
    before = load_model(start, "cpu").network
    network = {**tiny().network.model_dump(), "blocks": tiny().network.blocks + 1}
    result = run(tmp_path / "deeper", tiny(steps=1, learning_rate=1e-9, start_from=str(start), network=network))
    after = load_model(result.model_folder, "cpu").network
    assert sum(1 for _ in after.parameters()) > sum(1 for _ in before.parameters())
    image, width = torch.rand(1, 1, 16, 16) * 100, torch.full((1,), 1.2)
    with torch.no_grad():
        one, two = before(image, width), after(image, width)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(one, two, strict=True))
    shallower = {**network, "blocks": tiny().network.blocks}
    with pytest.raises(ConfigurationError, match=r"start_from .* copy these values"):
        run(tmp_path / "shallower", tiny(start_from=str(result.model_folder), network=shallower))


def test_a_run_that_starts_from_a_model_may_mix_kernels(tmp_path, finished):
    """Further kernels are nothing at first; a network cannot lose them, or get others."""
    start = finished[1].model_folder
    network = {**tiny().network.model_dump(), "mixed_kernels": 2}
    result = run(tmp_path / "mixed", tiny(steps=1, learning_rate=1e-9, start_from=str(start), network=network))
    before, after = (load_model(folder, "cpu").network for folder in (start, result.model_folder))
    image, width = torch.rand(1, 1, 16, 16) * 100, torch.full((1,), 1.2)
    with torch.no_grad():
        one, two = before(image, width), after(image, width)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(one, two, strict=True))
    for kernels in (0, 3):
        other = tiny(start_from=str(result.model_folder), network={**network, "mixed_kernels": kernels})
        with pytest.raises(ConfigurationError, match=r"start_from .* copy these values"):
            run(tmp_path / f"{kernels}", other)


def test_a_run_can_start_from_a_model(tmp_path, finished):
    start = finished[1].model_folder
    second = tiny(name="second", steps=1, learning_rate=1e-9, start_from=str(start))
    continued = run(tmp_path / "second", second)
    before = load_model(start, "cpu").network.state_dict()
    after = load_model(continued.model_folder, "cpu").network.state_dict()
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)


def test_a_start_with_another_network_is_refused(tmp_path, finished):
    start = finished[1].model_folder
    with pytest.raises(ConfigurationError, match=r"start_from .* copy these values"):
        run(tmp_path, tiny(network={"channels": 6, "blocks": 2}, start_from=str(start)))


def test_molecules_that_cannot_be_told_apart_do_not_widen_the_stated_precision():
    """A candidate that is right up to 0.05 px, but for every tenth molecule, which lies half a pixel away."""
    rng = np.random.default_rng(0)
    n = 400
    error = rng.normal(0, 0.05, (n, 2))
    error[::10] += 0.5 / np.sqrt(2)
    batch = Batch(
        electrons=torch.zeros(n, 1, 3, 3),
        background=torch.zeros(n, 3, 3),
        psf_sigma_px=torch.ones(n),
        position=torch.tensor(1 + error, dtype=torch.float32),
        photons=torch.full((n,), 1000.0),
        item=torch.arange(n),
    )
    logit = torch.full((n, 1, 3, 3), -20.0)
    logit[:, :, 1, 1] = 20.0
    zero = torch.zeros(n, 1, 3, 3)
    stated = {}
    for outlier_density in (0.0, 0.03):
        log_sigma = torch.tensor(math.log(0.2), requires_grad=True)
        optimizer = torch.optim.Adam([log_sigma], lr=0.05)
        for _ in range(150):
            maps = log_sigma.expand(n, 1, 2, 3, 3)
            field = PointField(logit, zero, zero, maps[:, :, 0], maps[:, :, 1], zero, zero[:, 0])
            position, _ = matched_terms(field, torch.zeros(n, 1, 2, 3, 3), maps, batch, 0.3, None, outlier_density)
            optimizer.zero_grad()
            position.backward()
            optimizer.step()
        stated[outlier_density] = math.exp(log_sigma.item())
    assert stated[0.03] == pytest.approx(0.05, rel=0.1)
    assert stated[0.0] > 0.07
