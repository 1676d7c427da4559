"""Continuous heatmap matching for candidates on a pixel grid: linear in the number of pixels.

The pair sum is local. Candidates belong to pixels, with bounded offsets, so all pairs closer than a few kernel widths
lie within a small stencil of neighbouring pixels; the rest is below a stated tolerance and left out. The loss is the
same as in :mod:`smlm_pb.losses.heatmap_points`, which tests hold against it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from smlm_pb.losses.heatmap_active import ActivePairSum
from smlm_pb.losses.heatmap_points import HeatmapTerms, as_bandwidth

#: Share of active pixels below which summing their pairs only is faster than the whole stencil.
_SPARSE_SHARE = 0.3


def stencil_radius(bandwidth: float, *, max_sigma: float = 0.0, reach: float = 0.5, tolerance: float = 1e-7) -> int:
    """Pixels around a pixel beyond which every pair term is below ``tolerance``.

    Parameters
    ----------
    bandwidth : float
        Kernel width lambda in px.
    max_sigma : float
        Largest position standard deviation of a candidate in px.
    reach : float
        Largest offset of a candidate from its pixel's centre in px.
    tolerance : float
        Largest neglected kernel value.

    Returns
    -------
    int
        Chebyshev radius of the stencil.
    """
    width = math.sqrt(bandwidth**2 + 2 * max_sigma**2)
    return math.ceil(width * math.sqrt(2 * math.log(1 / tolerance)) + 2 * reach - 1e-9)


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
    if variance is None:
        variance = torch.zeros_like(offset)
    few_active = dimensions == 2 and pair_floor > 0 and _active_share(probability, pair_floor) < _SPARSE_SHARE
    if few_active:
        pp = ActivePairSum.apply(offset, probability, variance, squared, radius, pair_floor)
    else:
        pp = _GridPairSum.apply(offset, probability, variance, squared, radius)
    pt = _GridTruthSum.apply(offset, probability, variance, truth, truth_item, squared, radius)
    tt = truth_pair_sum(truth, truth_item, batch, squared) if with_truth_term else torch.zeros_like(pt.detach())
    return HeatmapTerms(pp, pt, tt)


def _active_share(probability: Tensor, floor: float) -> float:
    """Share of pixels that hold a candidate above the floor."""
    return float((probability.detach().amax(1) > floor).float().mean())


def truth_pair_sum(truth: Tensor, item: Tensor, batch: int, squared: Tensor, tolerance: float = 1e-9) -> Tensor:
    """``sum_jj' k(x_j, x_j')`` per batch item, over neighbours only.

    Parameters
    ----------
    truth : Tensor (molecules, dimensions)
        True positions in px.
    item : Tensor (molecules,)
        Batch item of each molecule.
    batch : int
        Number of items.
    squared : Tensor (dimensions,)
        Squared kernel width per axis.
    tolerance : float
        Largest neglected kernel value.

    Returns
    -------
    Tensor (batch,)
        The sums.
    """
    scaled = (truth.detach().double() / squared.double().sqrt()).cpu().numpy()
    items = item.cpu().numpy()
    reach = math.sqrt(2 * math.log(1 / tolerance))
    # One extra axis keeps the items apart, so that a single tree serves the batch.
    separated = np.concatenate((scaled, items[:, None] * (2.0 * reach)), axis=1)
    total = np.bincount(items, minlength=batch).astype(np.float64)
    if len(scaled) > 1:
        pairs = cKDTree(separated).query_pairs(reach, output_type="ndarray")
        distance2 = ((scaled[pairs[:, 0]] - scaled[pairs[:, 1]]) ** 2).sum(1)
        total += np.bincount(items[pairs[:, 0]], weights=2 * np.exp(-0.5 * distance2), minlength=batch)
    return torch.as_tensor(total, dtype=truth.dtype, device=truth.device)


def _half_stencil(radius: int, dimensions: int) -> Iterator[tuple[int, ...]]:
    """Shifts of which, with their mirror images and zero, the whole stencil consists."""
    for shift in itertools.product(range(-radius, radius + 1), repeat=dimensions):
        if shift > (0,) * dimensions:
            yield shift


def _overlap(shift: tuple[int, ...], grid: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of pixels ``r`` and of their neighbours ``r + shift`` inside the grid."""
    here = tuple(slice(max(0, -s), min(g, g - s)) for s, g in zip(shift, grid, strict=True))
    there = tuple(slice(max(0, s), min(g, g + s)) for s, g in zip(shift, grid, strict=True))
    return here, there


