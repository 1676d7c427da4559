"""Time and memory of the training losses, forward and backward, over the size of the image.

Two candidates per pixel, 0.02 molecules per pixel (2 per µm² at 100-nm pixels), kernel width 0.3 px. Every figure comes
from a process of its own: time is the processor time of the fastest of several runs, over all threads, which other work
on the machine disturbs little; memory is the peak above what the process held before.
"""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _report import COLOURS, Table, make_parser, new_figure, number, parse, publish, run_as_program

if TYPE_CHECKING:
    from torch import Tensor

SIZES_PX = (64, 128, 256, 512, 1024)
LOSSES = {
    "matching": "continuous heatmap matching",
    "published": "the same, published form",
    "frame": "count per frame",
    "tile": "count per tile of 8 px",
    "together": "matching and both counts",
}
CANDIDATES = 2
DENSITY_PER_PX2 = 0.02
BANDWIDTH_PX = 0.3
REACH_PX = 0.6
MAX_SIGMA_PX = 0.4
TOLERANCE = 1e-4
TILE_PX = 8
GOAL_SLOPE = 1.1
GOAL_MB = 1500.0
GOAL_SIZE_PX = 512
_MB = 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", model=False)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="the fastest of N counts (default: 5)")
    args = parse(parser, argv)
    sizes, repeats = ((32, 64), 1) if args.quick else (SIZES_PX, args.repeats)
    jobs = [(loss, size) for loss in LOSSES for size in sizes]
    # A fresh process for each, because a process seldom gives memory back. A trial run does not care.
    per_process = None if args.quick else 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=per_process) as pool:
        measured = [pool.submit(measure, *job, repeats, args.threads) for job in jobs]
        points = [
            {"loss": loss, "size_px": size, **done.result()} for (loss, size), done in zip(jobs, measured, strict=True)
        ]
    slopes = {loss: slope([p for p in points if p["loss"] == loss]) for loss in LOSSES}
    publish(
        "losses",
        args,
        tables=[_table(points, slopes, sizes)],
        results={"points": points, "slopes": slopes},
        settings={
            "candidates_per_pixel": CANDIDATES,
            "density_per_px2": DENSITY_PER_PX2,
            "bandwidth_px": BANDWIDTH_PX,
            "reach_px": REACH_PX,
            "largest_sigma_px": MAX_SIGMA_PX,
            "stencil_tolerance": TOLERANCE,
            "tile_px": TILE_PX,
            "repeats": repeats,
        },
        figure=_figure(points),
    )
    return 0


