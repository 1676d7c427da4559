"""Full-resolution backbones: image in, features out, one feature vector per pixel.

No normalisation layers and no striding: the output at a pixel depends on its surroundings within ``radius`` pixels
and on nothing else, so that an image may be cut into overlapping tiles without changing the result.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from smlm_pb.networks.condition import ConditionEmbedding
from smlm_pb.networks.mixed_convolution import MixedConvolution


class Backbone(Protocol):
    """What the head needs to know of a backbone."""

    out_channels: int
    radius: int

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


class ResidualBackbone(nn.Module):
    """5×5 stem and residual blocks at full resolution; every other block looks two pixels wide.

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
    """

    def __init__(self, in_channels: int, channels: int, blocks: int, told: str = "psf", kernels: int = 0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, channels, 5, padding=2)
        self.embedding = ConditionEmbedding(told, wide=kernels > 0)
        n_conditions = self.embedding.out_features
        stack = [ResidualBlock(channels, 1 + index % 2, n_conditions, kernels) for index in range(blocks)]
        self.blocks = nn.ModuleList(stack)
        self.out_channels = channels
        self.radius = 2 + sum(block.radius for block in stack)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Features of the image."""
        # The stem sees differences of a few counts on a large background: never in reduced precision.
        with torch.autocast(image.device.type, enabled=False):
            features = self.stem(image)
            embedded = self.embedding(condition)
        for block in self.blocks:
            features = block(features, embedded)
        return functional.silu(features)


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
        self.out_channels = 32
        self.radius = sum(size // 2 for size in sizes)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Features of the image; the published network knows nothing of the imaging conditions."""
        features = image
        for layer in self.layers:
            features = functional.relu(layer(features))
        return features
