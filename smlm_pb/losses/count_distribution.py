"""The whole Poisson-binomial distribution, for inspection and for terms that need more than one count.

The distribution is the product of one polynomial ``(1 - p_i) + p_i t`` per candidate. A product tree multiplies them in
log2(N) levels; all terms are positive, so nothing cancels, and cutting every polynomial at the largest count wanted is
exact. What a tree can lose is counts that are too improbable for a double beside the mode of their node; those are made
probable by tilting the odds (:func:`smlm_pb.losses.counting.solve_tilt`), and the tilt is undone exactly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.errors import ImpossibleCountError
from smlm_pb.losses.counting import solve_tilt

#: Probabilities relative to the tree's mode that are surely free of underflow.
_TRUSTED = 1e-200
#: Logits beyond this are those of probabilities too small for a double's full precision.
_LARGEST_LOGIT = 680.0


def poisson_binomial_log_pmf(probabilities: Tensor, max_count: int | None = None) -> Tensor:
    """Logarithm of the whole Poisson-binomial distribution, by a scaled product tree.

    Parameters
    ----------
    probabilities : Tensor (batch, candidates)
        Existence probabilities.
    max_count : int, optional
        Largest count wanted; all counts when not given.

    Returns
    -------
    Tensor (batch, max_count + 1)
        ``log Pr(C = k)`` for ``k = 0 … max_count``, computed in float64 and given in the dtype of
        ``probabilities``; ``-inf`` where impossible. Differentiable.

    Raises
    ------
    ImpossibleCountError
        When ``max_count`` is negative.
    ValueError
        When a probability is not one.

    References
    ----------
    J. Schroeter, PhD thesis (2021), Eq. 2.11, arranged as a tree: log2(N) levels instead of N steps.
    """
    exact = torch.device("cpu") if probabilities.device.type == "mps" else probabilities.device
    p = probabilities.to(exact).double()
    highest = p.shape[1] if max_count is None else max_count
    if highest < 0:
        raise ImpossibleCountError(f"The largest count must be 0 or more, got {highest}.")
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError("probabilities must lie between 0 and 1")
    if p.shape[1] == 0:
        p = functional.pad(p, (0, 1))
    count = torch.arange(highest + 1, device=exact)
    certain, possible = (p.detach() == 1).sum(1), (p.detach() > 0).sum(1)
    done = (count < certain[:, None]) | (count > possible[:, None])
    log_pmf = p.new_full((p.shape[0], highest + 1), -math.inf)
    mean = p.detach().sum(1).clamp_max(highest)
    # Each pass settles at least the count it aims at; one is enough unless the range spans hundreds of decades.
    while not bool(done.all()):
        theta = _tilt_towards(mean, p.detach(), certain, possible)
        relative, log_scale = _product_tree(p, theta, highest)
        settled = ~done & ((relative.detach() > _TRUSTED) | (count == mean.round()[:, None]))
        log_relative = relative.where(settled, 1.0).log()
        log_pmf = torch.where(settled, log_relative + log_scale[:, None] - theta[:, None] * count, log_pmf)
        done = done | settled
        mean = _middle_of_first_gap(done)
    return log_pmf.to(probabilities)


def _tilt_towards(mean: Tensor, p: Tensor, certain: Tensor, possible: Tensor) -> Tensor:
    """The tilt that moves the mean to ``mean``, or as near as the candidates allow."""
    uncertain = possible - certain
    wanted = (mean - certain).clamp_min(0.5).minimum(uncertain - 0.5)
    z = torch.logit(p)
    z = torch.where(torch.isfinite(z), z.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT), z)
    decided = uncertain < 1
    # An item without uncertain candidates has nothing to tilt; two of even odds stand in for it.
    z = torch.where(decided[:, None], torch.zeros_like(z), z)
    theta = solve_tilt(z, wanted.where(~decided, 0.5 * p.shape[1]))
    return theta.where(~decided, 0.0)


def _middle_of_first_gap(done: Tensor) -> Tensor:
    """The count in the middle of each item's first run of counts not done (0 where all are)."""
    index = torch.arange(done.shape[1], device=done.device)
    first = (~done).to(torch.uint8).argmax(1)
    after = torch.where(done & (index > first[:, None]), index, done.shape[1]).amin(1)
    return torch.div(first + after - 1, 2, rounding_mode="floor").double()


def _product_tree(p: Tensor, theta: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """Tilted distribution ``(batch, degree + 1)`` relative to its largest value, and the log of the scale."""
    with torch.no_grad():
        shift = torch.maximum(torch.log1p(-p), torch.log(p) + theta[:, None])
    nodes = torch.stack(((1 - p) * torch.exp(-shift), p * torch.exp(theta[:, None] - shift)), dim=-1)
    nodes = nodes[..., : degree + 1]
    log_scale = shift
    while nodes.shape[1] > 1:
        if nodes.shape[1] % 2:
            one = torch.zeros_like(nodes[:, :1])
            one[..., 0] = 1.0
            nodes = torch.cat((nodes, one), 1)
            log_scale = functional.pad(log_scale, (0, 1))
        nodes = _multiply_polynomials(nodes[:, 0::2], nodes[:, 1::2], degree)
        scale = nodes.detach().amax(-1, keepdim=True).clamp_min(torch.finfo(nodes.dtype).tiny)
        nodes = nodes / scale
        log_scale = log_scale[:, 0::2] + log_scale[:, 1::2] + scale[..., 0].log()
    return functional.pad(nodes[:, 0], (0, degree + 1 - nodes.shape[-1])), log_scale[:, 0]


def _multiply_polynomials(left: Tensor, right: Tensor, degree: int) -> Tensor:
    """Products of polynomials along the last axis, cut at ``degree``."""
    length = min(left.shape[-1] + right.shape[-1] - 1, degree + 1)
    product = left.new_zeros(*left.shape[:-1], length)
    for k in range(min(left.shape[-1], length)):
        part = right[..., : length - k]
        product[..., k : k + part.shape[-1]] += left[..., k : k + 1] * part
    return product
