"""``smlm-pb residuals LOCS MOVIE``: what a table leaves unexplained of its movie."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from smlm_pb.cli.common import (
    add_camera_options,
    add_device_option,
    add_frames_option,
    existing_file,
    positive_float,
    positive_int,
)
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.findings import add_findings_options, check_findings, publish_findings

_DESCRIPTION = """\
Take the molecules of a table out of its movie and look at what is left, without knowing the truth.

Light left over far from any molecule looks like a missed one; a molecule that the pixels do not need looks false; a
spot that is wider than the point-spread function looks like several molecules merged. χ² is the residual of the pixels
in units of the noise: 1 where molecules and noise explain the movie. The table must not be linked nor corrected for
drift. Camera and PSF width are taken from its history.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("residuals", description=_DESCRIPTION)
    parser.add_argument("locs", type=existing_file, metavar="LOCS", help="table of molecules, any known format")
    parser.add_argument("movie", metavar="MOVIE", help="the movie that the table was made from")
    parser.add_argument("--from", dest="format", metavar="FORMAT", help="format of LOCS (default: recognized)")
    add_camera_options(parser)
    parser.add_argument(
        "--psf-sigma-px",
        type=positive_float,
        metavar="PX",
        help="width of the point-spread function, where LOCS is silent",
    )
    add_device_option(parser)
    add_frames_option(parser)
    parser.add_argument(
        "--max-frames", type=positive_int, default=200, metavar="N", help="look at N frames at most, evenly spread"
    )
    parser.add_argument("--tile-px", type=positive_int, default=16, metavar="N", help="side of the tiles of χ²")
    parser.add_argument(
        "--least-score",
        type=positive_float,
        default=5.0,
        metavar="Z",
        help="standard deviations from which on light left over counts",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the suspicions as a table, e.g. suspects.csv")
    add_findings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Fit, subtract, judge and print."""
    from smlm_pb.analysis.residual_figure import residual_figure
    from smlm_pb.analysis.residuals import residual_map
    from smlm_pb.analysis.table_conditions import camera_of
    from smlm_pb.cli.progress import show_progress
    from smlm_pb.formats import read_table, write_table

    check_findings(args)
    locs = read_table(args.locs, format=args.format, pixel_size_nm=args.pixel_size_nm)
    camera = camera_of(locs, offset_adu=args.offset_adu, e_per_adu=args.e_per_adu, em_gain=args.em_gain)
    with show_progress(args, Path(args.movie).name) as on_progress:
        found = residual_map(
            locs,
            args.movie,
            camera=camera,
            psf_sigma_px=args.psf_sigma_px,
            frames=args.frames,
            max_frames=args.max_frames,
            tile_px=args.tile_px,
            least_score=args.least_score,
            device=args.device,
            on_progress=on_progress,
        )
    if args.out is not None:
        write_table(found.suspects, args.out, overwrite=args.overwrite)
    publish_findings(
        args,
        {"locs": str(args.locs), "movie": args.movie, **found.as_dict()},
        found.table(),
        lambda: residual_figure(found),
    )
    return EXIT_OK
