"""What a short training for one's own movie gains, and how long it takes.

Every repetition simulates a movie of crowded molecules and trains twice from the pre-trained model: as ``smlm-pb train
--like`` does, on scenes like what was measured of the movie, and on scenes of *exactly* the conditions that the movie
was made with, which no user knows. Both are scored on another movie of the same kind. Time is that of the process with
the network, on one core; scenes are simulated on another.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _report import COLOURS, Table, load, new_figure, publish, run_as_program, spread
from _runs import localize, seed_of
from _taught import parse_taught, taught, taught_parser

from smlm_pb.evaluation import evaluate
from smlm_pb.simulation.presets import density_sweep

#: A movie that the pre-trained model knows among many others.
DENSITY_PER_UM2, PHOTONS, PHOTON_SPREAD, BACKGROUND_E, PSF_SIGMA_PX = 3.0, 900.0, 0.45, 60.0, 1.3
FRAMES, TEST_FRAMES = 150, 100
TOLERANCES_NM = (50.0, 100.0)
GOAL_GAIN, GOAL_MINUTES = 0.01, 20.0
KINDS = {
    "exact": ("exactly these conditions", COLOURS["other"]),
    "like": ("as train --like", COLOURS["ours"]),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = taught_parser(__doc__ or "", steps=1500, model=True)
    args = parse_taught(parser, argv)
    conditions = {
        "density_per_um2": DENSITY_PER_UM2,
        "photons": PHOTONS,
        "photon_spread": PHOTON_SPREAD,
        "background_e": BACKGROUND_E,
        "psf_sigma_px": PSF_SIGMA_PX,
        "frames": FRAMES,
        "test_frames": TEST_FRAMES,
    }
    keys = [{"kind": kind, "seed": seed} for seed in range(args.seeds) for kind in KINDS]
    settings = {**conditions, "model": args.model}
    runs = taught("fine_tune", args, keys, _train_and_test, settings=settings, models=(args.model,))
    if runs is None:
        return 0
    publish(
        "fine_tune",
        args,
        tables=[_table(runs)],
        results=runs,
        settings={**conditions, "steps": args.steps, "seeds": len({run["seed"] for run in runs})},
        figure=_figure(runs),
        model=load(args),
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
            "photon_spread": PHOTON_SPREAD,
            "min_photons": 0.0,
        },
        background={"photons_per_px": BACKGROUND_E},
    )
    return (*simulate(recipe, seed=seed_of(21, seed, part)), recipe)


def _train_and_test(folder: Path, args: argparse.Namespace, *, kind: str, seed: int) -> dict[str, Any]:
    from smlm_pb.localization import load_model
    from smlm_pb.training import propose_like, train

    movie, _, recipe = _movie(seed, 16 if args.quick else FRAMES, 0)
    test, truth, _ = _movie(seed, 2 if args.quick else TEST_FRAMES, 1)
    known = {"camera": recipe.camera.camera(), "psf_sigma_px": PSF_SIGMA_PX}
    likeness = propose_like(movie, start=args.model, name="fine-tuned", seed=seed, steps=args.steps, **known)
    experiment = likeness.experiment
    if args.quick:
        few = experiment.validation.model_copy(update={"scenes": 4, "calibration_scenes": 16})
        experiment = experiment.model_copy(update={"validation": few})
    if kind == "exact":
        scenes = {**experiment.scenes, **_exact_scenes(recipe.camera.camera().read_noise_e)}
        experiment = experiment.model_copy(update={"scenes": scenes, "psf_sigma_jitter": 0.0})

    def score(model: Any) -> dict[str, float]:
        found = localize(test, model, pixel_size_nm=recipe.pixel_size_nm, **known).molecules
        result = evaluate(found, truth, tolerance_nm=TOLERANCES_NM, chance=False, check=False)
        return {f"{t:g}": float(result.at(t).jaccard) for t in TOLERANCES_NM}

    curve: list[tuple[float, float]] = []
    began, began_cpu = time.perf_counter(), time.process_time()
    trained = train(
        experiment,
        folder,
        on_validation=lambda _, result: curve.append((time.process_time() - began_cpu, result.jaccard)),
    )
    return {
        "before": score(load_model(args.model, args.device)),
        "after": score(load_model(trained.model_folder, args.device)),
        "cpu_s": time.process_time() - began_cpu,
        "wall_s": time.perf_counter() - began,
        "cpu_s_to_95_percent": _time_to(curve, 0.95),
        "curve": curve,
        "warnings": list(likeness.warnings),
    }


def _exact_scenes(read_noise_e: float) -> dict[str, Any]:
    """Scenes of the movie's own conditions and of no others."""
    # Scenes are told the median of a log-normal law, recipes its mean.
    level = PHOTONS * math.exp(-(PHOTON_SPREAD**2) / 2)
    density = DENSITY_PER_UM2 / 100  # pixels of 100 nm
    pairs = {
        "psf_sigma_px": PSF_SIGMA_PX,
        "photons": level,
        "background_e": BACKGROUND_E,
        "read_noise_e": read_noise_e,
        "dense_density_per_px2": density,
    }
    none = (
        "psf_spread",
        "psf_asymmetry",
        "psf_halo",
        "partial_on_fraction",
        "structured_background_fraction",
        "em_fraction",
        "gain_error",
        "empty_fraction",
        "sparse_fraction",
    )
    return {
        **{name: (value, value) for name, value in pairs.items()},
        **dict.fromkeys(none, 0.0),
        "photon_spreads": {"lognormal": 1.0},
        "dense_structures": {"uniform": 1.0},
    }


