"""From the network's maps to columns: every candidate whose probability is not negligible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.columns import COLUMN_BY_NAME, CORE_COLUMNS

if TYPE_CHECKING:
    from smlm_pb.networks import PointField

#: Candidates below this probability are not listed.
DEFAULT_FLOOR = 0.05
# Nor counted as molecules that were missed: there are thousands per frame, and on simulated movies of 0 to 4 molecules
# per µm² the probabilities from 0.05 on add up to the true number within 10 %, those below come on top of it.
_NEGLIGIBLE = 0.05
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
    import torch

    height, width = field.logit.shape[-2:]
    probability = torch.sigmoid(field.logit)
    above = probability >= floor
    # Pixel by pixel, the candidates of one pixel beside each other.
    item, row, column, candidate = torch.nonzero(above.permute(0, 2, 3, 1), as_tuple=True)
    chosen = (item, candidate, row, column)
    x, y = column + field.dx[chosen], row + field.dy[chosen]
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    values = {
        "frame": item + first_frame,
        "x": x,
        "y": y,
        "photons": field.log_photons[chosen].exp() * excess_noise_factor,
        "background": field.background[item, row, column] * excess_noise_factor,
        "sigma_x": field.log_sigma_x[chosen].exp(),
        "sigma_y": field.log_sigma_y[chosen].exp(),
        "probability": probability[chosen],
    }
    rows = np.empty(int(inside.sum()), CANDIDATE_DTYPE)
    for name, value in values.items():
        rows[name] = value[inside].cpu().numpy()
    unlisted = probability[(probability >= _NEGLIGIBLE) & ~above]
    return Candidates(rows, float(unlisted.double().sum() if unlisted.device.type != "mps" else unlisted.sum()))


def join_candidates(parts: list[Candidates]) -> Candidates:
    """Put candidates of consecutive frames together."""
    rows = np.concatenate([part.rows for part in parts]) if parts else np.empty(0, CANDIDATE_DTYPE)
    return Candidates(rows, float(sum(part.mass_below_floor for part in parts)))


def as_columns(rows: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Structured rows as contiguous columns, ready for a table."""
    return {name: np.ascontiguousarray(rows[name]) for name in CORE_COLUMNS}
