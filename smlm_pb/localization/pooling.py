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

from smlm_pb.localization.neighbours import as_complex, pairs_within, squares_between

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
#: What the mixture has of its own: first the means, then the widths along x and y.
_MIXED = ("x", "y", "photons", "background", "sigma_x", "sigma_y", "probability")
_MEANS, _PLACE, _WIDTH, _PROBABILITY = slice(4), slice(2), slice(4, 6), 6
#: Neighbours in the table are less than this many rows apart, mostly.
_SPREAD = 1021
Indices = npt.NDArray[np.intp]
FloatArray = npt.NDArray[np.float64]


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
    n = len(rows)
    part: npt.NDArray[np.float32] = np.stack([rows[name] for name in _MIXED])
    at, probability = as_complex(*part[_PLACE]), part[_PROBABILITY].astype(np.float64)
    one, other, square = pairs_within(rows, (1 + _DRIFT) * reach_px)
    lost = np.zeros(n, bool)
    for number in range(_ROUNDS):
        fits = probability.take(one) + probability.take(other) <= most_probability
        near = np.flatnonzero(fits & (square <= reach_px**2))
        first, second = _partners(one.take(near), other.take(near), square.take(near), n)
        if len(first) == 0:
            break
        _mix(part, first, second)
        lost[second] = True
        if number + 1 < _ROUNDS:
            at[first], probability[first] = as_complex(*part[_PLACE, first]), part[_PROBABILITY, first]
            # Probabilities only grow: what does not fit into one molecule now never will.
            fitting = np.flatnonzero(fits)
            one, other = _inherited(one.take(fitting), other.take(fitting), first, second, n)
            square = squares_between(at, one, other)
    kept = np.flatnonzero(~lost)
    merged = rows.take(kept)
    for name, values in zip(_MIXED, part, strict=True):
        merged[name] = values.take(kept)
    return merged


def _partners(one: Indices, other: Indices, square: FloatArray, n: int) -> tuple[Indices, Indices]:
    """Candidates that are each other's nearest partner, the earlier one first; each is in one pair at most."""
    nearest = np.full(n, np.inf)
    np.minimum.at(nearest, one, square)
    np.minimum.at(nearest, other, square)
    mutual = np.flatnonzero((square == nearest.take(one)) & (square == nearest.take(other)))
    one, other = one.take(mutual), other.take(mutual)
    first, second = np.minimum(one, other), np.maximum(one, other)
    pairs_of = np.bincount(np.concatenate((first, second)), minlength=n)
    alone = (pairs_of.take(first) == 1) & (pairs_of.take(second) == 1)
    if alone.all():
        return first, second
    # Equal distances must not make a chain.
    others = np.flatnonzero(~alone)
    chosen = _first_come(first.take(others), second.take(others), square.take(mutual.take(others)), n)
    return np.concatenate((first[alone], chosen[0])), np.concatenate((second[alone], chosen[1]))


def _inherited(one: Indices, other: Indices, first: Indices, second: Indices, n: int) -> tuple[Indices, Indices]:
    """Pairs after some second candidates became one with the first: who was near either is near both."""
    successor = np.arange(n)
    successor[second] = first
    one, other = successor.take(one), successor.take(other)
    apart = np.flatnonzero(one != other)
    one, other = one.take(apart), other.take(apart)
    once = _once(np.minimum(one, other), np.maximum(one, other))
    return one.take(once), other.take(once)


def _once(first: Indices, second: Indices) -> Indices:
    """Which pairs to keep, so that nearly all are there but once.

    Every pair has a place in a table, where the last one that comes stays; pairs that only share a place are kept.
    """
    number = np.arange(len(first))
    size = 1 << (4 * len(first)).bit_length()
    place = (first * _SPREAD + second) & (size - 1)
    table = np.empty(size, np.intp)
    table[place] = number
    there = table.take(place)
    same = (first.take(there) == first) & (second.take(there) == second)
    return np.flatnonzero((there == number) | ~same)


def _first_come(first: Indices, second: Indices, distance: FloatArray, n: int) -> tuple[Indices, Indices]:
    """Of pairs that share a candidate, the nearest or first in the table: equal distances must not make a chain."""
    order = np.lexsort((second, first, distance))
    first, second, rank = first.take(order), second.take(order), np.arange(len(order))
    best_rank = np.full(n, len(first), np.intp)
    np.minimum.at(best_rank, first, rank)
    np.minimum.at(best_rank, second, rank)
    mutual = (best_rank.take(first) == rank) & (best_rank.take(second) == rank)
    return first[mutual], second[mutual]


def _mix(part: npt.NDArray[np.float32], first: Indices, second: Indices) -> None:
    """Put the mixture of both in the place of the first."""
    one, other = (part.take(chosen, axis=1).astype(np.float64) for chosen in (first, second))
    a, b = one[_PROBABILITY], other[_PROBABILITY]
    share = a / (a + b)
    rest = 1 - share
    mixed = np.empty_like(one)
    mixed[_MEANS] = share * one[_MEANS] + rest * other[_MEANS]
    apart = one[_PLACE] - other[_PLACE]
    within = share * one[_WIDTH] ** 2 + rest * other[_WIDTH] ** 2
    mixed[_WIDTH] = np.sqrt(within + share * rest * apart**2)
    mixed[_PROBABILITY] = np.minimum(a + b, _CERTAIN)
    for values, new in zip(part, mixed, strict=True):
        values[first] = new
