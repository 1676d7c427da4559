"""What a network makes of more than the frame: the movie's molecules as a whole, and the frames before and after.

Small networks of equal size learn from equally many simulated scenes; they differ in what they see beside the frame.
They are tested on movies whose molecules shine for one frame each and all alike, and on movies whose molecules blink.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _report import COLOURS, Table, mean, new_figure, publish, run_as_program, spread
from _runs import seed_of
from _taught import NETWORK, PIXEL_NM, PSF_SIGMA_PX, parse_taught, taught, taught_parser, teach

from smlm_pb.simulation.presets import density_sweep

#: Variants by name: what the network is told, and how many frames around it sees.
VARIANTS = {
    "frame alone": ("psf", 0),
    "population": ("population", 0),
    "frames around": ("psf", 1),
    "both": ("population", 1),
}
#: Test movies by name: density, blinking (mean on-time in frames; none: one frame each), photons alike or not.
MOVIES = {
    "one frame each, all alike, 1/µm²": (1.0, None, "constant"),
    "one frame each, all alike, 4/µm²": (4.0, None, "constant"),
    "on for 3 frames, 1/µm²": (1.0, 3.0, "lognormal"),
    "on for 3 frames, 4/µm²": (4.0, 3.0, "lognormal"),
    "on for 10 frames, 4/µm²": (4.0, 10.0, "lognormal"),
}
FRAMES, SIZE_PX = 40, 64
TOLERANCE_NM = 100.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_taught(taught_parser(__doc__ or "", steps=1500), argv)
    keys = [{"variant": variant, "seed": seed} for seed in range(args.seeds) for variant in VARIANTS]
    runs = taught("beside_the_frame", args, keys, _train_and_test)
    if runs is None:
        return 0
    publish(
        "beside_the_frame",
        args,
        tables=[_table(runs)],
        results=runs,
        settings={"seeds": args.seeds, "steps": args.steps, "network": NETWORK, "tolerance_nm": TOLERANCE_NM},
        figure=_figure(runs),
    )
    return 0


def _train_and_test(folder: Path, args: argparse.Namespace, *, variant: str, seed: int) -> dict[str, Any]:
    told, context = VARIANTS[variant]
    scenes = {
        "psf_sigma_px": [1.0, 1.2],
        "photons": [400, 4000],
        "background_e": [20, 120],
        "partial_on_fraction": 0.6,
        "context_frames": context,
    }
    plain = {"scenes": scenes, "network": {"told": told, "context_frames": context}, "crop_px": 40, "ema_decay": 0.99}
    model, seconds = teach(folder, plain, steps=args.steps, seed=seed)
    return {"seconds": seconds, "jaccard": {name: _test(model, name, args.quick, seed) for name in MOVIES}}


def _test(model: Path, name: str, quick: bool, seed: int) -> float:
    import smlm_pb
    from smlm_pb.evaluation import evaluate
    from smlm_pb.localization import load_model
    from smlm_pb.simulation import simulate

    density, on_frames, spread_of_photons = MOVIES[name]
    molecules = {
        "density_per_um2": density,
        "photons": 2000.0,
        "photon_distribution": spread_of_photons,
        "min_photons": 100.0,
    }
    if on_frames is not None:
        molecules["blinking"] = {"on_frames": on_frames, "off_frames": 200.0}
    recipe = density_sweep(
        density, frames=3 if quick else FRAMES, size_px=32 if quick else SIZE_PX, molecules=molecules
    )
    movie, truth = simulate(recipe, seed=seed_of(23, list(MOVIES).index(name), seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = smlm_pb.localize(
            movie,
            model=load_model(str(model), "cpu"),
            camera=recipe.camera.camera(),
            pixel_size_nm=PIXEL_NM,
            psf_sigma_px=PSF_SIGMA_PX,
        )
    return float(evaluate(found, truth, tolerance_nm=TOLERANCE_NM, chance=False, check=False).at(TOLERANCE_NM).jaccard)


def _of(runs: Sequence[dict[str, Any]], variant: str, movie: str) -> list[float]:
    return [run["jaccard"][movie] for run in runs if run["variant"] == variant]


def _table(runs: Sequence[dict[str, Any]]) -> Table:
    rows = [[movie, *(spread(_of(runs, variant, movie)) for variant in VARIANTS)] for movie in MOVIES]
    alone = mean([run["seconds"] for run in runs if run["variant"] == "frame alone"])
    cost = [mean([run["seconds"] for run in runs if run["variant"] == v]) / alone for v in VARIANTS]
    rows.append(["time of training, relative", *(f"{value:.2f}" for value in cost)])
    return Table(f"Jaccard index at {TOLERANCE_NM:g} nm by what the network sees", ["movie", *VARIANTS], rows)


def _figure(runs: Sequence[dict[str, Any]]) -> Any:
    figure, axes = new_figure(1, width=8.0)
    ax, colours = axes[0, 0], [COLOURS[c] for c in ("reference", "ours", "ours, second", "goal")]
    for number, (variant, colour) in enumerate(zip(VARIANTS, colours, strict=True)):
        values = [_of(runs, variant, movie) for movie in MOVIES]
        place = np.arange(len(MOVIES)) + 0.2 * (number - 1.5)
        ax.bar(place, [mean(v) for v in values], 0.18, color=colour, label=variant, alpha=0.6)
        for x, seeds in zip(place, values, strict=True):
            ax.plot([x] * len(seeds), seeds, "k.", markersize=3)
    ax.set_xticks(range(len(MOVIES)), [name.replace(", ", ",\n") for name in MOVIES], fontsize=7)
    lowest = min(min(run["jaccard"].values()) for run in runs)
    ax.set(ylabel=f"Jaccard index at {TOLERANCE_NM:g} nm", ylim=(max(0.0, lowest - 0.05), 1.0))
    ax.legend(frameon=False, ncols=4)
    return figure


if __name__ == "__main__":
    run_as_program(main)
