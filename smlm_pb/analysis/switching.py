"""When molecules switch on and off, in fractions of a frame.

A molecule that switches on in the middle of an exposure leaves half of its light in that frame. With a constant rate
of photons R while it is on, frame k holds R times the overlap of [k, k + 1) with the on-time [t_on, t_off): the two
times and the rate follow from the trace. Times are counted in frames: 0 is the beginning of the first exposure, frame
k lasts from k to k + 1.

The posterior of (t_on, t_off) is computed on a grid, with the rate averaged over what the trace itself and the other
blinks of the movie tell of it. Its mean is the estimate, its standard deviation the stated error. The closed form, the
light of the first and the last frame over that of the frames between, is :func:`ratio_times`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.traces import Traces, measure_traces
from smlm_pb.errors import ConfigurationError, TableError

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Step of the grid of times, frames, and how far it reaches before the first and into the first frames.
_STEP = 0.05
_BEFORE, _INTO = 1.0, 1.6
#: Rates that are tried, in standard deviations around the trace's own.
_RATES = np.linspace(-2.5, 2.5, 9)
#: Blinks with at least so many whole frames tell how much rates differ, and fluctuate.
_WHOLE_FRAMES, _FEWEST_WHOLE = 2, 20
#: Spread of ln(rate) where the movie does not tell.
_DEFAULT_SPREAD = 0.5


@dataclass(frozen=True)
class SwitchingTimes:
    """Times of blinks, in frames; one per row of the linked table.

    Parameters
    ----------
    on, off : array (n,)
        When the blink began and ended.
    sigma_on, sigma_off : array (n,)
        Standard errors.
    rate : array (n,)
        Effective photo-electrons per frame while on.
    """

    on: FloatArray
    off: FloatArray
    sigma_on: FloatArray
    sigma_off: FloatArray
    rate: FloatArray


@dataclass(frozen=True)
class RatePrior:
    """What the blinks of a movie tell of their brightness: ln(rate) is normal; the light of a frame fluctuates.

    Parameters
    ----------
    log_rate, spread : float
        Mean and standard deviation of ln(rate).
    fluctuation : float
        Relative standard deviation of the light from frame to frame, beyond photon noise.
    """

    log_rate: float
    spread: float
    fluctuation: float


def sub_frame_times(
    linked: Localizations,
    movie: Any,
    *,
    camera: Camera,
    psf_sigma_px: float,
    exposure_ms: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Localizations:
    """Add the columns of the switching times to a linked table.

    Parameters
    ----------
    linked : Localizations
        One row per blink, from :func:`smlm_pb.analysis.link`.
    movie : path, array (frame, y, x), or Movie
        The movie it was made from.
    camera : Camera
        For photo-electrons.
    psf_sigma_px : float
        Width of the point-spread function, px.
    exposure_ms : float, optional
        Exposure of a frame, where the movie does not tell it.
    on_progress, should_stop : callable, optional
        As for :func:`smlm_pb.localize`.

    Returns
    -------
    Localizations
        With ``on_time``, ``off_time``, ``sigma_on_time``, ``sigma_off_time`` (frames) and, where the exposure is known,
        ``on_time_ms``, ``off_time_ms`` and ``duration_ms``. Blinks that touch the beginning or the end of the movie
        have the time at which it begins or ends, and an infinite error there.

    Raises
    ------
    TableError
        When the table is not linked, or was corrected for drift.
    MovieError
        When the movie cannot be read or is another one.
    """
    from smlm_pb.movies import open_movie

    if exposure_ms is not None and not (math.isfinite(exposure_ms) and exposure_ms > 0):
        raise ConfigurationError(f"exposure_ms = {exposure_ms} is impossible; give the exposure of a frame in ms.")
    if any(step.get("step") == "drift" and step.get("accepted", True) for step in linked.provenance):
        raise TableError(
            "The drift of the table was corrected, so its positions are no longer those on the camera: link the table "
            "before that step."
        )
    opened = open_movie(movie)
    try:
        n_frames = opened.n_frames
        exposure = exposure_ms or opened.metadata.get("exposure_ms") or opened.metadata.get("frame_interval_ms")
        period = opened.metadata.get("frame_interval_ms") if exposure_ms is None else None
        traces = measure_traces(
            linked,
            opened,
            camera=camera,
            psf_sigma_px=psf_sigma_px,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    finally:
        if opened is not movie:
            opened.close()
    first = linked["frame"].astype(np.int64)
    last = first + linked["on_frames"].astype(np.int64) - 1
    times = switching_times(traces, first, last, n_frames=n_frames)
    columns = {
        "on_time": times.on,
        "off_time": times.off,
        "sigma_on_time": times.sigma_on,
        "sigma_off_time": times.sigma_off,
    }
    if exposure:
        on, off = (_in_ms(t, float(exposure), max(float(period or 0), float(exposure))) for t in (times.on, times.off))
        columns |= {"on_time_ms": on, "off_time_ms": off, "duration_ms": off - on}
    step = {"step": "sub-frame times", "exposure_ms": None if not exposure else float(exposure)}
    return linked.with_columns(**{k: v.astype(np.float64) for k, v in columns.items()}).with_provenance(step)


def _in_ms(time: FloatArray, exposure_ms: float, period_ms: float) -> FloatArray:
    """Frames to ms: what happens between two exposures is not seen, so a fraction is one of the exposure."""
    frame = np.floor(time)
    return np.asarray(frame * period_ms + (time - frame) * exposure_ms)


def switching_times(
    traces: Traces, first: IntArray, last: IntArray, *, n_frames: int, prior: RatePrior | None = None
) -> SwitchingTimes:
    """Posterior mean and standard deviation of the times of every blink.

    Parameters
    ----------
    traces : Traces
        Of all blinks.
    first, last : int array (blinks,)
        First and last frame in which each blink was found.
    n_frames : int
        Length of the movie.
    prior : RatePrior, optional
        What is known of the rates; measured on the traces when not given.

    Returns
    -------
    SwitchingTimes
    """
    bounds = np.searchsorted(traces.blink, np.arange(len(first) + 1))
    prior = prior or estimate_prior(traces, first, last)
    rows = [
        _posterior(traces, slice(bounds[k], bounds[k + 1]), int(first[k]), int(last[k]), n_frames, prior)
        for k in range(len(first))
    ]
    columns = np.array(rows, np.float64).reshape(-1, 5).T
    return SwitchingTimes(*columns)


def estimate_prior(traces: Traces, first: IntArray, last: IntArray) -> RatePrior:
    """Brightness of the blinks, from the frames in which each was certainly on all the time."""
    whole = (traces.frame > first[traces.blink]) & (traces.frame < last[traces.blink])
    blink, photons = traces.blink[whole], traces.photons[whole]
    count = np.bincount(blink, minlength=len(first))
    total = np.bincount(blink, weights=photons, minlength=len(first))
    known = count >= 1
    rate = total[known] / count[known]
    rate = rate[rate > 0]
    if len(rate) < _FEWEST_WHOLE:
        # Too few long blinks: the brightest frame of each is not far below its rate.
        brightest = np.full(len(first), -np.inf)
        np.maximum.at(brightest, traces.blink, traces.photons)
        rate = brightest[np.isfinite(brightest) & (brightest > 0)]
        if not len(rate):
            return RatePrior(0.0, 2.0, 0.0)
        return RatePrior(float(np.log(rate).mean()), max(_DEFAULT_SPREAD, float(np.log(rate).std())), 0.0)
    variance = traces.variance_dark[whole] + traces.variance_per_photon[whole] * np.clip(photons, 0, None)
    several = count[blink] >= _WHOLE_FRAMES
    mean = (total / np.maximum(count, 1))[blink]
    excess = 0.0
    if several.sum() >= _FEWEST_WHOLE:
        # The mean takes one of the frames; medians, because two blinks taken for one would decide a mean.
        square = (photons - mean)[several] ** 2 * (count[blink] / np.maximum(count[blink] - 1, 1))[several]
        noise = float(np.median(square) / 0.455 - np.median(variance[several]))
        excess = math.sqrt(max(noise, 0.0)) / max(float(np.median(mean[several])), 1e-9)
    return RatePrior(float(np.log(rate).mean()), max(0.05, float(np.log(rate).std())), min(excess, 0.5))


def _posterior(
    traces: Traces, part: slice, first: int, last: int, n_frames: int, prior: RatePrior
) -> tuple[float, float, float, float, float]:
    """Times, their errors and the rate of one blink."""
    frame, photons = traces.frame[part], traces.photons[part]
    dark, per_photon = traces.variance_dark[part], traces.variance_per_photon[part]
    on = np.arange(first - _BEFORE, min(first + _INTO, last + 1.0), _STEP) + _STEP / 2
    off = np.arange(max(last + 1 - _INTO, first), last + 1 + _BEFORE, _STEP) + _STEP / 2
    on, off = on[on > 0], off[off < n_frames]
    on, off = (on if len(on) else np.zeros(1)), (off if len(off) else np.full(1, float(n_frames)))
    log_rate, spread = _rate_of(photons, dark, per_photon, frame, first, last, prior)
    log_rates = log_rate + spread * _RATES
    log_prior = -0.5 * ((log_rates - prior.log_rate) / prior.spread) ** 2
    early = np.clip(frame[None] + 1 - on[:, None], 0, 1)
    late = np.clip(off[:, None] - frame[None], 0, 1)
    joint = np.empty((len(log_rates), len(on), len(off)))
    middle = (first + last + 1) / 2
    if last - first >= 4:
        # Both ends lie apart: frames of the first half know nothing of the second.
        begins = frame + 0.5 < middle
        for k, rate in enumerate(np.exp(log_rates)):
            value = [
                _log_likelihood(photons[half], rate * overlap[:, half], dark[half], per_photon[half], prior.fluctuation)
                for half, overlap in ((begins, early), (~begins, late))
            ]
            joint[k] = value[0][:, None] + value[1][None]
    else:
        overlap = np.clip(early[:, None] + late[None] - 1, 0, 1)
        for k, rate in enumerate(np.exp(log_rates)):
            joint[k] = _log_likelihood(photons, rate * overlap, dark, per_photon, prior.fluctuation)
        joint[:, off[None] <= on[:, None]] = -np.inf
    joint += log_prior[:, None, None]
    weight = np.exp(joint - joint.max())
    weight /= weight.sum()
    mean_on, sigma_on = _moments(on, weight.sum((0, 2)))
    mean_off, sigma_off = _moments(off, weight.sum((0, 1)))
    # What was on already, or still is, began or ended outside of the movie.
    sigma_on = math.inf if mean_on < 2 * _STEP else sigma_on
    sigma_off = math.inf if mean_off > n_frames - 2 * _STEP else sigma_off
    return mean_on, mean_off, sigma_on, sigma_off, float(np.exp(log_rates) @ weight.sum((1, 2)))


def _rate_of(
    photons: FloatArray,
    dark: FloatArray,
    per_photon: FloatArray,
    frame: IntArray,
    first: int,
    last: int,
    prior: RatePrior,
) -> tuple[float, float]:
    """Where to look for ln(rate), and how widely: the frames in between where there are any, and the prior."""
    whole = (frame > first) & (frame < last)
    n = int(whole.sum())
    if n == 0:
        # A blink of one or two frames: at least as bright as its brightest frame, within reason.
        brightest = float(photons.max())
        if brightest <= 0:
            return prior.log_rate, prior.spread
        low = math.log(brightest)
        centre = max(low, prior.log_rate) if low > prior.log_rate - 2 * prior.spread else low + 0.5 * prior.spread
        return centre, max(prior.spread, 0.3)
    mean = max(float(photons[whole].mean()), 1e-3 * math.exp(prior.log_rate), 1e-9)
    variance = (dark[whole] + per_photon[whole] * mean).mean() / n + (prior.fluctuation * mean) ** 2 / n
    own = math.sqrt(variance) / mean
    weight = 1 / own**2, 1 / prior.spread**2
    centre = (weight[0] * math.log(mean) + weight[1] * prior.log_rate) / sum(weight)
    return centre, 1 / math.sqrt(sum(weight))


def _log_likelihood(
    photons: FloatArray, expected: FloatArray, dark: FloatArray, per_photon: FloatArray, fluctuation: float
) -> FloatArray:
    """Sum over the frames, the last axis, of normal log-likelihoods."""
    variance = dark + per_photon * expected + (fluctuation * expected) ** 2
    return np.asarray(-0.5 * ((photons - expected) ** 2 / variance + np.log(variance)).sum(-1))


def _moments(values: FloatArray, weight: FloatArray) -> tuple[float, float]:
    mean = float(values @ weight)
    # A cell of the grid has a width of its own.
    return mean, math.sqrt(max(float((values - mean) ** 2 @ weight), 0.0) + _STEP**2 / 12)


def ratio_times(traces: Traces, first: IntArray, last: IntArray) -> tuple[FloatArray, FloatArray]:
    """Closed form: the light of the first and the last frame, over the mean of the frames between.

    Parameters
    ----------
    traces : Traces
        Of all blinks.
    first, last : int array (blinks,)
        First and last frame in which each blink was found.

    Returns
    -------
    on, off : array (blinks,)
        Times in frames; the rate of blinks without a frame between is the brightest one.
    """
    whole = (traces.frame > first[traces.blink]) & (traces.frame < last[traces.blink])
    n = len(first)
    count = np.bincount(traces.blink[whole], minlength=n)
    total = np.bincount(traces.blink[whole], weights=traces.photons[whole], minlength=n)
    brightest = np.full(n, 1e-9)
    np.maximum.at(brightest, traces.blink, traces.photons)
    rate = np.where(count > 0, total / np.maximum(count, 1), brightest)
    rate = np.maximum(rate, 1e-9)
    shares = []
    for inner, outer in ((first, first - 1), (last, last + 1)):
        light = [_light_in(traces, frame, n) for frame in (inner, outer)]
        shares.append(
            np.clip(light[0] / rate, 0, 1) + np.where(light[0] > 0.9 * rate, np.clip(light[1] / rate, 0, 1), 0)
        )
    return first + 1 - shares[0], last + shares[1]


def _light_in(traces: Traces, frame: IntArray, n: int) -> FloatArray:
    there = traces.frame == frame[traces.blink]
    return np.asarray(np.bincount(traces.blink[there], weights=traces.photons[there], minlength=n), np.float64)
