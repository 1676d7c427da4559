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

from smlm_pb.compiled import compiled
from smlm_pb.localization.neighbours import pairs_within

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
#: What the mixture has of its own.
_MIXED = ("x", "y", "photons", "background", "sigma_x", "sigma_y", "probability")
_X, _Y, _SIGMA_X, _SIGMA_Y, _PROBABILITY = map(_MIXED.index, ("x", "y", "sigma_x", "sigma_y", "probability"))
_MEANS = (0, 1, 2, 3)
Indices = npt.NDArray[np.intp]


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
    part: npt.NDArray[np.float32] = np.column_stack([rows[name] for name in _MIXED])
    near = pairs_within(rows, (1 + _DRIFT) * reach_px)
    kept = np.flatnonzero(~_merge(part, near.first, near.second, reach_px**2, most_probability))
    merged = rows.take(kept)
    for name, values in zip(_MIXED, part.take(kept, axis=0).T, strict=True):
        merged[name] = values
    return merged


@compiled
def _merge(
    part: npt.NDArray[np.float32], one: Indices, other: Indices, most_square: float, most_probability: float
) -> npt.NDArray[np.bool_]:
    """Put mixtures (n, 7) in the place of the earlier of their parts, and say which candidates (n,) are gone then."""
    n, remaining = len(part), len(one)
    lost = np.zeros(n, np.bool_)
    part_of = np.arange(n)
    partner, nearest = np.empty(n, np.intp), np.empty(n)
    for _ in range(_ROUNDS):
        partner[:], nearest[:] = -1, np.inf
        pairs, remaining = remaining, 0
        for k in range(pairs):
            # Who was near either part is near both.
            a, b = part_of[one[k]], part_of[other[k]]
            # Probabilities only grow: what does not fit into one molecule now never will.
            if a == b or np.float64(part[a, _PROBABILITY]) + np.float64(part[b, _PROBABILITY]) > most_probability:
                continue
            one[remaining], other[remaining] = a, b
            remaining += 1
            square = (np.float64(part[a, _X]) - part[b, _X]) ** 2 + (np.float64(part[a, _Y]) - part[b, _Y]) ** 2
            if square <= most_square:
                for i, j in ((a, b), (b, a)):
                    # Of equally near ones the first in the table: equal distances must not make a chain.
                    if square < nearest[i] or (square == nearest[i] and j < partner[i]):
                        partner[i], nearest[i] = j, square
        merged = False
        for a in range(n):
            b = partner[a]
            if b > a and partner[b] == a:
                _mix(part[a], part[b])
                lost[b], part_of[b], merged = True, a, True
        if not merged:
            break
    return lost


@compiled
def _mix(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> None:
    """Put the mixture of both in the place of the first."""
    a, b = np.float64(one[_PROBABILITY]), np.float64(other[_PROBABILITY])
    share = a / (a + b)
    rest = 1 - share
    for place, width in ((_X, _SIGMA_X), (_Y, _SIGMA_Y)):
        apart = np.float64(one[place]) - np.float64(other[place])
        within = share * np.float64(one[width]) ** 2 + rest * np.float64(other[width]) ** 2
        one[width] = np.sqrt(within + share * rest * apart**2)
    for mean in _MEANS:
        one[mean] = share * np.float64(one[mean]) + rest * np.float64(other[mean])
    one[_PROBABILITY] = min(a + b, _CERTAIN)
