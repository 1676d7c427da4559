"""``smlm-pb repeatability MOVIE``: precision and repeatability on one's own movie, by photon splitting."""

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
    add_read_noise_option,
    non_negative_int,
    positive_float,
    positive_int,
)
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.findings import add_findings_options, check_findings, publish_findings

_DESCRIPTION = """\
Measure how precise and how repeatable the localizations of a movie are, without knowing the truth.

The photons of every frame are divided at random into two independent half-exposures, and both are localized. How far
the positions of a molecule lie apart tells its precision, which is compared with the stated one; how many molecules
are found in both tells the repeatability. Camera offset and gain must be right. A bias that both halves share stays
invisible.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("repeatability", description=_DESCRIPTION)
    parser.add_argument("movie", metavar="MOVIE", help="file or folder")
    add_camera_options(parser)
    add_read_noise_option(parser)
    add_model_options(parser)
    add_device_option(parser)
    add_frames_option(parser)
    parser.add_argument(
        "--max-frames", type=positive_int, default=300, metavar="N", help="split at most N frames, evenly spread"
    )
    parser.add_argument(
        "--tolerance-nm",
        type=positive_float,
        metavar="NM",
        help="largest distance of a molecule in the halves (default: 4.5 times what its precision lets expect)",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, metavar="N", help="seed of the splitting")
    add_findings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Split, localize, compare and print."""
    from smlm_pb.analysis.photon_splitting import repeatability
    from smlm_pb.analysis.split_figure import repeatability_figure
    from smlm_pb.cli.progress import show_progress

    check_findings(args)
    with show_progress(args, Path(args.movie).name) as on_progress:
        found = repeatability(
            args.movie,
            model=args.model,
            **{name: getattr(args, name) for name in CAMERA_OPTIONS},
            read_noise_e=args.read_noise_e,
            psf_sigma_px=args.psf_sigma_px,
            threshold=args.threshold,
            device=args.device,
            frames=args.frames,
            max_frames=args.max_frames,
            tolerance_nm=args.tolerance_nm,
            seed=args.seed,
            on_progress=on_progress,
        )
    publish_findings(args, {"movie": args.movie, **found.as_dict()}, found.table(), lambda: repeatability_figure(found))
    return EXIT_OK
