"""Candidates from a map: a network that draws molecules on a grid, and a finder that reads positions from the drawing.

This is how most detectors outside of this project work. Here they look like any other network: image in,
:class:`smlm_pb.networks.field.PointField` out.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from smlm_pb.networks.backbones import Backbone
from smlm_pb.networks.condition import condition_of
from smlm_pb.networks.context import scale_image
from smlm_pb.networks.field import PointField

#: Channels of the features on the fine grid.
_FINE_CHANNELS = 8
_TYPICAL_PHOTONS = 1500.0
_TYPICAL_SIGMA_PX = 0.25
_SIGMA_RANGE_PX = (0.02, 1.0)
#: Logit of a slot that holds no candidate.
_ABSENT = -30.0
#: How steeply the existence logit rises with the logarithm of a peak's height before training; half height is even.
_START_SLOPE = 3.0


class FineMaps(NamedTuple):
    """What a map network says: the drawing on the fine grid, and what it says of the molecules in each pixel."""

    #: Raw values (batch, levels, height · upsampling, width · upsampling).
    drawing: Tensor
    #: As in a PointField, one value per camera pixel: (batch, 1, height, width).
    log_sigma_y: Tensor
    log_sigma_x: Tensor
    log_photons: Tensor
    #: Background, e⁻ per pixel (batch, height, width).
    background: Tensor


class Peaks(NamedTuple):
    """Peaks of a drawing, up to ``n`` in each camera pixel: maps (batch, n, height, width)."""

    #: Height or likelihood, > 0; 0 where a slot holds no peak.
    score: Tensor
    #: Offset from the centre of the camera pixel, px.
    dy: Tensor
    dx: Tensor


class Finder(Protocol):
    """How positions are read from a drawing."""

    #: Channels of the drawing.
    levels: int
    #: Pixels of the drawing along each side of a camera pixel.
    upsampling: int
    #: By how many camera pixels around itself a peak depends on the drawing.
    margin_px: int
    #: Largest offset of a peak from the centre of its camera pixel, px.
    reach_px: float
    #: Value of the drawing before training.
    start_bias: float

    def __call__(self, drawing: Tensor, n: int, /) -> Peaks:
        """Find up to ``n`` peaks in each camera pixel."""


class MapNetwork(nn.Module):
    """A backbone with a drawing head; the drawing is refined on the fine grid by sub-pixel convolution.

    Parameters
    ----------
    backbone : Backbone
        Features per camera pixel.
    finder : Finder
        Reads positions from the drawing.
    n_candidates : int
        Peaks that are kept in each camera pixel.

    References
    ----------
    W. Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
    Neural Network", CVPR 2016 (the step to the fine grid); J. Platt, 1999 (from a peak's height to a probability).
    """

    def __init__(self, backbone: Backbone, finder: Finder, *, n_candidates: int) -> None:
        super().__init__()
        self.backbone, self.finder, self.n_candidates = backbone, finder, n_candidates
        self.reach_px = finder.reach_px
        factor = finder.upsampling
        self.to_fine = nn.Conv2d(backbone.out_channels, _FINE_CHANNELS * factor**2, 3, padding=1)
        self.head = nn.Conv2d(_FINE_CHANNELS, finder.levels, 3, padding=1)
        self.described = nn.Conv2d(backbone.out_channels, 4, 1)
        self.slope = nn.Parameter(torch.tensor(_START_SLOPE))
        self.bias = nn.Parameter(torch.tensor(_START_SLOPE * math.log(2)))
        self.context_frames = 0
        self.radius = backbone.radius + 2 + finder.margin_px
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.described.weight.mul_(0.5)
            start, bias = self.head.bias, self.described.bias
            assert start is not None
            assert bias is not None
            start.fill_(finder.start_bias)
            low, high = (math.log(s) for s in _SIGMA_RANGE_PX)
            share = (math.log(_TYPICAL_SIGMA_PX) - low) / (high - low)
            bias.copy_(torch.tensor([math.log(share / (1 - share))] * 2 + [0.0, 0.0]))

    def forward(self, electrons: Tensor, psf_sigma_px: Tensor, population: Tensor | None = None) -> PointField:
        """Candidates of every pixel; arguments as of :class:`smlm_pb.networks.OffsetRegressionNetwork`."""
        return self.points(self.maps(electrons, psf_sigma_px, population))

    def maps(self, electrons: Tensor, psf_sigma_px: Tensor, population: Tensor | None = None) -> FineMaps:
        """The drawing itself, which is what the methods compare with the truth."""
        image = scale_image(electrons).contiguous(memory_format=torch.channels_last)
        return self._heads(self.backbone(image, condition_of(psf_sigma_px.to(electrons.dtype), population)))

    def read_out(self, features: Tensor) -> PointField:
        """Candidates of every pixel from the features ``(batch, channels, height, width)`` of the backbone."""
        return self.points(self._heads(features))

    def _heads(self, features: Tensor) -> FineMaps:
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            fine = functional.pixel_shuffle(self.to_fine(features), self.finder.upsampling)
            drawing = self.head(functional.silu(fine))
            raw = self.described(features)
        low, high = (math.log(s) for s in _SIGMA_RANGE_PX)
        return FineMaps(
            drawing=drawing,
            log_sigma_y=low + (high - low) * torch.sigmoid(raw[:, 0:1]),
            log_sigma_x=low + (high - low) * torch.sigmoid(raw[:, 1:2]),
            log_photons=math.log(_TYPICAL_PHOTONS) + raw[:, 2:3],
            background=functional.softplus(2 * raw[:, 3]).square() * 4.0,
        )

    def points(self, maps: FineMaps) -> PointField:
        """Read positions from the drawing; no gradient flows into it, but into what is said of the peaks.

        Parameters
        ----------
        maps : FineMaps
            Of this network.

        Returns
        -------
        PointField
            With :attr:`n_candidates` slots per camera pixel.
        """
        with torch.no_grad():
            peaks = self.finder(maps.drawing.detach(), self.n_candidates)
        there = peaks.score > 0
        height = torch.where(there, peaks.score, torch.ones_like(peaks.score)).log()
        shape = peaks.score.shape
        return PointField(
            logit=torch.where(there, self.slope * height + self.bias, torch.full_like(height, _ABSENT)),
            dy=peaks.dy,
            dx=peaks.dx,
            log_sigma_y=maps.log_sigma_y.expand(shape),
            log_sigma_x=maps.log_sigma_x.expand(shape),
            log_photons=maps.log_photons.expand(shape),
            background=maps.background,
        )
