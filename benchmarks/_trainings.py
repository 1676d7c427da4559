"""Trainings that differ in one thing: many small ones, each kept in a folder, so that a study can be continued.

An *arm* is one way to train. Every arm is trained with the same seeds, hence on the same scenes, for the same number of
steps, and scored on the same movies. A kept training counts as long as its settings and its scenes are those of today;
where only the scoring has changed, its model is scored anew.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _report import QUICK_RESULTS, Table, publish, write_text
from _study_scores import Stack, score_simulated, scored_on

from smlm_pb.errors import ConfigurationError
from smlm_pb.training import Experiment, train
from smlm_pb.training.methods import DEFAULT_METHOD, METHODS

#: What every arm has in common. The scenes are those of the shipped model `dense`, chosen without the stack in mind.
SCENES: dict[str, Any] = {
    "psf_sigma_px": [0.95, 1.25],
    "photons": [400, 1600],
    "photon_spreads": {"constant": 0.7, "lognormal": 0.3},
    "partial_on_fraction": 0.1,
    "background_e": [0, 40],
    "gain_error": 0.06,
    "em_fraction": 0.3,
    "empty_fraction": 0.03,
    "sparse_fraction": 0.12,
    "dense_density_per_px2": [0.02, 0.1],
    "dense_structures": {"uniform": 0.3, "filaments": 0.65, "mixture": 0.05},
}
LOSS: dict[str, Any] = {
    "bandwidth_px": {"start": 0.8, "end": 0.3, "reached_at": 0.5},
    "count_weight": {"start": 0.3, "end": 1.0, "reached_at": 0.3},
    "tile_weight": 0.5,
}
NETWORK: dict[str, Any] = {"channels": 32, "blocks": 2, "start_logit": -3.5}
STEPS, QUICK_STEPS = 700, 4
CROP_PX, BATCH = 32, 4
#: Seeds of a study.
SEEDS = 5
#: Scores by seed, and those by arm.
SeedRuns = Mapping[int, Mapping[str, Any]]
Runs = Mapping[str, SeedRuns]
_VALIDATION_SEED = 55_555
#: After this time another process may take over a run that never ended.
_STALE_S = 1800.0


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Parameters
    ----------
    key : str
        Short name, also of files.
    title : str
        For tables.
    changes : mapping
        Keys of the experiment; those of ``network`` and ``loss`` are merged into what is common to all.
    group : str
        Arms that belong together.
    """

    key: str
    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""

    def experiment(self, seed: int, *, steps: int = STEPS) -> Experiment:
        """The experiment of one seed; a handful of steps is a trial, of a smaller network."""
        quick = steps == QUICK_STEPS
        method = METHODS[self.changes.get("method", DEFAULT_METHOD)]
        # A method's own defaults stand above what is common, the arm's changes above both.
        loss = {key: value for key, value in LOSS.items() if key not in method.loss}
        own = {key: value for key, value in self.changes.items() if key not in ("network", "loss")}
        network = {"channels": 8, "blocks": 1} if quick else {}
        return Experiment.from_dict(
            {
                "name": "arm",
                "seed": 1000 + seed,
                "steps": steps,
                "batch_size": 2 if quick else BATCH,
                "crop_px": CROP_PX,
                "learning_rate": 2e-3,
                "warmup": 0.05,
                "ema_decay": 0.99,
                "scenes": SCENES,
                "network": {**NETWORK, **self.changes.get("network", {}), **network},
                "loss": {**loss, **self.changes.get("loss", {})},
                "validation": {
                    "every_steps": steps,
                    "scenes": 2 if quick else 48,
                    "calibration_scenes": 0 if quick else 192,
                    "seed": _VALIDATION_SEED,
                },
                "workers": 0,
                **own,
            },
            source=self.key,
        )


def add_study_options(parser: argparse.ArgumentParser) -> None:
    """Options of a study."""
    parser.add_argument("--movie", type=Path, required=True, metavar="TIF", help="the stack")
    parser.add_argument("--truth", type=Path, required=True, metavar="CSV", help="its molecules (ThunderSTORM columns)")
    parser.add_argument("--frames", type=int, default=40, metavar="N", help="frames of the stack (default: 40)")
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help=f"length of the trainings; other than {STEPS}, results are named NAME_long (default: {STEPS})",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder of finished trainings (default: runs/trainings)"
    )
    parser.add_argument("--only", metavar="KEY,…", help="train only these arms; publishes nothing")
    parser.add_argument(
        "--max-minutes",
        type=float,
        metavar="MIN",
        help="start no run after this time; publishes nothing if any is left",
    )
    parser.add_argument("--publish", action="store_true", help="publish the finished runs, train nothing")


