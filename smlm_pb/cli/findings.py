"""What verbs that measure something have in common: a picture on request, and text or JSON on the screen."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb.cli.common import add_overwrite_option

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_findings_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--figure --json --overwrite``."""
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the findings into FILE (.png, .pdf, .svg)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_overwrite_option(parser)


def check_findings(args: argparse.Namespace) -> None:
    """Refuse before any work a picture that could not be written."""
    from smlm_pb.analysis.figures import check_figure

    if args.figure is not None:
        check_figure(args.figure, args.overwrite)


def publish_findings(args: argparse.Namespace, report: dict[str, Any], text: str, draw: Callable[[], Figure]) -> None:
    """Write the picture that was asked for, and print the report as JSON or the text."""
    from smlm_pb.analysis.figures import save_figure

    if args.figure is not None:
        save_figure(draw(), args.figure, overwrite=args.overwrite)
    print(json.dumps(report, indent=2, allow_nan=False) if args.json else text)
