"""Exact Poisson-binomial counting: the likelihood of the true number of molecules.

Every candidate ``i`` exists with probability ``p_i = sigmoid(z_i)``, independently. The number that exist follows
the Poisson-binomial distribution (Schroeter, 2021, Eq. 2.3-2.10); the loss is ``-log Pr(C = c)`` for the true count.

The loss uses exponential tilting: multiplying all odds by one factor ``exp(theta)`` chosen so that the expected count
becomes ``c`` puts the wanted probability at the mode of a narrow distribution, where a short inverse Fourier sum
recovers it to rounding without cancellation; the tilt is then undone exactly. The whole distribution is in
:mod:`smlm_pb.losses.count_distribution`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from smlm_pb.errors import ImpossibleCountError

_NEWTON_STEPS = 60
_SIGMA_SPAN = 14.0
#: Odd, as every period: see `_fourier_grid`.
_MIN_PERIOD = 33
#: Characteristic-function values below exp(-_DECAY) are left out of the Fourier sum.
_DECAY = 40.0
#: Candidates worked on at a time: on a CPU their intermediate values should stay in its cache.
_CPU_BLOCK = 1 << 16
_GPU_BLOCK = 1 << 24


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
        bounded, and NaN only where a logit of the same item is.

    Raises
    ------
    ImpossibleCountError
        When a count is negative, not a whole number, or above the number of candidates that are there.

    References
    ----------
    J. Schroeter, PhD thesis, Cardiff University (2021), Eq. 2.9; Theorems 3.1 and 3.2.
    """
    if logits.ndim != 2 or counts.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must be (batch, candidates) and counts (batch,), got {tuple(logits.shape)}, {tuple(counts.shape)}"
        )
    # A NaN stays a candidate, so that a diverged network shows as a NaN loss and not as a wrong count.
    available = (~torch.isneginf(logits)).sum(1)
    possible = (counts >= 0) & (counts <= available)
    if counts.is_floating_point():
        possible &= counts == counts.round()
    impossible = ~possible
    if bool(impossible.any()):
        row = int(impossible.nonzero()[0, 0])
        raise ImpossibleCountError(
            f"Count {counts[row].item():g} in item {row} cannot come from {int(available[row])} candidates: "
            "it must be a whole number from 0 to theirs; use larger tiles, more candidates per pixel, fewer molecules."
        )
    result: Tensor = _CountNLL.apply(logits, counts)
    return result


class _CountNLL(torch.autograd.Function):
    """Value and gradient in one pass; the gradient is kept (one number per candidate)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, counts: Tensor) -> Tensor:
        # Apple's GPU has no float64, without which the Fourier sum would lose rare counts.
        exact = torch.device("cpu") if logits.device.type == "mps" else logits.device
        z, c = logits.detach().to(exact), counts.to(exact)
        block = _CPU_BLOCK if exact.type == "cpu" else _GPU_BLOCK
        rows = max(1, block // max(1, z.shape[1]))
        value, gradient = z.new_empty(z.shape[0]), torch.empty_like(z)
        for start in range(0, z.shape[0], rows):
            part = slice(start, start + rows)
            value[part], gradient[part] = _value_and_gradient(z[part].double(), c[part].double(), block)
        ctx.save_for_backward(gradient.to(logits))
        return value.to(logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0][:, None], None


def _softplus(x: Tensor) -> Tensor:
    # torch's own softplus drops exp(-x) above 20.
    return -functional.logsigmoid(-x)


def _value_and_gradient(logits: Tensor, counts: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood and its gradient with respect to the logits, in float64."""
    # exp(-700) is near the smallest double: beyond it a candidate is certain for every purpose.
    logits = logits.clamp(-700.0, 700.0).where(~torch.isneginf(logits), -math.inf)
    there = ~torch.isneginf(logits)
    diverged = torch.isnan(logits).any(1)
    none, every = counts == 0, counts == there.sum(1)
    value = torch.where(
        none,
        _softplus(logits).where(there, 0.0).sum(1),
        _softplus(-logits).where(there, 0.0).sum(1),
    )
    posterior = there.to(logits.dtype) * (~none[:, None])
    inner = (~(none | every | diverged)).nonzero()[:, 0]
    if inner.numel():
        inner_value, inner_posterior = _interior(logits[inner], counts[inner], block)
        value = value.index_copy(0, inner, inner_value)
        posterior = posterior.index_copy(0, inner, inner_posterior)
    value = value.clamp_min(0.0).where(~diverged, math.nan)
    gradient = (torch.sigmoid(logits) - posterior).where(~diverged[:, None], math.nan)
    return value, gradient


