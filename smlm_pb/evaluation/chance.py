"""What a prediction would score with no skill at all: its own molecules, in the wrong frames.

On crowded structures any point on the structure lies close to some molecule. Rolling the frames keeps the
structure, the density and the number of molecules, and destroys only what the localizer was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from smlm_pb.evaluation.matching import Candidates, Matching, find_candidates, solve
from smlm_pb.evaluation.scores import NAN, CountingRule, rates

FloatArray = npt.NDArray[np.float64]


def draw_rolls(n_frames: int, n_rolls: int, seed: int) -> list[int]:
    """Draw numbers of frames to roll by: distinct, and at least a quarter of the movie away from the true frame.

    Molecules that stay on for several frames would make small rolls too good.
    """
    low, high = max(1, n_frames // 4), max(1, n_frames - n_frames // 4)
    n_possible = min(high, n_frames - 1) + 1 - low
    if n_frames < 2 or n_possible < 1:
        return []
    chosen = np.random.default_rng(seed).choice(n_possible, min(n_rolls, n_possible), replace=False)
    return sorted(low + int(k) for k in chosen)


def chance_rates(
    pred_fyx: FloatArray,
    truth_fyx: FloatArray,
    rule: CountingRule,
    tolerances_px: Sequence[float],
    matching: Matching,
    *,
    n_frames: int,
    n_rolls: int,
    seed: int,
) -> list[tuple[float, float, float]]:
    """Jaccard index, precision and recall with rolled frames, averaged over the rolls, for every tolerance.

    Returns
    -------
    list of (jaccard, precision, recall)
        NaN where the movie is too short to be rolled.
    """
    rolls = draw_rolls(n_frames, n_rolls, seed)
    if not rolls:
        return [(NAN, NAN, NAN)] * len(tolerances_px)
    found = np.zeros((len(rolls), len(tolerances_px), 3))
    for r, k in enumerate(rolls):
        rolled = pred_fyx.copy()
        rolled[:, 0] = (rolled[:, 0] + k) % n_frames
        widest = find_candidates(rolled, truth_fyx, max(tolerances_px))
        for t, tolerance_px in enumerate(tolerances_px):
            candidates = within(widest, tolerance_px)
            counts = rule.count(*_any_pairs(candidates, matching))
            precision, recall, _, jaccard = rates(*counts)
            found[r, t] = jaccard, precision, recall
    return [(float(j), float(p), float(r)) for j, p, r in found.mean(axis=0)]


def within(candidates: Candidates, tolerance: float) -> Candidates:
    """Keep the candidates no farther apart than a smaller tolerance."""
    near = candidates.distance <= tolerance
    return Candidates(
        candidates.pred[near],
        candidates.truth[near],
        candidates.distance[near],
        candidates.n_pred,
        candidates.n_truth,
    )


def count_pairs(candidates: Candidates, matching: Matching) -> int:
    """Count the pairs a matching makes, without choosing the closest ones."""
    return len(_any_pairs(candidates, matching)[0])


def _any_pairs(candidates: Candidates, matching: Matching) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows of a matching that has the right number of pairs; enough for counting, and much faster."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if matching != "hungarian":
        chosen = solve(candidates, matching)
        return candidates.pred[chosen], candidates.truth[chosen]
    ones = np.ones(len(candidates.pred), np.int8)
    graph = csr_array((ones, (candidates.pred, candidates.truth)), shape=(candidates.n_pred, candidates.n_truth))
    truth_of_pred = maximum_bipartite_matching(graph, perm_type="column")
    pred = np.flatnonzero(truth_of_pred >= 0)
    return pred, truth_of_pred[pred].astype(np.intp)
