"""What lies around a molecule: how much light of neighbours falls on it, and how much light and probability is near."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.neighbours import pairs_within

#: Molecules this many PSF widths apart share less than a hundredth of their light.
_REACH = 5.0


#: Candidates this close may stand for the same light, px.
NEAR_PX = 1.5


class Surroundings(NamedTuple):
    """What lies around candidates, arrays (n,)."""

    crowding: npt.NDArray[np.float64]
    """Sum over the others of the same frame of p·(their photons / own photons)·exp(-d²/4σ²)."""
    probability: npt.NDArray[np.float64]
    """Summed probability within :data:`NEAR_PX`, their own included."""
    light_e: npt.NDArray[np.float64]
    """Summed p·photons within :data:`NEAR_PX`, their own included, e⁻."""


def surroundings(rows: Any, psf_sigma_px: npt.ArrayLike) -> Surroundings:
    """Look around candidates.

    Parameters
    ----------
    rows : structured array (n,), table, or mapping of columns
        Molecules or candidates with ``frame``, ``x``, ``y``, ``photons``, ``probability``.
    psf_sigma_px : float or array (n,)
        PSF width, px.

    Returns
    -------
    Surroundings
    """
    n = len(rows["x"])
    x, y, photons, probability = (rows[name].astype(np.float64) for name in ("x", "y", "photons", "probability"))
    light = probability * photons
    if n < 2:
        return Surroundings(np.zeros(n), probability, light)
    sigma = np.broadcast_to(np.asarray(psf_sigma_px, np.float64), n)
    first, second = pairs_within(rows, max(_REACH * float(sigma.max()), NEAR_PX))
    square = (x[first] - x[second]) ** 2 + (y[first] - y[second]) ** 2
    overlap = np.exp(-square / (4 * sigma[first] ** 2))
    falling = _sums(first, second, overlap * light[second], overlap * light[first], n)
    near = np.flatnonzero(square <= NEAR_PX**2)
    first, second = first[near], second[near]
    return Surroundings(
        falling / np.maximum(photons, 1e-9),
        probability + _sums(first, second, probability[second], probability[first], n),
        light + _sums(first, second, light[second], light[first], n),
    )


def crowding(rows: Any, psf_sigma_px: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Light of the neighbours that overlaps with a molecule, relative to its own.

    Parameters
    ----------
    rows, psf_sigma_px
        As for :func:`surroundings`.

    Returns
    -------
    array (n,)
        0 for a lone molecule, 1 for one of two equal ones at the same place.
    """
    return surroundings(rows, psf_sigma_px).crowding


def _sums(
    first: npt.NDArray[np.intp],
    second: npt.NDArray[np.intp],
    to_first: npt.NDArray[np.float64],
    to_second: npt.NDArray[np.float64],
    n: int,
) -> npt.NDArray[np.float64]:
    """What the rows (n,) receive from their pairs."""
    received = np.zeros(n)
    received += np.bincount(first, to_first, minlength=n)
    received += np.bincount(second, to_second, minlength=n)
    return received
