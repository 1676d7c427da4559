"""``smlm-pb report LOCS``: one HTML file that shows what was found, how good it is, and how it was made."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from smlm_pb.cli.common import add_device_option, add_overwrite_option, existing_file, positive_float
from smlm_pb.cli.faults import EXIT_OK

_DESCRIPTION = """\
Write a report on a table of molecules: one HTML file that holds everything in itself and opens in any browser.

It shows the super-resolved image, photons, precisions, background and probabilities, the development over the movie,
measured precision (NeNA) and resolution (FRC), what to expect, warnings, and how the table was made. With --movie also
what the camera saw, with --truth the scores against the known molecules.
"""

_EPILOG = """\
examples:
  smlm-pb report movie_locs.hdf5 --movie movie.tif
  smlm-pb report movie_locs_linked.hdf5 --unlinked movie_locs.hdf5 --out movie.html
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("report", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("locs", type=existing_file, metavar="LOCS", help="table of molecules, any known format")
    parser.add_argument(
        "--out", type=Path, metavar="HTML", help="file to write (default: LOCS with _report.html instead of its ending)"
    )
    parser.add_argument("--movie", metavar="MOVIE", help="the movie that the table was made from")
    parser.add_argument(
        "--truth", type=existing_file, metavar="TABLE", help="true molecules to compare with, any known format"
    )
    parser.add_argument(
        "--unlinked",
        type=existing_file,
        metavar="TABLE",
        help="the table before linking, for what needs every frame of a molecule",
    )
    parser.add_argument("--from", dest="format", metavar="FORMAT", help="format of LOCS (default: recognized)")
    parser.add_argument("--title", default="", metavar="TEXT", help="heading (default: name of the movie)")
    parser.add_argument(
        "--pixel-size-nm",
        type=positive_float,
        default=10.0,
        metavar="NM",
        help="edge of a pixel of the image; larger where the picture would exceed 1600 pixels",
    )
    parser.add_argument(
        "--camera-pixel-size-nm", type=positive_float, metavar="NM", help="camera pixel, where the table lacks it"
    )
    parser.add_argument(
        "--repeatability",
        action="store_true",
        help="also split the photons of --movie and localize both halves, with --model",
    )
    parser.add_argument("--model", default="default", metavar="NAME|DIR", help="model for --repeatability")
    add_device_option(parser)
    add_overwrite_option(parser)


def run(args: argparse.Namespace) -> int:
    """Gather, compose and write."""
    from smlm_pb.analysis.report import write_report
    from smlm_pb.cli.progress import show_progress
    from smlm_pb.errors import ConfigurationError
    from smlm_pb.formats import read_table
    from smlm_pb.formats.output import check_target

    out: Path = args.out if args.out is not None else args.locs.with_name(f"{args.locs.stem}_report.html")
    check_target(out, args.overwrite)
    if args.repeatability and args.movie is None:
        raise ConfigurationError("--repeatability splits the photons of a movie; give it with --movie.")
    camera_nm = args.camera_pixel_size_nm
    locs = read_table(args.locs, format=args.format, pixel_size_nm=camera_nm)
    unlinked = None if args.unlinked is None else read_table(args.unlinked, pixel_size_nm=camera_nm)
    truth = None if args.truth is None else read_table(args.truth, pixel_size_nm=camera_nm)
    splitting = None
    if args.repeatability:
        from smlm_pb.analysis.photon_splitting import repeatability_of_table

        with show_progress(args, "photon splitting") as on_progress:
            splitting = repeatability_of_table(
                locs, args.movie, model=args.model, device=args.device, on_progress=on_progress
            )
    write_report(
        locs,
        out,
        movie=args.movie,
        truth=truth,
        unlinked=unlinked,
        repeatability=splitting,
        title=args.title,
        pixel_size_nm=args.pixel_size_nm,
        overwrite=args.overwrite,
    )
    print(out)
    return EXIT_OK
