"""Fit a batch of groups and judge the fits: covariance, goodness, shape, and the evidence for every molecule."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from smlm_pb.refinement.fisher_scoring import maximize
from smlm_pb.refinement.spots import Spots, deviance, expect, fisher, predict

#: Goodness of fit is judged within so many widths of a molecule, along each axis.
_JUDGED_WITHIN = 2.5
_STEPS_WITHOUT = 3


class Fit(NamedTuple):
    """A fitted batch; (groups, molecules) unless said otherwise."""

    theta: Tensor
    """(groups, parameters): the maximum of the posterior."""
    arrived: Tensor
    """(groups,), bool: whether it was reached."""
    variance: Tensor
    """(groups, parameters): diagonal of the inverse information, prior included."""
    chi2: Tensor
    """Pearson's chi-square of the pixels around the molecule over its expectation: 1 for a perfect model."""
    chi2_excess: Tensor
    """How many standard deviations chi-square lies above its expectation."""
    misshape: Tensor
    """Score test of the molecule's second moments, chi-square with 3 degrees of freedom for a perfect model."""
    width_score: Tensor
    """Derivative of the log-likelihood with respect to the PSF width, other parameters adapted."""
    width_information: Tensor
    """Fisher information on the PSF width that the molecule holds, other parameters unknown."""
    log_likelihood_ratio: Tensor
    """Largest log-likelihood with the molecule minus that without it."""


def fit_spots(spots: Spots, theta: Tensor, *, iterations: int, kurtosis: float, quick: bool = False) -> Fit:
    """Fit a batch of groups.

    Parameters
    ----------
    spots : Spots
        The batch.
    theta : Tensor (groups, parameters)
        Start.
    iterations : int
        Largest number of steps.
    kurtosis : float
        Fourth cumulant of a pixel over its mean, in effective electrons: 1 for photon noise, 3 after electron
        multiplication.
    quick : bool
        Whether the likelihood without a molecule may be taken where the others would go to first order: it is too small
        then, by little.

    Returns
    -------
    Fit
    """
    theta, arrived = maximize(spots, theta, iterations=iterations)
    return judge(spots, theta, arrived, kurtosis=kurtosis, steps=0 if quick else _STEPS_WITHOUT)


def judge(spots: Spots, theta: Tensor, arrived: Tensor, *, kurtosis: float, steps: int = _STEPS_WITHOUT) -> Fit:
    """Judge a batch at its maximum; ``steps`` are allowed to the others where a molecule is left out."""
    model = predict(spots, theta, with_shape=True)
    used = spots.used.flatten(1)
    weight = used / model.expected
    residual = spots.data.flatten(1) - model.expected
    inverse = _inverse(fisher(spots, model, weight))
    # The share of a pixel's noise that the fitted parameters follow.
    followed = (torch.bmm(inverse, model.jacobian) * model.jacobian).sum(dim=1) * weight
    remaining = (1.0 - followed).clamp(min=0.0) * used
    squared = weight * residual**2
    spread = used * (2.0 + kurtosis / model.expected) * remaining**2
    near_y, near_x = _near(spots, theta)
    sums = [
        torch.einsum("gmh,ghw,gmw->gm", near_y, image.view(spots.data.shape), near_x)
        for image in (squared, remaining, spread)
    ]
    score, information = _shape_test(model.shape, model.jacobian, inverse, weight, residual, spots.present)
    return Fit(
        theta,
        arrived,
        inverse.diagonal(dim1=1, dim2=2).clone(),
        sums[0] / sums[1].clamp(min=0.5),
        (sums[0] - sums[1]) / sums[2].clamp(min=1e-3).sqrt(),
        torch.linalg.solve(information, score[..., None])[..., 0].mul(score).sum(dim=-1) * spots.present,
        score[..., 0] + score[..., 1],
        information[..., :2, :2].sum(dim=(-1, -2)),
        _log_likelihood_ratio(spots, theta, inverse, deviance(spots, model.expected), steps) * spots.present,
    )


def _inverse(information: Tensor) -> Tensor:
    scale = information.diagonal(dim1=1, dim2=2).clamp(min=1e-12).rsqrt()
    matrix = information * scale[:, :, None] * scale[:, None, :]
    matrix.diagonal(dim1=1, dim2=2).add_(1e-7)
    factor, _ = torch.linalg.cholesky_ex(matrix)
    inverse = torch.cholesky_inverse(factor) * scale[:, :, None] * scale[:, None, :]
    return torch.nan_to_num(inverse, nan=1e12, posinf=1e12, neginf=1e12)


