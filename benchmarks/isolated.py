"""Molecules far apart: how close to the Cramér–Rao bound, without bias, and with the right error bars.

Simulated frames of 64×64 px of 100 nm with 16 molecules each, 12 px or more apart and evenly spread over sub-pixel
positions; read noise 1.6 e⁻. Camera and PSF width are known to the program, as they are to the bound.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from _report import COLOURS, Table, load, make_parser, mean, new_figure, number, parse, publish, run_as_program
from _runs import bound_px, localize, seed_of

from smlm_pb.evaluation import match
from smlm_pb.simulation.presets import isolated

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

PHOTONS = (200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)
BACKGROUNDS_E = (0.0, 10.0, 50.0, 100.0, 200.0)
PSF_SIGMAS_PX = (0.9, 1.1, 1.4)
#: Frames per repetition: 16 molecules each.
FRAMES = 20
TOLERANCE_NM = 250.0
READ_NOISE_E = 1.6
#: With less than this share found, what is found is a lucky choice, and its errors say little.
LEAST_RECALL = 0.9
#: Largest error over the bound.
GOAL = 1.05
#: Conditions over which the goals are summarised.
CORE_PHOTONS, CORE_BACKGROUND_E = (500.0, 5000.0), (10.0, 100.0)
BINS = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse(make_parser(__doc__ or "", seeds=3), argv)
    widths = (1.1,) if args.quick else PSF_SIGMAS_PX
    photons = (1000.0, 5000.0) if args.quick else PHOTONS
    backgrounds = (10.0, 100.0) if args.quick else BACKGROUNDS_E
    model = load(args)
    points, fractions = [], []
    for width in widths:
        for n in photons:
            for background in backgrounds:
                point, found = _measure(n, background, width, model, args)
                points.append(point)
                fractions.append(found)
    flatness = subpixel_flatness(np.concatenate(fractions))
    publish(
        "isolated",
        args,
        tables=_tables(points, flatness),
        results={"summary": [summarise(points, w) for w in widths], "subpixel": flatness, "points": points},
        settings={
            "tolerance_nm": TOLERANCE_NM,
            "read_noise_e": READ_NOISE_E,
            "pixel_size_nm": 100,
            "frames_per_seed": 2 if args.quick else FRAMES,
            "seeds": args.seeds,
            "summary_over": {"photons": CORE_PHOTONS, "background_e": CORE_BACKGROUND_E},
        },
        figure=_figure(points, flatness, widths),
        model=model,
    )
    return 0


def _measure(
    photons: float, background_e: float, width_px: float, model: Any, args: argparse.Namespace
) -> tuple[dict[str, Any], npt.NDArray[np.float64]]:
    """One condition; returns its figures and the positions within the pixel (molecules, 2) that were found."""
    from smlm_pb.simulation import simulate

    repetitions: list[dict[str, Any]] = []
    fractions = []
    for seed in range(args.seeds):
        recipe = isolated(photons, background_e, psf_sigma_px=width_px, frames=2 if args.quick else FRAMES)
        movie, truth = simulate(recipe, seed=seed_of(1, photons, background_e, width_px, seed))
        run = localize(
            movie,
            model,
            camera=recipe.camera.camera(),
            pixel_size_nm=recipe.pixel_size_nm,
            psf_sigma_px=width_px,
            refine=args.refine,
        )
        figures, matched = _score(run.molecules, truth, photons, background_e, width_px)
        repetitions.append(figures)
        fractions.append(np.column_stack([matched["x"], matched["y"]]))
    n = sum(r["matched"] for r in repetitions)
    pooled = {
        name: mean([r[name] for r in repetitions])
        for name in ("recall", "precision", "bound_px", "pull", "bias_x_px", "bias_y_px", "photon_bias", "stated_px")
    }
    rmse = np.sqrt(mean([r["rmse_px"] ** 2 for r in repetitions]))
    point = {
        "photons": photons,
        "background_e": background_e,
        "psf_sigma_px": width_px,
        "matched": n,
        **pooled,
        "rmse_px": float(rmse),
        "ratio": float(rmse / pooled["bound_px"]),
        "bias_error_px": float(rmse / np.sqrt(max(1, n))),
        "ratio_by_seed": [r["rmse_px"] / r["bound_px"] for r in repetitions],
    }
    positions = np.concatenate(fractions).astype(np.float64)
    return point, positions - np.floor(positions + 0.5)


def _score(
    found: Localizations, truth: Localizations, photons: float, background_e: float, width_px: float
) -> tuple[dict[str, Any], Localizations]:
    pairs = match(found, truth, TOLERANCE_NM)
    mine, true = found.select(pairs.pred), truth.select(pairs.truth)
    error = {a: mine[a].astype(np.float64) - true[a].astype(np.float64) for a in "xy"}
    both = np.concatenate([error["x"], error["y"]])
    stated = np.concatenate([mine["sigma_x"], mine["sigma_y"]]).astype(np.float64)
    some = both.size > 0
    figures = {
        "matched": len(mine),
        "recall": len(mine) / len(truth),
        "precision": len(mine) / len(found) if len(found) else float("nan"),
        "rmse_px": float(np.sqrt(np.mean(both**2))) if some else float("nan"),
        "bound_px": bound_px(truth, photons, background_e, width_px, READ_NOISE_E),
        "pull": float(np.std(both / stated)) if some else float("nan"),
        "stated_px": float(np.sqrt(np.mean(stated**2))) if some else float("nan"),
        "bias_x_px": float(error["x"].mean()) if some else float("nan"),
        "bias_y_px": float(error["y"].mean()) if some else float("nan"),
        "photon_bias": float(np.median(mine["photons"]) / photons - 1) if some else float("nan"),
    }
    return figures, mine


def subpixel_flatness(fraction: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Whether positions pile up somewhere in the pixel, along x and along y.

    Parameters
    ----------
    fraction : array (molecules, 2)
        Found x and y relative to the centre of their pixel, in [-0.5, 0.5); the true ones are evenly spread.

    Returns
    -------
    dict
        Per axis: counts per bin, χ² probability of such counts if positions are even, and largest deviation.
    """
    from scipy.stats import chisquare

    result: dict[str, Any] = {"bins": BINS}
    for k, axis in enumerate("xy"):
        counts, _ = np.histogram(fraction[:, k], bins=BINS, range=(-0.5, 0.5))
        result[axis] = {
            "counts": counts,
            "p_value": float(chisquare(counts).pvalue) if counts.sum() else None,
            "largest_deviation": float(np.abs(counts / counts.mean() - 1).max()) if counts.sum() else None,
            "expected_deviation": float(1 / np.sqrt(counts.mean())) if counts.sum() else None,
        }
    return result


