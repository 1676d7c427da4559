"""What arithmetic of fewer digits changes and gains: the same movies in float32 and in what the processor has besides.

Simulated movies as in the sweep over densities (``density_sweep.py``), with camera and PSF width given; times taken by
turns, from array to table.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import COLOURS, Table, load, make_parser, mean, new_figure, number, parse, publish, run_as_program, spread
from _runs import localize, score, seed_of

from smlm_pb.localization.precision import BFLOAT16, FLOAT32, INT8, kinds_of
from smlm_pb.simulation.presets import density_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.localization import Model
    from smlm_pb.localizations import Localizations

TOLERANCE_NM, BORDER_NM, PSF_SIGMA_PX = 100.0, 400.0, 1.1
COLOUR_OF = {FLOAT32: COLOURS["other"], BFLOAT16: COLOURS["goal"], INT8: COLOURS["ours"]}
#: Frames per repetition, and how many times over they are localized where time is taken.
FRAMES, OVER = {0.25: 150, 1.0: 100, 6.0: 50}, 12


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", seeds=3)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="the median of N counts (default: 5)")
    args = parse(parser, argv)
    model = load(args)
    frames = {1.0: 4} if args.quick else FRAMES
    kinds = [FLOAT32, *kinds_of(model)]
    points = []
    for density, count in frames.items():
        movies = [_simulate(density, count, seed) for seed in range(args.seeds)]
        runs = {kind: [_measure(movie, truth, model, kind) for movie, truth in movies] for kind in kinds}
        seconds = _seconds(np.concatenate([movies[0][0]] * (1 if args.quick else OVER)), model, kinds, args.repeats)
        for kind in kinds:
            points.append(
                {
                    "density_per_um2": density,
                    "arithmetic": kind,
                    "repetitions": [scores for scores, _ in runs[kind]],
                    "moved": [
                        _moved(ours, theirs) for (_, ours), (_, theirs) in zip(runs[kind], runs[FLOAT32], strict=True)
                    ],
                    "speed_up": statistics.median(seconds[FLOAT32]) / statistics.median(seconds[kind]),
                }
            )
    publish(
        "arithmetic",
        args,
        tables=[_table(points)],
        results=points,
        settings={"tolerance_nm": TOLERANCE_NM, "border_nm": BORDER_NM, "seeds": args.seeds, "repeats": args.repeats},
        figure=_figure(points),
        model=model,
    )
    return 0


def _simulate(density: float, frames: int, seed: int) -> tuple[Any, Localizations]:
    from smlm_pb.simulation import simulate

    return simulate(density_sweep(density, frames=frames), seed=seed_of(11, density, seed))


def _measure(movie: Any, truth: Localizations, model: Model, kind: str) -> tuple[dict[str, Any], Localizations]:
    run = localize(movie, model, precision=kind, **_options())
    scores = score(run, truth, tolerance_nm=TOLERANCE_NM, border_nm=BORDER_NM)
    scores.pop("reliability")
    return scores, run.molecules


def _options() -> dict[str, Any]:
    recipe = density_sweep(1.0)
    return {
        "camera": recipe.camera.camera(),
        "pixel_size_nm": recipe.pixel_size_nm,
        "psf_sigma_px": PSF_SIGMA_PX,
    }


def _moved(ours: Localizations, theirs: Localizations) -> float:
    """By how much molecules moved, in units of the precision stated for them: root mean square."""
    from smlm_pb.evaluation import match

    pairs = match(ours, theirs, TOLERANCE_NM)
    moves = [
        (ours[axis][pairs.pred].astype(np.float64) - theirs[axis][pairs.truth]) / theirs[f"sigma_{axis}"][pairs.truth]
        for axis in "xy"
    ]
    return float(np.sqrt(np.mean(np.square(moves)))) if len(pairs.pred) else 0.0


def _seconds(movie: Any, model: Model, kinds: list[str], repeats: int) -> dict[str, list[float]]:
    """Wall times from array to table; the kinds take turns, and the first time does not count."""
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(repeats + 1):
        for kind in kinds:
            run = localize(movie, model, precision=kind, **_options())
            if turn:
                seconds[kind].append(run.seconds)
    return seconds


def _table(points: list[dict[str, Any]]) -> Table:
    exact = {p["density_per_um2"]: p for p in points if p["arithmetic"] == FLOAT32}
    rows = []
    for p in points:
        pairs = list(zip(p["repetitions"], exact[p["density_per_um2"]]["repetitions"], strict=True))
        same = p["arithmetic"] == FLOAT32
        rows.append(
            [
                f"{p['density_per_um2']:g}",
                p["arithmetic"],
                spread([r["jaccard_inner"] for r in p["repetitions"]], 4),
                "–" if same else spread([a["jaccard_inner"] - b["jaccard_inner"] for a, b in pairs], 4),
                number(mean([r["rmse_nm"] for r in p["repetitions"]]), 2),
                "–" if same else number(100 * mean([a["rmse_nm"] / b["rmse_nm"] - 1 for a, b in pairs]), 2),
                number(mean([r["pull"] for r in p["repetitions"]]), 3),
                number(mean([r["calibration_error"] for r in p["repetitions"]]), 3),
                "–" if same else number(mean(p["moved"]), 3),
                number(p["speed_up"], 2),
            ]
        )
    columns = (
        "molecules/µm²",
        "arithmetic",
        "J inner",
        "change",
        "RMSE (nm)",
        "change (%)",
        "sd of error/σ",
        "calibration error",
        "moved by (of its σ)",
        "times as fast",
    )
    return Table("The same movies in each arithmetic", columns, rows)


def _figure(points: list[dict[str, Any]]) -> Figure:
    figure, ((left, right),) = new_figure(2)
    kinds = list(dict.fromkeys(p["arithmetic"] for p in points))
    densities = list(dict.fromkeys(p["density_per_um2"] for p in points))
    for number_, kind in enumerate(kinds):
        own = [p for p in points if p["arithmetic"] == kind]
        place = np.arange(len(densities)) + 0.25 * (number_ - (len(kinds) - 1) / 2)
        jaccards = [[r["jaccard_inner"] for r in p["repetitions"]] for p in own]
        left.errorbar(
            place,
            [np.mean(j) for j in jaccards],
            [np.std(j) for j in jaccards],
            fmt="o",
            color=COLOUR_OF[kind],
            capsize=3,
            label=kind,
        )
        right.bar(place, [p["speed_up"] for p in own], 0.22, color=COLOUR_OF[kind], label=kind)
    for axes, label in ((left, "Jaccard index"), (right, "times as fast as float32")):
        axes.set_xticks(range(len(densities)), [f"{d:g}" for d in densities])
        axes.set_xlabel("molecules/µm²")
        axes.set_ylabel(label)
    left.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run_as_program(main)
