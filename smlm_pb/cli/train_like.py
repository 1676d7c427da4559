"""``smlm-pb train --like MOVIE``: measure a movie, show real beside simulated frames, and ask."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from smlm_pb.cli.common import (
    CAMERA_OPTIONS,
    add_camera_options,
    add_frames_option,
    add_overwrite_option,
    non_negative_int,
    positive_float,
    positive_int,
)
from smlm_pb.cli.progress import note, show_progress, warn
from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from smlm_pb.training.likeness import Likeness

_HEAD = ("", "in your movie", "in simulated frames", "trained for")
#: Options that only mean something together with --like.
_LIKE_ONLY = (
    *CAMERA_OPTIONS,
    "start",
    "name",
    "steps",
    "seed",
    "psf_sigma_px",
    "frames",
    "yes",
    "dry_run",
    "overwrite",
)


def add_like_options(parser: argparse.ArgumentParser) -> None:
    """Declare what goes with ``--like``."""
    group = parser.add_argument_group("a model for one's own movies")
    group.add_argument("--like", metavar="MOVIE", help="fine-tune a model for movies like this one")
    group.add_argument(
        "--from",
        dest="start",
        metavar="NAME|DIR",
        help="model to start from (default: default; a new network with --labels, --counts or --unlabelled)",
    )
    group.add_argument("--name", metavar="NAME", help="name of the new model (default: like- and the movie's name)")
    group.add_argument(
        "--steps",
        type=positive_int,
        metavar="N",
        help="length of the training (default: 1500; 3000 from labels or counts, 1000 with --labels and --from, 400 "
        "with --unlabelled and --from)",
    )
    group.add_argument("--seed", type=non_negative_int, metavar="N", help="seed of all randomness (default: 0)")
    group.add_argument(
        "--psf-sigma-px",
        type=positive_float,
        metavar="PX",
        help="standard deviation of the point-spread function; measured when not given",
    )
    ask = group.add_mutually_exclusive_group()
    ask.add_argument("--yes", action="store_true", help="train without asking whether the simulated frames look right")
    ask.add_argument("--dry-run", action="store_true", help="measure, write figure and experiment file, do not train")
    add_frames_option(parser)
    add_camera_options(parser)
    add_overwrite_option(parser)


def propose(args: argparse.Namespace) -> Path | None:
    """Measure, write, show, ask.

    Returns
    -------
    Path or None
        The experiment file to train from; None where nothing is to be trained now.

    Raises
    ------
    ConfigurationError
        When options contradict each other.
    """
    from smlm_pb.training.likeness import DEFAULT_STEPS, EXPERIMENT_FILE, propose_like

    _check(args)
    if args.out.is_dir() and (args.out / EXPERIMENT_FILE).exists() and not args.overwrite:
        raise ConfigurationError(
            f"{args.out / EXPERIMENT_FILE} is there already: train from it with 'smlm-pb train "
            f"{args.out / EXPERIMENT_FILE} --out {args.out}' (--resume to continue), or measure anew with --overwrite."
        )
    with show_progress(args, "measuring the movie") as on_progress:
        likeness = propose_like(
            args.like,
            start=args.start or "default",
            name=args.name,
            psf_sigma_px=args.psf_sigma_px,
            frames=args.frames,
            steps=args.steps or DEFAULT_STEPS,
            seed=args.seed or 0,
            device=args.device,
            on_progress=on_progress,
            offset_adu=args.offset_adu,
            e_per_adu=args.e_per_adu,
            em_gain=args.em_gain,
        )
    experiment, figure = likeness.save(args.out, overwrite=args.overwrite)
    _show(likeness, experiment, figure)
    if args.dry_run or not (args.yes or _agreed(figure)):
        note(args, f"nothing was trained; 'smlm-pb train {experiment} --out {args.out}' does it.")
        return None
    return experiment


def refuse_like_options(args: argparse.Namespace) -> None:
    """Refuse options of ``--like`` without it, rather than ignore them.

    Raises
    ------
    ConfigurationError
        Naming the first of them.
    """
    for name in _LIKE_ONLY:
        if getattr(args, name) not in (None, False):
            option = {"start": "from"}.get(name, name).replace("_", "-")
            raise ConfigurationError(
                f"--{option} goes with --like, --labels or --counts; the experiment file decides everything else."
            )


def _check(args: argparse.Namespace) -> None:
    if args.experiment is not None:
        raise ConfigurationError("Give either an experiment file or --like MOVIE, not both.")
    if args.method is not None:
        raise ConfigurationError(
            "--method goes with an experiment file: make one with --like MOVIE --dry-run, then train from it."
        )
    if args.resume:
        raise ConfigurationError(
            f"--resume continues from the experiment file: 'smlm-pb train {args.out / 'experiment.yaml'} --out "
            f"{args.out} --resume'."
        )


def _show(likeness: Likeness, experiment: Path, figure: Path) -> None:
    for warning in likeness.warnings:
        warn(warning)
    rows = [_HEAD, *likeness.rows()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    looked = likeness.measure.found
    print(
        f"median (5 % to 95 %) of {looked.molecules} molecules in {looked.frames} frames, found by model "
        f"'{likeness.start}' in both; they lie as: {looked.arrangement}"
    )
    print(f"written: {figure}\nwritten: {experiment}", flush=True)


def _agreed(figure: Path) -> bool:
    """Ask a person; without one nothing is taken for granted."""
    if not sys.stdin.isatty():
        return False
    try:
        answer = input(f"Look at {figure}. Do the simulated frames look like yours? Train now? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")
