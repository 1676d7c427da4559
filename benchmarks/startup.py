"""How long one waits: from the command to its help, to the first molecules, to the finished file.

Every command runs in a process of its own, as at the terminal. The movie has 361 frames of 64×64 px. The first
molecules count when they are on disk. Picasso's command works on the same movie where it is installed; it compiles its
code at every start.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _picasso import PicassoSettings, call_picasso
from _report import COLOURS, Table, make_parser, new_figure, number, parse, publish, run_as_program
from _runs import write_movie

from smlm_pb.errors import SmlmPbError
from smlm_pb.simulation.presets import density_sweep

FRAMES = 361
DENSITY_PER_UM2 = 1.0
POLL_S = 0.002
#: By how the names begin.
GOAL_S = {"smlm-pb --help": 0.5, "localize: first molecules": 4.0, "localize: finished file": 4.0}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="the median of N counts (default: 3)")
    parser.add_argument("--picasso-python", type=Path, metavar="PATH", help="Python in which Picasso is installed")
    args = parse(parser, argv)
    repeats = 1 if args.quick else args.repeats
    frames, size = (6, 32) if args.quick else (FRAMES, 64)
    environment = dict(os.environ)
    if args.threads is not None:
        environment["OMP_NUM_THREADS"] = str(args.threads)
    seconds: dict[str, list[float]] = {}
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import smlm_pb": [sys.executable, "-c", "import smlm_pb"],
        "smlm-pb --help": [*program(), "--help"],
        "smlm-pb localize --help": [*program(), "localize", "--help"],
        "import torch": [sys.executable, "-c", "import torch"],
    }
    for name, command in commands.items():
        seconds[name] = [time_command(command, environment) for _ in range(repeats)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        movie = _write_movie(folder / "movie.tif", frames, size)
        waits = [time_localize(movie, folder / f"out{k}", args.model, args.device, environment) for k in range(repeats)]
        if args.picasso_python:
            seconds["Picasso's command"] = [time_picasso_command(args.picasso_python, movie) for _ in range(repeats)]
    seconds["localize: first molecules"] = [first for first, _ in waits]
    seconds[f"localize: finished file ({frames} frames)"] = [last for _, last in waits]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    publish(
        "startup",
        args,
        tables=[_table(medians, seconds)],
        results={"median_s": medians, "seconds": seconds},
        settings={
            "repeats": repeats,
            "frames": frames,
            "frame_px": size,
            "molecules_per_um2": DENSITY_PER_UM2,
            "model": Path(args.model).name,
            "threads_of_the_commands": environment.get("OMP_NUM_THREADS", "as torch chooses"),
        },
        figure=_figure(medians),
    )
    return 0


def program() -> list[str]:
    """The installed command, or the module where it is not installed beside this Python."""
    script = Path(sys.executable).parent / ("smlm-pb.exe" if os.name == "nt" else "smlm-pb")
    return [str(script)] if script.exists() else [sys.executable, "-m", "smlm_pb"]


def time_command(command: Sequence[str], environment: dict[str, str]) -> float:
    """Wall time of a command that must succeed, in s."""
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    _check(done.returncode, done.stderr, command)
    return seconds


def time_localize(movie: Path, out: Path, model: str, device: str, environment: dict[str, str]) -> tuple[float, float]:
    """Wall time in s until the first molecules are on disk, and until the command has ended."""
    command = [*program(), "localize", str(movie), "--out", str(out), "--model", str(model), "--device", device]
    command += ["--pixel-size-nm", "100", "--offset-adu", "100", "--quiet"]
    unfinished = out / f"{movie.stem}_locs.work"
    first, size_of_header = None, None
    log = out.with_suffix(".log")
    with log.open("w") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None:
            time.sleep(POLL_S)
            if first is not None:
                continue
            try:
                size = unfinished.stat().st_size
            except OSError:
                continue
            if size_of_header is None:
                size_of_header = size
            elif size > size_of_header:
                first = time.perf_counter() - began
        last = time.perf_counter() - began
    _check(process.returncode, log.read_text(), command)
    return (last if first is None else first), last


def time_picasso_command(python: Path, movie: Path) -> float:
    """Wall time of Picasso's command with the fit that is its fastest, in s."""
    camera = density_sweep(DENSITY_PER_UM2).camera
    settings = PicassoSettings(fit="lq", box=5, gradient=5000.0)
    began = time.perf_counter()
    call_picasso(python, movie, settings, offset_adu=camera.offset_adu, e_per_adu=camera.e_per_adu, pixel_size_nm=100.0)
    return time.perf_counter() - began


def _check(returncode: int, errors: str, command: Sequence[str]) -> None:
    if returncode:
        message = (errors.strip().splitlines() or ["no message"])[-1]
        raise SmlmPbError(f"{' '.join(command[:3])} … ended with code {returncode}: {message}")


def _write_movie(path: Path, frames: int, size_px: int) -> Path:
    from smlm_pb.simulation import simulate

    movie, _ = simulate(density_sweep(DENSITY_PER_UM2, frames=frames, size_px=size_px))
    return write_movie(path, [movie])


def _table(medians: dict[str, float], seconds: dict[str, list[float]]) -> Table:
    rows = []
    for name, median in medians.items():
        goal = f"< {_goal(name):g}" if _goal(name) else ""
        values = seconds[name]
        rows.append([name, number(median, 2), f"{number(min(values), 2)} – {number(max(values), 2)}", goal])
    return Table("Waiting", ("what", "median (s)", "range (s)", "goal (s)"), rows)


def _goal(name: str) -> float:
    """Goal in s; 0 where there is none."""
    return next((goal for start, goal in GOAL_S.items() if name.startswith(start)), 0.0)


def _figure(medians: dict[str, float]) -> Any:
    figure, axes = new_figure(1, width=5.6, height=2.8)
    ax = axes[0, 0]
    names = list(reversed(medians))
    ax.barh(range(len(names)), [medians[name] for name in names], color=COLOURS["ours"])
    for place, name in enumerate(names):
        ax.text(max(medians[name], _goal(name)), place, f"  {medians[name]:.2f} s", va="center", fontsize=8)
        if _goal(name):
            ax.plot([_goal(name)] * 2, [place - 0.4, place + 0.4], color=COLOURS["goal"], lw=2)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="seconds from the command (green: goal)", title="Waiting")
    ax.set_xlim(0, 1.15 * max(*medians.values(), *GOAL_S.values()))
    return figure


if __name__ == "__main__":
    run_as_program(main)
