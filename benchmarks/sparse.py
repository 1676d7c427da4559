"""What is gained, and what is missed, where the network looks only at the places that hold light.

The same frames twice: the network sees all of them, or, as the program does where next to nothing is on, only the
places of significant light. From next to nothing to moderately crowded, from dim to bright molecules, whose photons
scatter from frame to frame. Processor time of one thread, from photo-electrons to candidates.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from _report import COLOURS, Table, load, make_parser, new_figure, number, parse, publish, run_as_program

from smlm_pb.simulation.presets import density_sweep

DENSITIES_PER_UM2 = (0.02, 0.1, 0.3, 1.0)
PHOTONS = (300.0, 1000.0, 5000.0)
#: Pixels that are looked at for each condition.
PIXELS = 8_000_000
FRAME_PX = 128
PSF_SIGMA_PX = 1.1
#: A molecule is the same if it has moved by less, px.
SAME_PX = 1e-4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--pixels", type=int, default=PIXELS, metavar="N", help=f"per condition (default: {PIXELS})")
    args = parse(parser, argv)
    densities: Sequence[float] = DENSITIES_PER_UM2[1:2] if args.quick else DENSITIES_PER_UM2
    photons: Sequence[float] = PHOTONS[1:2] if args.quick else PHOTONS
    frames = 4 if args.quick else max(4, args.pixels // FRAME_PX**2)
    model = load(args)
    points = [_measure(density, light, frames, model) for density in densities for light in photons]
    publish(
        "sparse",
        args,
        tables=[_table(points)],
        results={"points": points, "missed": sum(p["missed"] for p in points), "kept": sum(p["kept"] for p in points)},
        settings={"frames": frames, "frame_px": FRAME_PX, "psf_sigma_px": PSF_SIGMA_PX, "same_px": SAME_PX},
        figure=_figure(points),
        model=model,
    )
    return 0


def _measure(density: float, photons: float, frames: int, model: Any) -> dict[str, Any]:
    import torch

    from smlm_pb.localization.candidate_finder import CandidateFinder
    from smlm_pb.localization.pipeline import plan_work
    from smlm_pb.localization.precision import choose_precision
    from smlm_pb.localization.sample_look import look_at
    from smlm_pb.localization.significance import measure_least_significance
    from smlm_pb.localization.threshold import ProbabilityHistogram
    from smlm_pb.simulation import simulate

    molecules = {
        "density_per_um2": density,
        "photons": photons,
        "photon_distribution": "lognormal",
        "photon_spread": 0.4,
        "min_photons": 0.0,
    }
    recipe = density_sweep(density, frames=frames, size_px=FRAME_PX, molecules=molecules)
    movie, _ = simulate(recipe, seed=5)
    camera = recipe.camera.camera()
    electrons = camera.to_electrons(movie)
    plan = plan_work(FRAME_PX, FRAME_PX, model.device)
    precision = choose_precision(model)
    sample, what = electrons[:4], dict[str, Any](camera=camera, psf_sigma_px=PSF_SIGMA_PX)
    least = measure_least_significance(look_at(sample, model, **what), sample, **what)
    found, seconds = [], []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for pass_over in (False, True):
            finder = CandidateFinder(
                model,
                psf_sigma_px=PSF_SIGMA_PX,
                floor=0.05,
                plan=plan,
                camera=camera,
                least_significance=least,
                precision=precision,
                pass_over_dark=pass_over,
            )
            finder(electrons[:4])
            began = time.process_time()
            found.append(finder(electrons))
            seconds.append(time.process_time() - began)
    finally:
        torch.set_num_threads(before)
    kept, thresholds = [], []
    for candidates in found:
        histogram = ProbabilityHistogram()
        histogram.add(candidates.rows["probability"], candidates.expected_unlisted)
        thresholds.append(histogram.best(floor=0.05).threshold)
        kept.append(candidates.rows[candidates.rows["probability"] >= np.float32(thresholds[-1])])
    return {
        "density_per_um2": density,
        "photons": photons,
        "least_significance": least,
        "kept": len(kept[0]),
        "missed": _without_partner(kept[0], kept[1]),
        "more": _without_partner(kept[1], kept[0]),
        "threshold_whole": thresholds[0],
        "threshold": thresholds[1],
        "ms_per_frame_whole": 1e3 * seconds[0] / frames,
        "ms_per_frame": 1e3 * seconds[1] / frames,
        "gain": seconds[0] / seconds[1],
    }


def _without_partner(rows: Any, others: Any) -> int:
    """Molecules that have none of the others in their place."""
    from smlm_pb.localization.neighbours import places, tree_of

    if not len(rows) or not len(others):
        return len(rows)
    return int((tree_of(others).query(places(rows))[0] > SAME_PX).sum())


def _table(points: list[dict[str, Any]]) -> Table:
    rows = [
        [
            f"{p['density_per_um2']:g}",
            f"{p['photons']:g}",
            str(p["kept"]),
            str(p["missed"]),
            str(p["more"]),
            number(p["ms_per_frame_whole"], 1),
            number(p["ms_per_frame"], 1),
            number(p["gain"], 2),
        ]
        for p in points
    ]
    columns = (
        "molecules/µm²",
        "photons",
        "molecules found",
        "missed",
        "found in addition",
        "whole frames (ms/frame)",
        "as used (ms/frame)",
        "gain",
    )
    return Table(f"Frames of {FRAME_PX}² px; a molecule is missed if it is not within {SAME_PX:g} px", columns, rows)


def _figure(points: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(1, width=4.6, height=3.0)
    ax = axes[0, 0]
    for light, colour in zip(sorted({p["photons"] for p in points}), ("ours, second", "ours", "other"), strict=False):
        here = [p for p in points if p["photons"] == light]
        densities, gains = [p["density_per_um2"] for p in here], [p["gain"] for p in here]
        ax.plot(densities, gains, "o-", color=COLOURS[colour], label=f"{light:g} photons")
    ax.axhline(1, color=COLOURS["reference"], lw=0.8)
    ax.set_xscale("log")
    ax.set(xlabel="molecules per µm²", ylabel="gain", title="Looking only where light is")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    run_as_program(main)
