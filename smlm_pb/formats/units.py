"""Units that table files use, and their factors to ours."""

from __future__ import annotations

import math

#: nm per unit of length.
_NANOMETRES = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "mm": 1e6,
    "m": 1e9,
    "meter": 1e9,
    "angstrom": 0.1,
    "pm": 1e-3,
}
_PIXELS = {"px", "pix", "pixel", "pixels", "camera pixel"}
_PHOTONS = {"photon", "photons", "photoelectron", "photoelectrons", "e⁻", "e-", "electron", "electrons"}
_PER_PIXEL = {"e⁻/px", "e-/px", "photon/px", "photons/px", "photon/pixel", "photons/pixel"}
_NUMBERS = {"", "1", "frame", "frames", "dimensionless", "fr", "unitless"}

#: Full width at half maximum of a Gaussian, in sigmas.
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))


def is_pure_number(unit: str) -> bool:
    """Whether a unit, as files write it, stands for no unit."""
    return unit.strip().lower() in _NUMBERS


class PixelSizeNeededError(ValueError):
    """A conversion between pixels and nm was asked for without a pixel size."""


def unit_factor(unit: str, own_unit: str, pixel_size_nm: float | None) -> float | None:
    """Find what a value in ``unit`` must be multiplied with to be in ``own_unit``.

    Parameters
    ----------
    unit : str
        As written in a file; ``"nm FWHM"`` is the full width at half maximum of a Gaussian.
    own_unit : str
        Unit of one of our columns.
    pixel_size_nm : float, optional
        Edge of a camera pixel.

    Returns
    -------
    float or None
        None when the units measure different things.

    Raises
    ------
    PixelSizeNeededError
        When the factor depends on the pixel size, which is None.
    """
    base, fwhm, rest = unit.strip().partition(" FWHM")
    if fwhm and not rest:
        factor = unit_factor(base, own_unit, pixel_size_nm)
        return None if factor is None else factor / FWHM_PER_SIGMA
    name = unit.strip()
    if name.lower() in _NANOMETRES or name.lower() in _PIXELS:
        return _length_factor(name.lower(), own_unit, pixel_size_nm)
    if own_unit in ("e⁻", "e⁻/px"):
        known = _PHOTONS | (_PER_PIXEL if own_unit == "e⁻/px" else set())
        return 1.0 if name.lower() in known else None
    if own_unit == "":
        return 1.0 if name.lower() in _NUMBERS else None
    return None


def _length_factor(unit: str, own_unit: str, pixel_size_nm: float | None) -> float | None:
    if own_unit not in ("px", "nm"):
        return None
    in_pixels = unit in _PIXELS
    if in_pixels == (own_unit == "px"):
        return 1.0 if in_pixels else _NANOMETRES[unit]
    if pixel_size_nm is None:
        raise PixelSizeNeededError
    return pixel_size_nm if in_pixels else _NANOMETRES[unit] / pixel_size_nm