def run_and_publish(
    name: str,
    arms: Sequence[Arm],
    args: argparse.Namespace,
    *,
    tables: Callable[[Runs], list[Table]],
    figure: Callable[[Runs], Any],
    **also: Any,
) -> int:
    """Train what is missing, and publish when nothing is.

    Parameters
    ----------
    name : str
        Name of the benchmark.
    arms : sequence of Arm
        All arms, the most telling ones first.
    args : argparse.Namespace
        With the options of :func:`add_study_options`.
    tables, figure : callable
        Made of the scores by arm and seed.
    **also
        Published beside the scores.

    Returns
    -------
    int
        Exit status.
    """
    if args.steps is None:
        args.steps = QUICK_STEPS if args.quick else STEPS
    if not (args.publish or run_study(arms, args)):
        return 0
    results = results_of(arms, args)
    seeds = {len(runs) for runs in results.values()}
    publish(
        name if args.steps in (STEPS, QUICK_STEPS) else f"{name}_long",
        args,
        tables=tables(results),
        results={"runs": results, **also},
        settings={
            # Where arms differ, the tables tell it of each.
            "seeds": seeds.pop() if len(seeds) == 1 else None,
            "steps": args.steps,
            "batch_size": BATCH,
            "crop_px": CROP_PX,
            "scenes": SCENES,
            "loss": LOSS,
            "network": NETWORK,
            "scored_on": scored_on(args),
            "movie": args.movie.name,
            "arms": {arm.key: dict(arm.changes) for arm in arms if arm.key in results},
        },
        figure=figure(results),
    )
    return 0


def run_study(arms: Sequence[Arm], args: argparse.Namespace) -> bool:
    """Train and score what is missing, seed by seed; returns whether all is there now."""
    stack = Stack(args, cache_of(args))
    wanted = [(arm, seed) for seed in range(args.seeds) for arm in arms]
    if args.only:
        wanted = [(arm, seed) for arm, seed in wanted if arm.key in args.only.split(",")]
    began = time.monotonic()
    whole = args.quick or not args.only
    for arm, seed in wanted:
        if stored(arm, seed, args) is not None:
            continue
        if args.max_minutes is not None and time.monotonic() - began > 60 * args.max_minutes:
            return False
        with _claim(_path(arm, seed, args)) as mine:
            if mine:
                run_arm(arm, seed, stack, args)
            whole = whole and mine
    return whole


@contextlib.contextmanager
def _claim(path: Path) -> Iterator[bool]:
    """Whether the run is this process's to do: several may share the work."""
    claim = path.with_suffix(".running")
    claim.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if time.time() - claim.stat().st_mtime > _STALE_S:
            claim.unlink()
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        yield False
        return
    try:
        yield True
    finally:
        claim.unlink(missing_ok=True)


def cache_of(args: argparse.Namespace) -> Path:
    """Folder of finished trainings."""
    given: Path | None = args.cache
    return given or (QUICK_RESULTS / "trainings" if args.quick else QUICK_RESULTS.parent / "trainings")


def stored(arm: Arm, seed: int, args: argparse.Namespace) -> dict[str, Any] | None:
    """Scores of a finished run, scored as it would be today; None where it is missing."""
    record = _trained(arm, seed, args)
    if record is None or record["scored_on"] != scored_on(args):
        return None
    scores: dict[str, Any] = record["scores"]
    return scores


def _trained(arm: Arm, seed: int, args: argparse.Namespace) -> dict[str, Any] | None:
    """Record of a finished training with today's settings and scenes; None where it is missing."""
    path = _path(arm, seed, args)
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    wanted = arm.experiment(seed, steps=args.steps)
    with contextlib.suppress(ConfigurationError):  # of another version
        same = Experiment.from_dict(record["experiment"]) == wanted
        return record if same and record.get("first_scenes") == first_scenes(wanted) else None
    return None


