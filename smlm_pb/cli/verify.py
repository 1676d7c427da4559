"""``smlm-pb verify LOCS MOVIE``: judge again whether the molecules of a table exist."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from smlm_pb.cli.common import threshold
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.refine import add_pixel_options, camera_option
from smlm_pb.cli.tables import add_table_options, read_input, write_output

_DESCRIPTION = """\
Judge again whether the molecules of a table exist: a small trained network looks at each of them.

Start from a table with a low threshold ('smlm-pb localize --threshold 0.1'), so that there is something to decide.
probability is the new one; first_probability is that of the table. Camera and PSF width are taken from the table's
history.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("verify", description=_DESCRIPTION)
    add_table_options(parser, "_verified")
    add_pixel_options(parser)
    parser.add_argument(
        "--verifier", default="verifier", metavar="DIR", help="made by 'smlm-pb train --second-stage verifier'"
    )
    parser.add_argument(
        "--threshold",
        type=threshold,
        default="auto",
        metavar="P",
        help="smallest new probability that is kept; auto: the threshold with the best expected Jaccard index",
    )


def run(args: argparse.Namespace) -> int:
    """Judge, keep what is likely, write."""
    from smlm_pb.analysis.second_look import keep_likely, verify
    from smlm_pb.cli.progress import note, show_progress

    locs, target = read_input(args)
    with show_progress(args, Path(args.movie).name, unit="molecule") as on_progress:
        judged = verify(
            locs,
            args.movie,
            verifier=args.verifier,
            camera=camera_option(locs, args),
            psf_sigma_px=args.psf_sigma_px,
            on_progress=on_progress,
        )
    kept = keep_likely(judged, args.threshold)
    write_output(args, kept, target)
    used = kept.provenance[-1]["threshold"]["threshold"]
    note(args, f"{len(kept)} of {len(locs)} molecules kept, at a probability of {used:.2f} or more.")
    return EXIT_OK
