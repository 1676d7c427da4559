"""``smlm-pb duplicates LOCS…``: one row per molecule and frame, from one table or several."""

from __future__ import annotations

import argparse
from typing import Any

from smlm_pb.cli.common import existing_file, positive_float
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.tables import add_table_options, read_input, write_output

_DESCRIPTION = """\
Keep one row per molecule and frame, where some are listed several times: in the merged tables of several programs or
models, in tables of overlapping tiles, and in those of programs that fit a spot twice.

  smlm-pb duplicates merged.csv
  smlm-pb duplicates ours_locs.hdf5 --with thunderstorm.csv picasso_locs.hdf5 --out merged_locs.hdf5

There is no radius to choose: what counts as near follows from the precision of every row and from how near the copies
of this table lie. copies tells how many rows each one stands for. For rows of different frames, see 'smlm-pb link'.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("duplicates", description=_DESCRIPTION)
    add_table_options(parser, "_unique")
    parser.add_argument(
        "--with", dest="others", type=existing_file, nargs="+", default=[], metavar="LOCS", help="more tables to merge"
    )
    parser.add_argument(
        "--sigma-nm", type=positive_float, metavar="NM", help="precision of the rows, where the table has none"
    )
    parser.add_argument(
        "--stage", default="duplicates", metavar="DIR", help="made by 'smlm-pb train --second-stage duplicates'"
    )


def run(args: argparse.Namespace) -> int:
    """Merge, decide, write."""
    from smlm_pb.analysis.duplicates import suppress_duplicates
    from smlm_pb.cli.progress import note
    from smlm_pb.formats import read_table

    locs, target = read_input(args)
    others = [read_table(path, pixel_size_nm=args.pixel_size_nm) for path in args.others]
    kept = suppress_duplicates([locs, *others], stage=args.stage, sigma_nm=args.sigma_nm)
    write_output(args, kept, target)
    rows = len(locs) + sum(map(len, others))
    note(args, f"{rows} rows are {len(kept)} molecules; {int((kept['copies'] > 1).sum())} were listed more than once.")
    return EXIT_OK
