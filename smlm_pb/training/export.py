"""From a finished run to a model folder: weights, card, experiment."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import yaml
from safetensors.torch import save
from torch import nn

from smlm_pb._version import __version__
from smlm_pb.errors import OutputError
from smlm_pb.localization.model_card import CARD_FILE, WEIGHTS_FILE, ModelCard
from smlm_pb.localization.sigma_calibration import SigmaCalibration
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
    calibration: SigmaCalibration | None = None,
) -> Path:
    """Write a model that ``--model FOLDER`` can use.

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
        photons=scenes.photons,
        background_e=scenes.background_e,
        density_per_px2=(0.0, scenes.dense_density_per_px2[1]),
        training={
            "command": command,
            "seed": experiment.seed,
            "steps": steps,
            "hours": round(seconds / 3600, 3),
            "version": __version__,
        },
        accuracy={"validation": without_nan(validation.as_dict())} if validation else {},
        weights_sha256=hashlib.sha256(content).hexdigest(),
        sigma_calibration=calibration.as_dict() if calibration else {},
    )
    described = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    files = {
        WEIGHTS_FILE: content,
        "experiment.yaml": described.encode(),
        CARD_FILE: card.to_json().encode(),
    }
    parts = {name: folder / f".{name}.partial" for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # All of them first: a full disk must not leave the new weights beside the old card.
        for name, part in parts.items():
            part.write_bytes(files[name])
        for name, part in parts.items():
            part.replace(folder / name)
    except OSError as error:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        raise OutputError(
            f"Model folder {folder} cannot be written ({error.strerror or error}): free some space, or choose another "
            "--out; the checkpoint is kept."
        ) from error
    return folder
