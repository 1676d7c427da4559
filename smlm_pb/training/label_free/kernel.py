"""The point-spread function of a movie as something that can be learned: one kernel for all molecules.

The optical PSF is a sum of quadratic B-splines on a grid finer than the pixels, with coefficients that are never
negative and add up to 1. A pixel's share of a molecule's light is the integral of that sum over the pixel, which is
known in closed form. So whatever the coefficients are and wherever the molecule lies between the pixels,

* no pixel gets a negative share,
* all pixels together get exactly the whole light (photons are photons, not a matter of the kernel's scale),
* distances count from the centre of mass of the light (positions are positions, not a matter of the kernel's shift).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smlm_pb.errors import ConfigurationError

#: Share of the light that a new kernel spreads over its whole support: where there is none, none can grow.
_SPREAD = 0.02
#: Half width of a quadratic B-spline, in grid steps.
_SPLINE_REACH = 1.5
_ROUNDING = 1e-6


def _bspline(z: Tensor) -> Tensor:
    """Quadratic B-spline of unit area and unit knot distance."""
    distance = z.abs()
    inner = 0.75 - distance.square()
    outer = 0.5 * (_SPLINE_REACH - distance).clamp_min(0.0).square()
    return torch.where(distance < 0.5, inner, outer)


def _bspline_integral(z: Tensor) -> Tensor:
    """Its integral from minus infinity to ``z``."""
    clipped = z.clamp(-_SPLINE_REACH, _SPLINE_REACH)
    inner = 0.5 + 0.75 * clipped - clipped**3 / 3
    tail = (_SPLINE_REACH - clipped.abs()) ** 3 / 6
    outer = torch.where(clipped < 0, tail, 1.0 - tail)
    return torch.where(clipped.abs() < 0.5, inner, outer)


@dataclass(frozen=True)
class Kernel:
    """One PSF for all molecules.

    Parameters
    ----------
    coefficients : Tensor (side, side)
        Light at the grid's nodes, rows along y; made non-negative and of unit sum.
    samples_per_px : int
        Nodes per camera pixel and axis; ``side`` is odd and the middle node is the grid's origin.
    """

    coefficients: Tensor
    samples_per_px: int

    def __post_init__(self) -> None:
        side = self.coefficients.shape[0]
        if self.coefficients.shape != (side, side) or side % 2 == 0:
            raise ConfigurationError(f"A kernel has an odd side and is square, not {tuple(self.coefficients.shape)}.")
        values = self.coefficients.clamp_min(0.0)
        total = values.sum()
        if not bool(torch.isfinite(total)) or float(total) <= 0:
            raise ConfigurationError("A kernel needs light: its coefficients add up to nothing.")
        # What is normalised already stays as it is to the last bit: a run that continues must not differ.
        scaled = values if abs(float(total) - 1) < _ROUNDING else values / total
        object.__setattr__(self, "coefficients", scaled)

    @classmethod
    def gaussian(cls, sigma_px: float, *, radius_px: int, samples_per_px: int, spread: float = _SPREAD) -> Kernel:
        """A Gaussian to start from.

        Parameters
        ----------
        sigma_px : float
            Width, px.
        radius_px : int
            Half side of the support, px.
        samples_per_px : int
            Nodes per pixel.
        spread : float
            Share of the light that is spread over the whole support.
        """
        half = radius_px * samples_per_px
        axis = torch.arange(-half, half + 1, dtype=torch.float32) / samples_per_px
        # The spline itself has a variance of a quarter step squared.
        variance = max(sigma_px**2 - 0.25 / samples_per_px**2, 0.04)
        bell = torch.exp(-0.5 * axis.square() / variance)
        spot = bell[:, None] * bell
        return cls((1 - spread) * spot / spot.sum() + spread / spot.numel(), samples_per_px)

    @property
    def half_side(self) -> int:
        """Nodes from the middle to the border."""
        return self.coefficients.shape[0] // 2

    @property
    def radius_px(self) -> int:
        """Half side, px, of the square of pixels around a molecule's own that may get light."""
        # Support of the splines, half a pixel of integration, half a pixel of position, and the centre of mass.
        reach = (self.half_side + _SPLINE_REACH) / self.samples_per_px + 1.0
        return math.ceil(reach)

    def centre_px(self) -> tuple[float, float]:
        """Centre of mass (y, x) relative to the middle node, px."""
        axis = self._nodes(torch.float64)
        values = self.coefficients.double().cpu()
        rows, columns = float(values.sum(1) @ axis), float(values.sum(0) @ axis)
        return rows / self.samples_per_px, columns / self.samples_per_px

    def _nodes(self, dtype: torch.dtype) -> Tensor:
        return torch.arange(-self.half_side, self.half_side + 1, dtype=dtype)

    def basis(self, distance_px: Tensor, axis: int) -> Tensor:
        """Share of each node's light in pixels at given distances along one axis.

        Parameters
        ----------
        distance_px : Tensor (...)
            Pixel centre minus molecule, px.
        axis : int
            0 for y, 1 for x.

        Returns
        -------
        Tensor (..., side)
        """
        lower, upper = self._edges(distance_px, axis)
        return _bspline_integral(upper) - _bspline_integral(lower)

    def basis_slope(self, distance_px: Tensor, axis: int) -> Tensor:
        """Derivative of :meth:`basis` with respect to the distance, 1/px."""
        lower, upper = self._edges(distance_px, axis)
        return self.samples_per_px * (_bspline(upper) - _bspline(lower))

    def _edges(self, distance_px: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Borders of the pixels in grid steps from each node."""
        scale = self.samples_per_px
        nodes = self._nodes(distance_px.dtype).to(distance_px.device)
        middle = scale * (distance_px + self.centre_px()[axis])[..., None] - nodes
        return middle - scale / 2, middle + scale / 2

    def image(self, y_px: Tensor, x_px: Tensor) -> Tensor:
        """Share of the light in pixels at distances ``y_px`` (rows) and ``x_px`` (columns) from the molecule, px."""
        return self.basis(y_px, 0) @ self.coefficients.to(y_px) @ self.basis(x_px, 1).mT

    def sampled(self, radius_px: float | None = None) -> npt.NDArray[np.float32]:
        """The PSF as a picture: light per camera pixel at multiples of ``1 / samples_per_px`` px from the molecule.

        Parameters
        ----------
        radius_px : float, optional
            Half side of the picture, px; the whole support by default.

        Returns
        -------
        array (side, side), float32
            Centred on the centre of mass.
        """
        reach = self.radius_px if radius_px is None else radius_px
        half = math.ceil(reach * self.samples_per_px)
        axis = torch.arange(-half, half + 1, dtype=torch.float32) / self.samples_per_px
        picture: npt.NDArray[np.float32] = self.image(axis, axis).numpy()
        return picture
