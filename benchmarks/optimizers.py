"""What a training gains by Muon instead of AdamW: from nothing, as the program proposes it, and from a trained model.

Small networks, the same scenes and seeds for both. The loss is that of the end of a training's schedules, on scenes
that no training saw, so that it means the same at every step; the Jaccard index is that of the same scenes, within
.5 px (1 px where counts were learned from). Both are those of the averaged weights, which a training keeps. Every
training is kept as it is done, and the next call continues.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import COLOURS, Table, new_figure, number, publish, run_as_program, spread
from _taught import PIXEL_NM, movie_of, parse_taught, taught, taught_parser
from _trainings import LOSS, NETWORK, SCENES

from smlm_pb.localization import load_model
from smlm_pb.localization.model import find_model
from smlm_pb.simulation.presets import density_sweep
from smlm_pb.training import Experiment
from smlm_pb.training.batches import Batch, batch_stream, collate
from smlm_pb.training.crop_source import SourceBatches, open_source
from smlm_pb.training.loop import Trainer
from smlm_pb.training.validation import validate, validation_scenes

START = "fast"
#: Trainings from nothing: learning rates of AdamW, and those of AdamW's share in a training with Muon.
ADAMW_RATES, MUON_RATES = (2e-3, 4e-3), (2e-3, 4e-3)
#: Rates of AdamW that are further from the best one, looked at with one seed.
FAR_RATES = (1e-3, 8e-3)
#: What the program proposes.
RATE, FINE_TUNE_RATE = 2e-3, 4e-4
NOTHING, FINE_TUNE = "nothing", "fine-tune"
#: Kinds of trainings: what they are called, and their steps and seeds in units of those of the first.
KINDS = {
    NOTHING: ("from nothing, on simulated scenes", 1.0, 1.0),
    "example": ("from nothing, `examples/experiment.yaml`", 1 / 3, 2 / 3),
    "positions": ("from nothing, positions in a movie (`--labels`)", 1 / 3, 2 / 3),
    "counts": ("from nothing, counts in a movie (`--counts`)", 1 / 3, 2 / 3),
    FINE_TUNE: (f"from `{START}`, on scenes of one sample", 1 / 3, 2 / 3),
}
CURVE_POINTS, UNSEEN_SCENES, UNSEEN_SEED = 15, 128, 55_555
DENSITY_PER_UM2, LABEL_ERROR_NM, FRAMES, SIZE_PX = 2.0, 20.0, 300, 64
WINDOWS_PER_FRAME, WINDOW_PX = 8, 10
_NAMES = {"adamw": "AdamW", "muon": "Muon"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = taught_parser(__doc__ or "", steps=1500)
    parser.add_argument("--only", metavar="KIND,…", help=f"train only these of {','.join(KINDS)}; publishes nothing")
    args = parse_taught(parser, argv)
    kinds = args.only.split(",") if args.only else KINDS
    keys = [key for seed in range(args.seeds) for kind in kinds for key in _keys(kind, seed, args)]
    runs = taught("optimizers", args, keys, _train, settings={"unseen": UNSEEN_SCENES}, models=(START,))
    if runs is None or args.only:
        return 0
    arms = _arms(runs)
    publish(
        "optimizers",
        args,
        tables=[_table(arms), _proposed_table(arms)],
        results={
            "arms": [{**dict(zip(("kind", "optimizer", "rate"), arm, strict=True)), "runs": arms[arm]} for arm in arms]
        },
        settings={
            "seeds": args.seeds,
            "steps": args.steps,
            "unseen_scenes": UNSEEN_SCENES,
            "scenes": SCENES,
            "loss": LOSS,
            "network": NETWORK,
            "start": f"{START} ({load_model(START, 'cpu').card.weights_sha256[:8]})",
            "movie": {"molecules_per_um2": DENSITY_PER_UM2, "label_error_nm": LABEL_ERROR_NM, "frames": FRAMES},
        },
        figure=_figure(arms),
    )
    return 0


# ---- the trainings


def _keys(kind: str, seed: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Trainings of one kind and seed."""
    if seed >= math.ceil(args.seeds * KINDS[kind][2]):
        return []
    own = FINE_TUNE_RATE if kind == FINE_TUNE else RATE
    # Muon's convolutions learn at twice the rate: that alone is no merit of Muon.
    rates: dict[str, tuple[float | None, ...]] = {"adamw": (None, 2 * own), "muon": (None,)}
    if kind == NOTHING:
        rates = {"adamw": ADAMW_RATES + (FAR_RATES if seed == 0 else ()), "muon": MUON_RATES}
    return [
        {"kind": kind, "optimizer": name, "rate": rate, "seed": seed}
        for name, several in rates.items()
        for rate in several
    ]


