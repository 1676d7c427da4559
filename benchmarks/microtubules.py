"""Third-party frames of crowded filaments with known molecules: the Jaccard index beside published ones and chance.

Made for the test stack of Deep-STORM's first demo (64×64 px of 100 nm, about 225 molecules per frame; MIT licence,
github.com/EliasNehme/Deep-STORM): give the TIFF stack and the table of its molecules. Only offset and pixel size are
told to the program; gain, background and PSF width are estimated from the movie. The model never saw these frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import COLOURS, Table, load, make_parser, new_figure, number, parse, publish, run_as_program
from _runs import localize, matched_errors, robust_deviation

from smlm_pb.evaluation import best_threshold, evaluate, reliability
from smlm_pb.localizations import Localizations, MovieInfo

if TYPE_CHECKING:
    from smlm_pb.movies import Movie

TOLERANCES_NM = (25.0, 50.0, 100.0)
#: Published or measured by others on the same kind of frames: J at 25 and at 50 nm.
OTHERS = {
    "Picasso 0.11.3, best of 9 settings": (0.116, 0.223),
    "SMAPpy 0.4, best setting": (0.121, 0.247),
    "Deep-STORM": (0.153, 0.416),
    "Upsampling": (0.171, 0.448),
    "Refinement": (0.195, 0.448),
    "continuous heatmaps, ACCV 2020": (0.221, 0.482),
    "continuous heatmaps, best λ": (0.234, 0.531),
}
GOAL = {25.0: 0.45, 50.0: 0.75}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--movie", type=Path, required=True, metavar="TIF", help="the stack")
    parser.add_argument("--truth", type=Path, required=True, metavar="CSV", help="the molecules (ThunderSTORM columns)")
    parser.add_argument("--offset-adu", type=float, default=100.0, help="camera offset (default: 100)")
    parser.add_argument("--pixel-size-nm", type=float, default=100.0, help="pixel size (default: 100)")
    args = parse(parser, argv)
    from smlm_pb import open_movie

    movie = open_movie(args.movie)
    n_frames = min(movie.n_frames, 2) if args.quick else movie.n_frames
    truth = read_truth(args.truth, movie, n_frames, args.pixel_size_nm)
    model = load(args)
    run = localize(
        movie,
        model,
        offset_adu=args.offset_adu,
        pixel_size_nm=args.pixel_size_nm,
        frames=(0, n_frames),
        refine=args.refine,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are in the notes too
        # The chance level rolls through the frames that were looked at.
        automatic = evaluate(run.molecules.with_info(truth.info), truth, tolerance_nm=TOLERANCES_NM)
    rows = [_at_tolerance(run, truth, automatic.at(tolerance), tolerance) for tolerance in TOLERANCES_NM]
    conditions = run.conditions
    facts = {
        "frames": n_frames,
        "molecules_true": len(truth),
        "molecules_found": len(run.molecules),
        "threshold": run.threshold,
        "expected_jaccard": run.expected_jaccard,
        "e_per_adu": conditions["camera"]["e_per_adu"],
        "psf_sigma_px": conditions["psf_sigma_px"],
        "background_e": conditions["background_e"],
        "origin": conditions["origin"],
        "frames_per_s": n_frames / run.seconds,
        "warnings": [*run.warnings, *automatic.notes],
    }
    publish(
        "microtubules",
        args,
        tables=_tables(rows, facts),
        results={"facts": facts, "tolerances": rows, "published": OTHERS},
        settings={"offset_adu": args.offset_adu, "pixel_size_nm": args.pixel_size_nm, "movie": args.movie.name},
        figure=_figure(rows),
        model=model,
    )
    return 0


def read_truth(path: Path, movie: Movie, n_frames: int, pixel_size_nm: float) -> Localizations:
    """Read the molecules of the first frames."""
    table = Localizations.load(path, pixel_size_nm=pixel_size_nm)
    info = MovieInfo(n_frames, movie.height, movie.width, pixel_size_nm, path.stem)
    return table.select(table["frame"] < n_frames).with_info(info)


def _at_tolerance(run: Any, truth: Localizations, entry: Any, tolerance: float) -> dict[str, Any]:
    sweep = best_threshold(run.candidates, truth, tolerance_nm=tolerance)
    errors = matched_errors(run.molecules, truth, tolerance)
    return {
        "tolerance_nm": tolerance,
        **{
            name: getattr(entry, name)
            for name in ("jaccard", "precision", "recall", "chance_jaccard", "skill", "rmse_x_nm", "rmse_y_nm")
        },
        "bias_x_nm": entry.bias_x_nm,
        "bias_y_nm": entry.bias_y_nm,
        "best_jaccard": sweep.best_jaccard,
        "best_threshold": sweep.best,
        "plateau": sweep.plateau,
        "pull": float(np.std(errors.pull)) if errors.pull.size else None,
        "robust_pull": robust_deviation(errors.pull),
        "calibration_error": reliability(run.candidates, truth, tolerance_nm=tolerance).expected_calibration_error,
        "sweep": {"threshold": sweep.threshold, "jaccard": sweep.jaccard, "expected": sweep.expected_jaccard},
    }


def _tables(rows: list[dict[str, Any]], facts: dict[str, Any]) -> list[Table]:
    title = (
        f"Microtubules: {facts['molecules_found']} found of {facts['molecules_true']} in {facts['frames']} frames;"
        f" estimated {number(facts['e_per_adu'])} e⁻/ADU, σ = {number(facts['psf_sigma_px'], 2)} px,"
        f" background {number(facts['background_e'], 0)} e⁻"
    )
    columns = (
        "tolerance (nm)",
        "J",
        "automatic threshold",
        "best J",
        "best threshold",
        "chance J",
        "precision",
        "recall",
        "sd of error/σ",
        "goal",
    )
    ours = [
        [
            f"{row['tolerance_nm']:g}",
            number(row["jaccard"]),
            number(facts["threshold"], 2),
            number(row["best_jaccard"]),
            number(row["best_threshold"], 2),
            number(row["chance_jaccard"]),
            number(row["precision"]),
            number(row["recall"]),
            number(row["pull"], 2),
            number(GOAL.get(row["tolerance_nm"])),
        ]
        for row in rows
    ]
    by_tolerance = {row["tolerance_nm"]: row for row in rows}
    comparison = [[name, number(j25), number(j50)] for name, (j25, j50) in OTHERS.items()]
    comparison.append(["smlm-pb", number(by_tolerance[25.0]["jaccard"]), number(by_tolerance[50.0]["jaccard"])])
    comparison.insert(0, ["chance", *(number(by_tolerance[tolerance]["chance_jaccard"]) for tolerance in (25.0, 50.0))])
    return [
        Table(title, columns, ours),
        Table("Beside others on these frames", ("method", "J at 25 nm", "J at 50 nm"), comparison),
    ]


def _figure(rows: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(2)
    ax = axes[0, 0]
    names = [*OTHERS, "smlm-pb"]
    ours = tuple(next(row["jaccard"] for row in rows if row["tolerance_nm"] == tolerance) for tolerance in (25, 50))
    for offset, tolerance, key in ((0.2, 0, "second"), (-0.2, 1, "")):
        values = [*(OTHERS[name][tolerance] for name in OTHERS), ours[tolerance]]
        suffix = f", {key}" if key else ""
        colours = [COLOURS[f"other{suffix}"]] * len(OTHERS) + [COLOURS[f"ours{suffix}"]]
        places = np.arange(len(names)) + offset
        ax.barh(places, values, height=0.38, color=colours)
        for place, value in zip(places, values, strict=True):
            ax.text(value + 0.01, place, f"{value:.2f}", va="center", fontsize=7)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(0, 1), xlabel="Jaccard index", title="At 25 nm (light) and 50 nm (dark)")
    ax = axes[0, 1]
    shades = ("ours, second", "ours", "goal")
    for row, colour in zip(rows, shades, strict=True):
        sweep = row["sweep"]
        ax.plot(sweep["threshold"], sweep["jaccard"], color=COLOURS[colour], label=f"{row['tolerance_nm']:g} nm")
        ax.axhline(row["chance_jaccard"], color=COLOURS[colour], lw=0.8, ls=":")
    ax.plot(sweep["threshold"], sweep["expected"], color="k", ls="--", lw=1, label="promised without truth")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="threshold", ylabel="Jaccard index", title="Threshold (dotted: chance)")
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run_as_program(main)
