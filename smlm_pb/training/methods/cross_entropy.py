"""Pixel-wise cross-entropy: every pixel is asked whether it holds a molecule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.training.methods.base import Method, with_description
from smlm_pb.training.objective import scene_weights, self_description

if TYPE_CHECKING:
    from smlm_pb.networks import PointField, PointNetwork
    from smlm_pb.training.batches import Batch
    from smlm_pb.training.experiment import Experiment


class CrossEntropy(Method):
    """Candidate ``k`` of a pixel is asked whether the pixel holds more than ``k`` molecules.

    Positions within the pixel are learned from the molecules it holds, as a mixture of its candidates weighted by
    their probabilities.
    """

    name = "cross-entropy"
    title = "cross-entropy per pixel"
    source = "J. Schroeter, PhD thesis (2021), Eq. 5.2"

    def objective(
        self, network: PointNetwork, output: PointField, batch: Batch, experiment: Experiment, progress: float
    ) -> dict[str, Tensor]:
        """Cross-entropy of existence, likelihood of positions, and what candidates say about themselves."""
        weight = scene_weights(batch, experiment.loss, len(output.logit))
        terms = {
            "existence": (weight * pixel_cross_entropy(output.logit, batch)).mean(),
            "in_pixel": in_pixel_likelihood(output, batch, weight),
        }
        described = self_description(output, batch, experiment.loss, experiment.loss.bandwidth_px.end, weight)
        # Positions and their precision are learned above, from the pixel's own molecules.
        described["position"] = described["position"].detach()
        return with_description(terms, described, experiment)


def pixels_of(position: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Row and column of the pixel in which each molecule lies."""
    row, column = torch.floor(position + 0.5).long().unbind(1)
    return row.clamp(0, shape[0] - 1), column.clamp(0, shape[1] - 1)


def pixel_cross_entropy(logit: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy summed over the candidates of each scene.

    Parameters
    ----------
    logit : Tensor (batch, n, height, width)
        Existence logits.
    batch : Batch
        Truth.

    Returns
    -------
    Tensor (batch,)
    """
    scenes, n, height, width = logit.shape
    row, column = pixels_of(batch.position, (height, width))
    held = logit.new_zeros(scenes, height, width)
    held.index_put_((batch.item, row, column), logit.new_ones(len(row)), accumulate=True)
    rank = torch.arange(n, device=logit.device, dtype=logit.dtype)
    wanted = (held[:, None] > rank[:, None, None]).to(logit.dtype)
    return functional.binary_cross_entropy_with_logits(logit, wanted, reduction="none").flatten(1).sum(1)


def in_pixel_likelihood(field: PointField, batch: Batch, weight: Tensor) -> Tensor:
    """Negative log-likelihood of positions, summed over molecules, averaged over scenes.

    Every molecule is drawn from the Gaussians of its own pixel's candidates, weighted by their probabilities, which
    are held fixed here.
    """
    height, width = field.logit.shape[-2:]
    row, column = pixels_of(batch.position, (height, width))
    place = (batch.item, slice(None), row, column)
    share = torch.log_softmax(functional.logsigmoid(field.logit.detach()[place]), dim=1)
    dy = field.dy[place] - (batch.position[:, 0] - row)[:, None]
    dx = field.dx[place] - (batch.position[:, 1] - column)[:, None]
    log_y, log_x = field.log_sigma_y[place], field.log_sigma_x[place]
    density = -0.5 * (dy.square() * torch.exp(-2 * log_y) + dx.square() * torch.exp(-2 * log_x)) - log_y - log_x
    likelihood = torch.logsumexp(share + density, dim=1)
    return -(weight[batch.item] * likelihood).sum() / len(weight)
