"""Whether a drift is one: molecules that had no part in finding it must come closer together when it is removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from smlm_pb.analysis.drift import Data
    from smlm_pb.analysis.drift_kernel import Trajectory

FloatArray = npt.NDArray[Any]

#: The gain must be this many times its standard error.
CERTAIN = 3.0
_TILES = 8


def tiles(xy: FloatArray) -> npt.NDArray[np.intp]:
    """Number of the tile of a chequerboard every molecule lies in; tiles are cut so that rows hold equally many."""
    position = []
    for axis in (0, 1):
        edges = np.linspace(xy[:, axis].min(), xy[:, axis].max() + 1e-9, _TILES + 1)
        position.append(np.clip(np.searchsorted(edges, xy[:, axis], side="right") - 1, 0, _TILES - 1))
    return np.asarray(position[1] * _TILES + position[0], np.intp)


def chequerboard(tile: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Which molecules lie on the white tiles."""
    return np.asarray((tile // _TILES + tile % _TILES) % 2 == 0)


def held_out_gain(
    data: Data,
    paths: list[Trajectory],
    tested: Sequence[npt.NDArray[np.bool_]],
    tile: npt.NDArray[np.intp],
    seed: int,
) -> tuple[float, float]:
    """Mean gain of the log density per molecule when the path of the other half is removed, and its standard error.

    The error is that of the sums over tiles: molecules of one place are not independent of each other.
    """
    rng = np.random.default_rng(seed)
    total, weight = np.zeros(_TILES**2), np.zeros(_TILES**2)
    for path, part in zip(paths, tested, strict=True):
        rows = np.flatnonzero(part)
        if len(rows) > 40_000:
            rows = rng.choice(rows, 40_000, replace=False)
        before = _density(data.xy[rows], data, rows)
        after = _density(data.xy[rows] - path.at(data.time[rows]), data, rows)
        floor = max(0.05 * float(np.median(before) + np.median(after)), 1e-3)
        gain = np.log(after + floor) - np.log(before + floor)
        total += np.bincount(tile[rows], gain, _TILES**2)
        weight += np.bincount(tile[rows], minlength=_TILES**2)
    used = weight > 0
    mean = float(total.sum() / weight.sum())
    residual = total[used] - mean * weight[used]
    n = int(used.sum())
    return mean, float(np.sqrt((residual**2).sum() * n / max(n - 1, 1)) / weight.sum())


def _density(xy: FloatArray, data: Data, rows: npt.NDArray[np.intp]) -> FloatArray:
    """Sum of the kernels of all molecules of other times at each molecule."""
    from scipy.spatial import cKDTree

    width = 2 * data.sigma_nm
    pairs = cKDTree(xy).query_pairs(3 * width, output_type="ndarray")
    time = data.time[rows]
    pairs = pairs[np.abs(time[pairs[:, 0]] - time[pairs[:, 1]]) >= data.apart]
    squared = ((xy[pairs[:, 0]] - xy[pairs[:, 1]]) ** 2).sum(axis=1)
    kernel = np.exp(-squared / (2 * width**2))
    return np.asarray(np.bincount(pairs[:, 0], kernel, len(xy)) + np.bincount(pairs[:, 1], kernel, len(xy)))
