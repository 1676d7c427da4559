"""Put the published results onto the cards of the shipped models, so that a card never tells other numbers.

Results belong to a model when the hash of its weights is the one in the results' record. Beside a figure that misses
its goal stands the goal.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import blank
import density_sweep
import isolated
import microtubules
from _report import RESULTS, run_as_program

MODELS = Path(__file__).parents[1] / "models"


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=MODELS, metavar="DIR", help="folder of the models")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="folder of the JSON files")
    args = parser.parse_args(argv)
    from smlm_pb.localization.model_card import ModelCard

    for folder in sorted(path.parent for path in args.models.glob("*/card.json")):
        card = ModelCard.load(folder)
        measured = figures_of(card.weights_sha256, args.results)
        kept = {name: value for name, value in card.accuracy.items() if name == "validation"}
        replace(card, accuracy={**kept, **measured}).save(folder)
        print(f"{card.name}: {', '.join(measured) or 'no results'}")
    return 0


def figures_of(weights_sha256: str, results: Path) -> dict[str, dict[str, float]]:
    """Figures of every benchmark that was run with these weights, by the name of its results."""
    found = {}
    for path in sorted(results.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        read = _READERS.get(record["benchmark"])
        if read and record.get("model", {}).get("weights_sha256") == weights_sha256 and not record["quick"]:
            figures = read(record["results"])
            found[path.stem] = {name: round(value, 4) for name, value in {**figures, **goals_missed(figures)}.items()}
    return found


def goals_missed(figures: dict[str, float]) -> dict[str, float]:
    """Goals of the figures that miss them, as ``<figure>_goal``."""
    at_least = {f"jaccard_100nm_at_{density:g}_per_um2": goal for density, goal in density_sweep.GOAL.items()}
    at_least |= {f"jaccard_{tolerance:g}nm": goal for tolerance, goal in microtubules.GOAL.items()}
    missed = {name: goal for name, goal in at_least.items() if figures.get(name, goal) < goal}
    for name, value in figures.items():
        if name.startswith("worst_rmse_over_bound") and value > isolated.GOAL:
            missed[name] = isolated.GOAL
        if name.startswith("false_per_1000_frames") and value >= blank.GOAL_PER_1000:
            missed[name] = blank.GOAL_PER_1000
    return {f"{name}_goal": goal for name, goal in missed.items()}


def _density(results: Any) -> dict[str, float]:
    figures = {}
    for point in results["points"]:
        density = f"{point['density_per_um2']:g}"
        figures[f"jaccard_100nm_at_{density}_per_um2"] = point["jaccard_inner"]
    return figures


def _isolated(results: Any) -> dict[str, float]:
    figures = {}
    for summary in results["summary"]:
        core, width = summary["core"], f"{summary['psf_sigma_px']:g}"
        figures[f"rmse_over_bound_sigma_{width}px"] = core["ratio_mean"]
        figures[f"worst_rmse_over_bound_sigma_{width}px"] = core["ratio_worst"]
    return figures


def _blank(results: Any) -> dict[str, float]:
    return {
        f"false_per_1000_frames_background_{point['background_e']:g}": point["false_per_1000_frames"]["automatic"]
        for point in results
    }


def _microtubules(results: Any) -> dict[str, float]:
    return {f"jaccard_{row['tolerance_nm']:g}nm": row["jaccard"] for row in results["tolerances"]}


def _picasso_movie(results: Any) -> dict[str, float]:
    return {"found": results["found"], "median_distance_px": results["median_distance_px"]}


#: Figures of the robustness suite as a whole.
_SUITE = ("clean", "mean", "kept", "warned_of_harm")


def _robustness(results: Any) -> dict[str, float]:
    summary = results["summary"]
    figures = {name: summary[name] for name in _SUITE}
    worst = {f"mean_{name}": part["mean"] for name, part in summary["by_corruption"].items()}
    return {name: value for name, value in {**figures, **worst}.items() if value is not None}


_READERS: dict[str, Callable[[Any], dict[str, float]]] = {
    "density_sweep": _density,
    "isolated": _isolated,
    "blank": _blank,
    "microtubules": _microtubules,
    "picasso_movie": _picasso_movie,
    "robustness": _robustness,
}


if __name__ == "__main__":
    run_as_program(main)
