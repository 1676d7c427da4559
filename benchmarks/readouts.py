"""Position maps: which loss makes their spread an honest precision, and what they are worth.

Heads of equal size are trained on equal simulated examples behind the same model, with soft-argmax, sampling-argmax
(three bases), its regularised relatives, the discrete expectation as negative control, and the energy score. They read
out the molecules that the model finds in other movies. Trained heads are kept in the folder --work: a run that was
interrupted goes on, and --only SEED does one repetition.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _kept import kept, origin
from _report import (
    COLOURS,
    QUICK_RESULTS,
    Table,
    make_parser,
    mean,
    new_figure,
    number,
    parse,
    publish,
    run_as_program,
    spread,
)
from _runs import localize, seed_of

from smlm_pb.evaluation import match
from smlm_pb.simulation.presets import density_sweep

if TYPE_CHECKING:
    from smlm_pb.localization import Model
    from smlm_pb.localizations import Localizations
    from smlm_pb.refinement.second_stage import Stage
    from smlm_pb.training.second_stage_examples import Examples

#: Loss and basis; the first is the default.
VARIANTS = (
    ("energy", "triangular"),
    ("sampling-argmax", "uniform"),
    ("sampling-argmax", "triangular"),
    ("sampling-argmax", "gaussian"),
    ("soft-argmax", "triangular"),
    ("variance-regularised", "triangular"),
    ("distribution-regularised", "triangular"),
    ("discrete-expectation", "triangular"),
)
MODELS = ("default", "fast")
DENSITIES = (0.25, 1.0, 4.0)
FRAMES = {0.25: 150, 1.0: 50, 4.0: 15}
TOLERANCE_NM = 100.0
SCENES, STEPS = 500, 600


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", model=False, seeds=3)
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="folder of trained heads (default: one below runs/benchmarks)"
    )
    parser.add_argument("--only", type=int, metavar="SEED", help="only train the heads of this repetition")
    args = parse(parser, argv)
    # Heads behind other models or of other scenes are never taken for these.
    made_of = f"{SCENES}-{STEPS}-{origin(*MODELS)}{'-quick' if args.quick else ''}"
    args.work = args.work or QUICK_RESULTS / f"readouts-{made_of}"
    seeds = range(args.seeds) if args.only is None else [args.only]
    for seed in seeds:
        for model in MODELS:
            _train(model, seed, args)
    if args.only is not None:
        return 0
    densities = DENSITIES[1:2] if args.quick else DENSITIES
    points = [
        kept("readouts", f"{model}-{density:g}-{seed}-{made_of}", partial(_point, model, density, seed, args))
        for model in MODELS
        for density in densities
        for seed in range(args.seeds)
    ]
    publish(
        "readouts",
        args,
        tables=_tables(points),
        results=points,
        settings={
            "scenes": SCENES,
            "steps": STEPS,
            "densities_per_um2": densities,
            "tolerance_nm": TOLERANCE_NM,
            "seeds": args.seeds,
        },
        figure=_figure(points),
    )
    return 0


def _point(model: str, density: float, seed: int, args: Any) -> dict[str, Any]:
    return {"model": model, "density_per_um2": density, "seed": seed, **_measure(model, density, seed, args)}


def _variants(model: str) -> Sequence[tuple[str, str]]:
    return VARIANTS if model == "default" else VARIANTS[:1]


def _folder(args: Any, model: str, loss: str, basis: str, seed: int) -> Path:
    return Path(args.work) / f"{model}-{loss}-{basis}-{seed}"


def _train(model_name: str, seed: int, args: Any) -> None:
    """Train the heads that are missing, all on the same examples."""
    from smlm_pb.localization import load_model
    from smlm_pb.refinement.second_stage import STAGE_FILE, StageCard, save_stage
    from smlm_pb.training.second_stage_fit import fit_maps
    from smlm_pb.training.second_stage_judge import judge_maps

    missing = [v for v in _variants(model_name) if not (_folder(args, model_name, *v, seed) / STAGE_FILE).exists()]
    if not missing:
        return
    model = load_model(model_name, "cpu")
    scenes, steps = (40, 20) if args.quick else (SCENES, STEPS)
    examples = _examples(model, seed, scenes)
    held_out = examples.scene >= 0.85 * scenes
    for loss, basis in missing:
        from smlm_pb.losses.map_grid import MapGrid

        grid = MapGrid(basis=basis)  # type: ignore[arg-type]
        network = fit_maps(
            examples.select(~held_out),
            grid,
            loss=loss,
            steps=steps,
            batch_size=128,
            learning_rate=2e-3,
            hidden=96,
            seed=seed,
        )
        calibration, accuracy = judge_maps(network, grid, examples.select(held_out))
        card = StageCard(
            kind="readout",
            name=f"{loss}, {basis}",
            network=network.settings,
            grid={"cells": grid.cells, "step": grid.step, "basis": basis},
            behind={"name": model.card.name, "sha256": model.card.weights_sha256},
            calibration=calibration,
            accuracy=accuracy,
        )
        save_stage(_folder(args, model_name, loss, basis, seed), network, card, f"loss: {loss}\nseed: {seed}\n")
        print(f"{model_name} {loss} {basis} {seed}: {accuracy}", flush=True)


def _examples(model: Model, seed: int, scenes: int) -> Examples:
    from smlm_pb.training.second_stage import scenes_for
    from smlm_pb.training.second_stage_examples import draw_examples

    return draw_examples(
        model, scenes_for(model, {}), n_scenes=scenes, crop_px=48, seed=seed_of(31, seed), least_probability=0.3
    )


def _measure(model_name: str, density: float, seed: int, args: Any) -> dict[str, Any]:
    """One movie: the network, the likelihood and all heads, on the same matched molecules."""
    import smlm_pb
    from smlm_pb.analysis.second_look import looks_of_table, refine_table
    from smlm_pb.localization import load_model
    from smlm_pb.refinement.second_stage import load_stage

    frames, size = (4, 32) if args.quick else (FRAMES[density], 64)
    recipe = density_sweep(density, frames=frames, size_px=size)
    movie, truth = smlm_pb.simulate(recipe, seed=seed_of(32, density, seed))
    camera = recipe.camera.camera()
    run = localize(movie, load_model(model_name, "cpu"), camera=camera, pixel_size_nm=100.0, psf_sigma_px=1.1)
    table = run.molecules
    pairs = match(table, truth, TOLERANCE_NM)
    true = np.stack([truth[a][pairs.truth].astype(np.float64) for a in "yx"], axis=1)
    found = {"molecules": len(table), "matched": len(pairs.pred), "network": _score(table.select(pairs.pred), true)}
    for method in ("auto", "on"):
        refined = refine_table(table, movie, method=method)
        found[f"likelihood, {method}"] = _score(refined.select(pairs.pred), true)
    looks, columns = looks_of_table(
        table, camera.to_electrons(movie), 0, 1.1, camera.read_variance_e2, camera.excess_noise_factor
    )
    for loss, basis in _variants(model_name):
        stage = load_stage(_folder(args, model_name, loss, basis, seed), "readout")
        found[f"{loss}, {basis}"] = _score_map(stage, looks, columns, table, pairs.pred, true, camera)
    return found


def _score(matched: Localizations, true: Any) -> dict[str, float]:
    at = np.stack([matched[a].astype(np.float64) for a in "yx"], axis=1)
    sigma = np.stack([matched[f"sigma_{a}"].astype(np.float64) for a in "yx"], axis=1)
    return _figures(at - true, sigma)


def _figures(error: Any, sigma: Any) -> dict[str, float]:
    from scipy.stats import spearmanr

    pull = np.abs(error / sigma)
    size = np.sqrt((error**2).sum(1))
    rank = spearmanr(np.sqrt((sigma**2).sum(1)), size).statistic if np.ptp(sigma) > 0 else float("nan")
    return {
        "rmse_nm": 100 * float(np.sqrt(np.mean(error**2))),
        "robust_nm": 148.26 * float(np.median(np.abs(error))),
        "pull": float((error / sigma).std()),
        "within_68": float(np.mean(pull < 1.0)),
        "within_95": float(np.mean(pull < 1.959964)),
        "rank_correlation": float(rank),
    }


def _score_map(stage: Stage, looks: Any, columns: Any, table: Localizations, rows: Any, true: Any, camera: Any) -> Any:
    import torch

    from smlm_pb.analysis.second_look import calibration_factors, map_grid, map_logits

    grid, logits = map_grid(stage), map_logits(stage, looks).double()
    moments = grid.moments(logits)
    unit = looks.unit_px[:, None]
    at = np.stack([table[a].astype(np.float64) for a in "yx"], axis=1) + moments.mean.numpy() * unit
    sigma = np.sqrt(torch.diagonal(moments.covariance, dim1=1, dim2=2).numpy()) * unit
    factor = calibration_factors(stage, columns, sigma, 1.1, camera.read_variance_e2, camera.excess_noise_factor)
    error = at[rows] - true
    target = (true - np.stack([table[a].astype(np.float64) for a in "yx"], axis=1)[rows]) / unit[rows]
    below = grid.marginal_cdf(logits[torch.from_numpy(rows)], torch.from_numpy(target)).numpy()
    shape = {
        "map_68": float(np.mean(np.abs(below - 0.5) < 0.5 * 0.6826895)),
        "map_95": float(np.mean(np.abs(below - 0.5) < 0.475)),
    }
    return {"raw": {**_figures(error, sigma[rows]), **shape}, **_figures(error, sigma[rows] * factor[rows])}


def _tables(points: list[dict[str, Any]]) -> list[Table]:
    def pooled(name: str, what: str, *, raw: bool = False) -> list[float]:
        """One value per repetition: mean over the densities."""
        seeds = sorted({p["seed"] for p in points})
        mine = [p for p in points if p["model"] == "default"]
        return [mean([(p[name]["raw"] if raw else p[name])[what] for p in mine if p["seed"] == s]) for s in seeds]

    rows = []
    for loss, basis in VARIANTS:
        name = f"{loss}, {basis}"
        rows.append(
            [
                name,
                spread(pooled(name, "rmse_nm"), 2),
                spread(pooled(name, "pull", raw=True), 2),
                *(f"{100 * mean(pooled(name, what, raw=True)):.1f}" for what in ("within_68", "within_95")),
                *(f"{100 * mean(pooled(name, what, raw=True)):.1f}" for what in ("map_68", "map_95")),
                number(mean(pooled(name, "rank_correlation", raw=True)), 2),
                spread(pooled(name, "pull"), 2),
                *(f"{100 * mean(pooled(name, what)):.1f}" for what in ("within_68", "within_95")),
            ]
        )
    for name in ("network", "likelihood, auto"):
        rows.append(
            [
                name,
                spread(pooled(name, "rmse_nm"), 2),
                spread(pooled(name, "pull"), 2),
                *(f"{100 * mean(pooled(name, what)):.1f}" for what in ("within_68", "within_95")),
                "–",
                "–",
                number(mean(pooled(name, "rank_correlation")), 2),
                "–",
                "–",
                "–",
            ]
        )
    return [
        Table(
            "Maps behind model 'default', as trained and after calibration (goals: sd of error/σ 0.95–1.05, intervals "
            "within 2 points)",
            (
                "loss, basis",
                "RMSE (nm)",
                "error/σ",
                "in 68 %",
                "in 95 %",
                "in the map's 68 %",
                "in the map's 95 %",
                "rank σ–error",
                "error/σ calibrated",
                "in 68 %, cal.",
                "in 95 %, cal.",
            ),
            rows,
        ),
        _worth(points),
    ]


def _worth(points: list[dict[str, Any]]) -> Table:
    names = ("network", "likelihood, auto", "likelihood, on", "energy, triangular")
    rows = []
    for model in MODELS:
        for density in sorted({p["density_per_um2"] for p in points}):
            here = [p for p in points if p["model"] == model and p["density_per_um2"] == density]
            rows.append(
                [
                    f"{model}, {density:g}",
                    *(spread([p[name]["rmse_nm"] for p in here], 2) for name in names),
                    *(number(mean([p[name]["robust_nm"] for p in here]), 2) for name in names),
                    *(number(mean([p[name]["pull"] for p in here]), 2) for name in names),
                ]
            )
    short = ("network", "auto", "on", "map")
    return Table(
        "Error per axis (nm) of the network, the likelihood (auto, on) and the map, on the same molecules",
        (
            "model, molecules/µm²",
            *(f"RMSE {name}" for name in short),
            *(f"robust {name}" for name in short),
            *(f"error/σ {name}" for name in short),
        ),
        rows,
    )


def _figure(points: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(3)
    mine = [p for p in points if p["model"] == "default"]
    names = [f"{loss}, {basis}" for loss, basis in VARIANTS]
    at = np.arange(len(names))
    pulls = [mean([p[name]["raw"]["pull"] for p in mine]) for name in names]
    calibrated = [mean([p[name]["pull"] for p in mine]) for name in names]
    ax = axes[0, 0]
    ax.axvspan(0.95, 1.05, color=COLOURS["goal"], alpha=0.25, lw=0)
    ax.plot(pulls, at, "o", color=COLOURS["ours"], label="as trained")
    ax.plot(calibrated, at, "x", color=COLOURS["other"], label="calibrated")
    ax.set_yticks(at, names)
    ax.invert_yaxis()
    ax.set(xlabel="standard deviation of error / σ", xscale="log", title="Honesty of σ")
    ax.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
    ax.minorticks_off()
    ax.legend(frameon=False)
    ax = axes[0, 1]
    for what, colour, goal in (("map_68", COLOURS["ours"], 68.3), ("map_95", COLOURS["other"], 95.0)):
        ax.axvspan(goal - 2, goal + 2, color=COLOURS["goal"], alpha=0.25, lw=0)
        values = [100 * mean([p[name]["raw"][what] for p in mine]) for name in names]
        ax.plot(values, at, "o", color=colour, label=f"{goal:.0f} % interval")
    ax.set_yticks(at, [])
    ax.invert_yaxis()
    ax.set(xlabel="true positions inside (%)", xlim=(0, 100), title="Intervals of the map")
    ax.legend(frameon=False)
    ax = axes[0, 2]
    for model, style in zip(MODELS, ("o-", "s--"), strict=True):
        for name, label, colour in (
            ("likelihood, auto", "likelihood, auto", COLOURS["other"]),
            ("energy, triangular", "map", COLOURS["ours"]),
        ):
            here = [p for p in points if p["model"] == model]
            densities = sorted({p["density_per_um2"] for p in here})
            ratio = [
                mean([p[name]["rmse_nm"] / p["network"]["rmse_nm"] for p in here if p["density_per_um2"] == d])
                for d in densities
            ]
            ax.plot(densities, ratio, style, color=colour, label=f"{label}, behind '{model}'")
    ax.axhline(1.0, color=COLOURS["reference"], ls=":", lw=1)
    ax.set(xscale="log", xlabel="molecules per µm²", ylabel="RMSE / that of the network", title="Worth")
    ax.set_xticks(densities, [f"{d:g}" for d in densities])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run_as_program(main)
