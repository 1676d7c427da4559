"""Exact Poisson-binomial counting: the likelihood of the true number of molecules.

Every candidate ``i`` exists with probability ``p_i = sigmoid(z_i)``, independently. The number that exist follows
the Poisson-binomial distribution (Schroeter, 2021, Eq. 2.3-2.10); the loss is ``-log Pr(C = c)`` for the true count.

Two exact routes are here. The *loss* uses exponential tilting: multiplying all odds by one factor ``exp(theta)``
chosen so that the expected count becomes ``c`` puts the wanted probability at the mode of a narrow distribution,
where a short inverse Fourier sum recovers it to rounding without cancellation; the tilt is then undone exactly.
The *full distribution* uses a product tree of the per-candidate polynomials (all terms positive, so no cancellation).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.errors import ImpossibleCountError

_NEWTON_STEPS = 60
_SIGMA_SPAN = 14.0
_MIN_FREQUENCIES = 32
#: Characteristic-function values below exp(-_DECAY) are left out of the Fourier sum.
_DECAY = 40.0


def count_negative_log_likelihood(logits: Tensor, counts: Tensor) -> Tensor:
    """Exact ``-log Pr(C = c)`` of a Poisson-binomial count, from logits.

    Parameters
    ----------
    logits : Tensor (batch, candidates)
        Existence logits; ``-inf`` marks a candidate that is not there (padding).
    counts : Tensor (batch,)
        True number of molecules, an integer from 0 to the number of candidates.

    Returns
    -------
    Tensor (batch,)
        Negative log-likelihood in the dtype of ``logits``. Its gradient is ``p_i - Pr(B_i = 1 | C = c)``, which is
        bounded and never NaN.

    Raises
    ------
    ImpossibleCountError
        When a count is negative or exceeds the number of candidates that are there.

    References
    ----------
    J. Schroeter, PhD thesis, Cardiff University (2021), Eq. 2.9; Theorems 3.1 and 3.2.
    """
    if logits.ndim != 2 or counts.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must be (batch, candidates) and counts (batch,), got {tuple(logits.shape)}, {tuple(counts.shape)}"
        )
    available = torch.isfinite(logits).sum(1) + torch.isposinf(logits).sum(1)
    impossible = (counts < 0) | (counts > available)
    if bool(impossible.any()):
        row = int(impossible.nonzero()[0, 0])
        raise ImpossibleCountError(
            f"Count {int(counts[row])} in item {row} cannot come from {int(available[row])} candidates: "
            "it must lie between 0 and their number; use smaller tiles, more candidates per pixel, or drop molecules."
        )
    result: Tensor = _CountNLL.apply(logits, counts)
    return result


class _CountNLL(torch.autograd.Function):
    """Value and gradient in one pass; the gradient is kept (one number per candidate)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, counts: Tensor) -> Tensor:
        # Apple's GPU has no float64, without which the Fourier sum would lose rare counts.
        exact = torch.device("cpu") if logits.device.type == "mps" else logits.device
        value, gradient = _tilted_value_and_gradient(logits.detach().to(exact).double(), counts.to(exact).double())
        ctx.save_for_backward(gradient.to(logits))
        return value.to(logits)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0][:, None], None


