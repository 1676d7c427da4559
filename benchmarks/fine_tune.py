"""What a short training for one's own movie gains: pre-trained against trained for exactly these conditions.

Every repetition simulates a movie of crowded molecules, measures it and trains as ``smlm-pb train --like`` does, and
scores the model before and after on another movie of the same kind. The clock runs for the training alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _report import COLOURS, Table, load, make_parser, new_figure, parse, publish, run_as_program, spread
from _runs import localize, seed_of

from smlm_pb.evaluation import evaluate
from smlm_pb.simulation.presets import density_sweep

#: A movie that the pre-trained model knows among many others.
DENSITY_PER_UM2, PHOTONS, BACKGROUND_E, PSF_SIGMA_PX = 3.0, 900.0, 60.0, 1.3
FRAMES, TEST_FRAMES = 150, 25
TOLERANCES_NM = (50.0, 100.0)
GOAL_GAIN, GOAL_MINUTES = 0.01, 20.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", seeds=3)
    parser.add_argument("--steps", type=int, default=1500, metavar="N", help="length of the training (default: 1500)")
    args = parse(parser, argv)
    model = load(args)
    runs = [_one(args, seed) for seed in range(args.seeds)]
    publish(
        "fine_tune",
        args,
        tables=[_table(runs)],
        results=runs,
        settings={
            "density_per_um2": DENSITY_PER_UM2,
            "photons": PHOTONS,
            "background_e": BACKGROUND_E,
            "psf_sigma_px": PSF_SIGMA_PX,
            "steps": args.steps,
            "seeds": args.seeds,
        },
        figure=_figure(runs),
        model=model,
    )
    return 0


def _movie(seed: int, frames: int, part: int) -> tuple[Any, Any, Any]:
    from smlm_pb.simulation import simulate

    recipe = density_sweep(
        DENSITY_PER_UM2,
        frames=frames,
        size_px=64,
        psf={"sigma_px": PSF_SIGMA_PX},
        molecules={
            "density_per_um2": DENSITY_PER_UM2,
            "photons": PHOTONS,
            "photon_distribution": "lognormal",
            "min_photons": 0.0,
        },
        background={"photons_per_px": BACKGROUND_E},
    )
    return (*simulate(recipe, seed=seed_of(21, seed, part)), recipe)


def _one(args: Any, seed: int) -> dict[str, Any]:
    from smlm_pb.localization import load_model
    from smlm_pb.training import propose_like, train

    movie, _, recipe = _movie(seed, 16 if args.quick else FRAMES, 0)
    test, truth, _ = _movie(seed, 2 if args.quick else TEST_FRAMES, 1)
    known = {"camera": recipe.camera.camera(), "psf_sigma_px": PSF_SIGMA_PX}
    steps = 20 if args.quick else args.steps
    likeness = propose_like(movie, start=args.model, name="fine-tuned", seed=seed, steps=steps, **known)
    curve: list[tuple[float, float]] = []

    def score(model: Any) -> dict[str, float]:
        found = localize(test, model, pixel_size_nm=recipe.pixel_size_nm, **known).molecules
        result = evaluate(found, truth, tolerance_nm=TOLERANCES_NM, chance=False, check=False)
        return {f"{t:g}": float(result.at(t).jaccard) for t in TOLERANCES_NM}

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        trained = train(
            likeness.experiment,
            Path(folder),
            on_validation=lambda _, result: curve.append((time.perf_counter() - began, result.jaccard)),
        )
        seconds = time.perf_counter() - began
        after = score(load_model(trained.model_folder, args.device))
    return {
        "seed": seed,
        "before": score(load_model(args.model, args.device)),
        "after": after,
        "seconds": seconds,
        "seconds_to_95_percent": _time_to(curve, 0.95),
        "curve": curve,
        "warnings": list(likeness.warnings),
    }


def _time_to(curve: Sequence[tuple[float, float]], share: float) -> float | None:
    """Seconds after which this share of the gain on unseen scenes was reached; None where nothing was gained."""
    start, best = curve[0][1], max(j for _, j in curve)
    if best <= start:
        return None
    return next(seconds for seconds, j in curve if j - start >= share * (best - start))


def _table(runs: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for name in runs[0]["before"]:
        gains = [r["after"][name] - r["before"][name] for r in runs]
        rows.append(
            [
                f"J at {name} nm",
                spread([r["before"][name] for r in runs], 3),
                spread([r["after"][name] for r in runs], 3),
                spread(gains, 3),
                f"≤ {GOAL_GAIN}" if name == "50" else "–",
            ]
        )
    reached = [r["seconds_to_95_percent"] / 60 for r in runs if r["seconds_to_95_percent"] is not None]
    rows.append(
        ["minutes to 95 % of the gain", "–", spread(reached, 1) if reached else "no gain", "–", f"≤ {GOAL_MINUTES:g}"]
    )
    rows.append(["minutes altogether", "–", spread([r["seconds"] / 60 for r in runs], 1), "–", "–"])
    return Table(
        "Pre-trained and fine-tuned, on a movie that neither has seen", ["", "before", "after", "gain", "goal"], rows
    )


def _figure(runs: Sequence[dict[str, Any]]) -> Any:
    figure, axes = new_figure(2)
    left, right = axes[0]
    for run in runs:
        minutes, jaccard = np.array(run["curve"]).T
        left.plot(minutes / 60, jaccard, color=COLOURS["ours"], marker="o", markersize=3, alpha=0.7)
        right.plot([0, 1], [run["before"]["50"], run["after"]["50"]], color=COLOURS["ours"], marker="o", alpha=0.7)
        right.plot([0, 1], [run["before"]["100"], run["after"]["100"]], color=COLOURS["other"], marker="o", alpha=0.7)
    left.set(xlabel="minutes of training", ylabel="Jaccard index, unseen scenes")
    right.set(ylabel="Jaccard index, unseen movie", xlim=(-0.2, 1.2))
    right.set_xticks([0, 1], ["pre-trained", "fine-tuned"])
    right.text(0.02, 0.02, "blue 50 nm, orange 100 nm", transform=right.transAxes, fontsize=8)
    return figure


if __name__ == "__main__":
    run_as_program(main)
