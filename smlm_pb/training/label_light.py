"""Photons and background of labelled molecules, where the labels tell positions only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from smlm_pb.simulation.rendering import pixel_integrals

Float64Array = npt.NDArray[np.float64]

#: Smoothing of what the molecules leave: the background varies slowly.
_SMOOTH_PX = 6.0
_ROUNDS = 3
#: Of a label whose fit is dimmer than this the photons are not known.
_LEAST_PHOTONS = 20.0
#: Ridge on the photons relative to their own information: labels at one place share their light.
_RIDGE = 1e-3


def light_of_labels(
    electrons: npt.NDArray[np.float32],
    y: npt.ArrayLike,
    x: npt.ArrayLike,
    label_sigma_px: npt.ArrayLike,
    psf_sigma_px: float,
) -> tuple[Float64Array, npt.NDArray[np.float32]]:
    """Fit the photons of all labels of a frame together, and a smooth background.

    The PSF is widened by the labels' own error: the overlap of a molecule's light with a PSF at a place that errs by
    ``t`` is, on average, that of two PSFs of which one is wider by ``t``. Photons are therefore right on average over
    labels, not for each.

    Parameters
    ----------
    electrons : array (height, width)
        The frame, effective photo-electrons.
    y, x : array (n,)
        Labels, px.
    label_sigma_px : array (n,)
        Error of each label per axis, px.
    psf_sigma_px : float
        Width of the PSF, px.

    Returns
    -------
    photons : array (n,)
        NaN where the label has no light of its own.
    background : array (height, width), float32
        Expected background, e⁻ per pixel.
    """
    frame = electrons.astype(np.float64)
    y, x = np.asarray(y, np.float64), np.asarray(x, np.float64)
    sigma = np.hypot(psf_sigma_px, np.broadcast_to(label_sigma_px, y.shape))
    background = np.full(frame.shape, float(np.median(frame)))
    if not len(y):
        smooth = gaussian_filter(frame, _SMOOTH_PX, mode="nearest")
        return np.zeros(0), smooth.clip(0).astype(np.float32)
    rows, columns = pixel_integrals(y, sigma, frame.shape[0]), pixel_integrals(x, sigma, frame.shape[1])
    overlap = (rows @ rows.T) * (columns @ columns.T)
    overlap[np.diag_indices_from(overlap)] *= 1 + _RIDGE
    photons = np.zeros(len(y))
    for _ in range(_ROUNDS):
        seen = ((rows @ (frame - background)) * columns).sum(1)
        photons = np.linalg.lstsq(overlap, seen, rcond=None)[0]
        rest = frame - (rows * photons[:, None]).T @ columns
        background = gaussian_filter(rest, _SMOOTH_PX, mode="nearest").clip(0)
    return np.where(photons >= _LEAST_PHOTONS, photons, np.nan), background.astype(np.float32)
