"""``smlm-pb run PIPELINE.yaml``: from a movie to a report, as one file describes."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from smlm_pb.cli.common import existing_file
from smlm_pb.cli.faults import EXIT_OK

_DESCRIPTION = """\
Localize, filter, correct drift, link, judge, draw and report, as one file describes.

Each step stands in the file under its name with the options of its command: the same names, units and defaults, '_'
for '-'. A step that is left out is not done. The file is checked, and every step rehearsed, before anything starts;
the table after each step is kept.
"""

_EPILOG = """\
example of a file:
  movie: movie.tif
  out: results
  localize: {pixel_size_nm: 100, offset_adu: 100, e_per_adu: 0.5}
  filter: {conditions: ['photons > 300', 'sigma_nm < 30']}
  link: {max_dark_frames: 1}
  quality:
  residuals:
  twin:
  superposition:
  render: {pixel_size_nm: 10}
  report:
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("run", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("pipeline", type=existing_file, metavar="PIPELINE", help="YAML file")
    parser.add_argument("--movie", metavar="MOVIE", help="movie to use instead of the one in the file")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results instead of the one in the file")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist already")
    existing.add_argument(
        "--resume", action="store_true", help="continue what was interrupted; a table that is complete is kept"
    )


def run(args: argparse.Namespace) -> int:
    """Check, run, and name what was written."""
    from smlm_pb.analysis.pipeline_file import Pipeline
    from smlm_pb.analysis.pipeline_run import run_pipeline
    from smlm_pb.cli.progress import note, show_progress

    pipeline = Pipeline.from_yaml(args.pipeline, movie=args.movie)
    note(args, f"{args.pipeline.name}: {', '.join(pipeline.steps)}")
    with ExitStack() as stack:
        doing = [""]
        bars: list[Any] = []

        def on_begin(name: str) -> None:
            doing[0] = name

        def on_progress(done: int, total: int) -> None:
            if not bars:
                unit = "percent" if doing[0] == "drift" else "frame"
                bars.append(stack.enter_context(show_progress(args, doing[0], unit=unit)))
            bars[0](done, total)

        def on_step(name: str, text: str) -> None:
            stack.close()
            bars.clear()
            note(args, f"{name}: {text}.")

        result = run_pipeline(
            pipeline,
            out_dir=args.out,
            overwrite=args.overwrite,
            resume=args.resume,
            on_begin=on_begin,
            on_step=on_step,
            on_progress=on_progress,
        )
    for name, path in result.files.items():
        print(f"{name + ':':<10} {path}")
    return EXIT_OK
