"""From a finished run to a model folder: weights, card, experiment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save
from torch import nn

from smlm_pb._version import __version__
from smlm_pb.errors import OutputError
from smlm_pb.formats.output import write_together
from smlm_pb.localization.model_calibration import ModelCalibration
from smlm_pb.localization.model_card import CARD_FILE, WEIGHTS_FILE, ModelCard
from smlm_pb.training.experiment import Experiment
from smlm_pb.training.progress import without_nan
from smlm_pb.training.validation import ValidationResult


def export_model(
    network: nn.Module,
    experiment: Experiment,
    folder: Path,
    *,
    steps: int,
    seconds: float,
    validation: ValidationResult | None,
    command: str,
    calibration: ModelCalibration | None = None,
    start: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model that ``--model FOLDER`` can use.

    Parameters
    ----------
    network, experiment : Module, Experiment
        The trained network, and what it was trained on.
    folder : Path
        Where to.
    steps, seconds : int, float
        How long the training took.
    validation : ValidationResult, optional
        Its best scores.
    command : str
        Command that trained it.
    calibration : ModelCalibration, optional
        How far the network can be believed.
    start : mapping, optional
        The model that the training started from: name, hash, and its scores on the same scenes.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    scenes = experiment.scene_settings()
    content = save({k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()})
    card = ModelCard(
        name=experiment.name,
        description=experiment.description,
        network=experiment.network.model_dump(mode="json"),
        psf_sigma_px=scenes.psf_sigma_px,
        photons=_effective(scenes.photons, scenes.em_fraction),
        background_e=_effective(scenes.background_e, scenes.em_fraction),
        density_per_px2=(0.0, scenes.dense_density_per_px2[1]),
        read_noise_e=scenes.read_noise_e,
        training={
            "command": command,
            "seed": experiment.seed,
            "steps": steps,
            "hours": round(seconds / 3600, 3),
            "version": __version__,
            "method": experiment.method,
            **({"start": without_nan(dict(start))} if start else {}),
            **({"like": experiment.like} if experiment.like else {}),
        },
        accuracy={"validation": _published(validation, calibration)} if validation else {},
        weights_sha256=hashlib.sha256(content).hexdigest(),
        **(calibration or ModelCalibration()).as_card(),
        classes=[one.name for one in experiment.classes],
    )
    described = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    files = {
        WEIGHTS_FILE: content,
        "experiment.yaml": described.encode(),
        CARD_FILE: card.to_json().encode(),
    }
    try:
        write_together(folder, files)
    except OSError as error:
        raise OutputError(
            f"Model folder {folder} cannot be written ({error.strerror or error}): free some space, or choose another "
            "folder; the checkpoint is kept."
        ) from error
    return folder


def _published(validation: ValidationResult, calibration: ModelCalibration | None) -> dict[str, float]:
    """Scores for the card; the pull was that of precisions before calibration, which nobody gets to see."""
    scores = without_nan(validation.as_dict())
    if calibration is not None and calibration.precision is not None:
        scores.pop("pull", None)
    return scores


def _effective(electrons: tuple[float, float], em_fraction: float) -> tuple[float, float]:
    """A range as the network sees it: halved by the excess noise factor where all cameras multiply electrons."""
    return (electrons[0] / 2, electrons[1] / 2) if em_fraction == 1.0 else electrons
