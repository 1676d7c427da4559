"""A batch of groups of overlapping spots: expected image, likelihood, score and Fisher information.

Everything is in *effective* photo-electrons, n/F² + v/F⁴ for a pixel with n photo-electrons, read variance v and excess
noise factor F²: their variance equals their mean for every camera, so that one Poisson likelihood serves all (read
noise: Huang et al., Nature Methods 10, 653, 2013; excess noise: Mortensen et al., Nature Methods 7, 377, 2010).

The parameters of a group of M molecules are x₁…x_M, y₁…y_M, ln N₁…ln N_M and the background b of its window.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from smlm_pb.psf import pixel_integral, pixel_integral_derivatives

#: Pixels that expect less than this are taken to expect so much: nothing is known to a better accuracy anyway.
_DARKEST_E = 1e-3


@dataclass
class Spots:
    """Windows around groups of molecules, and what is known before the fit.

    Parameters
    ----------
    left, top : Tensor (groups,)
        Frame coordinates of the first pixel of each window.
    data : Tensor (groups, height, width)
        Effective photo-electrons.
    static : Tensor (groups, height, width)
        Expected effective photo-electrons of what is not fitted: neighbours outside the group, read variance.
    used : Tensor (groups, height, width)
        1 for pixels that count, 0 for the others.
    present : Tensor (groups, molecules)
        1 for molecules, 0 for empty slots.
    prior_mean, prior_precision : Tensor (groups, 3·molecules + 1)
        Gaussian prior of every parameter; precision 0 is no prior.
    psf_sigma_px : float
        PSF width, px.
    """

    left: Tensor
    top: Tensor
    data: Tensor
    static: Tensor
    used: Tensor
    present: Tensor
    prior_mean: Tensor
    prior_precision: Tensor
    psf_sigma_px: float

    def take(self, rows: Tensor) -> Spots:
        """Some of the groups, in any order and any number of times."""
        parts = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "psf_sigma_px"}
        return Spots(**parts, psf_sigma_px=self.psf_sigma_px)


class State(NamedTuple):
    """The model of a batch at some parameters."""

    objective: Tensor
    """(groups,): twice the negative log posterior, up to a constant."""
    score: Tensor
    """(groups, parameters): gradient of the log posterior."""
    information: Tensor
    """(groups, parameters, parameters): Fisher information plus the precision of the prior."""


class Model(NamedTuple):
    """Expected pixels and their derivatives."""

    expected: Tensor
    """(groups, pixels)."""
    jacobian: Tensor
    """(groups, parameters, pixels)."""
    shape: Tensor | None
    """(groups, 3, molecules, pixels): second derivatives along x and y, and mixed, of every molecule."""


def predict(spots: Spots, theta: Tensor, *, with_shape: bool = False) -> Model:
    """Expected pixels at some parameters.

    Parameters
    ----------
    spots : Spots
        The batch.
    theta : Tensor (groups, 3·molecules + 1)
        Parameters.
    with_shape : bool
        Whether second derivatives are wanted too.

    Returns
    -------
    Model
    """
    n_groups, n_molecules = spots.present.shape
    height, width = spots.data.shape[1:]
    x, y, log_photons = (theta[:, i * n_molecules : (i + 1) * n_molecules] for i in range(3))
    photons = (log_photons.exp() * spots.present)[:, :, None]
    columns = spots.left[:, None] + torch.arange(width, dtype=theta.dtype, device=theta.device)
    rows = spots.top[:, None] + torch.arange(height, dtype=theta.dtype, device=theta.device)
    ex, dx, sx = pixel_integral_derivatives(columns[:, None, :] - x[:, :, None], spots.psf_sigma_px)
    ey, dy, sy = pixel_integral_derivatives(rows[:, None, :] - y[:, :, None], spots.psf_sigma_px)
    ey, dy, sy = photons * ey, photons * dy, photons * sy
    jacobian = torch.empty((n_groups, 3 * n_molecules + 1, height, width), dtype=theta.dtype, device=theta.device)
    for i, (along_y, along_x) in enumerate(((ey, dx), (dy, ex), (ey, ex))):
        part = jacobian[:, i * n_molecules : (i + 1) * n_molecules]
        torch.mul(along_y[:, :, :, None], along_x[:, :, None, :], out=part)
    light = jacobian[:, 2 * n_molecules : 3 * n_molecules].sum(dim=1)
    jacobian[:, -1] = 1.0
    expected = light + spots.static + theta[:, -1, None, None]
    shape = None
    if with_shape:
        # The derivative with respect to σ is σ times the second derivative: the Gaussian obeys the heat equation.
        seconds = ((ey, sx), (sy, ex), (dy, dx))
        shape = torch.stack([a[:, :, :, None] * b[:, :, None, :] for a, b in seconds], dim=1).flatten(3)
    return Model(expected.flatten(1).clamp(min=_DARKEST_E), jacobian.flatten(2), shape)


def expect(spots: Spots, theta: Tensor) -> Tensor:
    """Expected pixels (groups, pixels) at some parameters, without derivatives."""
    n = spots.present.shape[1]
    height, width = spots.data.shape[1:]
    columns = spots.left[:, None, None] + torch.arange(width, dtype=theta.dtype, device=theta.device)
    rows = spots.top[:, None, None] + torch.arange(height, dtype=theta.dtype, device=theta.device)
    photons = (theta[:, 2 * n : 3 * n].exp() * spots.present)[:, :, None]
    ex = pixel_integral(columns - theta[:, :n, None], spots.psf_sigma_px)
    ey = pixel_integral(rows - theta[:, n : 2 * n, None], spots.psf_sigma_px) * photons
    expected = torch.bmm(ey.transpose(1, 2), ex) + spots.static + theta[:, -1, None, None]
    return expected.flatten(1).clamp(min=_DARKEST_E)


def evaluate_spots(spots: Spots, theta: Tensor) -> State:
    """Posterior, its gradient and its information at some parameters.

    Parameters
    ----------
    spots : Spots
        The batch.
    theta : Tensor (groups, 3·molecules + 1)
        Parameters.

    Returns
    -------
    State
        Empty slots have score 0 and information 1.
    """
    model = predict(spots, theta)
    used, data = spots.used.flatten(1), spots.data.flatten(1)
    weight = used / model.expected
    away = theta - spots.prior_mean
    objective = deviance(spots, model.expected) + (spots.prior_precision * away**2).sum(dim=1)
    score = torch.bmm(model.jacobian, (weight * (data - model.expected))[:, :, None])[:, :, 0]
    information = fisher(spots, model, weight)
    return State(objective, score - spots.prior_precision * away, information)


def fisher(spots: Spots, model: Model, weight: Tensor) -> Tensor:
    """Fisher information plus the precision of the prior, (groups, parameters, parameters)."""
    information = torch.bmm(model.jacobian * weight[:, None, :], model.jacobian.transpose(1, 2))
    diagonal = information.diagonal(dim1=1, dim2=2)
    diagonal += spots.prior_precision
    diagonal[:, : 3 * spots.present.shape[1]] += (1.0 - spots.present).repeat(1, 3)
    return information


def deviance(spots: Spots, expected: Tensor) -> Tensor:
    """Twice the negative log-likelihood relative to a perfect fit, (groups,).

    Read noise can make a pixel negative; there the same formula without its constant holds, whose derivative in the
    expectation is right as well.
    """
    data = spots.data.flatten(1)
    positive = data.clamp(min=1e-9)
    per_pixel = expected - data - data * torch.log(expected / positive)
    return 2.0 * (spots.used.flatten(1) * per_pixel).sum(dim=1)
