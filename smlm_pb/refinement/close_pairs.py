"""What there is to know of rows that lie close together, without units: distances are in their own precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.refinement.groups import neighbour_pairs

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

#: Rows are neighbours up to this distance, in units of √(σ₁² + σ₂²) of the pair.
REACH_SIGMA = 6.0
#: Borders of the distances at which the pairs of a table are counted.
_BORDERS = np.array([0.0, 0.15, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, REACH_SIGMA])
#: Numbers per row and per directed pair.
NODE_FACTS = 1 + (len(_BORDERS) - 1) + 1
PAIR_FACTS = 9
_LARGEST_RATIO = 2.0


class ClosePairs(NamedTuple):
    """Rows, and pairs of them in the same frame, as the network of duplicates sees them."""

    nodes: npt.NDArray[np.float32]
    """(rows, numbers)."""
    pairs: IntArray
    """(2, directed pairs): receiver and sender; every pair in both directions."""
    facts: npt.NDArray[np.float32]
    """(directed pairs, numbers)."""
    distance_sigma: FloatArray
    """(directed pairs,): distance in units of the pair's precision."""


def find_close_pairs(
    frame: npt.NDArray[Any],
    x: FloatArray,
    y: FloatArray,
    sigma: FloatArray,
    *,
    probability: FloatArray | None = None,
    photons: FloatArray | None = None,
    source: npt.NDArray[Any] | None = None,
) -> ClosePairs:
    """Describe the neighbours in a table.

    Parameters
    ----------
    frame, x, y, sigma : array (rows,)
        Frame, position and precision in px (any length unit will do).
    probability, photons : array (rows,), optional
        Where the table has them.
    source : int array (rows,), optional
        Which program, tile or channel a row comes from; one source rarely lists a molecule twice.

    Returns
    -------
    ClosePairs
    """
    n = len(x)
    widest = REACH_SIGMA * np.sqrt(2.0) * float(sigma.max()) if n else 1.0
    found = neighbour_pairs(frame, x, y, widest)
    spread = np.hypot(sigma[found[:, 0]], sigma[found[:, 1]])
    distance = np.hypot(x[found[:, 0]] - x[found[:, 1]], y[found[:, 0]] - y[found[:, 1]]) / spread
    near = distance < REACH_SIGMA
    found, distance = found[near], distance[near]
    rank = _ranks(sigma, probability)
    both = np.concatenate((found, found[:, ::-1])).T
    z = np.tile(distance, 2)
    receiver, sender = both
    ratio = np.log(sigma[sender] / sigma[receiver]).clip(-_LARGEST_RATIO, _LARGEST_RATIO)
    nothing = np.zeros(len(z))
    light = nothing if photons is None else _log_ratio(photons, sender, receiver)
    same = nothing if source is None else np.where(source[sender] == source[receiver], 1.0, -1.0)
    facts = np.column_stack(
        (
            z / 3.0,
            np.exp(-(z**2) / 2.0),
            np.exp(-8.0 * z**2),
            ratio,
            light,
            np.abs(light),
            np.full(len(z), float(photons is not None)),
            same,
            np.where(rank[sender] < rank[receiver], 1.0, -1.0),
        )
    )
    context = _context(distance, n)
    degree = np.log1p(np.bincount(receiver, minlength=n))
    typical = float(np.median(sigma)) if n else 1.0
    nodes = np.column_stack(
        (
            np.log(sigma / typical).clip(-_LARGEST_RATIO, _LARGEST_RATIO),
            np.broadcast_to(context, (n, len(context))),
            degree,
        )
    )
    return ClosePairs(nodes.astype(np.float32), both.astype(np.intp), facts.astype(np.float32), z)


def _ranks(sigma: FloatArray, probability: FloatArray | None) -> IntArray:
    """Order of preference: more precise first, then more probable, then as listed."""
    unlikely = np.zeros(len(sigma)) if probability is None else -probability
    order = np.lexsort((np.arange(len(sigma)), unlikely, sigma))
    rank = np.empty(len(sigma), np.intp)
    rank[order] = np.arange(len(sigma))
    return rank


def _log_ratio(values: FloatArray, sender: IntArray, receiver: IntArray) -> FloatArray:
    logs = np.log(values.clip(1.0))
    clipped: FloatArray = (logs[sender] - logs[receiver]).clip(-_LARGEST_RATIO, _LARGEST_RATIO)
    # A row without a number says nothing of the pair, rather than that the row is to go.
    return np.nan_to_num(clipped)


def _context(distance: FloatArray, n: int) -> FloatArray:
    """Pairs per row at each distance: it tells how far apart the copies of this table are."""
    counts = np.histogram(distance, _BORDERS)[0]
    area = np.diff(_BORDERS**2)
    return np.log((counts + 0.5) / (0.05 * max(n, 1) * area + 0.5))
