"""Corners of synthetic checkerboards beside OpenCV, holes of synthetic grids, and what calibration makes of them.

1000 boards by default (4 to 6 squares along a side, 8 to 30 px each, in frames of 192×192 px) under one to eight of
blur, uneven light, sharpening, contrast, scale, distortion, perspective and rotation, always with noise. A corner
counts as found within 2 px. OpenCV is told how many corners the board has, and finds all of them or none; the
network is told nothing. Boards and holes were not seen in training. Published for the set of the method's author
(Schroeter, 2021): mean absolute deviation 0.105 px, recall 99.3 %, precision 99.9 %.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from _kept import kept
from _report import COLOURS, Table, make_parser, mean, new_figure, number, parse, publish, run_as_program, spread

from smlm_pb.calibration.boards import BORDER_PX, KINDS, Board, BoardSettings, draw_board
from smlm_pb.calibration.detection import find_points, load_network
from smlm_pb.calibration.grid import calibrate_grid
from smlm_pb.calibration.registration import register_grids
from smlm_pb.calibration.transform_fit import fit_transform
from smlm_pb.errors import SmlmPbError

FloatArray = npt.NDArray[np.float64]
Finder = Callable[[Board], FloatArray]

BOARDS = 1000
SIZE_PX = 192
TOLERANCE_PX = 2.0
#: Boards of a part that is kept; holes: a quarter as many.
_AT_A_TIME = 50
GOAL_DEVIATION_PX, GOAL_RECALL = 0.105, 0.99
SETTINGS = BoardSettings(squares=(4, 6), pitch_px=(8.0, 59.0), hole_pitch_px=(5.0, 32.0), filled_fraction=0.0)
METHODS = {
    "network": "this network",
    "opencv": "OpenCV findChessboardCorners + cornerSubPix",
    "opencv_sb": "OpenCV findChessboardCornersSB",
}
# No picture of the training, whose seeds are (seed, step).
SEED = 770_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "", model=False, seeds=3)
    parser.add_argument("--boards", type=int, default=BOARDS, metavar="N", help=f"over all seeds (default: {BOARDS})")
    args = parse(parser, argv)
    boards = 12 if args.quick else args.boards
    finders = _finders()
    load_network()
    per_seed = math.ceil(boards / args.seeds)
    corners, holes = [], []
    for seed in range(args.seeds):
        for first in range(0, per_seed, _AT_A_TIME):
            last = min(first + _AT_A_TIME, per_seed)
            corners += _part("checkerboard", finders, seed, first, last)
            holes += _part("holes", {"network": _network("holes")}, seed, first // 4, last // 4)
    corners, holes = _per_seed(corners), _per_seed(holes)
    calibrations = [calibrate(kind, seed) for seed in range(1 if args.quick else 2 * args.seeds) for kind in KINDS]
    registrations = [register(seed) for seed in range(1 if args.quick else 2 * args.seeds)]
    publish(
        "corners",
        args,
        tables=[_corner_table(corners), _hole_table(holes), _use_table(calibrations, registrations)],
        results={
            "corners": [{k: v for k, v in run.items() if k != "distances"} for run in corners],
            "holes": [{k: v for k, v in run.items() if k != "distances"} for run in holes],
            "calibrations": calibrations,
            "registrations": registrations,
        },
        settings={
            "seeds": args.seeds,
            "boards": per_seed * args.seeds,
            "size_px": SIZE_PX,
            "tolerance_px": TOLERANCE_PX,
            "squares": list(SETTINGS.squares),
        },
        figure=_figure(corners, holes),
    )
    return 0


def _finders() -> dict[str, Finder]:
    """The network, and OpenCV where it is installed."""
    found: dict[str, Finder] = {"network": _network("checkerboard")}
    try:
        import cv2
    except ImportError:
        print("OpenCV is not installed; only the network is measured (pip install opencv-python-headless).")
        return found
    cv2.setNumThreads(1)

    def classic(board: Board) -> FloatArray:
        picture = _as_bytes(board.image)
        flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE
        there, points = cv2.findChessboardCorners(picture, board.shape, flags=flags)
        if not there:
            return np.empty((0, 2))
        half = int(np.clip(board.pitch_px / 3, 2, 5))
        stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 40, 1e-3)
        return np.asarray(cv2.cornerSubPix(picture, points, (half, half), (-1, -1), stop), np.float64).reshape(-1, 2)

    def sector_based(board: Board) -> FloatArray:
        flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_ACCURACY
        there, points = cv2.findChessboardCornersSB(_as_bytes(board.image), board.shape, flags=flags)
        return np.asarray(points, np.float64).reshape(-1, 2) if there else np.empty((0, 2))

    return {**found, "opencv": classic, "opencv_sb": sector_based}


def _network(kind: str) -> Finder:
    return lambda board: find_points(board.image, kind=kind).positions


def _as_bytes(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    low, high = np.percentile(image, (0.1, 99.9))
    return np.asarray(np.clip((image - low) / max(high - low, 1e-9) * 255, 0, 255), np.uint8)


def _part(kind: str, finders: dict[str, Finder], seed: int, first: int, last: int) -> list[dict[str, Any]]:
    """Some boards of one seed, measured before or now."""
    name = f"{kind}-{seed}-{first}-{last}-{'-'.join(finders)}-{weights_of()}"
    found: list[dict[str, Any]] = kept("corners", name, lambda: compare(kind, finders, seed, range(first, last)))
    return found


def compare(kind: str, finders: dict[str, Finder], seed: int, numbers: range) -> list[dict[str, Any]]:
    """Deviations and counts of all methods on some boards of one seed."""
    runs: dict[str, dict[str, Any]] = {
        name: {
            "method": name, "kind": kind, "seed": seed, "boards": 0, "points": 0, "found": 0, "surplus": 0, "whole": 0,
            "seconds": 0.0, "distances": [], "signed": [],
        }
        for name in finders
    }  # fmt: skip
    for index in numbers:
        board = draw_board(np.random.default_rng([SEED, seed, index]), SETTINGS, SIZE_PX, kind=kind)
        truth = np.stack((board.x, board.y), axis=1)
        for name, finder in finders.items():
            run = runs[name]
            began = time.process_time()
            points = finder(board)
            run["seconds"] += time.process_time() - began
            nearest, taken = _match(truth, points)
            inside = ((points > BORDER_PX) & (points < SIZE_PX - 1 - BORDER_PX)).all(1)
            run["boards"] += 1
            run["points"] += len(truth)
            run["found"] += len(nearest)
            run["surplus"] += int(((taken < 0) & inside).sum())
            run["whole"] += int(len(nearest) == len(truth))
            run["distances"] += np.round(nearest, 5).tolist()
            run["signed"] += np.round((points[taken >= 0] - truth[taken[taken >= 0]]).ravel(), 5).tolist()
    return list(runs.values())


def _per_seed(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scores of every method and seed, from its parts."""
    scores = []
    for method, seed in sorted({(part["method"], part["seed"]) for part in parts}):
        mine = [part for part in parts if (part["method"], part["seed"]) == (method, seed)]
        total = {key: sum(part[key] for part in mine) for key in ("boards", "points", "found", "surplus", "whole")}
        distances = [d for part in mine for d in part["distances"]]
        signed = [d for part in mine for d in part["signed"]]
        scores.append(
            {
                "method": method,
                "kind": mine[0]["kind"],
                "seed": seed,
                **total,
                "deviation_px": float(np.mean(distances)) if distances else math.nan,
                "deviation_per_axis_px": float(np.mean(np.abs(signed))) if signed else math.nan,
                "recall": total["found"] / max(total["points"], 1),
                "precision": total["found"] / max(total["found"] + total["surplus"], 1),
                "whole_boards": total["whole"] / total["boards"],
                "seconds_per_board": sum(part["seconds"] for part in mine) / total["boards"],
                "distances": distances,
            }
        )
    return scores


