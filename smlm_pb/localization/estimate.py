"""What a movie tells of its own conditions: camera gain and offset, width of the PSF, background.

Nothing here is applied silently: each estimate comes with its error and with warnings, and is refused, with a
reason, where the movie does not hold enough to tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.camera import Camera
from smlm_pb.localization.background_level import background_of_tiles
from smlm_pb.localization.camera_estimate import (
    CameraEstimate,
    check_camera,
    estimate_camera,
    estimate_gain_and_offset,
    judge_camera,
)
from smlm_pb.localization.frame_sample import FrameSample, draw_sample
from smlm_pb.localization.psf_width import measure_width

if TYPE_CHECKING:
    from smlm_pb.movies import Movie

    Frames = Movie | FrameSample | npt.ArrayLike

__all__ = [
    "BackgroundEstimate",
    "CameraEstimate",
    "PsfEstimate",
    "check_camera",
    "estimate_background",
    "estimate_camera",
    "estimate_gain_and_offset",
    "estimate_psf_sigma",
    "judge_camera",
]

#: Relative standard errors of the PSF width beyond which a warning is given, and beyond which it is refused.
_UNCERTAIN, _REFUSED = 0.05, 0.2
#: Covariance of neighbouring pixels, in units of its error in pure noise, from which on there are molecules.
_SIGNIFICANT = 6.0


class PsfEstimate(NamedTuple):
    """Width of the PSF; ``sigma_px`` is None when refused, and the last warning tells why.

    ``spread_px`` is the standard error of ``sigma_px``, and ``n_used`` the number of frames looked at.
    """

    sigma_px: float | None
    spread_px: float
    n_used: int
    warnings: tuple[str, ...]


class BackgroundEstimate(NamedTuple):
    """Background in e⁻ per pixel: the median over the field, and its 10th and 90th percentile over tiles."""

    background: float
    low: float
    high: float
    warnings: tuple[str, ...]


def estimate_psf_sigma(frames: Frames) -> PsfEstimate:
    """Estimate the standard deviation of the PSF from the covariance of neighbouring pixels.

    Works at any density of molecules and on any structure, because molecules that blink at random leave the
    same covariance wherever they lie; see `smlm_pb.localization.psf_width` for the method and its source.

    Parameters
    ----------
    frames : Movie, array (frame, y, x), or FrameSample
        Frames in photo-electrons or in ADU: neither gain nor offset matters. Up to 200 are read.

    Returns
    -------
    PsfEstimate
        ``(sigma_px, spread_px, n_used, warnings)``; ``sigma_px`` is None when its standard error exceeds 20
        %. Bright molecules count more than dim ones.

    Raises
    ------
    MovieError
        When the frames cannot be read or are constant.
    """
    sample = draw_sample(frames)
    where = f"Movie {sample.name}"
    width = measure_width(sample)
    refused = f"{where}: the width of the PSF cannot be measured; give psf_sigma_px."
    if width is None or width.fit.on_edge or width.fit.amplitude <= 0:
        return PsfEstimate(None, float("inf"), sample.n_frames, (refused,))
    sigma, error = width.fit.sigma_px, width.sigma_error_px
    if not error <= _REFUSED * sigma or width.significance < _SIGNIFICANT:
        return PsfEstimate(None, error, sample.n_frames, (refused,))
    warnings = []
    if sample.n_frames == 1:
        warnings.append(
            f"{where}: a single frame cannot tell molecules from static structure; check the PSF width of "
            f"{sigma:.2f} px."
        )
    if error > _UNCERTAIN * sigma:
        warnings.append(
            f"{where}: few or dim molecules; the PSF width of {sigma:.2f} px is uncertain by "
            f"{100 * error / sigma:.0f} %."
        )
    stretched = abs(np.log(width.ellipticity))
    if stretched > max(0.1, 4 * width.ellipticity_error):
        ratio = np.sqrt(width.ellipticity)
        warnings.append(
            f"{where}: the PSF is elliptical, {sigma * ratio:.2f} px along y and {sigma / ratio:.2f} px "
            f"along x (astigmatism, drift or a tilted sample); {sigma:.2f} px is their mean."
        )
    return PsfEstimate(sigma, error, sample.n_frames, tuple(warnings))


def estimate_background(frames: Frames, camera: Camera | None = None) -> BackgroundEstimate:
    """Estimate the background between the molecules.

    Two low quantiles of the smoothed frames, tile by tile, are compared with what photon and read noise make
    of a given background; the light of molecules, even at densities where they cover most of the frame,
    hardly counts.

    Parameters
    ----------
    frames : Movie, array (frame, y, x), or FrameSample
        Photo-electrons, or raw values in ADU together with their camera. Up to 200 frames are read.
    camera : Camera, optional
        Converts ADU to photo-electrons, and tells the read noise (1.6 e⁻ when left out).

    Returns
    -------
    BackgroundEstimate
        ``(background, low, high, warnings)`` in e⁻ per pixel: median, 10th and 90th percentile over the
        field.

    Raises
    ------
    MovieError
        When the frames cannot be read or are constant.
    """
    sample = draw_sample(frames)
    read_variance, excess = 1.6**2, 1.0
    if camera is not None:
        sample = sample.in_electrons(camera)
        read_variance = float(np.median(camera.read_variance_e2))
        excess = camera.excess_noise_factor
    low, median, high = np.quantile(background_of_tiles(sample, read_variance, excess), (0.1, 0.5, 0.9))
    warnings = []
    if median < -1.0:
        warnings.append(
            f"Movie {sample.name}: the background comes out at {median:.1f} e⁻ per pixel; the camera offset "
            "is too high, or the background was subtracted."
        )
    return BackgroundEstimate(float(median), float(low), float(high), tuple(warnings))
