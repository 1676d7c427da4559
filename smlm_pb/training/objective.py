"""The training objective: matching, counting, and what matched candidates say about themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.losses import (
    count_negative_log_likelihood,
    heatmap_matching_grid,
    stencil_radius,
    tile_counts,
)
from smlm_pb.losses.label_noise import label_variance_map
from smlm_pb.losses.stencil import stencil_index
from smlm_pb.networks import PointField
from smlm_pb.training.batches import Batch

if TYPE_CHECKING:
    from smlm_pb.training.experiment import LossSettings

#: Cost of each item's logits (items, candidates), -inf where there is none, against its number of molecules (items,).
CountLoss = Callable[[Tensor, Tensor], Tensor]

#: Pairs of candidates as uncertain as this are complete to the tolerance (an isolated molecule costs 1).
_STENCIL_SIGMA_PX = 0.35
_STENCIL_TOLERANCE = 1e-2
_PAIR_FLOOR = 1e-2
_MATCH_RADIUS = 2
#: Labels are matched up to this many times their error away.
_LABEL_REACH = 2.5
#: Molecules added to every scene, and molecules of a typical one, when scenes are balanced.
_BALANCE_OFFSET, _BALANCE_REFERENCE = 5.0, 65.0
#: Weight of "none of the candidates" when a molecule is shared out among candidates.
_UNASSIGNED = 0.05
#: By how much stated precisions are widened when they share out molecules: one that is too small must be able to grow.
_OWNER_WIDENING = 1.5


def count_loss(logits: Tensor, counts: Tensor) -> Tensor:
    """Exact counting; where more molecules crowd than there are candidates, all candidates are asked for."""
    candidates = (~torch.isneginf(logits)).sum(1)
    return count_negative_log_likelihood(logits, torch.minimum(counts, candidates))


def objective(
    field: PointField,
    batch: Batch,
    settings: LossSettings,
    *,
    progress: float,
    reach_px: float,
    counting: CountLoss = count_loss,
    normalised: bool = True,
) -> dict[str, Tensor]:
    """Named terms of the objective, averaged over the scenes of the batch; ``total`` is what is minimised.

    Parameters
    ----------
    field : PointField
        The network's output.
    batch : Batch
        Scenes and truth.
    settings : LossSettings
        Weights and schedules.
    progress : float
        Share of the run that is done, which drives the schedules.
    reach_px : float
        Largest offset of a candidate, px.
    counting : callable
        What the number of molecules asks of the probabilities; exact counting unless a baseline has another idea.
    normalised : bool
        Whether an isolated missed molecule costs 1 whatever the kernel width; else it costs πλ²/2, as published.

    Returns
    -------
    dict of str to Tensor
        Scalars ``matching``, ``count``, ``tile_count``, ``position``, ``photons``, ``background`` and ``total``.
    """
    bandwidth = settings.bandwidth_px.at(progress)
    weight = scene_weights(batch, settings, field.logit.shape[0])
    matching = (weight * matching_per_scene(field, batch, bandwidth, reach_px, settings.uncertainty_aware)).mean()
    if not normalised:
        matching = matching * (math.pi * bandwidth**2 / 2)
    count, tile = count_terms(field, batch, weight, settings.tile_px, counting)
    described = self_description(field, batch, settings, bandwidth, weight)
    total = (
        matching
        + settings.count_weight.at(progress) * (count + settings.tile_weight * tile)
        + settings.position_weight * described["position"]
        + settings.photon_weight * described["photons"]
        + settings.background_weight * described["background"]
    )
    return {"total": total, "matching": matching, "count": count, "tile_count": tile, **described}


def scene_weights(batch: Batch, settings: LossSettings, n_scenes: int) -> Tensor:
    """Weight of each scene: a crowded one has a hundred times the molecules of a sparse one and would decide all."""
    counts = torch.bincount(batch.item, minlength=n_scenes)
    return ((counts + _BALANCE_OFFSET) / _BALANCE_REFERENCE) ** -settings.scene_balance


def matching_per_scene(
    field: PointField, batch: Batch, bandwidth: float, reach_px: float, uncertainty_aware: bool = True
) -> Tensor:
    """Continuous heatmap matching (scenes,), normalised.

    Parameters
    ----------
    field : PointField
        The network's output.
    batch : Batch
        Truth.
    bandwidth : float
        Kernel width, px.
    reach_px : float
        Largest offset of a candidate, px.
    uncertainty_aware : bool
        Whether kernels are averaged over the stated precision; else the published form.
    """
    log_sigma = torch.stack((field.log_sigma_y, field.log_sigma_x), dim=2)
    variance, blur = _variance(log_sigma, batch, uncertainty_aware)
    return heatmap_matching_grid(
        torch.stack((field.dy, field.dx), dim=2),
        torch.sigmoid(field.logit),
        batch.position,
        batch.item,
        bandwidth=bandwidth,
        variance=variance,
        radius=stencil_radius(
            bandwidth,
            max_sigma=math.hypot(_STENCIL_SIGMA_PX, blur),
            reach=reach_px,
            tolerance=_STENCIL_TOLERANCE,
        ),
        pair_floor=_PAIR_FLOOR,
    ).total


def _variance(log_sigma: Tensor, batch: Batch, uncertainty_aware: bool) -> tuple[Tensor | None, float]:
    """Position variance of the candidates for matching (as ``log_sigma``), and the largest error of a label, px."""
    own = torch.exp(2 * log_sigma) if uncertainty_aware else None
    if batch.label_sigma is None or not len(batch.item):
        return own, 0.0
    n_scenes, n, _, *grid = log_sigma.shape
    labels = label_variance_map(batch.position, batch.item, batch.label_sigma.square(), n_scenes, grid)[:, None]
    largest = float(batch.label_sigma.max())
    return (labels.expand(-1, n, -1, -1, -1) if own is None else own + labels), largest


def count_terms(
    field: PointField, batch: Batch, weight: Tensor, tile_px: int, counting: CountLoss
) -> tuple[Tensor, Tensor]:
    """Counting per frame and, summed, per tile, averaged over scenes of the given weights."""
    n_scenes = field.logit.shape[0]
    counts = torch.bincount(batch.item, minlength=n_scenes)
    count = (weight * counting(field.logit.flatten(1), counts)).mean()
    tile_logits, in_tile = tile_counts(field.logit, batch.position[:, 0], batch.position[:, 1], batch.item, tile_px)
    tile = (weight * counting(tile_logits, in_tile).reshape(n_scenes, -1).sum(1)).mean()
    return count, tile


def self_description(
    field: PointField, batch: Batch, settings: LossSettings, bandwidth: float, weight: Tensor
) -> dict[str, Tensor]:
    """What candidates say about themselves: likelihood of positions, errors of photons and background.

    Parameters
    ----------
    field : PointField
        The network's output, however it was come by.
    batch : Batch
        Truth.
    settings : LossSettings
        Of the experiment.
    bandwidth : float
        Kernel by which molecules are shared out where stated precision does not do it, px.
    weight : Tensor (scenes,)
        From :func:`scene_weights`.

    Returns
    -------
    dict of str to Tensor
        Scalars ``position``, ``photons``, ``background``, without their weights in the objective.
    """
    offset = torch.stack((field.dy, field.dx), dim=2)
    log_sigma = torch.stack((field.log_sigma_y, field.log_sigma_x), dim=2)
    position, photons = matched_terms(
        field, offset, log_sigma, batch, bandwidth, weight, settings.outlier_density_per_px2
    )
    background = _background_error(field, batch, settings.background_at_molecules)
    return {"position": position, "photons": photons, "background": background}


def _background_error(field: PointField, batch: Batch, at_molecules: float) -> Tensor:
    """Mean absolute error of the background's square root; pixels that molecules hide may weigh more."""
    known = torch.isfinite(batch.background)
    true = batch.background.where(known, 0.0)
    error = ((field.background + 1).sqrt() - (true + 1).sqrt()).abs() * known
    if not at_molecules or not len(batch.item):
        return error.sum() / known.sum().clamp_min(1)
    height, width = error.shape[-2:]
    row, column = torch.floor(batch.position + 0.5).long().unbind(1)
    near = torch.zeros_like(error)
    near[batch.item, row.clamp(0, height - 1), column.clamp(0, width - 1)] = 1.0
    weight = 1 + at_molecules * functional.max_pool2d(near[:, None], 3, stride=1, padding=1)[:, 0]
    return (weight * error).sum() / (weight * known).sum().clamp_min(1)


