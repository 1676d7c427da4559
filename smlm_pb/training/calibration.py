"""After training: how likely and how precise what the network states really is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from smlm_pb.evaluation.matching import match_likeliest
from smlm_pb.localization.crowding import Surroundings, reach_px, surroundings
from smlm_pb.localization.model_calibration import ModelCalibration
from smlm_pb.localization.neighbour_pull import NeighbourPull
from smlm_pb.localization.neighbours import pairs_within, places, tree_of
from smlm_pb.localization.own_light import Pixels, own_light
from smlm_pb.localization.sigma_calibration import SigmaCalibration, Stated
from smlm_pb.localization.statement_calibration import (
    MISSED_WITHIN_PX,
    TOLERANCE_PX,
    StatementCalibration,
    Statements,
    geometric_mean,
)
from smlm_pb.localizations import Localizations
from smlm_pb.networks import PointNetwork
from smlm_pb.population import UNKNOWN_POPULATION
from smlm_pb.refinement.crlb import mortensen_mle
from smlm_pb.training.batches import populations_of
from smlm_pb.training.experiment import Experiment
from smlm_pb.training.pull_fit import fit_pull
from smlm_pb.training.statement_fit import fit_statements
from smlm_pb.training.validation import detect, truth_of, validation_scenes

FloatArray = npt.NDArray[np.float64]

#: Precision is judged of candidates that a table is likely to hold.
_THRESHOLD = 0.3
#: Scenes of the calibration are neither those of training nor those of validation.
_SEED_SHIFT = 1_000_003


def calibrate(network: PointNetwork, experiment: Experiment, device: torch.device) -> ModelCalibration:
    """Measure on fresh scenes of the training's range how far the network can be believed.

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
    ModelCalibration
        Without anything where the experiment asks for no calibration.
    """
    scenes = experiment.validation.calibration_scenes
    if scenes == 0:
        return ModelCalibration()
    seen = _look(network, experiment, device, scenes)
    precision = seen.precision()
    return ModelCalibration(precision, seen.statements(precision), seen.pull)


@dataclass(frozen=True)
class _Seen:
    """Candidates (n,) of simulated scenes, and the truth about them."""

    found: Localizations
    psf_sigma_px: FloatArray
    background_e: FloatArray
    limit_px: FloatArray
    around: Surroundings
    own_light: FloatArray
    population: FloatArray
    error_px: FloatArray
    """(n, 2) along x and y; NaN where there is no true molecule that no likelier candidate stands for."""
    missed: FloatArray
    """(n,) true molecules nearby that no candidate stands for."""
    pull: NeighbourPull | None
    """What was taken back of the places that the network stated."""

    def precision(self) -> SigmaCalibration:
        """The curves, from those that are likely."""
        likely = self.found["probability"] >= _THRESHOLD
        near = likely & np.isfinite(self.error_px[:, 0])
        stated = Stated(
            sigma_px=np.concatenate([self.found[name][near].astype(np.float64) for name in ("sigma_x", "sigma_y")]),
            limit_px=np.tile(self.limit_px[near], 2),
            crowding=np.tile(self.around.crowding[near], 2),
        )
        # A scene counts once however many molecules it holds: crowds must not decide what is stated of lone molecules.
        frame = self.found["frame"][near]
        weight = 1.0 / np.bincount(frame, minlength=1)[frame]
        return SigmaCalibration.fit(stated, self.error_px[near].T.reshape(-1), np.tile(weight, 2))

    def statements(self, precision: SigmaCalibration) -> StatementCalibration | None:
        """The small network, for what the curves leave."""
        axes = ("sigma_x", "sigma_y")
        sigma = [precision.apply(Stated(self.found[n], self.limit_px, self.around.crowding)) for n in axes]
        stated = Statements(
            probability=self.found["probability"],
            sigma_px=geometric_mean(*sigma),
            limit_px=self.limit_px,
            photons=self.found["photons"],
            background_e=self.background_e,
            around=self.around,
            own_light=self.own_light,
            psf_sigma_px=self.psf_sigma_px,
            population=self.population,
        )
        exists = np.isfinite(self.error_px[:, 0])
        frame = self.found["frame"]
        weight: FloatArray = 1.0 / np.sqrt(np.bincount(frame, minlength=1)[frame])
        return fit_statements(stated, exists, self.error_px / np.stack(sigma, axis=1), self.missed, weight)


def _look(network: PointNetwork, experiment: Experiment, device: torch.device, scenes: int) -> _Seen:
    """Let the network find molecules in fresh scenes, and match them with the truth."""
    settings = experiment.validation.model_copy(
        update={"scenes": scenes, "seed": experiment.validation.seed + _SEED_SHIFT}
    )
    drawn = validation_scenes(settings, experiment.scene_settings(), experiment.crop_px)
    truth = truth_of(drawn)
    found = detect(network, drawn, truth.info, device)
    frame = found["frame"]
    told = experiment.network.told != "psf"
    width = np.array([scene.psf_sigma_px for scene in drawn])[frame]
    background = found["background"].clip(0) + np.array([scene.read_noise_e for scene in drawn])[frame] ** 2
    pull = fit_pull(found, _compared(found, truth)[0], psf_sigma_px=width, background_e=background)
    near = pairs_within(found, reach_px(width))
    if pull is not None:
        x, y = pull.apart(found, psf_sigma_px=width, background_e=background, near=near)
        found = found.with_columns(x=x, y=y)
        near = near.moved(found)
    pixels = Pixels(np.stack([scene.electrons for scene in drawn]))
    return _Seen(
        found,
        width,
        background,
        mortensen_mle(found["photons"].clip(1.0), background, width),
        surroundings(found, width, near),
        own_light(found, pixels, psf_sigma_px=width, background_e=background, near=near),
        populations_of(drawn)[frame] if told else np.tile(UNKNOWN_POPULATION, (len(found), 1)),
        *_compared(found, truth),
        pull,
    )


def _compared(found: Localizations, truth: Localizations) -> tuple[FloatArray, FloatArray]:
    """Errors (n, 2) along x and y of candidates that stand for a molecule, px, and missed molecules (n,) near each.

    Candidates are taken from the likeliest down, and one is right if it adds a hit to those before it: that is what a
    threshold on the probability has to know. With the nearest candidate for each molecule instead, one that hardly
    believes in itself would be called right, and the likely one beside it wrong.
    """
    assert truth.info.pixel_size_nm is not None
    pairs = match_likeliest(found, truth, TOLERANCE_PX * truth.info.pixel_size_nm)
    error = np.full((len(found), 2), np.nan)
    for axis, name in enumerate("xy"):
        error[pairs.pred, axis] = found[name][pairs.pred] - truth[name][pairs.truth]
    missed = np.flatnonzero(np.bincount(pairs.truth, minlength=len(truth)) == 0)
    distance, nearest = tree_of(found).query(places(truth)[missed], distance_upper_bound=MISSED_WITHIN_PX)
    near = nearest[np.isfinite(distance)]
    return error, np.bincount(near, minlength=len(found)).astype(np.float64)
