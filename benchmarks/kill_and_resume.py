"""Is anything lost when a run is killed? ``kill -9`` at random moments, then ``--resume``.

Every run is a process of its own, as at the terminal. It is killed when a random share of what an undisturbed run
finds is on disk, and up to 50 ms later; some runs while they still start, some when everything is found and the table
is being written. The table after the resumption is compared with that of the undisturbed run, byte by byte.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _report import COLOURS, Table, load, make_parser, new_figure, number, parse, publish, run_as_program
from _runs import write_movie
from startup import program

from smlm_pb.errors import SmlmPbError
from smlm_pb.simulation.presets import density_sweep

RUNS = 20
DENSITY_PER_UM2 = 2.0
_POLL_S = 0.005
_NOTHING, _UNFINISHED, _COMPLETE = "nothing yet", "unfinished run", "complete table"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"runs that are killed (default: {RUNS})")
    parser.add_argument("--frames", type=int, default=400, metavar="N", help="frames of 64×64 px (default: 400)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    args = parse(parser, argv)
    runs, frames, size = (2, 12, 32) if args.quick else (args.runs, args.frames, 64)
    environment = dict(os.environ)
    if args.threads is not None:
        environment["OMP_NUM_THREADS"] = str(args.threads)
    model = load(args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        movie = _simulate(folder / "movie.tif", frames, size)
        options = ["--model", str(args.model), "--device", args.device, "--refine", args.refine]
        command = [*program(), "localize", str(movie), "--pixel-size-nm", "100", "--offset-adu", "100", "--quiet"]
        command += options
        _finish(command, folder / "reference", environment)
        reference = _content(folder / "reference")
        rng = np.random.default_rng(args.seed)
        whole = _bytes_on_disk(command, folder / "watched", environment)
        # Below 0: while it starts; above 1: while the table is written.
        shares = np.sort(rng.uniform(-0.1, 1.1, runs))
        results = [
            _kill_and_resume(
                command, folder / f"run{k}", environment, float(share), whole, rng.uniform(0, 0.05), reference
            )
            for k, share in enumerate(shares)
        ]
    identical = sum(result["identical"] for result in results)
    publish(
        "kill_and_resume",
        args,
        tables=[_table(results, identical)],
        results={"identical": identical, "runs": results},
        settings={"runs": runs, "frames": frames, "frame_px": size, "molecules_per_um2": DENSITY_PER_UM2,
                  "seed": args.seed, "refine": args.refine},
        figure=_figure(results),
        model=model,
    )  # fmt: skip
    return 0 if identical == runs else 1


def _simulate(path: Path, frames: int, size: int) -> Path:
    from smlm_pb.simulation import simulate

    movie, _ = simulate(density_sweep(DENSITY_PER_UM2, frames=frames, size_px=size))
    return write_movie(path, [movie])


def _finish(command: Sequence[str], out: Path, environment: dict[str, str]) -> None:
    done = subprocess.run([*command, "--out", str(out), "--resume"], env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SmlmPbError(f"smlm-pb localize ended with code {done.returncode}: {message}")


def _bytes_on_disk(command: Sequence[str], out: Path, environment: dict[str, str]) -> int:
    """Largest size that the work file reaches in an undisturbed run."""
    process, largest = _start(command, out, environment), 0
    while process.poll() is None:
        largest = max(largest, _size(out))
        time.sleep(_POLL_S)
    return largest


def _start(command: Sequence[str], out: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    silent = subprocess.DEVNULL
    return subprocess.Popen([*command, "--out", str(out)], env=environment, stdout=silent, stderr=silent)


def _size(out: Path) -> int:
    try:
        return (out / "movie_locs.work").stat().st_size
    except OSError:
        return 0


def _kill_and_resume(
    command: Sequence[str],
    out: Path,
    environment: dict[str, str],
    share: float,
    whole_bytes: int,
    later_s: float,
    reference: Any,
) -> dict[str, Any]:
    began = time.perf_counter()
    process = _start(command, out, environment)
    if share < 0:  # while it starts, which takes some seconds
        time.sleep(30 * -share)
    else:
        while process.poll() is None and _size(out) < min(share, 1.0) * whole_bytes:
            time.sleep(_POLL_S)
        time.sleep(later_s * (4 if share > 1 else 1))
    process.kill()
    process.wait()
    moment_s = time.perf_counter() - began
    table, work = out / "movie_locs.hdf5", out / "movie_locs.work"
    found = _COMPLETE if table.exists() and not work.exists() else _UNFINISHED if work.exists() else _NOTHING
    found_share = min(1.0, _size(out) / max(1, whole_bytes))
    # A table is there as a whole or not at all, also while its work file is.
    whole = not table.exists() or _content(out) == reference
    _finish(command, out, environment)
    left = sorted(path.name for path in out.iterdir())
    expected = ["localize_report.json", "movie_locs.hdf5", "movie_locs.yaml"]
    return {
        "killed_after_s": moment_s,
        "share_on_disk": 1.0 if found == _COMPLETE else found_share,
        "found": found,
        "table_whole_when_killed": whole,
        "identical": whole and _content(out) == reference,
        "left_over": [name for name in left if name not in expected],
    }


def _content(folder: Path) -> tuple[bytes, str]:
    """Rows of the table and what decides them."""
    import h5py

    from smlm_pb.formats import read_table

    path = folder / "movie_locs.hdf5"
    with h5py.File(path) as file:
        rows = file["locs"][()].tobytes()
    step = read_table(path).provenance[-1]
    return rows, repr((step["threshold"], step["conditions"], step["result"]))


def _table(results: list[dict[str, Any]], identical: int) -> Table:
    rows = []
    for found in (_NOTHING, _UNFINISHED, _COMPLETE):
        those = [result for result in results if result["found"] == found]
        same = sum(result["identical"] for result in those)
        left = sum(bool(result["left_over"]) for result in those)
        shares = [100 * result["share_on_disk"] for result in those]
        between = f"{number(min(shares), 0)} – {number(max(shares), 0)}" if shares else "–"
        rows.append([found, str(len(those)), between, str(same), str(left)])
    rows.append(["all", str(len(results)), "", f"{identical} of {len(results)}", ""])
    return Table(
        "Killed at random moments, then resumed",
        ("on disk when killed", "runs", "found by then (%)", "identical tables", "with left-over files"),
        rows,
    )


def _figure(results: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(1, width=5.6, height=2.2)
    ax = axes[0, 0]
    order = (_NOTHING, _UNFINISHED, _COMPLETE)
    for same, colour, label in ((True, COLOURS["ours"], "identical"), (False, COLOURS["other"], "different")):
        those = [result for result in results if result["identical"] is same]
        if those:
            places = [order.index(result["found"]) for result in those]
            ax.plot([100 * result["share_on_disk"] for result in those], places, "o", color=colour, label=label)
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(-0.5, 2.5)
    ax.set(xlabel="found when killed (%)", title="kill -9, then --resume")
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    run_as_program(main)