def _interior(logits: Tensor, counts: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Value and posterior existence for counts strictly between 0 and the number of candidates."""
    theta = solve_tilt(logits, counts)
    tilted = logits + theta[:, None]
    q = torch.sigmoid(tilted)
    # The variance of one candidate, from both tails: 1 - q loses all digits where q is nearly 1.
    spread = q * torch.sigmoid(-tilted)
    omega, weight, period = _fourier_grid(spread.sum(1))
    # Shapes in the sums below: (item, frequency, candidate).
    sin, lost = torch.sin(omega)[..., None], (1 - torch.cos(omega))[..., None]
    log_magnitude, phase = torch.zeros_like(omega), torch.zeros_like(omega)
    for part, f in _blocks(q.shape, omega.shape[1], block):
        q_here, spread_here = q[:, None, part], spread[:, None, part]
        log_magnitude[:, f] += 0.5 * torch.log1p((-2 * lost[:, f]) * spread_here).sum(2)
        phase[:, f] += torch.atan2(sin[:, f] * q_here, 1 - lost[:, f] * q_here).sum(2)
    angle = phase - omega * counts[:, None]
    amplitude = weight * torch.exp(log_magnitude) / period[:, None]
    mass = (amplitude * torch.cos(angle)).sum(1)

    real, imaginary = ((amplitude * wave)[..., None] for wave in (torch.cos(angle), torch.sin(angle)))
    posterior = q * real[:, 0]
    for part, f in _blocks(q.shape, omega.shape[1], block):
        # The real part of the amplitude times q e^{iw} / (1 - q + q e^{iw}), in real arithmetic.
        q_here, spread_here = q[:, None, part], spread[:, None, part]
        mixed = (real[:, f] * lost[:, f] + imaginary[:, f] * sin[:, f]) * spread_here
        posterior[:, part] += ((real[:, f] * q_here - mixed) / (1 - (2 * lost[:, f]) * spread_here)).sum(1)
    posterior = (posterior / mass[:, None]).clamp(0.0, 1.0)

    there = torch.isfinite(logits)
    untilted = (_softplus(logits) - _softplus(tilted)).where(there, 0.0).sum(1)
    return untilted + theta * counts - torch.log(mass), posterior


def _fourier_grid(variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Frequencies ``(items, n)`` of the Fourier sum, their weights, and the period ``(items,)`` in counts."""
    # Aliasing wraps mass from a distance of one period, i.e. many standard deviations, onto the wanted count.
    period = (_SIGMA_SPAN * variance.sqrt()).ceil().clamp_min(_MIN_PERIOD)
    # Odd, so that pi is not among the frequencies: there the factor of a candidate of probability 1/2 is zero, and
    # the product of all the others could not be had by dividing by it.
    period = period + (1 - period % 2)
    # |phi(omega)| <= exp(-variance * (1 - cos omega)): higher frequencies add nothing.
    cosine = (1 - _DECAY / variance.clamp_min(1e-300)).clamp_min(-1.0)
    highest = torch.minimum(torch.acos(cosine) * period / (2 * math.pi), (period - 1) / 2)
    index = torch.arange(int(highest.max().floor().item()) + 1, device=variance.device, dtype=variance.dtype)
    omega = 2 * math.pi * index / period[:, None]
    weight = torch.where(2 * index < period[:, None], 2.0, 0.0)
    weight[:, 0] = 1.0
    return omega, weight.to(variance.dtype), period


def _blocks(shape: torch.Size, n_frequencies: int, block: int) -> Iterator[tuple[slice, slice]]:
    """Ranges of candidates and of frequencies (but the zero one) that make up about ``block`` numbers."""
    items, candidates = shape
    length = min(candidates, max(1, block // items))
    together = max(1, block // (items * length))
    for start in range(0, candidates, length):
        for first in range(1, n_frequencies, together):
            yield slice(start, start + length), slice(first, first + together)


def solve_tilt(logits: Tensor, counts: Tensor) -> Tensor:
    """The tilt theta with sum(sigmoid(z + theta)) = c to about 0.1, by safeguarded Newton steps.

    Parameters
    ----------
    logits : Tensor (batch, candidates)
        Existence logits; infinite ones are left out.
    counts : Tensor (batch,)
        Wanted expected count, strictly between 0 and the number of finite logits.

    Returns
    -------
    Tensor (batch,)
    """
    present = torch.isfinite(logits)
    highest = logits.where(present, -math.inf).amax(1)
    lowest = logits.where(present, math.inf).amin(1)
    size = present.sum(1).to(logits.dtype)
    base = torch.log(counts) - torch.log(size - counts)
    low, high = base - highest, base - lowest
    # With most candidates near zero the expected count grows like exp(theta): start there.
    guess = torch.log(counts) - torch.logsumexp(functional.logsigmoid(logits).where(present, -math.inf), 1)
    theta = torch.where((guess > low) & (guess < high), guess, 0.5 * (low + high))
    for _ in range(_NEWTON_STEPS):
        q = torch.sigmoid(logits + theta[:, None]).where(present, 0.0)
        excess = q.sum(1) - counts
        high = torch.where(excess > 0, theta, high)
        low = torch.where(excess > 0, low, theta)
        # Exact equality is not needed: any tilt is undone exactly, it only has to be near the mode.
        if bool((excess.abs() < 0.1).all()):
            break
        step = theta - excess / (q * (1 - q)).sum(1).clamp_min(1e-300)
        theta = torch.where((step > low) & (step < high), step, 0.5 * (low + high))
    return theta


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

    Raises
    ------
    ImpossibleCountError
        When the mean count does not lie between 0 and the number of candidates.
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
        True positions in px (centre of the first pixel 0.0); one outside the image counts at the nearest pixel.
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
