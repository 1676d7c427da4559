"""Prediction in overlapping tiles, equal to prediction of the whole frame."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from smlm_pb.networks.field import PointField


class Predictor(Protocol):
    """A network, or what stands for it."""

    #: How far a pixel of the image reaches, px.
    radius: int

    def __call__(self, electrons: Tensor, psf_sigma_px: Tensor, /) -> PointField:
        """Candidates of every pixel."""


def predict_tiled(network: Predictor, electrons: Tensor, psf_sigma_px: Tensor, *, tile_px: int) -> PointField:
    """Predict large frames in tiles with a margin of the receptive field.

    Parameters
    ----------
    network : Predictor
        The network, or a :class:`smlm_pb.networks.inference.FixedWidthNetwork`; its ``radius`` is the margin that makes
        tiling exact.
    electrons : Tensor (batch, 1, height, width)
        Photo-electrons.
    psf_sigma_px : Tensor (batch,)
        PSF width, px.
    tile_px : int
        Side of the region that each tile contributes, px.

    Returns
    -------
    PointField
        As for the whole frame.
    """
    height, width = electrons.shape[-2:]
    if height <= tile_px and width <= tile_px:
        result: PointField = network(electrons, psf_sigma_px)
        return result
    margin = network.radius
    rows: list[PointField] = []
    for top in range(0, height, tile_px):
        row: list[PointField] = []
        for left in range(0, width, tile_px):
            y0, x0 = max(0, top - margin), max(0, left - margin)
            tile = electrons[..., y0 : top + tile_px + margin, x0 : left + tile_px + margin]
            field: PointField = network(tile, psf_sigma_px)
            keep_y = slice(top - y0, top - y0 + min(tile_px, height - top))
            keep_x = slice(left - x0, left - x0 + min(tile_px, width - left))
            row.append(PointField(*(m[..., keep_y, keep_x] for m in field)))
        rows.append(PointField(*(torch.cat(maps, dim=-1) for maps in zip(*row, strict=True))))
    return PointField(*(torch.cat(maps, dim=-2) for maps in zip(*rows, strict=True)))
