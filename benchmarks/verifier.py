"""A second look at every molecule: how well it tells true from false, beside the first stage.

The candidates of the default model down to a probability of 0.05, in crowded movies and in movies that are not what the
program was told (the suite SMLM-C). Compared are the stated probability, the learned verifier, the published fusion of
two scores, and the likelihood ratio of a fit, which needs no training.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from _kept import is_kept, kept, origin
from _report import COLOURS, Table, load, make_parser, mean, new_figure, number, parse, publish, run_as_program, spread
from _runs import seed_of

from smlm_pb.analysis.second_look import keep_likely, refine_table, verify
from smlm_pb.evaluation import best_threshold, evaluate, match
from smlm_pb.refinement.second_stage import load_stage
from smlm_pb.simulation.corrupted_movie import simulate_corrupted
from smlm_pb.simulation.corruptions import CORRUPTIONS, TOLD_PSF_SIGMA_PX
from smlm_pb.simulation.presets import density_sweep
from smlm_pb.training.second_stage_judge import calibration_error, roc_area

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

TOLERANCE_NM = 100.0
FLOOR = 0.05
DENSITIES = {1.0: 40, 4.0: 15, 6.0: 10}
CORRUPTED = {
    "background": 5,
    "haze": 4,
    "psf_width": 3,
    "defocus": 3,
    "gain_error": 3,
    "offset_error": 3,
    "hot_pixels": 4,
}
FRAMES = 20
RECALL = 0.8


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", seeds=3)
    parser.add_argument("--verifier", default="verifier", metavar="DIR", help="the verifier (default: the shipped one)")
    parser.add_argument(
        "--at-most", type=int, metavar="N", help="stop after N movies; the next call continues where this one ended"
    )
    args = parse(parser, argv)
    model, stage = load(args), load_stage(args.verifier, "verifier")
    names = [f"{d:g} molecules/µm²" for d in DENSITIES] + list(CORRUPTED)
    if args.quick:
        names = [names[0], "hot_pixels"]
    made_of = f"{model.card.weights_sha256[:8]}-{stage.card.weights_sha256[:8]}-{origin()}{'-quick' * args.quick}"
    repetitions: dict[str, list[Any]] = {name: [] for name in names}
    new = 0
    for name, seed in product(names, range(args.seeds)):
        part = f"{name.replace('/', ' per ').replace(' ', '_')}-{seed}-{made_of}"
        if not is_kept("verifier", part):
            if new == args.at_most:
                print("More movies are to be done: run again.")
                return 0
            new += 1
        found = kept("verifier", part, partial(_measure, name, seed, model, stage, args.quick))
        repetitions[name].append(found)
    points = [{"condition": name, "repetitions": found} for name, found in repetitions.items()]
    publish(
        "verifier",
        args,
        tables=_tables(points),
        results={"points": points, "verifier": stage.card.accuracy},
        settings={"tolerance_nm": TOLERANCE_NM, "floor": FLOOR, "corruptions": CORRUPTED, "seeds": args.seeds},
        figure=_figure(points),
        model=model,
    )
    return 0


def _movie(name: str, seed: int, quick: bool) -> tuple[Any, Localizations, Any, float]:
    import smlm_pb

    if name in CORRUPTED:
        corruption = next(c for c in CORRUPTIONS if c.name == name)
        experiment = corruption.experiment(CORRUPTED[name])
        movie, truth = simulate_corrupted(experiment, frames=3 if quick else FRAMES, size_px=64, seed=210_000 + seed)
        return movie, truth, experiment.told, TOLD_PSF_SIGMA_PX
    density = float(name.split()[0])
    recipe = density_sweep(density, frames=3 if quick else DENSITIES[density])
    movie, truth = smlm_pb.simulate(recipe, seed=seed_of(21, density, seed))
    return movie, truth, recipe.camera.camera(), 1.1


def _measure(name: str, seed: int, model: Any, stage: Any, quick: bool) -> dict[str, Any]:
    import smlm_pb

    movie, truth, camera, width = _movie(name, seed, quick)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = smlm_pb.localize(
            movie, model=model, camera=camera, pixel_size_nm=100.0, psf_sigma_px=width, threshold=FLOOR
        )
        looked = verify(found, movie, verifier=stage)
        fitted = refine_table(found, movie, method="on")
    exists = np.zeros(len(found), bool)
    exists[match(found, truth, TOLERANCE_NM).pred] = True
    first = looked["first_probability"].astype(np.float64)
    second = looked["probability"].astype(np.float64)
    scores = {
        "stated": first,
        "verified": second,
        "fused": ((first + 0.5) * (second + 0.5) - 0.25) / 2.0,
        "likelihood ratio": fitted["log_likelihood_ratio"].astype(np.float64),
    }
    judged = {
        label: {"roc_area": roc_area(score, exists), "precision_at_recall": _precision(score, exists, len(truth))}
        for label, score in scores.items()
    }
    for label, p in (("stated", first), ("verified", second)):
        table = looked.with_columns(probability=p)
        kept = keep_likely(table, "auto")
        judged[label] |= {
            "jaccard": evaluate(kept, truth, tolerance_nm=TOLERANCE_NM, chance=False, check=False)
            .at(TOLERANCE_NM)
            .jaccard,
            "best_jaccard": best_threshold(table, truth, tolerance_nm=TOLERANCE_NM).best_jaccard,
            "calibration_error": calibration_error(p, exists),
            "threshold": kept.provenance[-1]["threshold"]["threshold"],
        }
    return {"candidates": len(found), "true": float(exists.mean()), **judged}


def _precision(score: Any, exists: Any, n_truth: int) -> float:
    """Precision where a fixed share of all true molecules is kept; NaN where it cannot be reached."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(exists[order])
    enough = np.flatnonzero(hits >= RECALL * n_truth)
    return float(hits[enough[0]] / (enough[0] + 1)) if len(enough) else float("nan")


