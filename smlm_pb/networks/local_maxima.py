"""Positions as local maxima of a drawing, to a fraction of its pixels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.networks.map_network import Peaks

#: Peaks lower than this, relative to a molecule's, are noise.
LEAST_HEIGHT = 0.02
_TINY = 1e-6
#: Of a drawing of probabilities before training: molecules are rare.
_START_LOGIT = -3.0


class LocalMaxima:
    """Pixels higher than their eight neighbours; the position between pixels from a parabola through the logarithm.

    For a lone Gaussian the parabola is exact, whatever its width.

    Parameters
    ----------
    upsampling : int
        Pixels of the drawing along each side of a camera pixel.
    values : {"linear", "sigmoid", "blurred"}
        What is searched: the drawing, clipped at zero; its logistic function; or the drawing, clipped at zero, under a
        Gaussian filter, for drawings of spikes.
    blur_px : float
        Standard deviation of that filter in pixels of the drawing.
    """

    levels = 1

    def __init__(
        self, upsampling: int, *, values: Literal["linear", "sigmoid", "blurred"] = "linear", blur_px: float = 1.0
    ) -> None:
        self.upsampling, self.values, self.blur_px = upsampling, values, blur_px
        reach = 1 + (gaussian_filter_radius(blur_px) if values == "blurred" else 0)
        self.margin_px = -(-reach // upsampling)
        self.reach_px = 0.5 + 0.5 / upsampling
        self.start_bias = _START_LOGIT if values == "sigmoid" else 0.0

    def heights(self, drawing: Tensor) -> Tensor:
        """What is searched for maxima: (batch, 1, fine height, fine width), a molecule's peak near 1."""
        if self.values == "sigmoid":
            return torch.sigmoid(drawing)
        clipped = drawing.clamp_min(0.0)
        return gaussian_filter(clipped, self.blur_px) if self.values == "blurred" else clipped

    def __call__(self, drawing: Tensor, n: int, /) -> Peaks:
        """Find the ``n`` highest peaks of each camera pixel."""
        heights = self.heights(drawing)
        dy, dx = log_parabola(heights)
        return by_camera_pixel(
            torch.where(local_maxima(heights), heights, torch.zeros_like(heights)), dy, dx, self.upsampling, n
        )


def local_maxima(heights: Tensor) -> Tensor:
    """Where (…, height, width) is above the noise, above its later neighbours, and not below the earlier ones.

    Of equal neighbours the last is the maximum, so that a molecule between pixels is one.
    """
    height, width = heights.shape[-2:]
    padded = functional.pad(heights, (1, 1, 1, 1), value=-math.inf)
    around = [
        padded[..., 1 + i : 1 + i + height, 1 + j : 1 + j + width] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j
    ]
    earlier, later = (torch.stack(part).amax(0) for part in (around[:4], around[4:]))
    return (heights >= earlier) & (heights > later) & (heights > LEAST_HEIGHT)


def log_parabola(heights: Tensor) -> tuple[Tensor, Tensor]:
    """Offset of the maximum from each pixel along y and x, in pixels of the drawing, within ±1/2; 0 at the border."""
    log = heights.clamp_min(_TINY).log()
    offsets = []
    for axis in (-2, -1):
        size = log.shape[axis]
        if size < 3:
            offsets.append(torch.zeros_like(log))
            continue
        before, middle, after = (log.narrow(axis, first, size - 2) for first in (0, 1, 2))
        bend = (2 * middle - before - after).clamp_min(_TINY)
        inner = ((after - before) / (2 * bend)).clamp(-0.5, 0.5)
        offsets.append(functional.pad(inner, (0, 0, 1, 1) if axis == -2 else (1, 1, 0, 0)))
    return offsets[0], offsets[1]


def by_camera_pixel(score: Tensor, dy: Tensor, dx: Tensor, upsampling: int, n: int) -> Peaks:
    """Sort peaks of a fine grid (batch, 1, fine height, fine width) into the slots of their camera pixels.

    Parameters
    ----------
    score, dy, dx : Tensor
        Height (0 where there is no peak), and offset from the fine pixel in fine pixels.
    upsampling : int
        Fine pixels along each side of a camera pixel.
    n : int
        Slots of a camera pixel; the highest peaks are kept.
    """
    batch, _, fine_height, fine_width = score.shape
    height, width = fine_height // upsampling, fine_width // upsampling
    # Centres of the fine pixels of a camera pixel, relative to its own centre, px.
    centre = (torch.arange(upsampling, device=score.device, dtype=score.dtype) + 0.5) / upsampling - 0.5

    def cells(values: Tensor) -> Tensor:
        split = values.reshape(batch, height, upsampling, width, upsampling)
        return split.permute(0, 2, 4, 1, 3)  # (batch, fine row, fine column, height, width)

    y = cells(dy) / upsampling + centre[:, None, None, None]
    x = cells(dx) / upsampling + centre[None, :, None, None]
    flat = [values.reshape(batch, upsampling**2, height, width) for values in (cells(score), y, x)]
    kept = min(n, upsampling**2)
    best, which = flat[0].topk(kept, dim=1)
    parts = [best, flat[1].gather(1, which), flat[2].gather(1, which)]
    # An empty slot has no place.
    parts[1:] = [torch.where(best > 0, part, torch.zeros_like(part)) for part in parts[1:]]
    return Peaks(*(functional.pad(part, (0, 0, 0, 0, 0, n - kept)) for part in parts))


def gaussian_filter_radius(sigma_px: float) -> int:
    """Pixels to either side that the filter reaches."""
    return max(1, round(3 * sigma_px))


def gaussian_filter(image: Tensor, sigma_px: float) -> Tensor:
    """Filter ``(batch, 1, height, width)`` with a Gaussian of height 1: the height of a lone spike stays."""
    radius = gaussian_filter_radius(sigma_px)
    steps = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma_px) ** 2)
    rows = functional.conv2d(image, kernel.reshape(1, 1, -1, 1), padding=(radius, 0))
    return functional.conv2d(rows, kernel.reshape(1, 1, 1, -1), padding=(0, radius))
