"""``smlm-pb evaluate PRED TRUTH``: how well a table of molecules agrees with the known truth."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from smlm_pb.cli.common import (
    existing_file,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    tolerances,
)
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.findings import add_record_options, check_findings, publish_findings

_DESCRIPTION = """\
Compare a table of molecules with the known truth.

Within each frame predictions and true molecules are paired one to one, never farther apart than the
tolerance. J is the Jaccard index TP/(TP+FP+FN), P precision, R recall, E the efficiency of the SMLM challenge.
Beside them stands what the same predictions score by chance, with their frames rolled: on crowded structures
that is much.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser(
        "evaluate", help="compare a table of molecules with the known truth", description=_DESCRIPTION
    )
    parser.add_argument("pred", type=existing_file, metavar="PRED", help="table of found molecules, any known format")
    parser.add_argument("truth", type=existing_file, metavar="TRUTH", help="table of true molecules, any known format")
    parser.add_argument(
        "--tolerance-nm",
        type=positive_float,
        nargs="+",
        metavar="NM",
        help="largest distances of a pair, in nm (default: 25 50 100 250)",
    )
    parser.add_argument(
        "--matching",
        choices=("hungarian", "greedy"),
        default="hungarian",
        help="hungarian: most pairs, then least distance; greedy: closest first, as the SMLM challenge does",
    )
    parser.add_argument(
        "--border-nm", type=non_negative_float, default=0.0, metavar="NM", help="margin that does not count"
    )
    parser.add_argument(
        "--border-rule",
        choices=("neutral", "exclude"),
        default="neutral",
        help="molecules in the margin are paired but do not count (neutral), or are removed first (exclude)",
    )
    parser.add_argument(
        "--min-photons",
        type=non_negative_float,
        default=0.0,
        metavar="N",
        help="true molecules with fewer photons count neither as found nor as missed",
    )
    parser.add_argument("--min-probability", type=_probability, metavar="P", help="drop predictions below P first")
    parser.add_argument(
        "--pixel-size-nm",
        type=positive_float,
        metavar="NM",
        help="camera pixel, where neither table knows it",
    )
    parser.add_argument("--from", dest="pred_format", metavar="FORMAT", help="format of PRED (default: recognized)")
    parser.add_argument(
        "--truth-from", dest="truth_format", metavar="FORMAT", help="format of TRUTH (default: recognized)"
    )
    parser.add_argument("--no-chance", dest="chance", action="store_false", help="leave out the chance level")
    parser.add_argument(
        "--rolls", type=positive_int, default=3, metavar="N", help="rolls of the frames for the chance level"
    )
    parser.add_argument("--calibration", action="store_true", help="also judge the probabilities and precisions")
    parser.add_argument("--seed", type=non_negative_int, default=0, metavar="N", help="seed of the rolls")
    add_record_options(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    from smlm_pb.evaluation import DEFAULT_TOLERANCES_NM, evaluate
    from smlm_pb.formats import read_table

    tolerance_nm = tolerances(list(args.tolerance_nm or DEFAULT_TOLERANCES_NM))
    check_findings(args)
    pred = read_table(args.pred, format=args.pred_format, pixel_size_nm=args.pixel_size_nm)
    truth = read_table(args.truth, format=args.truth_format, pixel_size_nm=args.pixel_size_nm)
    if args.min_probability is not None:
        pred = pred.select(pred["probability"] >= args.min_probability)
    with warnings.catch_warnings():
        if not args.json:  # the table says the same below its rows
            warnings.simplefilter("ignore", UserWarning)
        result = evaluate(
            pred,
            truth,
            tolerance_nm=tolerance_nm,
            matching=args.matching,
            border_nm=args.border_nm,
            border_rule=args.border_rule,
            min_photons=args.min_photons,
            chance=args.chance,
            n_rolls=args.rolls,
            pixel_size_nm=args.pixel_size_nm,
            seed=args.seed,
        )
    report = {"pred": str(args.pred), "truth": str(args.truth), **result.as_dict()}
    text = result.table()
    if args.calibration:
        calibration, lines = _calibration(pred, truth, tolerance_nm, args)
        report["calibration"] = calibration
        text = "\n".join([text, "", *lines])
    publish_findings(args, report, text)
    return EXIT_OK


def _calibration(
    pred: Any, truth: Any, tolerance_nm: tuple[float, ...], args: argparse.Namespace
) -> tuple[dict[str, Any], list[str]]:
    """Reliability, best threshold and pull by density, as plain values and as lines."""
    from smlm_pb.evaluation import best_threshold, pull_by_density, reliability

    tolerance = max(tolerance_nm)
    shared = {"matching": args.matching, "pixel_size_nm": args.pixel_size_nm}
    report: dict[str, Any] = {}
    lines: list[str] = []
    if "probability" in pred:
        curve = reliability(pred, truth, tolerance_nm=tolerance, pixel_size_nm=args.pixel_size_nm)
        report["reliability"] = curve.as_dict()
        lines.append(
            f"Probabilities at {tolerance:g} nm: calibration error {curve.expected_calibration_error:.3f}; "
            f"{curve.expected_true:.1f} molecules promised, {curve.true} there."
        )
        for step in tolerance_nm:
            sweep = best_threshold(pred, truth, tolerance_nm=step, **shared)
            report.setdefault("best_threshold", []).append(sweep.as_dict())
            lines.append(
                f"Best threshold at {step:g} nm: {sweep.best:.2f} with J {sweep.best_jaccard:.3f} "
                f"(within 0.02 of it from {sweep.plateau[0]:.2f} to {sweep.plateau[1]:.2f})."
            )
    if "sigma_x" in pred and "sigma_y" in pred:
        pull = pull_by_density(pred, truth, tolerance_nm=tolerance, **shared)
        report["pull_by_density"] = pull.as_dict()
        edges = pull.density_edges_per_um2
        for b, count in enumerate(pull.count):
            if count > 1:
                lines.append(
                    f"Pull at {edges[b]:g}–{edges[b + 1]:g} molecules/µm²: standard deviation "
                    f"x {pull.std_x[b]:.2f}, y {pull.std_y[b]:.2f} ({count} molecules, error {pull.rmse_nm[b]:.1f} nm, "
                    f"reported {pull.reported_nm[b]:.1f} nm)."
                )
    return report, lines or ["No column probability, sigma_x or sigma_y: nothing to calibrate."]


def _probability(text: str) -> float:
    value = non_negative_float(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 1")
    return value
