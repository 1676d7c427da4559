"""How much of the light that a candidate states is on the pixels, once that of likelier ones is taken away.

The second of two molecules side by side has light of its own; a candidate that repeats what a likelier one says has
none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.compiled import compiled
from smlm_pb.localization.neighbours import NearPairs, likelier_first, pairs_within

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

#: Candidates from here on are not asked: what is certain hardly becomes more so.
CERTAIN = np.float32(0.9)
#: Pixels along a side of the window; the one that holds the candidate is in its middle.
_SIDE_PX, _HALF_PX = 3, 1
#: Others farther away than this many PSF widths from the window shine on its edge at most.
_SEEN_WIDTHS = 2.0
#: Variance of a pixel's width, px²: a Gaussian as much wider is what a pixel collects, to a percent.
_PIXEL_VARIANCE_PX2 = 1 / 12
_LEAST_VARIANCE_E2 = 0.5
#: A candidate as the loops below see it; electrons are effective ones, lengths pixels.
_SPOT = np.dtype(
    [(name, np.int64) for name in ("frame", "row", "column")]
    + [(name, np.float64) for name in ("x", "y", "variance", "photons", "background", "noise")]
    + [("probability", np.float32)],
    align=True,
)
_LEAST_PHOTONS = 1.0
#: Smallest and largest share: noise of dim candidates would decide otherwise.
_LEAST_SHARE, _MOST_SHARE = -1.0, 3.0
_TINY = 1e-12


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
    effective = 1 / excess_noise_factor
    height, width = pixels.electrons.shape[1:]
    spots = np.empty(len(rows["x"]), _SPOT)
    for name in ("x", "y", "probability"):
        spots[name] = rows[name]
    spots["frame"] = np.asarray(rows["frame"]).astype(np.int64) - pixels.first_frame
    spots["row"] = np.rint(spots["y"]).clip(0, height - 1)
    spots["column"] = np.rint(spots["x"]).clip(0, width - 1)
    spots["variance"] = np.square(np.asarray(psf_sigma_px, np.float64)) + _PIXEL_VARIANCE_PX2
    spots["photons"] = rows["photons"] * (effective * pixels.photon_scale)
    spots["background"] = np.clip(rows["background"], 0, None) * effective
    spots["noise"] = background_e
    reach_px = _HALF_PX + 0.5 + _SEEN_WIDTHS * float(spots["variance"].max(initial=0.0)) ** 0.5
    near = pairs_within(rows, reach_px) if near is None else near
    near = near.within(reach_px)
    others = _light_of_likelier(spots, *likelier_first(spots["probability"], near.first, near.second))
    return _shares(spots, pixels.electrons, others)


@compiled
def _light_of_likelier(spots: npt.NDArray[Any], sources: Indices, receivers: Indices) -> FloatArray:
    """Light (n, y, x) of likelier candidates on the window of each one that is asked."""
    light = np.zeros((len(spots), _SIDE_PX, _SIDE_PX))
    for k in range(len(sources)):
        of, to = spots[sources[k]], spots[receivers[k]]
        if to["probability"] >= CERTAIN:
            continue
        along_y = _profile(of["y"] - to["row"], of["variance"])
        along_x = _profile(of["x"] - to["column"], of["variance"])
        for down in range(_SIDE_PX):
            for across in range(_SIDE_PX):
                share = along_y[down] * along_x[across]
                light[receivers[k], down, across] += of["photons"] * of["probability"] * share
    return light


@compiled
def _shares(spots: npt.NDArray[Any], electrons: Float32Array, others: FloatArray) -> FloatArray:
    """Amplitudes (n, 2) of weighted least-squares fits of a spot, and of a spot and a constant; 1 if not asked."""
    height, width = electrons.shape[1:]
    shares = np.ones((len(spots), 2))
    for i in range(len(spots)):
        spot = spots[i]
        if spot["probability"] >= CERTAIN:
            continue
        along_y = _profile(spot["y"] - spot["row"], spot["variance"])
        along_x = _profile(spot["x"] - spot["column"], spot["variance"])
        square, product, total, of_spot, of_left = 0.0, 0.0, 0.0, 0.0, 0.0
        for down in range(_SIDE_PX):
            for across in range(_SIDE_PX):
                row, column = spot["row"] + down - _HALF_PX, spot["column"] + across - _HALF_PX
                if not (0 <= row < height and 0 <= column < width):
                    continue
                there, share = electrons[spot["frame"], row, column], along_y[down] * along_x[across]
                if not np.isfinite(there):
                    continue
                expected = others[i, down, across]
                light = spot["photons"] * spot["probability"] * share
                weight = 1 / max(expected + light + spot["noise"], _LEAST_VARIANCE_E2)
                left = there - expected - spot["background"]
                square += weight * share * share
                product += weight * share * left
                total += weight
                of_spot += weight * share
                of_left += weight * left
        beside = max(total, _TINY)
        alone = product / max(square, _TINY)
        with_constant = (product - of_spot * of_left / beside) / max(square - of_spot**2 / beside, _TINY)
        stated = max(spot["photons"], _LEAST_PHOTONS)
        shares[i, 0] = min(max(alone / stated, _LEAST_SHARE), _MOST_SHARE)
        shares[i, 1] = min(max(with_constant / stated, _LEAST_SHARE), _MOST_SHARE)
    return shares


@compiled
def _profile(off: float, variance: float) -> tuple[float, float, float]:
    """Share of the light in each pixel of a window along one axis, of a molecule so far from its middle."""
    narrow, height = -0.5 / variance, 1 / np.sqrt(2 * np.pi * variance)
    return (
        height * np.exp(narrow * (-1 - off) ** 2),
        height * np.exp(narrow * off**2),
        height * np.exp(narrow * (1 - off) ** 2),
    )
