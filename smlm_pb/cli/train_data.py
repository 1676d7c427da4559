"""``smlm-pb train --labels`` and ``--counts``: learn from what another program or a person says of a movie."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from smlm_pb.cli.common import existing_file, non_negative_float
from smlm_pb.cli.progress import note, warn
from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from smlm_pb.training.proposal import Proposal

#: Options that only mean something together with --labels, and with --labels or --counts.
_LABELS_ONLY = ("label_sigma_px", "label_frames", "subtract_shift", "simulated_share")
_BOTH = ("movie",)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Declare what goes with ``--labels`` and ``--counts``."""
    group = parser.add_argument_group("learning from labels or counts")
    group.add_argument(
        "--labels",
        type=existing_file,
        nargs="+",
        metavar="TABLE",
        help="tables of positions in MOVIE, from another program, clicked, or from another channel",
    )
    group.add_argument(
        "--counts",
        type=existing_file,
        metavar="CSV",
        help="numbers of molecules in MOVIE: frame,count or frame,y0,x0,y1,x1,count",
    )
    group.add_argument("--movie", metavar="MOVIE", help="the movie that was labelled or counted")
    group.add_argument(
        "--label-sigma-px",
        type=non_negative_float,
        nargs="+",
        metavar="PX",
        help="error of the positions per axis beyond what the table states, one for all or one per table (default: the"
        " table's own; without it, their scatter around a trained model)",
    )
    group.add_argument(
        "--label-frames",
        choices=("auto", "all", "labelled"),
        help="whether frames without labels are empty (all) or were not looked at (labelled); auto: the latter for"
        " clicks (default: auto)",
    )
    group.add_argument(
        "--subtract-shift", action="store_true", help="take off the common shift between labels and a trained model"
    )
    group.add_argument(
        "--simulated-share",
        type=_share,
        metavar="S",
        help="share of simulated scenes in each step (default: 0.5 with --from, else 0)",
    )


def learns_from_data(args: argparse.Namespace) -> bool:
    """Whether ``--labels`` or ``--counts`` was given."""
    return args.labels is not None or args.counts is not None


def propose_from_data(args: argparse.Namespace) -> Path | None:
    """Look at movie and table, write the experiment file, say what was found.

    Returns
    -------
    Path or None
        The experiment file to train from; None where nothing is to be trained now.

    Raises
    ------
    ConfigurationError
        When options contradict each other.
    """
    from smlm_pb.training import propose_from_counts, propose_from_labels

    _check(args)
    shared = {
        "start": args.start,
        "name": args.name,
        "offset_adu": args.offset_adu,
        "e_per_adu": args.e_per_adu,
        "em_gain": args.em_gain,
        "psf_sigma_px": args.psf_sigma_px,
        "frames": args.frames,
        "steps": args.steps,
        "seed": args.seed or 0,
        "device": args.device,
    }
    if args.labels is not None:
        proposal = propose_from_labels(
            args.movie,
            args.labels,
            label_sigma_px=args.label_sigma_px,
            label_frames=args.label_frames or "auto",
            subtract_shift=args.subtract_shift,
            simulated_share=args.simulated_share,
            pixel_size_nm=args.pixel_size_nm,
            **shared,
        )
    else:
        proposal = propose_from_counts(args.movie, args.counts, **shared)
    path = proposal.save(args.out, overwrite=args.overwrite)
    _show(proposal, path)
    if args.dry_run:
        note(args, f"nothing was trained; 'smlm-pb train {path} --out {args.out}' does it.")
        return None
    return path


def refuse_data_options(args: argparse.Namespace) -> None:
    """Refuse options of ``--labels`` and ``--counts`` without them, rather than ignore them.

    Raises
    ------
    ConfigurationError
        Naming the first of them.
    """
    for names, owner in ((_LABELS_ONLY, "--labels TABLE"), (_BOTH, "--labels TABLE or --counts CSV")):
        for name in names:
            if getattr(args, name) not in (None, False):
                raise ConfigurationError(f"--{name.replace('_', '-')} goes with {owner}.")


def _check(args: argparse.Namespace) -> None:
    if args.experiment is not None or args.like is not None or (args.labels is not None and args.counts is not None):
        raise ConfigurationError("Give one of: an experiment file, --like MOVIE, --labels TABLE, --counts CSV.")
    if args.movie is None:
        raise ConfigurationError("Say with --movie MOVIE which movie was labelled or counted.")
    if args.counts is not None:
        for name in _LABELS_ONLY:
            if getattr(args, name) not in (None, False):
                raise ConfigurationError(f"--{name.replace('_', '-')} goes with --labels TABLE, not with --counts.")
    if args.resume:
        raise ConfigurationError(
            f"--resume continues from the experiment file: 'smlm-pb train {args.out / 'experiment.yaml'} --out "
            f"{args.out} --resume'."
        )


def _show(proposal: Proposal, path: Path) -> None:
    for warning in proposal.warnings:
        warn(warning)
    for fact in proposal.facts:
        print(fact)
    print(f"written: {path}", flush=True)


def _share(text: str) -> float:
    value = non_negative_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more and less than 1")
    return value
