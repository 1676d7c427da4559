"""SMLM-C: what happens when the microscope is not the one that the program was told of.

One clean experiment (1000 e⁻ per molecule on 10 e⁻/px, 0.5 molecules/µm², σ = 1.3 px, read noise 1.6 e⁻, 100-nm pixels)
and nineteen things that go wrong, each in five frozen severities in physical units. The program is told the clean
camera and PSF width. Beside the scores stands whether the user was warned: the worst is a result that is wrong and does
not say so.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import COLOURS, Table, load, make_parser, mean, new_figure, number, parse, publish, run_as_program

from smlm_pb.errors import SmlmPbError
from smlm_pb.evaluation import evaluate, match
from smlm_pb.simulation.corrupted_movie import bead_position, simulate_corrupted
from smlm_pb.simulation.corruptions import CLEAN, CORRUPTIONS, TOLD_PSF_SIGMA_PX, Experiment

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FRAMES, SIZE_PX = 20, 64
TOLERANCES_NM = (50.0, 100.0)
#: The Jaccard index that decides: at 100 nm, so that it tells of molecules found rather than of precision.
MAIN_NM = 100.0
#: What lies so near the bead is not scored.
BEAD_PX = 8.0
#: A shift of all molecules is looked for up to here, where so many are matched.
FARTHEST_SHIFT_NM, FEWEST_FOR_SHIFT = 250.0, 20
#: A loss of Jaccard index that a user would want to know of.
HARM = 0.1
#: Movies of the suite have seeds of their own, the same for every severity: only the corruption differs.
SEED = 190_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite."""
    parser = make_parser(__doc__ or "", seeds=2)
    parser.add_argument(
        "--reference", type=Path, metavar="JSON", help="results of another model, for the relative error (1-J)/(1-J')"
    )
    args = parse(parser, argv)
    model = load(args)
    frames, severities = (4, (1, 5)) if args.quick else (FRAMES, (1, 2, 3, 4, 5))
    clean = _measure(CLEAN, model, args, frames)
    points = [
        {"corruption": corruption.name, "severity": severity, "value": corruption.severities[severity - 1], **measured}
        for corruption in CORRUPTIONS
        for severity in severities
        for measured in [_measure(corruption.experiment(severity), model, args, frames)]
    ]
    summary = summarise(clean, points)
    if args.reference is not None:
        known = json.loads(args.reference.read_text(encoding="utf-8"))["results"]
        summary["relative_error"] = relative_error(points, known["points"])
    publish(
        "robustness",
        args,
        tables=_tables(clean, points, summary),
        results={"clean": clean, "points": points, "summary": summary},
        settings={
            "frames": frames,
            "frame_px": SIZE_PX,
            "tolerances_nm": list(TOLERANCES_NM),
            "told_psf_sigma_px": TOLD_PSF_SIGMA_PX,
            "reference": args.reference.name if args.reference else None,
            "seeds": args.seeds,
        },
        figure=_figure(clean, points),
        model=model,
    )
    return 0


def _measure(experiment: Experiment, model: Any, args: Any, frames: int) -> dict[str, Any]:
    repetitions = [_one(experiment, model, args, frames, seed) for seed in range(args.seeds)]
    names = [name for name, value in repetitions[0].items() if not isinstance(value, (list, str, bool))]
    return {
        **{name: mean([one[name] for one in repetitions]) for name in names},
        "warned": mean([float(one["warned"]) for one in repetitions]),
        "warnings": repetitions[0]["warnings"],
    }


