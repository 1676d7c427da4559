"""From a finished run to a model folder: weights, card, experiment."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml
from safetensors.torch import save
from torch import nn

from smlm_pb._version import __version__
from smlm_pb.errors import OutputError
from smlm_pb.localization.model_card import WEIGHTS_FILE, ModelCard
from smlm_pb.training.experiment import Experiment
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
        accuracy={"validation": validation.as_dict()} if validation else {},
        weights_sha256=hashlib.sha256(content).hexdigest(),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS_FILE).write_bytes(content)
        card.save(folder)
        (folder / "experiment.yaml").write_text(
            yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )
    except OSError as error:
        raise OutputError(
            f"Model folder {folder} cannot be written ({error.strerror}): choose another --out."
        ) from error
    return folder
