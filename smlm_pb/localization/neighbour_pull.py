"""Close molecules are stated too close to each other: by how much, and the same taken back.

Where the images of two molecules overlap, a pixel's light may be the one's or the other's. A network that answers with
the mean of all that is possible puts both nearer to each other than they are: candidates less than half a PSF width
apart are each stated a seventh of a pixel too near the other. A very small network, fitted on simulated scenes with
truth, says how strongly each neighbour pulls, from what both state and from who else is there.
The pull acts along the line between the two, fades with the distance, and the pulls of all neighbours add up; so a lone
molecule is left alone, and no direction in the frame is preferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ModelError
from smlm_pb.localization.neighbours import NearPairs, pairs_within
from smlm_pb.localization.small_network import SmallNetwork
from smlm_pb.localization.statement_calibration import geometric_mean

Indices = npt.NDArray[np.intp]
Float32Array = npt.NDArray[np.float32]

#: What the small network sees of a candidate and one of its neighbours, in this order.
FEATURES = (
    "stated precision",
    "photons",
    "PSF width",
    "background",
    "stated probability",
    "distance",
    "light of the neighbour",
    "probability of the neighbour",
    "stated precision of the neighbour",
    "overlap",
    "probability of the others",
    "light of the others",
    "light of the others in this direction",
    "probability of the others in this direction",
)
#: From this distance on nobody pulls, PSF widths.
REACH_WIDTHS = 3.0
#: A neighbour this many times as bright pulls no more than that.
_MOST_LIGHT = 5.0
_LOG_LIGHT = 4.0
_LOGITS = (-4.0, 9.0)
#: Largest shift, in stated precisions.
_MOST_SHIFT = 2.0
_TINY = np.float32(1e-6)
_DAMAGED = "The model card's neighbour_pull is damaged: reinstall or retrain the model."


@dataclass(frozen=True)
class Pairs:
    """Candidates and their neighbours, both ways: m rows."""

    receiver: Indices
    """Index (m,) of the candidate that is pulled."""
    features: Float32Array
    """The numbers (m, 14) of :data:`FEATURES`."""
    direction: Float32Array
    """Steps (2, m) along x and y of length 1 toward the neighbour, shorter the farther it is."""


@dataclass(frozen=True)
class NeighbourPull:
    """By how much neighbours pull a candidate.

    Parameters
    ----------
    network : SmallNetwork
        From the features of a pair to the strength of the pull, in stated precisions.

    Raises
    ------
    ModelError
        When it does not have the features of this version.
    """

    network: SmallNetwork

    def __post_init__(self) -> None:
        if len(self.network.lowest) != len(FEATURES) or self.network.outputs != 1:
            raise ModelError(_DAMAGED)

    def apart(
        self,
        rows: Any,
        *,
        psf_sigma_px: npt.ArrayLike,
        background_e: npt.NDArray[Any],
        excess_noise_factor: float = 1.0,
        near: NearPairs | None = None,
    ) -> tuple[Float32Array, Float32Array]:
        """Places without the pull.

        Parameters
        ----------
        rows, psf_sigma_px, background_e, excess_noise_factor, near
            As for :func:`pairs_of`.

        Returns
        -------
        x, y : array (n,), float32
            Places, px.
        """
        x, y = (np.asarray(rows[name], np.float32) for name in ("x", "y"))
        pairs = pairs_of(
            rows,
            psf_sigma_px=psf_sigma_px,
            background_e=background_e,
            excess_noise_factor=excess_noise_factor,
            near=near,
        )
        if len(pairs.receiver) == 0:
            return x, y
        strength = self.network(pairs.features)[:, 0]
        pull = np.stack([np.bincount(pairs.receiver, strength * step, len(x)) for step in pairs.direction])
        most = np.minimum(1.0, _MOST_SHIFT / np.maximum(np.hypot(*pull), _MOST_SHIFT))
        pull *= geometric_mean(rows["sigma_x"], rows["sigma_y"], np.float32) * most
        return (x - pull[0]).astype(np.float32), (y - pull[1]).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the card."""
        return self.network.as_dict(FEATURES)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> NeighbourPull | None:
        """Read the card's values; None where there are none.

        Raises
        ------
        ModelError
            When they are damaged, or belong to another version of the program.
        """
        network = SmallNetwork.from_card(content, "neighbour_pull", FEATURES)
        return None if network is None else cls(network)


