"""Learning positions from numbers of molecules alone.

Simulated movies with 0.1 molecules per µm² (2000 e⁻ on 50 e⁻/px, σ 1.1 px, 100-nm pixels). Small networks are told how
many molecules lie in windows of 8 to 20 px at random places, or how many in each whole frame of 32×32 px, or in such
frames that all hold exactly one. They are tested on frames with exact truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _report import COLOURS, Table, new_figure, number, publish, run_as_program, spread
from _taught import NETWORK, examine, movie_of, movie_section, parse_taught, recipe_of, taught, taught_parser, teach

from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.losses import start_logit
from smlm_pb.simulation import simulate

DENSITY_PER_UM2 = 0.1
FRAMES, WINDOWS_PER_FRAME, SMALL_FRAMES, TEST_FRAMES = 600, 8, 2400, 100
WINDOW_PX, SMALL_PX, SIZE_PX = (8, 20), 32, 64
GOAL = 0.8
#: What is counted: name, colour.
KINDS = {
    "windows": ("windows at random places", COLOURS["ours"]),
    "frames": ("whole frames of 3.2 µm", COLOURS["ours, second"]),
    "constant": ("whole frames, always one molecule", COLOURS["other"]),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_taught(taught_parser(__doc__ or "", steps=600), argv)
    keys = [{"kind": kind, "seed": seed} for seed in range(args.seeds) for kind in KINDS]
    runs = taught("counts_only", args, keys, _train_and_test)
    if runs is None:
        return 0
    points = [{"kind": kind, "runs": [run for run in runs if run["kind"] == kind]} for kind in KINDS]
    publish(
        "counts_only",
        args,
        tables=[_table(points)],
        results={"points": points},
        settings={
            "seeds": args.seeds,
            "steps": args.steps,
            "network": NETWORK,
            "frames": FRAMES,
            "windows_per_frame": WINDOWS_PER_FRAME,
            "window_px": list(WINDOW_PX),
            "density_per_um2": DENSITY_PER_UM2,
        },
        figure=_figure(points),
    )
    return 0


def _train_and_test(folder: Path, args: argparse.Namespace, *, kind: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 11])
    frames, small = (12, 24) if args.quick else (FRAMES, SMALL_FRAMES)
    if kind == "windows":
        movie, truth = movie_of(folder, "movie", DENSITY_PER_UM2, frames=frames, size_px=SIZE_PX, seed=seed)
        rows = _windows(rng, truth)
        header = "frame,y0,x0,y1,x1,count"
    else:
        if kind == "constant":
            movie, truth = _one_each(folder, rng, small, seed)
        else:
            movie, truth = movie_of(folder, "movie", DENSITY_PER_UM2, frames=small, size_px=SMALL_PX, seed=seed)
        counts = np.bincount(truth["frame"], minlength=truth.info.n_frames)
        rows = np.column_stack((np.arange(len(counts)), counts))
        header = "frame,count"
    np.savetxt(folder / "counts.csv", rows, fmt="%d", delimiter=",", header=header, comments="")
    plain = {
        "network": {"n_candidates": 1, "start_logit": start_logit(DENSITY_PER_UM2 / 100, 1)},
        "batch_size": 16,
        "data": movie_section(movie, counts=str(folder / "counts.csv")),
    }
    model, seconds = teach(folder, plain, steps=args.steps, seed=seed)
    test_frames = 4 if args.quick else TEST_FRAMES
    test, test_truth = movie_of(folder, "test", DENSITY_PER_UM2, frames=test_frames, size_px=SIZE_PX, seed=1000 + seed)
    return {**examine(model, test, test_truth), "counts": len(rows), "cpu_s": seconds}


def _windows(rng: np.random.Generator, truth: Localizations) -> npt.NDArray[np.int64]:
    """Windows at random places of every frame with the number of molecules in them."""
    rows = []
    frame, y, x = (truth[name].astype(np.float64) for name in ("frame", "y", "x"))
    for k in range(truth.info.n_frames):
        here = frame == k
        for _ in range(WINDOWS_PER_FRAME):
            side = rng.integers(WINDOW_PX[0], WINDOW_PX[1] + 1)
            y0, x0 = rng.integers(0, SIZE_PX - side + 1, 2)
            inside = (y[here] >= y0 - 0.5) & (y[here] < y0 + side - 0.5)
            inside &= (x[here] >= x0 - 0.5) & (x[here] < x0 + side - 0.5)
            rows.append((k, y0, x0, y0 + side, x0 + side, int(inside.sum())))
    return np.array(rows, dtype=np.int64)


def _one_each(folder: Path, rng: np.random.Generator, frames: int, seed: int) -> tuple[Path, Localizations]:
    """Small frames that all hold exactly one molecule: those with one, out of a movie with many frames."""
    movie, truth = simulate(recipe_of(DENSITY_PER_UM2, frames=4 * frames, size_px=SMALL_PX), seed=seed + 500)
    inside = (np.abs(truth["x"] - (SMALL_PX - 1) / 2) < SMALL_PX / 2) & (
        np.abs(truth["y"] - (SMALL_PX - 1) / 2) < SMALL_PX / 2
    )
    count = np.bincount(truth["frame"][inside], minlength=len(movie))
    chosen = np.flatnonzero(count == 1)[:frames]
    kept = truth.select(inside & np.isin(truth["frame"], chosen))
    path = folder / "movie.npy"
    np.save(path, movie[chosen])
    renumbered = kept.with_columns(frame=np.searchsorted(chosen, kept["frame"]).astype(np.uint32))
    return path, renumbered.with_info(MovieInfo(len(chosen), SMALL_PX, SMALL_PX, 100.0, "one each"))


def _table(points: list[dict[str, Any]]) -> Table:
    names = ("jaccard_100", "recall_100", "precision_100", "rmse_100_nm", "jaccard_50")
    digits = (3, 3, 3, 1, 3)
    rows = [
        [
            KINDS[p["kind"]][0],
            number(p["runs"][0]["counts"], 0),
            *(spread([run[name] for run in p["runs"]], d) for name, d in zip(names, digits, strict=True)),
        ]
        for p in points
    ]
    columns = ("counted", "counts", "J at 100 nm", "recall", "precision", "RMSE per axis (nm)", "J at 50 nm")
    return Table(
        f"Learned from counts alone, 0.1 molecules/µm² (goal for windows: J at 100 nm ≥ {GOAL:g})", columns, rows
    )


def _figure(points: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(1, width=5.8)
    ax = axes[0, 0]
    ax.axhline(GOAL, ls="--", color=COLOURS["goal"], label="goal")
    for place, point in enumerate(points):
        values = [run["jaccard_100"] for run in point["runs"]]
        ax.bar(place, np.mean(values), color=KINDS[point["kind"]][1], width=0.6)
        ax.plot([place] * len(values), values, "k.", ms=5)
    ax.set_xticks(
        range(len(points)), [KINDS[p["kind"]][0].replace(" at ", "\nat ").replace(", ", ",\n") for p in points]
    )
    ax.set(ylim=(0, 1.02), ylabel="Jaccard index at 100 nm", title="Learned from counts alone")
    ax.legend(frameon=False, loc="upper right")
    return figure


if __name__ == "__main__":
    run_as_program(main)
