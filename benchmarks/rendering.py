"""Time and memory of drawing the super-resolved image, over the number of molecules.

Precisions from 5 to 30 nm, drawn on pixels of 10 nm over 256×256 camera pixels of 100 nm: an image of 2560×2560. Every
figure comes from a process of its own: time is processor time over all threads, memory the peak of the whole process,
the table of molecules (eight columns) included.

The last row is the command ``smlm-pb render`` on a Picasso file of seven columns (2.8 GB for 10⁸ molecules), which it
reads in parts: start of the program, reading and writing of the picture included.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import COLOURS, Table, make_parser, new_figure, number, parse, publish, run_as_program

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (100_000, 1_000_000, 10_000_000)
WAYS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "blur": {"method": "blur", "blur_nm": 10.0},
    "histogram": {"method": "histogram"},
    "gaussian, coloured by frame": {"colour_by": "frame"},
}
STREAMED = "file, gaussian"
STREAMED_SIZES = (1_000_000, 10_000_000, 100_000_000)
SIZE_PX, N_FRAMES = 256, 50_000
GOAL_SECONDS, GOAL_GB = 10.0, 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse(make_parser(__doc__ or "", model=False), argv)
    sizes = (1000, 5000) if args.quick else SIZES
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=None if args.quick else 1) as pool:
        jobs = [(way, n, pool.submit(measure, way, n)) for way in WAYS for n in sizes]
        points = [{"way": way, "molecules": n, **job.result()} for way, n, job in jobs]
    streamed = (3000,) if args.quick else STREAMED_SIZES
    points += [{"way": STREAMED, "molecules": n, **measure_file(n)} for n in streamed]
    publish(
        "rendering",
        args,
        tables=[_table(points, sorted({*sizes, *streamed}))],
        results=points,
        settings={"camera_pixels": SIZE_PX, "pixel_size_nm": 10, "sigma_nm": [5, 30]},
        figure=_figure(points),
    )
    return 0


def measure(way: str, n: int) -> dict[str, float]:
    """Processor seconds of drawing, and the peak memory of the process."""
    from smlm_pb.analysis import render
    from smlm_pb.localizations import Localizations, MovieInfo

    rng = np.random.default_rng(0)

    def uniform(low: float, high: float) -> np.ndarray:
        return rng.random(n, dtype=np.float32) * np.float32(high - low) + np.float32(low)

    columns = {
        "frame": rng.integers(0, N_FRAMES, n, dtype=np.uint32),
        "x": uniform(0, SIZE_PX - 1),
        "y": uniform(0, SIZE_PX - 1),
        "photons": uniform(100, 1000),
        "background": uniform(1, 3),
        "sigma_x": uniform(0.05, 0.3),
        "sigma_y": uniform(0.05, 0.3),
        "probability": uniform(0, 1),
    }
    locs = Localizations(columns, MovieInfo(N_FRAMES, SIZE_PX, SIZE_PX, 100.0))
    began, began_wall = time.process_time(), time.perf_counter()
    image = render(locs, **WAYS[way]).image
    seconds, wall = time.process_time() - began, time.perf_counter() - began_wall
    # Linux counts in kB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "wall_seconds": wall, "peak_gb": peak / 1e9, "sum": float(image.sum(dtype=np.float64))}


def measure_file(n: int, block: int = 1 << 20) -> dict[str, float]:
    """Processor seconds and peak memory of the command on a file of ``n`` molecules, which is made block by block."""
    import h5py

    rng = np.random.default_rng(0)
    names = ("frame", "x", "y", "photons", "bg", "lpx", "lpy")
    dtype = np.dtype([(name, "u4" if name == "frame" else "f4") for name in names])
    movie = {"Width": SIZE_PX, "Height": SIZE_PX, "Frames": N_FRAMES, "Pixelsize": 100.0}
    ranges = {"x": SIZE_PX - 1, "y": SIZE_PX - 1, "photons": 1000.0, "bg": 3.0}
    with tempfile.TemporaryDirectory() as folder:
        source, picture = Path(folder) / "many_locs.hdf5", Path(folder) / "many.png"
        with h5py.File(source, "w") as file:
            file["metadata"] = json.dumps([movie])
            locs = file.create_dataset("locs", (n,), dtype)
            for start in range(0, n, block):
                rows = np.empty(min(block, n - start), dtype)
                rows["frame"] = (start + np.arange(len(rows))) * N_FRAMES // n
                for name, high in ranges.items():
                    rows[name] = rng.random(len(rows), dtype=np.float32) * np.float32(high)
                for name in ("lpx", "lpy"):
                    rows[name] = rng.random(len(rows), dtype=np.float32) * np.float32(0.25) + np.float32(0.05)
                locs[start : start + len(rows)] = rows
        began = time.perf_counter()
        command = [sys.executable, "-m", "smlm_pb.cli.main", "render", str(source), "--out", str(picture), "--quiet"]
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # waited for behind its back
        wall = time.perf_counter() - began
        if status or not picture.exists():
            raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": usage.ru_utime + usage.ru_stime, "wall_seconds": wall, "peak_gb": peak / 1e9}


def _table(points: Sequence[dict[str, Any]], sizes: Sequence[int]) -> Table:
    rows = []
    for way in (*WAYS, STREAMED):
        own = {p["molecules"]: p for p in points if p["way"] == way}
        cells = [
            f"{number(own[n]['seconds'], 2)} s, {number(own[n]['peak_gb'], 2)} GB" if n in own else "" for n in sizes
        ]
        rows.append([way, *cells])
    title = "Processor time and peak memory; the goal for 10⁷ molecules is 10 s on two cores and 1 GB."
    return Table(title, ("method", *(f"{n:,} molecules".replace(",", " ") for n in sizes)), rows)


def _figure(points: Sequence[dict[str, Any]]) -> Figure:
    figure, axes = new_figure(2)
    roles = ("ours", "ours, second", "other", "other, second", "reference")
    for way, colour in zip((*WAYS, STREAMED), roles, strict=True):
        own = [p for p in points if p["way"] == way]
        molecules = [p["molecules"] for p in own]
        axes[0, 0].plot(molecules, [p["seconds"] for p in own], "o-", color=COLOURS[colour], label=way)
        axes[0, 1].plot(molecules, [p["peak_gb"] for p in own], "o-", color=COLOURS[colour])
    axes[0, 0].axhline(GOAL_SECONDS, color=COLOURS["goal"], linestyle=":", label="goal for 10⁷")
    axes[0, 1].axhline(GOAL_GB, color=COLOURS["goal"], linestyle=":")
    axes[0, 0].set(xscale="log", yscale="log", xlabel="molecules", ylabel="processor time (s)")
    axes[0, 1].set(xscale="log", xlabel="molecules", ylabel="peak memory (GB)", ylim=(0, None))
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    run_as_program(main)
