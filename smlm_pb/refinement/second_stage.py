"""Second stages as files: a small network, what it is for, and behind which model it was trained."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb.errors import ModelError, OutputError
from smlm_pb.formats.output import write_together

if TYPE_CHECKING:
    from torch import nn

STAGE_FILE = "stage.json"
WEIGHTS_FILE = "weights.safetensors"
EXPERIMENT_FILE = "experiment.yaml"
#: What a second stage can do; the shipped ones have these names.
KINDS = ("readout", "verifier", "duplicates")


@dataclass(frozen=True)
class StageCard:
    """What a user should know of a second stage, and what the program needs to build it.

    Parameters
    ----------
    kind : {"readout", "verifier", "duplicates"}
        What it does.
    name : str
        Name for people.
    network : dict
        Settings of the network.
    grid : dict
        Settings of the position map, for a read-out.
    behind : dict
        Name and hash of the model it was trained behind; empty where it needs none.
    calibration : dict
        Curves measured after training.
    training : dict
        Command, seed, steps, seconds, version, loss.
    accuracy : dict
        Measured on examples that were held out.
    weights_sha256 : str
        Hash of the weights.
    """

    kind: str
    name: str
    network: dict[str, Any]
    grid: dict[str, Any] = field(default_factory=dict)
    behind: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""


@dataclass(frozen=True)
class Stage:
    """A second stage, ready for use."""

    network: nn.Module
    card: StageCard

    def as_dict(self) -> dict[str, Any]:
        """What the history of a table says of it."""
        card = self.card
        return {"name": card.name, "kind": card.kind, "sha256": card.weights_sha256, "behind": card.behind}


def save_stage(folder: Path, network: nn.Module, card: StageCard, experiment: str) -> Path:
    """Write a second stage: weights, card and the experiment file that made it; all of them or none.

    Parameters
    ----------
    folder : Path
        Where to; made if missing.
    network, card : Module, StageCard
        What; the hash on the card is filled in.
    experiment : str
        Content of the experiment file.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    from safetensors.torch import save

    content = save({k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()})
    plain = {**asdict(card), "weights_sha256": hashlib.sha256(content).hexdigest()}
    written = {
        WEIGHTS_FILE: content,
        EXPERIMENT_FILE: experiment.encode(),
        STAGE_FILE: (json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
    }
    try:
        write_together(folder, written)
    except OSError as error:
        raise OutputError(
            f"Folder {folder} cannot be written ({error.strerror or error}): free some space, or choose another one."
        ) from error
    return folder


def load_stage(name_or_folder: str | Path, kind: str) -> Stage:
    """Load a second stage.

    Parameters
    ----------
    name_or_folder : str or Path
        Name of a shipped one (``readout``, ``verifier``, ``duplicates``), or the folder that training made.
    kind : {"readout", "verifier", "duplicates"}
        What it must do.

    Returns
    -------
    Stage

    Raises
    ------
    ModelError
        When there is none, it is damaged, or it does something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = _find(name_or_folder)
    try:
        card = StageCard(**json.loads((folder / STAGE_FILE).read_text(encoding="utf-8")))
        content = (folder / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise ModelError(f"Second stage {folder} cannot be read ({error.strerror}): train it anew.") from error
    except (ValueError, TypeError) as error:
        raise ModelError(f"{folder / STAGE_FILE} is damaged ({error}): train the second stage anew.") from error
    if card.kind != kind:
        raise ModelError(f"{folder} is a {card.kind}, not a {kind}: give the folder of a {kind}.")
    if hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise ModelError(f"Weights of {folder} are not those of its card: reinstall or train the second stage anew.")
    try:
        network = _build(card)
        network.load_state_dict(load(content))
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise ModelError(f"Weights of {folder} do not fit its card: train the second stage anew.") from error
    return Stage(network.eval().requires_grad_(False), card)


def shipped_folder() -> Path:
    """Folder of the shipped second stages."""
    return Path(str(files("smlm_pb.models")))


def _find(name_or_folder: str | Path) -> Path:
    shipped = shipped_folder() / str(name_or_folder)
    if str(name_or_folder) in KINDS and (shipped / STAGE_FILE).exists():
        return shipped
    folder = Path(name_or_folder)
    if (folder / STAGE_FILE).exists():
        return folder
    problem = f"holds no {STAGE_FILE}" if folder.is_dir() else "does not exist"
    known = ", ".join(kind for kind in KINDS if (shipped_folder() / kind / STAGE_FILE).exists())
    raise ModelError(f"Second stage {folder} {problem}: give the folder of one that was trained; shipped are {known}.")


def _build(card: StageCard) -> nn.Module:
    if card.kind == "duplicates":
        from smlm_pb.networks.candidate_lists import CandidateLists

        return CandidateLists(**card.network)
    from smlm_pb.networks.second_look import SecondLook

    return SecondLook(**card.network)
