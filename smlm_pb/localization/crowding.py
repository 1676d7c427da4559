"""What lies around a molecule: how much light of neighbours falls on it, and how much light and probability is near."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.compiled import compiled
from smlm_pb.localization.neighbours import NearPairs, likelier_first, pairs_within

FloatArray = npt.NDArray[np.float64]

#: Molecules this many PSF widths apart share less than a hundredth of their light.
REACH_WIDTHS = 5.0
#: Candidates this close may stand for the same light, px.
NEAR_PX = 1.5
_LEAST_PHOTONS = 1e-9


class Surroundings(NamedTuple):
    """What lies around candidates, arrays (n,)."""

    crowding: npt.NDArray[np.float64]
    """Sum over the others of the same frame of p·(their photons / own photons)·exp(-d²/4σ²)."""
    probability: npt.NDArray[np.float64]
    """Summed probability within :data:`NEAR_PX`, their own included."""
    light_e: npt.NDArray[np.float64]
    """Summed p·photons within :data:`NEAR_PX`, their own included, e⁻."""
    likelier: npt.NDArray[np.float64]
    """Sum over the others that are likelier of p·exp(-d²/4σ²)."""
    likelier_light: npt.NDArray[np.float64]
    """The part of the crowding that comes from those that are likelier."""
    likelier_widths: npt.NDArray[np.float64]
    """Distance to the nearest one that is likelier, PSF widths; :data:`REACH_WIDTHS` where none is nearer."""


def reach_px(psf_sigma_px: npt.ArrayLike) -> float:
    """How far away the others are that a molecule's surroundings consist of, px."""
    return max(REACH_WIDTHS * float(np.max(psf_sigma_px, initial=0.0)), NEAR_PX)


def surroundings(rows: Any, psf_sigma_px: npt.ArrayLike, near: NearPairs | None = None) -> Surroundings:
    """Look around candidates.

    Parameters
    ----------
    rows : structured array (n,), table, or mapping of columns
        Molecules or candidates with ``frame``, ``x``, ``y``, ``photons``, ``probability``.
    psf_sigma_px : float or array (n,)
        PSF width, px.
    near : NearPairs, optional
        Pairs within :func:`reach_px`, where they are known.

    Returns
    -------
    Surroundings
    """
    photons, probability = (np.asarray(rows[name], np.float64) for name in ("photons", "probability"))
    sigma = np.broadcast_to(np.asarray(psf_sigma_px, np.float64), len(photons))
    near = pairs_within(rows, reach_px(sigma)) if near is None else near
    leader, behind = likelier_first(probability, near.first, near.second)
    in_widths = near.square / np.square(sigma).take(near.first)
    return Surroundings(*_around(leader, behind, near.square, in_widths, photons, probability))


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


@compiled
def _around(
    leaders: npt.NDArray[np.intp],
    others: npt.NDArray[np.intp],
    square: FloatArray,
    in_widths: FloatArray,
    photons: FloatArray,
    probability: FloatArray,
) -> FloatArray:
    """The lines (6, n) of :class:`Surroundings`, from pairs of which the likelier comes first."""
    n = len(photons)
    around = np.zeros((6, n))
    falling, near_probability, near_light, likelier, likelier_light, widths = around
    light = probability * photons
    near_probability[:], near_light[:], widths[:] = probability, light, REACH_WIDTHS**2
    for k in range(len(leaders)):
        leader, behind = leaders[k], others[k]
        overlap = np.exp(-0.25 * in_widths[k])
        falling[behind] += overlap * light[leader]
        falling[leader] += overlap * light[behind]
        likelier[behind] += overlap * probability[leader]
        likelier_light[behind] += overlap * light[leader]
        widths[behind] = min(widths[behind], in_widths[k])
        if square[k] <= NEAR_PX**2:
            for one, other in ((leader, behind), (behind, leader)):
                near_probability[one] += probability[other]
                near_light[one] += light[other]
    for i in range(n):
        own = max(photons[i], _LEAST_PHOTONS)
        falling[i], likelier_light[i], widths[i] = falling[i] / own, likelier_light[i] / own, np.sqrt(widths[i])
    return around
