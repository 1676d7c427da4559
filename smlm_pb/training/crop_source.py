"""Where the crops of a training come from: simulated scenes, a labelled movie, or a counted one.

Whatever the source, batch ``k`` of a run is the same whoever draws it and whenever; crops of a movie without labels can
be mixed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from smlm_pb.errors import ConfigurationError
from smlm_pb.networks import OffsetRegressionNetwork
from smlm_pb.simulation.scenes import draw_scene
from smlm_pb.training.batches import Batch, collate
from smlm_pb.training.counted_movie import CountedMovie, read_out_cells
from smlm_pb.training.labelled_movie import LabelledMovie
from smlm_pb.training.methods import DEFAULT_METHOD
from smlm_pb.training.unlabelled_movie import UnlabelledMovie
from smlm_pb.training.validation import ValidationResult, validate, validation_scenes

if TYPE_CHECKING:
    from smlm_pb.networks import PointNetwork
    from smlm_pb.training.experiment import Experiment


class CropSource(Protocol):
    """Draws batches to learn from and judges a network by what it does not learn from."""

    def draw(self, rng: np.random.Generator) -> Batch:
        """One batch."""

    def judge(self, network: PointNetwork, device: torch.device) -> ValidationResult:
        """Score a network; the same crops each time."""


class SimulatedScenes:
    """Scenes of the experiment's range, and others of the same range to judge by."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.settings = experiment, experiment.scene_settings()
        self.unseen = validation_scenes(experiment.validation, self.settings, experiment.crop_px)

    def draw(self, rng: np.random.Generator) -> Batch:
        """One batch."""
        experiment = self.experiment
        return collate([draw_scene(rng, self.settings, experiment.crop_px) for _ in range(experiment.batch_size)])

    def judge(self, network: PointNetwork, device: torch.device) -> ValidationResult:
        """Score a network on scenes it never saw."""
        tolerance_px = self.experiment.validation.tolerance_px
        return validate(network, self.unseen, tolerance_px=tolerance_px, device=device)


def open_source(experiment: Experiment) -> CropSource:
    """Open what the experiment learns from.

    Raises
    ------
    MovieError, TableError, ConfigurationError
        When the movie, a table or a setting cannot be used.
    """
    data = experiment.data
    counted = data is not None and data.counts is not None
    if experiment.method != DEFAULT_METHOD and (counted or experiment.consistency is not None):
        raise ConfigurationError(
            f"method = '{experiment.method}' does not learn from {'counts' if counted else 'consistency'}: leave it "
            "out, or learn from labels."
        )
    if experiment.scene_settings().context_frames and (data is not None or experiment.consistency is not None):
        raise ConfigurationError(
            "scenes.context_frames = 1 goes with simulated scenes only: set it to 0, or leave out data and consistency."
        )
    if data is None:
        return SimulatedScenes(experiment)
    return LabelledMovie(experiment) if data.labels else CountedMovie(experiment)


class SourceBatches(Dataset[Batch]):
    """Batches ``first`` to ``last`` of a run, each seeded by (seed, number)."""

    def __init__(self, source: CropSource, experiment: Experiment, *, first: int, last: int) -> None:
        self.source, self.seed, self.first, self.last = source, experiment.seed, first, last
        self.unlabelled = None if experiment.consistency is None else UnlabelledMovie(experiment)

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Batch:
        number = self.first + index
        batch = self.source.draw(np.random.default_rng([self.seed, number]))
        if self.unlabelled is None:
            return batch
        return batch._replace(views=self.unlabelled.draw(np.random.default_rng([self.seed, number, 2])))


def prepare_network(network: PointNetwork, experiment: Experiment) -> None:
    """Silence the outputs of an untrained network that this kind of data cannot teach."""
    counted = experiment.data is not None and experiment.data.counts is not None
    if counted and experiment.start_from is None and isinstance(network, OffsetRegressionNetwork):
        read_out_cells(network)
