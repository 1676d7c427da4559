"""How much light of neighbours falls on a molecule."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.neighbours import pairs_within

#: Molecules this many PSF widths apart share less than a hundredth of their light.
_REACH = 5.0


def crowding(rows: Any, psf_sigma_px: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Light of the neighbours that overlaps with a molecule, relative to its own.

    Parameters
    ----------
    rows : structured array (n,), table, or mapping of columns
        Molecules or candidates with ``frame``, ``x``, ``y``, ``photons``, ``probability``.
    psf_sigma_px : float or array (n,)
        PSF width, px.

    Returns
    -------
    array (n,)
        Sum over the others of the same frame of p·(their photons / own photons)·exp(-d²/4σ²); 0 for a lone molecule,
        1 for one of two equal ones at the same place.
    """
    n = len(rows["x"])
    result = np.zeros(n)
    if n < 2:
        return result
    sigma = np.broadcast_to(np.asarray(psf_sigma_px, np.float64), n)
    x, y, photons, probability = (rows[name].astype(np.float64) for name in ("x", "y", "photons", "probability"))
    first, second = pairs_within(rows, _REACH * float(sigma.max()))
    overlap = np.exp(-((x[first] - x[second]) ** 2 + (y[first] - y[second]) ** 2) / (4 * sigma[first] ** 2))
    light = probability * photons
    result += np.bincount(first, overlap * light[second], minlength=n) + np.bincount(
        second, overlap * light[first], minlength=n
    )
    return result / np.maximum(photons, 1e-9)
