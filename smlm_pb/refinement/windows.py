"""Cut windows around groups out of a block of frames, and put together what is known before the fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smlm_pb.psf import pixel_integral
from smlm_pb.refinement.groups import Groups, IntArray, find_groups, neighbour_pairs, outsiders
from smlm_pb.refinement.spots import Spots

FloatArray = npt.NDArray[np.float64]
#: Windows reach this many widths beyond the outermost molecules of a group.
WINDOW_IN_SIGMA = 4.0
#: Pixels × parameters of a batch: small enough for the cache of a processor, large enough for a graphics card.
_CPU_BATCH, _GPU_BATCH = 1 << 18, 1 << 25
#: Standard deviation of the logarithm of the photons around the network's value: barely more than their scale.
_LOG_PHOTONS_PRIOR = 1.0
#: A molecule shines so many widths far.
_SHINES_IN_SIGMA = 3.5
#: Standard deviation of positions that are held, px.
_FROZEN_PX = 1e-3


@dataclass(frozen=True)
class Block:
    """A block of frames in effective photo-electrons, on the device of the fit.

    Parameters
    ----------
    frames : Tensor (frames, height, width)
        Effective photo-electrons, read variance added: variance = mean.
    usable : Tensor (frames, height, width), bool
        Pixels that hold a number.
    read_variance : Tensor (height, width)
        Effective read variance.
    psf_sigma_px : float
        PSF width, px.
    """

    frames: Tensor
    usable: Tensor
    read_variance: Tensor
    psf_sigma_px: float

    @property
    def margin_px(self) -> int:
        """Pixels that a window reaches beyond the molecules' own."""
        return max(2, math.ceil(WINDOW_IN_SIGMA * self.psf_sigma_px - 0.5))


@dataclass
class Molecules:
    """Rows of the table in effective photo-electrons; all arrays (molecules,), float64.

    ``frame`` counts from the first frame of the block. ``x0``, ``y0`` with ``prior_x``, ``prior_y`` (px) are position
    and standard deviation of the prior.
    """

    frame: IntArray
    x: FloatArray
    y: FloatArray
    photons: FloatArray
    background: FloatArray
    x0: FloatArray
    y0: FloatArray
    prior_x: FloatArray
    prior_y: FloatArray
    log_photons0: FloatArray


def make_block(
    electrons: npt.NDArray[np.floating],
    *,
    psf_sigma_px: float,
    read_variance_e2: float | npt.NDArray[np.floating],
    excess_noise_factor: float,
    device: torch.device,
) -> Block:
    """Put frames of photo-electrons (frames, height, width) onto the scale and device of the fit."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    frames = torch.as_tensor(electrons).to(device=device, dtype=dtype) / excess_noise_factor
    variance = torch.as_tensor(np.asarray(read_variance_e2, dtype=np.float64)).to(device=device, dtype=dtype)
    variance = (variance / excess_noise_factor**2).expand(frames.shape[1:])
    usable = torch.isfinite(frames)
    return Block(torch.where(usable, frames, 0.0) + variance, usable, variance, float(psf_sigma_px))


@dataclass(frozen=True)
class Layout:
    """Groups, their windows, and who shines into them from outside.

    Parameters
    ----------
    groups : Groups
        Molecules that are fitted together.
    left, right, top, bottom : array (groups,)
        First and last column, first and last row of every window; may lie outside of the frame.
    outside_starts, outside : array (groups + 1,), array (outsiders,)
        Rows of the molecules that shine into group ``g``: ``outside[outside_starts[g] : outside_starts[g + 1]]``.
    """

    groups: Groups
    left: IntArray
    right: IntArray
    top: IntArray
    bottom: IntArray
    outside_starts: IntArray
    outside: IntArray

    @property
    def n_outside(self) -> IntArray:
        """Molecules that shine into each group's window from outside."""
        return np.diff(self.outside_starts)


