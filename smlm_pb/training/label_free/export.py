"""What a label-free training leaves: the model, the PSF as file and picture, and frames with their explanation."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smlm_pb.errors import OutputError
from smlm_pb.formats.output import written_whole
from smlm_pb.simulation.sampled_psf import read_psf, write_psf
from smlm_pb.training.calibration import calibrate
from smlm_pb.training.export import export_model
from smlm_pb.training.label_free.crops import all_molecules
from smlm_pb.training.label_free.figures import draw_frames, draw_psf
from smlm_pb.training.label_free.run import LabelFreeRun
from smlm_pb.training.progress import without_nan
from smlm_pb.training.proposal import card_ranges
from smlm_pb.training.validation import ValidationResult, validate, validation_scenes

PSF_FILE, PSF_PICTURE, FRAMES_PICTURE, HISTORY_FILE = "psf.tif", "psf.png", "explained.png", "history.json"
#: More or less deviance per pixel than noise leaves: the explanation, or the camera values, are not right.
_DEVIANCE = (0.9, 1.1)
#: Molecules below which the PSF is rough; molecules per width² of the PSF from which on overlap decides.
_FEW, _CROWDED = 1000, 0.02
#: The PSF still changes from round to round.
_UNSETTLED = 0.998


@dataclass(frozen=True)
class Exported:
    """The files, and what was found out on the way."""

    model_folder: Path
    psf_file: Path
    psf_picture: Path
    frames_picture: Path
    widths_px: tuple[float, float]
    validation: ValidationResult
    warnings: tuple[str, ...]


def export_run(run: LabelFreeRun, *, command: str) -> Exported:
    """Write the model's folder.

    Parameters
    ----------
    run : LabelFreeRun
        A run with at least one round and one step.
    command : str
        For the card.

    Returns
    -------
    Exported

    Raises
    ------
    OutputError
        When the folder cannot be written.
    """
    experiment = run.trainer.experiment
    folder = run.folder / experiment.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / PSF_FILE, overwrite=True) as part:
            write_psf(part, run.kernel.sampled(), run.kernel.samples_per_px)
        with written_whole(run.folder / HISTORY_FILE, overwrite=True) as part:
            part.write_text(json.dumps(without_nan(run.history), indent=1), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror or error}): free some space.") from error
    widths = read_psf(folder / PSF_FILE).gaussian_widths()
    with written_whole(folder / PSF_PICTURE, overwrite=True) as part:
        draw_psf(run.kernel, widths, run.history, part)
    with written_whole(folder / FRAMES_PICTURE, overwrite=True) as part:
        draw_frames(run.chunks, part)
    scenes = scenes_like(run)
    with_psf = experiment.model_copy(update={"scenes": {**scenes, "psf_file": str((folder / PSF_FILE).resolve())}})
    network, device = run.trainer.averaged, run.trainer.device
    network.eval()
    unseen = validation_scenes(experiment.validation, with_psf.scene_settings(), experiment.crop_px)
    validation = validate(network, unseen, tolerance_px=experiment.validation.tolerance_px, device=device)
    # In the model's own folder the PSF is found under its name.
    beside = experiment.model_copy(update={"scenes": {**scenes, "psf_file": PSF_FILE}, "like": _told(run, widths)})
    export_model(
        network,
        beside,
        folder,
        steps=run.trainer.step,
        seconds=run.trainer.seconds,
        validation=validation,
        command=command,
        calibration=calibrate(network, with_psf, device),
        start=run.trainer.start,
    )
    warnings = _warnings(run)
    return Exported(
        folder, folder / PSF_FILE, folder / PSF_PICTURE, folder / FRAMES_PICTURE, widths, validation, warnings
    )


def scenes_like(run: LabelFreeRun) -> dict[str, Any]:
    """Scene settings of simulated frames like the movie, from what explains it; without the PSF file."""
    molecules, conditions = all_molecules(run.chunks), run.recording.conditions
    excess = conditions.camera.excess_noise_factor
    height, width = run.recording.field
    density = len(molecules.frame) / (run.recording.n_frames * height * width)
    light = molecules.photons.numpy() * excess
    spread = float(np.log(light).std())
    low, high = (float(v) for v in np.quantile(light, (0.25, 0.75)))
    level = torch.cat([state.level for _, state in run.chunks]).cpu().numpy() * excess
    shape = run.chunks[0][1].shape.cpu().numpy()
    dark, bright = float(np.quantile(level, 0.1) * shape.min()), float(np.quantile(level, 0.9) * shape.max())
    uneven = float(np.quantile(shape, 0.95) - np.quantile(shape, 0.05))
    noise = max(run.recording.read_noise_e, 0.05)
    return {
        **card_ranges(replace(conditions, psf_sigma_px=run.psf_sigma_px), light, density),
        "photons": [float(f"{max(20.0, 0.8 * low):.3g}"), float(f"{max(30.0, 1.25 * high):.3g}")],
        "photon_spreads": {"constant": 1.0} if spread < 0.2 else {"lognormal": 0.7, "constant": 0.3},
        "partial_on_fraction": 0.0 if spread < 0.2 else 0.2,
        "background_e": [float(f"{0.9 * dark:.3g}"), float(f"{1.1 * bright + 0.1:.3g}")],
        "structured_background_fraction": 0.7 if uneven > 0.3 else 0.1,
        "read_noise_e": [float(f"{0.9 * noise:.3g}"), float(f"{1.1 * noise:.3g}")],
        "gain_error": 0.0,
        "min_photons": float(f"{0.1 * float(np.median(light)) / excess:.3g}"),
        "sparse_structures": {"uniform": 1.0},
        "dense_structures": {"uniform": 1.0},
    }


def _told(run: LabelFreeRun, widths: tuple[float, float]) -> dict[str, Any]:
    """What the card tells of the movie and of the explanation."""
    last = run.history[-1]
    return {
        **(run.trainer.experiment.like or {}),
        "origin": dict(run.recording.conditions.origin),
        "learned": {
            "psf_file": PSF_FILE,
            "psf_sigma_x_px": round(widths[0], 4),
            "psf_sigma_y_px": round(widths[1], 4),
            "frames": run.recording.n_frames,
            **{name: float(f"{value:.5g}") for name, value in last.items()},
        },
    }


def _warnings(run: LabelFreeRun) -> tuple[str, ...]:
    name, last = run.recording.name, run.history[-1]
    height, width = run.recording.field
    overlap = last["molecules_per_frame"] / (height * width) * run.psf_sigma_px**2
    found = []
    if not _DEVIANCE[0] <= last["deviance_per_px"] <= _DEVIANCE[1]:
        found.append(
            f"Movie {name}: the explanation leaves {last['deviance_per_px']:.2f} times the deviance of "
            "noise: check offset_adu and e_per_adu, and whether all molecules are in focus."
        )
    if last["molecules"] < _FEW:
        found.append(f"Movie {name}: {last['molecules']} molecules tell the PSF roughly only; give a longer movie.")
    if overlap > _CROWDED:
        found.append(
            f"Movie {name}: {last['molecules_per_frame']:.3g} molecules per frame overlap so much that some were taken "
            "for one; refine a trained model (start='default'), or use it as it is."
        )
    if last["kernel_agrees"] < _UNSETTLED:
        found.append(
            f"Movie {name}: the PSF still changed in the last round (correlation {last['kernel_agrees']:.4f}): give "
            "more rounds or more steps."
        )
    return tuple(found)
