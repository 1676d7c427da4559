"""Expected images without torch: molecules as pixel-integrated Gaussians, and smooth backgrounds.

A Gaussian is separable, so a frame of n molecules is one matrix product of (height, n) by (n, width).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.simulation.geometry import Box, Float64Array, Structure, choose


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
    *,
    sigma_y_px: npt.ArrayLike | None = None,
) -> Float64Array:
    """Render the expected image of molecules as pixel-integrated Gaussians.

    Parameters
    ----------
    x, y, photons, sigma_px : array (molecules,)
        Positions in px, photo-electrons in e⁻, PSF widths in px (or one width for all).
    shape : (int, int)
        Height and width of the frame.
    sigma_y_px : array (molecules,), optional
        Widths along y where they differ from ``sigma_px``.

    Returns
    -------
    array (height, width), float64
        Expected e⁻ per pixel.
    """
    columns = pixel_integrals(x, sigma_px, shape[1])
    rows = pixel_integrals(y, sigma_px if sigma_y_px is None else sigma_y_px, shape[0])
    rows *= np.asarray(photons, dtype=np.float64)[:, None]
    return rows.T @ columns


def render_tiled(
    x: Float64Array,
    y: Float64Array,
    photons: Float64Array,
    sigma_px: Float64Array,
    shape: tuple[int, int],
    *,
    tile_px: int = 64,
) -> Float64Array:
    """Render like :func:`render_separable`, tile by tile, so that time grows with the area and not its square.

    Parameters
    ----------
    x, y, photons, sigma_px : array (molecules,)
        Positions in px, photo-electrons in e⁻, PSF widths in px.
    shape : (int, int)
        Height and width of the frame.
    tile_px : int
        Side of a tile; light within 6 σ of a tile enters it (2e-9 of a molecule's light is lost).

    Returns
    -------
    array (height, width), float64
        Expected e⁻ per pixel.
    """
    image = np.zeros(shape)
    if x.size == 0:
        return image
    reach = 6.0 * float(sigma_px.max())
    for top in range(0, shape[0], tile_px):
        bottom = min(top + tile_px, shape[0])
        in_rows = np.flatnonzero((y > top - 0.5 - reach) & (y < bottom - 0.5 + reach))
        for left in range(0, shape[1], tile_px):
            right = min(left + tile_px, shape[1])
            near = in_rows[(x[in_rows] > left - 0.5 - reach) & (x[in_rows] < right - 0.5 + reach)]
            if near.size:
                image[top:bottom, left:right] = render_separable(
                    x[near] - left, y[near] - top, photons[near], sigma_px[near], (bottom - top, right - left)
                )
    return image


def smooth_background(
    rng: np.random.Generator,
    shape: tuple[int, int],
    structure: Structure | None = None,
    *,
    kind: str | None = None,
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
    kind : str, optional
        ``gradient``, ``blobs`` or ``haze``; drawn at random when not given. Haze without a structure is blobs.

    Returns
    -------
    array (height, width), float64
    """
    if kind is None:
        kind = choose(rng, ("gradient", "blobs", "haze"), (0.3, 0.35, 0.35))
    if kind == "gradient":
        field = _gradient(rng, shape)
    elif kind == "blobs" or structure is None:
        # One blob in 400 px² on average, at least one; a training frame gets a handful, a large frame many.
        most = max(8, shape[0] * shape[1] // 400)
        field = _blobs(rng, shape, Box.around_frame(shape, 8.0).uniform(rng, int(rng.integers(1, most + 1))))
    else:
        most = max(60, shape[0] * shape[1] // 50)
        field = _blobs(rng, shape, structure.sample(rng, int(rng.integers(most // 6, most))))
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
    amplitude = rng.exponential(1.0, x.size)
    # At 4 px and wider the pixel integral equals the sample at its centre to better than 1 %.
    columns = np.exp(-0.5 * ((np.arange(shape[1]) - x[:, None]) / sigma[:, None]) ** 2)
    rows = np.exp(-0.5 * ((np.arange(shape[0]) - y[:, None]) / sigma[:, None]) ** 2)
    return rows.T @ (columns * amplitude[:, None])
