"""The training loop: simulate, predict, compare, improve; save, judge, and keep the best."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smlm_pb.errors import Cancelled, ConfigurationError, OutputError
from smlm_pb.localization.model import load_model
from smlm_pb.networks import NetworkSettings, OffsetRegressionNetwork, PointNetwork, build_network
from smlm_pb.networks.condition import N_POPULATION
from smlm_pb.training.batches import Batch, batch_stream
from smlm_pb.training.calibration import calibrate
from smlm_pb.training.checkpoint import load_checkpoint, save_checkpoint
from smlm_pb.training.class_objective import class_objective
from smlm_pb.training.counted_movie import count_objective
from smlm_pb.training.crop_source import SourceBatches, open_source, prepare_network
from smlm_pb.training.experiment import Experiment
from smlm_pb.training.export import export_model
from smlm_pb.training.methods import METHODS
from smlm_pb.training.optimizers import make_optimizer, set_learning_rate
from smlm_pb.training.progress import write_history
from smlm_pb.training.unlabelled_movie import consistency_loss
from smlm_pb.training.validation import ValidationResult

OnStep = Callable[[int, int, dict[str, float]], None]
OnValidation = Callable[[int, ValidationResult], None]

#: Standard error of the Jaccard index over the validation scenes, roughly.
_JACCARD_NOISE = 0.01
_MAX_BAD_STEPS = 25
_NORM_WINDOW = 200


@dataclass(frozen=True)
class TrainingResult:
    """Where the model is and how good it became."""

    model_folder: Path
    steps: int
    validation: ValidationResult | None
    #: Scores of the model that the run started from, on the same scenes; None where it started from nothing.
    start_validation: ValidationResult | None = None
    #: Share of the time of the steps in which the network waited for scenes; None where no step was timed.
    waiting_share: float | None = None


@dataclass
class Waiting:
    """Whether simulation keeps up with the network.

    Parameters
    ----------
    waited_s, worked_s : float
        Time that the steps so far spent waiting for their scenes, and with them, s.
    """

    waited_s: float = 0.0
    worked_s: float = 0.0

    @property
    def share(self) -> float | None:
        """Share of the time spent waiting."""
        total = self.waited_s + self.worked_s
        return self.waited_s / total if total > 0 else None


class Trainer:
    """One run of an experiment; holds what changes from step to step."""

    def __init__(self, experiment: Experiment, folder: Path, device: torch.device) -> None:
        self.experiment, self.folder, self.device = experiment, folder, device
        self.method = METHODS[experiment.method]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(experiment.seed)
            self.network = build_network(experiment.network)
        #: The model that the run starts from, for the card; None where it starts from nothing.
        self.start: dict[str, Any] | None = None
        if experiment.start_from is not None:
            self.start = _load_start(self.network, experiment)
        prepare_network(self.network, experiment)
        self.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = make_optimizer(self.network, experiment)
        self.step = 0
        self.best: dict[str, Tensor] | None = None
        self.best_score = -math.inf
        self.history: list[dict[str, Any]] = []
        self.norms: deque[float] = deque(maxlen=_NORM_WINDOW)
        self.bad_steps = 0
        self.seconds = 0.0
        #: Sums of the loss terms since the last validation, and over how many steps.
        self.sums: dict[str, float] = {}
        self.summed_steps = 0
        self.waiting = Waiting()

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        save_checkpoint(
            self.folder,
            step=self.step,
            network=self.network,
            averaged=self.averaged,
            best=self.best,
            optimizer=self.optimizer,
            experiment=self.experiment.model_dump(mode="json"),
            state={
                "history": self.history,
                "best_score": self.best_score if self.best else None,
                "norms": list(self.norms),
                "seconds": self.seconds,
                "sums": self.sums,
                "summed_steps": self.summed_steps,
                "waiting": [self.waiting.waited_s, self.waiting.worked_s],
            },
        )

    def restore(self) -> None:
        """Continue where the last checkpoint stopped."""
        self.step, self.best, state = load_checkpoint(
            self.folder,
            network=self.network,
            averaged=self.averaged,
            optimizer=self.optimizer,
            experiment=self.experiment.model_dump(mode="json"),
        )
        self.history = state["history"]
        self.best_score = -math.inf if state["best_score"] is None else state["best_score"]
        self.norms = deque(state["norms"], maxlen=_NORM_WINDOW)
        self.seconds = state["seconds"]
        self.sums, self.summed_steps = state.get("sums", {}), state.get("summed_steps", 0)
        self.waiting = Waiting(*state.get("waiting", ()))

    def improve(self, batch: Batch) -> dict[str, float]:
        """One optimisation step; returns the loss terms."""
        experiment = self.experiment
        progress = self.step / experiment.steps
        set_learning_rate(self.optimizer, learning_rate(experiment, progress))
        batch = batch.to(self.device)
        reduced = experiment.precision == "bfloat16" and progress < experiment.float32_at
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=reduced):
            told = _jittered(batch.psf_sigma_px, experiment, self.step)
            output = self.method.predict(self.network, batch.electrons, told, batch.population)
        terms = self._terms(output, batch, progress)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        limit = 2 * experiment.gradient_clip * float(np.median(self.norms)) if self.norms else math.inf
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        if math.isfinite(norm) and math.isfinite(float(terms["total"].detach())):
            self.norms.append(norm)
            self.optimizer.step()
            self._average()
            self.bad_steps = 0
        else:
            self.bad_steps += 1
            if self.bad_steps > _MAX_BAD_STEPS:
                raise ConfigurationError(
                    f"Training diverged at step {self.step}: {_MAX_BAD_STEPS} steps in a row gave no finite gradient; "
                    "lower learning_rate, or set precision to float32, and start anew in another folder."
                )
        self.step += 1
        values = {name: float(value.detach()) for name, value in terms.items()}
        if self.bad_steps == 0:
            self.sums = {name: self.sums.get(name, 0.0) + value for name, value in values.items()}
            self.summed_steps += 1
        return values

    def _terms(self, output: Any, batch: Batch, progress: float) -> dict[str, Tensor]:
        """What is minimised, and its parts."""
        experiment = self.experiment
        if batch.n_molecules is not None:
            terms = count_objective(output, batch)
        elif experiment.classes:
            reach_px, n_classes = experiment.network.reach_px, len(experiment.classes)
            terms = class_objective(output, batch, experiment.loss, n_classes, progress=progress, reach_px=reach_px)
        else:
            terms = self.method.objective(self.network, output, batch, experiment, progress)
        if batch.views is not None and experiment.consistency is not None:
            alike = consistency_loss(self.network, batch.views, experiment.consistency, progress=progress)
            terms |= {"consistency": alike["consistency"], "total": terms["total"] + alike["weighted"]}
        return terms

    def _average(self) -> None:
        # A short memory at first: the average must not remember the random start.
        decay = min(self.experiment.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, value in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                average.lerp_(value, 1 - decay)

    def judge(self, result: ValidationResult) -> None:
        """Record a validation and keep the weights if they are the best so far."""
        loss = {name: value / max(1, self.summed_steps) for name, value in self.sums.items()}
        self.sums, self.summed_steps = {}, 0
        self.history.append(
            {
                "step": self.step,
                "seconds": self.seconds,
                "waiting_share": self.waiting.share,
                "loss": loss,
                "validation": result.as_dict(),
            }
        )
        # Of weights that the scenes cannot tell apart the later ones: positions and precisions go on getting better.
        if result.jaccard > self.best_score - _JACCARD_NOISE:
            self.best_score = max(self.best_score, result.jaccard)
            self.best = {k: v.detach().cpu().clone() for k, v in self.averaged.state_dict().items()}


def train(
    experiment: Experiment,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    max_seconds: float | None = None,
    command: str = "",
    on_step: OnStep | None = None,
    on_validation: OnValidation | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingResult:
    """Run an experiment.

    Parameters
    ----------
    experiment : Experiment
        What to train.
    out : path
        Folder for checkpoints, history, figure and, in ``out/<name>``, the model.
    resume : bool
        Continue from the checkpoint in ``out``; the result equals that of an uninterrupted run.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    max_seconds : float, optional
        Stop after this time with a checkpoint, to be resumed.
    command : str
        Command line recorded on the model's card.
    on_step, on_validation : callable, optional
        Called after each step and validation.
    should_stop : callable, optional
        Asked after each step; when true the run stops, and what was reached is saved.

    Returns
    -------
    TrainingResult

    Raises
    ------
    OutputError
        When the folder already holds a run and ``resume`` is false, or cannot be written.
    ConfigurationError
        When there is nothing to resume, the checkpoint belongs to other settings, or training diverges.
    Cancelled
        When stopped before the first step was done.
    """
    from smlm_pb.devices import choose_device

    folder = Path(out)
    if not resume and (folder / "checkpoint.safetensors").exists():
        raise OutputError(f"{folder} already holds a run: continue it with resume=True, or choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Folder {folder} cannot be made ({error.strerror}): choose another one.") from error
    trainer = Trainer(experiment, folder, choose_device(device))
    if resume:
        trainer.restore()
    _run(trainer, max_seconds, on_step, on_validation, should_stop)
    if trainer.step == 0:
        raise Cancelled("Training was stopped before its first step; nothing was saved.")
    trainer.save()
    network: PointNetwork = copy.deepcopy(trainer.averaged)
    if trainer.best is not None:
        network.load_state_dict(trainer.best)
    validation = _of_kept_weights(trainer.history)
    model_folder = export_model(
        network,
        experiment,
        folder / experiment.name,
        steps=trainer.step,
        seconds=trainer.seconds,
        validation=validation,
        command=command,
        calibration=calibrate(network, experiment, trainer.device),
        start=_start_record(trainer),
    )
    first = (_start_record(trainer) or {}).get("validation")
    return TrainingResult(
        model_folder,
        trainer.step,
        validation,
        None if first is None else ValidationResult(**first),
        trainer.waiting.share,
    )


def _of_kept_weights(history: list[dict[str, Any]]) -> ValidationResult | None:
    """Scores of the weights that :meth:`Trainer.judge` kept."""
    highest, kept = -math.inf, None
    for entry in history:
        jaccard = entry["validation"]["jaccard"]
        if jaccard > highest - _JACCARD_NOISE:
            kept = entry["validation"]
        highest = max(highest, jaccard)
    return None if kept is None else ValidationResult(**kept)


def _run(
    trainer: Trainer,
    max_seconds: float | None,
    on_step: OnStep | None,
    on_validation: OnValidation | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    experiment = trainer.experiment
    source = open_source(experiment)
    batches = SourceBatches(source, experiment, first=trainer.step, last=experiment.steps)

    def judge() -> None:
        result = source.judge(trainer.averaged, trainer.device)
        trainer.judge(result)
        write_history(trainer.folder, trainer.history)
        if on_validation is not None:
            on_validation(trainer.step, result)

    if trainer.start is not None and trainer.step == 0:
        judge()  # a fine-tune must not end worse than it began
    began = last = asked = time.monotonic()
    timed = False
    for batch in batch_stream(batches, experiment.workers):
        came = time.monotonic()
        terms = trainer.improve(batch)
        now = time.monotonic()
        trainer.seconds += now - last
        if timed:  # the first batch has to wait until the workers have started
            trainer.waiting.waited_s += came - asked
            trainer.waiting.worked_s += now - came
        last, timed = now, True
        if on_step is not None:
            on_step(trainer.step, experiment.steps, terms)
        if trainer.step % experiment.validation.every_steps == 0 or trainer.step == experiment.steps:
            judge()
        if trainer.step % experiment.checkpoint_every_steps == 0:
            trainer.save()
        out_of_time = max_seconds is not None and now - began > max_seconds
        if out_of_time or (should_stop is not None and should_stop()):
            break
        asked = time.monotonic()


def _load_start(network: nn.Module, experiment: Experiment) -> dict[str, Any]:
    """Give the network the weights of the model that the run starts from; returns what the card tells of it."""
    assert experiment.start_from is not None
    start = load_model(experiment.start_from, "cpu")
    theirs = NetworkSettings(**start.card.network)
    own = experiment.network
    told_less = N_POPULATION[own.told] < N_POPULATION[theirs.told]
    # Blocks begin as the identity: a deeper network starts with what the shallower one has learned.
    free = {
        "told": own.told,
        "reach_px": own.reach_px,
        "blocks": max(own.blocks, theirs.blocks),
        # Further kernels begin at zero.
        "mixed_kernels": theirs.mixed_kernels or own.mixed_kernels,
    }
    if told_less or theirs.model_copy(update=free) != own:
        raise ConfigurationError(
            f"start_from = '{experiment.start_from}' has the network {theirs.model_dump(mode='json')}, the experiment "
            "another: copy these values to its 'network' section."
        )
    network.load_state_dict(_told_more(start.network.state_dict(), network.state_dict()))
    if theirs.reach_px != own.reach_px and isinstance(network, OffsetRegressionNetwork):
        network.scale_offsets(theirs.reach_px / own.reach_px)
    return {"model": start.card.name, "weights_sha256": start.card.weights_sha256}


def _told_more(start: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network that is told less, for one that is told more and at first makes nothing of it."""
    grown = dict(own)
    for name, weights in start.items():
        if weights.shape == own[name].shape:
            grown[name] = weights
        else:
            grown[name] = torch.zeros_like(own[name])
            grown[name][:, : weights.shape[1]] = weights
    return grown


def _start_record(trainer: Trainer) -> dict[str, Any] | None:
    """The start of the run with its scores on the validation scenes, so that the gain can be told."""
    if trainer.start is None:
        return None
    first = trainer.history[0] if trainer.history else {"step": None}
    return {**trainer.start, **({"validation": first["validation"]} if first["step"] == 0 else {})}


def learning_rate(experiment: Experiment, progress: float) -> float:
    """Linear warm-up, then half a cosine down to a hundredth of the peak."""
    if progress < experiment.warmup:
        return experiment.learning_rate * (0.05 + 0.95 * progress / experiment.warmup)
    share = (progress - experiment.warmup) / (1 - experiment.warmup)
    return experiment.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _jittered(sigma: Tensor, experiment: Experiment, step: int) -> Tensor:
    """The PSF width as a user would tell it: not quite right."""
    noise = np.random.default_rng([experiment.seed, step, 1]).normal(size=len(sigma))
    factor = 1 + experiment.psf_sigma_jitter * torch.as_tensor(noise, dtype=sigma.dtype, device=sigma.device)
    # A large jitter must not make a width negative.
    return sigma * factor.clamp_min(0.1)
