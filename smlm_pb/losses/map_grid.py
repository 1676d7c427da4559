"""A position map: probabilities on a small grid, each cell with a continuous basis, read out as mean and covariance.

A map π over cells y_i with a basis density f of zero mean stands for the continuous density p(y) = Σ π_i f(y − y_i)
(Li et al., "Localization with Sampling-Argmax", NeurIPS 2021, Eq. 6). Its mean is Σ π_i y_i; its covariance is that of
the cells plus the variance of the basis: c²/12 (uniform, width c), c²/6 (triangular, ±c), c² (Gaussian, σ = c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from smlm_pb.errors import ConfigurationError

Basis = Literal["uniform", "triangular", "gaussian"]
BASES: tuple[Basis, ...] = ("uniform", "triangular", "gaussian")
#: Variance of a basis in units of the squared step.
_VARIANCE: dict[str, float] = {"uniform": 1.0 / 12.0, "triangular": 1.0 / 6.0, "gaussian": 1.0}
#: Squared outer node and its weight of the three-point rule that is exact up to the fifth moment.
_NODES: dict[str, tuple[float, float]] = {
    "uniform": (3.0 / 20.0, 5.0 / 18.0),
    "triangular": (2.0 / 5.0, 5.0 / 24.0),
    "gaussian": (3.0, 1.0 / 6.0),
}


class Moments(NamedTuple):
    """Mean (batch, 2) and covariance (batch, 2, 2) of maps, in the grid's unit, axes in the order y, x."""

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class MapGrid:
    """A square grid of cells around 0.

    Parameters
    ----------
    cells : int
        Cells along a side, odd.
    step : float
        Distance of two cells, in the unit of the positions.
    basis : {"uniform", "triangular", "gaussian"}
        Density around each cell.

    Raises
    ------
    ConfigurationError
        When a value is impossible.
    """

    cells: int = 13
    step: float = 0.6
    basis: Basis = "triangular"

    def __post_init__(self) -> None:
        if self.cells < 3 or self.cells % 2 == 0:
            raise ConfigurationError(f"cells = {self.cells} must be an odd number ≥ 3, e.g. 13.")
        if not 0.0 < self.step < float("inf"):
            raise ConfigurationError(f"step = {self.step} must be a number > 0, e.g. 0.6.")
        if self.basis not in BASES:
            raise ConfigurationError(f"basis = {self.basis!r} is unknown: use {', '.join(BASES)}.")

    @property
    def basis_variance(self) -> float:
        """Variance of the basis along each axis."""
        return _VARIANCE[self.basis] * self.step**2

    def positions(self, like: Tensor) -> Tensor:
        """Centres of the cells (cells², 2) as (y, x), row by row."""
        half = self.cells // 2
        axis = torch.arange(-half, half + 1, dtype=like.dtype, device=like.device) * self.step
        return torch.cartesian_prod(axis, axis)

    def moments(self, logits: Tensor) -> Moments:
        """Read maps out: mean and covariance of p(y).

        Parameters
        ----------
        logits : Tensor (batch, cells²)
            Unnormalised logarithms of π.

        Returns
        -------
        Moments
        """
        share = torch.softmax(logits, dim=-1)
        at = self.positions(logits)
        mean = share @ at
        squares = (at[:, :, None] * at[:, None, :]).reshape(-1, 4)
        covariance = (share @ squares).reshape(-1, 2, 2) - mean[:, :, None] * mean[:, None, :]
        own = self.basis_variance * torch.eye(2, dtype=logits.dtype, device=logits.device)
        return Moments(mean, covariance + own)

    def marginal_cdf(self, logits: Tensor, at: Tensor) -> Tensor:
        """Probability that the position lies below a place, along each axis on its own.

        Parameters
        ----------
        logits : Tensor (batch, cells²)
            Maps.
        at : Tensor (batch, 2)
            Places as (y, x).

        Returns
        -------
        Tensor (batch, 2)
            Uniform between 0 and 1 at the true positions, where the maps are honest.
        """
        share = torch.softmax(logits, dim=-1)
        beyond = (at[:, None, :] - self.positions(logits)) / self.step
        if self.basis == "gaussian":
            below = torch.special.ndtr(beyond)
        elif self.basis == "uniform":
            below = (beyond + 0.5).clamp(0.0, 1.0)
        else:
            inner = beyond.clamp(-1.0, 1.0)
            below = 0.5 + inner - 0.5 * inner * inner.abs()
        return (share[:, :, None] * below).sum(1)

    def draw(self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw displacements from the basis, any shape; independent along every entry."""
        how = {"dtype": like.dtype, "device": like.device, "generator": generator}
        if self.basis == "gaussian":
            return torch.randn(shape, **how) * self.step  # type: ignore[call-overload]
        noise = torch.rand(shape, **how) - 0.5  # type: ignore[call-overload]
        if self.basis == "triangular":
            noise = noise + torch.rand(shape, **how) - 0.5  # type: ignore[call-overload]
        return noise * self.step

    def quadrature(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (9, 2) and weights (9,) that replace the basis, exact up to the fifth moment along each axis."""
        squared, outer = _NODES[self.basis]
        node = squared**0.5 * self.step
        axis = torch.tensor([-node, 0.0, node], dtype=like.dtype, device=like.device)
        weight = torch.tensor([outer, 1.0 - 2.0 * outer, outer], dtype=like.dtype, device=like.device)
        return torch.cartesian_prod(axis, axis), (weight[:, None] * weight[None, :]).reshape(-1)
