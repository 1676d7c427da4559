"""Training: one experiment file, scenes simulated on the fly, checkpoints, validation; and fine-tunes for one movie."""

from smlm_pb.training.experiment import Experiment
from smlm_pb.training.from_counts import propose_from_counts
from smlm_pb.training.from_labels import propose_from_labels
from smlm_pb.training.likeness import Likeness, propose_like
from smlm_pb.training.loop import TrainingResult, train
from smlm_pb.training.proposal import Proposal

__all__ = [
    "Experiment",
    "Likeness",
    "Proposal",
    "TrainingResult",
    "propose_from_counts",
    "propose_from_labels",
    "propose_like",
    "train",
]
