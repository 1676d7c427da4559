"""The prediction-prediction term on a grid: every pair of the stencil, value and gradient in one sweep."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smlm_pb.losses.heatmap_points import scaled_per_item
from smlm_pb.losses.stencil import half_stencil, overlap

#: Pairs worked on at a time: on a CPU their intermediate values should stay in its cache.
_CPU_BLOCK = 1 << 17
_GPU_BLOCK = 1 << 24


class GridPairSum(torch.autograd.Function):
    """``sum_ii' p_i p_i' k(x_i, x_i')`` per item, in any number of dimensions."""

    @staticmethod
    def forward(ctx: Any, offset: Tensor, p: Tensor, variance: Tensor | None, squared: Tensor, radius: int) -> Tensor:
        """Value; the gradient is gathered in the same sweep and kept."""
        batch, n, dimensions, *grid = offset.shape
        # Axes first, so that each elementwise operation runs over contiguous memory.
        o = offset.detach().movedim(2, 0).contiguous()
        v = None if variance is None else variance.detach().movedim(2, 0).contiguous()
        sums = _Sums(
            p.new_zeros(batch), torch.zeros_like(o), torch.zeros_like(p), None if v is None else torch.zeros_like(v)
        )
        block = _CPU_BLOCK if p.device.type == "cpu" else _GPU_BLOCK
        rows = max(1, block // max(1, batch * n * n * math.prod(grid[1:])))
        for first in range(0, grid[0], rows):
            strip = range(first, min(first + rows, grid[0]))
            for shift in itertools.chain([(0,) * dimensions], half_stencil(radius, dimensions)):
                both = overlap(shift, grid, strip)
                if both is not None:
                    sums.add(o, p.detach(), v, squared, shift, (..., *both[0]), (..., *both[1]))
        ctx.save_for_backward(
            sums.grad_o.movedim(0, 2), sums.grad_p, None if sums.grad_v is None else sums.grad_v.movedim(0, 2)
        )
        return sums.total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the kept gradient."""
        return (*(scaled_per_item(g, grad_outputs[0]) for g in ctx.saved_tensors), None, None)


class _Sums:
    """The value and the gradients while they are added up."""

    def __init__(self, total: Tensor, grad_o: Tensor, grad_p: Tensor, grad_v: Tensor | None) -> None:
        self.total, self.grad_o, self.grad_p, self.grad_v = total, grad_o, grad_p, grad_v

    def add(
        self,
        o: Tensor,
        p: Tensor,
        v: Tensor | None,
        squared: Tensor,
        shift: tuple[int, ...],
        a: tuple[Any, ...],
        b: tuple[Any, ...],
    ) -> None:
        """Add the pairs of pixels ``a`` with their neighbours ``b``; once for zero shift, else for both orders."""
        pa, pb = p[a][:, :, None], p[b][:, None]
        exponent = volume = None
        ratios, inverses = [], []
        for d, step in enumerate(shift):
            if v is None:
                inverse = squared[d].reciprocal()
            else:
                inverse = (v[d][a][:, :, None] + v[d][b][:, None]).add_(squared[d]).reciprocal_()
                volume = inverse * squared[d] if volume is None else volume.mul_(inverse).mul_(squared[d])
            delta = (o[d][a][:, :, None] - o[d][b][:, None]).sub_(float(step))
            ratio = delta * inverse
            exponent = delta.mul_(ratio) if exponent is None else exponent.addcmul_(delta, ratio)
            ratios.append(ratio)
            inverses.append(inverse)
        assert exponent is not None
        kernel = exponent.mul_(-0.5).exp_()
        if volume is not None:
            kernel.mul_(volume.sqrt_())
        if any(shift):
            kernel.mul_(2.0)
        from_b, from_a = (kernel * pb).sum(2), (kernel * pa).sum(1)
        pair = kernel.mul_(pa).mul_(pb)
        self.total += pair.flatten(1).sum(1)
        # The zero shift holds every ordered pair once, so both ends collect half of their share from each side.
        self.grad_p[a] += from_b
        self.grad_p[b] += from_a
        for d, ratio in enumerate(ratios):
            pull = pair * ratio
            self.grad_o[d][a] -= pull.sum(2)
            self.grad_o[d][b] += pull.sum(1)
            if self.grad_v is not None:
                widen = pull.mul_(ratio).addcmul_(pair, inverses[d], value=-1.0).mul_(0.5)
                self.grad_v[d][a] += widen.sum(2)
                self.grad_v[d][b] += widen.sum(1)
