"""The point-spread function of a real objective: diffraction at a round pupil, with aberrations in mλ.

For tests of robustness only: training and fits use the Gaussian, which this is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from smlm_pb.simulation.sampled_psf import SampledPsf

if TYPE_CHECKING:
    from smlm_pb.simulation.geometry import Float64Array

#: λ/NA in px: with 100-nm pixels 680 nm and NA 1.05. Gaussians that fit its core have σ = 0.20 to 0.21 λ/NA, 1.3 px.
WAVELENGTH_PER_NA_PX = 6.48
_OVERSAMPLING, _GRID, _REACH_PX = 5, 1024, 12


def _defocus(r: Float64Array, theta: Float64Array) -> Float64Array:
    return np.sqrt(3.0) * (2 * r**2 - 1)


def _astigmatism(r: Float64Array, theta: Float64Array) -> Float64Array:
    return np.sqrt(6.0) * r**2 * np.cos(2 * theta)


def _coma(r: Float64Array, theta: Float64Array) -> Float64Array:
    return np.sqrt(8.0) * (3 * r**3 - 2 * r) * np.cos(theta)


#: Zernike polynomials of unit root mean square (Noll, J. Opt. Soc. Am. 66, 207, 1976: Z4, Z6, Z8).
ABERRATIONS = {"defocus": _defocus, "astigmatism": _astigmatism, "coma": _coma}


class PupilPsf(SampledPsf):
    """The PSF of a scalar pupil, integrated over pixels.

    Parameters
    ----------
    aberrations_mwaves : mapping name -> float
        Root-mean-square wavefront errors in thousandths of the wavelength, by the names in :data:`ABERRATIONS`.
    """

    def __init__(self, aberrations_mwaves: Mapping[str, float] | None = None) -> None:
        from scipy.ndimage import uniform_filter

        frequency = np.fft.fftfreq(_GRID, d=1 / _OVERSAMPLING) * WAVELENGTH_PER_NA_PX
        fy, fx = np.meshgrid(frequency, frequency, indexing="ij")
        radius, theta = np.hypot(fy, fx), np.arctan2(fy, fx)
        phase = np.zeros_like(radius)
        for name, mwaves in (aberrations_mwaves or {}).items():
            phase += mwaves / 1000 * ABERRATIONS[name](radius, theta)
        pupil = np.where(radius <= 1.0, np.exp(2j * np.pi * phase), 0.0)
        intensity = np.fft.fftshift(np.abs(np.fft.ifft2(pupil)) ** 2)
        intensity = uniform_filter(intensity / intensity.sum() * _OVERSAMPLING**2, _OVERSAMPLING)
        half = _REACH_PX * _OVERSAMPLING
        middle = slice(_GRID // 2 - half, _GRID // 2 + half + 1)
        super().__init__(intensity[middle, middle], _OVERSAMPLING)
        self._reach = _REACH_PX - 1.0