def _tilted_value_and_gradient(logits: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood and its gradient with respect to the logits, in float64."""
    # exp(-700) is the smallest normal double: beyond it a candidate is certain for every purpose.
    logits = logits.clamp(-700.0, 700.0).where(~torch.isneginf(logits), logits.new_tensor(-math.inf))
    probability = torch.sigmoid(logits)
    present = torch.isfinite(logits)
    size = present.sum(1).to(logits.dtype)
    softplus_sum = functional.softplus(logits).where(present, 0.0).sum(1)
    positive_sum = logits.where(present, 0.0).sum(1)
    none, every = counts == 0, counts == size
    value = torch.where(none, softplus_sum, softplus_sum - positive_sum)
    posterior = torch.where(none[:, None], torch.zeros_like(logits), present.to(logits.dtype))
    inner = (~(none | every)).nonzero()[:, 0]
    if inner.numel():
        inner_value, inner_posterior = _interior(logits[inner], counts[inner], softplus_sum[inner])
        value = value.index_copy(0, inner, inner_value)
        posterior = posterior.index_copy(0, inner, inner_posterior)
    return value.clamp_min(0.0), probability - posterior


def _interior(logits: Tensor, counts: Tensor, softplus_sum: Tensor) -> tuple[Tensor, Tensor]:
    """Value and posterior existence for counts strictly between 0 and the number of candidates."""
    theta = _solve_tilt(logits, counts)
    tilted = logits + theta[:, None]
    q = torch.sigmoid(tilted)
    present = torch.isfinite(logits)
    variance = (q * (1 - q)).sum(1)
    # Aliasing wraps mass from a distance of `period` counts, i.e. many standard deviations, onto the wanted one.
    period = (_SIGMA_SPAN * variance.sqrt()).ceil().clamp_min(_MIN_FREQUENCIES)
    # |phi(omega)| <= exp(-variance * (1 - cos omega)): higher frequencies add nothing.
    cosine = (1 - _DECAY / variance.clamp_min(1e-300)).clamp_min(-1.0)
    highest = torch.minimum(torch.acos(cosine) * period / (2 * math.pi), period / 2)
    n_frequencies = int(highest.max().floor().item()) + 1
    index = torch.arange(n_frequencies, device=logits.device, dtype=logits.dtype)
    omega = 2 * math.pi * index / period[:, None]
    weight = torch.where(index == 0, 1.0, 2.0).expand_as(omega).clone()
    # For an even period the Nyquist frequency is its own mirror image.
    weight[(index * 2)[None] == period[:, None]] = 1.0
    weight[(index * 2)[None] > period[:, None]] = 0.0

    log_magnitude = torch.zeros_like(omega)
    phase = torch.zeros_like(omega)
    for k in range(1, n_frequencies):
        cos, sin = torch.cos(omega[:, k : k + 1]), torch.sin(omega[:, k : k + 1])
        log_magnitude[:, k] = 0.5 * torch.log1p((-2 * q * (1 - q) * (1 - cos)).clamp_min(-1 + 1e-300)).sum(1)
        phase[:, k] = torch.atan2(q * sin, 1 - q + q * cos).sum(1)
    angle = phase - omega * counts[:, None]
    amplitude = weight * torch.exp(log_magnitude) / period[:, None]
    mass = (amplitude * torch.cos(angle)).sum(1)

    posterior = torch.zeros_like(q)
    for k in range(n_frequencies):
        # q e^{iw} / (1 - q + q e^{iw}) in real arithmetic.
        cos, sin = torch.cos(omega[:, k : k + 1]), torch.sin(omega[:, k : k + 1])
        denominator = (1 - 2 * q * (1 - q) * (1 - cos)).clamp_min(1e-300)
        real = q * (q + (1 - q) * cos) / denominator
        imaginary = q * (1 - q) * sin / denominator
        posterior += amplitude[:, k : k + 1] * (
            real * torch.cos(angle[:, k : k + 1]) - imaginary * torch.sin(angle[:, k : k + 1])
        )
    posterior = (posterior / mass[:, None]).clamp(0.0, 1.0)

    tilted_softplus = functional.softplus(tilted).where(present, 0.0).sum(1)
    value = softplus_sum - tilted_softplus + theta * counts - torch.log(mass)
    return value, posterior


def _solve_tilt(logits: Tensor, counts: Tensor) -> Tensor:
    """The tilt theta with sum(sigmoid(z + theta)) = c, by safeguarded Newton steps."""
    present = torch.isfinite(logits)
    highest = logits.where(present, -math.inf).amax(1)
    lowest = logits.where(present, math.inf).amin(1)
    size = present.sum(1).to(logits.dtype)
    base = torch.log(counts) - torch.log(size - counts)
    low, high = base - highest, base - lowest
    theta = 0.5 * (low + high)
    # With most candidates near zero the expected count grows like exp(theta): start there.
    guess = torch.log(counts) - torch.logsumexp(functional.logsigmoid(logits).where(present, -math.inf), 1)
    theta = torch.where((guess > low) & (guess < high), guess, theta)
    for _ in range(_NEWTON_STEPS):
        q = torch.sigmoid(logits + theta[:, None])
        excess = q.sum(1) - counts
        high = torch.where(excess > 0, theta, high)
        low = torch.where(excess > 0, low, theta)
        # Exact zero of the mean is not needed: any tilt is undone exactly, it only has to be near the mode.
        if bool((excess.abs() < 0.1).all()):
            break
        step = theta - excess / (q * (1 - q)).sum(1).clamp_min(1e-300)
        theta = torch.where((step > low) & (step < high), step, 0.5 * (low + high))
    return theta


def poisson_binomial_log_pmf(probabilities: Tensor, max_count: int | None = None) -> Tensor:
    """Logarithm of the whole Poisson-binomial distribution, by a scaled product tree.

    Parameters
    ----------
    probabilities : Tensor (batch, candidates)
        Existence probabilities.
    max_count : int, optional
        Largest count wanted; cutting the tree there is exact for the counts kept.

    Returns
    -------
    Tensor (batch, max_count + 1)
        ``log Pr(C = k)`` for ``k = 0 … max_count``; ``-inf`` where impossible.

    References
    ----------
    J. Schroeter, PhD thesis (2021), Eq. 2.11, arranged as a tree: log2(N) levels instead of N steps.
    """
    batch, size = probabilities.shape
    degree = size if max_count is None else max_count
    nodes = torch.stack((1 - probabilities, probabilities), dim=-1)
    log_scale = probabilities.new_zeros(batch, size)
    while nodes.shape[1] > 1:
        if nodes.shape[1] % 2:
            one = torch.zeros_like(nodes[:, :1])
            one[..., 0] = 1.0
            nodes = torch.cat((nodes, one), 1)
            log_scale = functional.pad(log_scale, (0, 1))
        nodes = _multiply_polynomials(nodes[:, 0::2], nodes[:, 1::2], degree)
        scale = nodes.amax(-1, keepdim=True).clamp_min(torch.finfo(nodes.dtype).tiny)
        nodes = nodes / scale
        log_scale = log_scale[:, 0::2] + log_scale[:, 1::2] + scale[..., 0].log()
    pmf = functional.pad(nodes[:, 0], (0, max(0, degree + 1 - nodes.shape[-1])))[:, : degree + 1]
    return pmf.log() + log_scale


def _multiply_polynomials(left: Tensor, right: Tensor, degree: int) -> Tensor:
    """Products of polynomials along the last axis, cut at ``degree``."""
    length = min(left.shape[-1] + right.shape[-1] - 1, degree + 1)
    product = left.new_zeros(*left.shape[:-1], length)
    for k in range(min(left.shape[-1], length)):
        part = right[..., : length - k]
        product[..., k : k + part.shape[-1]] += left[..., k : k + 1] * part
    return product


def start_logit(mean_count: float, n_candidates: int) -> float:
    """Existence logit with which the expected count equals ``mean_count`` before training.

    Parameters
    ----------
    mean_count : float
        Mean number of molecules per image.
    n_candidates : int
        Candidates per image.

    Returns
    -------
    float
        ``log(c / (N - c))``.
    """
    if not 0 < mean_count < n_candidates:
        raise ImpossibleCountError(
            f"A mean count of {mean_count:g} cannot come from {n_candidates} candidates: "
            "it must lie between 0 and their number."
        )
    return math.log(mean_count / (n_candidates - mean_count))


def tile_counts(logits: Tensor, y: Tensor, x: Tensor, item: Tensor, tile_px: int) -> tuple[Tensor, Tensor]:
    """Arrange logits and true molecules by square tiles, for counting per tile.

    Parameters
    ----------
    logits : Tensor (batch, n, height, width)
        Existence logits of ``n`` candidates per pixel.
    y, x : Tensor (molecules,)
        True positions in px (centre of the first pixel 0.0).
    item : Tensor (molecules,)
        Index of the batch item to which each molecule belongs.
    tile_px : int
        Side of a tile.

    Returns
    -------
    logits : Tensor (tiles, candidates)
        ``-inf`` where a tile reaches over the image.
    counts : Tensor (tiles,)
        Molecules whose centre lies in the tile's pixels.
    """
    batch, n, height, width = logits.shape
    rows, columns = -(-height // tile_px), -(-width // tile_px)
    padded = functional.pad(logits, (0, columns * tile_px - width, 0, rows * tile_px - height), value=-math.inf)
    tiles = padded.reshape(batch, n, rows, tile_px, columns, tile_px).permute(0, 2, 4, 1, 3, 5)
    row = (torch.floor(y + 0.5).long().clamp(0, height - 1)) // tile_px
    column = (torch.floor(x + 0.5).long().clamp(0, width - 1)) // tile_px
    counts = torch.zeros(batch * rows * columns, dtype=torch.long, device=logits.device)
    index = (item.long() * rows + row) * columns + column
    counts.index_add_(0, index, torch.ones_like(index))
    return tiles.reshape(batch * rows * columns, -1), counts
