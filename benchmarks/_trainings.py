"""Trainings that differ in one thing: many small ones, each kept in a folder, so that a study can be continued.

An *arm* is one way to train. Every arm is trained with the same seeds, hence on the same scenes, for the same number of
steps, and scored on the same movies.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import QUICK_RESULTS, write_text
from _runs import Run, localize, matched_errors

from smlm_pb.errors import ConfigurationError
from smlm_pb.evaluation import best_threshold, evaluate, reliability
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.training import Experiment

if TYPE_CHECKING:
    from smlm_pb.localization import Model
    from smlm_pb.movies import Movie

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
#: Densities at which simulated movies are scored, molecules per µm².
DENSITIES_PER_UM2 = (0.5, 5.0)
TOLERANCES_NM = (25.0, 50.0, 100.0)
_SIMULATED_FRAMES = 12
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

    def experiment(self, seed: int, *, quick: bool = False) -> Experiment:
        """The experiment of one seed."""
        from smlm_pb.training.methods import DEFAULT_METHOD, METHODS

        method = METHODS[self.changes.get("method", DEFAULT_METHOD)]
        # A method's own defaults stand above what is common, the arm's changes above both.
        loss = {key: value for key, value in LOSS.items() if key not in method.loss}
        own = {key: value for key, value in self.changes.items() if key not in ("network", "loss")}
        network = {"channels": 8, "blocks": 1} if quick else {}
        return Experiment.from_dict(
            {
                "name": "arm",
                "seed": 1000 + seed,
                "steps": QUICK_STEPS if quick else STEPS,
                "batch_size": 2 if quick else BATCH,
                "crop_px": CROP_PX,
                "learning_rate": 2e-3,
                "warmup": 0.05,
                "ema_decay": 0.99,
                "scenes": SCENES,
                "network": {**NETWORK, **self.changes.get("network", {}), **network},
                "loss": {**loss, **self.changes.get("loss", {})},
                "validation": {
                    "every_steps": QUICK_STEPS if quick else STEPS,
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


def cache_of(args: argparse.Namespace) -> Path:
    """Folder of finished trainings."""
    given: Path | None = args.cache
    return given or (QUICK_RESULTS / "trainings" if args.quick else QUICK_RESULTS.parent / "trainings")


def run_study(arms: Sequence[tuple[Arm, int]], args: argparse.Namespace) -> bool:
    """Train and score what is missing, seed by seed.

    Parameters
    ----------
    arms : sequence of (Arm, int)
        Arms with their numbers of seeds.
    args : argparse.Namespace
        With the options of :func:`add_study_options`.

    Returns
    -------
    bool
        Whether there is something to publish now.
    """
    if args.publish:
        return True
    stack = Stack(args)
    most = max(seeds for _, seeds in arms)
    wanted = [(arm, seed) for seed in range(most) for arm, seeds in arms if seed < seeds]
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


def stored(arm: Arm, seed: int, args: argparse.Namespace) -> dict[str, Any] | None:
    """Scores of a finished run with the same settings; None where it is missing."""
    path = _path(arm, seed, args)
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    with contextlib.suppress(ConfigurationError):  # of another version
        same = Experiment.from_dict(record["experiment"]) == arm.experiment(seed, quick=args.quick)
        if same and record["frames"] == args.frames:
            scores: dict[str, Any] = record["scores"]
            return scores
    return None


def results_of(arms: Sequence[tuple[Arm, int]], args: argparse.Namespace) -> dict[str, dict[int, dict[str, Any]]]:
    """Scores of all finished runs: by arm and seed."""
    found = {
        arm.key: {seed: scores for seed in range(seeds) if (scores := stored(arm, seed, args)) is not None}
        for arm, seeds in arms
    }
    if not any(found.values()):
        raise ConfigurationError(f"No training is finished in {cache_of(args)}: run the benchmark without --publish.")
    missing = sum(seeds for _, seeds in arms) - sum(map(len, found.values()))
    if missing:
        print(f"{missing} trainings are still missing; what is there is published.")
    return {key: runs for key, runs in found.items() if runs}


def run_arm(arm: Arm, seed: int, stack: Stack, args: argparse.Namespace) -> None:
    """Train and score one arm with one seed; the scores appear in the cache when all is done."""
    from smlm_pb.localization import load_model
    from smlm_pb.training import train

    experiment = arm.experiment(seed, quick=args.quick)
    path = _path(arm, seed, args)
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    began = time.process_time()
    result = train(experiment, folder, device="cpu")
    trained = time.process_time() - began
    model = load_model(result.model_folder, "cpu")
    scores = {
        "training_cpu_s": trained,
        "validation": result.validation.as_dict() if result.validation else None,
        "stack": stack.score(model),
        "simulated": {f"{d:g}": score_simulated(model, d, quick=args.quick) for d in DENSITIES_PER_UM2},
    }
    (folder / "checkpoint.safetensors").unlink()
    record = {"experiment": experiment.model_dump(mode="json"), "frames": args.frames, "scores": _plain(scores)}
    write_text(path, json.dumps(record, indent=1))
    at = scores["stack"]["automatic"]
    print(
        f"{arm.key} seed {seed}: J@25 {at['25']:.3f}, J@50 {at['50']:.3f}, J@100 {at['100']:.3f}; "
        f"{trained:.0f} s of training, {time.process_time() - began - trained:.0f} s of scoring",
        flush=True,
    )


class Stack:
    """The stack on which all are scored, with camera and PSF width estimated once for all by the shipped model."""

    def __init__(self, args: argparse.Namespace) -> None:
        from smlm_pb import open_movie

        self.movie: Movie = open_movie(args.movie)
        self.frames = min(self.movie.n_frames, 2 if args.quick else args.frames)
        table = Localizations.load(args.truth, pixel_size_nm=100.0)
        info = MovieInfo(self.frames, self.movie.height, self.movie.width, 100.0, args.truth.stem)
        self.truth = table.select(table["frame"] < self.frames).with_info(info)
        self.conditions = self._conditions(cache_of(args) / f"conditions-{self.movie.fingerprint()[:12]}.json")

    def _conditions(self, path: Path) -> dict[str, float]:
        if path.exists():
            found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
            return found
        from smlm_pb.localization import load_model

        run = localize(
            self.movie, load_model("dense", "cpu"), offset_adu=100.0, pixel_size_nm=100.0, frames=(0, self.frames)
        )
        found = {
            "e_per_adu": run.conditions["camera"]["e_per_adu"],
            "psf_sigma_px": run.conditions["psf_sigma_px"],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found))
        return found

    def score(self, model: Model) -> dict[str, Any]:
        """Jaccard indices at the automatic and at the best threshold, and that of chance."""
        run = localize(
            self.movie,
            model,
            offset_adu=100.0,
            pixel_size_nm=100.0,
            frames=(0, self.frames),
            precision="float32",
            **self.conditions,
        )
        return {**_score(run, self.truth, chance=True), "unpooled": self._unpooled(model)}

    def _unpooled(self, model: Model) -> dict[str, float]:
        """Jaccard indices at the best threshold of what the network itself says, shares of one molecule apart."""
        import torch

        from smlm_pb.camera import Camera
        from smlm_pb.localization.candidates import as_columns, select_candidates

        camera = Camera(offset_adu=100.0, e_per_adu=self.conditions["e_per_adu"])
        rows = []
        with torch.inference_mode():
            for frame in range(self.frames):
                electrons = camera.to_electrons(self.movie.read(frame, frame + 1)).astype(np.float32)
                width = torch.full((1,), self.conditions["psf_sigma_px"])
                said = model.network(torch.from_numpy(electrons[:, None]), width)
                rows.append(select_candidates(said, first_frame=frame).rows)
        candidates = Localizations(as_columns(np.concatenate(rows)), self.truth.info)
        return {f"{t:g}": best_threshold(candidates, self.truth, tolerance_nm=t).best_jaccard for t in TOLERANCES_NM}


def score_simulated(model: Model, density_per_um2: float, *, quick: bool = False) -> dict[str, Any]:
    """Scores on a simulated movie: 1000 e⁻ per molecule, 20 e⁻/px, σ = 1.1 px, placed evenly."""
    from smlm_pb.simulation import simulate
    from smlm_pb.simulation.presets import density_sweep

    recipe = density_sweep(
        density_per_um2,
        frames=2 if quick else _SIMULATED_FRAMES,
        seed=round(1000 * density_per_um2),
        molecules={
            "density_per_um2": density_per_um2,
            "photons": 1000.0,
            "photon_distribution": "constant",
            "min_photons": 0.0,
        },
        background={"photons_per_px": 20.0},
    )
    movie, truth = simulate(recipe)
    run = localize(
        movie,
        model,
        camera=recipe.camera.camera(),
        pixel_size_nm=100.0,
        psf_sigma_px=1.1,
        precision="float32",
    )
    return _score(run, truth, chance=False)


def _score(run: Run, truth: Localizations, *, chance: bool) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = evaluate(
            run.molecules.with_info(truth.info), truth, tolerance_nm=TOLERANCES_NM, chance=chance, check=False
        )
    at = {f"{t:g}": found.at(t) for t in TOLERANCES_NM}
    errors = matched_errors(run.molecules, truth, 100.0)
    return {
        "automatic": {key: entry.jaccard for key, entry in at.items()},
        "best": {f"{t:g}": best_threshold(run.candidates, truth, tolerance_nm=t).best_jaccard for t in TOLERANCES_NM},
        "chance": {key: entry.chance_jaccard for key, entry in at.items()} if chance else None,
        "precision": at["50"].precision,
        "recall": at["50"].recall,
        "rmse_nm": float(np.sqrt(np.mean(errors.error_nm**2))) if errors.error_nm.size else None,
        "pull": float(np.std(errors.pull)) if errors.pull.size else None,
        "threshold": run.threshold,
        "count_ratio": len(run.molecules) / max(1, len(truth)),
        "calibration_error": reliability(run.candidates, truth, tolerance_nm=100.0).expected_calibration_error,
    }


def values(runs: Mapping[int, Mapping[str, Any]], *keys: str) -> list[float]:
    """One figure of every seed, ``keys`` leading to it; NaN where there is none."""
    found = []
    for scores in runs.values():
        value: Any = scores
        for key in keys:
            value = value[key]
        found.append(math.nan if value is None else float(value))
    return found


def paired(
    runs: Mapping[int, Mapping[str, Any]], reference: Mapping[int, Mapping[str, Any]], *keys: str
) -> list[float]:
    """Differences to the reference, seed by seed, of the seeds that both have."""
    common = [seed for seed in runs if seed in reference]
    ours = values({seed: runs[seed] for seed in common}, *keys)
    theirs = values({seed: reference[seed] for seed in common}, *keys)
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def _path(arm: Arm, seed: int, args: argparse.Namespace) -> Path:
    return cache_of(args) / f"{arm.key}-seed{seed}.json"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