def lay_out(molecules: Molecules, block: Block, *, link_px: float, largest: int) -> Layout:
    """Find the groups of a block and place their windows.

    Parameters
    ----------
    molecules : Molecules
        At least one.
    block : Block
        The frames.
    link_px : float
        Molecules closer than this are fitted together.
    largest : int
        Largest number of molecules that are fitted together.

    Returns
    -------
    Layout
    """
    groups = find_groups(molecules.frame, molecules.x0, molecules.y0, link_px=link_px, largest=largest)
    columns, rows = (np.rint(v[groups.rows]).astype(np.intp) for v in (molecules.x0, molecules.y0))
    starts, margin = groups.starts[:-1], block.margin_px
    reach = (margin + 0.5) * math.sqrt(2.0) + _SHINES_IN_SIGMA * block.psf_sigma_px
    group, row = outsiders(groups, neighbour_pairs(molecules.frame, molecules.x0, molecules.y0, reach))
    return Layout(
        groups,
        np.minimum.reduceat(columns, starts) - margin,
        np.maximum.reduceat(columns, starts) + margin,
        np.minimum.reduceat(rows, starts) - margin,
        np.maximum.reduceat(rows, starts) + margin,
        np.searchsorted(group, np.arange(starts.size + 1)).astype(np.intp),
        row,
    )


