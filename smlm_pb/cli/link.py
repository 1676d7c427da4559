"""``smlm-pb link LOCS``: join the localizations of each blink into one molecule."""

from __future__ import annotations

import argparse
from typing import Any

from smlm_pb.cli.common import non_negative_int, positive_float
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.tables import add_table_options, read_input, write_output

_DESCRIPTION = """\
Join the localizations of each blink into one molecule.

Localizations of consecutive frames are joined where they lie closer than the radius. Positions are averaged with
weights 1/σ², photons add up; on_frames and n_localizations say how long and how often the molecule was seen.
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


def run(args: argparse.Namespace) -> int:
    """Link and write."""
    from smlm_pb.analysis import link
    from smlm_pb.cli.progress import note

    locs, target = read_input(args)
    linked = link(
        locs,
        radius_nm=args.radius_nm,
        radius_sigma=args.radius_sigma,
        max_dark_frames=args.max_dark_frames,
        merge=not args.keep_rows,
        dark_times=args.dark_times,
    )
    write_output(args, linked, target)
    n_blinks = int(linked["group"].max(initial=-1)) + 1 if args.keep_rows else len(linked)
    mean = len(locs) / n_blinks if n_blinks else 0.0
    note(args, f"{len(locs)} localizations are {n_blinks} blinks of {mean:.2f} localizations on average.")
    return EXIT_OK
