"""The prediction-prediction term when most candidates are nearly certain not to exist.

Once training has made most probabilities vanish, nearly all pairs of the stencil are pairs of two negligible
candidates. Here only pairs with at least one *active* pixel (one that holds a candidate above a floor) are summed; what
is left out is below ``floor²`` per pair.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from smlm_pb.losses.heatmap_points import scaled_per_item


class ActivePairSum(torch.autograd.Function):
    """``sum_ii' p_i p_i' k(x_i, x_i')`` per item over pairs with an active pixel, in two dimensions."""

    @staticmethod
    def forward(
        ctx: Any, offset: Tensor, p: Tensor, variance: Tensor, squared: Tensor, radius: int, floor: float
    ) -> Tensor:
        """Value; the gradient is gathered in the same sweep and kept."""
        batch, n, dimensions, height, width = offset.shape
        padded_height, padded_width = height + 2 * radius, width + 2 * radius
        pad = (radius,) * 4
        # Candidate-major layout: (maps, n, padded pixels).
        flat_p = functional.pad(p.detach(), pad).movedim(1, 0).reshape(n, -1)
        flat_o = functional.pad(offset.detach(), pad).permute(2, 1, 0, 3, 4).reshape(dimensions, n, -1)
        flat_v = functional.pad(variance.detach(), pad).permute(2, 1, 0, 3, 4).reshape(dimensions, n, -1)
        is_active = flat_p.amax(0) > floor
        here = is_active.nonzero()[:, 0]
        item = here // (padded_height * padded_width)
        grads = [torch.zeros_like(t) for t in (flat_o, flat_p, flat_v)]
        total = p.new_zeros(batch)
        steps = torch.arange(-radius, radius + 1, device=p.device)
        for row in range(-radius, radius + 1):
            there = here[:, None] + row * padded_width + steps
            _add_row(total, grads, (flat_o, flat_p, flat_v), is_active, here, there, item, squared, row, steps)
        inside = (slice(radius, radius + height), slice(radius, radius + width))
        shaped = [g.reshape(*g.shape[:-1], batch, padded_height, padded_width)[(..., *inside)] for g in grads]
        ctx.save_for_backward(
            shaped[0].permute(2, 1, 0, 3, 4), shaped[1].movedim(0, 1), shaped[2].permute(2, 1, 0, 3, 4)
        )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the kept gradient."""
        return (*(scaled_per_item(g, grad_outputs[0]) for g in ctx.saved_tensors), None, None, None)


def _add_row(
    total: Tensor,
    grads: list[Tensor],
    maps: tuple[Tensor, Tensor, Tensor],
    is_active: Tensor,
    here: Tensor,
    there: Tensor,
    item: Tensor,
    squared: Tensor,
    row: int,
    steps: Tensor,
) -> None:
    """Add the pairs of active pixels with one row of their stencils to the value and to the gradients."""
    offset, p, variance = maps
    # Pairs of two active pixels are met from both sides, the others once: weigh those twice.
    both = is_active[there]
    once = (~both).to(p.dtype)
    multiplicity = 1.0 + once
    # Shapes: (n, 1, active, 1) for the active pixel, (1, n, active, steps) for its neighbours.
    pa, pb = p[:, here][:, None, :, None], p[:, there][None]
    exponent: Tensor | float = 0.0
    volume: Tensor | float = 1.0
    scaled, inverse = [], []
    for d, shift in enumerate((torch.full_like(steps, row), steps)):
        spread_inverse = (
            variance[d][:, here][:, None, :, None] + variance[d][:, there][None] + squared[d]
        ).reciprocal_()
        delta = offset[d][:, here][:, None, :, None] - offset[d][:, there][None] - shift.to(p.dtype)
        ratio = delta * spread_inverse
        exponent = exponent + delta.mul_(ratio)
        volume = volume * (spread_inverse * squared[d])
        scaled.append(ratio)
        inverse.append(spread_inverse)
    assert isinstance(exponent, Tensor)
    assert isinstance(volume, Tensor)
    kernel = exponent.mul_(-0.5).exp_().mul_(volume.sqrt_())
    grad_o, grad_p, grad_v = grads
    flat_there = there.flatten()
    grad_p[:, here] += 2 * (kernel * pb).sum((1, 3))
    grad_p.index_add_(1, flat_there, ((kernel * pa).sum(0) * (2 * once)).flatten(1))
    pair = kernel.mul_(pa).mul_(pb)
    total.index_add_(0, item, (pair * multiplicity).sum((0, 1, 3)))
    for d in range(len(scaled)):
        pull = pair * scaled[d]
        grad_o[d][:, here] -= 2 * pull.sum((1, 3))
        grad_o[d].index_add_(1, flat_there, (pull.sum(0) * (2 * once)).flatten(1))
        widen = pull.mul_(scaled[d]).addcmul_(pair, inverse[d], value=-1.0).mul_(0.5)
        grad_v[d][:, here] += 2 * widen.sum((1, 3))
        grad_v[d].index_add_(1, flat_there, (widen.sum(0) * (2 * once)).flatten(1))
