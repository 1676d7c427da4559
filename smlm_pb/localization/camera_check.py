"""Camera values that were given, held against the noise of the movie: what does not fit, by how much, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.localization.camera_estimate import CameraEstimate

#: Noise that differs by less than this factor, or by fewer standard errors, may be that of the camera that was given:
#: none of 180 simulated movies of cameras that were told rightly differs by more.
MISFIT, ERRORS = 1.33, 4.0
#: A gain that seems too large by this factor may be one without the electron multiplication that there is.
_MULTIPLIED = 4.0
#: What every warning of this kind says.
DOES_NOT_FIT = "the noise does not fit"
_TAKE_GAIN = "take e_per_adu from the camera's data sheet, or leave it out to have it estimated"
_TAKE_OFFSET = "take offset_adu from the mean of a dark movie, or leave it out to have it estimated"
_TAKE_READ_NOISE = "take read_noise_e from the camera's data sheet"
_OTHERWISE = "numbers, photons and uncertainties are wrong otherwise."


def tell_wrong_variance(
    name: str,
    camera: Camera,
    ratio: float,
    *,
    read_noise_e: float | None,
    free: CameraEstimate,
    with_offset: CameraEstimate,
    with_gain: CameraEstimate,
) -> str:
    """Say that gain and offset together do not fit, and which of them would.

    Parameters
    ----------
    name : str
        The movie.
    camera : Camera
        What was given.
    ratio : float
        Variance of the noise in units of what the camera should show.
    read_noise_e : float or None
        The read noise that fits gain and offset, e⁻; None where there is too little noise.
    free : CameraEstimate
        Gain and offset as the noise tells them; may be refused.
    with_offset : CameraEstimate
        The gain that fits the offset that was given; may be refused.
    with_gain : CameraEstimate
        The offset that fits the gain that was given; may be refused.

    Returns
    -------
    str
        The warning.
    """
    e_per_adu, offset = float(np.median(camera.e_per_adu)), float(np.median(camera.offset_adu))
    said = (
        f"Movie {name}: {DOES_NOT_FIT} the camera values: its variance is {ratio:.2g} times what "
        f"e_per_adu = {e_per_adu:g}, em_gain = {camera.em_gain:g} and offset_adu = {offset:g} imply"
    )
    by_gain = by_offset = by_read_noise = ""
    if with_offset.e_per_adu is not None:
        fitting = with_offset.e_per_adu
        by_gain = f"e_per_adu near {fitting:.2g}{_multiplied(camera, e_per_adu / fitting)}"
    if with_gain.offset_adu is not None:
        by_offset = f"offset_adu near {with_gain.offset_adu:.4g}"
    if read_noise_e is not None:
        by_read_noise = f"read_noise_e near {read_noise_e:.2g}"
    if _differs(e_per_adu, free) and by_gain:
        return f"{said}; {by_gain} would fit: {_TAKE_GAIN}; {_OTHERWISE}"
    if with_gain.offset_adu is not None and read_noise_e is not None and with_gain.offset_adu < 0:
        by_offset = ""  # no camera has an offset below zero
    if free.e_per_adu is not None and free.confidence in ("high", "medium") and (by_offset or by_read_noise):
        fitting_too = " or ".join(one for one in (by_offset, by_read_noise) if one)
        take = _TAKE_OFFSET if by_offset else _TAKE_READ_NOISE
        return f"{said}; the gain fits, and {fitting_too} would: {take}; {_OTHERWISE}"
    either = " or ".join(one for one in (by_gain, by_offset, by_read_noise) if one)
    return f"{said}{f'; {either} would fit' if either else ''}: {_TAKE_GAIN}, and {_TAKE_OFFSET}; {_OTHERWISE}"


def hold_against_noise(
    name: str, camera: Camera, free: CameraEstimate, report: CameraEstimate, *, mean_adu: float, read_noise_e: float
) -> tuple[str, ...]:
    """Hold the one value that was given, gain or offset, against what the noise tells without it.

    Parameters
    ----------
    name : str
        The movie.
    camera : Camera
        With the value that was given.
    free : CameraEstimate
        Gain and offset as the noise tells them; may be refused.
    report : CameraEstimate
        The estimate with the value that was given.
    mean_adu : float
        Mean of the movie.
    read_noise_e : float
        Read noise that was assumed, e⁻ before multiplication.

    Returns
    -------
    tuple of str
        One warning, or none.
    """
    if report.e_per_adu is None or report.offset_adu is None:
        return ()
    given_gain = "offset_adu" in report.estimated
    said = (
        f"e_per_adu = {report.e_per_adu:g} (em_gain = {camera.em_gain:g})"
        if given_gain
        else f"offset_adu = {report.offset_adu:g}"
    )
    said = f"Movie {name}: {DOES_NOT_FIT} {said}"
    if free.e_per_adu is None or free.offset_adu is None:
        # Without contrast the noise tells only one of the two; but no camera has an offset below zero.
        error = np.hypot(report.offset_error_adu, read_noise_e * (report.adu_per_e or 0.0))
        if not given_gain or report.offset_adu > -ERRORS * error:
            return ()
        return (f"{said}, which implies an offset of {report.offset_adu:.4g} ADU: {_TAKE_GAIN}; {_OTHERWISE}",)
    if not given_gain:
        off = abs(report.offset_adu - free.offset_adu)
        if off < (MISFIT - 1) * (mean_adu - free.offset_adu) or off < ERRORS * free.offset_error_adu:
            return ()
        return (f"{said}; offset_adu near {free.offset_adu:.4g} would fit: {_TAKE_OFFSET}; {_OTHERWISE}",)
    if not _differs(report.e_per_adu, free):
        return ()
    ratio = report.e_per_adu / free.e_per_adu
    return (
        f"{said}: it rises with the light {ratio:.2g} times as steeply as it should; e_per_adu near "
        f"{free.e_per_adu:.2g} would fit{_multiplied(camera, ratio)}: {_TAKE_GAIN}; {_OTHERWISE}",
    )


def _differs(e_per_adu: float, free: CameraEstimate) -> bool:
    """Whether a gain is another one than the noise tells, by much and clearly beyond the error."""
    if free.e_per_adu is None:
        return False
    told = free.e_per_adu
    return not 1 / MISFIT < e_per_adu / told < MISFIT and abs(e_per_adu - told) > ERRORS * free.e_per_adu_error


def _multiplied(camera: Camera, factor: float) -> str:
    """A reminder of what makes a gain seem far too large."""
    return " (or is em_gain missing?)" if camera.em_gain == 1 and factor > _MULTIPLIED else ""
