"""The explained movie in a file, so that a stopped training continues exactly."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from smlm_pb.errors import ConfigurationError, OutputError
from smlm_pb.formats.output import whole_file
from smlm_pb.training.label_free.kernel import Kernel
from smlm_pb.training.label_free.molecules import Frames, Molecules, Reconstruction
from smlm_pb.training.label_free.reconstruct import Chunk

_STEM = "explained"


def save_explained(folder: Path, rounds: int, chunks: Sequence[Chunk], history: list[dict[str, Any]]) -> None:
    """Write the state after some rounds; states of other rounds stay.

    Raises
    ------
    OutputError
        When the folder cannot be written.
    """
    from safetensors.torch import save

    kernel = chunks[0][1].kernel
    tensors = {"kernel": kernel.coefficients, "shape": chunks[0][1].shape}
    for index, (_, state) in enumerate(chunks):
        tensors |= {f"{index}.{name}": value for name, value in state.molecules._asdict().items()}
        tensors[f"{index}.level"] = state.level
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    told = json.dumps({"samples_per_px": kernel.samples_per_px, "chunks": len(chunks), "history": history})
    target = _path(folder, rounds)
    try:
        with whole_file(target) as part:
            part.write_bytes(save(plain, metadata={"label_free": told}))
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror or error}): free some space and continue with resume=True."
        ) from error


def load_explained(folder: Path, rounds: int, frames: Sequence[Frames]) -> tuple[list[Chunk], list[dict[str, Any]]]:
    """Read the state after some rounds.

    Parameters
    ----------
    folder : Path
        The run.
    rounds : int
        After how many rounds.
    frames : sequence of Frames
        The movie, in the parts in which it was explained.

    Returns
    -------
    chunks, history : list
        As they were saved.

    Raises
    ------
    ConfigurationError
        When the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    path = _path(folder, rounds)
    device = frames[0].electrons.device
    try:
        with safe_open(path, framework="pt") as handle:
            told = json.loads((handle.metadata() or {})["label_free"])
        tensors = {name: value.to(device) for name, value in load_file(path).items()}
        kernel = Kernel(tensors["kernel"].cpu(), told["samples_per_px"])
        chunks = [
            (part, _reconstruction(tensors, f"{index}.", kernel))
            for index, part in zip(range(told["chunks"]), frames, strict=True)
        ]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ConfigurationError(f"{path} is missing or damaged: start the run again in another folder.") from error
    return chunks, told["history"]


def forget_explained(folder: Path, *, before: int) -> None:
    """Delete the states of earlier rounds."""
    for path in folder.glob(f"{_STEM}-*.safetensors"):
        number = path.stem.removeprefix(f"{_STEM}-")
        if number.isdigit() and int(number) < before:
            with contextlib.suppress(OSError):
                path.unlink()


def _path(folder: Path, rounds: int) -> Path:
    return folder / f"{_STEM}-{rounds}.safetensors"


def _reconstruction(tensors: dict[str, torch.Tensor], prefix: str, kernel: Kernel) -> Reconstruction:
    molecules = Molecules(*(tensors[prefix + name] for name in Molecules._fields))
    return Reconstruction(kernel, molecules, tensors[prefix + "level"], tensors["shape"])
