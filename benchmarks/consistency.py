"""Counting consistency: whether frames without labels help where labels are few and from brighter frames.

One tenth of the frames is labelled and bright (2500 e⁻ per molecule on 30 e⁻/px), the others are dim (1200 e⁻ on
60 e⁻/px) and without labels; 1 molecule per µm², σ 1.1 px, 100-nm pixels. Small networks learn from the labelled frames
alone, and from both: the number of molecules in a tile of an unlabelled crop must be the same when the crop is turned
and loses light. Two losses say so: the published one, and one in which the view with all its light teaches the other.
They are tested on dim frames with exact truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from _report import COLOURS, Table, new_figure, number, publish, run_as_program, spread
from _taught import NETWORK, Light, examine, movie_of, movie_section, parse_taught, taught, taught_parser, teach

DENSITY_PER_UM2 = 1.0
FRAMES, LABELLED, TEST_FRAMES, SIZE_PX = 400, 40, 40, 64
BRIGHT, DIM = Light(2500.0, 30.0), Light(1200.0, 60.0)
#: By name: title, loss and weight of the consistency, colour.
KINDS = {
    "supervised": ("labelled frames only", None, COLOURS["other"]),
    "taught": ("one view teaches, weight 0.05", ("taught", 0.05), COLOURS["ours"]),
    "stronger": ("one view teaches, weight 0.2", ("taught", 0.2), COLOURS["ours, second"]),
    "equal": ("equal counts, weight 0.05", ("equal", 0.05), COLOURS["other, second"]),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_taught(taught_parser(__doc__ or "", steps=800), argv)
    # What is asked for first: whether it helps.
    keys = [
        {"loss": KINDS[kind][1], "kind": kind, "seed": seed}
        for kinds in (("supervised", "taught"), ("equal", "stronger"))
        for seed in range(args.seeds)
        for kind in kinds
    ]
    told = {"light": [asdict(BRIGHT), asdict(DIM)]}
    runs = taught("consistency", args, keys, _train_and_test, settings=told)
    if runs is None:
        return 0
    each: list[dict[str, Any]] = [
        {"kind": kind, "runs": [run for run in runs if run["kind"] == kind]} for kind in KINDS
    ]
    points = [point for point in each if point["runs"]]
    gains = {p["kind"]: gained(points[0], p, "jaccard_50") for p in points[1:]}
    publish(
        "consistency",
        args,
        tables=[_table(points), _gain_table(gains)],
        results={"points": points, "gains": gains},
        settings={
            "seeds": args.seeds,
            "steps": args.steps,
            "network": NETWORK,
            "losses": {kind: loss for kind, (_, loss, _) in KINDS.items()},
            "light": {"labelled": asdict(BRIGHT), "unlabelled": asdict(DIM)},
            "labelled_frames": LABELLED,
            "unlabelled_frames": FRAMES - LABELLED,
            "density_per_um2": DENSITY_PER_UM2,
        },
        figure=_figure(points),
    )
    return 0


def gained(without: dict[str, Any], with_it: dict[str, Any], name: str) -> dict[str, float]:
    """Mean difference over seeds, its standard error, and their ratio."""
    alone, both = ({run["seed"]: run[name] for run in p["runs"]} for p in (without, with_it))
    difference = np.array([both[seed] - alone[seed] for seed in alone if seed in both], float)
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else float("nan")
    gain = float(difference.mean())
    return {"gain": gain, "standard_error": error, "in_standard_errors": gain / error if error > 0 else float("nan")}


def _train_and_test(
    folder: Path, args: argparse.Namespace, *, kind: str, seed: int, loss: tuple[str, float] | None
) -> dict[str, Any]:
    labelled, others, test_frames = (6, 10, 4) if args.quick else (LABELLED, FRAMES - LABELLED, TEST_FRAMES)
    bright, truth = movie_of(
        folder, "bright", DENSITY_PER_UM2, frames=labelled, size_px=SIZE_PX, seed=seed, light=BRIGHT
    )
    truth.save(folder / "labels.csv", format="csv")
    labels = [{"table": str(folder / "labels.csv"), "own_sigma": False}]
    plain: dict[str, Any] = {"data": movie_section(bright, labels=labels)}
    if loss is not None:
        form, weight = loss
        dim, _ = movie_of(folder, "dim", DENSITY_PER_UM2, frames=others, size_px=SIZE_PX, seed=300 + seed, light=DIM)
        plain["consistency"] = movie_section(dim, weight=weight, form=form)
    model, seconds = teach(folder, plain, steps=args.steps, seed=seed)
    test, test_truth = movie_of(
        folder, "test", DENSITY_PER_UM2, frames=test_frames, size_px=SIZE_PX, seed=1000 + seed, light=DIM
    )
    return {**examine(model, test, test_truth), "cpu_s": seconds}


def _table(points: list[dict[str, Any]]) -> Table:
    names = ("jaccard_50", "recall_50", "precision_50", "jaccard_100", "rmse_50_nm")
    rows = [
        [
            KINDS[p["kind"]][0],
            *(spread([run[n] for run in p["runs"]], 1 if n == "rmse_50_nm" else 3) for n in names),
        ]
        for p in points
    ]
    columns = ("learned from", "J at 50 nm", "recall", "precision", "J at 100 nm", "RMSE per axis (nm)")
    return Table("Dim frames, by networks whose labels are of bright ones", columns, rows)


def _gain_table(gains: dict[str, dict[str, float]]) -> Table:
    rows = [
        [
            KINDS[kind][0],
            number(gain["gain"]),
            number(gain["standard_error"]),
            number(gain["in_standard_errors"], 1),
            "yes" if gain["in_standard_errors"] > 2 else "no",
        ]
        for kind, gain in gains.items()
    ]
    columns = (
        "with frames without labels",
        "gain of J at 50 nm",
        "standard error",
        "gain / standard error",
        "helps (above 2)",
    )
    return Table("What frames without labels bring", columns, rows)


def _figure(points: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(1, width=6.4)
    ax = axes[0, 0]
    values = [[run["jaccard_50"] for run in p["runs"]] for p in points]
    for place, point in enumerate(points):
        ax.plot([place] * len(values[place]), values[place], "o", color=KINDS[point["kind"]][2])
    ax.set_xticks(range(len(points)), [KINDS[p["kind"]][0].replace(", ", ",\n") for p in points])
    ax.set(xlim=(-0.5, len(points) - 0.5), ylabel="Jaccard index at 50 nm", title="Dim frames; one point per seed")
    ax.set_ylim(bottom=0)
    return figure


if __name__ == "__main__":
    run_as_program(main)
