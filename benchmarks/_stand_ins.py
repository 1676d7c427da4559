"""Untrained networks as large as those of two other programs, to compare the work that a frame takes.

They are rebuilt from the sizes of their layers only: what comes out of them means nothing. Sizes and arithmetic of
the originals were measured as 2.199 million weights and 8.53 GFLOP per frame of 64×64 px (DECODE 0.10) and 1.332
million and 3.49 GFLOP (LiteLoc); the tests compare.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def _twice(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1), nn.ELU(), nn.Conv2d(outside, outside, 3, padding=1), nn.ELU()
    )


class _UNet(nn.Module):
    """Two halvings by strided convolution, doubling the features at each."""

    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        self.fine = _twice(inside, width)
        self.middle = _twice(width, 2 * width)
        self.coarse = _twice(2 * width, 4 * width)
        self.shrink = nn.ModuleList([nn.Conv2d(width, width, 2, 2), nn.Conv2d(2 * width, 2 * width, 2, 2)])
        self.thin = nn.ModuleList([nn.Conv2d(4 * width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)])
        self.join_middle = _twice(4 * width, 2 * width)
        self.join_fine = _twice(2 * width, width)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.fine(image)
        middle = self.middle(self.shrink[0](fine))
        coarse = self.coarse(self.shrink[1](middle))
        up = self.thin[0](functional.interpolate(coarse, scale_factor=2.0))
        middle = self.join_middle(torch.cat((up, middle), dim=1))
        up = self.thin[1](functional.interpolate(middle, scale_factor=2.0))
        joined: Tensor = self.join_fine(torch.cat((up, fine), dim=1))
        return joined


class DecodeSized(nn.Module):
    """As large as DECODE's network (Speiser et al., Nature Methods 18, 1082, 2021): a U-Net per frame, one for three.

    The features of a frame are computed anew for each of the three windows that it belongs to, as DECODE does.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.per_frame = _UNet(1, width)
        self.union = _UNet(3 * width, width)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ELU(), nn.Conv2d(width, maps, 1))
            for maps in (1, 4, 4, 1)
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Map consecutive frames (n, 1, height, width), sides divisible by 4, to maps (n, 10, height, width)."""
        before, after = frames.roll(1, 0), frames.roll(-1, 0)
        features = torch.cat([self.per_frame(part) for part in (before, frames, after)], dim=1)
        joined = self.union(features)
        return torch.cat([head(joined) for head in self.heads], dim=1)


class LiteLocSized(nn.Module):
    """As large as LiteLoc's network (Fei et al., Nature Communications, 2025): mostly at half the resolution.

    The features of a frame are computed once and used for three windows, as LiteLoc does.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.BatchNorm2d(1), nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width), nn.MaxPool2d(2)
        )
        self.blocks = nn.ModuleList(_ConcatBlock(width) for _ in range(3))
        inside = (3 * width, width, width, width)
        self.coarse = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, width, 3, padding=d, dilation=d), nn.ReLU(), nn.BatchNorm2d(width))
                for a, d in zip(inside, (2, 4, 8, 16), strict=True)
            )
        )
        self.fine = _normal_twice(width, width)
        self.lower = nn.Sequential(nn.MaxPool2d(2), _normal_twice(width, 2 * width))
        self.join = _normal_twice(3 * width, width)
        self.full = _normal_twice(width, width)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, maps, 1))
            for maps in (1, 4, 4)
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Map consecutive frames (n, 1, height, width), sides divisible by 4, to maps (n, 9, height, width)."""
        features = self.stem(frames)
        for block in self.blocks:
            features = block(features)
        features = self.coarse(torch.cat((features.roll(1, 0), features, features.roll(-1, 0)), dim=1))
        fine = self.fine(features)
        lower = functional.interpolate(self.lower(fine), scale_factor=2.0)
        full = self.full(functional.interpolate(self.join(torch.cat((lower, fine), dim=1)), scale_factor=2.0))
        return torch.cat([head(full) for head in self.heads], dim=1)


class _ConcatBlock(nn.Module):
    """Two convolutions, then one over their result beside what went in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = _normal_twice(width, width)
        self.merge = nn.Conv2d(2 * width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        merged: Tensor = functional.relu(self.merge(torch.cat((features, self.inner(features)), dim=1)))
        return merged


def _normal_twice(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a in (inside, outside):
        layers += [nn.Conv2d(a, outside, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(outside)]
    return nn.Sequential(*layers)


def weights_and_gflop(network: nn.Module, size_px: int = 64, frames: int = 3) -> tuple[int, float]:
    """Number of weights, and 10⁹ operations per frame (a multiplication with its addition counts as two)."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(frames, 1, size_px, size_px))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() / frames / 1e9
