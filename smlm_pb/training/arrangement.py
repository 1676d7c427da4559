"""How molecules lie to each other within a frame: anywhere, along lines, or in spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

Arrangement = Literal["uniform", "filaments", "spots", "unknown"]

#: Distances between which pairs are counted, px. Closer ones may have been taken for one molecule.
_EDGES_PX = np.array([2.0, 4.0, 8.0])
_MOST_FRAMES = 200
#: Pairs that an even sample must have before their number tells anything.
_FEWEST_PAIRS = 100
#: Excess of near pairs that is more than chance and uneven light make.
_EXCESS = 1.12
#: On a line pairs per area fall as 1/distance, on small spots much faster beyond their size.
_STEEP = 1.8


def arrangement_of(molecules: Localizations, *, seed: int = 0) -> Arrangement:
    """Tell by the pair correlation on what kind of structure molecules lie.

    Pairs are counted within single frames, where a molecule that blinks at one place again and again is one molecule,
    and held against as many molecules placed anywhere in the same frame, which cancels the frame's edges.

    Parameters
    ----------
    molecules : Localizations
        Frame by frame.
    seed : int
        Seed of the even sample.

    Returns
    -------
    {"uniform", "filaments", "spots", "unknown"}
        ``spots`` are clusters and small rings; ``unknown`` where there are too few pairs.
    """
    real, even = _pairs(molecules, np.random.default_rng(seed))
    if even[0] < _FEWEST_PAIRS:
        return "unknown"
    near, far = real / even
    if near < _EXCESS and far < _EXCESS:
        return "uniform"
    return "filaments" if near >= _EXCESS and near / far < _STEEP else "spots"


def _pairs(
    molecules: Localizations, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Pairs at near and at larger distance: of the molecules, and of an even sample."""
    from scipy.spatial import cKDTree

    height, width = molecules.info.height, molecules.info.width
    frames, start = np.unique(molecules["frame"], return_index=True)
    stop = np.append(start[1:], len(molecules))
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(_MOST_FRAMES, len(frames))).round().astype(int))
    position = np.stack((molecules["y"], molecules["x"]), axis=1).astype(np.float64)
    counts = np.zeros((2, len(_EDGES_PX)))
    for k in chosen:
        real = position[start[k] : stop[k]]
        even = rng.uniform(-0.5, (height - 0.5, width - 0.5), real.shape)
        for row, points in enumerate((real, even)):
            tree = cKDTree(points)
            counts[row] += tree.count_neighbors(tree, _EDGES_PX)
    pairs = np.diff(counts, axis=1)
    return pairs[0], pairs[1]
