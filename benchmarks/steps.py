"""How long the steps before and after the network take: looks at a movie, refinement, scoring, statistics, scenes.

Simulated molecules of 2000 photons. Medians of several runs, by the clock; the first run, in which loops are compiled,
does not count. What is refined, scored or linked is the truth with errors of a tenth of a pixel, so that no network has
a part in it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from _report import COLOURS, Table, make_parser, new_figure, number, parse, publish, run_as_program

from smlm_pb.simulation.presets import density_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.localizations import Localizations

PSF_SIGMA_PX, ERROR_PX = 1.1, 0.1
REFINED_DENSITIES = (0.25, 1.0, 6.0)
#: Molecules that are refined, and that are scored and counted.
REFINED, COUNTED = 10_000, 300_000
LOOKED_AT_PX, LOOKED_AT_FRAMES = 256, 200
SCENES, SCENE_PX = 200, 48


class Step(NamedTuple):
    """What is timed."""

    name: str
    unit: str
    amount: int
    work: Callable[[], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", model=False)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="the median of N counts (default: 5)")
    args = parse(parser, argv)
    share, repeats = (0.002, 1) if args.quick else (1.0, args.repeats)
    points = []
    for step in steps(share):
        step.work()
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            step.work()
            seconds.append(time.perf_counter() - began)
        median = statistics.median(seconds)
        spread = {"shortest": min(seconds), "longest": max(seconds), "per_second": step.amount / median}
        points.append({"step": step.name, "unit": step.unit, "amount": step.amount, "seconds": median, **spread})
    publish(
        "steps",
        args,
        tables=[_table(points)],
        results=points,
        settings={"psf_sigma_px": PSF_SIGMA_PX, "error_px": ERROR_PX, "repeats": repeats},
        figure=_figure(points),
    )
    return 0


def steps(share: float) -> Iterator[Step]:
    """The steps, one after the other, with that share of the usual amount."""
    from smlm_pb.analysis import link, nena
    from smlm_pb.evaluation import evaluate
    from smlm_pb.localization.estimate import estimate_background, estimate_psf_sigma
    from smlm_pb.refinement import refine
    from smlm_pb.simulation import simulate
    from smlm_pb.simulation.scene_settings import SceneSettings
    from smlm_pb.simulation.scenes import draw_scene

    rng = np.random.default_rng(0)
    side = LOOKED_AT_PX if share == 1 else 64
    recipe = density_sweep(1.0, frames=max(20, int(LOOKED_AT_FRAMES * share)), size_px=side)
    movie, _ = simulate(recipe, seed=1)
    yield Step(f"PSF width of a movie, {side}² px", "frames", len(movie), lambda: estimate_psf_sigma(movie))
    camera = recipe.camera.camera()
    yield Step(f"background, {side}² px", "frames", len(movie), lambda: estimate_background(movie, camera))
    for density in REFINED_DENSITIES:
        per_frame = density * 6.4**2
        recipe = density_sweep(density, frames=max(2, int(share * REFINED / per_frame)))
        movie, truth = simulate(recipe, seed=2)
        camera = recipe.camera.camera()
        electrons, found = camera.to_electrons(movie), _with_errors(truth, rng)
        noise = {"psf_sigma_px": PSF_SIGMA_PX, "read_variance_e2": camera.read_variance_e2}
        yield Step(
            f"refinement (auto), {density:g}/µm²",
            "molecules",
            len(found),
            lambda found=found, electrons=electrons, noise=noise: refine(found, electrons, mode="auto", **noise),  # type: ignore[misc]
        )
    truth = _molecules(max(3000, int(COUNTED * share)), rng)
    found = _with_errors(truth, rng)
    yield Step("scores", "molecules", len(found), lambda: evaluate(found, truth, tolerance_nm=(25.0, 50.0)))
    yield Step("precision from neighbours (NeNA)", "molecules", len(found), lambda: nena(found))
    yield Step("linking over frames", "molecules", len(found), lambda: link(found))
    settings, scenes = SceneSettings(), max(2, int(SCENES * share))

    def draw() -> None:
        for _ in range(scenes):
            draw_scene(rng, settings, SCENE_PX)

    yield Step(f"scenes for training, {SCENE_PX}² px", "scenes", scenes, draw)


def _molecules(n: int, rng: np.random.Generator) -> Localizations:
    """Molecules that stay on for two frames, ten in each frame of 64×64 px."""
    from smlm_pb.localizations import Localizations, MovieInfo

    half, frames = n // 2, max(2, n // 10)
    place, frame = rng.uniform(0, 63, (2, half)), rng.integers(0, frames - 1, half)
    columns = {
        "frame": np.concatenate((frame, frame + 1)).astype(np.uint32),
        **{axis: np.tile(values, 2).astype(np.float32) for axis, values in zip("xy", place, strict=True)},
        **{name: np.full(2 * half, value, np.float32) for name, value in (("photons", 2000.0), ("background", 50.0))},
        **{name: np.full(2 * half, ERROR_PX, np.float32) for name in ("sigma_x", "sigma_y")},
        "probability": np.ones(2 * half, np.float32),
    }
    order = np.argsort(columns["frame"], kind="stable")
    return Localizations({k: v[order] for k, v in columns.items()}, MovieInfo(frames, 64, 64, 100.0))


def _with_errors(truth: Localizations, rng: np.random.Generator) -> Localizations:
    moved = {axis: (truth[axis] + rng.normal(0, ERROR_PX, len(truth))).astype(np.float32) for axis in "xy"}
    sigma = {name: np.full(len(truth), ERROR_PX, np.float32) for name in ("sigma_x", "sigma_y")}
    return truth.with_columns(**moved, **sigma)


def _table(points: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            p["step"],
            f"{p['amount']} {p['unit']}",
            number(p["seconds"], 2),
            f"{number(p['shortest'], 2)} – {number(p['longest'], 2)}",
            f"{number(p['per_second'], 0)} {p['unit']}/s",
        ]
        for p in points
    ]
    return Table("Medians", ("step", "of", "seconds", "shortest – longest", "speed"), rows)


def _figure(points: Sequence[dict[str, Any]]) -> Figure:
    figure, axes = new_figure(1)
    names = [f"{p['step']}: {p['unit']}" for p in points]
    axes[0, 0].plot([p["per_second"] for p in points], names, "o", color=COLOURS["ours"])
    axes[0, 0].set(xscale="log", xlabel="per second")
    axes[0, 0].invert_yaxis()
    return figure


if __name__ == "__main__":
    run_as_program(main)
