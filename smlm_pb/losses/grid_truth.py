"""The terms with true molecules: candidates of the stencil around each molecule, and molecules near each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from smlm_pb.losses.heatmap_points import scaled_per_item
from smlm_pb.losses.stencil import stencil_index

#: Candidates gathered at a time; bounds memory when molecules are many.
_CPU_BLOCK = 1 << 17
_GPU_BLOCK = 1 << 24


class GridTruthSum(torch.autograd.Function):
    """``sum_ij p_i k(x_i, x_j)`` per item, in any number of dimensions."""

    @staticmethod
    def forward(
        ctx: Any,
        offset: Tensor,
        p: Tensor,
        variance: Tensor | None,
        truth: Tensor,
        item: Tensor,
        squared: Tensor,
        radius: int,
    ) -> Tensor:
        """Value; the gradient is gathered in the same sweep and kept."""
        batch, n, dimensions, *grid = offset.shape
        # Pixels first, so that a gather copies whole rows: (padded pixels, dimensions, n) and (padded pixels, n).
        o = _by_pixel(offset.detach(), radius, dimensions)
        v = None if variance is None else _by_pixel(variance.detach(), radius, dimensions)
        weight = _by_pixel(p.detach()[:, :, None], radius, dimensions)[:, 0]
        grads = [torch.zeros_like(o), torch.zeros_like(weight), None if v is None else torch.zeros_like(v)]
        total = p.new_zeros(batch)
        block = _CPU_BLOCK if p.device.type == "cpu" else _GPU_BLOCK
        many = max(1, block // (n * (2 * radius + 1) ** dimensions))
        for first in range(0, len(truth), many):
            part = slice(first, first + many)
            _add_molecules(total, grads, (o, weight, v), truth[part], item[part].long(), squared, grid, radius)
        to_grid = [None if g is None else _by_item(g.reshape(len(g), -1, n), batch, grid, radius) for g in grads]
        assert to_grid[1] is not None
        ctx.save_for_backward(to_grid[0], to_grid[1][:, :, 0], to_grid[2])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the kept gradient."""
        return (*(scaled_per_item(g, grad_outputs[0]) for g in ctx.saved_tensors), None, None, None, None)


def _add_molecules(
    total: Tensor,
    grads: list[Tensor | None],
    maps: tuple[Tensor, Tensor, Tensor | None],
    truth: Tensor,
    item: Tensor,
    squared: Tensor,
    grid: list[int],
    radius: int,
) -> None:
    """Add some molecules with the candidates around them to the value and to the gradients."""
    o, p, v = maps
    grad_o, grad_p, grad_v = grads
    assert grad_o is not None
    assert grad_p is not None
    index, centre = stencil_index(truth, item, grid, radius)
    flat = index.flatten()
    # (molecules, stencil, dimensions, n)
    delta = o[index] + centre[..., None]
    inverse = (squared[:, None] if v is None else v[index] + squared[:, None]).reciprocal()
    ratio = delta * inverse
    kernel = torch.exp(-0.5 * (delta * ratio).sum(2))
    if v is not None:
        kernel *= (squared[:, None] * inverse).sqrt().prod(2)
    pair = kernel * p[index]
    total.index_add_(0, item, pair.sum((1, 2)))
    grad_p.index_add_(0, flat, kernel.flatten(0, 1))
    pull = pair[:, :, None] * ratio
    grad_o.index_add_(0, flat, pull.flatten(0, 1), alpha=-1.0)
    if grad_v is not None:
        widen = pull.mul_(ratio).sub_(pair[:, :, None] * inverse)
        grad_v.index_add_(0, flat, widen.flatten(0, 1), alpha=0.5)


def _by_pixel(maps: Tensor, radius: int, dimensions: int) -> Tensor:
    """From ``(batch, n, maps, *grid)`` to ``(padded pixels of the batch, maps, n)``."""
    padded = functional.pad(maps, [radius, radius] * dimensions)
    return padded.movedim(1, -1).movedim(1, -2).flatten(0, dimensions)


def _by_item(flat: Tensor, batch: int, grid: list[int], radius: int) -> Tensor:
    """Back from ``(padded pixels of the batch, maps, n)`` to ``(batch, n, maps, *grid)``."""
    shaped = flat.reshape(batch, *(size + 2 * radius for size in grid), *flat.shape[1:])
    inside = tuple(slice(radius, radius + size) for size in grid)
    return shaped[(slice(None), *inside)].movedim(-1, 1).movedim(-1, 2)


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
    scaled = (truth.detach().cpu().double() / squared.cpu().double().sqrt()).numpy()
    items = item.cpu().numpy()
    reach = math.sqrt(2 * math.log(1 / tolerance))
    total = np.bincount(items, minlength=batch).astype(np.float64)
    for one in np.flatnonzero(total > 1):
        points = scaled[items == one]
        pairs = cKDTree(points).query_pairs(reach, output_type="ndarray")
        distance2 = ((points[pairs[:, 0]] - points[pairs[:, 1]]) ** 2).sum(1)
        total[one] += 2 * np.exp(-0.5 * distance2).sum()
    return torch.as_tensor(total, dtype=truth.dtype, device=truth.device)
