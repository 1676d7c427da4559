"""The point-spread function: a Gaussian integrated over the camera's pixels, differentiable in everything.

A molecule with N photo-electrons at (x, y) over a background of b e⁻/px is expected to leave

    μ_k = b + N · E_x(k_x) · E_y(k_y),    E(k) = ½ [erf((k + ½ − c) / √2σ) − erf((k − ½ − c) / √2σ)]

photo-electrons in pixel k (Smith et al., Nature Methods 7, 373, 2010). Pixel k is centred at k: the centre
of the first pixel is 0.0. σ is the width of the optical PSF itself; integration over the pixel adds 1/12 px²
to the variance of what is seen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SQRT2 = math.sqrt(2.0)
_SQRT_2PI = math.sqrt(2.0 * math.pi)
#: Light beyond this many widths from the centre is 6e-7 of the whole and is not rendered.
_REACH_IN_SIGMA = 5.0
#: Largest number of patch pixels that are held at once where no gradient is asked for.
_PATCH_PIXELS_AT_ONCE = 1 << 24


def pixel_integral(distance_px: Tensor, sigma_px: Tensor | float) -> Tensor:
    """Integrate a unit Gaussian over the pixel whose centre lies ``distance_px`` away.

    The tails keep full relative accuracy, in float32 too: they are taken as differences of erfc on the side
    where it is small, not of erf where it is close to one.

    Parameters
    ----------
    distance_px : Tensor
        Pixel centre minus centre of the Gaussian, in px.
    sigma_px : Tensor or float
        Width of the Gaussian in px, broadcast against ``distance_px``; > 0.

    Returns
    -------
    Tensor
        Fraction of the light along this axis in [0, 1]; differentiable, twice, in both arguments.
    """
    # A constant sign instead of abs(), whose derivative vanishes at zero distance.
    sign = torch.where(distance_px < 0, -1.0, 1.0).to(distance_px.dtype)
    distance = distance_px * sign
    scale = 1.0 / (_SQRT2 * sigma_px)
    return 0.5 * (torch.erfc((distance - 0.5) * scale) - torch.erfc((distance + 0.5) * scale))


def pixel_integral_derivatives(distance_px: Tensor, sigma_px: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixel integral and its derivatives, for Fisher scoring without a graph.

    Parameters
    ----------
    distance_px, sigma_px
        As in :func:`pixel_integral`.

    Returns
    -------
    integral, d_centre, d_sigma : Tensor
        E, ∂E/∂c in 1/px (c is the centre of the Gaussian), ∂E/∂σ in 1/px.
    """
    lower, upper = (distance_px - 0.5) / sigma_px, (distance_px + 0.5) / sigma_px
    density_lower = torch.exp(-0.5 * lower**2) / (_SQRT_2PI * sigma_px)
    density_upper = torch.exp(-0.5 * upper**2) / (_SQRT_2PI * sigma_px)
    integral = pixel_integral(distance_px, sigma_px)
    return integral, density_lower - density_upper, lower * density_lower - upper * density_upper


def render_gaussians(
    x: Tensor,
    y: Tensor,
    photons: Tensor,
    sigma_px: Tensor | float,
    frame: Tensor | None,
    shape: tuple[int, int, int],
    *,
    background: Tensor | float = 0.0,
    radius_px: int | None = None,
) -> Tensor:
    """Render the expected image of molecules onto the frames they belong to.

    Parameters
    ----------
    x, y : Tensor (molecules,)
        Positions in px. Molecules outside a frame still shine into it.
    photons : Tensor (molecules,)
        Photo-electrons of each molecule in e⁻.
    sigma_px : Tensor (molecules,) or float
        PSF width in px.
    frame : Tensor (molecules,) of integers, or None
        Frame of each molecule, counted from 0; None puts all molecules into frame 0.
    shape : (int, int, int)
        Frames, height and width of the result.
    background : Tensor or float
        Expected background in e⁻/px, broadcast to ``shape``; give ``(frames, 1, 1)`` for one value per frame.
    radius_px : int, optional
        Half side of the square patch in which a molecule's light is rendered; 5 σ of the widest by default.

    Returns
    -------
    Tensor (frames, height, width)
        Expected e⁻ per pixel, differentiable in x, y, photons, sigma_px and background.

    Raises
    ------
    ValueError
        When lengths differ, a position is not finite, or a frame lies outside ``shape``.
    """
    sigma = torch.as_tensor(sigma_px, dtype=x.dtype, device=x.device).expand(x.shape)
    frame = torch.zeros_like(x, dtype=torch.long) if frame is None else frame.long()
    _check_molecules(x, y, photons, frame, shape)
    n_frames, height, width = shape
    canvas = torch.zeros(n_frames * height * width, dtype=x.dtype, device=x.device)
    if x.numel():
        if radius_px is None:
            radius_px = max(1, math.ceil(_REACH_IN_SIGMA * float(sigma.detach().max()) + 0.5))
        side = 2 * radius_px + 1
        needs_grad = any(v.requires_grad for v in (x, y, photons, sigma))
        step = x.numel() if needs_grad else max(1, _PATCH_PIXELS_AT_ONCE // side**2)
        for start in range(0, x.numel(), step):
            part = slice(start, start + step)
            light, pixel = _patches(x[part], y[part], photons[part], sigma[part], frame[part], height, width, radius_px)
            canvas = canvas.index_add(0, pixel, light)
    return canvas.view(shape) + background


def _patches(
    x: Tensor,
    y: Tensor,
    photons: Tensor,
    sigma: Tensor,
    frame: Tensor,
    height: int,
    width: int,
    radius: int,
) -> tuple[Tensor, Tensor]:
    """Return the light of each molecule in the pixels around it, and the flat indices of those pixels."""
    offsets = torch.arange(-radius, radius + 1, device=x.device)
    columns = torch.round(x.detach()).long()[:, None] + offsets
    rows = torch.round(y.detach()).long()[:, None] + offsets
    light_x = pixel_integral(columns - x[:, None], sigma[:, None])
    light_y = pixel_integral(rows - y[:, None], sigma[:, None]) * photons[:, None]
    inside_x = (columns >= 0) & (columns < width)
    inside_y = (rows >= 0) & (rows < height)
    inside = inside_y[:, :, None] & inside_x[:, None, :]
    index = ((frame[:, None] * height + rows) * width)[:, :, None] + columns[:, None, :]
    return (light_y[:, :, None] * light_x[:, None, :])[inside], index[inside]


def _check_molecules(x: Tensor, y: Tensor, photons: Tensor, frame: Tensor, shape: tuple[int, int, int]) -> None:
    lengths = {"x": x.shape, "y": y.shape, "photons": photons.shape, "frame": frame.shape}
    if any(length != (x.numel(),) for length in lengths.values()):
        shown = ", ".join(f"{name} {tuple(length)}" for name, length in lengths.items())
        raise ValueError(f"Molecule arrays must be flat and equally long, not {shown}.")
    if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise ValueError("Molecule positions must be finite; remove the rows that are not.")
    if frame.numel() and (int(frame.min()) < 0 or int(frame.max()) >= shape[0]):
        raise ValueError(f"Molecules lie in frames {int(frame.min())} to {int(frame.max())} of {shape[0]}.")
