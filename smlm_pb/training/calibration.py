"""After training: how precise the network really is where it says so."""

from __future__ import annotations

import numpy as np
import torch

from smlm_pb.evaluation.matching import match
from smlm_pb.localization.crowding import crowding
from smlm_pb.localization.sigma_calibration import SigmaCalibration, Stated
from smlm_pb.networks import PointNetwork
from smlm_pb.refinement.crlb import mortensen_mle
from smlm_pb.training.experiment import Experiment
from smlm_pb.training.validation import detect, truth_of, validation_scenes

_THRESHOLD = 0.3
#: Wider than the errors that are judged, so that the matching does not cut them.
_TOLERANCE_PX = 1.0
#: Scenes of the calibration are neither those of training nor those of validation.
_SEED_SHIFT = 1_000_003


def calibrate_sigma(network: PointNetwork, experiment: Experiment, device: torch.device) -> SigmaCalibration | None:
    """Measure the curve from stated to true precision on fresh scenes of the training's range.

    Parameters
    ----------
    network : PointNetwork
        The trained network, on ``device``.
    experiment : Experiment
        Its training.
    device : torch.device
        Where the network is.

    Returns
    -------
    SigmaCalibration or None
        None where the experiment asks for no calibration.
    """
    scenes = experiment.validation.calibration_scenes
    if scenes == 0:
        return None
    settings = experiment.validation.model_copy(
        update={"scenes": scenes, "seed": experiment.validation.seed + _SEED_SHIFT}
    )
    drawn = validation_scenes(settings, experiment.scene_settings(), experiment.crop_px)
    truth = truth_of(drawn)
    found = detect(network, drawn, truth.info, device)
    widths = np.array([scene.psf_sigma_px for scene in drawn])
    likely = found["probability"] >= _THRESHOLD
    crowded = crowding(found, widths[found["frame"]])[likely]
    found = found.select(likely)
    assert truth.info.pixel_size_nm is not None
    pairs = match(found, truth, _TOLERANCE_PX * truth.info.pixel_size_nm)
    mine, true = found.select(pairs.pred), truth.select(pairs.truth)
    read_noise = np.array([scene.read_noise_e for scene in drawn])
    background = mine["background"].clip(0) + read_noise[mine["frame"]] ** 2
    stated = Stated(
        sigma_px=np.concatenate((mine["sigma_x"], mine["sigma_y"])).astype(np.float64),
        limit_px=np.tile(mortensen_mle(mine["photons"], background, widths[mine["frame"]]), 2),
        crowding=np.tile(crowded[pairs.pred], 2),
    )
    error = np.concatenate((mine["x"] - true["x"], mine["y"] - true["y"])).astype(np.float64)
    # A scene counts once however many molecules it holds: crowds must not decide what is stated of lone molecules.
    in_scene = np.bincount(mine["frame"], minlength=scenes)[mine["frame"]]
    return SigmaCalibration.fit(stated, error, np.tile(1 / in_scene, 2))
