"""``smlm-pb train --second-stage KIND``: train a small network that looks at found molecules again."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING

from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.progress import show_progress
from smlm_pb.cli.train_data import learns_from_data, refuse_data_options
from smlm_pb.cli.train_like import refuse_like_options
from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from smlm_pb.cli.progress import OnProgress

_HELP = {
    "readout": "smlm-pb refine LOCS MOVIE --method map --readout",
    "verifier": "smlm-pb verify LOCS MOVIE --verifier",
    "duplicates": "smlm-pb duplicates LOCS… --stage",
}


def add_second_stage_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--second-stage``."""
    parser.add_argument(
        "--second-stage",
        choices=tuple(_HELP),
        help="instead of a localizer, train a small network that looks at its molecules again: a read-out of position"
        " maps, a verifier, or one that finds duplicates; EXPERIMENT may change its settings",
    )


def run_second_stage(args: argparse.Namespace) -> int:
    """Train, say how good it is and how it is used."""
    from smlm_pb.localization.job import command_line
    from smlm_pb.training.second_stage import read_experiment, train_second_stage

    if args.like is not None or learns_from_data(args) or args.method is not None:
        raise ConfigurationError("Give either --second-stage or another way of training, not both.")
    refuse_data_options(args)
    refuse_like_options(args)
    if args.resume or args.max_minutes is not None:
        raise ConfigurationError(
            "--resume and --max-minutes do not go with --second-stage: its training takes some minutes, as a whole."
        )
    experiment = read_experiment(args.second_stage, args.experiment)
    with ExitStack() as stack:
        reports: dict[str, OnProgress] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in reports:
                reports[what] = stack.enter_context(show_progress(args, what, unit="step"))
            reports[what](done, total)

        card = train_second_stage(
            experiment, args.out, device=args.device, command=command_line(), on_progress=on_progress
        )
    for name, value in card.accuracy.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print(f"{card.kind}: {args.out}  ({_HELP[card.kind]} {args.out})")
    return EXIT_OK
