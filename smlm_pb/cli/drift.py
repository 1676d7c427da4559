"""``smlm-pb drift LOCS``: find the drift of the stage and remove it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from smlm_pb.cli.common import non_negative_int, positive_float, positive_int
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.tables import add_table_options, read_input, write_output

_DESCRIPTION = """\
Find the drift of the stage from the localizations themselves, and remove it.

kernel maximises the overlap of the Gaussians of all molecules, from coarse to fine, down to single frames;
correlation is redundant cross-correlation of rendered stretches of the movie; fiducials follows beads that are there
most of the time; comet asks the package comet-smlm, where it is installed. The drift is removed only if it also
brings molecules together that had no part in finding it; otherwise the table is written unchanged, and why is said.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("drift", help="find the drift of the stage and remove it", description=_DESCRIPTION)
    add_table_options(parser, "_undrifted")
    parser.add_argument(
        "--method", choices=("kernel", "correlation", "fiducials", "comet"), default="kernel", help="see above"
    )
    parser.add_argument(
        "--max-drift-nm",
        type=positive_float,
        default=600.0,
        metavar="NM",
        help="largest displacement between any two moments that is looked for",
    )
    parser.add_argument(
        "--stretches",
        type=positive_int,
        metavar="N",
        help="stretches of the movie for correlation and comet (default: 2000 localizations each, 5 to 40)",
    )
    parser.add_argument("--no-check", dest="check", action="store_false", help="remove what was found, come what may")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the path into FILE (.png, .pdf, .svg)")
    parser.add_argument("--path-out", type=Path, metavar="FILE", help="write the path as CSV: frame,dx_nm,dy_nm")
    parser.add_argument("--seed", type=non_negative_int, default=0, metavar="N", help="seed, for very large tables")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(args: argparse.Namespace) -> int:
    """Find, check, remove and write."""
    from smlm_pb.analysis import apply_drift, estimate_drift
    from smlm_pb.analysis.drift_figure import drift_figure, save_path
    from smlm_pb.analysis.figures import check_figure, save_figure
    from smlm_pb.cli.progress import note, show_progress
    from smlm_pb.formats.output import check_target

    if args.figure is not None:
        check_figure(args.figure, args.overwrite)
    if args.path_out is not None:
        check_target(args.path_out, args.overwrite)
    locs, target = read_input(args)
    with show_progress(args, args.locs.name, unit="percent") as on_progress:
        drift = estimate_drift(
            locs,
            method=args.method,
            max_drift_nm=args.max_drift_nm,
            n_stretches=args.stretches,
            check=args.check,
            seed=args.seed,
            on_progress=on_progress,
        )
    write_output(args, apply_drift(locs, drift), target, quiet=args.json)
    if args.path_out is not None:
        save_path(drift, args.path_out, overwrite=args.overwrite)
    if args.figure is not None:
        save_figure(drift_figure(drift), args.figure, overwrite=args.overwrite)
    if args.json:
        print(json.dumps({"locs": str(args.locs), "out": str(target), **drift.as_dict()}, indent=2, allow_nan=False))
    elif drift.accepted:
        error = f", remaining error at least {drift.error_nm:.1f} nm per axis" if args.check else ""
        range_x, range_y = drift.range_nm
        note(args, f"Drift of {range_x:.0f} nm along x and {range_y:.0f} nm along y removed{error}.")
    else:
        note(args, f"No drift removed: {drift.reason}.")
    return EXIT_OK
