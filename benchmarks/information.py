"""What the pixels tell at most: positions under the exact likelihood, given the number of molecules, beside the models.

Positions are drawn from their posterior distribution by Markov chains that know the PSF, the background, the law of
the photons and how many molecules a frame has; no place is likelier than another beforehand. Their means over the
draws are what a method without knowledge of structures can hope for. With ``--movie`` and ``--truth`` of the stack that
``microtubules.py`` is for, crowded filaments are looked at too.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from _posterior import Known, consensus, draw
from _report import COLOURS, Table, make_parser, new_figure, number, parse, publish, run_as_program, spread
from _runs import bound_px, localize, seed_of
from microtubules import GOAL, read_truth

from smlm_pb.errors import ConfigurationError
from smlm_pb.evaluation import evaluate
from smlm_pb.localizations import Localizations
from smlm_pb.simulation.presets import density_sweep, isolated

if TYPE_CHECKING:
    from smlm_pb.localization import Model

TOLERANCES_NM = (25.0, 50.0, 100.0)
#: Photons, background (e⁻) and PSF width (px) of molecules that stand alone: where noise weighs most, and one beside.
ALONE = ((500.0, 200.0, 1.4), (500.0, 100.0, 1.4), (500.0, 200.0, 1.1), (2000.0, 50.0, 1.1))
CROWD_PER_UM2 = 6.0
READ_NOISE_E = 1.6
#: Sweeps before the first draw, between draws, and draws.
SWEEPS, EVERY, DRAWS = 1000, 50, 100


@dataclass(frozen=True)
class Scene:
    """Frames with known molecules, and what is known of them."""

    name: str
    electrons: npt.NDArray[np.float64]
    truth: Localizations
    known: Known
    #: What each model finds in them.
    found: dict[str, Localizations]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", model=False, seeds=3)
    parser.add_argument("--movie", type=Path, metavar="TIF", help="the stack")
    parser.add_argument("--truth", type=Path, metavar="CSV", help="the stack's molecules (ThunderSTORM columns)")
    parser.add_argument("--models", nargs="+", default=["default", "dense"], metavar="NAME|DIR", help="models beside")
    parser.add_argument("--frames", type=int, default=46, metavar="N", help="frames of the stack (default: 46)")
    args = parse(parser, argv)
    from smlm_pb.localization import load_model

    models = {Path(name).name: load_model(name, "cpu") for name in args.models}
    scenes = [_even_crowd(models, args)]
    if args.movie and args.truth:
        scenes.append(_stack(models, args))
    crowds = [row for scene in scenes for row in _crowd_rows(scene, args)]
    alone = [_alone(*condition, next(iter(models.values())), args) for condition in ALONE[: 1 if args.quick else None]]
    publish(
        "information",
        args,
        tables=[_crowd_table(crowds), _alone_table(alone, next(iter(models)))],
        results={"crowds": crowds, "alone": alone},
        settings={
            "seeds": args.seeds,
            "tolerances_nm": TOLERANCES_NM,
            **dict(zip(("sweeps", "every", "draws"), _length(args), strict=True)),
            "known": {scene.name: vars(scene.known) for scene in scenes},
        },
        figure=_figure(crowds),
    )
    return 0


def _even_crowd(models: dict[str, Model], args: argparse.Namespace) -> Scene:
    from smlm_pb.simulation import simulate

    recipe = density_sweep(CROWD_PER_UM2, frames=1 if args.quick else 12, size_px=24 if args.quick else 64)
    movie, truth = simulate(recipe, seed=seed_of(7, CROWD_PER_UM2))
    camera = recipe.camera.camera()
    photons = float(np.mean(truth["photons"]))
    told = {"camera": camera, "pixel_size_nm": recipe.pixel_size_nm, "psf_sigma_px": recipe.psf.sigma_px}
    return Scene(
        f"even, {CROWD_PER_UM2:g} per µm², 2000 photons",
        np.asarray(camera.to_electrons(movie), np.float64),
        truth,
        # All are alike: as good as constant, but free to move.
        Known(1.1, 50.0, READ_NOISE_E**2, (0.97 * photons, 1.03 * photons)),
        {name: localize(movie, model, **told).molecules for name, model in models.items()},
    )


def _stack(models: dict[str, Model], args: argparse.Namespace) -> Scene:
    from smlm_pb import open_movie

    movie = open_movie(args.movie)
    n_frames = min(movie.n_frames, 2) if args.quick else movie.n_frames
    truth = read_truth(args.truth, movie, n_frames, 100.0)
    frames = np.unique(np.linspace(0, n_frames - 1, min(args.frames, n_frames)).round().astype(int))
    options = {"offset_adu": 100.0, "pixel_size_nm": 100.0, "frames": (0, n_frames)}
    runs = {name: localize(movie, model, **options) for name, model in models.items()}
    told = next(iter(runs.values())).conditions
    pixels = np.concatenate([movie.read(int(k), int(k) + 1) for k in frames])
    electrons = (pixels.astype(np.float64) - 100.0) * told["camera"]["e_per_adu"]
    some = _only(truth, frames)
    sigma = float(told["psf_sigma_px"])
    return Scene(
        "filaments of the stack",
        electrons,
        some,
        Known(sigma, *light_of(electrons, some, sigma)),
        {name: _only(run.molecules, frames) for name, run in runs.items()},
    )


def _only(table: Localizations, frames: npt.NDArray[np.int_]) -> Localizations:
    """Molecules of some frames, which are counted anew."""
    chosen = table.select(np.isin(table["frame"], frames))
    return chosen.with_columns(frame=np.searchsorted(frames, chosen["frame"]))


def light_of(
    electrons: npt.NDArray[np.float64], truth: Localizations, sigma_px: float
) -> tuple[float, float, tuple[float, float]]:
    """Background, variance of the read noise, and photons between which molecules lie, given where they are.

    Weighted least squares frame by frame, with weights from a first fit: weights from the noisy pixels themselves
    prefer the dim ones. Of molecules whose photons are known to a tenth of the usual ones, mean and spread are taken;
    the law is even between two bounds.
    """
    from smlm_pb.localization.windows import profile

    levels, photons, variances = [], [], []
    for k, frame in enumerate(electrons):
        here = truth.select(truth["frame"] == k)
        rows, columns = (
            profile(here[axis][:, None].astype(np.float64) - np.arange(size), sigma_px)
            for axis, size in zip("yx", frame.shape, strict=True)
        )
        images = np.einsum("ni,nj->ijn", rows, columns).reshape(frame.size, -1)
        design = np.column_stack([images, np.ones(frame.size)])
        variance = np.full(frame.size, max(float(frame.mean()), 1.0))
        for _ in range(3):
            weighted = design / np.sqrt(variance)[:, None]
            fit = np.linalg.lstsq(weighted, frame.ravel() / np.sqrt(variance), rcond=None)[0]
            variance = np.maximum(design @ fit, 1.0)
        spread_of_fit = np.diag(np.linalg.pinv(weighted.T @ weighted))[:-1]
        sure = spread_of_fit < (0.1 * np.median(fit[:-1])) ** 2
        levels.append(fit[-1])
        photons.append(fit[:-1][sure])
        variances.append(spread_of_fit[sure])
    bright, noise = np.concatenate(photons), np.concatenate(variances)
    if not bright.size:
        raise ConfigurationError("No molecule of the stack stands where its photons can be measured to a tenth.")
    centre = float(np.mean(bright))
    half = float(np.sqrt(3 * max(float(np.var(bright) - np.mean(noise)), 1.0)))
    return float(np.median(levels)), 1.0, (max(centre - half, 0.0), centre + half)


def _crowd_rows(scene: Scene, args: argparse.Namespace) -> list[dict[str, Any]]:
    best = list(scene.found)[-1]
    one, mean = _posterior(scene, scene.truth, args)
    _, mean_of_found = _posterior(scene, scene.found[best], args)
    tables = {
        "one draw, true number": one,
        "mean of the posterior, true number": mean,
        f"mean of the posterior, number and start of `{best}`": mean_of_found,
        **{f"`{name}`": table for name, table in scene.found.items()},
    }
    return [{"scene": scene.name, "positions": name, **_score(table, scene)} for name, table in tables.items()]


def _posterior(scene: Scene, start: Localizations, args: argparse.Namespace) -> tuple[Localizations, Localizations]:
    """One draw of the posterior, and its mean."""
    sweeps, every, draws = _length(args)

    def one_frame(k: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        here = start.select(start["frame"] == k)
        at = np.column_stack([here["y"], here["x"]]).astype(np.float64)
        if not len(at):
            return at, at
        drawn = draw(scene.electrons[k], at, scene.known, sweeps=sweeps, every=every, draws=draws, seed=k)
        return drawn[-1], consensus(drawn)

    with ThreadPoolExecutor(args.threads or os.cpu_count()) as pool:
        frames = list(pool.map(one_frame, range(len(scene.electrons))))
    return _table([pair[0] for pair in frames], scene), _table([pair[1] for pair in frames], scene)


def _table(positions: list[npt.NDArray[np.float64]], scene: Scene) -> Localizations:
    at = np.concatenate(positions)
    frame = np.repeat(np.arange(len(positions)), [len(p) for p in positions])
    return Localizations({"frame": frame, "y": at[:, 0], "x": at[:, 1]}, scene.truth.info)


def _score(found: Localizations, scene: Scene) -> dict[str, Any]:
    """Jaccard indices of all frames, and the standard error that their scatter gives."""

    def jaccard(table: Localizations, truth: Localizations) -> list[float]:
        result = evaluate(table, truth, tolerance_nm=TOLERANCES_NM, chance=False, check=False)
        return [result.at(tolerance).jaccard for tolerance in TOLERANCES_NM]

    found = found.with_info(scene.truth.info)
    each = [
        jaccard(found.select(found["frame"] == k), scene.truth.select(scene.truth["frame"] == k))
        for k in range(len(scene.electrons))
    ]
    error = np.std(each, axis=0) / np.sqrt(max(1, len(each) - 1))
    return {
        "frames": len(each),
        "molecules": len(found),
        "truth": len(scene.truth),
        "jaccard": dict(zip(map(int, TOLERANCES_NM), jaccard(found, scene.truth), strict=True)),
        "standard_error": dict(zip(map(int, TOLERANCES_NM), error, strict=True)),
    }


def _alone(
    photons: float, background_e: float, width_px: float, model: Model, args: argparse.Namespace
) -> dict[str, Any]:
    """Root mean square error over the Cramér–Rao bound: of the posterior's mean, and of refined molecules."""
    from smlm_pb.evaluation import match
    from smlm_pb.simulation import simulate

    ratios: dict[str, list[float]] = {"posterior": [], "refined": []}
    for seed in range(args.seeds):
        recipe = isolated(photons, background_e, psf_sigma_px=width_px, frames=1 if args.quick else 60)
        movie, truth = simulate(recipe, seed=seed_of(8, photons, background_e, width_px, seed))
        camera = recipe.camera.camera()
        known = Known(width_px, background_e, READ_NOISE_E**2, (0.2 * photons, 2 * photons))
        electrons = np.asarray(camera.to_electrons(movie), np.float64)
        scene = Scene("", electrons, truth, known, {})
        run = localize(
            movie,
            model,
            camera=camera,
            pixel_size_nm=recipe.pixel_size_nm,
            psf_sigma_px=width_px,
            refine="auto",
        )
        smallest = bound_px(truth, photons, background_e, width_px, READ_NOISE_E)
        for name, table in (("posterior", _posterior(scene, truth, args)[1]), ("refined", run.molecules)):
            pairs = match(table, truth, 250.0)
            errors = [table.select(pairs.pred)[axis] - truth.select(pairs.truth)[axis] for axis in "xy"]
            some = len(pairs.pred) > 0
            ratios[name].append(float(np.sqrt(np.mean(np.square(errors)))) / smallest if some else float("nan"))
    return {"photons": photons, "background_e": background_e, "psf_sigma_px": width_px, **ratios}