def batches(layout: Layout, block: Block, chosen: IntArray) -> Iterator[IntArray]:
    """Cut groups into batches of equally many molecules and similar windows.

    Parameters
    ----------
    layout, block
        What is fitted.
    chosen : array (groups,)
        Which groups.

    Yields
    ------
    array (groups of the batch,)
        Indices of groups.
    """
    sizes = layout.groups.sizes[chosen]
    pixels = ((layout.right - layout.left + 1) * (layout.bottom - layout.top + 1))[chosen]
    crowded = layout.n_outside[chosen]
    order = np.lexsort((crowded, pixels, sizes))
    sizes, pixels = sizes[order], pixels[order]
    budget = _CPU_BATCH if block.frames.device.type == "cpu" else _GPU_BATCH
    start = 0
    while start < order.size:
        size, smallest = sizes[start], pixels[start]
        stop = min(order.size, start + max(1, int(budget // (smallest * (3 * size + 1)))))
        stop = start + int(np.searchsorted(sizes[start:stop], size, side="right"))
        # Padding to the widest window of a batch must not double the work.
        stop = start + int(np.searchsorted(pixels[start:stop], 1.5 * smallest, side="right"))
        yield chosen[order[start:stop]]
        start = stop


def cut_out(
    layout: Layout, molecules: Molecules, block: Block, batch: IntArray, *, frozen: bool
) -> tuple[Spots, Tensor]:
    """Cut out the windows of a batch.

    Parameters
    ----------
    layout, molecules, block
        What is fitted.
    batch : array (groups of the batch,)
        Groups of equal size.
    frozen : bool
        Whether positions are held at the present ones.

    Returns
    -------
    spots : Spots
        The batch.
    theta : Tensor (groups, parameters)
        Present parameters: the start of a fit.
    """
    device, dtype = block.frames.device, block.frames.dtype

    def tensor(values: npt.NDArray[np.generic]) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values)).to(device=device, dtype=dtype)

    members = members_of(layout.groups, batch)
    frame = molecules.frame[members[:, 0]]
    left, top = layout.left[batch], layout.top[batch]
    columns = left[:, None] + np.arange(int((layout.right - layout.left)[batch].max()) + 1)
    rows = top[:, None] + np.arange(int((layout.bottom - layout.top)[batch].max()) + 1)
    height, width = block.frames.shape[1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    in_frame = rows.clip(0, height - 1)[:, :, None] * width + columns.clip(0, width - 1)[:, None, :]
    index = torch.as_tensor(in_frame + (frame * height * width)[:, None, None]).to(device)
    wanted = inside & _close(members, molecules, columns, rows, block.margin_px)
    used = torch.as_tensor(wanted).to(device) & block.usable.reshape(-1)[index]
    static = block.read_variance.reshape(-1)[torch.as_tensor(in_frame).to(device)]
    light = _light_from_outside(layout, molecules, block, batch, tensor(columns), tensor(rows))
    prior_mean, prior_precision, theta = _prior(members, molecules, frozen=frozen)
    spots = Spots(
        left=tensor(left),
        top=tensor(top),
        data=block.frames.reshape(-1)[index],
        static=static if light is None else static + light,
        used=used.to(dtype),
        present=torch.ones(members.shape, dtype=dtype, device=device),
        prior_mean=tensor(prior_mean),
        prior_precision=tensor(prior_precision),
        psf_sigma_px=block.psf_sigma_px,
    )
    return spots, tensor(theta)


def members_of(groups: Groups, batch: IntArray) -> IntArray:
    """Rows (groups, molecules) of groups of equal size."""
    size = int(groups.sizes[batch[0]])
    return groups.rows[groups.starts[batch][:, None] + np.arange(size)]


def _close(
    members: IntArray, molecules: Molecules, columns: IntArray, rows: IntArray, margin: int
) -> npt.NDArray[np.bool_]:
    """Pixels within the margin of some molecule: the corners of a wide window tell nothing."""
    x, y = np.rint(molecules.x0[members]), np.rint(molecules.y0[members])
    near_x = np.abs(columns[:, None, :] - x[:, :, None]) <= margin
    near_y = np.abs(rows[:, None, :] - y[:, :, None]) <= margin
    if members.shape[1] == 1:
        return near_y[:, 0, :, None] & near_x[:, 0, None, :]
    close: npt.NDArray[np.bool_] = np.einsum("gmh,gmw->ghw", near_y.astype(np.float32), near_x.astype(np.float32)) > 0
    return close


def _light_from_outside(
    layout: Layout, molecules: Molecules, block: Block, batch: IntArray, columns: Tensor, rows: Tensor
) -> Tensor | None:
    """Expected light of the neighbours that are not in the group, (groups, height, width); None without any."""
    counts = layout.n_outside[batch]
    most = int(counts.max())
    if most == 0:
        return None
    slot = np.arange(most)
    real = slot < counts[:, None]
    index = np.where(real, layout.outside_starts[batch][:, None] + slot, 0)
    neighbour = layout.outside[index]
    x, y, photons = (
        torch.as_tensor(v).to(device=columns.device, dtype=columns.dtype)
        for v in (molecules.x[neighbour], molecules.y[neighbour], molecules.photons[neighbour] * real)
    )
    along_x = pixel_integral(columns[:, None, :] - x[:, :, None], block.psf_sigma_px)
    along_y = pixel_integral(rows[:, None, :] - y[:, :, None], block.psf_sigma_px) * photons[:, :, None]
    return torch.bmm(along_y.transpose(1, 2), along_x)


def _prior(members: IntArray, molecules: Molecules, *, frozen: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean and precision of the prior, and the present parameters, (groups, 3·molecules + 1)."""
    background = molecules.background[members].mean(axis=1)[:, None]
    theta = [molecules.x[members], molecules.y[members], np.log(molecules.photons[members]), background]
    mean = [molecules.x0[members], molecules.y0[members], molecules.log_photons0[members], background]
    precision = [molecules.prior_x[members] ** -2.0, molecules.prior_y[members] ** -2.0]
    if frozen:
        mean[:2] = theta[:2]
        precision = [np.full(members.shape, _FROZEN_PX**-2.0)] * 2
    precision += [np.full(members.shape, _LOG_PHOTONS_PRIOR**-2.0), (0.5 * background + 5.0) ** -2.0]
    return np.concatenate(mean, axis=1), np.concatenate(precision, axis=1), np.concatenate(theta, axis=1)
