"""One molecule, several candidates: put together what neighbouring pixels say about the same molecule.

Every pixel speaks for the molecules inside it. Of a molecule that may lie on either side of a pixel's border, given the
noise, each of the two pixels can only say "mine, perhaps": two candidates of probability one half at nearly the same
place, whose probabilities add up to the one molecule that is expected. A threshold would lose both. So candidates close
to each other whose probabilities fit into one molecule become one candidate, with the mean, the variance and the
summed probability of the mixture that they describe. Two molecules side by side have two candidates close to
probability 1 and stay two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.neighbours import tree_of

#: Candidates further apart are different molecules: neighbouring pixels reach little further. px
REACH_PX = 0.9
# Somewhat above 1, because stated probabilities scatter. Chosen on simulated frames of 0.25 to 6 molecules per µm²:
# 1.05 leaves shares behind, 1.3 merges pairs; between 1.1 and 1.2 the Jaccard index changes by less than .01.
MOST_PROBABILITY = 1.15
#: Shares are summed up from this probability on, also where only higher ones are listed.
SHARE_FLOOR = 0.05
_CERTAIN = 0.999
#: A molecule between four pixels has four shares, which three rounds of pairs bring together.
_ROUNDS = 4
#: A merged candidate lies between its parts, and finds neighbours that were this much further from both, relative.
_DRIFT = 0.5


def pool_shares(
    rows: npt.NDArray[Any], *, reach_px: float = REACH_PX, most_probability: float = MOST_PROBABILITY
) -> npt.NDArray[Any]:
    """Merge candidates that share one molecule.

    In every round each candidate looks for its nearest partner in the same frame with which it fits into one molecule;
    those that chose each other merge.

    Parameters
    ----------
    rows : structured array (n,)
        Candidates with ``frame``, ``x``, ``y``, ``sigma_x``, ``sigma_y`` (px), ``photons``, ``background``,
        ``probability``; it is not changed.
    reach_px : float
        Largest distance of two candidates that merge, px.
    most_probability : float
        Largest sum of their probabilities.

    Returns
    -------
    structured array (m,), m <= n
        In the same order. Positions, photons and background are the means of the merged candidates, weighted by
        probability; the variances are those of the mixture.
    """
    rows = rows.copy()
    pairs = _neighbours(rows, (1 + _DRIFT) * reach_px)
    # Probabilities only grow: what does not fit into one molecule now never will.
    pairs = pairs[rows["probability"][pairs].sum(1, dtype=np.float64) <= most_probability]
    lost = np.zeros(len(rows), bool)
    for _ in range(_ROUNDS):
        first, second = _partners(rows, pairs, reach_px, most_probability)
        if len(first) == 0:
            break
        rows[first] = _mixture(rows[first], rows[second])
        lost[second] = True
        # Who was a neighbour of the one is a neighbour of the merged one.
        successor = np.arange(len(rows))
        successor[second] = first
        pairs = successor[pairs]
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return rows[~lost]


def _neighbours(rows: npt.NDArray[Any], distance_px: float) -> npt.NDArray[np.intp]:
    """Pairs (n, 2) of candidates of one frame that are no further apart."""
    if len(rows) == 0:
        return np.empty((0, 2), np.intp)
    pairs: npt.NDArray[np.intp] = tree_of(rows).query_pairs(distance_px, output_type="ndarray")
    return pairs


def _partners(
    rows: npt.NDArray[Any], pairs: npt.NDArray[np.intp], reach_px: float, most_probability: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Pairs (first < second) of candidates that are each other's nearest partner; every candidate in one at most."""
    x, y, probability = (rows[name].astype(np.float64) for name in ("x", "y", "probability"))
    one, other = pairs.T
    distance = np.hypot(x[one] - x[other], y[one] - y[other])
    fits = (distance <= reach_px) & (probability[one] + probability[other] <= most_probability)
    pairs, distance = np.sort(pairs[fits], axis=1), distance[fits]
    # Ties are broken by position in the table: two equal distances must not make a chain of three.
    order = np.lexsort((pairs[:, 1], pairs[:, 0], distance))
    rank = np.empty(len(pairs), np.intp)
    rank[order] = np.arange(len(pairs))
    best = np.full(len(rows), len(pairs), np.intp)
    np.minimum.at(best, pairs[:, 0], rank)
    np.minimum.at(best, pairs[:, 1], rank)
    mutual = pairs[(best[pairs[:, 0]] == rank) & (best[pairs[:, 1]] == rank)]
    return mutual[:, 0], mutual[:, 1]


def _mixture(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
    merged = first.copy()
    a, b = first["probability"].astype(np.float64), second["probability"].astype(np.float64)
    share = a / (a + b)
    for name in ("x", "y", "photons", "background"):
        merged[name] = share * first[name] + (1 - share) * second[name]
    for name, sigma in (("x", "sigma_x"), ("y", "sigma_y")):
        apart = first[name].astype(np.float64) - second[name]
        within = share * first[sigma].astype(np.float64) ** 2 + (1 - share) * second[sigma].astype(np.float64) ** 2
        merged[sigma] = np.sqrt(within + share * (1 - share) * apart**2)
    merged["probability"] = np.minimum(a + b, _CERTAIN)
    return merged
