"""How much of the light that a candidate states is on the pixels, once that of likelier ones is taken away.

The second of two molecules side by side has light of its own; a candidate that repeats what a likelier one says has
none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.neighbours import NearPairs, likelier_first, pairs_within
from smlm_pb.localization.windows import cut_windows

Float32Array = npt.NDArray[np.float32]

#: Candidates from here on are not asked: what is certain hardly becomes more so.
CERTAIN = 0.9
#: Pixels on each side of the one that holds the candidate.
_HALF_PX = 1
#: Others farther away than this many PSF widths from the window shine on its edge at most.
_SEEN_WIDTHS = 2.0
#: Pairs that are looked at a time: their windows fit in the cache.
_PAIRS = 1 << 13
_STEPS = np.arange(-_HALF_PX, _HALF_PX + 1)
#: Variance of a pixel's width, px²: a Gaussian as much wider is what a pixel collects, to a percent.
_PIXEL_VARIANCE_PX2 = 1 / 12
_LEAST_VARIANCE_E2 = 0.5
#: Smallest and largest share: noise of dim candidates would decide otherwise.
_RANGE = (-1.0, 3.0)


@dataclass(frozen=True)
class Pixels:
    """The frames in which candidates were found.

    Parameters
    ----------
    electrons : array (frame, y, x), float32
        Effective photo-electrons (variance of photon noise = mean); what is not finite was not seen.
    first_frame : int
        Frame number of the first one.
    photon_scale : float
        By what stated photons must be multiplied to be those on the pixels of this movie.
    """

    electrons: Float32Array
    first_frame: int = 0
    photon_scale: float = 1.0


def own_light(
    rows: Any,
    pixels: Pixels,
    *,
    psf_sigma_px: npt.ArrayLike,
    background_e: npt.NDArray[Any],
    excess_noise_factor: float = 1.0,
    near: NearPairs | None = None,
) -> npt.NDArray[np.float64]:
    """Share of the stated photons that is on the pixels when the light of all likelier candidates is taken away.

    In a window of 3×3 pixels the amplitude of the PSF at the candidate's place is fitted by weighted least squares to
    what is left.

    Parameters
    ----------
    rows : structured array (n,), table, or mapping of columns
        Candidates with ``frame``, ``x``, ``y``, ``photons``, ``background``, ``probability``.
    pixels : Pixels
        Where they were found.
    psf_sigma_px : float or array (n,)
        PSF width, px.
    background_e : array (n,)
        Variance under each in a pixel without the molecule, read noise included, effective e⁻.
    excess_noise_factor : float
        By which photons and background of the rows are larger than effective ones.
    near : NearPairs, optional
        Pairs whose light may fall on each other, and others, where they are known.

    Returns
    -------
    array (n, 2)
        On the stated background, and on one that is fitted too; 1 for those that are certain.
    """
    probability = np.asarray(rows["probability"])
    share = np.ones((len(probability), 2))
    asked = np.flatnonzero(probability < np.float32(CERTAIN))
    if len(asked) == 0:
        return share
    x, y = (np.asarray(rows[name], np.float32) for name in ("x", "y"))
    variance = np.square(np.broadcast_to(np.asarray(psf_sigma_px, np.float32), len(x))) + np.float32(
        _PIXEL_VARIANCE_PX2
    )
    effective = np.float32(1 / excess_noise_factor)
    photons = np.asarray(rows["photons"], np.float32) * (effective * np.float32(pixels.photon_scale))
    light = photons * probability.astype(np.float32)
    place = {"frame": np.asarray(rows["frame"])[asked], "x": x[asked], "y": y[asked]}
    cut = cut_windows(place, pixels.electrons, _HALF_PX, first_frame=pixels.first_frame)
    row, column = cut.rows_at[:, _HALF_PX], cut.columns_at[:, _HALF_PX]
    spot = _spots(place["y"] - row, place["x"] - column, variance[asked])
    others = np.zeros_like(spot)
    reach_px = _HALF_PX + 0.5 + _SEEN_WIDTHS * float(variance.max()) ** 0.5
    near = pairs_within(rows, reach_px) if near is None else near.within(reach_px)
    receivers, sources = _likelier(probability, asked, near)
    for start in range(0, len(receivers), _PAIRS):
        receiver, source = receivers[start : start + _PAIRS], sources[start : start + _PAIRS]
        at = (y[source] - row[receiver], x[source] - column[receiver])
        shine = _spots(at[0].astype(np.float32), at[1].astype(np.float32), variance[source])
        shine *= light[source][:, None]
        first = np.flatnonzero(np.diff(receiver, prepend=-1))
        others[receiver[first]] += np.add.reduceat(shine, first, axis=0)
    background = np.asarray(rows["background"], np.float32)[asked].clip(0) * effective
    expected = others + light[asked][:, None] * spot
    noise = np.maximum(expected + np.asarray(background_e, np.float32)[asked][:, None], np.float32(_LEAST_VARIANCE_E2))
    window = cut.pixels.astype(np.float32).reshape(spot.shape)
    seen = cut.seen.reshape(spot.shape) & np.isfinite(window)
    weight: Float32Array = np.where(seen, 1 / noise, np.float32(0.0))
    left: Float32Array = np.where(seen, window - others - background[:, None], np.float32(0.0))
    stated = np.maximum(photons[asked], np.float32(1.0))[:, None]
    share[asked] = (_amplitudes(left, spot, weight) / stated).clip(*_RANGE)
    return share


def _likelier(
    probability: npt.NDArray[Any], asked: npt.NDArray[np.intp], near: NearPairs
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Which of those that are asked (in order) sees the light of which likelier row."""
    slot = np.full(len(probability), -1)
    slot[asked] = np.arange(len(asked))
    source, behind = likelier_first(probability, near.first, near.second)
    receiver = slot[behind]
    meant = np.flatnonzero(receiver >= 0)
    order = meant[np.argsort(receiver[meant], kind="stable")]
    return receiver[order], source[order]


def _spots(down: npt.NDArray[Any], across: npt.NDArray[Any], variance: Float32Array) -> npt.NDArray[Any]:
    """Share (m, 9) of the light in each pixel of a window, of molecules so far from its middle."""
    steps = _STEPS.astype(np.float32)
    narrow = np.float32(-0.5) / variance[:, None]
    along_y, along_x = (np.exp(narrow * np.square(steps - off[:, None])) for off in (down, across))
    along_y *= (np.float32(1 / (2 * np.pi)) / variance)[:, None]
    return (along_y[:, :, None] * along_x[:, None, :]).reshape(len(down), -1)


def _amplitudes(left: npt.NDArray[Any], spot: npt.NDArray[Any], weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Amplitudes (m, 2) of weighted least-squares fits of a spot, and of a spot and a constant."""
    weighted = weight * spot
    square, product = (weighted * spot).sum(1), (weighted * left).sum(1)
    total, mean_spot, mean_left = weight.sum(1), weighted.sum(1), (weight * left).sum(1)
    tiny = np.float32(1e-12)
    alone = product / np.maximum(square, tiny)
    beside = np.maximum(total, tiny)
    with_constant = (product - mean_spot * mean_left / beside) / np.maximum(
        square - np.square(mean_spot) / beside, tiny
    )
    return np.stack((alone, with_constant), axis=1)