def matched_terms(
    field: PointField,
    offset: Tensor,
    log_sigma: Tensor,
    batch: Batch,
    bandwidth: float,
    scene_weight: Tensor | None = None,
    outlier_density: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Likelihood of positions and error of photons, each molecule shared out among the candidates near it.

    The heatmap kernel is much wider than the precision of a bright molecule and so says little about it; the Gaussian
    likelihood of the position, given who owns the molecule, says it sharply. Ownership is held fixed here: it is
    learned by matching and counting.

    Parameters
    ----------
    field : PointField
        The network's output.
    offset, log_sigma : Tensor (batch, n, 2, height, width)
        Offsets and log standard deviations, (y, x).
    batch : Batch
        Truth.
    bandwidth : float
        Present kernel width, px.
    scene_weight : Tensor (batch,), optional
        Weight of each scene's molecules; 1 when left out.
    outlier_density : float
        Above 0, molecules are shared out by the candidates' stated precision (widened), against this density per px²
        of molecules that belong to none; else by the kernel.

    Returns
    -------
    position : Tensor
        Mean over scenes of the summed negative log-likelihood.
    photons : Tensor
        Mean over scenes of the summed absolute error of log photons.
    """
    n_scenes, _, height, width = field.logit.shape
    radius = _MATCH_RADIUS
    if batch.label_sigma is not None and len(batch.item):
        radius = max(radius, math.ceil(_LABEL_REACH * float(batch.label_sigma.max())))
    maps = torch.cat(
        (
            torch.sigmoid(field.logit.detach())[:, :, None],
            offset,
            log_sigma,
            field.log_photons[:, :, None],
        ),
        dim=2,
    )
    padded = functional.pad(maps, (radius,) * 4)
    flat = padded.permute(0, 3, 4, 2, 1).reshape(-1, maps.shape[2], maps.shape[1])
    index, centre = stencil_index(batch.position, batch.item, (height, width), radius)
    near = flat[index]
    delta = near[:, :, 1:3] + centre[..., None]
    variance = torch.exp(2 * near[:, :, 3:5])
    if batch.label_sigma is not None:
        # What is seen is the distance to the label, which errs too.
        variance = variance + batch.label_sigma.square()[:, None, :, None]
    with torch.no_grad():
        if outlier_density > 0:
            # Molecules that nobody could tell apart would otherwise widen the stated precision of all others.
            spread = (_OWNER_WIDENING**2) * variance
            volume, nobody = 1 / (2 * math.pi * spread.prod(2).sqrt()), outlier_density
        else:
            spread = bandwidth**2 + variance
            volume, nobody = (bandwidth**2 / spread).sqrt().prod(2), _UNASSIGNED
        owned = near[:, :, 0] * torch.exp(-0.5 * (delta.square() / spread).sum(2)) * volume
        share = owned / (owned.sum((1, 2), keepdim=True) + nobody)
        if scene_weight is not None:
            share = share * scene_weight[batch.item][:, None, None]
    likelihood = 0.5 * (delta.square() / variance + variance.log()).sum(2)
    known = torch.isfinite(batch.photons)
    photon_error = (near[:, :, 5] - batch.photons.where(known, 1.0).log()[:, None, None]).abs()
    photon_error = photon_error * known[:, None, None]
    return (share * likelihood).sum() / n_scenes, (share * photon_error).sum() / n_scenes
