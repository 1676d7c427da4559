"""Labels that are not where the molecules are: the error of the labels around each pixel.

A label ``x_j`` that lies off its molecule by a random error of variance ``t_j²`` is one draw from the molecule's
position blurred by that error. So the prediction is blurred alike before it is compared with the labels: each
candidate's variance grows by that of the labels around it. The comparison is then free of bias: the probability of a
lone molecule tends to 1, where without it it would tend to ``lambda² / (lambda² + t²)``, and the stated precision
remains that of the molecule and not that of the label.

References
----------
J. Schroeter, PhD thesis, Cardiff University (2021), section 5.5 (Eq. 5.12-5.18): smoothing on both sides, and a
softness of its own for every annotator and sample; here continuous, and with the error of each single label.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

#: Labels within about this distance of a pixel decide its variance, px.
_REACH_PX = 1.5
#: Weight of the item's mean where there is no label near.
_FAR = 1e-6


def label_variance_map(truth: Tensor, truth_item: Tensor, variance: Tensor, batch: int, grid: Sequence[int]) -> Tensor:
    """Variance of the labels around each pixel: a weighted mean, nearest labels first.

    Parameters
    ----------
    truth : Tensor (molecules, 2)
        Labels (y, x), px, centre of the first pixel 0.0.
    truth_item : Tensor (molecules,)
        Batch item to which each label belongs.
    variance : Tensor (molecules, 2)
        Variance of each label's error along y and x, px².
    batch : int
        Number of items.
    grid : sequence of int
        Height and width, px.

    Returns
    -------
    Tensor (batch, 2, height, width)
        Variance in px². Where all labels of an item have the same, the map is that value; far from all labels it is
        their mean, and 0 in items without labels. No gradient.
    """
    height, width = grid
    with torch.no_grad():
        variance = variance.to(truth)
        item = truth_item.long()
        row, column = (torch.floor(truth + 0.5).long()).unbind(1)
        row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
        sums = truth.new_zeros(batch, 3, height, width)
        values = torch.cat((variance, torch.ones_like(variance[:, :1])), dim=1)
        sums.movedim(1, -1).index_put_((item, row, column), values, accumulate=True)
        total = sums.sum((2, 3), keepdim=True)
        near = _blur(sums) + _FAR * total
        return near[:, :2] / near[:, 2:].clamp_min(torch.finfo(near.dtype).tiny)


def _blur(maps: Tensor) -> Tensor:
    """Gaussian blur of maps ``(batch, n, height, width)``; beyond the border there is nothing."""
    radius = round(3 * _REACH_PX)
    steps = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (steps / _REACH_PX) ** 2).expand(maps.shape[1], 1, 1, -1)
    along_x = functional.conv2d(maps, kernel, padding=(0, radius), groups=maps.shape[1])
    return functional.conv2d(along_x, kernel.transpose(2, 3), padding=(radius, 0), groups=maps.shape[1])
