"""How many molecules surround a molecule: on filaments and in clusters more than the mean density says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: Pairs between these distances are counted, px: closer ones may be one molecule found twice, and farther ones do not
#: overlap.
NEAREST_PX, FARTHEST_PX = 1.0, 5.0


def density_around(apart: tuple[FloatArray, FloatArray], weight: FloatArray, total: float, box: FloatArray) -> float:
    """Mean density of other molecules around a molecule.

    Where molecules lie anywhere this is their mean density; where they sit together it is more. Pairs are weighted by
    the translation correction (Ohser and Stoyan, 1981), so that the edges of the frame do not matter.

    Parameters
    ----------
    apart : (array (pairs,), array (pairs,))
        Distances along x and y within pairs of molecules, each pair once, px; those too near or too far do not count.
    weight : array (pairs,)
        Product of the probabilities of both.
    total : float
        Summed probability of all molecules.
    box : array (2,)
        Width and height of the field in which they were found, px.

    Returns
    -------
    float
        Molecules per px²; 0 where there are no pairs.
    """
    dx, dy = (np.abs(one) for one in apart)
    square = dx**2 + dy**2
    counted = (square >= NEAREST_PX**2) & (square < FARTHEST_PX**2) & (dx < box[0]) & (dy < box[1])
    if total <= 0 or not counted.any():
        return 0.0
    seen = (1 - dx[counted] / box[0]) * (1 - dy[counted] / box[1])
    ring_px2 = np.pi * (FARTHEST_PX**2 - NEAREST_PX**2)
    return float(2 * (weight[counted] / seen).sum() / (total * ring_px2))
