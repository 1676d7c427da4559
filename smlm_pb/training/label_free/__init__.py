"""Label-free training: a detector and the PSF of a movie, learned together by explaining its frames."""

from smlm_pb.training.label_free.learn import LabelFreeResult, learn_unlabelled
from smlm_pb.training.label_free.settings import LabelFreeSettings

__all__ = ["LabelFreeResult", "LabelFreeSettings", "learn_unlabelled"]
