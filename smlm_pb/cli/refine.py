"""``smlm-pb refine LOCS MOVIE``: positions of a table, read again from the pixels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb.cli.common import CAMERA_OPTIONS, add_device_option, finite_float, positive_float
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.tables import add_table_options, read_input, write_output

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.localizations import Localizations

_DESCRIPTION = """\
Refine the positions of a table against the movie it was made from; any program's table will do.

auto and on fit by maximum likelihood, as 'smlm-pb localize --refine' does. map asks a small trained network for a
position map of each molecule; mean, sigma_x, sigma_y and correlation_xy of the map replace the table's. Camera and PSF
width are taken from the table's history. The table must not be linked nor corrected for drift.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("refine", description=_DESCRIPTION)
    add_table_options(parser, "_refined")
    add_pixel_options(parser)
    parser.add_argument(
        "--method",
        choices=("auto", "on", "map"),
        default="auto",
        help="auto: likelihood where the pixels agree with the model and it is the more precise, on: likelihood"
        " everywhere, map: position maps",
    )
    parser.add_argument(
        "--readout", default="readout", metavar="DIR", help="for map: made by 'smlm-pb train --second-stage readout'"
    )
    add_device_option(parser)


def run(args: argparse.Namespace) -> int:
    """Refine and write."""
    from smlm_pb.analysis.second_look import refine_table
    from smlm_pb.cli.progress import show_progress

    locs, target = read_input(args)
    with show_progress(args, Path(args.movie).name, unit="molecule") as on_progress:
        refined = refine_table(
            locs,
            args.movie,
            method=args.method,
            readout=args.readout,
            camera=camera_option(locs, args),
            psf_sigma_px=args.psf_sigma_px,
            device=args.device,
            on_progress=on_progress,
        )
    write_output(args, refined, target)
    return EXIT_OK


def add_pixel_options(parser: argparse.ArgumentParser) -> None:
    """Add ``MOVIE``, and camera and PSF width for tables that do not tell them."""
    parser.add_argument("movie", metavar="MOVIE", help="the movie that the table was made from")
    group = parser.add_argument_group("where the table's history does not tell")
    group.add_argument("--offset-adu", type=finite_float, metavar="ADU", help="camera offset")
    group.add_argument("--e-per-adu", type=positive_float, metavar="E", help="photo-electrons per camera unit")
    group.add_argument("--em-gain", type=positive_float, metavar="G", help="gain of electron multiplication")
    group.add_argument("--psf-sigma-px", type=positive_float, metavar="PX", help="width of the point-spread function")


def camera_option(locs: Localizations, args: argparse.Namespace) -> Camera | None:
    """The camera of the table's history with what was given in its place."""
    from smlm_pb.analysis.table_conditions import camera_of

    return camera_of(locs, **{name: getattr(args, name) for name in CAMERA_OPTIONS if name != "pixel_size_nm"})