def _tables(points: list[dict[str, Any]]) -> list[Table]:
    def values(point: dict[str, Any], label: str, what: str) -> list[float]:
        return [r[label][what] for r in point["repetitions"]]

    ranked = [
        [
            p["condition"],
            number(mean([r["true"] for r in p["repetitions"]]), 2),
            *(
                number(mean(values(p, label, "roc_area")))
                for label in ("stated", "verified", "fused", "likelihood ratio")
            ),
            *(number(mean(values(p, label, "precision_at_recall"))) for label in ("stated", "verified")),
        ]
        for p in points
    ]
    kept = [
        [
            p["condition"],
            *(spread(values(p, label, "jaccard")) for label in ("stated", "verified")),
            *(number(mean(values(p, label, "best_jaccard"))) for label in ("stated", "verified")),
            *(number(mean(values(p, label, "calibration_error"))) for label in ("stated", "verified")),
        ]
        for p in points
    ]
    return [
        Table(
            f"Telling true from false among candidates of probability {FLOOR:g} and more",
            (
                "movie",
                "share true",
                "ROC area, stated",
                "verified",
                "fused",
                "likelihood ratio",
                f"precision at recall {RECALL:g}, stated",
                "verified",
            ),
            ranked,
        ),
        Table(
            f"Jaccard index at {TOLERANCE_NM:g} nm, and calibration error of the probabilities",
            (
                "movie",
                "J auto, stated",
                "J auto, verified",
                "J best, stated",
                "J best, verified",
                "calibration error, stated",
                "verified",
            ),
            kept,
        ),
    ]


def _figure(points: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(2)
    at = np.arange(len(points))
    for ax, what, title in (
        (axes[0, 0], "roc_area", "Telling true from false: area under the ROC curve"),
        (axes[0, 1], "jaccard", f"Jaccard index at {TOLERANCE_NM:g} nm, automatic threshold"),
    ):
        for label, marker, colour in (
            ("stated", "o", COLOURS["reference"]),
            ("verified", "x", COLOURS["ours"]),
            ("likelihood ratio", "+", COLOURS["other"]),
        ):
            if what in points[0]["repetitions"][0][label]:
                values = [mean([r[label][what] for r in p["repetitions"]]) for p in points]
                ax.plot(values, at, marker, color=colour, label=label)
        ax.set_yticks(at, [p["condition"] for p in points] if what == "roc_area" else [])
        ax.invert_yaxis()
        ax.set_title(title)
    axes[0, 0].legend(frameon=False, loc="lower left")
    return figure


if __name__ == "__main__":
    run_as_program(main)
