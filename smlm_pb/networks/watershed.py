"""Positions as the centres of islands above a cut through an energy landscape."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smlm_pb.networks.map_network import Peaks

#: Islands wider than this are blobs of molecules anyway; how they are cut into tiles may matter to them, px.
_WIDEST_ISLAND_PX = 6
_FOUR_NEIGHBOURS = np.zeros((3, 3, 3), bool)
_FOUR_NEIGHBOURS[1, 1, :] = _FOUR_NEIGHBOURS[1, :, 1] = True


class Watershed:
    """Cut a landscape of cones and take the centroid of every island.

    The drawing holds one channel for each level of energy, from 0 at the distance of a cone's radius to the highest
    level at its tip. Two equal molecules are two islands if they lie further apart than
    ``2 · radius · (1 − cut / highest)``.

    Parameters
    ----------
    upsampling : int
        Pixels of the drawing along each side of a camera pixel.
    highest : int
        Highest level.
    cut : int
        Level from which on a pixel belongs to an island.

    References
    ----------
    L. Tuggener, I. Elezi et al., "Deep Watershed Detector for Music Object Recognition", 2018; I. Elezi, PhD thesis
    (2020), Eq. 6.1 and 6.2.
    """

    def __init__(self, upsampling: int, *, highest: int = 10, cut: int = 8) -> None:
        self.upsampling, self.levels, self.cut = upsampling, highest + 1, cut
        self.margin_px = _WIDEST_ISLAND_PX // 2
        self.reach_px, self.start_bias = 0.5, 0.0

    def __call__(self, drawing: Tensor, n: int, /) -> Peaks:
        """Centroids of the islands; their score is the mean probability of lying above the cut."""
        above = torch.softmax(drawing, dim=1)[:, self.cut :].sum(1)
        likelihood = above.cpu().numpy().astype(np.float64)
        score, item, y, x = _islands(likelihood)
        batch, fine_height, fine_width = likelihood.shape
        height, width = fine_height // self.upsampling, fine_width // self.upsampling
        # From the centres of fine pixels to those of camera pixels.
        y, x = (y + 0.5) / self.upsampling - 0.5, (x + 0.5) / self.upsampling - 0.5
        row = np.clip(np.floor(y + 0.5).astype(int), 0, height - 1)
        column = np.clip(np.floor(x + 0.5).astype(int), 0, width - 1)
        cell = (item * height + row) * width + column
        order = np.lexsort((-score, cell))
        rank = _rank_within(cell[order])
        order, rank = order[rank < n], rank[rank < n]
        maps = np.zeros((3, batch, n, height, width), np.float32)
        place = (item[order], rank, row[order], column[order])
        for target, values in zip(maps, (score, y - row, x - column), strict=True):
            target[place] = values[order]
        return Peaks(*(torch.from_numpy(values).to(drawing.device) for values in maps))


def _islands(likelihood: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Score, item and centroid (fine pixels) of every island where a pixel is more likely above the cut than not."""
    from scipy import ndimage

    labels, count = ndimage.label(likelihood > 0.5, structure=_FOUR_NEIGHBOURS)
    flat = labels.ravel()
    inside = np.flatnonzero(flat)
    island = flat[inside] - 1
    item, row, column = np.unravel_index(inside, likelihood.shape)
    size = np.bincount(island, minlength=count).astype(np.float64)
    means = [
        np.bincount(island, weights=values, minlength=count) / np.maximum(size, 1)
        for values in (likelihood.ravel()[inside], item, row, column)
    ]
    return means[0], np.rint(means[1]).astype(np.int64), means[2], means[3]


def _rank_within(cell: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, 2, … within each run of equal values."""
    first = np.r_[True, cell[1:] != cell[:-1]] if len(cell) else np.empty(0, bool)
    start = np.maximum.accumulate(np.where(first, np.arange(len(cell)), 0))
    return np.arange(len(cell)) - start
