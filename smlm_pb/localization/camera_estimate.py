"""The camera's gain and offset, estimated from the noise of a movie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from smlm_pb.camera import Camera
from smlm_pb.errors import CameraError
from smlm_pb.localization.camera_check import ERRORS, MISFIT, hold_against_noise, tell_wrong_variance
from smlm_pb.localization.frame_sample import FloatArray, FrameSample, draw_sample
from smlm_pb.localization.noise import NoiseLine, leakage, measure_noise
from smlm_pb.localization.psf_width import WidthStatistics, measure_width

if TYPE_CHECKING:
    from smlm_pb.movies import Movie

    Frames = Movie | FrameSample | npt.ArrayLike

Confidence = Literal["high", "medium", "low", "none"]

#: Largest relative error for each degree of confidence; beyond the last one nothing is reported.
_CONFIDENCE: tuple[tuple[Confidence, float], ...] = (("high", 0.05), ("medium", 0.1), ("low", 0.2))
#: Read variance (e⁻², before multiplication) that is assumed when it is not given, and its uncertainty.
_READ_VARIANCE = {1.0: (2.56, 2.0), 2.0: (0.05, 0.1)}
_QUANTIZATION_ADU2 = 1 / 12
_BOTH = ("offset_adu", "e_per_adu")


@dataclass(frozen=True)
class CameraEstimate:
    """Gain and offset as the noise of a movie tells them.

    Attributes
    ----------
    offset_adu : float or None
        Camera offset; None when refused.
    e_per_adu : float or None
        Photo-electrons per ADU before electron multiplication; None when refused.
    em_gain : float
        Electron-multiplication gain that was assumed.
    offset_error_adu, e_per_adu_error : float
        Standard errors; 0 for a value that was given.
    confidence : {"high", "medium", "low", "none"}
        Relative error of the gain below 5, 10, 20 %, or refused.
    estimated : tuple of str
        Names of the values that were estimated rather than given.
    reason : str
        Why the estimate was refused; empty otherwise.
    warnings : tuple of str
        What the user should know.
    read_noise_e : float
        Read noise in e⁻ as it was given or assumed: the movie does not tell it.
    """

    offset_adu: float | None
    e_per_adu: float | None
    em_gain: float
    offset_error_adu: float
    e_per_adu_error: float
    confidence: Confidence
    estimated: tuple[str, ...]
    reason: str = ""
    warnings: tuple[str, ...] = ()
    read_noise_e: float = 1.6

    @property
    def adu_per_e(self) -> float | None:
        """ADU per photo-electron, multiplication included; None when refused."""
        return None if self.e_per_adu is None else self.em_gain / self.e_per_adu

    def to_camera(self) -> Camera:
        """Make a camera of the estimate.

        Raises
        ------
        CameraError
            When the estimate was refused.
        """
        if self.offset_adu is None or self.e_per_adu is None:
            raise CameraError(f"The camera cannot be estimated from the movie: {self.reason}")
        return Camera(
            offset_adu=self.offset_adu,
            e_per_adu=self.e_per_adu,
            em_gain=self.em_gain,
            read_noise_e=self.read_noise_e,
            estimated=self.estimated,
        )


_FILTERED = (
    "the noise of neighbouring pixels is not independent (frames that were filtered, resampled or compressed with loss)"
)
_REMEDY = "give offset_adu (the mean of a dark movie) and e_per_adu (data sheet)."


def estimate_camera(
    movie: Frames,
    *,
    offset_adu: float | None = None,
    e_per_adu: float | None = None,
    em_gain: float | None = None,
    read_noise_e: float | None = None,
    psf_sigma_px: float | None = None,
) -> CameraEstimate:
    """Estimate what is not given of gain and offset from the noise of a movie.

    The noise variance of the frames rises linearly with their mean. The slope gives the gain; the offset is
    where the line crosses the read variance. See `smlm_pb.localization.noise` for the method and its source.

    Parameters
    ----------
    movie : Movie, array (frame, y, x), or FrameSample
        Raw camera values in ADU; up to 200 frames are read.
    offset_adu, e_per_adu : float, optional
        Known values; each one makes the other more precise.
    em_gain : float, optional
        Electron-multiplication gain; 1 (none) when left out. The noise cannot tell a gain of g with
        multiplication from one of 2 g without.
    read_noise_e : float, optional
        Read noise at the output, in e⁻; about 1.6 is assumed when left out (0.2 before multiplication).
    psf_sigma_px : float, optional
        Width of the PSF; measured from the movie when left out.

    Returns
    -------
    CameraEstimate
        Refused, with a reason, when the error of the gain exceeds 20 %.

    Raises
    ------
    MovieError
        When the movie cannot be read or is constant.
    CameraError
        When a given value is impossible.
    """
    camera = Camera(
        offset_adu=0.0 if offset_adu is None else offset_adu,
        e_per_adu=1.0 if e_per_adu is None else e_per_adu,
        em_gain=1.0 if em_gain is None else em_gain,
        read_noise_e=1.6 if read_noise_e is None else read_noise_e,
    )
    excess = camera.excess_noise_factor
    names = [name for name, value in (("offset_adu", offset_adu), ("e_per_adu", e_per_adu)) if value is None]
    sample = draw_sample(movie)
    read_variance, read_error = _READ_VARIANCE[excess]
    if read_noise_e is not None:
        read_variance = (read_noise_e / camera.em_gain) ** 2
        read_error = 0.1 * read_variance
    width = measure_width(sample)
    if psf_sigma_px is None:
        psf_sigma_px = _trusted_width(width)
    line = measure_noise(sample, psf_sigma_px, read_variance_e2=read_variance, excess=excess)
    given = CameraEstimate(
        offset_adu=offset_adu,
        e_per_adu=e_per_adu,
        em_gain=camera.em_gain,
        offset_error_adu=0.0,
        e_per_adu_error=0.0,
        confidence="high",
        estimated=tuple(names),
        read_noise_e=float(np.median(camera.read_noise_e)),
    )
    if not names:
        return given
    if line is not None and _is_filtered(line, width):
        why = f"in movie {sample.name} {_FILTERED}; use the raw camera frames, or {_REMEDY}"
        return replace(given, confidence="none", reason=why)
    if line is None or not np.isfinite(line.covariance).all():
        why = f"movie {sample.name} is too small or too short to separate noise from molecules; {_REMEDY}"
        return replace(given, confidence="none", reason=why)
    solution = alone = _Solution.of(line, sample, excess=excess, read_variance=read_variance, read_error=read_error)
    if e_per_adu is not None:
        solution = solution.with_gain(camera.em_gain / e_per_adu)
    elif offset_adu is not None:
        if offset_adu >= line.mean:
            why = (
                f"offset_adu = {offset_adu:g} lies above the mean of movie {sample.name} ({line.mean:.4g} "
                f"ADU); {_REMEDY}"
            )
            return replace(given, confidence="none", reason=why)
        solution = solution.with_offset(offset_adu, line.mean)
    report = _report(sample, line, solution, given)
    if len(names) == 2:
        return report
    free = _report(sample, line, alone, replace(given, e_per_adu=None, offset_adu=None, estimated=_BOTH))
    read_noise_e = float(np.sqrt(read_variance))
    misfit = hold_against_noise(sample.name, camera, free, report, mean_adu=line.mean, read_noise_e=read_noise_e)
    return replace(report, warnings=(*misfit, *report.warnings))


def estimate_gain_and_offset(
    movie: Frames,
    *,
    offset_adu: float | None = None,
    em_gain: float = 1.0,
    read_noise_e: float | None = None,
    psf_sigma_px: float | None = None,
) -> CameraEstimate:
    """Estimate the gain, and the offset unless it is given; see `estimate_camera`."""
    return estimate_camera(
        movie, offset_adu=offset_adu, em_gain=em_gain, read_noise_e=read_noise_e, psf_sigma_px=psf_sigma_px
    )


def check_camera(movie: Frames, camera: Camera, *, psf_sigma_px: float | None = None) -> list[str]:
    """Hold the noise of a movie against what a camera should show.

    Parameters
    ----------
    movie : Movie, array (frame, y, x), or FrameSample
        Raw camera values in ADU; up to 200 frames are read.
    camera : Camera
        The camera that will be used; maps count by their median, and by the mean of their read variance.
    psf_sigma_px : float, optional
        Width of the PSF; measured from the movie when left out.

    Returns
    -------
    list of str
        One warning, with what would fit, when the noise differs by more than a third, clearly beyond its error, or is
        not that of raw frames; empty otherwise.

    Raises
    ------
    MovieError
        When the movie cannot be read or is constant.
    """
    return judge_camera(movie, camera, psf_sigma_px=psf_sigma_px)[0]


def judge_camera(movie: Frames, camera: Camera, *, psf_sigma_px: float | None = None) -> tuple[list[str], float | None]:
    """As :func:`check_camera`, with the read noise that would account for noise beyond what the camera should show.

    Returns
    -------
    warnings : list of str
        As of :func:`check_camera`.
    read_noise_e : float or None
        Standard deviation in e⁻ before division by the EM gain; None where the noise fits, or is too small.
    """
    sample = draw_sample(movie)
    excess = camera.excess_noise_factor
    # The mean, because variances add up: a few noisy pixels of a map count where there is little light.
    read_variance = float(np.mean(camera.read_variance_e2))
    e_per_adu, offset = float(np.median(camera.e_per_adu)), float(np.median(camera.offset_adu))
    width = measure_width(sample)
    sigma = _trusted_width(width) if psf_sigma_px is None else psf_sigma_px
    line = measure_noise(sample, sigma, read_variance_e2=read_variance, excess=excess)
    if line is None:
        return [], None
    if _is_filtered(line, width):
        said = f"Movie {sample.name}: {_FILTERED}; photons and uncertainties will be wrong, use the raw camera frames."
        return [said], None
    adu_per_e = camera.em_gain / e_per_adu
    of_light = excess * adu_per_e * max(line.mean - offset, 0.0)
    of_light += _QUANTIZATION_ADU2 if sample.integer else 0.0
    expected = of_light + read_variance * adu_per_e**2
    ratio = line.variance / expected
    if 1 / MISFIT < ratio < MISFIT or abs(line.variance - expected) < ERRORS * line.variance_error:
        return [], None
    read_noise_e = e_per_adu * float(np.sqrt(line.variance - of_light)) if ratio > 1 else None
    known = {"em_gain": camera.em_gain, "read_noise_e": float(np.median(camera.read_noise_e)), "psf_sigma_px": sigma}
    fitting = {
        "free": estimate_camera(sample, **known),
        "with_offset": estimate_camera(sample, offset_adu=offset, **known),
        "with_gain": estimate_camera(sample, e_per_adu=e_per_adu, **known),
    }
    return [tell_wrong_variance(sample.name, camera, ratio, read_noise_e=read_noise_e, **fitting)], read_noise_e


def _trusted_width(width: WidthStatistics | None) -> float | None:
    """Take the measured width if it is good enough to choose how far from the corner the PSF ends."""
    if width is None or width.fit.on_edge or width.sigma_error_px > 0.1 * width.fit.sigma_px:
        return None
    return width.fit.sigma_px


@dataclass(frozen=True)
class _Solution:
    """The noise line as gain and offset: a = −s · offset + r² · (s / F²)² + quantization."""

    line: FloatArray
    covariance: FloatArray
    excess: float
    read_variance: float
    read_error: float
    quantization: float

    @property
    def adu_per_e(self) -> float:
        return float(self.line[0] / self.excess)

    @classmethod
    def of(
        cls, line: NoiseLine, sample: FrameSample, *, excess: float, read_variance: float, read_error: float
    ) -> _Solution:
        """What the line alone tells."""
        return cls(
            line=np.array([line.slope, line.intercept]),
            covariance=line.covariance,
            excess=excess,
            read_variance=read_variance,
            read_error=read_error,
            quantization=_QUANTIZATION_ADU2 if sample.integer else 0.0,
        )

    @property
    def gain_error(self) -> float:
        """Relative error of the gain."""
        return float(np.sqrt(self.covariance[0, 0]) / abs(self.line[0]))

    @property
    def offset(self) -> float:
        slope, intercept = self.line
        return float((self.read_variance * self.adu_per_e**2 + self.quantization - intercept) / slope)

    @property
    def offset_error(self) -> float:
        slope = self.line[0]
        by_slope = 2 * self.read_variance * self.adu_per_e / self.excess / slope - self.offset / slope
        gradient = np.array([by_slope, -1 / slope])
        by_read_noise = self.read_error * self.adu_per_e**2 / slope
        return float(np.sqrt(gradient @ self.covariance @ gradient + by_read_noise**2))

    def _updated(self, row: FloatArray, misfit: float, variance: float) -> _Solution:
        """Linear least-squares update by one more equation ``row · (line − new line) = misfit``."""
        spread = row @ self.covariance @ row + variance
        pull = self.covariance @ row / spread
        covariance = self.covariance - np.outer(pull, row @ self.covariance)
        return replace(self, line=self.line - pull * misfit, covariance=covariance)

    def with_gain(self, adu_per_e: float) -> _Solution:
        slope = adu_per_e * self.excess
        return self._updated(np.array([1.0, 0.0]), self.line[0] - slope, (1e-6 * slope) ** 2)

    def with_offset(self, offset: float, mean: float) -> _Solution:
        """Let the line pass through the read variance at a known offset, which lies below the mean."""
        above, curve = mean - offset, self.read_variance / self.excess**2
        variance = max(float(self.line[0] * mean + self.line[1]) - self.quantization, 1e-12)
        # variance = slope · above + curve · slope², solved without cancellation
        slope = 2 * variance / (above + np.sqrt(above**2 + 4 * curve * variance))
        solution = self
        for _ in range(3):
            row = np.array([offset - 2 * curve * slope, 1.0])
            misfit = float(row @ self.line - self.quantization + curve * slope**2)
            solution = self._updated(row, misfit, (self.read_error * (slope / self.excess) ** 2) ** 2)
            slope = max(float(solution.line[0]), 0.1 * slope)
        return solution


def _report(sample: FrameSample, line: NoiseLine, solution: _Solution, given: CameraEstimate) -> CameraEstimate:
    """Judge a solution: confidence, warnings, or refusal. ``given`` holds the values that were given."""
    warnings = _warnings(sample, line, given)
    error = 0.0
    if "e_per_adu" in given.estimated:
        error = solution.gain_error if solution.adu_per_e > 0 else np.inf
    if "offset_adu" in given.estimated:
        # An error of the offset matters against the light that is there, or against a few electrons.
        scale = max(line.mean - solution.offset, 20 * abs(solution.adu_per_e))
        error = max(error, solution.offset_error / scale)
    degrees = [name for name, limit in _CONFIDENCE if error <= limit]
    if not degrees:
        return replace(given, confidence="none", reason=_too_flat(sample, given, error), warnings=warnings)
    if warnings and degrees[0] != "low":
        degrees = degrees[1:] or ["low"]
    e_per_adu, offset_adu = given.e_per_adu, given.offset_adu
    e_error = offset_error = 0.0
    if "e_per_adu" in given.estimated:
        e_per_adu = given.em_gain / solution.adu_per_e
        e_error = e_per_adu * solution.gain_error
    if "offset_adu" in given.estimated:
        offset_adu, offset_error = solution.offset, solution.offset_error
    return replace(
        given,
        offset_adu=offset_adu,
        e_per_adu=e_per_adu,
        offset_error_adu=offset_error,
        e_per_adu_error=e_error,
        confidence=degrees[0],
        warnings=warnings,
    )


def _is_filtered(line: NoiseLine, width: WidthStatistics | None) -> bool:
    """Tell whether the noise differs between frequencies that the PSF does not reach."""
    if not np.isfinite(line.flatness):
        return False
    allowed = 0.1 + 4 * line.flatness_error
    if width is not None and not width.fit.on_edge:
        allowed += 2 * width.fit.amplitude * leakage(line.high, width.fit.sigma_px) / max(line.variance, 1e-300)
    return abs(np.log(line.flatness)) > np.log1p(allowed)


def _too_flat(sample: FrameSample, given: CameraEstimate, error: float) -> str:
    shown = f"{100 * error:.0f} %" if error < 10 else "more than 1000 %"
    missing = " and ".join(given.estimated)
    by_offset = "offset_adu" in given.estimated
    remedy = "give offset_adu (the mean of a dark movie)" if by_offset else "give e_per_adu (data sheet)"
    return (
        f"the {sample.n_frames} frames of movie {sample.name} that were looked at are too few or too "
        f"uniform in brightness to tell {missing} (error {shown}); {remedy}."
    )


def _warnings(sample: FrameSample, line: NoiseLine, given: CameraEstimate) -> tuple[str, ...]:
    found = []
    if line.leak_fraction > 0.15 and "e_per_adu" in given.estimated:
        found.append(
            f"Movie {sample.name}: the PSF is so narrow that it reaches into the noise "
            f"({100 * line.leak_fraction:.0f} % were subtracted); the gain is less certain than its error "
            "says."
        )
    if sample.integer and sample.patches.min() == 0 and np.mean(sample.patches == 0) > 0.01:
        found.append(
            f"Movie {sample.name}: {100 * np.mean(sample.patches == 0):.2g} % of the pixels are 0; noise "
            "below 0 was cut off, and gain and offset come out wrong."
        )
    return tuple(found)
