"""How likely a candidate is real, and how precise: from what the network states to what turns out to be true.

A network is honest on average over all the experiments that it was trained for, but not in each of them: of candidates
stated with .3 among bright molecules of equal brightness two thirds are real, among faint ones in a haze a fifth. What
tells them apart is known for every candidate: its stated precision, the light of its neighbours, whether there is more
light than the candidates around account for, given how bright this movie's molecules are, and how much is left for it
on the pixels without the others. A very small network, fitted on simulated scenes with truth, turns these numbers into
the probability that a molecule lies within one pixel which no likelier candidate stands for, into a factor on the
stated precision, and into the number of molecules nearby that no candidate stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ModelError
from smlm_pb.localization.crowding import Surroundings
from smlm_pb.localization.small_network import SmallNetwork

FloatArray = npt.NDArray[np.float64]

#: What the small network sees of a candidate, in this order.
FEATURES = (
    "stated probability",
    "stated precision",
    "light of neighbours",
    "brightness among the movie's molecules",
    "spread of the movie's brightness",
    "density of the movie",
    "light that no candidate accounts for",
    "whether the movie's molecules are known",
    "probability nearby",
    "PSF width",
    "stated precision over the limit of a lone molecule",
    "photons",
    "background",
    "likelier candidates",
    "light of likelier candidates",
    "distance to the nearest likelier candidate",
    "crowding of the movie",
    "own light on the pixels",
    "own light on a fitted background",
)
#: Models made before the last ones were thought of go by the first ones alone.
LEAST_FEATURES = 16
#: From so many on, the pixels are looked at.
_WITH_PIXELS = FEATURES.index("own light on the pixels") + 1
#: A candidate is real if a molecule lies within this distance, px.
TOLERANCE_PX = 1.0
#: A molecule that no candidate stands for belongs to the nearest one within this distance, px.
MISSED_WITHIN_PX = 3.0
#: Largest change of the stated precision, as a logarithm.
_MOST_LOG_FACTOR = 0.7
#: Smallest and largest number of missed molecules near a candidate, as logarithms.
LOG_MISSED = (-8.0, 1.0)
#: Numbers that come out of the small network.
OUTPUTS = 3
_LOGITS = (-4.0, 7.0)
#: Beyond, a probability is 0 or 1 to all of its digits.
_MOST_LOGIT = 40.0
_REFERENCE_PHOTONS, _REFERENCE_PSF_PX, _REFERENCE_DENSITY_PER_PX2 = 1500.0, 1.2, 0.01
#: Spread of the brightness where it is not known (natural logarithm).
_USUAL_SPREAD = 0.5
_DAMAGED = "The model card's statement_calibration is damaged: reinstall or retrain the model."


@dataclass(frozen=True)
class Statements:
    """What is known of candidates, one entry each; electrons are effective ones (variance of photon noise = mean).

    Parameters
    ----------
    probability : array (n,)
        As stated.
    sigma_px : array (n,)
        Stated precision, geometric mean of both axes, px.
    limit_px : array (n,)
        Smallest possible one, were the candidate alone, px.
    photons, background_e : array (n,)
        Electrons of the candidate, and variance under it in a pixel, read noise included.
    around : Surroundings
        What lies near.
    own_light : array (n, 2)
        See :func:`smlm_pb.localization.own_light.own_light`.
    psf_sigma_px : float or array (n,)
        PSF width, px.
    population : array (5,) or (n, 5)
        In the order of :data:`smlm_pb.population.POPULATION_FIELDS`; NaN where nothing is known.
    """

    probability: npt.NDArray[Any]
    sigma_px: npt.NDArray[Any]
    limit_px: npt.NDArray[Any]
    photons: npt.NDArray[Any]
    background_e: npt.NDArray[Any]
    around: Surroundings
    own_light: npt.NDArray[Any]
    psf_sigma_px: npt.ArrayLike
    population: npt.ArrayLike

    def features(self) -> FloatArray:
        """The numbers of :data:`FEATURES` (n, 19), of order one."""
        n = len(self.probability)
        p = self.probability.astype(np.float64)
        sigma = np.log(self.sigma_px.astype(np.float64))
        photons = np.log(self.photons.astype(np.float64).clip(1.0))
        usual, low, _, density, density_around = np.broadcast_to(np.asarray(self.population, np.float64), (n, 5)).T
        known = np.isfinite(usual)
        usual = np.where(known, usual, 1.0)
        with np.errstate(divide="ignore"):
            logit = np.clip(np.log(p) - np.log1p(-np.minimum(p, 1 - 1e-7)), *_LOGITS)
        return np.column_stack(
            (
                logit,
                sigma + 2.3,
                np.log(self.around.crowding + 0.003) + 3.0,
                np.where(known, (photons - np.log(usual)).clip(-3.0, 3.0), 0.0),
                np.where(known, np.log(usual / np.where(known, low, 1.0)).clip(0.0, 1.5), _USUAL_SPREAD),
                np.where(known, np.log(np.where(known, density, 1.0) / _REFERENCE_DENSITY_PER_PX2), 0.0),
                np.where(known, (self.around.light_e / usual - self.around.probability).clip(-2.0, 2.0), 0.0),
                known,
                self.around.probability.clip(0.0, 3.0),
                np.broadcast_to(np.log(np.asarray(self.psf_sigma_px, np.float64) / _REFERENCE_PSF_PX), n),
                sigma - np.log(self.limit_px.astype(np.float64)),
                photons - np.log(_REFERENCE_PHOTONS),
                np.log(self.background_e.astype(np.float64).clip(0.0) + 0.05),
                self.around.likelier.clip(0.0, 3.0),
                np.log(self.around.likelier_light + 0.003) + 3.0,
                self.around.likelier_widths,
                np.where(known, np.log(np.where(known, density_around / density, 1.0)), 0.0),
                self.own_light,
            )
        )


class Judged(NamedTuple):
    """What is true of candidates, arrays (n,), float32."""

    #: That a molecule is there which no likelier candidate stands for.
    probability: npt.NDArray[np.float32]
    #: On the stated precision along both axes.
    factor: npt.NDArray[np.float32]
    #: Expected number of molecules nearby that no candidate stands for.
    missed: npt.NDArray[np.float32]


@dataclass(frozen=True)
class StatementCalibration:
    """From :class:`Statements` to what is true of candidates.

    Parameters
    ----------
    network : SmallNetwork
        Three numbers come out: the logit of the probability, and the logarithms of the factor on the precision and of
        the number of missed molecules.

    Raises
    ------
    ModelError
        When it does not have the features of this version or of one before.
    """

    network: SmallNetwork

    def __post_init__(self) -> None:
        known = LEAST_FEATURES <= len(self.network.lowest) <= len(FEATURES)
        if not known or self.network.outputs != OUTPUTS:
            raise ModelError(_DAMAGED)

    @property
    def looks_at_pixels(self) -> bool:
        """Whether the light on the pixels is among what it sees."""
        return len(self.network.lowest) >= _WITH_PIXELS

    def apply(self, stated: Statements) -> Judged:
        """What is true of candidates (n,)."""
        logit, log_factor, log_missed = self.network(stated.features()).T
        judged = (
            1.0 / (1.0 + np.exp(-logit.clip(-_MOST_LOGIT, _MOST_LOGIT))),
            np.exp(log_factor.clip(-_MOST_LOG_FACTOR, _MOST_LOG_FACTOR)),
            np.exp(log_missed.clip(*LOG_MISSED)),
        )
        return Judged(*(one.astype(np.float32) for one in judged))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the card."""
        return self.network.as_dict(FEATURES)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> StatementCalibration | None:
        """Read the card's values; None where there are none.

        Raises
        ------
        ModelError
            When they are damaged, or belong to another version of the program.
        """
        network = SmallNetwork.from_card(content, "statement_calibration", FEATURES, LEAST_FEATURES)
        return None if network is None else cls(network)


def geometric_mean(
    sigma_x: npt.NDArray[Any], sigma_y: npt.NDArray[Any], dtype: npt.DTypeLike = np.float64
) -> npt.NDArray[Any]:
    """Of the precision along both axes."""
    mean: npt.NDArray[Any] = np.sqrt(sigma_x.astype(dtype) * sigma_y.astype(dtype))
    return mean
