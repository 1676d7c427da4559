"""Small windows of pixels around molecules, and what a PSF leaves in them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class Windows(NamedTuple):
    """Windows around n molecules, 2 * half + 1 pixels wide."""

    pixels: FloatArray
    """(n, y, x), e⁻; what lies beyond the frame holds the nearest pixel."""
    seen: npt.NDArray[np.bool_]
    """(n, y, x): which of them lie in the frame."""
    rows_at: npt.NDArray[np.intp]
    """(n, y): their rows in the frame."""
    columns_at: npt.NDArray[np.intp]
    """(n, x): their columns in the frame."""


def cut_windows(molecules: Any, electrons: npt.NDArray[np.float32], half: int, *, first_frame: int = 0) -> Windows:
    """Cut a window around every molecule.

    Parameters
    ----------
    molecules : structured array (n,), or mapping of columns
        With ``frame``, ``x``, ``y`` (px).
    electrons : array (frame, y, x), float32
        The frames from ``first_frame`` on.
    half : int
        Pixels on either side of the one that holds the molecule.
    first_frame : int
        Frame number of the first frame.

    Returns
    -------
    Windows
    """
    height, width = electrons.shape[1:]
    column = np.rint(molecules["x"].astype(np.float64)).astype(np.intp).clip(0, width - 1)
    row = np.rint(molecules["y"].astype(np.float64)).astype(np.intp).clip(0, height - 1)
    step = np.arange(-half, half + 1)
    rows_at, columns_at = row[:, None] + step, column[:, None] + step
    seen = ((rows_at >= 0) & (rows_at < height))[:, :, None] & ((columns_at >= 0) & (columns_at < width))[:, None, :]
    frame = molecules["frame"].astype(np.int64) - first_frame
    pixels = electrons[
        frame[:, None, None],
        rows_at.clip(0, height - 1)[:, :, None],
        columns_at.clip(0, width - 1)[:, None, :],
    ].astype(np.float64)
    return Windows(pixels, seen, rows_at, columns_at)


def spots(
    x: FloatArray, y: FloatArray, rows_at: npt.NDArray[np.intp], columns_at: npt.NDArray[np.intp], psf_sigma_px: float
) -> FloatArray:
    """Share of the light of molecules at (x, y), arrays (n,), in the pixels of windows (n, y, x)."""
    along_y = profile(y[:, None] - rows_at, psf_sigma_px)[:, :, None]
    along_x = profile(x[:, None] - columns_at, psf_sigma_px)[:, None, :]
    shares: FloatArray = along_y * along_x
    return shares


def profile(distance: FloatArray, sigma_px: float) -> FloatArray:
    """Share of the light in pixels (n, m) at a distance along one axis."""
    from scipy.special import ndtr

    share: FloatArray = ndtr((distance + 0.5) / sigma_px) - ndtr((distance - 0.5) / sigma_px)
    return share
