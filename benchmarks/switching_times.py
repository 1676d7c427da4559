"""When molecules switch on and off, in fractions of a frame: error over brightness, three ways to read it.

Movies of 300 frames of 64×64 px with 40 molecules in random places that blink at random (on for 4 frames on average,
off for 80; rates of molecules differ by 20 %; PSF 1.1 px, background 20 e⁻/px, read noise 1.6 e⁻). The likelihood is
what ``smlm-pb link --sub-frame-times`` does; the ratio is the closed form; the network is a small 1-D one with the
continuous heatmap loss; the frame alone puts every switch into the middle of its frame. "Places known" measures on
linked tables as a perfect localizer would make them, "localized" on what the fast model finds and ``link`` joins. Rows
are judged whose frames are those of one true blink, to a frame; the share of the others, which linking tore apart or
joined or the movie cut, is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import _trace_net
import numpy as np
import numpy.typing as npt
from _kept import kept, origin
from _report import COLOURS, Table, make_parser, new_figure, number, parse, publish, run_as_program, spread

from smlm_pb.analysis import link
from smlm_pb.analysis.switching import ratio_times, switching_times
from smlm_pb.analysis.traces import measure_traces
from smlm_pb.camera import Camera
from smlm_pb.localization import localize
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation.blinking import Blinks, draw_blinks, light_per_frame
from smlm_pb.simulation.rendering import render_tiled

FloatArray = npt.NDArray[np.float64]

RATES = (250.0, 500.0, 1000.0, 2000.0, 4000.0)
GOAL_RATE, GOAL_FRAMES = 1000.0, 0.15
FRAMES, SIZE_PX, MOLECULES = 300, 64, 40
SIGMA_PX, BACKGROUND = 1.1, 20.0
CAMERA = Camera(offset_adu=100.0, e_per_adu=0.5, read_noise_e=1.6)
METHODS = {"likelihood": "likelihood", "ratio": "ratio", "network": "1-D network", "frame": "frame alone"}
SEED = 330_000


class Experiment(NamedTuple):
    """A movie and what is true of it."""

    movie: npt.NDArray[Any]
    x: FloatArray
    y: FloatArray
    blinks: Blinks
    flux: FloatArray


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse(make_parser(__doc__ or "", model=False, seeds=3), argv)
    rates = RATES[2:3] if args.quick else RATES
    frames = 80 if args.quick else FRAMES
    steps = 100 if args.quick else 1500
    runs = [
        run
        for seed in range(args.seeds)
        for rate in rates
        for run in kept(
            "switching_times",
            f"{seed}-{rate:.0f}-{frames}-{steps}-{origin('fast')}",
            partial(both, seed, rate, frames, steps),
        )
    ]
    publish(
        "switching_times",
        args,
        tables=[_table(runs, "places known", rates), _table(runs, "localized", rates)],
        results=[{k: v for k, v in run.items() if k != "errors"} for run in runs],
        settings={"seeds": args.seeds, "frames": frames, "molecules": MOLECULES, "rates": list(rates)},
        figure=_figure(runs, rates),
    )
    return 0


def both(seed: int, rate: float, frames: int, steps: int) -> list[dict[str, Any]]:
    """One movie, with places known and localized."""
    experiment = simulate(rate, frames, seed)
    found = localize(experiment.movie, model="fast", camera=CAMERA, psf_sigma_px=SIGMA_PX, pixel_size_nm=100)
    tables = {"places known": known_places(experiment, frames), "localized": link(found)}
    return [
        {"table": name, "rate": rate, "seed": seed, **measure(table, experiment, _network(seed, steps), frames)}
        for name, table in tables.items()
    ]


@cache
def _network(seed: int, steps: int) -> Any:
    return _trace_net.train(seed, steps=steps)


def simulate(rate: float, frames: int, seed: int) -> Experiment:
    """Molecules in random places that blink."""
    rng = np.random.default_rng([SEED, seed, int(rate)])
    x, y = rng.uniform(3, SIZE_PX - 4, (2, MOLECULES))
    blinks = draw_blinks(rng, MOLECULES, frames, on_frames=4.0, off_frames=80.0)
    flux = rate * rng.lognormal(-0.02, 0.2, blinks.start.size)
    lit = light_per_frame(blinks, flux, frames)
    movie = []
    for frame in range(frames):
        here = lit.frame == frame
        who = lit.molecule[here]
        expected = render_tiled(x[who], y[who], lit.light[here], np.full(len(who), SIGMA_PX), (SIZE_PX, SIZE_PX))
        movie.append(CAMERA.digitize(BACKGROUND + expected, rng))
    return Experiment(np.stack(movie), x, y, blinks, flux)


def known_places(experiment: Experiment, frames: int) -> Localizations:
    """One row per blink; frames in which less than a seventh of the light fell are missed."""
    blinks = experiment.blinks
    start, end = np.clip(blinks.start, 0, frames), np.clip(blinks.end, 0, frames)
    frame = np.arange(frames)
    seen = np.clip(np.minimum(end[:, None], frame + 1) - np.maximum(start[:, None], frame), 0, 1) > 1 / 7
    kept = seen.any(1)
    first, last = seen.argmax(1)[kept], frames - 1 - seen[:, ::-1].argmax(1)[kept]
    rng = np.random.default_rng([SEED, 1])
    who = blinks.molecule[kept]
    columns = {
        "frame": first,
        "x": experiment.x[who] + rng.normal(0, 0.08, len(who)),
        "y": experiment.y[who] + rng.normal(0, 0.08, len(who)),
        "photons": (experiment.flux * (end - start))[kept],
        "background": np.full(len(who), BACKGROUND),
        "on_frames": last - first + 1,
        "n_localizations": last - first + 1,
    }
    return Localizations(columns, MovieInfo(frames, SIZE_PX, SIZE_PX, 100.0))


def measure(linked: Localizations, experiment: Experiment, network: Any, frames: int) -> dict[str, Any]:
    """Errors of all methods on the rows that are one true blink, and both ends of which lie in the movie."""
    traces = measure_traces(linked, experiment.movie, camera=CAMERA, psf_sigma_px=SIGMA_PX)
    first = linked["frame"].astype(np.int64)
    last = first + linked["on_frames"].astype(np.int64) - 1
    times = switching_times(traces, first, last, n_frames=frames)
    estimates = {
        "likelihood": (times.on, times.off),
        "ratio": ratio_times(traces, first, last),
        "network": _trace_net.times_of(network, traces, first, last),
        "frame": (first + 0.5, last + 0.5),
    }
    row, blink = _pairs(linked, first, last, experiment, frames)
    truth = np.concatenate((experiment.blinks.start[blink], experiment.blinks.end[blink]))
    both = np.concatenate((row, row))
    errors = {}
    for method, (on, off) in estimates.items():
        errors[method] = np.concatenate((on[row], off[row])) - truth
    stated = np.concatenate((times.sigma_on[row], times.sigma_off[row]))
    pull = errors["likelihood"] / stated
    long = (last - first >= 2)[both]
    return {
        "rows": len(linked),
        "judged": len(row),
        "mean_error": {m: float(np.abs(e).mean()) for m, e in errors.items()},
        "median_error": {m: float(np.median(np.abs(e))) for m, e in errors.items()},
        "rms_error": {m: float(np.sqrt((e**2).mean())) for m, e in errors.items()},
        "mean_error_long": {m: float(np.abs(e[long]).mean()) for m, e in errors.items()},
        "pull": float(pull.std()),
        "robust_pull": float(1.4826 * np.median(np.abs(pull))),
        "within_1_sigma": float((np.abs(pull) < 1).mean()),
        "errors": {m: e.tolist() for m, e in errors.items()},
    }


def _pairs(
    linked: Localizations,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    experiment: Experiment,
    frames: int,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and the one true blink that each is: within half a pixel, and in its frames to one."""
    blinks = experiment.blinks
    distance = np.hypot(linked["x"][:, None] - experiment.x, linked["y"][:, None] - experiment.y)
    rows, found = [], []
    for row in range(len(linked)):
        who = int(distance[row].argmin())
        if distance[row, who] > 0.5:
            continue
        near = (blinks.molecule == who) & (blinks.start < last[row] + 1.5) & (blinks.end > first[row] - 0.5)
        if near.sum() != 1:
            continue
        blink = int(np.flatnonzero(near)[0])
        if abs(np.floor(blinks.start[blink]) - first[row]) > 1 or abs(np.floor(blinks.end[blink]) - last[row]) > 1:
            continue
        if blinks.start[blink] > 0.2 and blinks.end[blink] < frames - 0.2:
            rows.append(row)
            found.append(blink)
    return np.array(rows, np.intp), np.array(found, np.intp)


