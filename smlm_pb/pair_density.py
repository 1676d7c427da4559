"""How many molecules lie how far from each other: on filaments and in clusters more than the mean density says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: Pairs between these distances are counted, px: closer ones may be one molecule found twice, and farther ones do not
#: overlap.
NEAREST_PX, FARTHEST_PX = 1.0, 5.0


def density_around(apart: tuple[FloatArray, FloatArray], weight: FloatArray, total: float, box: FloatArray) -> float:
    """Mean density of other molecules around a molecule.

    Where molecules lie anywhere this is their mean density; where they sit together it is more. The edges of the frame
    do not matter, see :func:`pairs_between`.

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
    if total <= 0:
        return 0.0
    pairs = pairs_between(NEAREST_PX, FARTHEST_PX, apart, weight, box)
    return 2 * pairs / (total * ring_px2(NEAREST_PX, FARTHEST_PX))


def pairs_between(
    nearest_px: float, farthest_px: float, apart: tuple[FloatArray, FloatArray], weight: FloatArray, box: FloatArray
) -> float:
    """Number of pairs at some distance, as many as there would be if the field had no edges.

    Pairs are weighted by the translation correction (Ohser and Stoyan, 1981).

    Parameters
    ----------
    nearest_px, farthest_px : float
        Distances between which pairs count, px.
    apart, weight, box
        As for :func:`density_around`.

    Returns
    -------
    float
        Of n molecules placed anywhere in the field, n (n - 1) / 2 times the share of the field that the ring takes.
    """
    dx, dy = (np.abs(one) for one in apart)
    square = dx**2 + dy**2
    counted = (square >= nearest_px**2) & (square < farthest_px**2) & (dx < box[0]) & (dy < box[1])
    seen = (1 - dx[counted] / box[0]) * (1 - dy[counted] / box[1])
    return float((weight[counted] / seen).sum())


def ring_px2(nearest_px: float, farthest_px: float) -> float:
    """Area between two distances from a molecule, px²."""
    return float(np.pi * (farthest_px**2 - nearest_px**2))
