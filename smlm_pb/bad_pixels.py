"""Pixels that tell nothing of the light are filled in from those around them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Neighbours across the sides, then across the corners.
_AROUND = np.array([(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)])
_IS_BESIDE = np.arange(8) < 4
#: What leaves a plane and a saddle as they are, and has 1.25 times the variance of a pixel.
_WEIGHTS = np.array([0.5] * 4 + [-0.25] * 4, np.float32)


def fill_in(images: npt.NDArray[np.float32], places: npt.NDArray[np.int_]) -> None:
    """Fill pixels in, in place.

    Where all eight neighbours are good, by half the sum across the sides less a quarter of that across the corners,
    which follows the top of a spot too; otherwise by the mean of the good ones across the sides, of those across the
    corners where there are none, and of the image where there are none of these either.

    Parameters
    ----------
    images : array (..., height, width), float32
        Images; changed.
    places : array (n, 2), int
        Rows and columns.
    """
    shape = images.shape[-2:]
    bad = np.zeros(shape, bool)
    bad[places[:, 0], places[:, 1]] = True
    row, column = np.moveaxis(places[:, None] + _AROUND, -1, 0)
    good = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    row, column = row.clip(0, shape[0] - 1), column.clip(0, shape[1] - 1)
    good &= ~bad[row, column]
    beside = good & (_IS_BESIDE | ~(good & _IS_BESIDE).any(1, keepdims=True))
    weights = (beside / np.maximum(beside.sum(1, keepdims=True), 1)).astype(np.float32)
    weights[good.all(1)] = _WEIGHTS
    around = np.where(good, images[..., row, column], np.float32(0))
    filled = np.einsum("...nk,nk->...n", around, weights)
    alone = ~good.any(1)
    if alone.any():
        filled[..., alone] = images[..., ~bad].mean(-1)[..., None] if not bad.all() else 0.0
    images[..., places[:, 0], places[:, 1]] = filled