class _GridPairSum(torch.autograd.Function):
    """Prediction-prediction term; the gradient is gathered in the same sweep over the stencil."""

    @staticmethod
    def forward(ctx: Any, offset: Tensor, p: Tensor, variance: Tensor, squared: Tensor, radius: int) -> Tensor:
        grid = offset.shape[3:]
        dimensions = len(grid)
        # Axes first, so that each elementwise operation runs over contiguous memory.
        o = offset.detach().movedim(2, 0).contiguous()
        v = variance.detach().movedim(2, 0).contiguous()
        grad_o, grad_p, grad_v = torch.zeros_like(o), torch.zeros_like(p), torch.zeros_like(v)
        total = p.new_zeros(p.shape[0])
        for shift in itertools.chain([(0,) * dimensions], _half_stencil(radius, dimensions)):
            if any(abs(s) >= g for s, g in zip(shift, grid, strict=True)):
                continue
            here, there = _overlap(shift, grid)
            a, b = (..., *here), (..., *there)
            multiplicity = 1.0 if not any(shift) else 2.0
            pa, pb = p[a][:, :, None], p[b][:, None]
            exponent: Tensor | float = 0.0
            volume: Tensor | float = 1.0
            scaled, inverse = [], []
            for d in range(dimensions):
                spread_inverse = (v[d][a][:, :, None] + v[d][b][:, None]).add_(squared[d]).reciprocal_()
                delta = (o[d][a][:, :, None] - o[d][b][:, None]).sub_(float(shift[d]))
                ratio = delta * spread_inverse
                exponent = exponent + delta.mul_(ratio)
                volume = volume * (spread_inverse * squared[d])
                scaled.append(ratio)
                inverse.append(spread_inverse)
            assert isinstance(exponent, Tensor)
            assert isinstance(volume, Tensor)
            kernel = exponent.mul_(-0.5).exp_().mul_(volume.sqrt_()).mul_(multiplicity)
            from_b, from_a = (kernel * pb).sum(2), (kernel * pa).sum(1)
            pair = kernel.mul_(pa).mul_(pb)
            total += pair.flatten(1).sum(1)
            # The zero shift holds every ordered pair once, so both ends collect half of their share from each side.
            grad_p[a] += from_b
            grad_p[b] += from_a
            for d in range(dimensions):
                pull = pair * scaled[d]
                grad_o[d][a] -= pull.sum(2)
                grad_o[d][b] += pull.sum(1)
                widen = pull.mul_(scaled[d]).addcmul_(pair, inverse[d], value=-1.0).mul_(0.5)
                grad_v[d][a] += widen.sum(2)
                grad_v[d][b] += widen.sum(1)
        ctx.save_for_backward(grad_o.movedim(0, 2), grad_p, grad_v.movedim(0, 2))
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_o, grad_p, grad_v = ctx.saved_tensors
        scale = grad_outputs[0]
        return (
            grad_o * _per_item(scale, grad_o),
            grad_p * _per_item(scale, grad_p),
            grad_v * _per_item(scale, grad_v),
            None,
            None,
        )


class _GridTruthSum(torch.autograd.Function):
    """Prediction-truth term: the candidates of a stencil around each molecule."""

    @staticmethod
    def forward(
        ctx: Any,
        offset: Tensor,
        p: Tensor,
        variance: Tensor,
        truth: Tensor,
        item: Tensor,
        squared: Tensor,
        radius: int,
    ) -> Tensor:
        batch, n, dimensions, *grid = offset.shape
        grads = [torch.zeros_like(t) for t in (offset, p, variance)]
        total = p.new_zeros(batch)
        if len(truth):
            pad = [radius, radius] * dimensions
            padded_grid = [g + 2 * radius for g in grid]
            index = stencil_index(truth, item, padded_grid, radius)
            flat_o = functional.pad(offset.detach(), pad).movedim(1, -1).movedim(1, -2).reshape(-1, dimensions, n)
            flat_v = functional.pad(variance.detach(), pad).movedim(1, -1).movedim(1, -2).reshape(-1, dimensions, n)
            flat_p = functional.pad(p.detach(), pad).movedim(1, -1).reshape(-1, n)
            pixel = torch.floor(truth + 0.5)
            steps = torch.tensor(
                list(itertools.product(range(-radius, radius + 1), repeat=dimensions)),
                dtype=truth.dtype,
                device=truth.device,
            )
            # Position of the stencil's pixel centres relative to the molecule: (molecules, stencil, dimensions, 1).
            centre = (pixel - truth)[:, None, :, None] + steps[None, :, :, None]
            delta = flat_o[index] + centre
            inverse = (flat_v[index] + squared[:, None]).reciprocal_()
            scaled = delta * inverse
            kernel = torch.exp(-0.5 * (delta * scaled).sum(2)) * (squared[:, None] * inverse).sqrt().prod(2)
            pair = kernel * flat_p[index]
            total.index_add_(0, item, pair.sum((1, 2)))
            pull = pair[:, :, None] * scaled
            widen = 0.5 * (pull * scaled - pair[:, :, None] * inverse)
            grads = [
                _scatter(-pull, index, flat_o, batch, padded_grid, radius).movedim(-1, 1).movedim(-1, 2),
                _scatter(kernel, index, flat_p, batch, padded_grid, radius).movedim(-1, 1),
                _scatter(widen, index, flat_v, batch, padded_grid, radius).movedim(-1, 1).movedim(-1, 2),
            ]
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        return (*(g * _per_item(scale, g) for g in ctx.saved_tensors), None, None, None, None)


def stencil_index(truth: Tensor, item: Tensor, padded_grid: Sequence[int], radius: int) -> Tensor:
    """Flat indices ``(molecules, stencil)`` of the padded pixels around each molecule's pixel."""
    pixel = torch.floor(truth + 0.5).long()
    index = item.long()[:, None]
    for axis, size in enumerate(padded_grid):
        limit = size - 2 * radius - 1
        steps = torch.arange(2 * radius + 1, device=truth.device)
        along = pixel[:, axis].clamp(0, limit)[:, None] + steps
        index = (index[:, :, None] * size + along[:, None, :]).flatten(1)
    return index


def _scatter(
    values: Tensor, index: Tensor, like: Tensor, batch: int, padded_grid: Sequence[int], radius: int
) -> Tensor:
    """Add up stencil values on the grid and remove the padding: ``(batch, *grid, ...)``."""
    flat = torch.zeros_like(like)
    flat.index_add_(0, index.flatten(), values.flatten(0, 1))
    shaped = flat.reshape(batch, *padded_grid, *like.shape[1:])
    inside = tuple(slice(radius, size - radius) for size in padded_grid)
    return shaped[(slice(None), *inside)]


def _per_item(scale: Tensor, like: Tensor) -> Tensor:
    return scale.reshape(-1, *([1] * (like.ndim - 1)))
