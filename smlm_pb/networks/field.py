"""What a network says about an image: a field of candidate points."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PointField(NamedTuple):
    """Candidates of every pixel and the background, as dense maps.

    A candidate of pixel ``(row, column)`` lies at ``y = row + dy``, ``x = column + dx`` (px, centre of the first
    pixel 0.0). All maps are ``(batch, n, height, width)`` but the background, which is ``(batch, height, width)``.
    """

    #: Existence logit.
    logit: Tensor
    #: Offset from the pixel centre along y, px.
    dy: Tensor
    #: Offset from the pixel centre along x, px.
    dx: Tensor
    #: Natural logarithm of the position standard deviation along y, px.
    log_sigma_y: Tensor
    #: Natural logarithm of the position standard deviation along x, px.
    log_sigma_x: Tensor
    #: Natural logarithm of the photons (e⁻).
    log_photons: Tensor
    #: Background, e⁻ per pixel.
    background: Tensor
