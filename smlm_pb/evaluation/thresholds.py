"""Which probability threshold gives the best Jaccard index, measured against truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError
from smlm_pb.evaluation.calibration import checked_probability, expected_jaccard, plain_fields
from smlm_pb.evaluation.chance import count_pairs
from smlm_pb.evaluation.matching import (
    Candidates,
    Matching,
    check_tolerance,
    common_pixel_size_nm,
    find_candidates,
    positions,
)
from smlm_pb.evaluation.scores import rates

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ThresholdSweep:
    """Scores as a function of the probability threshold.

    Parameters
    ----------
    threshold : array (n,)
        Ascending.
    jaccard, precision, recall : array (n,)
        Measured at each threshold; NaN precision where nothing is left.
    expected_jaccard : array (n,)
        What the probabilities promise; equal to ``jaccard`` when they are calibrated.
    best : float
        The threshold with the best measured Jaccard index.
    best_jaccard : float
        That index.
    plateau : tuple of float
        Lowest and highest threshold whose Jaccard index lies within 0.02 of the best, without a gap.
    tolerance_nm : float
        Matching distance.
    """

    threshold: FloatArray
    jaccard: FloatArray
    precision: FloatArray
    recall: FloatArray
    expected_jaccard: FloatArray
    best: float
    best_jaccard: float
    plateau: tuple[float, float]
    tolerance_nm: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes ``None``."""
        return {**plain_fields(vars(self)), "plateau": list(self.plateau)}


def best_threshold(
    pred: Localizations,
    truth: Localizations,
    *,
    tolerance_nm: float = 50.0,
    thresholds: Sequence[float] | None = None,
    matching: Matching = "hungarian",
    pixel_size_nm: float | None = None,
) -> ThresholdSweep:
    """Sweep the probability threshold and measure the Jaccard index at each step.

    Parameters
    ----------
    pred, truth : Localizations
        The prediction needs the column ``probability`` and should hold candidates down to small ones.
    tolerance_nm : float
        Matching distance.
    thresholds : sequence of float, optional
        Thresholds to try; 0.02, 0.04 … 0.98 when not given.
    matching : {"hungarian", "greedy"}
        How pairs are made at every threshold.
    pixel_size_nm : float, optional
        Edge of a camera pixel; needed where neither table knows it.

    Returns
    -------
    ThresholdSweep

    Raises
    ------
    TableError
        When there is no column ``probability``.
    ConfigurationError
        When a threshold lies outside 0 to 1.
    """
    pixel = common_pixel_size_nm(pred, truth, pixel_size_nm)
    check_tolerance(tolerance_nm)
    steps = np.unique(np.linspace(0.02, 0.98, 49) if thresholds is None else np.asarray(thresholds, np.float64))
    if not len(steps) or steps[0] < 0 or steps[-1] > 1:
        raise ConfigurationError("thresholds must be numbers from 0 to 1, at least one.")
    probability = checked_probability(pred)
    candidates = find_candidates(positions(pred), positions(truth), tolerance_nm / pixel)
    measured = np.zeros((len(steps), 3))
    for k, step in enumerate(steps):
        kept = probability[candidates.pred] >= step
        left = Candidates(
            candidates.pred[kept], candidates.truth[kept], candidates.distance[kept], len(pred), len(truth)
        )
        n_kept, n_pairs = int(np.count_nonzero(probability >= step)), count_pairs(left, matching)
        precision, recall, _, jaccard = rates(n_pairs, n_kept - n_pairs, len(truth) - n_pairs)
        measured[k] = jaccard, precision, recall
    jaccard_curve = measured[:, 0]
    usable = np.nan_to_num(jaccard_curve, nan=-1.0)
    best = int(np.argmax(usable))
    return ThresholdSweep(
        threshold=steps,
        jaccard=jaccard_curve,
        precision=measured[:, 1],
        recall=measured[:, 2],
        expected_jaccard=np.atleast_1d(expected_jaccard(pred, steps)),
        best=float(steps[best]),
        best_jaccard=float(jaccard_curve[best]),
        plateau=_plateau(steps, usable, best),
        tolerance_nm=float(tolerance_nm),
    )


def _plateau(steps: FloatArray, jaccard: FloatArray, best: int, depth: float = 0.02) -> tuple[float, float]:
    good = jaccard >= jaccard[best] - depth
    low = high = best
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(steps) - 1 and good[high + 1]:
        high += 1
    return float(steps[low]), float(steps[high])
