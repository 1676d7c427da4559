"""``smlm-pb watch FOLDER|FILE``: find the molecules of a movie while it is being recorded."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from smlm_pb.cli.common import (
    CAMERA_OPTIONS,
    add_camera_options,
    add_device_option,
    add_model_options,
    add_precision_option,
    add_read_noise_option,
    positive_float,
)
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.progress import note, say, show_progress

if TYPE_CHECKING:
    from smlm_pb.cli.progress import OnProgress
    from smlm_pb.localization.job import Job

_DESCRIPTION = """\
Find the molecules of a movie while it is being recorded. Frames are localized as they arrive, and the table
NAME_locs.hdf5 is written anew every few seconds; it is whole at any moment. When no frame has come for some
time, or at Ctrl-C, the rest is done, and the table is the one that 'smlm-pb localize' makes of the finished movie.

MOVIE is the TIFF file that is being written (of an OME series: its first file), or the folder into which single
frames or the parts of a series are written. It may come into being later. The last page is held back until
another one follows it.
"""

_EPILOG = """\
examples:
  smlm-pb watch recording.tif --out results --pixel-size-nm 108 --offset-adu 100 --e-per-adu 0.46
  smlm-pb watch day1/frames --out results --idle 300 --update-every 30
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("watch", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("movie", type=Path, metavar="MOVIE", help="growing file, or folder")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="folder for the results (default: .)")
    group = parser.add_argument_group("watching")
    group.add_argument(
        "--idle",
        dest="idle_s",
        type=positive_float,
        default=60.0,
        metavar="S",
        help="end when no frame has come for S seconds",
    )
    group.add_argument(
        "--update-every",
        type=positive_float,
        default=10.0,
        metavar="S",
        help="write the table anew every S seconds; less often where that takes long",
    )
    group.add_argument(
        "--poll", type=positive_float, default=0.5, metavar="S", help="look for new frames every S seconds"
    )
    group.add_argument(
        "--no-second-pass",
        action="store_true",
        help="keep what was estimated from the first frames (camera, PSF width, significance of lone molecules);"
        " otherwise the movie is localized once more at the end if the finished movie tells other values",
    )
    add_camera_options(parser)
    add_read_noise_option(parser)
    add_model_options(parser)
    add_device_option(parser)
    add_precision_option(parser)
    parser.add_argument(
        "--refine",
        choices=("off", "auto", "on"),
        help="refine molecules by maximum likelihood at the end (default: as 'smlm-pb localize' does)",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist already")
    existing.add_argument("--resume", action="store_true", help="continue a watch that was interrupted")


def run(args: argparse.Namespace) -> int:
    """Watch one movie until it is complete."""
    from smlm_pb.localization.settings import JobSettings
    from smlm_pb.localization.watching import WatchOptions, watch

    settings = JobSettings(
        **{name: getattr(args, name) for name in CAMERA_OPTIONS},
        read_noise_e=args.read_noise_e,
        psf_sigma_px=args.psf_sigma_px,
        threshold=args.threshold,
        **({} if args.refine is None else {"refine": args.refine}),
        precision=args.precision,
    )
    options = WatchOptions(
        idle_s=args.idle_s, update_s=args.update_every, poll_s=args.poll, second_pass=not args.no_second_pass
    )
    label = args.movie.name or str(args.movie)
    note(args, f"{label}: waiting for frames; Ctrl-C ends the watch.")
    with ExitStack() as stack:
        reports: list[OnProgress] = []

        def on_start(job: Job) -> None:
            note(args, f"network '{job.model.card.name}' on {job.describe_engine()}")
            note(args, f"{label}: {job.conditions.describe()}")
            reports.append(stack.enter_context(show_progress(args, label)))

        should_stop = stack.enter_context(_first_interrupt_is_a_wish(label))
        result = watch(
            args.movie,
            args.out,
            settings=settings,
            options=options,
            model=args.model,
            device=args.device,
            overwrite=args.overwrite,
            resume=args.resume,
            on_start=on_start,
            on_progress=lambda done, total: reports[-1](done, total),
            should_stop=should_stop,
        )
    step = result.provenance["result"]
    print(f"{step['frames']} frames, {step['molecules']} molecules\nwritten: {result.path}")
    return EXIT_OK


@contextmanager
def _first_interrupt_is_a_wish(label: str) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C ends the waiting, the second one the work."""
    wished = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wished.is_set
        return

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if wished.is_set():
            raise KeyboardInterrupt
        wished.set()
        say(f"{label}: no more frames are waited for; those that are there are done first (Ctrl-C again: without).")

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield wished.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