def _one(experiment: Experiment, model: Any, args: Any, frames: int, seed: int) -> dict[str, Any]:
    """One movie: scores, and what the user was told. A movie that is refused has no molecules, and was told of."""
    import smlm_pb

    movie, truth = simulate_corrupted(experiment, frames=frames, size_px=SIZE_PX, seed=SEED + seed)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        try:
            found = smlm_pb.localize(
                movie,
                model=model,
                camera=experiment.told,
                pixel_size_nm=truth.info.pixel_size_nm,
                psf_sigma_px=TOLD_PSF_SIGMA_PX,
                refine=args.refine,
            )
        except SmlmPbError as error:
            return {"jaccard_50": 0.0, "jaccard_100": 0.0, "rmse_nm": None, "pull": None, "expected_jaccard": None,
                    "warned": True, "warnings": [str(error)]}  # fmt: skip
    said = [str(one.message) for one in told if issubclass(one.category, UserWarning)]
    place = bead_position(experiment, SIZE_PX)
    truth = without_bead(truth, place)
    found, shift_px = without_common_shift(without_bead(found, place), truth)
    scores = evaluate(found, truth, tolerance_nm=TOLERANCES_NM, chance=False, check=False)
    main_score = scores.at(MAIN_NM)
    return {
        **{f"jaccard_{tolerance:g}": scores.at(tolerance).jaccard for tolerance in TOLERANCES_NM},
        "precision": main_score.precision,
        "recall": main_score.recall,
        "shift_nm": float(np.hypot(*shift_px)) * truth.info.pixel_size_nm,
        "rmse_nm": float(np.sqrt((main_score.rmse_x_nm**2 + main_score.rmse_y_nm**2) / 2)),
        "pull": (main_score.pull_std_x + main_score.pull_std_y) / 2,
        "expected_jaccard": found.provenance[-1]["threshold"]["jaccard"],
        "warned": bool(said),
        "warnings": said,
    }


def without_bead(table: Localizations, place: tuple[float, float] | None) -> Localizations:
    """The molecules that do not lie near the bead."""
    if place is None:
        return table
    return table.select(np.hypot(table["x"] - place[0], table["y"] - place[1]) > BEAD_PX)


def without_common_shift(found: Localizations, truth: Localizations) -> tuple[Localizations, tuple[float, float]]:
    """Molecules without what all of them are shifted by, and that shift along x and y, px.

    No microscope tells where an image lies as a whole: a PSF with coma has its bright core beside the centre of its
    light.
    """
    pairs = match(found, truth, FARTHEST_SHIFT_NM)
    if len(pairs.pred) < FEWEST_FOR_SHIFT:
        return found, (0.0, 0.0)
    x, y = (float(np.median(found[axis][pairs.pred] - truth[axis][pairs.truth])) for axis in "xy")
    return found.with_columns(x=found["x"] - x, y=found["y"] - y), (x, y)


