"""Training: one experiment file, scenes simulated on the fly, checkpoints, validation; and fine-tunes for one movie."""

from smlm_pb.training.experiment import Experiment
from smlm_pb.training.likeness import Likeness, propose_like
from smlm_pb.training.loop import TrainingResult, train

__all__ = ["Experiment", "Likeness", "TrainingResult", "propose_like", "train"]
