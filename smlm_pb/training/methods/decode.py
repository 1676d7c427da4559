"""A likelihood of the DECODE type: a Gaussian count times a mixture of Gaussians that molecules are drawn from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.losses.stencil import stencil_index
from smlm_pb.training.methods.base import Method, with_description
from smlm_pb.training.methods.counting import gaussian_likelihood
from smlm_pb.training.objective import scene_weights, self_description

if TYPE_CHECKING:
    from smlm_pb.networks import PointField, PointNetwork
    from smlm_pb.training.batches import Batch
    from smlm_pb.training.experiment import Experiment

#: Candidates further from a molecule than so many pixels add next to nothing to its density.
_RADIUS_PX = 3
_TINY = 1e-9


class Decode(Method):
    """``−c · log N(c; Σp, Σp(1 − p)) − Σ_j log Σ_i (p_i / Σp) N(x_j; x_i, s_i²)``.

    The factor ``c`` is DECODE's own; an empty scene asks for nothing because of it.
    """

    name = "decode"
    title = "DECODE's loss"
    source = "A. Speiser et al., Nature Methods 18 (2021), with the factor of its program"

    def objective(
        self, network: PointNetwork, output: PointField, batch: Batch, experiment: Experiment, progress: float
    ) -> dict[str, Tensor]:
        """Count, mixture, and what candidates say about photons and background."""
        weight = scene_weights(batch, experiment.loss, len(output.logit))
        counts = torch.bincount(batch.item, minlength=len(output.logit))
        count = counts * gaussian_likelihood(output.logit.flatten(1), counts)
        terms = {
            "count": (weight * count).mean(),
            "mixture": (weight * mixture_likelihood(output, batch)).mean(),
        }
        described = self_description(output, batch, experiment.loss, experiment.loss.bandwidth_px.end, weight)
        # Position and precision are what the mixture teaches.
        described["position"] = described["position"].detach()
        return with_description(terms, described, experiment)


def mixture_likelihood(field: PointField, batch: Batch) -> Tensor:
    """Negative log-likelihood (scenes,) of the true positions under the mixture of all candidates.

    Parameters
    ----------
    field : PointField
        Candidates.
    batch : Batch
        Truth.

    Returns
    -------
    Tensor (scenes,)
        Summed over the molecules of each scene; positions in px.
    """
    scenes, _, height, width = field.logit.shape
    maps = torch.stack(
        (functional.logsigmoid(field.logit), field.dy, field.dx, field.log_sigma_y, field.log_sigma_x), dim=2
    )
    padded = functional.pad(maps, (_RADIUS_PX,) * 4)
    # Of what lies beyond the frame only the probability matters: there is none.
    inside = functional.pad(torch.ones_like(field.logit), (_RADIUS_PX,) * 4)
    flat = padded.permute(0, 3, 4, 2, 1).reshape(-1, maps.shape[2], maps.shape[1])
    there = inside.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    index, centre = stencil_index(batch.position, batch.item, (height, width), _RADIUS_PX)
    near = flat[index]
    delta = near[:, :, 1:3] + centre[..., None]
    log_s = near[:, :, 3:5]
    log_density = -(0.5 * delta.square() * torch.exp(-2 * log_s) + log_s).sum(2) - math.log(2 * math.pi)
    log_share = torch.where(there[index] > 0, near[:, :, 0], torch.full_like(near[:, :, 0], -math.inf))
    per_molecule = torch.logsumexp((log_share + log_density).flatten(1), dim=1)
    total = torch.sigmoid(field.logit).flatten(1).sum(1) + _TINY
    likelihood = per_molecule - total.log()[batch.item]
    return -likelihood.new_zeros(scenes).index_add(0, batch.item, likelihood)