def pairs_of(
    rows: Any,
    *,
    psf_sigma_px: npt.ArrayLike,
    background_e: npt.NDArray[Any],
    excess_noise_factor: float = 1.0,
    near: NearPairs | None = None,
) -> Pairs:
    """Describe each candidate's neighbours.

    Parameters
    ----------
    rows : structured array (n,), table, or mapping of columns
        Candidates, one per molecule, of whole frames, with ``frame``, ``x``, ``y``, ``sigma_x``, ``sigma_y`` (px, as
        stated), ``photons``, ``probability``.
    psf_sigma_px : float or array (n,)
        PSF width, px.
    background_e : array (n,)
        Variance in a pixel under each without the molecule, read noise included, effective e⁻.
    excess_noise_factor : float
        By which photons of the rows are larger than effective ones.
    near : NearPairs, optional
        Pairs within :data:`REACH_WIDTHS`, and others, where they are known.

    Returns
    -------
    Pairs
    """
    n = len(rows["x"])
    width = np.broadcast_to(np.asarray(psf_sigma_px, np.float32), n)
    if n < 2:
        return Pairs(np.empty(0, np.intp), np.empty((0, len(FEATURES)), np.float32), np.empty((2, 0), np.float32))
    reach_px = REACH_WIDTHS * float(width.max())
    first, second, square = pairs_within(rows, reach_px) if near is None else near.within(reach_px)
    in_widths = square / np.square(width).take(first)
    meant = np.flatnonzero(in_widths < REACH_WIDTHS**2)
    first, second, in_widths = first.take(meant), second.take(meant), in_widths.take(meant).astype(np.float32)
    receiver, source = np.concatenate((first, second)), np.concatenate((second, first))
    step = _steps(rows, first, second)
    distance, overlap = (np.tile(one, 2) for one in (np.sqrt(in_widths), np.exp(np.float32(-0.25) * in_widths)))
    own, probability, light = _own(rows, width, background_e, excess_noise_factor)
    features = np.empty((len(FEATURES), len(receiver)), np.float32)
    for values, column in zip(own, features, strict=False):
        np.take(values, receiver, out=column)
    theirs, relative = features[7], features[6]
    features[5] = distance
    np.clip(light.take(source) - light.take(receiver), -_LOG_LIGHT, _LOG_LIGHT, out=relative)
    np.take(probability, source, out=theirs)
    np.take(own[0], source, out=features[8])
    features[9] = overlap
    shares = overlap * theirs, overlap * np.minimum(np.exp(relative), np.float32(_MOST_LIGHT))
    for share, others, this_way in zip(shares, (10, 11), (13, 12), strict=True):
        features[others] = _total(share, receiver, n) - share
        share *= distance
        along = [one * _total(share * one, receiver, n) for one in step]
        features[this_way] = along[0] + along[1] - share
    step *= np.tile(np.square(1 - in_widths / np.float32(REACH_WIDTHS**2)), 2)
    return Pairs(receiver, features.T, step)


def _steps(rows: Any, first: Indices, second: Indices) -> Float32Array:
    """Steps (2, 2 m) of length 1 from the first to the second of each pair, and back; 0 between equal places."""
    step = np.stack([np.asarray(rows[name], np.float32) for name in ("x", "y")])
    step = step.take(second, axis=1) - step.take(first, axis=1)
    step /= np.maximum(np.hypot(*step), _TINY)
    both: Float32Array = np.concatenate((step, -step), axis=1)
    return both


def _own(
    rows: Any, width: npt.NDArray[Any], background_e: npt.NDArray[Any], excess_noise_factor: float
) -> tuple[list[Float32Array], Float32Array, Float32Array]:
    """What is known of each candidate alone (5 arrays), its probability, and the logarithm of its light."""
    probability = np.asarray(rows["probability"], np.float32)
    photons = np.log(np.asarray(rows["photons"], np.float32).clip(1.0)) - np.float32(np.log(excess_noise_factor))
    with np.errstate(divide="ignore"):
        logit = np.log(probability) - np.log1p(-np.minimum(probability, np.float32(1 - 1e-6)))
    background = np.asarray(background_e, np.float32).clip(0.0) + np.float32(0.05)
    sigma = geometric_mean(rows["sigma_x"], rows["sigma_y"], np.float32)
    own = [np.log(sigma), photons, np.log(width), np.log(background), logit.clip(*_LOGITS)]
    return own, probability, photons + np.log(probability.clip(1e-6))


def _total(values: Float32Array, receiver: Indices, n: int) -> Float32Array:
    """Sum over each receiver's pairs, for each pair (m,)."""
    total: Float32Array = np.bincount(receiver, values, n).astype(np.float32).take(receiver)
    return total
