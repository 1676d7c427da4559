"""How good is a table of molecules: matching, scores, chance level, calibration."""

from smlm_pb.evaluation.assessment import DEFAULT_TOLERANCES_NM, Evaluation, evaluate
from smlm_pb.evaluation.calibration import (
    PullByDensity,
    Reliability,
    expected_jaccard,
    pull_by_density,
    reliability,
)
from smlm_pb.evaluation.conventions import ConventionCheck, check_conventions
from smlm_pb.evaluation.error_budget import ErrorBudget, error_budget
from smlm_pb.evaluation.matching import Pairs, match, match_likeliest
from smlm_pb.evaluation.scores import ToleranceScores
from smlm_pb.evaluation.thresholds import ThresholdSweep, best_threshold

__all__ = [
    "DEFAULT_TOLERANCES_NM",
    "ConventionCheck",
    "ErrorBudget",
    "Evaluation",
    "Pairs",
    "PullByDensity",
    "Reliability",
    "ThresholdSweep",
    "ToleranceScores",
    "best_threshold",
    "check_conventions",
    "error_budget",
    "evaluate",
    "expected_jaccard",
    "match",
    "match_likeliest",
    "pull_by_density",
    "reliability",
]
