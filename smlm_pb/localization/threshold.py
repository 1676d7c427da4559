"""The automatic threshold: keep a candidate if and only if that is expected to raise the Jaccard index.

With calibrated probabilities everything that an evaluation against truth would count has an expectation without any
truth: of the candidates kept at a threshold t, Σp are true and Σ(1-p) false; Σp of all others are molecules missed.
Adding one candidate of probability p to a selection with Jaccard index J = TP/(TP+FP+FN) raises J exactly if
p > J/(1+J): it moves p from "missed" to "true", and with probability 1-p adds a false one. The best threshold is
therefore the fixed point t = J(t)/(1+J(t)), which is the maximum of the expected Jaccard index.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError

#: Thresholds are multiples of 1/BINS: finer differences of a probability mean nothing, and sums fit in memory.
BINS = 1000
#: The rule follows J down to zero on movies where next to nothing is real, and would fill their tables with noise.
#: A row that is more than twice as likely false as true helps nobody, whatever it does to the expected index.
LOWEST_AUTOMATIC = 0.3


@dataclass(frozen=True)
class Expectation:
    """What is expected at a threshold.

    Parameters
    ----------
    threshold : float
        Smallest probability that is kept.
    automatic : bool
        Whether the threshold was chosen here.
    jaccard, precision, recall : float or None
        Expected indices; None where nothing is expected at all (a movie without candidates).
    molecules : int
        Candidates kept.
    true, false, missed : float
        Expected numbers of true molecules, of false ones, and of molecules that are not kept.
    """

    threshold: float
    automatic: bool
    jaccard: float | None
    precision: float | None
    recall: float | None
    molecules: int
    true: float
    false: float
    missed: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


class ProbabilityHistogram:
    """Counts and sums of probabilities in fine steps, gathered block by block in constant memory."""

    def __init__(self) -> None:
        self.count: npt.NDArray[np.int64] = np.zeros(BINS + 1, np.int64)
        self.mass: npt.NDArray[np.float64] = np.zeros(BINS + 1, np.float64)
        self.expected_unlisted = 0.0

    def add(self, probability: npt.NDArray[np.floating[Any]], expected_unlisted: float = 0.0) -> None:
        """Take in the probabilities of a block.

        Parameters
        ----------
        probability : array (n,)
            Candidates above the floor.
        expected_unlisted : float
            Number of molecules that are expected beside them.
        """
        # In float32, as the selection compares: a probability counts at a threshold exactly if it is kept there.
        index = _step(probability.astype(np.float32))
        self.count += np.bincount(index, minlength=BINS + 1)
        self.mass += np.bincount(index, weights=probability.astype(np.float64), minlength=BINS + 1)
        self.expected_unlisted += expected_unlisted

    def expectations(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], float]:
        """Candidates kept and their summed probability for every threshold k/BINS, and the total sum."""
        kept = np.cumsum(self.count[::-1])[::-1]
        true = np.cumsum(self.mass[::-1])[::-1]
        return kept, true, float(self.mass.sum()) + self.expected_unlisted

    def at(self, threshold: float, *, automatic: bool = False) -> Expectation:
        """What is expected at a given threshold.

        Thresholds between two steps take the figures of the next step above.
        """
        kept, true, total = self.expectations()
        k = int(np.ceil(threshold * BINS - 1e-6))
        n, hits = int(kept[k]), float(true[k])
        union = total + n - hits
        return Expectation(
            threshold=threshold,
            automatic=automatic,
            jaccard=hits / union if union > 0 else None,
            precision=hits / n if n else None,
            recall=hits / total if total > 0 else None,
            molecules=n,
            true=hits,
            false=n - hits,
            missed=total - hits,
        )

    def best(self, *, floor: float) -> Expectation:
        """The threshold with the best expected Jaccard index.

        Parameters
        ----------
        floor : float
            Candidates below were not listed, so no threshold below can be chosen; nor below :data:`LOWEST_AUTOMATIC`.

        Returns
        -------
        Expectation
            For a movie without candidates the threshold is 0.5: nothing is kept, whatever it is.
        """
        kept, true, total = self.expectations()
        union = total + kept - true
        jaccard = np.divide(true, union, out=np.zeros(BINS + 1), where=union > 0)
        lowest = int(np.ceil(max(floor, LOWEST_AUTOMATIC) * BINS - 1e-6))
        if not kept.any():
            return self.at(0.5, automatic=True)
        good = jaccard >= jaccard[lowest:].max() - 1e-12
        # Between two candidates every threshold is equally good: the middle is the least sensitive choice.
        first = last = lowest + int(np.argmax(good[lowest:]))
        while first > 0 and good[first - 1]:
            first -= 1
        while last < BINS and good[last + 1]:
            last += 1
        return self.at(max(lowest, (first + last) // 2) / BINS, automatic=True)


#: Lower edges of the steps, as the float32 that k/BINS rounds to; the last one holds certainty alone.
_EDGES: npt.NDArray[np.float32] = (np.arange(BINS + 1) / BINS).astype(np.float32)
_ENDS: npt.NDArray[np.float32] = np.append(_EDGES[1:], np.float32(np.inf))


def _step(probability: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Number of the step that holds each probability."""
    step = (probability * BINS).astype(np.intp)  # wrong by one at most, near the edges
    step -= probability < _EDGES.take(step)
    step += probability >= _ENDS.take(step)
    return step


def check_threshold(threshold: float | str) -> float | None:
    """Validate a threshold.

    Parameters
    ----------
    threshold : float or "auto"
        Smallest probability that is kept.

    Returns
    -------
    float or None
        None for the automatic one.

    Raises
    ------
    ConfigurationError
        When it is neither ``auto`` nor a probability.
    """
    if threshold == "auto":
        return None
    try:
        value = float(threshold)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 <= value <= 1 or isinstance(threshold, bool):
        raise ConfigurationError(f"threshold = {threshold!r} must lie between 0 and 1, or be 'auto'.")
    return value
