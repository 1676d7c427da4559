"""``smlm-pb train``: train a network from an experiment file, or fine-tune one for a movie."""

from __future__ import annotations

import argparse
import math
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from smlm_pb.cli.common import add_device_option, existing_file, positive_float
from smlm_pb.cli.faults import EXIT_INTERRUPTED, EXIT_OK
from smlm_pb.cli.progress import note, show_progress
from smlm_pb.cli.train_data import add_data_options, learns_from_data, propose_from_data, refuse_data_options
from smlm_pb.cli.train_like import add_like_options, propose, refuse_like_options
from smlm_pb.cli.train_second_stage import add_second_stage_options, run_second_stage
from smlm_pb.cli.train_unlabelled import add_unlabelled_options, learn
from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from smlm_pb.cli.progress import OnProgress
    from smlm_pb.training import Experiment
    from smlm_pb.training.validation import ValidationResult

_RECENT_STEPS = 200

_DESCRIPTION = """\
Train a network on simulated molecules. The experiment file (YAML) says which microscope, samples and network;
every key it leaves out has a default. In DIR appear progress.png (redrawn at every validation), history.json, a
checkpoint to continue from, and at the end DIR/NAME: the best model, which 'smlm-pb localize --model DIR/NAME'
uses. Ctrl-C ends the training early and keeps the best model so far.

--method chooses another way of teaching than the default, mostly for comparisons: point-kernels, unnormalised, paper,
soft-jaccard, no-count, l1, count-mse, gaussian-count, decode, cross-entropy, label-smoothing, heatmap-refinement,
upsampling, deep-storm, deep-watershed. The model that results is used like any other.

With --like MOVIE there is no file to write: the ranges are measured from the movie with a model that is there, real
frames are shown beside simulated ones in DIR/likeness.png, and when you agree, that model is trained on for some
minutes. DIR/experiment.yaml holds what was decided, to be changed and trained from as any other.

With --labels TABLE --movie MOVIE the network learns from positions that another program, a hand or another channel has
given, each with its own error; with --counts CSV --movie MOVIE from numbers of molecules alone.

With --unlabelled MOVIE a network and the point-spread function are learned together, from nothing but the movie. In
DIR/NAME lie the model, psf.tif for the simulator, psf.png, and explained.png: frames beside what explains them.
"""

_EPILOG = """\
a small experiment file:
  name: my-microscope
  steps: 5000
  network: {channels: 48, blocks: 6}
  scenes: {psf_sigma_px: [1.0, 1.3], photons: [500, 5000], background_e: [5, 60]}

a model for one's own movies:
  smlm-pb train --like movie.tif --out runs/mine --offset-adu 100 --e-per-adu 0.45

a model that learns from the table of another program:
  smlm-pb train --labels thunderstorm.csv --movie movie.tif --from default --out runs/mine

a model and the PSF of a movie that nobody has labelled:
  smlm-pb train --unlabelled movie.tif --out runs/own --offset-adu 100 --e-per-adu 0.45
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("train", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "experiment",
        type=existing_file,
        nargs="?",
        metavar="EXPERIMENT",
        help="experiment file (YAML); or --like, --labels, --counts or --unlabelled",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run; made if missing")
    parser.add_argument(
        "--method",
        metavar="NAME",
        help="way of teaching, in place of the file's (default: heatmap-matching); its own defaults for network and "
        "loss hold where the file says nothing",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in DIR; the result is that of an uninterrupted one"
    )
    add_device_option(parser)
    parser.add_argument(
        "--max-minutes",
        type=positive_float,
        metavar="MIN",
        help="stop after this time with a checkpoint, to be continued with --resume",
    )
    add_second_stage_options(parser)
    add_data_options(parser)
    add_unlabelled_options(parser)
    add_like_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train, and say where the model is."""
    from smlm_pb.training import Experiment

    if args.second_stage is not None:
        return run_second_stage(args)
    if args.unlabelled is not None:
        with _polite_interrupt() as stop:
            return learn(args, stop)
    if learns_from_data(args):
        path = propose_from_data(args)
        return EXIT_OK if path is None else _train(Experiment.from_yaml(path), path, args)
    refuse_data_options(args)
    if args.like is None:
        refuse_like_options(args)
        if args.experiment is None:
            raise ConfigurationError("Give an experiment file, or a movie with --like.")
        return _train(_experiment(args), args.experiment, args)
    path = propose(args)
    return EXIT_OK if path is None else _train(Experiment.from_yaml(path), path, args)


def _experiment(args: argparse.Namespace) -> Experiment:
    """The experiment file, with the method that was asked for."""
    from smlm_pb.configuration import read_yaml
    from smlm_pb.training import Experiment

    if args.method is None:
        return Experiment.from_yaml(args.experiment)
    return Experiment.from_dict({**read_yaml(args.experiment), "method": args.method}, source=str(args.experiment))


def _train(experiment: Experiment, path: Path, args: argparse.Namespace) -> int:
    from smlm_pb.localization.job import command_line
    from smlm_pb.training import train

    recent: deque[float] = deque(maxlen=_RECENT_STEPS)

    def on_validation(step: int, result: ValidationResult) -> None:
        loss = f"loss {sum(recent) / len(recent):.4g}, " if recent else ""
        note(args, f"step {step}: {loss}{_scores(result)}")

    with ExitStack() as stack:
        stop = stack.enter_context(_polite_interrupt())
        reports: list[OnProgress] = []  # none until the first step: what is wrong is found out before

        def on_step(step: int, steps: int, terms: dict[str, float]) -> None:
            if not reports:
                reports.append(stack.enter_context(show_progress(args, experiment.name, unit="step")))
            recent.append(terms["total"])
            reports[0](step, steps)

        result = train(
            experiment,
            args.out,
            resume=args.resume,
            device=args.device,
            max_seconds=None if args.max_minutes is None else 60 * args.max_minutes,
            command=command_line(),
            on_step=on_step,
            on_validation=on_validation,
            should_stop=stop.is_set,
        )
    if result.steps < experiment.steps:
        why = "stopped" if stop.is_set() else "time is up"
        method = "" if args.method is None else f" --method {args.method}"
        note(
            args,
            f"{why} after {result.steps} of {experiment.steps} steps; the best model so far is kept, and "
            f"'smlm-pb train {path} --out {args.out}{method} --resume' continues.",
        )
    if result.validation is not None:
        note(args, f"best on unseen scenes: {_scores(result.validation)}")
    if result.start_validation is not None:
        note(args, f"the model it started from: {_scores(result.start_validation)}")
    if result.waiting_share is not None:
        note(args, f"the network waited for simulated scenes {100 * result.waiting_share:.1f} % of the time")
    print(f"model: {result.model_folder}  (smlm-pb localize --model {result.model_folder})")
    return EXIT_INTERRUPTED if stop.is_set() and result.steps < experiment.steps else EXIT_OK


def _scores(result: ValidationResult) -> str:
    if result.counts_only:
        return f"counts agree to {100 * result.jaccard:.1f} % at threshold {result.threshold:g}"
    # Without a single hit there is no error to speak of.
    error, pull = (math.nan if value is None else value for value in (result.rmse_px, result.pull))
    return (
        f"Jaccard {result.jaccard:.3f} at threshold {result.threshold:g}, position error {error:.3f} px, "
        f"error / stated precision {pull:.2f}"
    )


@contextmanager
def _polite_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, or end signal of a batch system, into a wish to stop; the second one interrupts."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
