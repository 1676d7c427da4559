"""Continuous heatmap matching for candidates on a pixel grid: linear in the number of pixels.

The pair sum is local. Candidates belong to pixels, with bounded offsets, so all pairs closer than a few kernel widths
lie within a small stencil of neighbouring pixels; the rest is below a stated tolerance and left out. The loss is the
same as in :mod:`smlm_pb.losses.heatmap_points`, which tests hold against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from smlm_pb.losses.grid_pairs import GridPairSum
from smlm_pb.losses.grid_truth import GridTruthSum, truth_pair_sum
from smlm_pb.losses.heatmap_active import ActivePairSum
from smlm_pb.losses.heatmap_points import HeatmapTerms, as_bandwidth

#: Share of active pixels below which summing their pairs only is faster than the whole stencil.
_SPARSE_SHARE = 0.3


def heatmap_matching_grid(
    offset: Tensor,
    probability: Tensor,
    truth: Tensor,
    truth_item: Tensor,
    *,
    bandwidth: float | Sequence[float],
    radius: int,
    variance: Tensor | None = None,
    with_truth_term: bool = True,
    pair_floor: float = 0.0,
) -> HeatmapTerms:
    """Continuous heatmap matching between candidates on a grid and true molecules.

    Parameters
    ----------
    offset : Tensor (batch, n, dimensions, *grid)
        Offset of each of ``n`` candidates from the centre of its pixel, in px, axes in grid order (y, x in 2-D).
    probability : Tensor (batch, n, *grid)
        Existence probabilities.
    truth : Tensor (molecules, dimensions)
        True positions in px, axes in grid order, centre of the first pixel 0.0; within the grid's pixels.
    truth_item : Tensor (molecules,)
        Batch item to which each molecule belongs.
    bandwidth : float or sequence of float
        Kernel width lambda in px.
    radius : int
        Stencil radius in pixels; see :func:`stencil_radius`.
    variance : Tensor (batch, n, dimensions, *grid), optional
        Position variance of each candidate in px²; omitted, the published form.
    with_truth_term : bool
        Whether to compute the truth-truth term, which has no gradient.
    pair_floor : float
        In two dimensions, pairs of pixels whose candidates all have a probability below this are left out, which is
        several times faster once most probabilities have vanished; 0 sums every pair.

    Returns
    -------
    HeatmapTerms
        Named terms of shape ``(batch,)``; differentiable in offset, probability and variance, with memory linear in
        the number of pixels.
    """
    batch, dimensions = offset.shape[0], offset.shape[2]
    squared = as_bandwidth(bandwidth, dimensions, offset) ** 2
    truth = truth.to(offset)
    few_active = dimensions == 2 and pair_floor > 0 and _active_share(probability, pair_floor) < _SPARSE_SHARE
    if few_active:
        spread = torch.zeros_like(offset) if variance is None else variance
        pp = ActivePairSum.apply(offset, probability, spread, squared, radius, pair_floor)
    else:
        pp = GridPairSum.apply(offset, probability, variance, squared, radius)
    pt = GridTruthSum.apply(offset, probability, variance, truth, truth_item, squared, radius)
    tt = truth_pair_sum(truth, truth_item, batch, squared) if with_truth_term else torch.zeros_like(pt.detach())
    return HeatmapTerms(pp, pt, tt)


def _active_share(probability: Tensor, floor: float) -> float:
    """Share of pixels that hold a candidate above the floor."""
    return float((probability.detach().amax(1) > floor).float().mean())
