"""Movies without any molecule: whatever is found is false.

Simulated frames of 64×64 px with a flat background and read noise 1.6 e⁻. The automatic threshold is the movie's own
and comes with the test for significance; fixed ones list every candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from _report import COLOURS, Table, load, make_parser, new_figure, number, parse, publish, run_as_program
from _runs import localize, seed_of

from smlm_pb.simulation.presets import blank

BACKGROUNDS_E = (0.0, 5.0, 20.0, 50.0, 100.0, 200.0, 500.0)
FRAMES = 300
PSF_SIGMA_PX = 1.1
FIXED = (0.3, 0.5)
GOAL_PER_1000 = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse(make_parser(__doc__ or "", seeds=3), argv)
    backgrounds = (20.0, 200.0) if args.quick else BACKGROUNDS_E
    model = load(args)
    points = [_measure(background, model, args.seeds, args.quick) for background in backgrounds]
    publish(
        "blank",
        args,
        tables=[_table(points)],
        results=points,
        settings={"psf_sigma_px": PSF_SIGMA_PX, "frame_px": 64, "read_noise_e": 1.6, "seeds": args.seeds},
        figure=_figure(points),
        model=model,
    )
    return 0


def _measure(background_e: float, model: Any, seeds: int, quick: bool) -> dict[str, Any]:
    from smlm_pb.simulation import simulate

    frames, size = (4, 32) if quick else (FRAMES, 64)
    repetitions: list[dict[str, Any]] = []
    for seed in range(seeds):
        recipe = blank(background_e, frames=frames, size_px=size)
        movie, _ = simulate(recipe, seed=seed_of(2, background_e, seed))
        known = {"camera": recipe.camera.camera(), "pixel_size_nm": recipe.pixel_size_nm, "psf_sigma_px": PSF_SIGMA_PX}
        run = localize(movie, model, **known)
        # With a threshold of the user's own every candidate above it is listed, however little light it has.
        probability = localize(movie, model, **known, threshold=min(FIXED)).candidates["probability"]
        repetitions.append(
            {
                "automatic": len(run.molecules),
                "threshold": run.threshold,
                "fixed": [int(np.count_nonzero(probability >= np.float32(t))) for t in FIXED],
                "largest_probability": float(probability.max()) if len(probability) else None,
                "warnings": run.warnings,
            }
        )
    n_frames = frames * seeds
    counts = {"automatic": sum(r["automatic"] for r in repetitions)}
    counts |= {f"{t:g}": sum(r["fixed"][k] for r in repetitions) for k, t in enumerate(FIXED)}
    largest = max((r["largest_probability"] or 0.0) for r in repetitions)
    return {
        "background_e": background_e,
        **_rates(n_frames, counts),
        "largest_probability": largest,
        "repetitions": repetitions,
    }


def _rates(n_frames: int, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "frames": n_frames,
        "false_molecules": counts,
        "false_per_1000_frames": {name: 1000 * n / n_frames for name, n in counts.items()},
        "upper_limit_per_1000_frames": {name: 1000 * upper_limit(n) / n_frames for name, n in counts.items()},
    }


def _all_together(points: list[dict[str, Any]]) -> dict[str, Any]:
    """All backgrounds as one long movie."""
    counts = {name: sum(p["false_molecules"][name] for p in points) for name in points[0]["false_molecules"]}
    return {
        **_rates(sum(p["frames"] for p in points), counts),
        "largest_probability": max(p["largest_probability"] for p in points),
    }


def upper_limit(count: int, confidence: float = 0.95) -> float:
    """Largest mean of a Poisson distribution under which so few are still seen with 5 % chance."""
    from scipy.stats import chi2

    return float(chi2.ppf(confidence, 2 * (count + 1)) / 2)


def _table(points: list[dict[str, Any]]) -> Table:
    def cell(point: dict[str, Any], name: str) -> str:
        rate, limit = point["false_per_1000_frames"][name], point["upper_limit_per_1000_frames"][name]
        return f"{number(rate, 2)} (< {number(limit, 1)})"

    rows = [
        [
            f"{p['background_e']:g}" if "background_e" in p else "all",
            str(p["frames"]),
            cell(p, "automatic"),
            *(cell(p, f"{t:g}") for t in FIXED),
            number(p["largest_probability"], 2),
        ]
        for p in [*points, _all_together(points)]
    ]
    columns = (
        "background (e⁻/px)",
        "frames",
        "automatic threshold",
        *(f"threshold {t:g}" for t in FIXED),
        "largest probability",
    )
    title = f"False molecules per 1000 blank frames (with the 95 % upper limit); goal < {GOAL_PER_1000:g}"
    return Table(title, columns, rows)


def _figure(points: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(1)
    ax = axes[0, 0]
    places = np.arange(len(points))
    names = ("automatic", *(f"{t:g}" for t in FIXED))
    colours = (COLOURS["ours"], COLOURS["ours, second"], COLOURS["other, second"])
    for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
        rates = np.array([p["false_per_1000_frames"][name] for p in points])
        limits = np.array([p["upper_limit_per_1000_frames"][name] for p in points])
        x = places + 0.22 * (k - 1)
        ax.errorbar(
            x, rates, yerr=[np.zeros(len(x)), limits - rates], fmt="o", ms=4, color=colour, capsize=2, label=name
        )
    ax.axhline(GOAL_PER_1000, color=COLOURS["goal"], ls="--", label="goal")
    ax.set_yscale("symlog", linthresh=1.0)
    ax.set_xticks(places, [f"{p['background_e']:g}" for p in points])
    ax.set(xlabel="background (e⁻/px)", ylabel="false molecules per 1000 frames", title="Blank movies")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, title="threshold")
    return figure


if __name__ == "__main__":
    run_as_program(main)
