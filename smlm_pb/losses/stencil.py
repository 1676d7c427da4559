"""Which pixels lie near which: the stencil that makes pair sums linear in the number of pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def stencil_radius(
    bandwidth: float, *, max_sigma: float = 0.0, reach: float = 0.5, tolerance: float = 1e-7, dimensions: int = 2
) -> int:
    """Pixels around a pixel beyond which the kernel of any pair of candidates is below ``tolerance``.

    Parameters
    ----------
    bandwidth : float
        Kernel width lambda in px; the largest, where the axes differ.
    max_sigma : float
        Largest position standard deviation of a candidate in px.
    reach : float
        Largest offset of a candidate from its pixel's centre in px.
    tolerance : float
        Largest neglected kernel value; an isolated molecule costs 1.
    dimensions : int
        Number of axes.

    Returns
    -------
    int
        Chebyshev radius of the stencil.
    """
    # Molecules lie anywhere in their pixels, whatever the candidates can reach.
    reach = max(reach, 0.5)
    narrowest, widest = bandwidth**2, bandwidth**2 + 2 * max_sigma**2
    radius = 0
    while True:
        # Candidates of the nearest pixels left out, each at the far end of its reach towards the other.
        distance = radius + 1 - 2 * reach
        # Uncertain candidates reach further but matter less: their kernel peaks where width² = distance² / dimensions.
        width2 = min(max(distance**2 / dimensions, narrowest), widest)
        largest = (narrowest / width2) ** (dimensions / 2) * math.exp(-(distance**2) / (2 * width2))
        if distance > 0 and largest <= tolerance:
            return radius
        radius += 1


def half_stencil(radius: int, dimensions: int) -> Iterator[tuple[int, ...]]:
    """Shifts of which, with their mirror images and zero, the whole stencil consists."""
    for shift in itertools.product(range(-radius, radius + 1), repeat=dimensions):
        if shift > (0,) * dimensions:
            yield shift


def overlap(
    shift: tuple[int, ...], grid: Sequence[int], rows: range
) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Pixels in ``rows`` whose neighbours at ``shift`` lie inside the grid, and these neighbours.

    Parameters
    ----------
    shift : tuple of int
        From a pixel to its neighbour.
    grid : sequence of int
        Size of the grid.
    rows : range
        Part of the first axis.

    Returns
    -------
    tuple of slices, tuple of slices
        Pixels and neighbours; None when there are none.
    """
    here = []
    for axis, (step, size) in enumerate(zip(shift, grid, strict=True)):
        first, last = (rows.start, rows.stop) if axis == 0 else (0, size)
        here.append(slice(max(first, -step), min(last, size - step, size)))
    if any(part.start >= part.stop for part in here):
        return None
    there = tuple(slice(part.start + step, part.stop + step) for part, step in zip(here, shift, strict=True))
    return tuple(here), there


def stencil_index(truth: Tensor, item: Tensor, grid: Sequence[int], radius: int) -> tuple[Tensor, Tensor]:
    """Pixels around each molecule, in a grid that is padded by ``radius`` on every side.

    Parameters
    ----------
    truth : Tensor (molecules, dimensions)
        True positions in px, axes in grid order.
    item : Tensor (molecules,)
        Batch item of each molecule.
    grid : sequence of int
        Size of the grid without padding.
    radius : int
        Chebyshev radius of the stencil.

    Returns
    -------
    index : Tensor (molecules, stencil)
        Flat indices into the padded grids of the whole batch. The stencil is centred on the molecule's pixel, or on
        the nearest one for a molecule outside the grid.
    centre : Tensor (molecules, stencil, dimensions)
        Pixel centres relative to the molecule, px.
    """
    pixel = torch.floor(truth + 0.5).long()
    steps = torch.arange(2 * radius + 1, device=truth.device)
    index = item.long()[:, None]
    centres = []
    for axis, size in enumerate(grid):
        along = pixel[:, axis].clamp(0, size - 1)[:, None] + steps
        index = (index[:, :, None] * (size + 2 * radius) + along[:, None, :]).flatten(1)
        centres.append((along - radius).to(truth.dtype) - truth[:, axis : axis + 1])
    shape = (len(truth), *(len(steps),) * len(grid))
    expanded = [
        centre.reshape(-1, *(len(steps) if k == axis else 1 for k in range(len(grid)))).expand(shape)
        for axis, centre in enumerate(centres)
    ]
    return index, torch.stack(expanded, dim=-1).flatten(1, -2)
