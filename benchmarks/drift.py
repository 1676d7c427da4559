"""Drift of a simulated stage: what is left of it after correction, by the kernel and by redundant cross-correlation.

100 000 localizations of 10 nm precision (blinks of 2 frames on average, 3 blinks per molecule) in 5000 frames of 64×64
pixels of 100 nm. The residual is the root mean square error of the path per axis, over the localizations. The
correlation runs with its default number of stretches (40 here) and with 10 and 20; the best of the three, chosen with
the truth, stands beside it. Time is processor time of one thread; the check on held-out molecules is part of it only in
the second table. COMET (comet-smlm, where it is installed) takes minutes for such tables on a processor, and is
compared on 20 000 localizations.

What can be known at most is told for random walks by two estimates that start at the true path and its speed: one knows
the place of every molecule, but not which blink is whose; the other knows that, too.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from _report import COLOURS, Table, make_parser, new_figure, number, parse, publish, run_as_program

from smlm_pb.analysis import estimate_drift
from smlm_pb.analysis.drift_joint import Rows, settle
from smlm_pb.analysis.drift_kernel import Trajectory
from smlm_pb.analysis.drift_walk import Walk, smooth
from smlm_pb.analysis.linking import link
from smlm_pb.simulation.tables import DriftKind, StructureName, draw_drift, simulate_localizations

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.analysis.drift import Method
    from smlm_pb.simulation.tables import SimulatedTable

STRUCTURES = ("filaments", "rings", "clusters")
PATHS = (("linear", 50), ("linear", 500), ("sine", 200), ("random_walk", 50), ("random_walk", 500), ("jump", 500))
STRETCHES = (10, 20, None)
COMET_STRETCHES = (40, 200)
COMET_PATHS = (("linear", 500), ("sine", 200), ("random_walk", 500))
COMET_LOCALIZATIONS = 20_000
N_FRAMES = 5000
N_LOCALIZATIONS = 100_000
SIZES = (10_000, 100_000, 1_000_000)
GOAL_NM = 2.0
SIGMA_NM, PIXEL_NM = 10.0, 100.0
MORE = ("structure_known", "places_known")
# None of the tables was seen while the method was made.
SEED = 20_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse(make_parser(__doc__ or "", model=False), argv)
    n, frames = (3000, 500) if args.quick else (N_LOCALIZATIONS, N_FRAMES)
    structures, paths = (STRUCTURES[:1], PATHS[:1]) if args.quick else (STRUCTURES, PATHS)
    points = [
        compare(structure, kind, range_nm, n, frames, seed)
        for seed, structure in enumerate(structures)
        for kind, range_nm in paths
    ]
    still = [stay_still(structure, n, frames) for structure in structures]
    sizes = [grow(size, frames) for size in ((2000, 4000) if args.quick else SIZES)]
    has_comet = importlib.util.find_spec("comet") is not None and not args.quick
    comet = [compare_comet(*path, COMET_LOCALIZATIONS, frames) for path in COMET_PATHS] if has_comet else []
    publish(
        "drift",
        args,
        tables=[_residuals(points), _sizes(sizes), _still(still), *([_comet(comet)] if comet else [])],
        results={"residuals": points, "sizes": sizes, "without_drift": still, "comet": comet},
        settings={
            "localizations": n,
            "frames": frames,
            "sigma_nm": 10,
            "on_frames": 2,
            "blinks": 3,
            "stretches": ["10", "20", "default"],
        },
        figure=_figure(points),
    )
    return 0


def compare(structure: str, kind: str, range_nm: float, n: int, frames: int, seed: int) -> dict[str, Any]:
    """Residuals of all methods on one table."""
    path = draw_drift(np.random.default_rng(SEED + seed), cast("DriftKind", kind), frames, range_nm)
    simulated = simulate_localizations(
        cast("StructureName", structure), n_localizations=n, n_frames=frames, drift_nm=path, seed=SEED + seed
    )
    locs = simulated.locs
    frame = locs["frame"].astype(int)
    began = time.process_time()
    kernel = estimate_drift(locs, check=False)
    seconds = time.process_time() - began
    correlation = {
        str(k or "default"): residual_nm(
            estimate_drift(locs, method="correlation", n_stretches=k, check=False).proposed_nm, path, frame
        )
        for k in STRETCHES
    }
    return {
        "structure": structure,
        "path": kind,
        "range_nm": range_nm,
        "kernel_nm": residual_nm(kernel.proposed_nm, path, frame),
        "kernel_seconds": seconds,
        "correlation_nm": correlation,
        "structure_known_nm": structure_known_nm(simulated, path) if kind == "random_walk" else None,
        "places_known_nm": places_known_nm(simulated, path) if kind == "random_walk" else None,
        "uncorrected_nm": residual_nm(np.zeros_like(path), path, frame),
    }


def compare_comet(kind: str, range_nm: float, n: int, frames: int) -> dict[str, Any]:
    """Residuals and processor seconds of the kernel and of COMET, with the number of stretches that suits it best."""
    path = draw_drift(np.random.default_rng(SEED), cast("DriftKind", kind), frames, range_nm)
    locs = simulate_localizations("rings", n_localizations=n, n_frames=frames, drift_nm=path, seed=SEED).locs
    frame = locs["frame"].astype(int)
    point: dict[str, Any] = {"path": kind, "range_nm": range_nm, "localizations": n}
    for name, tried in (("kernel", (None,)), ("correlation", STRETCHES), ("comet", COMET_STRETCHES)):
        found = []
        for k in tried:
            began = time.process_time()
            drift = estimate_drift(locs, method=cast("Method", name), n_stretches=k, check=False)
            found.append((residual_nm(drift.proposed_nm, path, frame), time.process_time() - began))
        point[f"{name}_nm"], point[f"{name}_seconds"] = min(found)
    return point


def structure_known_nm(simulated: SimulatedTable, path: np.ndarray) -> float:
    """Residual when the places of all molecules are known, but not which blink is whose."""
    locs, frames = simulated.locs, len(path)
    blink = link(locs, merge=False)["group"]
    order = np.lexsort((locs["frame"], blink))
    rows = Rows(_xy_nm(locs)[order], locs["frame"][order] + 0.5, np.full(len(locs), SIGMA_NM), blink[order])
    places = np.unique(np.stack([simulated.true_x, simulated.true_y], axis=1) * PIXEL_NM, axis=0)
    true = Trajectory(np.arange(frames) + 0.5, path)
    walks = [Walk(float(np.var(np.diff(path[:, k]))), np.ones(frames - 1), 1.0, 0) for k in (0, 1)]
    found = settle(rows, true, walks, frames, 0.0, np.random.default_rng(0), structure_nm=places)
    return residual_nm(found.displacement_nm, path, locs["frame"].astype(int))


def places_known_nm(simulated: SimulatedTable, path: np.ndarray) -> float:
    """Residual of the best smoother (Rauch, Tung, Striebel) when the place of every localization is known."""
    frame = simulated.locs["frame"].astype(int)
    away = _xy_nm(simulated.locs) - np.stack([simulated.true_x, simulated.true_y], axis=1) * PIXEL_NM
    count = np.bincount(frame, minlength=len(path))
    found = np.empty_like(path)
    for k in (0, 1):
        mean = np.bincount(frame, away[:, k], len(path)) / np.maximum(count, 1)
        stiffness = np.full(len(path) - 1, 1 / np.var(np.diff(path[:, k])))
        found[:, k] = smooth(mean, count / SIGMA_NM**2, stiffness)[0]
    return residual_nm(found, path, frame)


def _xy_nm(locs: Any) -> np.ndarray:
    return np.stack([locs["x"], locs["y"]], axis=1).astype(float) * PIXEL_NM


def residual_nm(found: np.ndarray, path: np.ndarray, frame: np.ndarray) -> float:
    """Root mean square error per axis over the localizations, their common shift left out."""
    error = (found - path)[frame]
    error = error - error.mean(axis=0)
    return float(np.sqrt(np.mean(error**2)))


def stay_still(structure: str, n: int, frames: int) -> dict[str, Any]:
    """What is done to a table without drift, with the check."""
    locs = simulate_localizations(cast("StructureName", structure), n_localizations=n, n_frames=frames, seed=SEED).locs
    drift = estimate_drift(locs)
    return {
        "structure": structure,
        "accepted": drift.accepted,
        "proposed_rms_nm": float(np.sqrt(np.mean(drift.proposed_nm**2))),
        "applied_range_nm": max(drift.range_nm),
    }


def grow(n: int, frames: int) -> dict[str, Any]:
    """Residual, its estimate, and processor time for one size of table, with the check."""
    path = draw_drift(np.random.default_rng(SEED), "sine", frames, 200)
    locs = simulate_localizations("filaments", n_localizations=n, n_frames=frames, drift_nm=path, seed=SEED).locs
    began = time.process_time()
    drift = estimate_drift(locs)
    seconds = time.process_time() - began
    return {
        "localizations": n,
        "kernel_nm": residual_nm(drift.proposed_nm, path, locs["frame"].astype(int)),
        "estimated_nm": drift.error_nm,
        "seconds": seconds,
        "accepted": drift.accepted,
    }


def _residuals(points: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for point in points:
        best = min(point["correlation_nm"].values())
        rows.append(
            [
                f"{point['structure']}, {point['path'].replace('_', ' ')}, {point['range_nm']} nm",
                number(point["uncorrected_nm"], 1),
                number(point["kernel_nm"], 2),
                number(point["correlation_nm"]["default"], 2),
                number(best, 2),
                number(point["kernel_nm"] / best, 2),
                *(number(point[f"{name}_nm"], 2) if point[f"{name}_nm"] else "" for name in MORE),
                number(point["kernel_seconds"], 1),
            ]
        )
    columns = (
        "structure, path, range",
        "uncorrected (nm)",
        "kernel (nm)",
        "correlation (nm)",
        "its best (nm)",
        "kernel / best",
        "structure known (nm)",
        "places known (nm)",
        "kernel (s)",
    )
    return Table("Residual error of the path per axis; the goal is 2 nm and half of the correlation's.", columns, rows)


def _sizes(sizes: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            f"{size['localizations']}",
            number(size["kernel_nm"], 2),
            number(size["estimated_nm"], 2),
            number(size["seconds"], 1),
            "yes" if size["accepted"] else "no",
        ]
        for size in sizes
    ]
    columns = ("localizations", "kernel (nm)", "its own lower limit (nm)", "processor time (s)", "accepted")
    return Table("Kernel with the check, sine of 200 nm on filaments.", columns, rows)


def _comet(points: Sequence[dict[str, Any]]) -> Table:
    ways = ("kernel", "correlation", "comet")
    rows = [
        [
            f"{point['path'].replace('_', ' ')}, {point['range_nm']} nm",
            *(f"{number(point[f'{way}_nm'], 2)} ({number(point[f'{way}_seconds'], 1)} s)" for way in ways),
        ]
        for point in points
    ]
    title = f"With COMET, {COMET_LOCALIZATIONS} localizations on rings: residual (processor time)."
    return Table(title, ("path, range", "kernel (nm)", "correlation, its best (nm)", "COMET, its best (nm)"), rows)


def _still(still: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            entry["structure"],
            number(entry["proposed_rms_nm"], 2),
            "yes" if entry["accepted"] else "no",
            number(entry["applied_range_nm"], 2),
        ]
        for entry in still
    ]
    columns = ("structure", "proposed (nm)", "accepted", "applied range (nm)")
    return Table("Without drift: what is proposed (root mean square) and what is done.", columns, rows)


def _figure(points: Sequence[dict[str, Any]]) -> Figure:
    figure, axes = new_figure(1, width=7.5, height=4.2)
    ax = axes[0, 0]
    places = np.arange(len(points))
    ax.plot(places, [p["kernel_nm"] for p in points], "o", color=COLOURS["ours"], label="kernel")
    ax.plot(places, [p["correlation_nm"]["default"] for p in points], "s", color=COLOURS["other"], label="correlation")
    best = [min(p["correlation_nm"].values()) for p in points]
    ax.plot(places, best, "^", color=COLOURS["other, second"], label="correlation, best stretches")
    ax.axhline(GOAL_NM, color=COLOURS["goal"], linestyle=":", label="goal")
    labels = [f"{p['structure']} {p['path'].replace('_', ' ')} {p['range_nm']}" for p in points]
    ax.set_xticks(places, labels, rotation=60, ha="right", fontsize=7)
    ax.set(yscale="log", ylabel="residual error per axis (nm)")
    ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return figure


if __name__ == "__main__":
    run_as_program(main)
