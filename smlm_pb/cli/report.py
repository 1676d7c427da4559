"""``smlm-pb report LOCS``: one HTML file that shows what was found, how good it is, and how it was made."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb.cli.common import add_device_option, add_overwrite_option, existing_file, positive_float
from smlm_pb.cli.faults import EXIT_OK

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

#: What is done on request, the quickest refusal first.
_CHECKS = {"residuals": "residuals", "twin": "digital twin", "repeatability": "photon splitting"}

_DESCRIPTION = """\
Write a report on a table of molecules: one HTML file that holds everything in itself and opens in any browser.

It shows the super-resolved image, photons, precisions, background and probabilities, the development over the movie,
measured precision (NeNA) and resolution (FRC), what to expect, warnings, and how the table was made. With --movie also
what the camera saw, with --truth the scores against the known molecules; --residuals, --twin and --repeatability judge
the table against its movie without knowing the truth.
"""

_EPILOG = """\
examples:
  smlm-pb report movie_locs.hdf5 --movie movie.tif
  smlm-pb report movie_locs.hdf5 --movie movie.tif --full
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
        "--image-pixel-nm",
        "--pixel-size-nm",
        dest="pixel_size_nm",
        type=positive_float,
        default=10.0,
        metavar="NM",
        help="edge of a pixel of the image, not of the camera; larger where the picture would exceed 1600 pixels",
    )
    parser.add_argument(
        "--camera-pixel-size-nm", type=positive_float, metavar="NM", help="camera pixel, where the table lacks it"
    )
    parser.add_argument(
        "--repeatability",
        action="store_true",
        help="also split the photons of --movie and localize both halves, with --model",
    )
    parser.add_argument(
        "--residuals",
        action="store_true",
        help="also take the molecules out of --movie and show what looks missed, false or merged",
    )
    parser.add_argument(
        "--twin",
        action="store_true",
        help="also simulate a movie like this one and tell what each kind of error costs, and what to do",
    )
    parser.add_argument(
        "--full", action="store_true", help="all three: --repeatability --residuals --twin (some ten seconds each)"
    )
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="model for --repeatability and --twin (default: the one LOCS was made with, else default)",
    )
    add_device_option(parser)
    add_overwrite_option(parser)


def run(args: argparse.Namespace) -> int:
    """Gather, compose and write."""
    from smlm_pb.analysis.report import write_report
    from smlm_pb.errors import ConfigurationError
    from smlm_pb.formats import read_table
    from smlm_pb.formats.output import check_target

    out: Path = args.out if args.out is not None else args.locs.with_name(f"{args.locs.stem}_report.html")
    check_target(out, args.overwrite)
    asked = [name for name in _CHECKS if getattr(args, name) or args.full]
    if args.movie is None and asked:
        options = ", ".join(f"--{name}" for name in (["full"] if args.full else asked))
        raise ConfigurationError(f"{options}: a movie is needed to check the table against; give it with --movie.")
    camera_nm = args.camera_pixel_size_nm
    locs = read_table(args.locs, format=args.format, pixel_size_nm=camera_nm)
    unlinked = None if args.unlinked is None else read_table(args.unlinked, pixel_size_nm=camera_nm)
    truth = None if args.truth is None else read_table(args.truth, pixel_size_nm=camera_nm)
    checks = _check(args, asked, locs if unlinked is None else unlinked)
    write_report(
        locs,
        out,
        movie=args.movie,
        truth=truth,
        unlinked=unlinked,
        **checks,
        title=args.title,
        pixel_size_nm=args.pixel_size_nm,
        overwrite=args.overwrite,
    )
    print(out)
    return EXIT_OK


def _check(args: argparse.Namespace, asked: list[str], locs: Localizations) -> dict[str, Any]:
    """Judge the table against its movie in the ways that were asked for."""
    from smlm_pb.analysis.photon_splitting import repeatability_of_table
    from smlm_pb.analysis.residuals import residual_map
    from smlm_pb.analysis.twin import digital_twin
    from smlm_pb.cli.progress import show_progress

    model = args.model or (locs.last_step("localize").get("model") or {}).get("name") or "default"
    work: dict[str, Callable[[Any], Any]] = {
        "residuals": lambda tell: residual_map(locs, args.movie, max_frames=100, device=args.device, on_progress=tell),
        "twin": lambda tell: digital_twin(locs, model=args.model, device=args.device, on_progress=tell),
        "repeatability": lambda tell: repeatability_of_table(
            locs, args.movie, model=model, device=args.device, on_progress=tell
        ),
    }
    found = {}
    for name in asked:
        with show_progress(args, _CHECKS[name]) as on_progress:
            found[name] = work[name](on_progress)
    return found
