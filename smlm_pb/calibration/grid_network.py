"""The network that finds the points of a calibration target: offset regression on cells of two pixels.

It is the network of the molecules in another dress: candidates with existence, offset and precision per cell, trained
with the same losses (Schroeter, PhD thesis, 2021, section 6.4.2), so that nothing has to be suppressed afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from smlm_pb.calibration.boards import KINDS
from smlm_pb.networks.backbones import ResidualBlock
from smlm_pb.networks.field import PointField
from smlm_pb.networks.offset_regression import OffsetRegressionNetwork

#: Side of a cell, px.
CELL_PX = 2
#: Largest offset of a candidate from the centre of its cell, in cells.
REACH_CELLS = 0.6
#: Surroundings in which the contrast is evened out, px.
_LOCAL_PX = 12.0
_LARGEST = 4.0


def prepare(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Brightness to network input ``(2, height, width)``: contrast of the whole image, and local contrast.

    Gain, offset and exposure of the picture of a target are not known and do not matter.
    """
    from scipy.ndimage import gaussian_filter

    values = np.asarray(image, np.float64)
    dark, middle, bright = np.percentile(values, (1, 50, 99))
    scale = max((bright - dark) / 2, 1e-12)
    whole = (values - middle) / scale
    smooth = gaussian_filter(whole, _LOCAL_PX, mode="nearest", truncate=2.5)
    spread = np.sqrt(gaussian_filter((whole - smooth) ** 2, _LOCAL_PX, mode="nearest", truncate=2.5))
    local = (whole - smooth) / (spread + 0.03)
    return np.clip(np.stack((whole, local)), -_LARGEST, _LARGEST).astype(np.float32)


def condition_of_kind(kinds: list[str]) -> Tensor:
    """What the network is told it looks for: ``(batch, 2)``, one column per kind of target."""
    return torch.tensor([[1.0 if kind == known else 0.0 for known in KINDS] for kind in kinds])


class GridBackbone(nn.Module):
    """Features per cell: one convolution at full resolution, one that halves it, residual blocks.

    Parameters
    ----------
    channels : int
        Width.
    dilations : sequence of int
        One residual block for each.
    """

    def __init__(self, channels: int = 32, dilations: tuple[int, ...] = (1, 2, 1, 3, 1)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, channels // 2, 5, padding=2)
        self.halve = nn.Conv2d(channels // 2, channels, 4, stride=CELL_PX, padding=1)
        stack = [ResidualBlock(channels, dilation) for dilation in dilations]
        self.blocks = nn.ModuleList(stack)
        self.out_channels = channels
        #: Cells that a cell's features depend on.
        self.radius = 3 + sum(block.radius for block in stack)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Features of the cells."""
        features = self.halve(functional.silu(self.stem(image)))
        for block in self.blocks:
            features = block(features, condition)
        return functional.silu(features)


class GridNetwork(OffsetRegressionNetwork):
    """Candidates of every cell; positions and precisions are in cells.

    Parameters
    ----------
    channels : int
        Width.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__(GridBackbone(channels), n_candidates=1, reach_px=REACH_CELLS, head_size=1, start_logit=-4.0)

    def forward(self, image: Tensor, condition: Tensor) -> PointField:  # type: ignore[override] # no PSF here
        """Candidates.

        Parameters
        ----------
        image : Tensor (batch, 2, height, width)
            From :func:`prepare`; sides are even.
        condition : Tensor (batch, 2)
            From :func:`condition_of_kind`.

        Returns
        -------
        PointField
            Maps ``(batch, 1, height / 2, width / 2)``.
        """
        return self.read_out(self.backbone(image.contiguous(memory_format=torch.channels_last), condition))


def to_cells(position_px: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Positions in px as positions in cells; the centre of the first pixel and of the first cell are 0."""
    return np.asarray((position_px - (CELL_PX - 1) / 2) / CELL_PX)


def to_pixels(position_cells: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Positions in cells as positions in px."""
    return np.asarray(position_cells * CELL_PX + (CELL_PX - 1) / 2)
