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

from smlm_pb.compiled import compiled
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
_TINY = 1e-6
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
    width = np.broadcast_to(np.asarray(psf_sigma_px, np.float64), len(rows["x"]))
    if near is None:
        near = pairs_within(rows, REACH_WIDTHS * float(width.max(initial=0.0)))
    own, probability, light = _own(rows, width, background_e, excess_noise_factor)
    place = np.column_stack([np.asarray(rows[name], np.float64) for name in ("x", "y")])
    return Pairs(*_describe(near.first, near.second, near.square, place, width, own, probability, light))


@compiled
def _describe(
    first: Indices,
    second: Indices,
    square: npt.NDArray[np.float64],
    place: npt.NDArray[np.float64],
    width: npt.NDArray[np.float64],
    own: Float32Array,
    probability: Float32Array,
    light: Float32Array,
) -> tuple[Indices, Float32Array, Float32Array]:
    """The columns of :class:`Pairs`."""
    meant = np.flatnonzero(square < (REACH_WIDTHS * width[first]) ** 2)
    receiver = np.empty(2 * len(meant), np.intp)
    features, direction = np.empty((len(receiver), len(FEATURES)), np.float32), np.empty((2, len(receiver)), np.float32)
    # Of all neighbours of a candidate: light and probability, and both times the way toward them, PSF widths.
    total = np.zeros((len(place), 2, 3))
    for k in range(len(meant)):
        one, other = first[meant[k]], second[meant[k]]
        in_widths = square[meant[k]] / width[one] ** 2
        distance, overlap = np.sqrt(in_widths), np.exp(-0.25 * in_widths)
        length = max(np.hypot(place[other, 0] - place[one, 0], place[other, 1] - place[one, 1]), _TINY)
        for row, i, j in ((2 * k, one, other), (2 * k + 1, other, one)):
            receiver[row] = i
            for column in range(own.shape[1]):
                features[row, column] = own[i, column]
            features[row, 5] = distance
            features[row, 6] = min(max(light[j] - light[i], -_LOG_LIGHT), _LOG_LIGHT)
            features[row, 7], features[row, 8], features[row, 9] = probability[j], own[j, 0], overlap
            direction[0, row] = (place[j, 0] - place[i, 0]) / length
            direction[1, row] = (place[j, 1] - place[i, 1]) / length
            shares = _shares(features[row])
            for kind in range(2):
                share = shares[kind]
                total[i, kind, 0] += share
                total[i, kind, 1] += share * distance * direction[0, row]
                total[i, kind, 2] += share * distance * direction[1, row]
    for row in range(len(receiver)):
        one, fading = total[receiver[row]], (1 - features[row, 5] ** 2 / REACH_WIDTHS**2) ** 2
        shares = _shares(features[row])
        for kind in range(2):
            share = shares[kind]
            features[row, 10 + kind] = one[kind, 0] - share
            along = one[kind, 1] * direction[0, row] + one[kind, 2] * direction[1, row]
            features[row, 13 - kind] = along - share * features[row, 5]
        direction[0, row] *= fading
        direction[1, row] *= fading
    return receiver, features, direction


@compiled
def _shares(pair: Float32Array) -> tuple[float, float]:
    """Probability and light of the neighbour that fall on the candidate."""
    overlap = np.float64(pair[9])
    return overlap * pair[7], overlap * min(np.exp(pair[6]), _MOST_LIGHT)


def _own(
    rows: Any, width: npt.NDArray[Any], background_e: npt.NDArray[Any], excess_noise_factor: float
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """What is known of each candidate alone (n, 5), its probability, and the logarithm of its light."""
    probability = np.asarray(rows["probability"], np.float32)
    photons = np.log(np.asarray(rows["photons"], np.float32).clip(1.0)) - np.float32(np.log(excess_noise_factor))
    with np.errstate(divide="ignore"):
        logit = np.log(probability) - np.log1p(-np.minimum(probability, np.float32(1 - 1e-6)))
    background = np.asarray(background_e, np.float32).clip(0.0) + np.float32(0.05)
    sigma = geometric_mean(rows["sigma_x"], rows["sigma_y"], np.float32)
    own = np.column_stack((np.log(sigma), photons, np.log(width), np.log(background), logit.clip(*_LOGITS)))
    light: Float32Array = photons + np.log(probability.clip(1e-6))
    return own.astype(np.float32), probability, light
