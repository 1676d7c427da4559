"""``smlm-pb calibrate ...``: pixel size, distortion and the register of two colours from a calibration target."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from smlm_pb.cli.common import (
    add_overwrite_option,
    existing_file,
    finite_float,
    non_negative_int,
    positive_float,
    positive_int,
)
from smlm_pb.cli.faults import EXIT_OK

_DESCRIPTION = """\
Measure a microscope on the picture of a checkerboard or of a grid of holes.

grid finds the points of the target and tells pixel size and distortion; register brings one colour channel onto the
other, with a picture of the same target in both; apply moves the molecules of a table accordingly. simulate makes a
picture of a target with known points, train the network that finds them.
"""

_EPILOG = """\
examples:
  smlm-pb calibrate grid holes.tif --pitch-nm 500
  smlm-pb calibrate apply holes_grid/undistort.json locs.hdf5
  smlm-pb calibrate register red.tif green.tif --pixel-size-nm 100
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("calibrate", description=_DESCRIPTION, epilog=_EPILOG)
    what = parser.add_subparsers(dest="what", metavar="WHAT", title="what", required=True)
    _add_grid(what.add_parser("grid", help="pixel size and distortion from one picture"))
    _add_register(what.add_parser("register", help="one colour channel onto the other, from a picture in both"))
    _add_apply(what.add_parser("apply", help="move the molecules of a table"))
    _add_simulate(what.add_parser("simulate", help="make a picture of a target with known points"))
    _add_train(what.add_parser("train", help="train the network that finds corners and holes"))
    for options in what.choices.values():
        # What stands before WHAT must not be reset here.
        options.add_argument("-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help="no progress")
        options.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the full traceback of an error"
        )


def _add_target_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind", choices=("auto", "checkerboard", "holes"), default="auto", help="what the picture shows"
    )
    parser.add_argument(
        "--order", type=_order, default="auto", metavar="N", help="order of the polynomial, 1 (affine) to 5, or auto"
    )
    parser.add_argument(
        "--threshold", type=_probability, default=0.5, metavar="P", help="smallest probability of a point"
    )
    parser.add_argument(
        "--shrink",
        type=_shrink,
        default="auto",
        metavar="N",
        help="make the picture smaller by N first: for large or blurred holes; auto tries 1, 2 and 4",
    )
    parser.add_argument(
        "--network", type=Path, metavar="DIR", help="model made by 'smlm-pb calibrate train' (default: the shipped one)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_overwrite_option(parser)


def _add_grid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="picture of the target; the frames of a movie are averaged")
    parser.add_argument(
        "--pitch-nm", type=positive_float, required=True, metavar="NM", help="side of a square, or distance of holes"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: IMAGE with _grid instead of its ending)",
    )
    parser.add_argument(
        "--pixel-size-nm", type=positive_float, metavar="NM", help="what the microscope says, to be compared"
    )
    _add_target_options(parser)


def _add_register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", metavar="REFERENCE", help="picture of the target in the channel that stays")
    parser.add_argument("moving", metavar="MOVING", help="the same in the channel that is moved onto it")
    parser.add_argument(
        "--shift-px",
        type=finite_float,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("DX", "DY"),
        help="what must about be added to x and y of MOVING, to less than half a pitch (default: 0 0)",
    )
    parser.add_argument("--pixel-size-nm", type=positive_float, metavar="NM", help="pixel size of the reference")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: MOVING with _register instead of its ending)",
    )
    _add_target_options(parser)


def _add_apply(parser: argparse.ArgumentParser) -> None:
    from smlm_pb.cli.tables import add_table_options

    parser.add_argument("transform", type=existing_file, metavar="TRANSFORM", help=".json of grid or register")
    add_table_options(parser, "_calibrated")
    parser.add_argument(
        "--drop-outside", action="store_true", help="leave out molecules beyond the region of the target"
    )


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", choices=("checkerboard", "holes"), default="holes", help="what to draw")
    parser.add_argument("--size-px", type=positive_int, default=256, metavar="PX", help="side of the picture")
    parser.add_argument("--seed", type=non_negative_int, default=0, metavar="N", help="which target is drawn")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="TIFF", help="picture; the points go beside it, .csv"
    )
    add_overwrite_option(parser)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the model")
    parser.add_argument("--steps", type=positive_int, default=5000, metavar="N", help="optimisation steps")
    parser.add_argument("--seed", type=non_negative_int, default=0, metavar="N", help="seed of weights and pictures")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument(
        "--max-minutes", type=positive_float, metavar="MIN", help="stop with a checkpoint, to be continued by --resume"
    )
    add_overwrite_option(parser)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    return {"grid": _grid, "register": _register, "apply": _apply, "simulate": _simulate, "train": _train}[args.what](
        args
    )