def summarise(clean: dict[str, Any], points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the suite.

    Parameters
    ----------
    clean : dict
        Scores of the clean experiment.
    points : sequence of dict
        One for each corruption and severity.

    Returns
    -------
    dict
        ``clean``, ``mean`` Jaccard index and ``kept``, its share of the clean one; ``warned_of_harm``: of the
        conditions that cost more than 0.1, the share in which the user was warned; ``false_alarms``: of those that cost
        less than 0.02, the share with a warning; and the same by corruption, with the severity at which half is lost.
    """
    reference = clean["jaccard_100"]
    harmful = [p for p in points if p["jaccard_100"] < reference - HARM]
    harmless = [p for p in points if p["jaccard_100"] > reference - 0.02]
    names = list(dict.fromkeys(p["corruption"] for p in points))
    return {
        "clean": reference,
        "mean": mean([p["jaccard_100"] for p in points]),
        "kept": mean([p["jaccard_100"] for p in points]) / max(reference, 1e-9),
        "warned_of_harm": mean([p["warned"] for p in harmful]),
        "false_alarms": mean([p["warned"] for p in harmless]),
        "harmful": len(harmful),
        "by_corruption": {
            name: {
                "mean": mean([p["jaccard_100"] for p in points if p["corruption"] == name]),
                "half_at": half_at(reference, [p for p in points if p["corruption"] == name]),
            }
            for name in names
        },
    }


def half_at(clean: float, points: Sequence[dict[str, Any]]) -> float | None:
    """Severity, interpolated from 0 on, at which half of the clean Jaccard index is left; None beyond the last."""
    severity, jaccard = [0, *(p["severity"] for p in points)], [clean, *(p["jaccard_100"] for p in points)]
    for k in range(1, len(severity)):
        if jaccard[k] <= clean / 2:
            share = (jaccard[k - 1] - clean / 2) / max(jaccard[k - 1] - jaccard[k], 1e-9)
            return float(severity[k - 1] + share * (severity[k] - severity[k - 1]))
    return None


def relative_error(points: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]) -> float:
    """Mean of (1-J)/(1-J') over the conditions that both have; below 1 is better than the reference."""
    other = {(p["corruption"], p["severity"]): p["jaccard_100"] for p in reference}
    pairs = [(p["jaccard_100"], other[key]) for p in points if (key := (p["corruption"], p["severity"])) in other]
    return mean([(1 - mine) / max(1 - theirs, 1e-3) for mine, theirs in pairs])


def _tables(clean: dict[str, Any], points: list[dict[str, Any]], summary: dict[str, Any]) -> list[Table]:
    severities = sorted({p["severity"] for p in points})
    rows = []
    for corruption in CORRUPTIONS:
        mine = {p["severity"]: p for p in points if p["corruption"] == corruption.name}
        cells = [f"{number(mine[s]['jaccard_100'])}{'' if mine[s]['warned'] < 0.5 else ' !'}" for s in severities]
        part = summary["by_corruption"][corruption.name]
        units = ", ".join(f"{value:g}" for value in corruption.severities)
        half = "> 5" if part["half_at"] is None else f"{part['half_at']:.1f}"
        rows.append([corruption.name, f"{corruption.meaning}: {units}", *cells, number(part["mean"]), half])
    overall = [
        ["Jaccard index, clean", number(summary["clean"])],
        ["Jaccard index, mean over the suite", number(summary["mean"])],
        ["share of the clean one that is kept", number(summary["kept"])],
        [f"harmful conditions (loss > {HARM:g}) of which the user was warned", number(summary["warned_of_harm"], 2)],
        ["harmless conditions (loss < 0.02) with a warning", number(summary["false_alarms"], 2)],
    ]
    if "relative_error" in summary:
        overall.append(["relative error (1-J)/(1-J') against the reference", number(summary["relative_error"])])
    columns = ("corruption", "severities", *(f"J at {s}" for s in severities), "mean J", "half lost at")
    return [
        Table(f"Jaccard index at {MAIN_NM:g} nm; ! where the user was warned (clean: "
              f"{number(clean['jaccard_100'])})", columns, rows),
        Table("The suite as a whole", ("figure", "value"), overall),
    ]  # fmt: skip


def _figure(clean: dict[str, Any], points: list[dict[str, Any]]) -> Any:
    severities = sorted({p["severity"] for p in points})
    names = [corruption.name for corruption in CORRUPTIONS]
    jaccard = np.array([[_find(points, name, s)["jaccard_100"] for s in severities] for name in names])
    figure, axes = new_figure(2, width=4.6, height=6.4)
    ax = axes[0, 0]
    image = ax.imshow(jaccard, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for row, name in enumerate(names):
        for column, severity in enumerate(severities):
            point = _find(points, name, severity)
            mark = " !" if point["warned"] >= 0.5 else ""
            colour = "white" if point["jaccard_100"] < 0.6 else "black"
            text = f"{point['jaccard_100']:.2f}{mark}"
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    ax.set_xticks(range(len(severities)), [str(s) for s in severities])
    ax.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    ax.set(xlabel="severity", title=f"Jaccard index at {MAIN_NM:g} nm (! user warned)")
    figure.colorbar(image, ax=ax, shrink=0.5)
    ax = axes[0, 1]
    loss = clean["jaccard_100"] - jaccard.mean(axis=1)
    ax.barh(range(len(names)), loss, color=COLOURS["ours"])
    ax.set_yticks(range(len(names)), ["" for _ in names])
    ax.invert_yaxis()
    ax.set(xlabel="mean loss of Jaccard index", title="What costs most")
    return figure


def _find(points: list[dict[str, Any]], name: str, severity: int) -> dict[str, Any]:
    return next(p for p in points if (p["corruption"], p["severity"]) == (name, severity))


if __name__ == "__main__":
    run_as_program(main)
