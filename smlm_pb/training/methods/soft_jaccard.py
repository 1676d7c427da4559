"""The Jaccard index itself, made smooth, for the last steps of a training or for a fine-tune."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.losses.stencil import stencil_index
from smlm_pb.training.methods.heatmap_matching import HeatmapMatching

if TYPE_CHECKING:
    from smlm_pb.networks import PointField, PointNetwork
    from smlm_pb.training.batches import Batch
    from smlm_pb.training.experiment import Experiment

#: Matching distances, px: 25, 50 and 100 nm at pixels of 100 nm.
TOLERANCES_PX = (0.25, 0.5, 1.0)
#: Share of a run, counted from its end, in which the Jaccard index is asked for.
LAST_SHARE = 0.1
_THRESHOLD = 0.4
#: Width of the smooth step at the threshold, and at the matching distance relative to it.
_STEP_P, _STEP_D = 0.1, 0.25
_WEIGHT = 1.0
_RADIUS_PX = 1
#: How much a less probable candidate loses when molecules choose: px² per e-fold.
_PROBABILITY_PULL = 0.1


class SoftJaccard(HeatmapMatching):
    """Heatmap matching; in its last tenth, or throughout a fine-tune, also ``1 − J``."""

    name = "soft-jaccard"
    title = "heatmap matching, then soft Jaccard"
    source = "after L. Liu, M. Wang, J. Deng, 'UniLoss', ECCV 2020"

    def objective(
        self, network: PointNetwork, output: PointField, batch: Batch, experiment: Experiment, progress: float
    ) -> dict[str, Tensor]:
        """The usual terms; towards the end one more, which costs about 1 per isolated missed molecule, too."""
        terms = super().objective(network, output, batch, experiment, progress)
        if progress < 1 - LAST_SHARE and experiment.start_from is None:
            return {**terms, "jaccard": torch.zeros_like(terms["total"])}
        per_scene = len(batch.item) / len(output.logit)
        jaccard = _WEIGHT * per_scene * (1 - soft_jaccard(output, batch))
        return {**terms, "total": terms["total"] + jaccard, "jaccard": jaccard}


def soft_jaccard(field: PointField, batch: Batch) -> Tensor:
    """Jaccard index of the whole batch, averaged over matching distances, as a smooth function.

    Who belongs to whom is decided beforehand and held fixed: each molecule takes the candidate that is near and
    probable, if it is also that candidate's best molecule. Then with ``s = σ((p − t) / κ)`` for "listed" and
    ``h = σ((τ − d) / κ_d)`` for "near enough", ``T = Σ s h`` and ``J = T / (Σ s + M − T)``.

    Parameters
    ----------
    field : PointField
        Candidates.
    batch : Batch
        Truth.

    Returns
    -------
    Tensor
        A scalar from 0 to 1.
    """
    listed = torch.sigmoid((torch.sigmoid(field.logit) - _THRESHOLD) / _STEP_P)
    # A candidate that is certainly absent is not listed at all; without this thousands of them would be, by a little.
    listed = listed - torch.sigmoid(torch.tensor(-_THRESHOLD / _STEP_P))
    n_listed, molecules = listed.clamp_min(0.0).sum(), len(batch.item)
    if not molecules:
        return 1 / (1 + n_listed)
    distance, chosen = _chosen(field, batch, listed)
    values = []
    for tolerance in TOLERANCES_PX:
        near = torch.sigmoid((tolerance - distance) / (_STEP_D * tolerance))
        hits = (chosen * near).sum()
        values.append(hits / (n_listed + molecules - hits))
    return torch.stack(values).mean()


def _chosen(field: PointField, batch: Batch, listed: Tensor) -> tuple[Tensor, Tensor]:
    """Distance from each molecule to its candidate, px, and how much that is listed (0 without a candidate)."""
    n = field.logit.shape[1]
    height, width = field.logit.shape[-2:]
    maps = torch.stack((field.logit, field.dy, field.dx, listed), dim=2)
    padded = functional.pad(maps, (_RADIUS_PX,) * 4)
    flat = padded.permute(0, 3, 4, 2, 1).reshape(-1, 4, n)
    index, centre = stencil_index(batch.position, batch.item, (height, width), _RADIUS_PX)
    near = flat[index]
    delta = near[:, :, 1:3] + centre[..., None]
    squared = delta.square().sum(2)
    with torch.no_grad():
        cost = (squared - _PROBABILITY_PULL * functional.logsigmoid(near[:, :, 0])).flatten(1)
        best = cost.argmin(1)
        candidate = (index[:, :, None] * n + torch.arange(n, device=index.device)).flatten(1)
        mine = candidate.gather(1, best[:, None])[:, 0]
        # Of the molecules that want the same candidate the one with the lowest cost has it.
        lowest = torch.full((len(flat) * n,), torch.inf, device=cost.device, dtype=cost.dtype)
        price = cost.gather(1, best[:, None])[:, 0]
        lowest.scatter_reduce_(0, mine, price, reduce="amin")
        has = price <= lowest[mine]
    distance = (squared.flatten(1).gather(1, best[:, None])[:, 0] + 1e-8).sqrt()
    return distance, near[:, :, 3].flatten(1).gather(1, best[:, None])[:, 0] * has
