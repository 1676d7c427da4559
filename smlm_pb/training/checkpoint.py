"""Checkpoints from which a run continues exactly: weights, averaged weights, optimiser state, history."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from smlm_pb.errors import ConfigurationError, OutputError

_TENSORS = "checkpoint.safetensors"
_FORMAT = 1


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    network: nn.Module,
    averaged: nn.Module,
    best: dict[str, Tensor] | None,
    optimizer: torch.optim.Optimizer,
    experiment: dict[str, Any],
    state: dict[str, Any],
) -> None:
    """Write everything needed to continue at ``step``; a half-written checkpoint never replaces a good one.

    Raises
    ------
    OutputError
        When the folder cannot be written or the disk is full; the previous checkpoint stays.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, module in (("network.", network), ("averaged.", averaged)):
        tensors |= {prefix + k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    tensors |= {f"best.{k}": v.detach().cpu().contiguous() for k, v in (best or {}).items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous().clone()
    metadata = {"format": _FORMAT, "step": step, "experiment": experiment, "state": state}
    temporary = folder / (_TENSORS + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One file, so that weights and step can never disagree after a crash.
        temporary.write_bytes(save(tensors, metadata={"training": json.dumps(metadata)}))
        temporary.replace(folder / _TENSORS)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"Checkpoint in {folder} cannot be written ({error.strerror or error}): free some space or choose "
            "another folder; the previous checkpoint is kept."
        ) from error


def load_checkpoint(
    folder: Path,
    *,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    experiment: dict[str, Any],
) -> tuple[int, dict[str, Tensor] | None, dict[str, Any]]:
    """Restore a run.

    Returns
    -------
    step : int
        Steps done.
    best : dict of str to Tensor, optional
        Best weights so far.
    state : dict
        Whatever the loop stored: history, best score.

    Raises
    ------
    ConfigurationError
        When there is no checkpoint, or it belongs to another experiment.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / _TENSORS
    if not path.exists():
        raise ConfigurationError(f"No checkpoint in {folder}: start the run without resume=True.")
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = json.loads((handle.metadata() or {}).get("training", "null"))
        tensors = load_file(path)
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ConfigurationError(f"Checkpoint {path} is damaged: delete it and start the run again.") from error
    if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
        raise ConfigurationError(f"{path} is not a training checkpoint of this version: start the run again.")
    _refuse_other_experiment(path, metadata["experiment"], experiment)
    try:
        _load(network, tensors, "network.")
        _load(averaged, tensors, "averaged.")
    except RuntimeError as error:
        raise ConfigurationError(
            f"{path} holds a network of another version of smlm-pb: continue with that version, or start the run again."
        ) from error
    optimizer_state = optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            optimizer_state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(optimizer_state)
    best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
    return int(metadata["step"]), best or None, metadata["state"]


def _load(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})


def _refuse_other_experiment(path: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    # How often progress is saved and how many processes simulate do not change the result.
    free = {"workers", "checkpoint_every_steps", "description"}
    stored = _with_defaults(stored)
    for key in sorted(set(stored) | set(wanted)):
        if key not in free and stored.get(key) != wanted.get(key):
            raise ConfigurationError(
                f"Checkpoint {path} was made with other settings: '{key}' is {stored.get(key)!r} there and "
                f"{wanted.get(key)!r} here; restore the setting, or start anew in another folder."
            )


def _with_defaults(experiment: dict[str, Any]) -> dict[str, Any]:
    """Settings with those that the version which wrote them did not know yet, at what they were by default."""
    from smlm_pb.training.experiment import Experiment

    try:
        return Experiment.from_dict(experiment).model_dump(mode="json")
    except ConfigurationError:  # compared as it is
        return experiment
