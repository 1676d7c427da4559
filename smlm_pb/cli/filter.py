"""``smlm-pb filter LOCS CONDITION``: keep the molecules that fulfil a condition."""

from __future__ import annotations

import argparse
from typing import Any

from smlm_pb.cli.common import finite_float, non_negative_int, positive_float
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.tables import add_table_options, read_input, write_output

_DESCRIPTION = """\
Keep the molecules that fulfil a condition.

  smlm-pb filter movie_locs.hdf5 "photons > 500 and sigma_nm < 20"
  smlm-pb filter movie_locs.hdf5 "5 < sigma_nm < 20 and not (frame < 100)" "photons > percentile(photons, 5)"

Conditions use the columns of the table, their lengths in nm (x_nm, sigma_nm, …), numbers, + - * / ** %,
< <= > >= == !=, and, or, not, and the functions abs, sqrt, log, log10, exp, floor, round, hypot, min, max, isfinite
and, of a whole column, mean, median, std, percentile. Several conditions are applied one after the other.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser(
        "filter", help="keep the molecules that fulfil a condition", description=_DESCRIPTION
    )
    add_table_options(parser, "_filtered")
    parser.add_argument("conditions", nargs="*", metavar="CONDITION", help="what a molecule must fulfil, in quotes")
    parser.add_argument(
        "--roi",
        type=finite_float,
        nargs=4,
        metavar=("Y0", "X0", "Y1", "X1"),
        help="keep what lies in this region, in camera pixels",
    )
    parser.add_argument(
        "--min-neighbours", type=non_negative_int, metavar="N", help="keep what has N others within --radius-nm"
    )
    parser.add_argument("--radius-nm", type=positive_float, metavar="NM", help="radius for --min-neighbours")


def run(args: argparse.Namespace) -> int:
    """Filter and write."""
    from smlm_pb.analysis.filters import filter_by, filter_neighbours, filter_region
    from smlm_pb.cli.progress import note
    from smlm_pb.errors import ConfigurationError

    if (args.min_neighbours is None) != (args.radius_nm is None):
        raise ConfigurationError("--min-neighbours and --radius-nm belong together; give both or neither.")
    if not args.conditions and args.roi is None and args.min_neighbours is None:
        raise ConfigurationError("There is no condition; give one, e.g. 'photons > 500', or --roi.")
    locs, target = read_input(args)
    kept = locs
    for condition in args.conditions:
        kept = filter_by(kept, condition)
    if args.roi is not None:
        kept = filter_region(kept, args.roi)
    if args.min_neighbours is not None:
        kept = filter_neighbours(kept, radius_nm=args.radius_nm, min_neighbours=args.min_neighbours)
    write_output(args, kept, target)
    share = f" ({100 * len(kept) / len(locs):.1f} %)" if len(locs) else ""
    note(args, f"{len(kept)} of {len(locs)} molecules kept{share}.")
    return EXIT_OK
