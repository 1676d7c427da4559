"""A sparse movie that another program localized: how much of it is found again, and at the same places.

Made for Picasso's test movie (1000 frames of 32×32 px of 160 nm; MIT licence, github.com/jungmannlab/picasso) and the
table that Picasso made of it. The movie's values are photo-electrons: offset 0, 1 e⁻/ADU. There is no truth; what
both programs find agrees, or one of them misplaces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _report import COLOURS, Table, load, make_parser, new_figure, number, parse, publish, run_as_program
from _runs import localize

from smlm_pb.evaluation import check_conventions, match
from smlm_pb.localizations import Localizations, MovieInfo

MIN_PHOTONS = 1000.0
REACH_PX = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--movie", type=Path, required=True, metavar="TIF", help="the movie")
    parser.add_argument("--picasso-table", type=Path, required=True, metavar="FILE", help="what Picasso found in it")
    parser.add_argument("--offset-adu", type=float, default=0.0, help="camera offset (default: 0)")
    parser.add_argument("--e-per-adu", type=float, default=1.0, help="photo-electrons per ADU (default: 1)")
    parser.add_argument("--pixel-size-nm", type=float, default=160.0, help="pixel size (default: 160)")
    args = parse(parser, argv)
    from smlm_pb import open_movie

    movie = open_movie(args.movie)
    n_frames = min(movie.n_frames, 40) if args.quick else movie.n_frames
    model = load(args)
    run = localize(
        movie,
        model,
        offset_adu=args.offset_adu,
        e_per_adu=args.e_per_adu,
        pixel_size_nm=args.pixel_size_nm,
        frames=(0, n_frames),
    )
    info = MovieInfo(n_frames, movie.height, movie.width, args.pixel_size_nm, args.picasso_table.stem)
    picasso = Localizations.load(args.picasso_table)
    picasso = picasso.select((picasso["frame"] < n_frames) & (picasso["photons"] >= MIN_PHOTONS)).with_info(info)
    results = compare(run.molecules, picasso)
    results |= {
        "threshold": run.threshold,
        "psf_sigma_px": run.conditions["psf_sigma_px"],
        "background_e": run.conditions["background_e"],
        "frames_per_s": n_frames / run.seconds,
        "warnings": run.warnings,
    }
    dx, dy = results.pop("dx_px"), results.pop("dy_px")
    publish(
        "picasso_movie",
        args,
        tables=[_table(results)],
        results=results,
        settings={
            "offset_adu": args.offset_adu,
            "e_per_adu": args.e_per_adu,
            "pixel_size_nm": args.pixel_size_nm,
            "min_photons": MIN_PHOTONS,
            "movie": args.movie.name,
        },
        figure=_figure(dx, dy),
        model=model,
    )
    return 0


def compare(ours: Localizations, theirs: Localizations) -> dict[str, Any]:
    """Share of theirs that is found, and how far apart the two are; differences are ours minus theirs."""
    pixel = theirs.info.pixel_size_nm or float("nan")
    pairs = match(ours, theirs, REACH_PX * pixel)
    dx, dy = (ours[a][pairs.pred].astype(np.float64) - theirs[a][pairs.truth] for a in "xy")
    distance = np.hypot(dx, dy)
    convention = check_conventions(ours, theirs)
    stated = np.concatenate([ours["sigma_x"][pairs.pred], ours["sigma_y"][pairs.pred]])
    found = len(distance) > 0
    return {
        "picasso": len(theirs),
        "ours": len(ours),
        "found": len(distance) / len(theirs) if len(theirs) else None,
        "not_in_picasso": len(ours) - len(distance),
        "median_distance_px": float(np.median(distance)) if found else None,
        "p95_distance_px": float(np.quantile(distance, 0.95)) if found else None,
        "median_dx_px": float(np.median(dx)) if found else None,
        "median_dy_px": float(np.median(dy)) if found else None,
        "photon_ratio": float(np.median(ours["photons"][pairs.pred] / theirs["photons"][pairs.truth]))
        if found
        else None,
        "stated_sigma_px": float(np.median(stated)) if found else None,
        "convention": convention.message or "the same",
        "dx_px": dx,
        "dy_px": dy,
    }


def _table(results: dict[str, Any]) -> Table:
    share = results["found"]
    rows = [
        [f"Picasso's molecules of {MIN_PHOTONS:g} photons and more", str(results["picasso"]), ""],
        ["found", "–" if share is None else f"{100 * share:.1f} %", "≥ 97 %"],
        ["median distance (px)", number(results["median_distance_px"]), "< 0.1"],
        ["95 % closer than (px)", number(results["p95_distance_px"]), ""],
        [
            "median difference in x / y (px)",
            f"{number(results['median_dx_px'])} / {number(results['median_dy_px'])}",
            "no half pixel",
        ],
        ["photons, ours / Picasso's", number(results["photon_ratio"]), ""],
        ["median stated precision (px)", number(results["stated_sigma_px"]), ""],
        ["found by us, not in that table", str(results["not_in_picasso"]), ""],
    ]
    return Table("Picasso's test movie", ("", "measured", "goal"), rows)


def _figure(dx: np.ndarray, dy: np.ndarray) -> Any:
    figure, axes = new_figure(2)
    ax = axes[0, 0]
    ax.plot(dx, dy, ".", ms=3, color=COLOURS["ours"], alpha=0.5)
    ax.plot([-0.5, 0, 0.5], [-0.5, 0, 0.5], "+", ms=12, color=COLOURS["other"], ls="none", label="0 and ± half a pixel")
    ax.set(xlim=(-0.7, 0.7), ylim=(-0.7, 0.7), aspect="equal", xlabel="Δx (px)", ylabel="Δy (px)")
    ax.set_title("Ours minus Picasso's")
    ax.legend(frameon=False, loc="upper left", fontsize=8)
    ax = axes[0, 1]
    ax.hist(np.hypot(dx, dy), bins=np.linspace(0, 0.5, 51), color=COLOURS["ours"])
    ax.axvline(0.1, color=COLOURS["goal"], ls="--", label="goal for the median")
    ax.set(xlabel="distance (px)", ylabel="molecules", title="Distance")
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run_as_program(main)
