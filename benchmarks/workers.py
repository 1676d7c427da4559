"""What several processes gain: the same movie on one, two and more Dask workers of one machine.

Every worker has one thread. The workers are running and have opened the model before the clock starts; the time is that
of whole runs, from movie to table. A gain can only be seen where as many processor cores are free.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _report import COLOURS, Table, load, make_parser, new_figure, number, parse, publish, run_as_program
from _runs import write_movie

from smlm_pb.simulation.presets import density_sweep

WORKERS = (1, 2, 4)
DENSITY_PER_UM2 = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS), metavar="N", help="numbers of workers")
    parser.add_argument("--frames", type=int, default=1000, metavar="N", help="frames of 64×64 px (default: 1000)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="the median of N counts (default: 3)")
    args = parse(parser, argv)
    workers = (1, 2) if args.quick else sorted(set(args.workers))
    frames, size, repeats = (12, 32, 1) if args.quick else (args.frames, 64, args.repeats)
    os.environ["OMP_NUM_THREADS"] = "1"
    model = load(args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        from smlm_pb.simulation import simulate

        movie, _ = simulate(density_sweep(DENSITY_PER_UM2, frames=frames, size_px=size))
        path = write_movie(folder / "movie.tif", [movie])
        load_before = _load()
        seconds = {count: _time(path, folder / f"{count}", count, model, repeats, args.refine) for count in workers}
    publish(
        "workers",
        args,
        tables=[_table(seconds, frames)],
        results={"seconds": {str(n): s for n, s in seconds.items()}, "load_average_before": load_before},
        settings={"frames": frames, "frame_px": size, "molecules_per_um2": DENSITY_PER_UM2, "repeats": repeats,
                  "threads_per_worker": 1, "refine": args.refine},
        figure=_figure(seconds),
        model=model,
    )  # fmt: skip
    return 0


def _time(movie: Path, out: Path, workers: int, model: Any, repeats: int, refine: str) -> list[float]:
    from smlm_pb.localization import localize_to_file
    from smlm_pb.localization.cluster import Cluster

    options: dict[str, Any] = {
        "offset_adu": 100,
        "e_per_adu": 0.5,
        "psf_sigma_px": 1.1,
        "pixel_size_nm": 100,
        "refine": refine,
    }
    found = []
    with Cluster(workers=workers) as cluster, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(repeats + 1):  # the first one opens everything
            began = time.perf_counter()
            localize_to_file(movie, out, model=model, cluster=cluster, overwrite=True, **options)
            found.append(time.perf_counter() - began)
    return found[1:]


def _load() -> float | None:
    """Processes that wanted a processor in the last minute, before the benchmark began."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _table(seconds: dict[int, list[float]], frames: int) -> Table:
    least = statistics.median(seconds[min(seconds)])
    rows = [
        [
            str(count),
            number(statistics.median(values), 2),
            f"{number(min(values), 2)} – {number(max(values), 2)}",
            number(frames / statistics.median(values), 1),
            number(least / statistics.median(values), 2),
        ]
        for count, values in seconds.items()
    ]
    return Table("One movie on several workers", ("workers", "median (s)", "range (s)", "frames/s", "gain"), rows)


def _figure(seconds: dict[int, list[float]]) -> Any:
    figure, axes = new_figure(1, width=4.0, height=3.0)
    ax = axes[0, 0]
    counts = list(seconds)
    least = statistics.median(seconds[counts[0]])
    ax.plot(counts, [count / counts[0] for count in counts], color=COLOURS["goal"], label="ideal")
    gains = [least / statistics.median(seconds[count]) for count in counts]
    ax.plot(counts, gains, "o-", color=COLOURS["ours"], label="measured")
    ax.set_xticks(counts)
    ax.set(xlabel="workers of one thread", ylabel=f"gain over {counts[0]}", title="Dask workers")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run_as_program(main)