def summarise(points: Sequence[dict[str, Any]], width_px: float) -> dict[str, Any]:
    """Worst figures of one PSF width, over the core conditions and over everything that is found at all."""
    here = [p for p in points if p["psf_sigma_px"] == width_px]
    core = [
        p
        for p in here
        if CORE_PHOTONS[0] <= p["photons"] <= CORE_PHOTONS[1]
        and CORE_BACKGROUND_E[0] <= p["background_e"] <= CORE_BACKGROUND_E[1]
    ]
    seen = [p for p in here if p["recall"] >= LEAST_RECALL]
    return {
        "psf_sigma_px": width_px,
        "core": _worst(core),
        "all_found": _worst(seen),
        "conditions_missed": len(here) - len(seen),
    }


def _worst(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not points:
        return {"conditions": 0}
    biases = [(abs(p[f"bias_{a}_px"]), p["bias_error_px"]) for p in points for a in "xy"]
    return {
        "conditions": len(points),
        "ratio_mean": mean([p["ratio"] for p in points]),
        "ratio_worst": max(p["ratio"] for p in points),
        "bias_worst_px": max(biases)[0],
        "bias_worst_error_px": max(biases)[1],
        "bias_mean_px": math.hypot(*(mean([p[f"bias_{a}_px"] for p in points]) for a in "xy")),
        "pull_lowest": min(p["pull"] for p in points),
        "pull_highest": max(p["pull"] for p in points),
        "photon_bias_worst": max((p["photon_bias"] for p in points), key=abs),
        "recall_lowest": min(p["recall"] for p in points),
        "precision_lowest": min(p["precision"] for p in points),
    }


def _tables(points: list[dict[str, Any]], flatness: dict[str, Any]) -> list[Table]:
    widths = sorted({p["psf_sigma_px"] for p in points})
    tables = [_matrix(points, width, "ratio", f"RMSE / Cramér–Rao bound, σ = {width:g} px") for width in widths]
    rows = []
    for width in widths:
        summary = summarise(points, width)
        for name, label in (("core", "N 500–5000, b 10–100"), ("all_found", "everything found")):
            worst = summary[name]
            if not worst["conditions"]:
                continue
            rows.append(
                [
                    f"σ {width:g} px, {label}",
                    str(worst["conditions"]),
                    f"{number(worst['ratio_mean'], 2)} / {number(worst['ratio_worst'], 2)}",
                    f"{number(worst['bias_worst_px'])} ± {number(worst['bias_worst_error_px'])}",
                    number(worst["bias_mean_px"], 4),
                    f"{number(worst['pull_lowest'], 2)} – {number(worst['pull_highest'], 2)}",
                    f"{100 * worst['photon_bias_worst']:+.1f} %",
                    number(worst["recall_lowest"]),
                    number(worst["precision_lowest"]),
                ]
            )
    columns = (
        "conditions",
        "number",
        "RMSE / bound, mean / worst",
        "worst bias (px)",
        "mean bias (px)",
        "sd of error/σ",
        "worst photon bias",
        "lowest recall",
        "lowest precision",
    )
    even = [
        [
            axis,
            str(int(np.sum(flatness[axis]["counts"]))),
            number(flatness[axis]["p_value"]),
            f"{100 * flatness[axis]['largest_deviation']:.1f} %",
            f"{100 * flatness[axis]['expected_deviation']:.1f} %",
        ]
        for axis in "xy"
        if flatness[axis]["p_value"] is not None
    ]
    return [
        *tables,
        Table("Summary", columns, rows),
        Table(
            f"Position within the pixel ({BINS} bins)",
            ("axis", "molecules", "χ² p (goal > 0.01)", "largest deviation", "sd expected by chance"),
            even,
        ),
    ]


def _matrix(points: Sequence[dict[str, Any]], width_px: float, name: str, title: str) -> Table:
    """One figure over photons and background; in brackets where much is missed."""
    here = {(p["photons"], p["background_e"]): p for p in points if p["psf_sigma_px"] == width_px}
    photons, backgrounds = (sorted({key[k] for key in here}) for k in (0, 1))

    def cell(point: dict[str, Any]) -> str:
        text = number(point[name], 2)
        return text if point["recall"] >= LEAST_RECALL else f"({text})"

    rows = [[f"{n:g}", *(cell(here[n, b]) for b in backgrounds)] for n in photons]
    columns = ("photons", *(f"b = {b:g}" for b in backgrounds))
    return Table(f"{title} (in brackets: less than {100 * LEAST_RECALL:g} % found)", columns, rows)


def _figure(points: list[dict[str, Any]], flatness: dict[str, Any], widths: Sequence[float]) -> Any:
    columns = len(widths) + 1
    figure, axes = new_figure(columns, 2, width=3.6, height=3.3)
    for k, width in enumerate(widths):
        _draw_matrix(axes[0, k], points, width, "ratio", f"RMSE / bound, σ = {width:g} px", (0.8, 1.5))
        _draw_matrix(axes[1, k], points, width, "pull", f"sd of error/σ, σ = {width:g} px", (0.7, 1.3))
    centres = (np.arange(BINS) + 0.5) / BINS - 0.5
    ax = axes[0, -1]
    for axis, colour in (("x", "ours"), ("y", "ours, second")):
        counts = np.asarray(flatness[axis]["counts"], dtype=np.float64)
        if counts.sum():
            ax.step(centres, counts / counts.mean(), where="mid", color=COLOURS[colour], label=axis)
    chance = flatness["x"]["expected_deviation"] or 0.0
    ax.axhspan(1 - 2 * chance, 1 + 2 * chance, color=COLOURS["goal"], alpha=0.2, lw=0, label="± 2 sd of chance")
    ax.set(xlabel="position within the pixel (px)", ylabel="molecules / mean", title="Sub-pixel histogram")
    ax.set_ylim(min(0.85, ax.get_ylim()[0]), max(1.15, ax.get_ylim()[1]))
    ax.legend(frameon=False, fontsize=8)
    ax = axes[1, -1]
    for width, marker in zip(widths, "osv", strict=False):
        chosen = [p for p in points if p["psf_sigma_px"] == width and p["recall"] >= LEAST_RECALL]
        for axis, colour in (("x", "ours"), ("y", "ours, second")):
            ax.errorbar(
                [p["photons"] for p in chosen],
                [p[f"bias_{axis}_px"] for p in chosen],
                yerr=[p["bias_error_px"] for p in chosen],
                fmt=marker,
                ms=3,
                lw=0.7,
                color=COLOURS[colour],
                alpha=0.7,
                label=f"{axis}, σ {width:g}",
            )
    ax.axhspan(-0.01, 0.01, color=COLOURS["goal"], alpha=0.2, lw=0)
    ax.set(xscale="log", xlabel="photons", ylabel="bias (px)", title="Bias", ylim=(-0.05, 0.05))
    photons = sorted({p["photons"] for p in points})
    ax.set_xticks(photons, [f"{n:g}" for n in photons], rotation=45)
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=7, ncols=2)
    return figure


