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

from smlm_pb.localization.neighbours import pairs_within

#: Candidates further apart are different molecules: neighbouring pixels reach little further. px
REACH_PX = 0.9
# Somewhat above 1, because stated probabilities scatter. Chosen on simulated frames of 0.25 to 6 molecules per µm²:
# 1.05 leaves shares behind, 1.3 merges pairs; between 1.1 and 1.2 the Jaccard index changes by less than .01.
MOST_PROBABILITY = 1.15
#: Two molecules this close are rare, and next to nothing tells them apart: two candidates that are not both certain are
#: one molecule said twice.
_ONE_PLACE_PX, MOST_IN_ONE_PLACE = 0.15, 1.5
#: Shares are summed up from this probability on, also where only higher ones are listed.
SHARE_FLOOR = 0.05
_CERTAIN = 0.999
#: A molecule between four pixels has four shares, which three rounds of pairs bring together.
_ROUNDS = 4
#: A merged candidate lies between its parts, and finds neighbours that were this much further from both, relative.
_DRIFT = 0.5
#: What the mixture has of its own.
_MIXED = ("x", "y", "photons", "background", "sigma_x", "sigma_y", "probability")
#: Columns of candidates by name.
Columns = dict[str, npt.NDArray[np.float32]]
#: Pairs of candidates by their indices.
Pairs = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


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
    part: Columns = {name: np.ascontiguousarray(rows[name]) for name in _MIXED}
    at = _positions(part, slice(None))
    probability = part["probability"].astype(np.float64)
    # Probabilities only grow: what does not fit into one molecule now never will.
    pairs = _fitting(at, probability, pairs_within(rows, (1 + _DRIFT) * reach_px), most_probability)
    lost = np.zeros(len(rows), bool)
    for _ in range(_ROUNDS):
        first, second = _partners(at, pairs, reach_px)
        if len(first) == 0:
            break
        _mix(part, first, second)
        at[first], probability[first] = _positions(part, first), part["probability"][first]
        lost[second] = True
        # Who was a neighbour of the one is a neighbour of the merged one.
        successor = np.arange(len(rows))
        successor[second] = first
        pairs = _fitting(at, probability, (successor.take(pairs[0]), successor.take(pairs[1])), most_probability)
    merged = rows[~lost]
    for name, values in part.items():
        merged[name] = values[~lost]
    return merged


def _positions(part: Columns, chosen: npt.NDArray[np.intp] | slice) -> npt.NDArray[np.complex128]:
    """Places in the complex plane, both coordinates beside each other in memory."""
    place = part["x"][chosen].astype(np.complex128)
    place.imag = part["y"][chosen]
    return place


def _fitting(
    at: npt.NDArray[np.complex128], probability: npt.NDArray[np.float64], pairs: Pairs, most_probability: float
) -> Pairs:
    """Pairs of two candidates that fit into one molecule by their probabilities."""
    one, other = pairs
    total = probability.take(one)
    total += probability.take(other)
    doubtful = np.flatnonzero((total <= max(most_probability, MOST_IN_ONE_PLACE)) & (one != other))
    one, other, total = one.take(doubtful), other.take(doubtful), total.take(doubtful)
    fits = total <= most_probability
    fits |= np.abs(at.take(one) - at.take(other)) <= _ONE_PLACE_PX
    return one[fits], other[fits]


def _partners(at: npt.NDArray[np.complex128], pairs: Pairs, reach_px: float) -> Pairs:
    """Candidates that are each other's nearest partner, the earlier one first; each is in one pair at most."""
    apart = at.take(pairs[0])
    apart -= at.take(pairs[1])
    distance = np.square(apart.real)
    distance += np.square(apart.imag)
    near = np.flatnonzero(distance <= reach_px**2)
    first, second, distance = pairs[0].take(near), pairs[1].take(near), distance.take(near)
    nearest = np.full(len(at), np.inf)
    np.minimum.at(nearest, first, distance)
    np.minimum.at(nearest, second, distance)
    mutual = np.flatnonzero((distance == nearest.take(first)) & (distance == nearest.take(second)))
    one, other = first.take(mutual), second.take(mutual)
    first, second = np.minimum(one, other), np.maximum(one, other)
    if np.bincount(np.concatenate((first, second)), minlength=1).max() > 1:
        return _first_come(first, second, distance.take(mutual), len(at))
    return first, second


def _first_come(
    first: npt.NDArray[np.intp], second: npt.NDArray[np.intp], distance: npt.NDArray[np.float64], n: int
) -> Pairs:
    """Of pairs that share a candidate, the nearest or first in the table: equal distances must not make a chain."""
    order = np.lexsort((second, first, distance))
    first, second, rank = first.take(order), second.take(order), np.arange(len(order))
    best_rank = np.full(n, len(first), np.intp)
    np.minimum.at(best_rank, first, rank)
    np.minimum.at(best_rank, second, rank)
    mutual = (best_rank.take(first) == rank) & (best_rank.take(second) == rank)
    return first[mutual], second[mutual]


def _mix(part: Columns, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]) -> None:
    """Put the mixture of both in the place of the first."""
    one, other = ({name: values[at] for name, values in part.items()} for at in (first, second))
    a, b = one["probability"].astype(np.float64), other["probability"].astype(np.float64)
    share = a / (a + b)
    for name in ("x", "y", "photons", "background"):
        part[name][first] = share * one[name] + (1 - share) * other[name]
    for name, sigma in (("x", "sigma_x"), ("y", "sigma_y")):
        apart = one[name].astype(np.float64) - other[name]
        within = share * one[sigma].astype(np.float64) ** 2 + (1 - share) * other[sigma].astype(np.float64) ** 2
        part[sigma][first] = np.sqrt(within + share * (1 - share) * apart**2)
    part["probability"][first] = np.minimum(a + b, _CERTAIN)
