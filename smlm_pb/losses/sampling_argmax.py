"""Losses that train position maps: soft-argmax, sampling-argmax and their relatives, and a proper score.

All take the logits of maps (batch, cells²), true positions (batch, 2) as (y, x) in the grid's unit, and return one
value per item. Which of them make the spread of the map an honest uncertainty is measured in
``benchmarks/readouts.py``; by theory only :func:`energy_score` must:

* ``soft_argmax``: |y − Σ π_i y_i| leaves the spread undetermined.
* ``discrete_expectation`` and ``sampling_argmax``: the expected error of a draw is linear in the map, so that its best
  value lies on a map of one cell, the median of what is possible: too narrow. The continuous basis limits the damage.
* ``variance_regularised``, ``distribution_regularised``: the spread is what it is told to be.
* ``energy_score``: expected error of a draw minus half the expected distance of two draws. It is strictly proper
  (Gneiting and Raftery, JASA 102, 359, 2007): best for the true posterior and nothing else.

Source of the first four: Li, Chen, Shi, Lu, "Localization with Sampling-Argmax", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.errors import ConfigurationError
from smlm_pb.losses.map_grid import MapGrid

#: Samples per map; the published results hardly depend on it from 1 to 50.
N_SAMPLES = 4
_TINY = 1e-9


def soft_argmax(logits: Tensor, target: Tensor, grid: MapGrid) -> Tensor:
    """|y − Σ π_i y_i|, summed over the axes (Eq. 1–2)."""
    return (grid.moments(logits).mean - target).abs().sum(-1)


def discrete_expectation(logits: Tensor, target: Tensor, grid: MapGrid) -> Tensor:
    """Σ π_i |y − y_i| (Eq. 4–5); published as what does not work."""
    distance = (grid.positions(logits) - target[:, None, :]).abs().sum(-1)
    return (torch.softmax(logits, dim=-1) * distance).sum(-1)


def sampling_argmax(
    logits: Tensor,
    target: Tensor,
    grid: MapGrid,
    *,
    temperature: float = 0.5,
    samples: int = N_SAMPLES,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean of |y − Ŷ| over relaxed draws Ŷ from the map (Eq. 11–14).

    Parameters
    ----------
    logits, target, grid
        Maps, true positions, grid.
    temperature : float
        Of the Gumbel-softmax; the smaller, the more Ŷ is a draw and the less a mean.
    samples : int
        Draws per map.
    generator : torch.Generator, optional
        Source of randomness.
    """
    drawn = draw_relaxed(logits, grid, temperature=temperature, samples=samples, generator=generator)
    return (drawn - target[:, None, :]).abs().sum(-1).mean(-1)


def draw_relaxed(
    logits: Tensor, grid: MapGrid, *, temperature: float, samples: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw Ŷ = Σ π̂_i ŷ_i with π̂ = softmax((g + log π)/τ), g ~ Gumbel, ŷ_i ~ f_i (Eq. 11).

    Returns
    -------
    Tensor (batch, samples, 2)
        Differentiable in the logits. At high temperature the draws are averages: their variance is too small.
    """
    shape = (logits.shape[0], samples, logits.shape[1])
    uniform = torch.rand(shape, dtype=logits.dtype, device=logits.device, generator=generator)
    gumbel = -torch.log(-torch.log(uniform.clamp(_TINY, 1.0 - 1e-7)))
    share = torch.softmax((gumbel + functional.log_softmax(logits, dim=-1)[:, None, :]) / temperature, dim=-1)
    placed = grid.positions(logits) + grid.draw((*shape, 2), logits, generator)
    return (share[..., None] * placed).sum(-2)


def variance_regularised(
    logits: Tensor, target: Tensor, grid: MapGrid, *, width: float = 1.0, weight: float = 1.0
) -> Tensor:
    """Soft-argmax plus the squared difference of the map's variance from ``width``² along each axis (Eq. 15)."""
    moments = grid.moments(logits)
    variance = torch.diagonal(moments.covariance, dim1=-2, dim2=-1)
    return (moments.mean - target).abs().sum(-1) + weight * ((variance - width**2) ** 2).sum(-1)


def distribution_regularised(
    logits: Tensor, target: Tensor, grid: MapGrid, *, width: float = 1.0, weight: float = 1.0
) -> Tensor:
    """Soft-argmax plus the Jensen–Shannon divergence from a Gaussian of ``width`` at the truth (Eq. 16)."""
    distance = ((grid.positions(logits) - target[:, None, :]) ** 2).sum(-1)
    wanted = torch.softmax(-0.5 * distance / width**2, dim=-1)
    share = torch.softmax(logits, dim=-1)
    middle = (0.5 * (wanted + share)).clamp_min(_TINY).log()
    divergence = 0.5 * (
        (share * (share.clamp_min(_TINY).log() - middle)).sum(-1)
        + (wanted * (wanted.clamp_min(_TINY).log() - middle)).sum(-1)
    )
    return (grid.moments(logits).mean - target).abs().sum(-1) + weight * divergence


def energy_score(logits: Tensor, target: Tensor, grid: MapGrid) -> Tensor:
    """E|Y − y| − ½ E|Y − Y'| of two draws Y, Y' from the map, in closed form, with Euclidean distances.

    The first term is what sampling-argmax estimates by draws; the second keeps the map from shrinking to a point.
    On a grid both are sums: Σ π_i D(y_i − y) − ½ Σ π_i π_j D'(y_i − y_j).
    """
    share = torch.softmax(logits, dim=-1)
    nodes, weights = grid.quadrature(logits)
    points = grid.positions(logits)[:, None, :] + nodes
    to_truth = (points - target[:, None, None, :]).norm(dim=-1) @ weights
    apart = _mean_distances(grid).to(logits)
    return (share * to_truth).sum(-1) - 0.5 * ((share @ apart) * share).sum(-1)


@lru_cache(maxsize=16)
def _mean_distances(grid: MapGrid) -> Tensor:
    """E|Y − Y'| for draws from every pair of cells (cells², cells²)."""
    like = torch.empty(0, dtype=torch.float64)
    at = grid.positions(like)
    nodes, weights = grid.quadrature(like)
    between = (nodes[:, None, :] - nodes[None, :, :]).reshape(-1, 2)
    weight = (weights[:, None] * weights[None, :]).reshape(-1)
    mean = torch.zeros(len(at), len(at), dtype=torch.float64)
    for shift, share in zip(between, weight, strict=True):
        mean += share * torch.cdist(at + shift, at)
    return mean


Loss = Callable[[Tensor, Tensor, MapGrid], Tensor]
#: Losses by the names that experiment files use; ``sampling-argmax`` also takes a temperature.
LOSSES: dict[str, Loss] = {
    "energy": energy_score,
    "sampling-argmax": sampling_argmax,
    "soft-argmax": soft_argmax,
    "variance-regularised": variance_regularised,
    "distribution-regularised": distribution_regularised,
    "discrete-expectation": discrete_expectation,
}


def temperature_at(progress: float, *, start: float = 2.0, end: float = 0.1) -> float:
    """Temperature after a share of the training: falls geometrically, and stays at its end for the last third.

    Raises
    ------
    ConfigurationError
        When a temperature is not positive.
    """
    if not (start > 0 and end > 0):
        raise ConfigurationError(f"Temperatures {start} and {end} must be > 0, e.g. 2 and 0.1.")
    return float(start * (end / start) ** min(1.0, 1.5 * max(0.0, progress)))