def _draw_matrix(
    ax: Any, points: Sequence[dict[str, Any]], width: float, name: str, title: str, limits: tuple[float, float]
) -> None:
    here = {(p["photons"], p["background_e"]): p for p in points if p["psf_sigma_px"] == width}
    photons, backgrounds = (sorted({key[k] for key in here}) for k in (0, 1))
    values = np.array([[here[n, b][name] for b in backgrounds] for n in photons])
    # Centred on 1, which is right, so that both directions of error differ in colour.
    reach = max(1 - limits[0], limits[1] - 1)
    ax.imshow(values, origin="lower", aspect="auto", cmap="RdBu_r", vmin=1 - reach, vmax=1 + reach)
    for (row, column), value in np.ndenumerate(values):
        missed = here[photons[row], backgrounds[column]]["recall"] < LEAST_RECALL
        text = f"({value:.2f})" if missed else f"{value:.2f}"
        dark = abs(value - 1) > 0.6 * reach
        ax.text(column, row, text, ha="center", va="center", fontsize=7, color="w" if dark else "k")
    ax.set_xticks(range(len(backgrounds)), [f"{b:g}" for b in backgrounds])
    ax.set_yticks(range(len(photons)), [f"{n:g}" for n in photons])
    ax.set(xlabel="background (e⁻/px)", ylabel="photons", title=title)


if __name__ == "__main__":
    run_as_program(main)
