"""What is cut out around places, and which pixels belong to which of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from smlm_pb.localization.matched_filter import Group, Places


def owners(groups: Sequence[Group], shape: tuple[int, int, int]) -> list[npt.NDArray[np.bool_]]:
    """Which pixels (n, side, side) around the places of each group are theirs: every pixel has one owner at most.

    Parameters
    ----------
    groups : sequence of (Places, int)
        As :class:`smlm_pb.localization.sparse.LightFinder` gives them.
    shape : (int, int, int)
        Number, height and width of the frames.
    """
    frames, height, width = shape
    owner = np.empty(frames * height * width, np.int64)  # what is not written here is not read either
    first, claims = 0, []
    for places, reach in groups:
        side = np.arange(-reach, reach + 1)
        row, column = places.row[:, None, None] + side[:, None], places.column[:, None, None] + side
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        pixel = ((places.frame[:, None, None] * height + row) * width + column)[inside]
        number = np.broadcast_to(np.arange(first, first + len(places))[:, None, None], inside.shape)[inside]
        owner[pixel] = number
        claims.append((inside, pixel, number))
        first += len(places)
    for inside, pixel, number in claims:
        inside[inside] = owner[pixel] == number
    return [inside for inside, _, _ in claims]


def far_from_edges(places: Places, margin: int, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Which places (n,) have a margin on all sides in frames of that height and width."""
    height, width = shape
    row, column = places.row, places.column
    far: npt.NDArray[np.bool_] = (row >= margin) & (row < height - margin) & (column >= margin)
    return far & (column < width - margin)


def cut_crops(batch: Tensor, places: Places, reach: int) -> tuple[Tensor, Tensor | None]:
    """Crops (m, channels, side, side) around places, zero beyond the frame.

    And where they are inside the frame (m, 1, side, side); None if all of them are.
    """
    import torch
    from torch.nn import functional

    side = 2 * reach + 1
    height, width = batch.shape[-2:]
    frame, row, column = (torch.from_numpy(index).to(batch.device) for index in places.indices)
    if far_from_edges(places, reach, (height, width)).all():
        return batch.unfold(2, side, 1).unfold(3, side, 1)[frame, :, row - reach, column - reach], None
    padded = functional.pad(batch, (reach,) * 4)
    crops = padded.unfold(2, side, 1).unfold(3, side, 1)[frame, :, row, column]
    steps = torch.arange(-reach, reach + 1, device=batch.device)
    rows, columns = row[:, None] + steps, column[:, None] + steps
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return crops, inside[:, None].to(batch.dtype)
