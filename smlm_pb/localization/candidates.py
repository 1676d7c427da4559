"""From the network's maps to columns: every candidate whose probability is not negligible."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.columns import COLUMN_BY_NAME, CORE_COLUMNS

if TYPE_CHECKING:
    from torch import Tensor

    from smlm_pb.localization.matched_filter import Group
    from smlm_pb.networks import PointField
    from smlm_pb.networks.inference import FixedWidthNetwork

#: Candidates below this probability are not listed.
DEFAULT_FLOOR = 0.05
# Nor counted as molecules that were missed: there are thousands per frame, and on simulated movies of 0 to 4 molecules
# per µm² the probabilities from 0.05 on add up to the true number within 10 %, those below come on top of it.
_NEGLIGIBLE = 0.05
#: The head is free to say anything of what it hardly believes in; this is far brighter than any molecule or bead.
_MOST_LOG_PHOTONS = 16.0
#: Crops that the network sees at a time: their features fit in the cache.
_CROPS = 128
#: One candidate as it lies in memory and in the work file.
CANDIDATE_DTYPE = np.dtype([(name, COLUMN_BY_NAME[name].dtype) for name in CORE_COLUMNS])


class Candidates(NamedTuple):
    """Candidates of some frames."""

    #: Structured array (n,) of :data:`CANDIDATE_DTYPE`, ordered by frame, then row, then column.
    rows: npt.NDArray[Any]
    #: Number of molecules that are expected but not listed: the summed probability of what is not negligible but below
    #: the floor, and those that no candidate stands for.
    expected_unlisted: float


def select_candidates(
    field: PointField,
    *,
    first_frame: int,
    floor: float = DEFAULT_FLOOR,
    excess_noise_factor: float = 1.0,
) -> Candidates:
    """List the candidates above the floor.

    Parameters
    ----------
    field : PointField
        The network's maps ``(batch, n, height, width)`` for consecutive frames.
    first_frame : int
        Frame number of the first item of the batch.
    floor : float
        Smallest probability that is listed.
    excess_noise_factor : float
        By what the image was divided before the network saw it; photons and background are multiplied back.

    Returns
    -------
    Candidates
        Positions in frame coordinates; those outside the frame, [-0.5, size - 0.5), are left out, because a
        molecule there belongs to what the camera did not see.
    """
    from smlm_pb.networks import PointField

    height, width = field.logit.shape[-2:]
    # Pixel by pixel, the candidates of one pixel beside each other.
    listed = field.logit.permute(0, 2, 3, 1) >= _smallest_logit(floor)
    item, row, column, candidate = listed.nonzero(as_tuple=True)
    values = PointField._make([*(m[item, candidate, row, column] for m in field[:-1]), field[-1][item, row, column]])
    place = (item * height + row) * width + column
    return _collect(place, values, (height, width), first_frame, floor, excess_noise_factor=excess_noise_factor)


def list_candidates(
    network: FixedWidthNetwork,
    batches: Iterable[Tensor],
    psf_sigma_px: float,
    *,
    tile_px: int,
    first_frame: int,
    floor: float = DEFAULT_FLOOR,
    excess_noise_factor: float = 1.0,
) -> Candidates:
    """Predict frames and list the candidates above the floor: what others would be is not computed.

    Parameters
    ----------
    network : FixedWidthNetwork
        The network.
    batches : iterable of Tensor (batch, 1, height, width)
        Consecutive frames, photo-electrons, some at a time.
    psf_sigma_px : float
        PSF width, px.
    tile_px : int
        Larger frames are cut into tiles of this side, px.
    first_frame, floor, excess_noise_factor
        As for :func:`select_candidates`.

    Returns
    -------
    Candidates
        As :func:`select_candidates` of the whole prediction, up to rounding.
    """
    from smlm_pb.networks.tiling import tiles_of

    if not network.is_lazy:
        return _list_all(network, batches, psf_sigma_px, tile_px, first_frame, floor, excess_noise_factor)
    parts: list[_Likely] = []
    frames, shape, tiles = 0, (0, 0), 0
    for electrons in batches:
        shape, tiles = (electrons.shape[-2], electrons.shape[-1]), 0
        for tile in tiles_of(*shape, tile_px, network.radius):
            maps = network.features(electrons[tile.region])[tile.keep].permute(0, 2, 3, 1)
            features = maps.flatten(0, 2)
            pixel, candidate = network.likely(features, _smallest_logit(floor))
            place = _in_frame(pixel, maps.shape[1:3], (tile.top, tile.left), shape) + frames * shape[0] * shape[1]
            parts.append(_Likely(place, candidate, features.index_select(0, pixel)))
            tiles += 1
        frames += len(electrons)
    return _read_out(network, parts, shape, first_frame, floor, excess_noise_factor, in_order=tiles < 2)


def _list_all(
    network: FixedWidthNetwork,
    batches: Iterable[Tensor],
    psf_sigma_px: float,
    tile_px: int,
    first_frame: int,
    floor: float,
    excess_noise_factor: float,
) -> Candidates:
    """The same with a network that says something of all pixels or of none."""
    from smlm_pb.networks.tiling import predict_tiled

    parts = []
    for electrons in batches:
        width = electrons.new_full((len(electrons),), psf_sigma_px)
        field = predict_tiled(network, electrons, width, tile_px=tile_px)
        parts.append(
            select_candidates(field, first_frame=first_frame, floor=floor, excess_noise_factor=excess_noise_factor)
        )
        first_frame += len(electrons)
    return join_candidates(parts)


def list_candidates_at(
    network: FixedWidthNetwork,
    electrons: Tensor,
    groups: Sequence[Group],
    *,
    first_frame: int,
    floor: float = DEFAULT_FLOOR,
    excess_noise_factor: float = 1.0,
) -> Candidates:
    """List the candidates above the floor that lie near some places; the network sees nothing else.

    Parameters
    ----------
    network : FixedWidthNetwork
        The network, whose last layer can be read out at chosen pixels.
    electrons : Tensor (batch, 1, height, width)
        Consecutive frames, photo-electrons.
    groups : sequence of (Places, int)
        Where to look, and how far around; see :class:`smlm_pb.localization.sparse.LightFinder`.
    first_frame, floor, excess_noise_factor
        As for :func:`select_candidates`.

    Returns
    -------
    Candidates
        Those of :func:`list_candidates` in the pixels near the places, up to rounding.
    """
    import torch

    from smlm_pb.localization.crops import cut_crops, far_from_edges, owners

    shape = (len(electrons), *electrons.shape[-2:])
    # Those near edges take more work: in every group they come last, together.
    groups = [
        (places.at(np.argsort(~far_from_edges(places, reach + network.radius, shape[1:]), kind="stable")), reach)
        for places, reach in groups
    ]
    parts = []
    for (places, reach), owned in zip(groups, owners(groups, shape), strict=True):
        own = torch.from_numpy(owned).to(electrons.device)[..., None]
        for start in range(0, len(places), _CROPS):
            some = places.at(slice(start, start + _CROPS))
            crops, inside = cut_crops(electrons, some, reach + network.radius)
            features = network.features_of_crops(crops, inside).permute(0, 2, 3, 1)
            listed = (network.logits(features) >= _smallest_logit(floor)) & own[start : start + _CROPS]
            number, down, right, candidate = listed.nonzero(as_tuple=True)
            frame, row, column = (torch.from_numpy(index).to(number.device)[number] for index in some.indices)
            row, column = row + down - reach, column + right - reach
            place = (frame * shape[1] + row) * shape[2] + column
            parts.append(_Likely(place, candidate, features[number, down, right]))
    return _read_out(network, parts, shape[1:], first_frame, floor, excess_noise_factor, in_order=False)


class _Likely(NamedTuple):
    """Some candidates (m,) that are likely enough to be read out, on the device of the network."""

    #: Their pixels, counted row by row, frame after frame.
    place: Tensor
    #: Their numbers within the pixel.
    candidate: Tensor
    #: What the last layer sees of their pixels (m, channels).
    features: Tensor


def _in_frame(pixel: Tensor, shape: Sequence[int], corner: tuple[int, int], frame_shape: tuple[int, int]) -> Tensor:
    """Places in frames of pixels that are counted in a tile of these frames."""
    if tuple(shape) == frame_shape:
        return pixel
    row = pixel.div(shape[1], rounding_mode="floor")  # in all tiles together
    item = row.div(shape[0], rounding_mode="floor")
    column = pixel - row * shape[1] + corner[1]
    return (row + item * (frame_shape[0] - shape[0]) + corner[0]) * frame_shape[1] + column


def _read_out(
    network: FixedWidthNetwork,
    parts: list[_Likely],
    shape: tuple[int, int],
    first_frame: int,
    floor: float,
    excess_noise_factor: float,
    *,
    in_order: bool,
) -> Candidates:
    """Rows of what parts of the frames hold; candidates of one pixel stay in their order."""
    import torch

    if not parts:
        return join_candidates([])
    found = _Likely(*(torch.cat(one) for one in zip(*parts, strict=True)))
    if not in_order:
        order = torch.argsort(found.place, stable=True)
        found = _Likely(*(one[order] for one in found))
    field = network.say(found.features, found.candidate)
    return _collect(found.place, field, shape, first_frame, floor, excess_noise_factor=excess_noise_factor)


def _smallest_logit(floor: float) -> float:
    """What is below is neither listed nor counted; a little less, since the probability decides."""
    smallest = min(floor, _NEGLIGIBLE)
    return math.log(smallest / (1 - smallest)) - 1e-3 if smallest > 0 else -math.inf


def _collect(
    place: Tensor,
    chosen: PointField,
    shape: tuple[int, int],
    first_frame: int,
    floor: float,
    *,
    excess_noise_factor: float,
) -> Candidates:
    """Rows of the candidates (m,) that are listed; everything leaves the device in two pieces."""
    import torch

    height, width = shape
    values = {
        "x": chosen.dx,
        "y": chosen.dy,
        "photons": chosen.log_photons.clamp(max=_MOST_LOG_PHOTONS).exp() * excess_noise_factor,
        "background": chosen.background * excess_noise_factor,
        "sigma_x": chosen.log_sigma_x.exp(),
        "sigma_y": chosen.log_sigma_y.exp(),
        "probability": torch.sigmoid(chosen.logit),
    }
    columns = dict(zip(values, torch.stack(tuple(values.values())).cpu().numpy(), strict=True))
    line, column = np.divmod(place.cpu().numpy(), width)
    item, row = np.divmod(line, height)
    columns["x"] += column.astype(np.float32)
    columns["y"] += row.astype(np.float32)
    inside = (columns["x"] >= -0.5) & (columns["x"] < width - 0.5)
    inside &= (columns["y"] >= -0.5) & (columns["y"] < height - 0.5)
    above = columns["probability"] >= np.float32(floor)
    kept = np.flatnonzero(above & inside)
    rows = np.empty(len(kept), CANDIDATE_DTYPE)
    rows["frame"] = item.take(kept) + first_frame
    for name, column_values in columns.items():
        rows[name] = column_values.take(kept)
    unlisted = columns["probability"][~above & (columns["probability"] >= np.float32(_NEGLIGIBLE))]
    return Candidates(rows, float(unlisted.sum(dtype=np.float64)))


def join_candidates(parts: list[Candidates]) -> Candidates:
    """Put candidates of consecutive frames together."""
    return Candidates(join_rows([part.rows for part in parts]), float(sum(part.expected_unlisted for part in parts)))


def join_rows(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Put rows of :data:`CANDIDATE_DTYPE` below each other: as bytes, since numpy copies structures slowly."""
    as_bytes = np.dtype((np.void, CANDIDATE_DTYPE.itemsize))
    joined = np.concatenate([np.empty(0, as_bytes), *(part.view(as_bytes) for part in parts)])
    rows: npt.NDArray[Any] = joined.view(CANDIDATE_DTYPE)
    return rows


def as_columns(rows: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Structured rows as contiguous columns, ready for a table."""
    return {name: np.ascontiguousarray(rows[name]) for name in CORE_COLUMNS}
