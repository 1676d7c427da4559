"""Expected images without torch: molecules as pixel-integrated Gaussians, and smooth backgrounds.

A Gaussian is separable, so a frame of n molecules is one matrix product of (height, n) by (n, width).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.simulation.geometry import Box, Float64Array, Structure


def pixel_integrals(centre_px: npt.ArrayLike, sigma_px: npt.ArrayLike, n_pixels: int) -> Float64Array:
    """Integrate unit Gaussians over each pixel of one axis.

    E_k = ½ [erf((k + ½ − c) / √2σ) − erf((k − ½ − c) / √2σ)] (Smith et al., 2010).

    Parameters
    ----------
    centre_px, sigma_px : array (molecules,)
        Centres and widths in px; the centre of the first pixel is 0.0.
    n_pixels : int
        Pixels along the axis.

    Returns
    -------
    array (molecules, n_pixels), float64
    """
    from scipy.special import erf

    centre = np.asarray(centre_px, dtype=np.float64)
    inverse = 1.0 / (math.sqrt(2.0) * np.broadcast_to(np.asarray(sigma_px, dtype=np.float64), centre.shape))
    edges = np.arange(n_pixels + 1) - 0.5
    return 0.5 * np.diff(erf((edges - centre[:, None]) * inverse[:, None]), axis=1)


def pixel_integral_derivatives(
    distance_px: Float64Array, sigma_px: npt.ArrayLike
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Integrate unit Gaussians over pixels, with derivatives.

    Parameters
    ----------
    distance_px : array
        Pixel centre minus centre of the Gaussian, in px.
    sigma_px : float or array
        Width in px, broadcast against ``distance_px``.

    Returns
    -------
    integral, d_centre, d_sigma : array
        E, ∂E/∂centre in 1/px, ∂E/∂σ in 1/px.
    """
    from scipy.special import erf

    sigma = np.asarray(sigma_px, dtype=np.float64)
    lower, upper = (distance_px - 0.5) / sigma, (distance_px + 0.5) / sigma
    normal = 1.0 / (math.sqrt(2.0 * math.pi) * sigma)
    density_lower, density_upper = np.exp(-0.5 * lower**2) * normal, np.exp(-0.5 * upper**2) * normal
    integral = 0.5 * (erf(upper / math.sqrt(2.0)) - erf(lower / math.sqrt(2.0)))
    return integral, density_lower - density_upper, lower * density_lower - upper * density_upper


def render_separable(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    photons: npt.ArrayLike,
    sigma_px: npt.ArrayLike,
    shape: tuple[int, int],
) -> Float64Array:
    """Render the expected image of molecules as pixel-integrated Gaussians.

    Parameters
    ----------
    x, y, photons, sigma_px : array (molecules,)
        Positions in px, photo-electrons in e⁻, PSF widths in px (or one width for all).
    shape : (int, int)
        Height and width of the frame.

    Returns
    -------
    array (height, width), float64
        Expected e⁻ per pixel.
    """
    columns = pixel_integrals(x, sigma_px, shape[1])
    rows = pixel_integrals(y, sigma_px, shape[0])
    rows *= np.asarray(photons, dtype=np.float64)[:, None]
    return rows.T @ columns


def smooth_background(
    rng: np.random.Generator, shape: tuple[int, int], structure: Structure | None = None
) -> npt.NDArray[Any]:
    """Draw a smooth, positive field of mean 1: a gradient, blurred blobs, or haze over a structure.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : (int, int)
        Height and width of the frame.
    structure : Structure, optional
        Haze follows it: light of molecules far out of focus.

    Returns
    -------
    array (height, width), float64
    """
    kind = rng.random()
    if kind < 0.3:
        field = _gradient(rng, shape)
    elif kind < 0.65 or structure is None:
        field = _blobs(rng, shape, Box.around_frame(shape, 8.0).uniform(rng, int(rng.integers(1, 9))))
    else:
        field = _blobs(rng, shape, structure.sample(rng, int(rng.integers(10, 60))))
    if rng.random() < 0.3:
        field = field * _gradient(rng, shape)
    mean = field.mean()
    return field / mean if mean > 1e-9 else np.ones(shape)


def _gradient(rng: np.random.Generator, shape: tuple[int, int]) -> Float64Array:
    """Exponential of a random second-order polynomial: always positive, no preferred direction."""
    v, u = (np.linspace(-1.0, 1.0, n) for n in shape)
    a, b, c, d, e = rng.normal(0.0, (0.5, 0.5, 0.4, 0.4, 0.3))
    return np.exp((a * u + c * u**2)[None, :] + (b * v + d * v**2)[:, None] + e * np.outer(v, u))


def _blobs(
    rng: np.random.Generator, shape: tuple[int, int], centres: tuple[Float64Array, Float64Array]
) -> Float64Array:
    """Sum wide Gaussians (σ 4-15 px) of random brightness around given centres."""
    x, y = centres
    sigma = rng.uniform(4.0, 15.0, x.size)
    brightness = rng.exponential(1.0, x.size) * sigma**2
    # At 4 px and wider the pixel integral equals the sample at its centre to better than 1 %.
    columns = np.exp(-0.5 * ((np.arange(shape[1]) - x[:, None]) / sigma[:, None]) ** 2)
    rows = np.exp(-0.5 * ((np.arange(shape[0]) - y[:, None]) / sigma[:, None]) ** 2)
    return rows.T @ (columns * (brightness / sigma**2)[:, None])
