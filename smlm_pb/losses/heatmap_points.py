"""Continuous heatmap matching on free sets of points, in 1, 2 or 3 dimensions.

Predictions and truth are two sums of Gaussians; the loss is the integral of their squared difference over all space,
in closed form and divided by the value that one isolated missed molecule costs, so that a missed molecule costs 1:

    L = sum_jj' k(x_j, x_j') + sum_ii' p_i p_i' k(x_i, x_i') - 2 sum_ij p_i k(x_i, x_j)

With a position variance per candidate and axis the kernels are replaced by their Gaussian average,

    k = prod_d sqrt(l_d^2 / (l_d^2 + v_d)) exp(-(a_d - b_d)^2 / 2 (l_d^2 + v_d)),

where ``v_d`` is the candidate's variance (both candidates' sum in the prediction-prediction term). Zero variance
gives back the published form (Schroeter, 2021, Eq. 6.4, divided by (pi lambda^2 / 2)^(D/2)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_PAIRS = 1_000_000


class HeatmapTerms(NamedTuple):
    """The three sums of the loss, each of shape ``(batch,)``, and their total."""

    prediction_prediction: Tensor
    prediction_truth: Tensor
    truth_truth: Tensor

    @property
    def total(self) -> Tensor:
        """The loss per item: ``pp - 2 pt + tt``; not negative up to rounding."""
        return self.prediction_prediction - 2 * self.prediction_truth + self.truth_truth


def as_bandwidth(bandwidth: float | Sequence[float], dimensions: int, like: Tensor) -> Tensor:
    """Kernel width per axis as a tensor ``(dimensions,)``."""
    values = torch.as_tensor(bandwidth, dtype=like.dtype, device=like.device).expand(dimensions)
    if bool((values <= 0).any()):
        raise ValueError(f"bandwidth must be > 0, got {bandwidth}")
    return values


def heatmap_matching_points(
    position: Tensor,
    probability: Tensor,
    truth: Tensor,
    *,
    bandwidth: float | Sequence[float],
    variance: Tensor | None = None,
    truth_weight: Tensor | None = None,
) -> HeatmapTerms:
    """Continuous heatmap matching between candidates and true molecules anywhere in space.

    Parameters
    ----------
    position : Tensor (batch, candidates, dimensions)
        Candidate positions in px.
    probability : Tensor (batch, candidates)
        Existence probability of each candidate; 0 for padding.
    truth : Tensor (batch, molecules, dimensions)
        True positions in px.
    bandwidth : float or sequence of float
        Kernel width lambda in px, for all axes or one per axis.
    variance : Tensor (batch, candidates, dimensions), optional
        Position variance of each candidate in px²; omitted, the published form.
    truth_weight : Tensor (batch, molecules), optional
        1 for a molecule, 0 for padding.

    Returns
    -------
    HeatmapTerms
        Named terms of shape ``(batch,)``; differentiable in position, probability and variance. Memory grows with
        the number of points, not of pairs.
    """
    dimensions = position.shape[-1]
    squared = as_bandwidth(bandwidth, dimensions, position) ** 2
    if truth_weight is None:
        truth_weight = truth.new_ones(truth.shape[:2])
    pp = _PairSum.apply(position, probability, variance, position, probability, variance, squared)
    pt = _PairSum.apply(position, probability, variance, truth, truth_weight, None, squared)
    with torch.no_grad():
        tt = _PairSum.apply(truth, truth_weight, None, truth, truth_weight, None, squared)
    return HeatmapTerms(pp, pt, tt)


class _PairSum(torch.autograd.Function):
    """``sum_ij a_i b_j k(x_i, y_j)`` per item, in chunks; gradients are made in the same pass and kept.

    ``v`` and ``u`` are the position variances of the two sides; None stands for zero.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        v: Tensor | None,
        y: Tensor,
        b: Tensor,
        u: Tensor | None,
        squared: Tensor,
    ) -> Tensor:
        total = a.new_zeros(a.shape[0])
        grads = [None if t is None else torch.zeros_like(t) for t in (x, a, v, y, b, u)]
        grad_x, grad_a, grad_v, grad_y, grad_b, grad_u = grads
        assert grad_x is not None and grad_a is not None and grad_y is not None and grad_b is not None  # noqa: PT018
        rows = max(1, _CHUNK_PAIRS // max(1, y.shape[1] * x.shape[0]))
        for start in range(0, x.shape[1], rows):
            part = slice(start, start + rows)
            spread = squared
            if v is not None:
                spread = spread + v[:, part, None]
            if u is not None:
                spread = spread + u[:, None]
            delta = x[:, part, None] - y[:, None]
            scaled = delta / spread
            kernel = torch.exp(-0.5 * (delta * scaled).sum(-1)) * (squared / spread).sqrt().prod(-1)
            grad_a[:, part] += (kernel * b[:, None]).sum(2)
            grad_b += (kernel * a[:, part, None]).sum(1)
            pair = kernel * a[:, part, None] * b[:, None]
            total += pair.sum((1, 2))
            pull = pair[..., None] * scaled
            grad_x[:, part] -= pull.sum(2)
            grad_y += pull.sum(1)
            if grad_v is None and grad_u is None:
                continue
            widen = 0.5 * (pull * scaled - pair[..., None] / spread)
            if grad_v is not None:
                grad_v[:, part] += widen.sum(2)
            if grad_u is not None:
                grad_u += widen.sum(1)
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (*(scaled_per_item(g, grad_outputs[0]) for g in ctx.saved_tensors), None)


def scaled_per_item(gradient: Tensor | None, scale: Tensor) -> Tensor | None:
    """A kept gradient times the incoming one of its batch item."""
    return None if gradient is None else gradient * scale.reshape(-1, *([1] * (gradient.ndim - 1)))
