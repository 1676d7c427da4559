"""Two colours, or two PSFs, in one movie: what is found of each class, and how often the class is right.

Networks of 32 channels are trained for each case and seed, from the shipped model ``fast`` on (``smlm-pb train`` with a
``classes`` section; one candidate per class and pixel, one count per class), and judged on simulated movies that follow
a recipe: 2000 e⁻ per molecule, background 20 e⁻/px, reference width 1.2 px. "Two PSFs" are tall and wide spots (0.8 and
1.35 times the width along the axes, as cylindrical lenses make them); "two colours" differ in width (0.85 and 1.2
times: a factor of 1.4, that of 560 and 780 nm). A molecule is found within 100 nm; its class is judged apart, and
in the Jaccard index of its class only molecules of the right class count.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _kept import kept, origin
from _report import (
    COLOURS,
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

from smlm_pb.camera import Camera
from smlm_pb.evaluation.matching import match
from smlm_pb.localization import load_model, localize
from smlm_pb.simulation import Recipe, simulate
from smlm_pb.training import train
from smlm_pb.training.experiment import Experiment

CASES = {
    "two PSFs": [
        {"name": "tall", "width_x": 0.8, "width_y": 1.35},
        {"name": "wide", "width_x": 1.35, "width_y": 0.8},
    ],
    "two colours": [
        {"name": "short wave", "width_x": 0.85, "width_y": 0.85},
        {"name": "long wave", "width_x": 1.2, "width_y": 1.2},
    ],
}
DENSITIES_PER_UM2 = (0.1, 0.5, 1.0)
PHOTONS = (500.0, 2000.0)
TOLERANCE_NM = 100.0
STEPS, FRAMES = 300, 40
PSF_SIGMA_PX = 1.2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", model=False, seeds=3)
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help=f"steps of training (default: {STEPS})")
    parser.add_argument("--only", type=int, metavar="SEED", help="train and measure this seed only; publish nothing")
    args = parse(parser, argv)
    steps, frames = (20, 4) if args.quick else (args.steps, FRAMES)
    seeds = range(args.seeds) if args.only is None else [args.only]
    runs = [run for seed in seeds for case in CASES for run in _kept(case, seed, steps, frames)]
    if args.only is not None:
        return 0
    publish(
        "classes",
        args,
        tables=[_table(runs), _confusion(runs)],
        results=runs,
        settings={
            "seeds": args.seeds,
            "steps": steps,
            "frames": frames,
            "channels": 32,
            "psf_sigma_px": PSF_SIGMA_PX,
            "classes": CASES,
        },
        figure=_figure(runs),
    )
    return 0


def _kept(case: str, seed: int, steps: int, frames: int) -> list[dict[str, Any]]:
    """Results of one case and seed, measured before or now."""
    found: list[dict[str, Any]] = kept(
        "classes",
        f"{case.replace(' ', '_')}-{seed}-{steps}-{frames}-{origin('fast')}",
        lambda: run(case, seed, steps, frames),
    )
    return found


def experiment(case: str, seed: int, steps: int) -> Experiment:
    """What the network of a case is trained on."""
    from smlm_pb.localization import load_model

    return Experiment.from_dict(
        {
            "name": "classes",
            "seed": seed,
            "classes": CASES[case],
            "network": load_model("fast", "cpu").card.network,
            "start_from": "fast",
            "loss": {"bandwidth_px": {"start": 0.6, "end": 0.3, "reached_at": 0.5}},
            "scenes": {
                "psf_sigma_px": [1.15, 1.25],
                "photons": [300, 4000],
                "background_e": [5, 60],
                "em_fraction": 0.0,
                "sparse_fraction": 0.5,
                "sparse_density_per_px2": [1e-3, 5e-3],
                "dense_density_per_px2": [5e-3, 2e-2],
            },
            "validation": {"scenes": 32, "every_steps": steps, "calibration_scenes": 128},
            "steps": steps,
            "crop_px": 40,
            "learning_rate": 2e-3,
            "ema_decay": 0.99,
            "workers": 0,
            "checkpoint_every_steps": 10 * steps,
        }
    )


def run(case: str, seed: int, steps: int, frames: int) -> list[dict[str, Any]]:
    """Train, then measure at every density and brightness."""
    with tempfile.TemporaryDirectory() as folder:
        trained = train(experiment(case, seed, steps), Path(folder) / "run", device="cpu")
        model = load_model(trained.model_folder, "cpu")
    conditions = [(density, 2000.0) for density in DENSITIES_PER_UM2] + [(DENSITIES_PER_UM2[0], PHOTONS[0])]
    return [
        {
            "case": case,
            "seed": seed,
            "density": density,
            "photons": photons,
            **measure(case, seed, model, density, photons, frames),
        }
        for density, photons in conditions
    ]


def measure(case: str, seed: int, model: Any, density: float, photons: float, frames: int) -> dict[str, Any]:
    """Scores on one movie."""
    recipe = Recipe.from_dict(
        {
            "seed": 9000 + seed,
            "frames": frames,
            "height": 64,
            "width": 64,
            "pixel_size_nm": 100.0,
            "psf": {"sigma_px": PSF_SIGMA_PX},
            "molecules": {
                "density_per_um2": density,
                "photons": photons,
                "photon_distribution": "lognormal",
                "photon_spread": 0.2,
                "classes": CASES[case],
            },
            "background": {"photons_per_px": 20.0},
            "camera": {"offset_adu": 100.0, "e_per_adu": 0.5, "read_noise_e": 1.6},
        }
    )
    movie, truth = simulate(recipe)
    camera = Camera(offset_adu=100.0, e_per_adu=0.5, read_noise_e=1.6)
    found = localize(movie, model=model, camera=camera, psf_sigma_px=PSF_SIGMA_PX, pixel_size_nm=100.0)
    pairs = match(found, truth, TOLERANCE_NM)
    guess, right = found["class"][pairs.pred], truth["class"][pairs.truth]
    n = len(CASES[case])
    confusion = np.zeros((n, n), int)
    np.add.at(confusion, (right, guess), 1)
    sure = found["class_probability"][pairs.pred].astype(np.float64)
    per_class = []
    for one in range(n):
        mine, true = found.select(found["class"] == one), truth.select(truth["class"] == one)
        hits = len(match(mine, true, TOLERANCE_NM).pred)
        per_class.append(hits / max(1, len(mine) + len(true) - hits))
    confident = sure >= 0.9
    return {
        "molecules": len(truth),
        "jaccard": len(pairs.pred) / max(1, len(found) + len(truth) - len(pairs.pred)),
        "jaccard_per_class": per_class,
        "class_right": float((guess == right).mean()) if len(guess) else float("nan"),
        "stated": float(sure.mean()) if len(sure) else float("nan"),
        "confident_share": float(confident.mean()) if len(sure) else float("nan"),
        "confident_right": float((guess == right)[confident].mean()) if confident.any() else float("nan"),
        "confusion": confusion.tolist(),
    }


def _table(runs: list[dict[str, Any]]) -> Table:
    rows = []
    for case in CASES:
        for density, photons in sorted({(r["density"], r["photons"]) for r in runs}, key=lambda k: (-k[1], k[0])):
            mine = [r for r in runs if (r["case"], r["density"], r["photons"]) == (case, density, photons)]
            rows.append(
                [
                    f"{case}, {density:g} per µm², {photons:.0f} e⁻",
                    spread([r["jaccard"] for r in mine]),
                    *(spread([r["jaccard_per_class"][k] for r in mine]) for k in range(2)),
                    spread([100 * r["class_right"] for r in mine], 1),
                    number(100 * mean([r["stated"] for r in mine]), 1),
                    number(100 * mean([r["confident_share"] for r in mine]), 0),
                    number(100 * mean([r["confident_right"] for r in mine]), 1),
                ]
            )
    columns = (
        "case",
        "J, any class",
        "J, first class",
        "J, second class",
        "class right (%)",
        "stated (%)",
        "stated ≥ 90 % (%)",
        "of these right (%)",
    )
    return Table(
        f"Jaccard index at {TOLERANCE_NM:.0f} nm, and the classes of the molecules that were found", columns, rows
    )


def _confusion(runs: list[dict[str, Any]]) -> Table:
    rows = []
    for case, classes in CASES.items():
        mine = [r for r in runs if r["case"] == case and r["photons"] == max(PHOTONS)]
        total = np.sum([r["confusion"] for r in mine], axis=0)
        for index, one in enumerate(classes):
            share = total[index] / max(1, total[index].sum())
            rows.append([f"{case}: {one['name']}", str(int(total[index].sum())), *(number(100 * v, 1) for v in share)])
    return Table(
        "Confusion at 2000 e⁻, all densities (%)", ("true class", "found", "called first", "called second"), rows
    )


def _figure(runs: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(3)
    for ax, (case, classes) in zip(axes[0, :2], CASES.items(), strict=True):
        recipe = Recipe.from_dict(
            {
                "seed": 5,
                "frames": 1,
                "height": 48,
                "width": 48,
                "psf": {"sigma_px": PSF_SIGMA_PX},
                "molecules": {"density_per_um2": 0.8, "photons": 4000, "classes": classes},
                "background": {"photons_per_px": 20.0},
            }
        )
        movie, truth = simulate(recipe)
        ax.imshow(movie[0], cmap="gray")
        for index, colour in enumerate(("ours", "other")):
            mine = truth["class"] == index
            ax.plot(truth["x"][mine], truth["y"][mine], "+", color=COLOURS[colour], ms=6, label=classes[index]["name"])
        ax.set_title(f"{case}, with the truth")
        ax.legend(fontsize=7, loc="upper right")
    ax = axes[0, 2]
    for case, colour in zip(CASES, ("ours", "other"), strict=True):
        mine = [r for r in runs if r["case"] == case and r["photons"] == max(PHOTONS)]
        for key, style, scale in (("class_right", "o-", 1.0), ("jaccard", "s:", 1.0)):
            values = [[scale * r[key] for r in mine if r["density"] == d] for d in DENSITIES_PER_UM2]
            label = f"{case}: {'class right' if key == 'class_right' else 'Jaccard index, any class'}"
            middle = [float(np.mean(v)) if v else float("nan") for v in values]
            ax.plot(DENSITIES_PER_UM2, middle, style, color=COLOURS[colour], ms=4, label=label)
    ax.set(xlabel="molecules per µm²", ylabel="share", ylim=(0, 1.02))
    ax.legend(fontsize=7, loc="lower left")
    return figure


if __name__ == "__main__":
    run_as_program(main)
