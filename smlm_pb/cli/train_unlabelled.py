"""``smlm-pb train --unlabelled MOVIE``: learn a detector and the PSF of a movie together, without labels."""

from __future__ import annotations

import argparse
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from smlm_pb.cli.faults import EXIT_INTERRUPTED, EXIT_OK
from smlm_pb.cli.progress import note, show_progress, warn
from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from smlm_pb.cli.progress import OnProgress
    from smlm_pb.training.label_free import LabelFreeResult

#: Options of the other ways to train that mean nothing here.
_NOT_HERE = ("experiment", "method", "like", "labels", "counts", "movie", "yes", "dry_run", "overwrite")


def add_unlabelled_options(parser: argparse.ArgumentParser) -> None:
    """Declare what goes with ``--unlabelled``."""
    group = parser.add_argument_group("learning without labels")
    group.add_argument(
        "--unlabelled",
        metavar="MOVIE",
        help="learn a detector and the PSF together from this movie; with --from, refine a trained model",
    )


def learn(args: argparse.Namespace, stop: threading.Event) -> int:
    """Train, and say where model and PSF are.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed command line.
    stop : threading.Event
        Set when the user wants to stop.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    ConfigurationError
        When options contradict each other.
    """
    from smlm_pb.localization.job import command_line
    from smlm_pb.training.label_free import LabelFreeSettings, learn_unlabelled

    _check(args)
    settings = LabelFreeSettings.of(started=args.start is not None, steps=args.steps, seed=args.seed or 0)
    with ExitStack() as stack:
        reports: list[OnProgress] = []  # none until the first round is done: what is wrong is found out before

        def on_round(entry: dict[str, Any]) -> None:
            note(
                args,
                f"round {entry['round']} of {settings.rounds}: {entry['molecules_per_frame']:.3g} molecules per frame "
                f"of {entry['photons']:.4g} e⁻, deviance per pixel {entry['deviance_per_px']:.3f} (1: only noise is "
                f"left), PSF agrees with the last one to {entry['kernel_agrees']:.4f}",
            )
            if not reports:
                reports.append(stack.enter_context(show_progress(args, "learning without labels", unit="step")))

        def on_step(step: int, steps: int, terms: dict[str, float]) -> None:
            if not reports:
                reports.append(stack.enter_context(show_progress(args, "learning without labels", unit="step")))
            reports[0](step, steps)

        result = learn_unlabelled(
            args.unlabelled,
            args.out,
            start=args.start,
            name=args.name,
            offset_adu=args.offset_adu,
            e_per_adu=args.e_per_adu,
            em_gain=args.em_gain,
            psf_sigma_px=args.psf_sigma_px,
            frames=args.frames,
            settings=settings,
            resume=args.resume,
            device=args.device,
            max_seconds=None if args.max_minutes is None else 60 * args.max_minutes,
            command=command_line(),
            on_step=on_step,
            on_round=on_round,
            should_stop=stop.is_set,
        )
    unfinished = result.steps < settings.steps
    if unfinished:
        why = "stopped" if stop.is_set() else "time is up"
        note(args, f"{why} after {result.steps} of {settings.steps} steps; the same command with --resume continues.")
    _show(args, result)
    return EXIT_INTERRUPTED if stop.is_set() and unfinished else EXIT_OK


def _check(args: argparse.Namespace) -> None:
    for name in _NOT_HERE:
        if getattr(args, name) not in (None, False):
            option = "an experiment file" if name == "experiment" else f"--{name.replace('_', '-')}"
            raise ConfigurationError(f"--unlabelled MOVIE does not go with {option}: leave one of them out.")


def _show(args: argparse.Namespace, result: LabelFreeResult) -> None:
    for warning in result.warnings:
        warn(warning)
    scores = result.validation
    note(
        args,
        f"on simulated frames with the learned PSF: Jaccard {scores.jaccard:.3f} at threshold {scores.threshold:g}, "
        f"position error {scores.rmse_px:.3f} px",
    )
    print(
        f"PSF: {result.psf_file}, a width (sigma) of {result.psf_sigma_x_px:.3f} px along x and "
        f"{result.psf_sigma_y_px:.3f} px along y, from {result.molecules} molecules"
    )
    print(f"look at: {result.psf_picture} and {result.frames_picture}")
    print(f"model: {result.model_folder}  (smlm-pb localize --model {result.model_folder})")
