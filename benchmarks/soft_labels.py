"""Learning from labels that err: recall and precision as labels are jittered by 0 to 100 nm.

A simulated movie (0.5 molecules per µm², 2000 e⁻ on 50 e⁻/px, σ 1.1 px, 100-nm pixels) is labelled with its true
positions plus Gaussian jitter. Networks learn from these labels alone: by heatmap matching that is told the size of the
jitter and by cross-entropy per pixel, both starting from the shipped model `fast`, and by cross-entropy against
smoothed labels, which has another kind of output and starts from nothing, with twice the steps. All are tested on
frames with exact truth. With --from-nothing all start from nothing (results are named soft_labels_from_nothing).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _report import COLOURS, Table, mean, new_figure, number, publish, run_as_program, spread
from _taught import NETWORK, PIXEL_NM, examine, movie_of, movie_section, parse_taught, taught, taught_parser, teach

JITTER_NM = (0.0, 25.0, 50.0, 100.0)
DENSITY_PER_UM2 = 0.5
FRAMES, TEST_FRAMES, SIZE_PX = 1000, 60, 64
#: Methods by name: title, whether it is told the jitter, colour.
METHODS = {
    "softloc": ("soft labels (error told)", "heatmap-matching", True, COLOURS["ours"]),
    "cross-entropy": ("cross-entropy per pixel", "cross-entropy", False, COLOURS["other"]),
    "label-smoothing": ("smoothed labels", "label-smoothing", False, COLOURS["other, second"]),
}
#: The model that methods with its kind of output start from, and the learning rate then.
START, START_RATE = "fast", 2e-4
STARTING = ("heatmap-matching", "cross-entropy")
#: What is asked of soft labels between no jitter and 50 nm.
LARGEST_LOSS, LARGEST_RATIO = 0.03, 1.1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    from smlm_pb.localization import load_model

    parser = taught_parser(__doc__ or "", steps=200)
    parser.add_argument("--from-nothing", action="store_true", help="no network starts from a shipped model")
    args = parse_taught(parser, argv)
    start = None if args.from_nothing else START
    # What is asked for first: 0 and 50 nm.
    keys = [
        {"method": method, "jitter_nm": jitter, "seed": seed}
        for pair in ((0.0, 50.0), (100.0, 25.0))
        for seed, jitter, method in product(range(args.seeds), pair, METHODS)
    ]
    settings = {"frames": FRAMES, "start": start}
    models = [] if start is None else [start]
    runs = taught("soft_labels", args, keys, _train_and_test, settings=settings, models=models)
    if runs is None:
        return 0
    each = [
        {"method": m, "jitter_nm": j, "runs": [r for r in runs if (r["method"], r["jitter_nm"]) == (m, j)]}
        for m in METHODS
        for j in JITTER_NM
    ]
    points = [point for point in each if point["runs"]]
    verdict = _verdict(points)
    publish(
        "soft_labels_from_nothing" if args.from_nothing else "soft_labels",
        args,
        tables=[_table(points), _verdict_table(verdict)],
        results={"points": points, "verdict": verdict},
        settings={
            "seeds": args.seeds,
            "steps": args.steps,
            "start": start if start is None else f"{start} ({load_model(start, 'cpu').card.weights_sha256[:8]})",
            "network": NETWORK,
            "frames": FRAMES,
            "test_frames": TEST_FRAMES,
            "density_per_um2": DENSITY_PER_UM2,
        },
        figure=_figure(points),
    )
    return 0


def _train_and_test(
    folder: Path, args: argparse.Namespace, *, method: str, jitter_nm: float, seed: int
) -> dict[str, Any]:
    from smlm_pb.training.from_labels import soft_loss

    frames, test_frames = (20, 4) if args.quick else (FRAMES, TEST_FRAMES)
    movie, truth = movie_of(folder, "movie", DENSITY_PER_UM2, frames=frames, size_px=SIZE_PX, seed=seed)
    test, test_truth = movie_of(folder, "test", DENSITY_PER_UM2, frames=test_frames, size_px=SIZE_PX, seed=1000 + seed)
    rng, jitter_px = np.random.default_rng([seed, round(jitter_nm)]), jitter_nm / PIXEL_NM
    moved = {axis: truth[axis] + rng.normal(0.0, jitter_px, len(truth)) for axis in "xy"}
    # Labels further out would be taken for those of another movie.
    inside = (np.abs(np.array([moved["x"], moved["y"]]) - (SIZE_PX - 1) / 2) < SIZE_PX / 2 + 2).all(0)
    labels = truth.with_columns(**moved).select(inside)
    labels.save(folder / "labels.csv", format="csv")
    _, known_as, told, _ = METHODS[method]
    plain: dict[str, Any] = {
        "method": known_as,
        "data": movie_section(
            movie, labels=[{"table": str(folder / "labels.csv"), "sigma_px": jitter_px if told else 0.0}]
        ),
    }
    starts = known_as in STARTING and not args.from_nothing
    if told:
        plain["loss"] = soft_loss(jitter_px, crop_px=32, fine_tune=starts)
    if starts:
        plain |= {"start_from": START, "learning_rate": START_RATE}
    steps = args.steps if starts or args.from_nothing else 2 * args.steps
    model, seconds = teach(folder, plain, steps=steps, seed=seed)
    return {**examine(model, test, test_truth), "cpu_s": seconds}


def _values(points: list[dict[str, Any]], method: str, jitter_nm: float, name: str) -> list[float]:
    runs = [run for p in points if (p["method"], p["jitter_nm"]) == (method, jitter_nm) for run in p["runs"]]
    # Where nothing was found there is no error.
    return [run[name] for run in runs if run[name] is not None]


def _verdict(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What 50 nm of jitter cost each method."""
    rows = []
    for method in METHODS:
        recall = [np.array(_values(points, method, j, "recall_50"), float) for j in (0.0, 50.0)]
        rmse = [mean(_values(points, method, j, "rmse_50_nm")) for j in (0.0, 50.0)]
        loss = recall[0] - recall[1]
        error = float(loss.std(ddof=1) / np.sqrt(len(loss))) if len(loss) > 1 else float("nan")
        row = {"method": method, "recall_lost": float(loss.mean()), "standard_error": error}
        rows.append({**row, "rmse_ratio": rmse[1] / rmse[0]})
    return rows