def _time_to(curve: Sequence[tuple[float, float]], share: float) -> float | None:
    """Seconds after which this share of the gain on unseen scenes was reached; None where nothing was gained."""
    start, best = curve[0][1], max(j for _, j in curve)
    if best <= start:
        return None
    return next(seconds for seconds, j in curve if j - start >= share * (best - start))


def _table(runs: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for kind, (title, _) in KINDS.items():
        mine = [run for run in runs if run["kind"] == kind]
        if not mine:
            continue
        before, after = ([run[when]["50"] for run in mine] for when in ("before", "after"))
        wide = [run["after"]["100"] - run["before"]["100"] for run in mine]
        reached = [run["cpu_s_to_95_percent"] / 60 for run in mine if run["cpu_s_to_95_percent"] is not None]
        rows.append(
            [
                title,
                str(len(mine)),
                spread(before),
                spread(after),
                spread([b - a for a, b in zip(before, after, strict=True)]),
                spread(wide),
                spread([max(j for _, j in run["curve"]) - run["curve"][0][1] for run in mine]),
                spread(reached, 1) if reached else "no gain",
                spread([run["cpu_s"] / 60 for run in mine], 1),
            ]
        )
    title = (
        "Pre-trained and fine-tuned, on a movie that neither has seen (goals: exactly these conditions gain "
        f"≤ {GOAL_GAIN} at 50 nm; 95 % of a fine-tune's gain in ≤ {GOAL_MINUTES:g} min)"
    )
    columns = (
        "trained",
        "seeds",
        "J at 50 nm before",
        "after",
        "gain at 50 nm",
        "gain at 100 nm",
        "gain on unseen scenes",
        "minutes to 95 % of it",
        "minutes altogether",
    )
    return Table(title, columns, rows)


def _figure(runs: Sequence[Mapping[str, Any]]) -> Any:
    figure, axes = new_figure(2)
    left, right = axes[0]
    for run in runs:
        title, colour = KINDS[run["kind"]]
        seconds, jaccard = np.array(run["curve"]).T
        label = title if run["seed"] == 0 else None
        left.plot(seconds / 60, jaccard, color=colour, marker="o", markersize=3, alpha=0.7, label=label)
        for tolerance, line in (("50", "-"), ("100", ":")):
            right.plot([0, 1], [run[when][tolerance] for when in ("before", "after")], line, color=colour, alpha=0.7)
    left.set(xlabel="minutes of training", ylabel="Jaccard index, unseen scenes of the training")
    left.legend(frameon=False)
    right.set(ylabel="Jaccard index, unseen movie", xlim=(-0.2, 1.2), title="50 nm (lines) and 100 nm (dotted)")
    right.set_xticks([0, 1], ["pre-trained", "fine-tuned"])
    return figure


if __name__ == "__main__":
    run_as_program(main)
