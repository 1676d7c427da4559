"""``smlm-pb quality LOCS``: judge a table of molecules without knowing the truth."""

from __future__ import annotations

import argparse
from typing import Any

from smlm_pb.cli.common import existing_file, non_negative_int, positive_float, positive_int
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.findings import add_findings_options, check_findings, publish_findings

_DESCRIPTION = """\
Judge a table of molecules without knowing the truth.

Precision from molecules that stay on for several frames (NeNA), resolution from two halves of the data (FRC, split by
blocks of frames), development over the movie, spreads of photons and precisions, and the sub-pixel histogram.
The table must not be linked. Correct the drift first: it blurs the image and lowers the resolution.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser(
        "quality", help="judge a table of molecules without knowing the truth", description=_DESCRIPTION
    )
    parser.add_argument("locs", type=existing_file, metavar="LOCS", help="table of molecules, any known format")
    parser.add_argument("--from", dest="format", metavar="FORMAT", help="format of LOCS (default: recognized)")
    parser.add_argument(
        "--pixel-size-nm", type=positive_float, metavar="NM", help="camera pixel, where the table does not know it"
    )
    parser.add_argument(
        "--blocks", type=positive_int, default=50, metavar="N", help="stretches of the movie, dealt to the halves"
    )
    parser.add_argument("--repeats", type=positive_int, default=5, metavar="N", help="splits of the data for the FRC")
    parser.add_argument("--seed", type=non_negative_int, default=0, metavar="N", help="seed of the splits")
    add_findings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Judge and print."""
    from smlm_pb.analysis.quality_figure import quality_figure
    from smlm_pb.analysis.quality_report import quality
    from smlm_pb.formats import read_table

    check_findings(args)
    locs = read_table(args.locs, format=args.format, pixel_size_nm=args.pixel_size_nm)
    found = quality(locs, n_blocks=args.blocks, n_repeats=args.repeats, seed=args.seed)
    report = {"locs": str(args.locs), **found.as_dict()}
    publish_findings(args, report, found.table(), lambda: quality_figure(locs, found))
    return EXIT_OK
