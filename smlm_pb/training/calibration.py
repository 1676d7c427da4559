"""After training: how likely and how precise what the network states really is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from smlm_pb.simulation.scenes import Scene
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
#: Sparse scenes are looked at so many at a time: their images take memory.
_PORTION = 4000


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
    settings = experiment.validation
    if settings.calibration_scenes == 0:
        return ModelCalibration()
    fresh = settings.model_copy(update={"scenes": settings.calibration_scenes, "seed": settings.seed + _SEED_SHIFT})
    scenes, told = experiment.scene_settings(), experiment.network.told != "psf"
    drawn = validation_scenes(fresh, scenes, experiment.crop_px)
    found = _Found.in_scenes(drawn, network, device, told=told)
    pull = found.pull()
    seen = found.compared(pull)
    sparse = replace(scenes, empty_fraction=0.0, sparse_fraction=1.0)
    for start in range(0, settings.sparse_calibration_scenes, _PORTION):
        number = min(_PORTION, settings.sparse_calibration_scenes - start)
        further = fresh.model_copy(update={"scenes": number, "seed": fresh.seed + _SEED_SHIFT})
        drawn = validation_scenes(further, sparse, experiment.crop_px, first=start)
        seen = seen.joined(_Found.in_scenes(drawn, network, device, told=told).compared(pull))
    precision = seen.precision()
    return ModelCalibration(precision, seen.statements(precision), pull)


@dataclass(frozen=True)
class _Seen:
    """Candidates (n,) of simulated scenes, and the truth about them."""

    probability: FloatArray
    sigma_px: FloatArray
    """(n, 2) along x and y, as stated."""
    photons: FloatArray
    scene: npt.NDArray[np.int64]
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

    def joined(self, other: _Seen) -> _Seen:
        """Both."""
        after = other.scene + self.scene.max(initial=-1) + 1
        mine, further = vars(self) | {"around": None}, vars(replace(other, scene=after))
        around = Surroundings(*map(np.concatenate, zip(self.around, other.around, strict=True)))
        arrays = {name: np.concatenate((one, further[name])) for name, one in mine.items() if one is not None}
        return _Seen(**arrays, around=around)

    def precision(self) -> SigmaCalibration:
        """The curves, from those that are likely."""
        near = (self.probability >= _THRESHOLD) & np.isfinite(self.error_px[:, 0])
        stated = Stated(
            sigma_px=self.sigma_px[near].T.reshape(-1),
            limit_px=np.tile(self.limit_px[near], 2),
            crowding=np.tile(self.around.crowding[near], 2),
        )
        # A scene counts once however many molecules it holds: crowds must not decide what is stated of lone molecules.
        scene = self.scene[near]
        weight = 1.0 / np.bincount(scene, minlength=1)[scene]
        return SigmaCalibration.fit(stated, self.error_px[near].T.reshape(-1), np.tile(weight, 2))

    def statements(self, precision: SigmaCalibration) -> StatementCalibration | None:
        """The small network, for what the curves leave."""
        sigma = [precision.apply(Stated(along, self.limit_px, self.around.crowding)) for along in self.sigma_px.T]
        stated = Statements(
            probability=self.probability,
            sigma_px=geometric_mean(*sigma),
            limit_px=self.limit_px,
            photons=self.photons,
            background_e=self.background_e,
            around=self.around,
            own_light=self.own_light,
            psf_sigma_px=self.psf_sigma_px,
            population=self.population,
        )
        exists = np.isfinite(self.error_px[:, 0])
        weight: FloatArray = 1.0 / np.sqrt(np.bincount(self.scene, minlength=1)[self.scene])
        return fit_statements(stated, exists, self.error_px / np.stack(sigma, axis=1), self.missed, weight)


@dataclass(frozen=True)
class _Found:
    """What the network states of scenes: candidates (n,)."""

    drawn: Sequence[Scene]
    rows: Localizations
    truth: Localizations
    psf_sigma_px: FloatArray
    background_e: FloatArray
    population: FloatArray

    @classmethod
    def in_scenes(cls, drawn: Sequence[Scene], network: PointNetwork, device: torch.device, *, told: bool) -> _Found:
        """Let the network find molecules; ``told``: what else is known of a movie is used."""
        truth = truth_of(drawn)
        rows = detect(network, drawn, truth.info, device)
        scene = rows["frame"]
        return cls(
            drawn,
            rows,
            truth,
            psf_sigma_px=np.array([one.psf_sigma_px for one in drawn])[scene],
            background_e=rows["background"].clip(0) + np.array([one.read_noise_e for one in drawn])[scene] ** 2,
            population=populations_of(drawn)[scene] if told else np.tile(UNKNOWN_POPULATION, (len(rows), 1)),
        )

    def pull(self) -> NeighbourPull | None:
        """How strongly neighbours pull each other."""
        error, _ = _compared(self.rows, self.truth)
        return fit_pull(self.rows, error, psf_sigma_px=self.psf_sigma_px, background_e=self.background_e)

    def compared(self, pull: NeighbourPull | None) -> _Seen:
        """With the truth, after the pull is taken back."""
        found, width, background = self.rows, self.psf_sigma_px, self.background_e
        near = pairs_within(found, reach_px(width))
        if pull is not None:
            x, y = pull.apart(found, psf_sigma_px=width, background_e=background, near=near)
            found = found.with_columns(x=x, y=y)
            near = near.moved(found)
        pixels = Pixels(np.stack([scene.electrons for scene in self.drawn]))
        error, missed = _compared(found, self.truth)
        return _Seen(
            probability=found["probability"],
            sigma_px=np.stack([found["sigma_x"], found["sigma_y"]], axis=1).astype(np.float64),
            photons=found["photons"],
            scene=found["frame"].astype(np.int64),
            psf_sigma_px=width,
            background_e=background,
            limit_px=mortensen_mle(found["photons"].clip(1.0), background, width),
            around=surroundings(found, width, near),
            own_light=own_light(found, pixels, psf_sigma_px=width, background_e=background, near=near),
            population=self.population,
            error_px=error,
            missed=missed,
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
