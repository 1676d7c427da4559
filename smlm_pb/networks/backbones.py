"""Backbones: image in, features out, one feature vector per pixel.

No normalisation layers: what comes out of a cell of ``cell_px`` pixels depends on its surroundings within ``radius``
pixels and on nothing else, so that an image may be cut into overlapping tiles of whole cells without changing the
result.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from smlm_pb.networks.condition import ConditionEmbedding
from smlm_pb.networks.mixed_convolution import MixedConvolution

#: How far the first layer looks beyond a pixel, or a cell, px.
_STEM_MARGIN_PX = 2


class Backbone(Protocol):
    """What the head needs to know of a backbone."""

    out_channels: int
    #: What the surroundings of a cell must have on all sides for its features to be those of the whole image, px.
    radius: int
    #: Side of the cells that an image is cut into from its first pixel on, px.
    cell_px: int

    def __call__(self, image: Tensor, condition: Tensor) -> Tensor:
        """Features ``(batch, out_channels, height, width)``."""


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity, modulated by the imaging conditions (Perez et al., AAAI 2018).

    Parameters
    ----------
    channels : int
        Width.
    dilation : int
        Of the second convolution.
    n_conditions : int
        Features that describe the conditions.
    kernels : int
        Kernels that the conditions may add to those of each convolution.
    """

    def __init__(self, channels: int, dilation: int, n_conditions: int = 2, kernels: int = 0) -> None:
        super().__init__()
        self.first = MixedConvolution(channels, n_conditions, kernels)
        self.second = MixedConvolution(channels, n_conditions, kernels, dilation=dilation)
        self.modulation = nn.Linear(n_conditions, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        # Blocks start as the identity, which keeps deep nets without normalisation trainable (Zhang et al., 2019).
        for own in (self.second.weight, self.second.bias):
            assert own is not None
            nn.init.zeros_(own)
        self.radius = 1 + dilation

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Add the block's contribution to its input."""
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        hidden = self.first(functional.silu(features), condition)
        hidden = hidden * (1 + scale).to(hidden.dtype) + shift.to(hidden.dtype)
        result: Tensor = features + self.second(functional.silu(hidden), condition)
        return result


#: Features of each pixel of a cell.
_APART_CHANNELS = 16


class ResidualBackbone(nn.Module):
    """Stem, residual blocks, and where those look at cells of several pixels, a layer that tells the pixels apart.

    Blocks that look at single pixels look two pixels wide every other time. Cells of 2×2 pixels take a fourth of the
    work at the same width.

    Parameters
    ----------
    in_channels : int
        Channels of the scaled image.
    channels : int
        Width of the network.
    blocks : int
        Number of residual blocks.
    told : {"psf", "population", "arrangement"}
        What the network is told beside the image; see :mod:`smlm_pb.networks.condition`.
    kernels : int
        Kernels of every convolution that are mixed by what the network is told, beside its own.
    cell_px : int
        Side of what the residual blocks take for one pixel, px.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        blocks: int,
        told: str = "psf",
        kernels: int = 0,
        cell_px: int = 1,
    ) -> None:
        super().__init__()
        self.cell_px = cell_px
        self.stem = nn.Conv2d(in_channels, channels, _STEM_MARGIN_PX * 2 + cell_px, cell_px, _STEM_MARGIN_PX)
        self.embedding = ConditionEmbedding(told, wide=kernels > 0)
        n_conditions = self.embedding.out_features
        dilations = [1 + index % 2 if cell_px == 1 else 1 for index in range(blocks)]
        stack = [ResidualBlock(channels, dilation, n_conditions, kernels) for dilation in dilations]
        self.blocks = nn.ModuleList(stack)
        self.apart = nn.Conv2d(channels, cell_px**2 * _APART_CHANNELS, 1) if cell_px > 1 else None
        self.out_channels = channels if self.apart is None else _APART_CHANNELS
        self.stem_radius = math.ceil(_STEM_MARGIN_PX / cell_px)
        self.radius = (self.stem_radius + sum(block.radius for block in stack)) * cell_px

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Features of the image."""
        # The stem sees differences of a few counts on a large background: never in reduced precision.
        with torch.autocast(image.device.type, enabled=False):
            features = self.stem(self.whole_cells(image))
            embedded = self.embedding(condition)
        for block in self.blocks:
            features = block(features, embedded)
        return self.by_pixel(functional.silu(features))[..., : image.shape[-2], : image.shape[-1]]

    def whole_cells(self, image: Tensor) -> Tensor:
        """The image with zeros up to the next whole cells."""
        down, right = (-size % self.cell_px for size in image.shape[-2:])
        return functional.pad(image, (0, right, 0, down)) if down or right else image

    def by_pixel(self, features: Tensor) -> Tensor:
        """Features of the pixels from those of cells, both after the nonlinearity."""
        if self.apart is None:
            return features
        return functional.pixel_shuffle(functional.silu(self.apart(features)), self.cell_px)


class PaperBackbone(nn.Module):
    """The published network up to its last layer: 7×7, 5×5 and 5×5 convolutions of 32 channels with ReLU.

    References
    ----------
    J. Schroeter, T. Tuytelaars, K. Sidorov, D. Marshall, "Learning Multi-Instance Sub-pixel Point Localization",
    ACCV 2020.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        sizes = (7, 5, 5)
        widths = (in_channels, 32, 32, 32)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, size, padding=size // 2) for a, b, size in zip(widths, widths[1:], sizes, strict=False)
        )
        self.out_channels, self.cell_px = 32, 1
        self.radius = sum(size // 2 for size in sizes)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Features of the image; the published network knows nothing of the imaging conditions."""
        features = image
        for layer in self.layers:
            features = functional.relu(layer(features))
        return features
