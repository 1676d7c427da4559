"""Models: the shipped ones by name, one's own by folder."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from smlm_pb.errors import ModelError
from smlm_pb.localization.model_card import CARD_FILE, WEIGHTS_FILE, ModelCard

if TYPE_CHECKING:
    import torch

    from smlm_pb.networks import PointNetwork

#: The model used when none is named.
DEFAULT_MODEL = "default"


@dataclass(frozen=True)
class Model:
    """A network with its card, on a device, ready to predict."""

    network: PointNetwork
    card: ModelCard
    device: torch.device


def models_folder() -> Path:
    """Folder of the shipped models."""
    return Path(str(files("smlm_pb.models")))


def list_models() -> list[ModelCard]:
    """Cards of the shipped models, the default one first.

    Returns
    -------
    list of ModelCard
    """
    folders = sorted(p.parent for p in models_folder().glob(f"*/{CARD_FILE}"))
    cards = [ModelCard.load(folder) for folder in folders]
    return sorted(cards, key=lambda card: (card.name != DEFAULT_MODEL, card.name))


def find_model(name_or_folder: str | Path) -> Path:
    """Folder of a model.

    Parameters
    ----------
    name_or_folder : str or Path
        Name of a shipped model, a folder that holds a card and weights, or the folder of the run that made it.

    Raises
    ------
    ModelError
        When there is none; the known names are listed.
    """
    if not isinstance(name_or_folder, (str, os.PathLike)):
        raise ModelError(
            f"A {type(name_or_folder).__name__} was given as a model: give the name of a shipped one, e.g. "
            f"'{DEFAULT_MODEL}', or a model's folder."
        )
    shipped = models_folder() / str(name_or_folder)
    if (shipped / CARD_FILE).exists() and Path(str(name_or_folder)).name == str(name_or_folder):
        return shipped
    folder = Path(name_or_folder)
    if (folder / CARD_FILE).exists():
        return folder
    made_by_run = [card.parent for card in folder.glob(f"*/{CARD_FILE}")] if folder.is_dir() else []
    if len(made_by_run) == 1:
        return made_by_run[0]
    if folder.is_dir():
        raise ModelError(f"{folder} is not a model: it holds no {CARD_FILE}; give the folder that training made.")
    known = ", ".join(card.name for card in list_models()) or "none"
    raise ModelError(f"Unknown model '{name_or_folder}': shipped models are {known}; or give a model's folder.")


def load_model(name_or_folder: str | Path = DEFAULT_MODEL, device: str = "auto") -> Model:
    """Load a model.

    Parameters
    ----------
    name_or_folder : str or Path
        Name of a shipped model (see :func:`list_models`) or the folder of one's own.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        When the model is unknown, damaged or of another kind.
    """
    import torch
    from pydantic import ValidationError
    from safetensors import SafetensorError
    from safetensors.torch import load

    from smlm_pb.devices import choose_device
    from smlm_pb.networks import NetworkSettings, build_network

    folder = find_model(name_or_folder)
    card = ModelCard.load(folder)
    weights = folder / WEIGHTS_FILE
    try:
        content = weights.read_bytes()
        tensors = load(content)
    except FileNotFoundError:
        raise ModelError(f"Model {folder} has no {WEIGHTS_FILE}: reinstall or retrain the model.") from None
    except OSError as error:
        raise ModelError(f"Weights {weights} cannot be read ({error.strerror}): check the file.") from error
    except SafetensorError as error:
        raise ModelError(f"Weights {weights} are damaged: reinstall or retrain the model.") from error
    if card.weights_sha256 and hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise ModelError(f"Weights {weights} are not those of the model's card: reinstall or retrain the model.")
    try:
        network = build_network(NetworkSettings(**card.network))
        network.load_state_dict(tensors)
    except (ValidationError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"Weights {weights} do not fit the network on the card: they come from another program."
        ) from error
    chosen = choose_device(device)
    network.to(device=chosen, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
    return Model(network, card, chosen)
