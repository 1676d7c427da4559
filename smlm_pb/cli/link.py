"""``smlm-pb link LOCS``: join the localizations of each blink into one molecule."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb.cli.common import non_negative_int, positive_float
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.tables import add_table_options, read_input, write_output

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

_DESCRIPTION = """\
Join the localizations of each blink into one molecule.

Localizations of consecutive frames are joined where they lie closer than the radius. Positions are averaged with
weights 1/σ², photons add up; on_frames and n_localizations say how long and how often the molecule was seen. With
--sub-frame-times the movie tells when each molecule switched on and off, in fractions of a frame.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser(
        "link", help="join the localizations of each blink into one molecule", description=_DESCRIPTION
    )
    add_table_options(parser, "_linked")
    parser.add_argument(
        "--radius-nm", type=positive_float, metavar="NM", help="largest distance of two localizations that are joined"
    )
    parser.add_argument(
        "--radius-sigma",
        type=positive_float,
        metavar="N",
        help="the same in units of their precision √(σ₁² + σ₂²) (default: 3.5 without --radius-nm)",
    )
    parser.add_argument(
        "--max-dark-frames",
        type=non_negative_int,
        default=1,
        metavar="N",
        help="frames a molecule may miss in between",
    )
    parser.add_argument(
        "--keep-rows", action="store_true", help="keep every row and only number the blinks in the column group"
    )
    parser.add_argument(
        "--dark-times", action="store_true", help="add the column dark_frames: frames until the next blink there"
    )
    times = parser.add_argument_group("switching times")
    times.add_argument(
        "--sub-frame-times",
        metavar="MOVIE",
        help="also tell when each molecule switched on and off, in fractions of a frame, from its light in the movie"
        " that LOCS was made from",
    )
    times.add_argument(
        "--exposure-ms", type=positive_float, metavar="MS", help="exposure of a frame, where the movie does not tell it"
    )
    times.add_argument(
        "--psf-sigma-px", type=positive_float, metavar="PX", help="width of the PSF, where LOCS does not tell it"
    )


def run(args: argparse.Namespace) -> int:
    """Link and write."""
    from smlm_pb.analysis import link
    from smlm_pb.cli.progress import note
    from smlm_pb.errors import ConfigurationError

    locs, target = read_input(args)
    if args.sub_frame_times is not None and args.keep_rows:
        raise ConfigurationError("--sub-frame-times are those of whole blinks: leave --keep-rows out.")
    linked = link(
        locs,
        radius_nm=args.radius_nm,
        radius_sigma=args.radius_sigma,
        max_dark_frames=args.max_dark_frames,
        merge=not args.keep_rows,
        dark_times=args.dark_times,
    )
    if args.sub_frame_times is not None:
        linked = _with_times(args, locs, linked)
    write_output(args, linked, target)
    n_blinks = int(linked["group"].max(initial=-1)) + 1 if args.keep_rows else len(linked)
    mean = len(locs) / n_blinks if n_blinks else 0.0
    note(args, f"{len(locs)} localizations are {n_blinks} blinks of {mean:.2f} localizations on average.")
    return EXIT_OK


def _with_times(args: argparse.Namespace, locs: Localizations, linked: Localizations) -> Localizations:
    from smlm_pb.analysis.switching import sub_frame_times
    from smlm_pb.analysis.table_conditions import conditions_of
    from smlm_pb.cli.progress import show_progress
    from smlm_pb.errors import TableError

    known = conditions_of(locs)
    sigma = args.psf_sigma_px or known.psf_sigma_px
    if known.camera is None:
        raise TableError(
            f"{args.locs} does not tell the camera, so the movie's light is not known in photons: localize the movie "
            "with smlm-pb, or leave --sub-frame-times out."
        )
    if sigma is None:
        raise TableError(f"{args.locs} does not tell the width of the PSF: give --psf-sigma-px, e.g. 1.2.")
    with show_progress(args, Path(args.sub_frame_times).name) as on_progress:
        return sub_frame_times(
            linked,
            args.sub_frame_times,
            camera=known.camera,
            psf_sigma_px=sigma,
            exposure_ms=args.exposure_ms,
            on_progress=on_progress,
        )