def _train(
    folder: Path, args: argparse.Namespace, *, kind: str, optimizer: str, rate: float | None, seed: int
) -> dict[str, Any]:
    steps = max(3, round(args.steps * KINDS[kind][1]))
    experiment = _experiment(folder, kind, seed, steps=steps, quick=args.quick)
    changes = {"optimizer": optimizer} | ({} if rate is None else {"learning_rate": rate})
    experiment = experiment.model_copy(update={**changes, "steps": steps, "ema_decay": 0.99})
    source, trainer = open_source(experiment), Trainer(experiment, folder, torch.device("cpu"))
    judge = _judge(trainer, kind, 4 if args.quick else UNSEEN_SCENES)
    every, curve, seconds = max(1, steps // CURVE_POINTS), [{"step": 0, **judge()}], 0.0
    for batch in batch_stream(SourceBatches(source, experiment, first=0, last=steps), 0):
        began = time.process_time()
        trainer.improve(batch)
        seconds += time.process_time() - began
        if trainer.step % every == 0:
            curve.append({"step": trainer.step, **judge()})
    return {
        "learning_rate": experiment.learning_rate,
        "steps_done": steps,
        "step_s": seconds / steps,
        "optimizer_ms": 1000 * _least(trainer.optimizer.step, repeats=3 if args.quick else 30),
        "curve": curve,
    }


def _experiment(folder: Path, kind: str, seed: int, *, steps: int, quick: bool) -> Experiment:
    from smlm_pb.training import propose_from_counts, propose_from_labels

    if kind == "example":
        example = Experiment.from_yaml(Path(__file__).parents[1] / "examples" / "experiment.yaml")
        return example.model_copy(update={"seed": 1000 + seed})
    if kind in (NOTHING, FINE_TUNE):
        return _simulated(kind, seed, steps)
    frames = 12 if quick else FRAMES
    movie, truth = movie_of(folder, "movie", DENSITY_PER_UM2, frames=frames, size_px=SIZE_PX, seed=seed)
    inside = (np.abs(np.array([truth["x"], truth["y"]]) - (SIZE_PX - 1) / 2) < SIZE_PX / 2).all(0)
    truth, table = truth.select(inside), folder / "labels.csv"
    camera = density_sweep(1.0).camera.camera().as_dict()
    known: dict[str, Any] = {name: float(camera[name]) for name in ("offset_adu", "e_per_adu")}
    known |= {"psf_sigma_px": 1.1, "seed": 1000 + seed, "steps": steps}
    rng = np.random.default_rng([seed, 13])
    if kind == "positions":
        error_px = LABEL_ERROR_NM / PIXEL_NM
        truth.with_columns(**{a: truth[a] + rng.normal(0, error_px, len(truth)) for a in "xy"}).save(
            table, format="csv"
        )
        return propose_from_labels(movie, [table], label_sigma_px=error_px, pixel_size_nm=PIXEL_NM, **known).experiment
    rows = []
    for frame in range(frames):
        here = truth.select(truth["frame"] == frame)
        for y0, x0 in rng.integers(0, SIZE_PX - WINDOW_PX + 1, (WINDOWS_PER_FRAME, 2)):
            ends = y0 + WINDOW_PX, x0 + WINDOW_PX
            within = (here["y"] >= y0 - 0.5) & (here["y"] < ends[0] - 0.5)
            within &= (here["x"] >= x0 - 0.5) & (here["x"] < ends[1] - 0.5)
            rows.append((frame, y0, x0, *ends, int(within.sum())))
    np.savetxt(table, rows, fmt="%d", delimiter=",", header="frame,y0,x0,y1,x1,count", comments="")
    return propose_from_counts(movie, table, **known).experiment


def _simulated(kind: str, seed: int, steps: int) -> Experiment:
    """On scenes of crowded filaments, of which the start knows as one thing among many."""
    common = {"name": "arm", "seed": 1000 + seed, "steps": steps, "batch_size": 4, "crop_px": 32, "workers": 0}
    plain: dict[str, Any] = {**common, "scenes": SCENES, "network": NETWORK, "loss": LOSS, "warmup": 0.05}
    if kind == FINE_TUNE:
        start = load_model(START, "cpu").card
        loss = Experiment.from_yaml(find_model(START) / "experiment.yaml").loss.model_dump(mode="json")
        for name in ("bandwidth_px", "count_weight"):  # the start is past the beginning
            loss[name]["start"] = loss[name]["end"]
        plain |= {"network": start.network, "start_from": START, "loss": loss, "learning_rate": FINE_TUNE_RATE}
    return Experiment.from_dict(plain, source=kind)


def _judge(trainer: Trainer, kind: str, n_scenes: int) -> Callable[[], dict[str, float]]:
    """Scores of the averaged weights on scenes that no training saw."""
    experiment = trainer.experiment
    unseen = experiment.validation.model_copy(update={"scenes": n_scenes, "seed": UNSEEN_SEED})
    scenes = validation_scenes(unseen, experiment.scene_settings(), 32)
    batches = [collate(scenes[k : k + 16]) for k in range(0, len(scenes), 16)]
    tolerance_px = 1.0 if kind == "counts" else 0.5

    @torch.no_grad()
    def loss(batch: Batch) -> float:
        network = trainer.averaged
        output = trainer.method.predict(network, batch.electrons, batch.psf_sigma_px, batch.population)
        return float(trainer.method.objective(network, output, batch, experiment, 1.0)["total"])

    def judge() -> dict[str, float]:
        scores = validate(trainer.averaged, scenes, tolerance_px=tolerance_px, device=trainer.device)
        return {"loss": float(np.mean([loss(batch) for batch in batches])), "jaccard": scores.jaccard}

    return judge


def _least(call: Callable[[], Any], *, repeats: int) -> float:
    """Shortest processor time of a call, s."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return min(found)


# ---- what they show

#: Kind, optimizer and learning rate; the runs of each by seed.
Arms = dict[tuple[str, str, float], dict[int, dict[str, Any]]]


def _arms(runs: Iterable[Mapping[str, Any]]) -> Arms:
    arms: Arms = {}
    for run in runs:
        arms.setdefault((run["kind"], run["optimizer"], run["learning_rate"]), {})[run["seed"]] = dict(run)
    return arms


def _final(runs: Mapping[int, Mapping[str, Any]], name: str) -> list[float]:
    """The last value of every seed."""
    return [run["curve"][-1][name] for run in runs.values()]


def _best_adamw(arms: Arms) -> tuple[str, str, float]:
    """The learning rate with which AdamW does best from nothing."""
    found = [arm for arm in arms if arm[:2] == (NOTHING, "adamw")]
    return min(found, key=lambda arm: float(np.mean(_final(arms[arm], "loss"))))


def _steps_to(run: Mapping[str, Any], goal: float, name: str, *, rising: bool = False) -> float:
    """Step at which a run first is as good as ``goal``, between points of its curve; NaN where it never is."""
    sign = 1 if rising else -1
    points = [(point["step"], sign * (point[name] - goal)) for point in run["curve"]]
    for (step, short), (next_step, over) in itertools.pairwise(points):
        if over >= 0 > short:
            return float(step + (next_step - step) * short / (short - over))
    return math.nan


def _table(arms: Arms) -> Table:
    best = _best_adamw(arms)
    rows = []
    for arm, runs in sorted(arms.items()):
        if arm[0] != NOTHING:
            continue
        seeds = [seed for seed in runs if seed in arms[best]]
        goals = {seed: arms[best][seed]["curve"][-1] for seed in seeds}
        to_loss = [_steps_to(runs[seed], goals[seed]["loss"], "loss") for seed in seeds]
        to_jaccard = [_steps_to(runs[seed], goals[seed]["jaccard"], "jaccard", rising=True) for seed in seeds]
        rate, step_s = arm[2], [run["step_s"] for run in runs.values()]
        minutes = [steps * runs[seed]["step_s"] / 60 for seed, steps in zip(seeds, to_loss, strict=True)]
        rows.append(
            [
                f"{_NAMES[arm[1]]}, {rate:g}" + (f" ({2 * rate:g} for convolutions)" if arm[1] == "muon" else ""),
                str(len(runs)),
                spread(_final(runs, "loss"), 1),
                spread(_final(runs, "jaccard")),
                "–" if arm == best else _reached(to_loss),
                "–" if arm == best else _reached(to_jaccard),
                number(float(np.mean(minutes)), 2),
                number(1000 * min(step_s), 1),
                number(min(run["optimizer_ms"] for run in runs.values()), 2),
            ]
        )
    columns = ("optimizer, learning rate", "seeds", "final loss", "final J", "steps to AdamW's best loss",
               "steps to its J", "minutes to that loss", "least ms/step", "of which optimizer (ms)")  # fmt: skip
    steps = next(iter(arms[best].values()))["steps_done"]
    return Table(f"From nothing, {steps} steps of four scenes; loss and J on unseen scenes", columns, rows)


def _reached(steps: Sequence[float]) -> str:
    """Mean over the seeds that came there, and how many did not."""
    missed = sum(not math.isfinite(step) for step in steps)
    if missed == len(steps):
        return "never"
    return spread(steps, 0) + (f" ({len(steps) - missed} of {len(steps)} seeds)" if missed else "")


def _proposed_table(arms: Arms) -> Table:
    rows = []
    for kind, (title, _, _) in KINDS.items():
        muon = next((arm for arm in arms if arm[:2] == (kind, "muon")), None)
        if kind == NOTHING or muon is None:
            continue
        rate, runs = muon[2], arms[muon]
        same, twice = (arms.get((kind, "adamw", factor * rate), {}) for factor in (1, 2))
        first = next(iter(runs.values()))
        gains = [
            runs[seed]["curve"][-1]["jaccard"] - max(other[seed]["curve"][-1]["jaccard"] for other in (same, twice))
            for seed in runs
            if seed in same and seed in twice
        ]
        finals = [spread(_final(found, "jaccard")) for found in (same, twice, runs)]
        start = number(first["curve"][0]["jaccard"]) if kind == FINE_TUNE else "–"
        rows.append([title, str(len(runs)), str(first["steps_done"]), f"{rate:g}", start, *finals, spread(gains)])
    columns = ("training", "seeds", "steps", "learning rate", "J before", "AdamW: J", "AdamW at twice the rate: J",
               "Muon: J", "gain over the better one")  # fmt: skip
    return Table("Trainings as the program proposes them, cut short; J on unseen scenes of their range", columns, rows)


def _figure(arms: Arms) -> Any:
    figure, axes = new_figure(2, width=4.4, height=3.4)
    best = _best_adamw(arms)
    colours = {"muon": [COLOURS["ours"], COLOURS["ours, second"]], "adamw": [COLOURS["reference"]] * len(arms)}
    styles = {"muon": ["-", "-"], "adamw": [":", "-.", "--"] * len(arms)}
    for arm, runs in sorted(arms.items()):
        if arm[0] != NOTHING:
            continue
        colour, style = COLOURS["other"], "-"
        if arm != best:
            colour, style = colours[arm[1]].pop(0), styles[arm[1]].pop(0)
        for ax, name in zip(axes[0], ("loss", "jaccard"), strict=True):
            steps = [point["step"] for point in next(iter(runs.values()))["curve"]]
            values = np.array([[point[name] for point in run["curve"]] for run in runs.values()])
            if style == "-":
                ax.fill_between(steps[1:], values[:, 1:].min(0), values[:, 1:].max(0), color=colour, alpha=0.2, lw=0)
            ax.plot(steps[1:], values[:, 1:].mean(0), style, color=colour, label=f"{_NAMES[arm[1]]}, {arm[2]:g}")
    for ax, name in zip(axes[0], ("loss", "jaccard"), strict=True):
        ax.axhline(float(np.mean(_final(arms[best], name))), color=COLOURS["other"], lw=0.8, zorder=0)
    axes[0, 0].set(xlabel="step", ylabel="loss on unseen scenes", title="From nothing (mean and range of seeds)")
    axes[0, 1].set(xlabel="step", ylabel="Jaccard index within .5 px", title="Found on unseen scenes")
    axes[0, 0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    run_as_program(main)
