"""``smlm-pb errors PRED TRUTH``: what each kind of error costs."""

from __future__ import annotations

import argparse
from typing import Any

from smlm_pb.cli.common import (
    existing_file,
    non_negative_float,
    positive_float,
    positive_int,
    tolerances,
)
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.findings import add_findings_options, check_findings, publish_findings

_DESCRIPTION = """\
Tell what each kind of error costs: the Jaccard index and the efficiency that would be won if only it were mended.

Molecules are missed, merged with a neighbour, or mislocalized; surplus answers are satellites (near a molecule that is
explained), duplicates (within the tolerance of it), or false. --by shows which molecules the errors happen to.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("errors", help="tell what each kind of error costs", description=_DESCRIPTION)
    parser.add_argument("pred", type=existing_file, metavar="PRED", help="table of found molecules, any known format")
    parser.add_argument("truth", type=existing_file, metavar="TRUTH", help="table of true molecules, any known format")
    parser.add_argument(
        "--tolerance-nm",
        type=positive_float,
        nargs="+",
        metavar="NM",
        help="distances of a right answer, in nm (default: 50)",
    )
    parser.add_argument(
        "--fwhm-nm",
        type=positive_float,
        metavar="NM",
        help="full width at half maximum of the point-spread function (default: from the tables, else 250)",
    )
    parser.add_argument(
        "--by",
        nargs="+",
        choices=("photons", "neighbour", "background", "border", "frame", "z"),
        default=[],
        help="break the errors down by properties of the molecules",
    )
    parser.add_argument("--bins", type=positive_int, default=4, metavar="N", help="ranges per property")
    parser.add_argument(
        "--border-nm", type=non_negative_float, default=0.0, metavar="NM", help="margin that does not count"
    )
    parser.add_argument(
        "--min-photons",
        type=non_negative_float,
        default=0.0,
        metavar="N",
        help="true molecules with fewer photons count neither as found nor as missed",
    )
    parser.add_argument(
        "--pixel-size-nm", type=positive_float, metavar="NM", help="camera pixel, where neither table knows it"
    )
    parser.add_argument("--from", dest="pred_format", metavar="FORMAT", help="format of PRED (default: recognized)")
    parser.add_argument(
        "--truth-from", dest="truth_format", metavar="FORMAT", help="format of TRUTH (default: recognized)"
    )
    add_findings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Classify, weigh and print."""
    from smlm_pb.evaluation import error_budget
    from smlm_pb.evaluation.error_table import budget_figure
    from smlm_pb.formats import read_table

    check_findings(args)
    pred = read_table(args.pred, format=args.pred_format, pixel_size_nm=args.pixel_size_nm)
    truth = read_table(args.truth, format=args.truth_format, pixel_size_nm=args.pixel_size_nm)
    budgets = [
        error_budget(
            pred,
            truth,
            tolerance_nm=tolerance,
            fwhm_nm=args.fwhm_nm,
            border_nm=args.border_nm,
            min_photons=args.min_photons,
            by=args.by,
            n_bins=args.bins,
            pixel_size_nm=args.pixel_size_nm,
        )
        for tolerance in tolerances(args.tolerance_nm or [50.0])
    ]
    report = {"pred": str(args.pred), "truth": str(args.truth), "budgets": [b.as_dict() for b in budgets]}
    text = "\n\n".join(budget.table() for budget in budgets)
    publish_findings(args, report, text, lambda: budget_figure(budgets))
    return EXIT_OK
