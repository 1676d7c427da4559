"""What lies around a molecule: how much light of neighbours falls on it, and how much light and probability is near."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.neighbours import NearPairs, likelier_first, pairs_within

#: Molecules this many PSF widths apart share less than a hundredth of their light.
REACH_WIDTHS = 5.0
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
    n = len(rows["x"])
    photons, probability = (rows[name].astype(np.float64) for name in ("photons", "probability"))
    light = probability * photons
    if n < 2:
        return Surroundings(np.zeros(n), probability, light, np.zeros(n), np.zeros(n), np.full(n, REACH_WIDTHS))
    sigma = np.broadcast_to(np.asarray(psf_sigma_px, np.float64), n)
    near = pairs_within(rows, reach_px(sigma)) if near is None else near
    first, second, square = near
    in_widths = square / np.square(sigma).take(first)
    overlap = np.exp(-0.25 * in_widths)
    leader, behind = likelier_first(probability, first, second)
    led = _summed(behind, overlap * light.take(leader), n)
    falling = led + _summed(leader, overlap * light.take(behind), n)
    nearest = np.full(n, REACH_WIDTHS**2)
    np.minimum.at(nearest, behind, in_widths)
    first, second, _ = near.within(NEAR_PX)
    own = np.maximum(photons, 1e-9)
    return Surroundings(
        falling / own,
        probability + _summed(first, probability[second], n) + _summed(second, probability[first], n),
        light + _summed(first, light[second], n) + _summed(second, light[first], n),
        _summed(behind, overlap * probability.take(leader), n),
        led / own,
        np.sqrt(nearest),
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


def _summed(receiver: npt.NDArray[np.intp], values: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """What the rows (n,) receive."""
    received = np.zeros(n)
    received += np.bincount(receiver, values, minlength=n)
    return received