def measure(loss: str, size_px: int, repeats: int, threads: int | None) -> dict[str, float]:
    """Seconds and bytes of one loss on one image.

    Parameters
    ----------
    loss : str
        Key of :data:`LOSSES`.
    size_px : int
        Side of the image.
    repeats : int
        How often it is run.
    threads : int, optional
        Processor threads; None leaves torch's choice.

    Returns
    -------
    dict
        Processor ``seconds`` of the fastest run, ``peak_bytes`` above what was held before inputs were made, and the
        ``value`` of the loss.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    make_loss(loss, 16)()
    gc.collect()
    _forget_peak()
    before = _memory("VmRSS")
    run = make_loss(loss, size_px)
    seconds = []
    value = 0.0
    for _ in range(repeats):
        began = time.process_time()
        value = run()
        seconds.append(time.process_time() - began)
    return {"seconds": min(seconds), "peak_bytes": _memory("VmHWM") - before, "value": value}


def make_loss(loss: str, size_px: int) -> Callable[[], float]:
    """Random candidates and molecules, and a function that runs the loss forward and backward."""
    import torch

    generator = torch.Generator().manual_seed(size_px)
    shape = (1, CANDIDATES, size_px, size_px)
    logit = (torch.randn(*shape, generator=generator) - 4.5).requires_grad_()
    offset = REACH_PX * (2 * torch.rand(1, CANDIDATES, 2, size_px, size_px, generator=generator) - 1)
    variance = (MAX_SIGMA_PX * torch.rand(*offset.shape, generator=generator)) ** 2
    truth = torch.rand(math.ceil(DENSITY_PER_PX2 * size_px**2), 2, generator=generator) * size_px - 0.5
    item = torch.zeros(len(truth), dtype=torch.long)
    leaves = [logit, offset.requires_grad_(), variance.requires_grad_()]
    terms = ("matching", "frame", "tile") if loss == "together" else (loss,)

    def run() -> float:
        for leaf in leaves:
            leaf.grad = None
        total = sum(_term(term, logit, offset, variance, truth, item) for term in terms)
        assert isinstance(total, torch.Tensor)
        total.backward()
        return float(total.detach())

    return run


def _term(name: str, logit: Tensor, offset: Tensor, variance: Tensor, truth: Tensor, item: Tensor) -> Tensor:
    import torch

    from smlm_pb.losses import (
        count_negative_log_likelihood,
        heatmap_matching_grid,
        stencil_radius,
        tile_counts,
    )

    if name == "frame":
        return count_negative_log_likelihood(logit.flatten(1), torch.tensor([len(truth)])).sum()
    if name == "tile":
        return count_negative_log_likelihood(*tile_counts(logit, truth[:, 0], truth[:, 1], item, TILE_PX)).sum()
    uncertain = name == "matching"
    radius = stencil_radius(
        BANDWIDTH_PX, max_sigma=MAX_SIGMA_PX if uncertain else 0.0, reach=REACH_PX, tolerance=TOLERANCE
    )
    terms = heatmap_matching_grid(
        offset,
        torch.sigmoid(logit),
        truth,
        item,
        bandwidth=BANDWIDTH_PX,
        variance=variance if uncertain else None,
        radius=radius,
    )
    return terms.total.sum()


def slope(points: Sequence[dict[str, Any]]) -> float:
    """Slope of log time over log pixels, by least squares; 1 is linear."""
    pixels = [p["size_px"] ** 2 for p in points]
    return float(np.polyfit(np.log(pixels), np.log([p["seconds"] for p in points]), 1)[0])


def _memory(what: str) -> int:
    """Memory of this process in bytes: ``VmRSS`` now, ``VmHWM`` at its peak."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    # Elsewhere only the peak is known. It is counted in bytes on macOS, in KiB on other systems.
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _forget_peak() -> None:
    """Let the peak start anew; where the system refuses, what came before was smaller anyway."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _table(points: list[dict[str, Any]], slopes: dict[str, float], sizes: Sequence[int]) -> Table:
    rows = []
    for loss, title in LOSSES.items():
        mine = {p["size_px"]: p for p in points if p["loss"] == loss}
        largest = sizes[-1]
        reference = GOAL_SIZE_PX if GOAL_SIZE_PX in mine else largest
        rows.append(
            [
                title,
                *(number(1e3 * mine[size]["seconds"], 1) for size in sizes),
                number(slopes[loss], 2),
                number(1e6 * mine[largest]["seconds"] / largest**2, 2),
                number(mine[reference]["peak_bytes"] / _MB, 0),
            ]
        )
    reference = GOAL_SIZE_PX if GOAL_SIZE_PX in sizes else sizes[-1]
    columns = (
        "forward and backward",
        *(f"{size}² (ms)" for size in sizes),
        "slope",
        "µs/px",
        f"peak at {reference}² (MB)",
    )
    title = f"Losses, processor time; goals: slope ≤ {GOAL_SLOPE:g}, peak at {GOAL_SIZE_PX}² < {GOAL_MB:g} MB"
    return Table(title, columns, rows)


def _figure(points: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(2)
    colours = ("ours", "ours, second", "other", "other, second", "reference")
    # Nothing is below the size of a memory page, which a logarithmic axis needs.
    quantities = (("seconds", 1.0, 0.0, "processor time (s)"), ("peak_bytes", _MB, 4096.0, "peak memory (MB)"))
    for ax, (key, unit, least, label) in zip(axes[0], quantities, strict=True):
        for (loss, title), colour in zip(LOSSES.items(), colours, strict=True):
            mine = [p for p in points if p["loss"] == loss]
            pixels = [p["size_px"] ** 2 for p in mine]
            values = [max(p[key], least) / unit for p in mine]
            ax.loglog(pixels, values, "o-", ms=4, color=COLOURS[colour], label=title)
        ax.set(xlabel="pixels", ylabel=label)
    line = np.array(sorted({p["size_px"] ** 2 for p in points}))
    slowest = max(p["seconds"] for p in points)
    axes[0, 0].loglog(line, slowest * line / line[-1], ":", color=COLOURS["goal"], label="linear")
    axes[0, 1].loglog(GOAL_SIZE_PX**2, GOAL_MB, "v", color=COLOURS["goal"])
    axes[0, 1].annotate("goal: below", (GOAL_SIZE_PX**2, GOAL_MB), (-8, 0), textcoords="offset points", ha="right")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    run_as_program(main)