def _grid(args: argparse.Namespace) -> int:
    from smlm_pb.calibration.files import GRID_FILES, prepare_folder, read_picture, save_grid
    from smlm_pb.calibration.grid import calibrate_grid

    out = args.out or _beside(args.image, "_grid")
    prepare_folder(out, GRID_FILES, args.overwrite)
    image, told_nm = read_picture(args.image)
    found = calibrate_grid(
        image,
        pitch_nm=args.pitch_nm,
        kind=args.kind,
        order=args.order,
        threshold=args.threshold,
        shrink=args.shrink,
        pixel_size_nm=args.pixel_size_nm or told_nm,
        model=args.network,
    )
    files = save_grid(found, image, out, overwrite=args.overwrite)
    _tell(args, {"image": args.image, **found.as_dict()}, found.table(), files)
    return EXIT_OK


def _register(args: argparse.Namespace) -> int:
    from smlm_pb.calibration.files import REGISTER_FILES, prepare_folder, read_picture, save_registration
    from smlm_pb.calibration.registration import register_grids

    out = args.out or _beside(args.moving, "_register")
    prepare_folder(out, REGISTER_FILES, args.overwrite)
    (reference, told_nm), (moving, _) = read_picture(args.reference), read_picture(args.moving)
    found = register_grids(
        reference,
        moving,
        kind=args.kind,
        order=args.order,
        shift_px=tuple(args.shift_px),
        threshold=args.threshold,
        shrink=args.shrink,
        pixel_size_nm=args.pixel_size_nm or told_nm,
        model=args.network,
    )
    files = save_registration(found, reference, moving, out, overwrite=args.overwrite)
    report = {"reference": args.reference, "moving": args.moving, **found.as_dict()}
    _tell(args, report, found.table(), files)
    return EXIT_OK


def _apply(args: argparse.Namespace) -> int:
    from smlm_pb.calibration.transform import Transform
    from smlm_pb.cli.progress import note
    from smlm_pb.cli.tables import read_input, write_output

    transform = Transform.load(args.transform)
    locs, target = read_input(args)
    moved, n_outside = transform.apply(locs, drop_outside=args.drop_outside)
    write_output(args, moved, target)
    said = "left out" if args.drop_outside else "extrapolated"
    outside = f"; {n_outside} beyond the region of the target, {said}" if n_outside else ""
    note(args, f"{len(moved)} molecules moved{outside}.")
    return EXIT_OK


def _simulate(args: argparse.Namespace) -> int:
    import numpy as np
    import tifffile

    from smlm_pb.calibration.boards import BoardSettings, draw_board
    from smlm_pb.cli.progress import note
    from smlm_pb.formats.output import check_target, written_whole

    points = args.out.with_suffix(".csv")
    for path in (args.out, points):
        check_target(path, args.overwrite)
    board = draw_board(np.random.default_rng(args.seed), BoardSettings(), args.size_px, kind=args.kind)
    scaled = board.image - board.image.min()
    with written_whole(args.out, args.overwrite) as temporary:
        tifffile.imwrite(temporary, np.rint(scaled / max(scaled.max(), 1e-9) * 60_000).astype(np.uint16))
    rows = np.column_stack((board.column, board.row, board.x, board.y))
    with written_whole(points, args.overwrite) as temporary:
        np.savetxt(temporary, rows, fmt="%.6g", delimiter=",", header="column,row,x,y", comments="")
    print(args.out, points, sep="\n")
    note(args, f"{len(board.x)} points, {board.pitch_px:.2f} px apart in the middle of the target.")
    return EXIT_OK


def _train(args: argparse.Namespace) -> int:
    from smlm_pb.calibration.grid_training import train_grid
    from smlm_pb.cli.progress import note, show_progress

    with show_progress(args, "training") as on_progress:
        folder = train_grid(
            args.out,
            steps=args.steps,
            seed=args.seed,
            overwrite=args.overwrite,
            resume=args.resume,
            max_seconds=None if args.max_minutes is None else 60 * args.max_minutes,
            on_progress=on_progress,
        )
    if folder is None:
        note(args, f"Time is up; continue with --resume --out {args.out}.")
    else:
        print(folder)
    return EXIT_OK


def _beside(path: str, suffix: str) -> Path:
    return Path(path).with_name(Path(path).stem + suffix)


def _tell(args: argparse.Namespace, report: dict[str, Any], text: str, files: list[Path]) -> None:
    if args.json:
        print(json.dumps({**report, "files": [str(path) for path in files]}, indent=2, allow_nan=False))
    else:
        print(text)
        print("\n".join(f"written: {path}" for path in files))


def _order(text: str) -> int | str:
    if text == "auto":
        return text
    value = positive_int(text)
    if value > 5:
        raise argparse.ArgumentTypeError(f"{text} must be 1 to 5, or auto")
    return value


def _shrink(text: str) -> int | str:
    return text if text == "auto" else positive_int(text)


def _probability(text: str) -> float:
    value = finite_float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 1")
    return value
