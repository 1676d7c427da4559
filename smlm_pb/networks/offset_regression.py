"""Offset regression: ``n`` candidates per pixel with sub-pixel offsets, existence, precision and photons.

After Schroeter et al., ACCV 2020 (thesis Eq. 6.1), extended by the candidates' position uncertainty and photons and
by the background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smlm_pb.networks.backbones import Backbone
from smlm_pb.networks.condition import condition_of
from smlm_pb.networks.context import scale_frames
from smlm_pb.networks.field import PointField

#: Smallest and largest position standard deviation a candidate can state, px.
SIGMA_RANGE_PX = (0.004, 1.0)
_MAPS_PER_CANDIDATE = 6
_TYPICAL_PHOTONS = 1500.0
_TYPICAL_SIGMA_PX = 0.25
#: By how much the existence logit of a pixel's next candidate starts below the previous one.
_STAGGER = 2.0


class OffsetRegressionNetwork(nn.Module):
    """A backbone with the candidates' head.

    Parameters
    ----------
    backbone : Backbone
        Features per pixel.
    n_candidates : int
        Candidates per pixel.
    reach_px : float
        Largest offset of a candidate from the centre of its pixel, px; above 0.5 neighbouring pixels overlap.
    head_size : int
        Side of the head's convolution (odd).
    start_logit : float
        Existence logit before training, see :func:`smlm_pb.losses.start_logit`.
    context_frames : int
        Frames before and after that the network makes use of.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_candidates: int,
        reach_px: float,
        head_size: int,
        start_logit: float,
        context_frames: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.n_candidates = n_candidates
        self.context_frames = context_frames
        self.reach_px = reach_px
        maps = _MAPS_PER_CANDIDATE * n_candidates + 1
        self.head = nn.Conv2d(backbone.out_channels, maps, head_size, padding=head_size // 2)
        self.radius = backbone.radius + head_size // 2
        with torch.no_grad():
            # Offsets start near zero and precision near its typical value. The candidates of one pixel must differ:
            # between equals the counting loss has no slope, and random weights alone break the tie only slowly.
            self.head.weight.mul_(0.5)
            bias = self.head.bias
            assert bias is not None
            bias.zero_()
            bias[:n_candidates] = start_logit - _STAGGER * torch.arange(n_candidates)
            low, high = (math.log(s) for s in SIGMA_RANGE_PX)
            share = (math.log(_TYPICAL_SIGMA_PX) - low) / (high - low)
            bias[3 * n_candidates : 5 * n_candidates] = math.log(share / (1 - share))

    def forward(self, electrons: Tensor, psf_sigma_px: Tensor, population: Tensor | None = None) -> PointField:
        """Candidates of every pixel.

        Parameters
        ----------
        electrons : Tensor (batch, 1 or 2 * context_frames + 1, height, width)
            Photo-electrons (divided by the excess-noise factor for EMCCD cameras); with the frames before and after
            where there are any, see :func:`smlm_pb.networks.context.scale_frames`.
        psf_sigma_px : Tensor (batch,)
            Standard deviation of the point-spread function, px.
        population : Tensor (batch, 5), optional
            What is known of the movie's molecules, in the order of :data:`smlm_pb.population.POPULATION_FIELDS`; a row
            of NaN, like leaving it out, says that nothing is known. Networks that are told the PSF width alone do
            without.

        Returns
        -------
        PointField
            Float32 maps.
        """
        image = scale_frames(electrons, self.context_frames).contiguous(memory_format=torch.channels_last)
        return self.read_out(self.backbone(image, condition_of(psf_sigma_px.to(electrons.dtype), population)))

    @torch.no_grad()
    def scale_offsets(self, factor: float) -> None:
        """Multiply what the head says of offsets, before it is bounded: small ones stay where another reach is set."""
        rows = slice(self.n_candidates, 3 * self.n_candidates)
        self.head.weight[rows] *= factor
        self.head.bias[rows] *= factor  # type: ignore[index]

    def read_out(self, features: Tensor) -> PointField:
        """Candidates of every pixel from the features ``(batch, channels, height, width)`` of the backbone."""
        with torch.autocast(features.device.type, enabled=False):
            raw = self.head(features.float())
        n = self.n_candidates
        return self.interpret([raw[:, k * n : (k + 1) * n] for k in range(_MAPS_PER_CANDIDATE)], raw[:, -1])

    def interpret(self, maps: Sequence[Tensor], background: Tensor) -> PointField:
        """Candidates from what the head says, value by value: of every pixel, or of chosen ones."""
        logit, dy, dx, sigma_y, sigma_x, photons = maps
        low, high = (math.log(s) for s in SIGMA_RANGE_PX)
        return PointField(
            logit=logit,
            dy=self.reach_px * torch.tanh(dy),
            dx=self.reach_px * torch.tanh(dx),
            log_sigma_y=low + (high - low) * torch.sigmoid(sigma_y),
            log_sigma_x=low + (high - low) * torch.sigmoid(sigma_x),
            log_photons=math.log(_TYPICAL_PHOTONS) + photons,
            background=torch.nn.functional.softplus(2 * background).square() * 4.0,
        )