def weights_of() -> str:
    """First digits of the hash of the network's weights: other weights, other results."""
    import hashlib

    from safetensors.torch import save

    return hashlib.sha256(save(dict(load_network().state_dict()))).hexdigest()[:8]


def _match(truth: FloatArray, points: FloatArray) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Distances of pairs, one to one within the tolerance, and the true point of every found one (-1: none)."""
    from scipy.optimize import linear_sum_assignment

    taken = np.full(len(points), -1, np.intp)
    if not len(truth) or not len(points):
        return np.empty(0), taken
    distance = np.hypot(*(truth[:, None] - points[None]).transpose(2, 0, 1))
    cost = np.where(distance <= TOLERANCE_PX, distance, 1e3)
    row, column = linear_sum_assignment(cost)
    pairs = cost[row, column] < 1e3
    taken[column[pairs]] = row[pairs]
    return distance[row[pairs], column[pairs]], taken


def calibrate(kind: str, seed: int) -> dict[str, Any]:
    """Pixel size from a picture against that from the true points of the same picture."""
    calm = BoardSettings(filled_fraction=1.0, perspective=0.0, pitch_px=(10.0, 24.0), hole_pitch_px=(6.0, 16.0))
    board = draw_board(np.random.default_rng([SEED, 50, seed]), calm, SIZE_PX, kind=kind)
    truth, places = np.stack((board.x, board.y), axis=1), np.stack((board.column, board.row), axis=1)
    try:
        found = calibrate_grid(board.image, pitch_nm=1000.0, kind=kind)
    except SmlmPbError as error:
        return {"kind": kind, "seed": seed, "problem": str(error)}
    true = fit_transform(places.astype(np.float64), truth, purpose="undistort", order=3).transform
    middle = np.full(2, (SIZE_PX - 1) / 2)
    place = places[np.argmin(np.hypot(*(truth - middle).T))].astype(np.float64)
    for _ in range(10):
        place += np.linalg.solve(true.jacobian(place[None])[0], middle - true(place[None])[0])
    pixel_nm = 1000.0 / math.sqrt(abs(np.linalg.det(true.jacobian(place[None])[0])))
    return {
        "kind": kind,
        "seed": seed,
        "points": len(found.found.lattice),
        "true_points": len(truth),
        "pixel_size_nm": found.pixel_size_nm,
        "relative_error": found.pixel_size_nm / pixel_nm - 1,
        "stated_error": found.pixel_size_error_nm / found.pixel_size_nm,
        "residual_px": found.residual_px,
    }


def register(seed: int) -> dict[str, Any]:
    """Error of the map between two channels, at the true positions of the holes."""
    rng = np.random.default_rng([SEED, 60, seed])
    pitch, angle = rng.uniform(6, 12), rng.uniform(-np.pi, np.pi)
    steps = np.arange(-60, 61) * pitch
    target = np.stack([a.ravel() for a in np.meshgrid(steps, steps)], axis=1)
    channels = []
    for k in range(2):
        turn = angle + k * rng.uniform(-0.01, 0.01)
        linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * (
            1 + k * rng.uniform(-0.01, 0.01)
        )
        seen = target @ linear.T
        seen *= 1 + rng.uniform(-0.01, 0.01) * (seen**2).sum(1, keepdims=True) / (SIZE_PX / 2) ** 2
        seen += (SIZE_PX - 1) / 2 + k * rng.uniform(-0.25, 0.25, 2) * pitch
        channels.append((_holes(rng, seen), seen))
    (reference, at), (moving, from_) = channels
    inside = ((at > 6) & (at < SIZE_PX - 7) & (from_ > 6) & (from_ < SIZE_PX - 7)).all(1)
    found = register_grids(reference, moving, kind="holes")
    error = found.transform(from_[inside]) - at[inside]
    return {
        "seed": seed,
        "pairs": len(found.reference),
        "before_px": float(np.sqrt(((from_ - at)[inside] ** 2).sum(1).mean())),
        "error_px": float(np.sqrt((error**2).sum(1).mean())),
        "stated_px": found.held_out_px,
    }


def _holes(rng: np.random.Generator, at: FloatArray) -> npt.NDArray[Any]:
    """Picture of point-like holes: 2000 e⁻ each at a width of 1.2 px, on 20 e⁻ per pixel."""
    near = ((at > -8) & (at < SIZE_PX + 8)).all(1)
    pixel = np.arange(SIZE_PX)
    x, y = (np.exp(-0.5 * ((pixel - at[near, axis, None]) / 1.2) ** 2) for axis in (0, 1))
    return rng.poisson(20 + 2000 / (2 * np.pi * 1.44) * y.T @ x)


def _corner_table(runs: list[dict[str, Any]]) -> Table:
    rows = []
    for method, title in METHODS.items():
        mine = [run for run in runs if run["method"] == method]
        if mine:
            rows.append([title, *_scores(mine)])
    rows.append(
        ["published (another set): network / MATLAB", "0.105 / 0.086", "–", "99.3 / 65.8", "99.9 / –", "–", "–"]
    )
    title = f"Corners of checkerboards; goals: deviation ≤ {GOAL_DEVIATION_PX} px, recall ≥ {100 * GOAL_RECALL:.0f} %"
    return Table(title, _COLUMNS, rows)


_COLUMNS = (
    "method",
    "mean deviation (px)",
    "per axis (px)",
    "recall (%)",
    "precision (%)",
    "whole boards (%)",
    "processor time (ms)",
)


def _scores(runs: list[dict[str, Any]]) -> list[str]:
    percent = [[100 * run[key] for run in runs] for key in ("recall", "precision", "whole_boards")]
    return [
        spread([run["deviation_px"] for run in runs]),
        spread([run["deviation_per_axis_px"] for run in runs]),
        *(spread(values, 1) for values in percent),
        number(1e3 * mean([run["seconds_per_board"] for run in runs]), 0),
    ]


def _hole_table(runs: list[dict[str, Any]]) -> Table:
    return Table("Holes of grids, 5 to 32 px apart", _COLUMNS, [["this network", *_scores(runs)]])


def _use_table(calibrations: list[dict[str, Any]], registrations: list[dict[str, Any]]) -> Table:
    rows = []
    for kind in KINDS:
        mine = [run for run in calibrations if run["kind"] == kind and "problem" not in run]
        failed = sum(run["kind"] == kind and "problem" in run for run in calibrations)
        if mine:
            error = [1e6 * abs(run["relative_error"]) for run in mine]
            stated = [1e6 * run["stated_error"] for run in mine]
            text = f"pixel size, {kind} (ppm){f'; {failed} without lattice' if failed else ''}"
            rows.append(
                [
                    text,
                    str(len(mine)),
                    number(float(np.median(error)), 0),
                    number(max(error), 0),
                    number(float(np.median(stated)), 0),
                ]
            )
    error = [1e3 * run["error_px"] for run in registrations]
    rows.append(
        [
            "registration of two channels (10⁻³ px)",
            str(len(error)),
            number(float(np.median(error)), 1),
            number(max(error), 1),
            "–",
        ]
    )
    return Table("What calibration makes of them", ("error of", "pictures", "median", "largest", "stated"), rows)


def _figure(corners: list[dict[str, Any]], holes: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(3)
    for ax, kind in zip(axes[0, :2], KINDS, strict=True):
        board = draw_board(np.random.default_rng([SEED, 0, 3]), SETTINGS, SIZE_PX, kind=kind)
        found = find_points(board.image, kind=kind)
        ax.imshow(board.image, cmap="gray")
        ax.plot(board.x, board.y, "o", color=COLOURS["goal"], fillstyle="none", ms=6, label="true")
        ax.plot(found.x, found.y, "+", color=COLOURS["other"], ms=5, label="found")
        ax.set_title(f"one of the pictures: {kind}")
        ax.legend(loc="lower left", fontsize=7)
    colours = {"network": "ours", "opencv": "other", "opencv_sb": "other, second"}
    lines = [(METHODS[m], [r for r in corners if r["method"] == m], COLOURS[colours[m]]) for m in METHODS]
    lines.append(("this network, holes", holes, COLOURS["ours, second"]))
    ax = axes[0, 2]
    for title, runs, colour in lines:
        if runs:
            distances = np.sort(np.concatenate([run["distances"] for run in runs]))
            share = np.arange(1, len(distances) + 1) / sum(run["points"] for run in runs)
            ax.plot(distances, share, color=colour, label=title)
    ax.axhline(GOAL_RECALL, ls=":", color=COLOURS["goal"], label=f"{100 * GOAL_RECALL:.0f} %")
    ax.set(
        xscale="log", xlim=(3e-3, TOLERANCE_PX), ylim=(0, 1.02), xlabel="deviation (px)", ylabel="share of all points"
    )
    ax.legend(loc="lower right", fontsize=6, frameon=False)
    return figure


if __name__ == "__main__":
    run_as_program(main)
