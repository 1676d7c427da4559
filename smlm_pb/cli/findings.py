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


def add_record_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--json --out --overwrite``, for findings that are no picture."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON to FILE as well")
    add_overwrite_option(parser)


def check_findings(args: argparse.Namespace) -> None:
    """Refuse before any work a picture or a record that could not be written."""
    if getattr(args, "figure", None) is not None:
        from smlm_pb.analysis.figures import check_figure

        check_figure(args.figure, args.overwrite)
    if getattr(args, "out", None) is not None:
        from smlm_pb.formats.output import check_target

        check_target(args.out, args.overwrite)


def publish_findings(
    args: argparse.Namespace, report: dict[str, Any], text: str, draw: Callable[[], Figure] | None = None
) -> None:
    """Write the picture or the record that was asked for, and print the report as JSON or the text.

    Without ``draw`` the verb has the options of :func:`add_record_options`, else those of
    :func:`add_findings_options`.
    """
    as_json = json.dumps(report, indent=2, allow_nan=False)
    if draw is None:
        if args.out is not None:
            from smlm_pb.formats.output import written_whole

            with written_whole(args.out, args.overwrite) as temporary:
                temporary.write_text(as_json + "\n", encoding="utf-8")
    elif args.figure is not None:
        from smlm_pb.analysis.figures import save_figure

        save_figure(draw(), args.figure, overwrite=args.overwrite)
    print(as_json if args.json else text)
