"""``smlm-pb superposition MOVIE``: up to which density a model works on one's own sample."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from smlm_pb.cli.common import (
    CAMERA_OPTIONS,
    add_camera_options,
    add_device_option,
    add_frames_option,
    add_model_options,
    positive_float,
    positive_int,
)
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.findings import add_findings_options, check_findings, publish_findings

_DESCRIPTION = """\
Find the density up to which a model works on a sample, without knowing the truth.

Frames of the movie that lie far apart are added: real exposures of 2, 4, 8, ... times as many molecules. What is found
in the single frames is taken as the truth of their sums. The movie must be sparse enough for its single frames to be
trusted. Its background is added as well, so a really dense movie is easier than the sum.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("superposition", description=_DESCRIPTION)
    parser.add_argument("movie", metavar="MOVIE", help="file or folder")
    add_camera_options(parser)
    add_model_options(parser)
    add_device_option(parser)
    add_frames_option(parser)
    parser.add_argument(
        "--added", type=positive_int, nargs="+", default=[2, 4, 8, 16], metavar="K", help="how many frames are added"
    )
    parser.add_argument(
        "--max-frames", type=positive_int, default=256, metavar="N", help="use at most N frames, evenly spread"
    )
    parser.add_argument(
        "--gap-frames",
        type=positive_int,
        default=50,
        metavar="N",
        help="frames of one sum lie at least N frames apart; more than molecules stay on",
    )
    parser.add_argument(
        "--tolerance-nm",
        type=positive_float,
        metavar="NM",
        help="largest distance of a molecule that is found again (default: width of the point-spread function)",
    )
    parser.add_argument(
        "--least-jaccard", type=positive_float, default=0.8, metavar="J", help="Jaccard index that counts as usable"
    )
    add_findings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Add, localize, compare and print."""
    from smlm_pb.analysis.superposing import superposition
    from smlm_pb.analysis.superposition_figure import superposition_figure
    from smlm_pb.cli.progress import show_progress

    check_findings(args)
    with show_progress(args, Path(args.movie).name) as on_progress:
        found = superposition(
            args.movie,
            model=args.model,
            **{name: getattr(args, name) for name in CAMERA_OPTIONS},
            psf_sigma_px=args.psf_sigma_px,
            threshold=args.threshold,
            device=args.device,
            frames=args.frames,
            added=args.added,
            max_frames=args.max_frames,
            gap_frames=args.gap_frames,
            tolerance_nm=args.tolerance_nm,
            least_jaccard=args.least_jaccard,
            on_progress=on_progress,
        )
    publish_findings(args, {"movie": args.movie, **found.as_dict()}, found.table(), lambda: superposition_figure(found))
    return EXIT_OK
