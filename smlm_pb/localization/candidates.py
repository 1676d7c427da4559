"""From the network's maps to columns: every candidate whose probability is not negligible."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
_CROPS = 48
#: One candidate as it lies in memory and in the work file.
CANDIDATE_DTYPE = np.dtype([(name, COLUMN_BY_NAME[name].dtype) for name in CORE_COLUMNS])


class Candidates(NamedTuple):
    """Candidates of some frames."""

    #: Structured array (n,) of :data:`CANDIDATE_DTYPE`, ordered by frame, then row, then column.
    rows: npt.NDArray[Any]
    #: Summed probability of what is not negligible but below the floor: molecules that are expected but not listed.
    mass_below_floor: float


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
    return _collect(
        _Chosen(item, row, column, values), (height, width), first_frame, floor, excess_noise_factor=excess_noise_factor
    )


def list_candidates(
    network: FixedWidthNetwork,
    electrons: Tensor,
    psf_sigma_px: Tensor,
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
    electrons : Tensor (batch, 1, height, width)
        Consecutive frames, photo-electrons.
    psf_sigma_px : Tensor (batch,)
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
    from smlm_pb.networks.tiling import predict_tiled, tiles_of

    if not network.is_lazy:
        field = predict_tiled(network, electrons, psf_sigma_px, tile_px=tile_px)
        return select_candidates(field, first_frame=first_frame, floor=floor, excess_noise_factor=excess_noise_factor)
    height, width = electrons.shape[-2:]
    parts = []
    for tile in tiles_of(height, width, tile_px, network.radius):
        features = network.features(electrons[tile.region])[tile.keep].permute(0, 2, 3, 1)
        logits = network.logits(features)
        item, row, column, candidate = (logits >= _smallest_logit(floor)).nonzero(as_tuple=True)
        values = network.read(features[item, row, column], candidate)
        parts.append(_Chosen(item, row + tile.top, column + tile.left, values))
    chosen = parts[0] if len(parts) == 1 else _in_order(parts, height, width)
    return _collect(chosen, (height, width), first_frame, floor, excess_noise_factor=excess_noise_factor)


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
            values = network.read(features[number, down, right], candidate)
            parts.append(_Chosen(frame, row + down - reach, column + right - reach, values))
    if not parts:
        return join_candidates([])
    chosen = _in_order(parts, *shape[1:])
    return _collect(chosen, shape[1:], first_frame, floor, excess_noise_factor=excess_noise_factor)


class _Chosen(NamedTuple):
    """Some candidates (m,) of a batch, on the device of the network."""

    item: Tensor
    row: Tensor
    column: Tensor
    values: PointField


def _smallest_logit(floor: float) -> float:
    """What is below is neither listed nor counted; a little less, since the probability decides."""
    smallest = min(floor, _NEGLIGIBLE)
    return math.log(smallest / (1 - smallest)) - 1e-3 if smallest > 0 else -math.inf


def _in_order(parts: list[_Chosen], height: int, width: int) -> _Chosen:
    """Join what tiles hold, ordered by frame, row and column; candidates of one pixel stay in their order."""
    import torch

    from smlm_pb.networks import PointField

    item, row, column = (torch.cat([getattr(part, name) for part in parts]) for name in ("item", "row", "column"))
    values = PointField(*(torch.cat(maps) for maps in zip(*(part.values for part in parts), strict=True)))
    order = torch.argsort((item * height + row) * width + column, stable=True)
    return _Chosen(item[order], row[order], column[order], PointField(*(m[order] for m in values)))


def _collect(
    chosen: _Chosen, shape: tuple[int, int], first_frame: int, floor: float, *, excess_noise_factor: float
) -> Candidates:
    """Rows of the candidates that are listed; everything leaves the device in one piece."""
    import torch

    item, row, column, at = chosen
    height, width = shape
    probability = torch.sigmoid(at.logit)
    x, y = column + at.dx, row + at.dy
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    values = {
        "x": x,
        "y": y,
        "photons": at.log_photons.clamp(max=_MOST_LOG_PHOTONS).exp() * excess_noise_factor,
        "background": at.background * excess_noise_factor,
        "sigma_x": at.log_sigma_x.exp(),
        "sigma_y": at.log_sigma_y.exp(),
        "probability": probability,
    }
    # Batches are far smaller than 2²⁴ frames: their numbers are exact in float32.
    table = torch.stack((item.to(probability.dtype), inside.to(probability.dtype), *values.values())).cpu().numpy()
    columns = dict(zip(values, table[2:], strict=True))
    above = columns["probability"] >= np.float32(floor)
    kept = np.flatnonzero(above & (table[1] > 0))
    rows = np.empty(len(kept), CANDIDATE_DTYPE)
    rows["frame"] = table[0].take(kept).astype(np.int64) + first_frame
    for name, column_values in columns.items():
        rows[name] = column_values.take(kept)
    unlisted = columns["probability"][~above & (columns["probability"] >= np.float32(_NEGLIGIBLE))]
    return Candidates(rows, float(unlisted.sum(dtype=np.float64)))


def join_candidates(parts: list[Candidates]) -> Candidates:
    """Put candidates of consecutive frames together."""
    rows = np.concatenate([part.rows for part in parts]) if parts else np.empty(0, CANDIDATE_DTYPE)
    return Candidates(rows, float(sum(part.mass_below_floor for part in parts)))


def as_columns(rows: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Structured rows as contiguous columns, ready for a table."""
    return {name: np.ascontiguousarray(rows[name]) for name in CORE_COLUMNS}
