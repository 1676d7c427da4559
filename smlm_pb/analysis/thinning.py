"""One exposure as two independent half-exposures.

Photon counts can be divided after the fact: every photo-electron goes to one of two halves by the toss of a coin. Of a
Poisson count both halves are Poisson with half the mean, and independent of each other (binomial thinning). Gaussian
noise of known variance can be divided too, by adding noise of the right size to one half and taking it from the other
(Neufeld et al., J. Mach. Learn. Res. 25, 57, 2024: data thinning). With both, the halves of a frame are what the camera
would have recorded with half the light and half the read variance, and what is wrong in one half is not wrong in the
other unless the localizer itself is biased.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def split_exposure(
    electrons: npt.ArrayLike, rng: np.random.Generator, *, read_variance_e2: npt.ArrayLike = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Split photo-electrons into two independent half-exposures.

    Parameters
    ----------
    electrons : array (..., height, width)
        Photo-electrons as a camera gives them: photon noise has variance = mean, plus read noise.
    rng : numpy.random.Generator
        Source of randomness.
    read_variance_e2 : float or array (height, width)
        Variance of the read noise in e⁻²; what is left out here stays common to both halves.

    Returns
    -------
    first, second : float32 array (..., height, width)
        Their sum is the input. Each has half the mean and half the variance; their covariance is zero.

    Notes
    -----
    With a difference of the halves whose variance, given the value ``e``, is ``e + v``, the covariance of the halves is
    ``(Var(e) - E(e) - v) / 4 = 0``. The photons' part of it comes from the binomial, the read noise's from a Gaussian;
    where read noise makes the value negative, the Gaussian is narrower by as much.
    """
    total = np.asarray(electrons, dtype=np.float64)
    counts = np.rint(total)
    photons = np.maximum(counts, 0).astype(np.int64)
    thinned = rng.binomial(photons, 0.5)
    variance = np.maximum(
        np.broadcast_to(np.asarray(read_variance_e2, np.float64), total.shape) + (counts - photons), 0
    )
    difference = 2 * thinned - photons + np.sqrt(variance) * rng.normal(size=total.shape)
    first: npt.NDArray[Any] = (total + difference) / 2
    return first.astype(np.float32), (total - first).astype(np.float32)