def _near(spots: Spots, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns near each molecule, 1 or 0: (groups, molecules, height) and (groups, molecules, width)."""
    n = spots.present.shape[1]
    reach = _JUDGED_WITHIN * spots.psf_sigma_px + 0.5
    height, width = spots.data.shape[1:]
    columns = spots.left[:, None, None] + torch.arange(width, dtype=theta.dtype, device=theta.device)
    rows = spots.top[:, None, None] + torch.arange(height, dtype=theta.dtype, device=theta.device)
    near_x = (columns - theta[:, :n, None]).abs() <= reach
    near_y = (rows - theta[:, n : 2 * n, None]).abs() <= reach
    return near_y.to(theta.dtype), near_x.to(theta.dtype)


def _shape_test(
    shape: Tensor | None, jacobian: Tensor, inverse: Tensor, weight: Tensor, residual: Tensor, present: Tensor
) -> tuple[Tensor, Tensor]:
    """Score (groups, molecules, 3) of widening along x, along y and of tilting, and its covariance.

    Rao's score test: what remains of these directions after the fitted parameters have followed them.
    """
    assert shape is not None
    n_groups, _, n, n_pixels = shape.shape
    weighted = shape * weight[:, None, None, :]
    flat = weighted.reshape(n_groups, 3 * n, n_pixels)
    shared = torch.bmm(flat, jacobian.transpose(1, 2))
    through = torch.bmm(shared, inverse)
    gradient = torch.bmm(jacobian, (weight * residual)[:, :, None])
    score = torch.bmm(flat, residual[:, :, None]) - torch.bmm(through, gradient)
    own = torch.einsum("gamp,gbmp->gmab", weighted, shape)
    parts = [v.view(n_groups, 3, n, -1).transpose(1, 2) for v in (through, shared)]
    information = own - parts[0] @ parts[1].transpose(2, 3)
    floor = own.diagonal(dim1=2, dim2=3) * 1e-6 + (1.0 - present)[:, :, None] + 1e-9
    return score.view(n_groups, 3, n).transpose(1, 2), information + torch.diag_embed(floor)


def _log_likelihood_ratio(spots: Spots, theta: Tensor, inverse: Tensor, with_it: Tensor, steps: int) -> Tensor:
    """Leave out one molecule after the other; the rest of its group adapts."""
    n = spots.present.shape[1]
    if n == 1:
        return 0.5 * (_background_alone(spots, theta[:, -1]) - with_it)[:, None].clamp(min=0.0)
    group, slot = torch.nonzero(spots.present, as_tuple=True)
    rest = spots.take(group)
    present = rest.present.clone()
    present[torch.arange(len(group), device=group.device), slot] = 0.0
    rest = replace(rest, present=present)
    start = _without(theta[group], inverse[group, :, 2 * n + slot], 2 * n + slot)
    if steps:
        start, _ = maximize(rest, start, iterations=steps)
    without = deviance(rest, expect(rest, start))
    ratio = torch.zeros_like(spots.present)
    ratio[group, slot] = 0.5 * (without - with_it[group]).clamp(min=0.0)
    return ratio


def _without(theta: Tensor, covariance: Tensor, index: Tensor) -> Tensor:
    """Where the other parameters go when photons number ``index`` are forced to zero, to first order.

    Conditioning a Gaussian: θ_j − C_ji / C_ii · N_i in the photons themselves, of which the fit knows the logarithm.
    """
    n = (theta.shape[1] - 1) // 3
    shift = -covariance / covariance.gather(1, index[:, None]).clamp(min=1e-12)
    position = shift[:, : 2 * n].clamp(-0.5, 0.5)
    photons = torch.log1p(shift[:, 2 * n : 3 * n].clamp(-0.9, 3.0))
    moved = theta + torch.cat([position, photons, shift[:, 3 * n :]], dim=1)
    return torch.cat([moved[:, :-1], moved[:, -1:].clamp(min=0.0)], dim=1)


def _background_alone(spots: Spots, background: Tensor) -> Tensor:
    """Deviance of windows in which nothing is but background and what is static."""
    static, data, used = (v.flatten(1) for v in (spots.static, spots.data, spots.used))
    share = used.sum(dim=1).clamp(min=1.0)
    level = torch.maximum(background, ((data - static) * used).sum(dim=1) / share).clamp(min=0.01)
    for _ in range(3):
        expected = (static + level[:, None]).clamp(min=1e-3)
        weight = used / expected
        step = (weight * (data - expected)).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
        level = (level + step).clamp(min=0.01)
    return deviance(spots, (static + level[:, None]).clamp(min=1e-3))
