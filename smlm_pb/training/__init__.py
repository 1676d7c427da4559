"""Training: one experiment file, scenes simulated on the fly, checkpoints, validation."""

from smlm_pb.training.experiment import Experiment
from smlm_pb.training.loop import TrainingResult, train

__all__ = ["Experiment", "TrainingResult", "train"]