def _table(runs: list[dict[str, Any]], name: str, rates: Sequence[float]) -> Table:
    rows = []
    for rate in rates:
        mine = [run for run in runs if run["table"] == name and run["rate"] == rate]
        rows.append(
            [
                f"{rate:.0f}",
                str(sum(run["judged"] for run in mine)),
                number(100 * (1 - sum(run["judged"] for run in mine) / max(1, sum(run["rows"] for run in mine))), 0),
                *(spread([run["mean_error"][method] for run in mine]) for method in METHODS),
                number(float(np.mean([run["mean_error_long"]["likelihood"] for run in mine]))),
                spread([run["robust_pull"] for run in mine], 2),
            ]
        )
    columns = (
        "photons per frame",
        "blinks",
        "others (%)",
        *METHODS.values(),
        "likelihood, 3 frames and more",
        "error / stated (robust)",
    )
    title = (
        f"Mean error of a switching time in frames, {name}; goal: ≤ {GOAL_FRAMES} at {GOAL_RATE:.0f} photons per frame"
    )
    return Table(title, columns, rows)


def _figure(runs: list[dict[str, Any]], rates: Sequence[float]) -> Any:
    figure, axes = new_figure(2)
    colours = {"likelihood": "ours", "ratio": "other", "network": "other, second", "frame": "reference"}
    ax = axes[0, 0]
    for method in METHODS:
        for name, style in (("places known", "o-"), ("localized", "s:")):
            values = [
                [run["mean_error"][method] for run in runs if run["table"] == name and run["rate"] == rate]
                for rate in rates
            ]
            middle = [float(np.mean(v)) for v in values]
            ax.loglog(rates, middle, style, ms=4, color=COLOURS[colours[method]])
    ax.plot(GOAL_RATE, GOAL_FRAMES, "v", color=COLOURS["goal"], label="goal: below", ls="none")
    ax.set(xlabel="photons per frame", ylabel="mean error of a switching time (frames)")
    ax.set_xticks(rates, [f"{rate:.0f}" for rate in rates])
    ax.set_yticks((0.05, 0.1, 0.2, 0.4), ["0.05", "0.1", "0.2", "0.4"])
    ax.minorticks_off()
    ax.set_title("solid: places known, dotted: localized")
    ax.legend(fontsize=7, frameon=False, loc="lower left")
    ax = axes[0, 1]
    rate = GOAL_RATE if GOAL_RATE in rates else rates[0]
    for method, title in METHODS.items():
        errors = [run["errors"][method] for run in runs if run["table"] == "localized" and run["rate"] == rate]
        ax.hist(
            np.concatenate(errors), np.linspace(-1, 1, 61), histtype="step", color=COLOURS[colours[method]], label=title
        )
    ax.set(xlabel="error (frames)", ylabel="ends of blinks")
    ax.set_title(f"localized, {rate:.0f} photons per frame")
    ax.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    run_as_program(main)