def first_scenes(experiment: Experiment) -> str:
    """Digest of the scenes with which a run begins: seeds do not tell whether the program still draws the same."""
    from smlm_pb.simulation.scenes import draw_scene

    rng = np.random.default_rng([experiment.seed, 0])
    digest = hashlib.sha256()
    for _ in range(experiment.batch_size):
        scene = draw_scene(rng, experiment.scene_settings(), experiment.crop_px)
        # Rounded, so that the last digits of another processor's arithmetic do not count.
        for values in (scene.x, scene.y, scene.electrons):
            digest.update(np.round(np.asarray(values, np.float64), 2).tobytes())
    return digest.hexdigest()[:16]


def results_of(arms: Sequence[Arm], args: argparse.Namespace) -> Runs:
    """Scores of all finished runs: by arm and seed."""
    found = {
        arm.key: {seed: scores for seed in range(args.seeds) if (scores := stored(arm, seed, args)) is not None}
        for arm in arms
    }
    if not any(found.values()):
        raise ConfigurationError(f"No training is finished in {cache_of(args)}: run the benchmark without --publish.")
    missing = args.seeds * len(arms) - sum(map(len, found.values()))
    if missing:
        print(f"{missing} trainings are still missing; what is there is published.")
    return {key: runs for key, runs in found.items() if runs}


def run_arm(arm: Arm, seed: int, stack: Stack, args: argparse.Namespace) -> None:
    """Train and score one arm with one seed; the scores appear in the cache when all is done."""
    from smlm_pb.localization import load_model

    experiment = arm.experiment(seed, steps=args.steps)
    path = _path(arm, seed, args)
    folder = path.with_suffix("")
    record = _trained(arm, seed, args)
    if record is None or not (folder / experiment.name).exists():
        shutil.rmtree(folder, ignore_errors=True)
        began = time.process_time()
        result = train(experiment, folder, device="cpu")
        (folder / "checkpoint.safetensors").unlink()
        record = {
            "experiment": experiment.model_dump(mode="json"),
            "first_scenes": first_scenes(experiment),
            "scores": {
                "training_cpu_s": time.process_time() - began,
                "validation": result.validation.as_dict() if result.validation else None,
            },
        }
    model = load_model(str(folder / experiment.name), "cpu")
    began = time.process_time()
    record["scored_on"] = scored_on(args)
    record["scores"] |= {"stack": stack.score(model), "simulated": score_simulated(model, args)}
    write_text(path, json.dumps(_plain(record), indent=1))
    at = record["scores"]["stack"]["automatic"]
    print(
        f"{arm.key} seed {seed}: J@25 {at['25']:.3f}, J@50 {at['50']:.3f}, J@100 {at['100']:.3f}; "
        f"{record['scores']['training_cpu_s']:.0f} s of training, {time.process_time() - began:.0f} s of scoring",
        flush=True,
    )


def values(runs: SeedRuns, *keys: str) -> list[float]:
    """One figure of every seed, ``keys`` leading to it; NaN where there is none."""
    found = []
    for scores in runs.values():
        value: Any = scores
        for key in keys:
            value = value[key]
        found.append(math.nan if value is None else float(value))
    return found


def paired(runs: SeedRuns, reference: SeedRuns, *keys: str) -> list[float]:
    """Differences to the reference, seed by seed, of the seeds that both have."""
    common = [seed for seed in runs if seed in reference]
    ours = values({seed: runs[seed] for seed in common}, *keys)
    theirs = values({seed: reference[seed] for seed in common}, *keys)
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def noise(results: Runs, reference: str, *keys: str) -> float:
    """Standard deviation over seeds of a difference to the reference, pooled over all arms; NaN where seeds are few.

    A few seeds say next to nothing of their own spread; twenty arms of a few do.
    """
    squares, freedom = 0.0, 0
    for key, runs in results.items():
        found = paired(runs, results[reference], *keys) if key != reference and reference in results else []
        if len(found) > 1:
            squares += float(np.var(found)) * len(found)
            freedom += len(found) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan


def _path(arm: Arm, seed: int, args: argparse.Namespace) -> Path:
    length = "" if args.steps in (STEPS, QUICK_STEPS) else f"-{args.steps}steps"
    return cache_of(args) / f"{arm.key}{length}-seed{seed}.json"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
