"""Prediction in overlapping tiles, equal to prediction of the whole frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

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
    rows: dict[int, list[PointField]] = {}
    for tile in tiles_of(height, width, tile_px, network.radius):
        field: PointField = network(electrons[tile.region], psf_sigma_px)
        rows.setdefault(tile.top, []).append(PointField(*(m[tile.keep] for m in field)))
    joined = [PointField(*(torch.cat(maps, dim=-1) for maps in zip(*row, strict=True))) for row in rows.values()]
    return PointField(*(torch.cat(maps, dim=-2) for maps in zip(*joined, strict=True)))


class Tile(NamedTuple):
    """A part of a frame that is predicted with a margin around it."""

    #: First row and column of what the tile contributes.
    top: int
    left: int
    #: Part of the frame that the network sees, as an index for (..., y, x).
    region: tuple[Any, slice, slice]
    #: What is kept of that part.
    keep: tuple[Any, slice, slice]


def tiles_of(height: int, width: int, tile_px: int, margin: int) -> Iterator[Tile]:
    """Cut a frame into tiles, row by row, each with a margin as far as the frame reaches.

    Parameters
    ----------
    height, width : int
        Size of the frame, px.
    tile_px : int
        Side of the region that each tile contributes, px.
    margin : int
        Width of the margin, px.
    """
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            y0, x0 = max(0, top - margin), max(0, left - margin)
            yield Tile(
                top,
                left,
                (..., slice(y0, top + tile_px + margin), slice(x0, left + tile_px + margin)),
                (
                    ...,
                    slice(top - y0, top - y0 + min(tile_px, height - top)),
                    slice(left - x0, left - x0 + min(tile_px, width - left)),
                ),
            )