def _table(points: list[dict[str, Any]]) -> Table:
    names = ("recall_50", "precision_50", "jaccard_50", "rmse_50_nm", "rmse_100_nm", "pull")
    digits = (3, 3, 3, 1, 1, 2)
    rows = [
        [
            METHODS[p["method"]][0],
            f"{p['jitter_nm']:g}",
            str(len(p["runs"])),
            *(spread([run[name] for run in p["runs"]], d) for name, d in zip(names, digits, strict=True)),
        ]
        for p in points
    ]
    columns = (
        "method",
        "jitter (nm)",
        "movies",
        "recall at 50 nm",
        "precision at 50 nm",
        "J at 50 nm",
        "RMSE at 50 nm (nm)",
        "RMSE at 100 nm (nm)",
        "sd of error/σ",
    )
    return Table("Learned from jittered labels, tested against the truth (RMSE per axis)", columns, rows)


def _verdict_table(verdict: list[dict[str, Any]]) -> Table:
    rows = [
        [
            METHODS[v["method"]][0],
            f"{100 * v['recall_lost']:.1f} ± {100 * v['standard_error']:.1f}",
            number(v["rmse_ratio"], 2),
        ]
        for v in verdict
    ]
    goal = f"at most {100 * LARGEST_LOSS:.0f} points and {LARGEST_RATIO:g} times the RMSE"
    title = f"What 50 nm of jitter cost; the goal for soft labels is {goal}"
    return Table(title, ("method", "points of recall at 50 nm (± standard error)", "RMSE, relative"), rows)


def _figure(points: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(2)
    for ax, name, label in (
        (axes[0, 0], "recall_50", "recall at 50 nm"),
        (axes[0, 1], "rmse_100_nm", "RMSE per axis at 100 nm (nm)"),
    ):
        for method, (title, _, _, colour) in METHODS.items():
            there = [j for j in JITTER_NM if _values(points, method, j, name)]
            each = [_values(points, method, j, name) for j in there]
            middle = [mean(values) for values in each]
            error = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in each]
            ax.errorbar(there, middle, error, fmt="o-", color=colour, capsize=3, label=title)
        ax.set(xlabel="jitter of the labels, per axis (nm)", ylabel=label)
        ax.set_ylim(bottom=0)
    axes[0, 0].set(title="Found", ylim=(0, 1.02))
    axes[0, 1].set_title("Precision")
    axes[0, 0].legend(frameon=False, loc="lower left")
    return figure


if __name__ == "__main__":
    run_as_program(main)