def _length(args: argparse.Namespace) -> tuple[int, int, int]:
    return (20, 2, 10) if args.quick else (SWEEPS, EVERY, DRAWS)


def _crowd_table(rows: list[dict[str, Any]]) -> Table:
    cells = [
        [
            row["scene"],
            row["positions"],
            str(row["molecules"]),
            *(
                f"{number(row['jaccard'][tolerance])} ± {number(row['standard_error'][tolerance])}"
                for tolerance in map(int, TOLERANCES_NM)
            ),
        ]
        for row in rows
    ]
    truth = ", ".join(dict.fromkeys(f"{row['truth']} in {row['frames']} frames" for row in rows))
    columns = ("molecules", "positions", "number", *(f"J at {tolerance:g} nm" for tolerance in TOLERANCES_NM))
    return Table(f"Crowds ({truth}; ± from the scatter of frames)", columns, cells)


def _alone_table(points: list[dict[str, Any]], model: str) -> Table:
    return Table(
        "Molecules that stand alone: RMSE over the Cramér–Rao bound",
        ("photons, background (e⁻), PSF width (px)", "mean of the posterior", f"`{model}`, refined"),
        [
            [
                f"{p['photons']:g}, {p['background_e']:g}, {p['psf_sigma_px']:g}",
                spread(p["posterior"]),
                spread(p["refined"]),
            ]
            for p in points
        ],
    )


def _figure(rows: list[dict[str, Any]]) -> Any:
    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    figure, axes = new_figure(len(scenes), width=6.0)
    shades = {25: "ours, second", 50: "ours", 100: "goal"}
    for ax, scene in zip(axes[0], scenes, strict=True):
        mine = [row for row in rows if row["scene"] == scene]
        places = np.arange(len(mine))[::-1]
        for tolerance, colour in shades.items():
            value = [row["jaccard"][tolerance] for row in mine]
            error = [row["standard_error"][tolerance] for row in mine]
            ax.errorbar(value, places, xerr=error, fmt="o", color=COLOURS[colour], label=f"at {tolerance} nm")
            if tolerance in GOAL and scene != scenes[0]:
                ax.axvline(GOAL[tolerance], color=COLOURS[colour], ls=":", lw=1)
        ax.set_yticks(places, [row["positions"].replace("`", "").replace(", number", ",\nnumber") for row in mine])
        ax.set(xlim=(0, 1), xlabel="Jaccard index", title=scene)
    axes[0, 0].legend(frameon=False, loc="lower left")
    return figure


if __name__ == "__main__":
    run_as_program(main)
