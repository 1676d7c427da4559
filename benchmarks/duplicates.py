"""Molecules that are listed several times: one row is to be left of each, and neighbours are to be spared.

First on lists whose truth is known: lone molecules and pairs 30 nm apart, precision 5 nm, each listed two to five
times.
The copies share part of their error, because they come from the same photons; the rest, the jitter, is their own.
Then on movies: the tables of three shipped models, merged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import COLOURS, Table, make_parser, mean, new_figure, number, parse, publish, run_as_program, spread
from _runs import localize, seed_of

from smlm_pb.analysis.duplicates import find_survivors, merge_tables, remove_within
from smlm_pb.evaluation import evaluate
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.refinement.second_stage import load_stage
from smlm_pb.simulation.presets import density_sweep

if TYPE_CHECKING:
    from smlm_pb.refinement.second_stage import Stage

SIGMA_NM, APART_NM, PIXEL_NM = 5.0, 30.0, 100.0
JITTERS = (0.25, 0.5, 0.7, 1.0)
COPIES = (2, 3, 5)
#: What the table tells: positions and precisions only, photons and probabilities too, and which list a row is from.
TOLD = ("positions", "photons", "lists")
MODELS = ("default", "dense", "fast")
DENSITIES = (1.0, 4.0)
FRAMES = {1.0: 40, 4.0: 15}
TOLERANCE_NM = 100.0
RADII_NM = (10.0, 20.0, 30.0)
MEASURES = ("one_left", "both_kept", "exactly_two_left")
GOAL_ONE, GOAL_BOTH = 0.99, 0.95
Keep = Callable[[Localizations], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", model=False, seeds=3)
    parser.add_argument("--stage", default="duplicates", metavar="DIR", help="the network (default: the shipped one)")
    args = parse(parser, argv)
    stage = load_stage(args.stage, "duplicates")
    jitters, copies = ((0.25,), (2,)) if args.quick else (JITTERS, COPIES)
    lists = [
        {"jitter": jitter, "copies": k, "told": told, **_lists(stage, jitter, k, told, args)}
        for told in TOLD
        for k in copies
        for jitter in jitters
    ]
    movies = [_movies(stage, density, args) for density in (DENSITIES[:1] if args.quick else DENSITIES)]
    publish(
        "duplicates",
        args,
        tables=_tables(lists, movies),
        results={"lists": lists, "movies": movies, "stage": stage.card.training},
        settings={
            "sigma_nm": SIGMA_NM,
            "apart_nm": APART_NM,
            "tolerance_nm": TOLERANCE_NM,
            "seeds": args.seeds,
        },
        figure=_figure(lists, movies),
    )
    return 0


def draw_lists(jitter: float, copies: int, told: str, seed: int, n: int) -> tuple[Localizations, Any, Any]:
    """Lone molecules and pairs, each listed ``copies`` times.

    Returns
    -------
    table, molecule, partner
        The rows, the molecule of each, and for each molecule its neighbour or −1.
    """
    rng = np.random.default_rng([seed, copies, round(1000 * jitter)])
    side, spacing = 20, 3.0
    sites = 2 * n
    frame = np.arange(sites) // side**2
    place = np.arange(sites) % side**2
    x, y = spacing * (1 + place % side), spacing * (1 + place // side)
    x, y = x + rng.uniform(-0.5, 0.5, sites), y + rng.uniform(-0.5, 0.5, sites)
    angle = rng.uniform(0, 2 * np.pi, n)
    pair = np.arange(n) * 2  # every second place has a neighbour
    apart = APART_NM / PIXEL_NM
    x, y = (np.concatenate((v, v[pair] + apart * turn(angle))) for v, turn in ((x, np.cos), (y, np.sin)))
    frame = np.concatenate((frame, frame[pair]))
    partner = np.full(len(x), -1)
    partner[pair], partner[sites:] = np.arange(sites, sites + n), pair
    sigma = SIGMA_NM / PIXEL_NM
    molecule = np.repeat(np.arange(len(x)), copies)
    common = rng.normal(size=(2, len(x))) * sigma * np.sqrt(1 - jitter**2)
    own = rng.normal(size=(2, len(molecule))) * sigma * jitter
    columns = {
        "frame": frame[molecule],
        "x": x[molecule] + common[0][molecule] + own[0],
        "y": y[molecule] + common[1][molecule] + own[1],
        "photons": np.repeat(1000 * rng.lognormal(0, 0.4, len(x)), copies) * rng.lognormal(0, 0.05, len(molecule)),
        "sigma_x": np.full(len(molecule), sigma),
        "sigma_y": np.full(len(molecule), sigma),
        "probability": rng.uniform(0.7, 1.0, len(molecule)),
    }
    if told == "positions":
        del columns["photons"], columns["probability"]
    if told == "lists":
        columns["source"] = np.tile(np.arange(copies), len(x)).astype(np.int32)
    order = rng.permutation(len(molecule))
    info = MovieInfo(int(frame.max()) + 1, 70, 70, PIXEL_NM)
    return Localizations({k: v[order] for k, v in columns.items()}, info), molecule[order], partner


def _rules(stage: Stage) -> dict[str, Keep]:
    def learned(table: Localizations) -> Any:
        return find_survivors(table, table["sigma_x"].astype(np.float64), stage)[0]

    def within(radius_nm: float) -> Keep:
        return lambda table: remove_within(table, radius_nm / PIXEL_NM, better=_preference(table))

    return {"learned": learned, **{f"within {radius:g} nm": within(radius) for radius in RADII_NM}}


def _preference(table: Localizations) -> Any:
    return table["probability"].astype(np.float64) if "probability" in table else np.zeros(len(table))


def _lists(stage: Stage, jitter: float, copies: int, told: str, args: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, rule in _rules(stage).items():
        one, both, exact = [], [], []
        for seed in range(args.seeds):
            table, molecule, partner = draw_lists(jitter, copies, told, seed, 40 if args.quick else 600)
            left = np.bincount(molecule[rule(table)], minlength=len(partner))
            lone = partner < 0
            first = np.flatnonzero(~lone & (np.arange(len(partner)) < partner))
            one.append(float(np.mean(left[lone] == 1)))
            both.append(float(np.mean((left[first] > 0) & (left[partner[first]] > 0))))
            exact.append(float(np.mean((left[first] == 1) & (left[partner[first]] == 1))))
        found[name] = {"one_left": one, "both_kept": both, "exactly_two_left": exact}
    return found


def _movies(stage: Stage, density: float, args: Any) -> dict[str, Any]:
    import smlm_pb
    from smlm_pb.localization import load_model

    recipe = density_sweep(density)
    found: dict[str, list[float]] = {}
    for seed in range(args.seeds):
        size, frames = (32, 3) if args.quick else (64, FRAMES[density])
        movie, truth = smlm_pb.simulate(
            density_sweep(density, frames=frames, size_px=size), seed=seed_of(17, density, seed)
        )
        tables = []
        for name in MODELS:
            run = localize(
                movie,
                load_model(name, "cpu"),
                camera=recipe.camera.camera(),
                pixel_size_nm=PIXEL_NM,
                psf_sigma_px=1.1,
            )
            tables.append(run.molecules)
            found.setdefault(f"{name} alone", []).append(_jaccard(run.molecules, truth))
        merged = merge_tables(tables)
        found.setdefault("merged, as they are", []).append(_jaccard(merged, truth))
        better = merged["probability"].astype(np.float64)
        for radius in (25.0, 50.0, 100.0):
            kept = merged.select(remove_within(merged, radius / PIXEL_NM, better=better))
            found.setdefault(f"merged, within {radius:g} nm", []).append(_jaccard(kept, truth))
        sigma = np.hypot(merged["sigma_x"], merged["sigma_y"]).astype(np.float64) / np.sqrt(2)
        keep, stands_for = find_survivors(merged, sigma, stage)
        found.setdefault("merged, learned", []).append(_jaccard(merged.select(keep), truth))
        copies = np.bincount(stands_for, minlength=len(merged))
        twice = merged.select(keep & (copies > 1))
        found.setdefault("merged, learned, listed twice or more", []).append(_jaccard(twice, truth))
    return {"density_per_um2": density, "jaccard": found}


def _jaccard(locs: Localizations, truth: Localizations) -> float:
    score = evaluate(locs, truth, tolerance_nm=TOLERANCE_NM, chance=False, check=False).at(TOLERANCE_NM)
    return float(score.jaccard)


def _tables(lists: list[dict[str, Any]], movies: list[dict[str, Any]]) -> list[Table]:
    rules = [name for name in lists[0] if isinstance(lists[0][name], dict)]
    rows = [
        [
            case["told"],
            f"{case['copies']}",
            f"{case['jitter']:g}",
            *(" / ".join(f"{100 * mean(case[name][what]):.1f}" for what in MEASURES) for name in rules),
        ]
        for case in lists
    ]
    names = list(movies[0]["jaccard"])
    return [
        Table(
            f"Lone molecules with one row left / pairs {APART_NM:g} nm apart of which both are kept / with exactly two "
            f"rows left, % (precision {SIGMA_NM:g} nm; goals {100 * GOAL_ONE:g} / {100 * GOAL_BOTH:g})",
            ("told", "copies", "jitter (σ)", *rules),
            rows,
        ),
        Table(
            f"Jaccard index at {TOLERANCE_NM:g} nm of the tables of three models, merged",
            ("table", *(f"{point['density_per_um2']:g} molecules/µm²" for point in movies)),
            [[name, *(spread(point["jaccard"][name]) for point in movies)] for name in names],
        ),
    ]


def _figure(lists: list[dict[str, Any]], movies: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(3)
    rules = [name for name in lists[0] if isinstance(lists[0][name], dict)]
    colours = [COLOURS[name] for name in ("ours", "other", "other, second", "reference")]
    some = [case for case in lists if case["copies"] == 3 or len(lists) < 4]
    for ax, what, goal, title in (
        (axes[0, 0], "one_left", GOAL_ONE, "Lone molecules listed three times"),
        (axes[0, 1], "both_kept", GOAL_BOTH, f"Pairs {APART_NM:g} nm apart, σ {SIGMA_NM:g} nm"),
    ):
        for name, colour in zip(rules, colours, strict=True):
            for told, style in zip(TOLD, ("o:", "o-", "o--"), strict=True):
                points = [(c["jitter"], 100 * mean(c[name][what])) for c in some if c["told"] == told]
                if points and (name == "learned" or told == "photons"):
                    label = f"learned, told {told}" if name == "learned" else name
                    ax.plot(*zip(*points, strict=True), style, color=colour, label=label)
        ax.axhline(100 * goal, color=COLOURS["goal"], ls="--", lw=1)
        ax.set(xlabel="jitter of the copies (in σ)", ylim=(0, 102), title=title)
    axes[0, 0].set_ylabel("exactly one row left (%)")
    axes[0, 1].set_ylabel("both kept (%)")
    axes[0, 0].legend(frameon=False)
    ax = axes[0, 2]
    names = list(movies[0]["jaccard"])
    width = 0.8 / len(movies)
    for number_, point in enumerate(movies):
        values = [mean(point["jaccard"][name]) for name in names]
        ax.barh(
            np.arange(len(names)) + width * number_,
            values,
            width,
            color=list(COLOURS.values())[number_],
            label=f"{number(point['density_per_um2'], 0)} per µm²",
        )
    ax.set_yticks(np.arange(len(names)) + 0.2, names)
    ax.invert_yaxis()
    ax.set(xlabel=f"Jaccard index at {TOLERANCE_NM:g} nm", title="Tables of three models")
    ax.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.61))
    return figure


if __name__ == "__main__":
    run_as_program(main)
