"""Classes for the rows of a table: which class the network sees at each molecule's place.

The candidates of all classes go through the same stages as ever: shares of one molecule, whatever their class, become
one row. For the rows that are kept, the network is asked once more, and the probabilities of the candidates around each
row are added up class by class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.pooling import REACH_PX

if TYPE_CHECKING:
    from smlm_pb.localization.job import Job
    from smlm_pb.localizations import Localizations
    from smlm_pb.networks import PointField

_BATCH_PX, _TILE_PX = 1 << 20, 512


def has_classes(job: Job) -> bool:
    """Whether the model of a run tells classes apart."""
    return len(job.model.card.classes) > 1


def add_classes(job: Job, locs: Localizations) -> Localizations:
    """Add ``class`` and ``class_probability`` to rows ordered by frame.

    Parameters
    ----------
    job : Job
        The run, with a model that tells classes apart.
    locs : Localizations
        Rows of the run's movie.
    """
    import torch

    from smlm_pb.networks.inference import FixedWidthNetwork
    from smlm_pb.networks.tiling import predict_tiled

    shares = np.zeros((len(locs), len(job.model.card.classes)))
    if len(locs):
        conditions, device = job.conditions, job.model.device
        camera, sigma = conditions.camera, job.network_psf_sigma_px
        network = FixedWidthNetwork(job.model.network, sigma, population=conditions.population)
        frames = np.unique(locs["frame"].astype(np.int64))
        step = max(1, _BATCH_PX // (job.movie.height * job.movie.width))
        for start in range(0, len(frames), step):
            some = frames[start : start + step]
            adu = np.concatenate([job.movie.read(int(one), int(one) + 1) for one in some])
            electrons = np.asarray(camera.to_electrons(adu) / camera.excess_noise_factor, np.float32)
            # As a missing pixel is given to the network elsewhere: with the light of a typical one.
            electrons = np.where(np.isfinite(electrons), electrons, np.float32(np.nanmedian(electrons)))
            batch = torch.from_numpy(electrons)[:, None].to(device)
            with torch.inference_mode():
                field = predict_tiled(network, batch, torch.full((len(batch),), sigma, device=device), tile_px=_TILE_PX)
            rows = np.flatnonzero((locs["frame"] >= some[0]) & (locs["frame"] <= some[-1]))
            item = np.searchsorted(some, locs["frame"][rows].astype(np.int64))
            x, y = locs["x"][rows].astype(np.float64), locs["y"][rows].astype(np.float64)
            shares[rows] = class_shares(field, item, x, y, shares.shape[1])
    label = shares.argmax(1).astype(np.int32) if len(locs) else np.zeros(0, np.int32)
    total = np.maximum(shares.sum(1), 1e-12)
    sure = np.where(shares.sum(1) > 0, shares.max(1, initial=0.0) / total, 1 / shares.shape[1])
    return locs.with_columns(**{"class": label, "class_probability": sure.astype(np.float32)})


def class_shares(
    field: PointField, item: npt.NDArray[Any], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], n_classes: int
) -> npt.NDArray[np.float64]:
    """Summed probability of the candidates of each class around molecules (molecules, classes).

    Parameters
    ----------
    field : PointField
        The network's maps; candidate ``k`` of a pixel belongs to class ``k mod n_classes``.
    item : int array (molecules,)
        Item of the batch that each molecule lies in.
    x, y : array (molecules,)
        Positions in px.
    n_classes : int
        Number of classes.
    """
    probability = field.logit.sigmoid().cpu().numpy().astype(np.float64)
    dy, dx = field.dy.cpu().numpy(), field.dx.cpu().numpy()
    height, width = probability.shape[-2:]
    shares = np.zeros((len(x), n_classes))
    near_row, near_column = np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)
    for step_y in range(-2, 3):
        for step_x in range(-2, 3):
            row, column = near_row + step_y, near_column + step_x
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            row, column = row.clip(0, height - 1), column.clip(0, width - 1)
            for k in range(probability.shape[1]):
                at = item, k, row, column
                close = np.hypot(row + dy[at] - y, column + dx[at] - x) < REACH_PX
                shares[:, k % n_classes] += np.where(inside & close, probability[at], 0.0)
    return shares
