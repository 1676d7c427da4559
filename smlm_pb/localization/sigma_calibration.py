"""From the precision a network states to the precision it has: three curves measured on simulated scenes.

A network's stated precision grows with doubt but may be too large or too small by a factor. The factor depends on how
large the precision is; on how far it stays behind the limit for a lone molecule of the same brightness, which a formula
gives; and on how much light of neighbours falls on the molecule: what is stated of lone molecules is usually too large
where it is right for crowded ones, which now and then are mistaken for each other. So the factor is a product of three
curves, each the standard deviation of error over stated precision of molecules of similar abscissa, given the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ModelError

FloatArray = npt.NDArray[np.float64]

#: Errors beyond this many stated precisions come from mistaken identity, not from noise.
_LARGEST_PULL = 4.0
_LEAST_PER_BIN = 200
#: Times that the curves are fitted in turn, each to what the other leaves.
_ROUNDS = 5
#: Added to the light of neighbours, so that a lone molecule has a logarithm.
_ALONE = 1e-3
#: Names on the card: abscissa and factor of each curve.
_FACTOR_OF = {"stated_px": "factor", "ratio": "ratio_factor", "crowding": "crowding_factor"}
_DAMAGED = "The model card's sigma_calibration is damaged: reinstall or retrain the model."


@dataclass(frozen=True)
class Curve:
    """A factor, piecewise linear over the logarithm of its abscissa and constant beyond the ends.

    Parameters
    ----------
    at : tuple of float
        Abscissae > 0, increasing.
    factor : tuple of float
        Factor > 0 at each.
    """

    at: tuple[float, ...] = (1.0,)
    factor: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        at, factor = np.asarray(self.at, float), np.asarray(self.factor, float)
        valid = at.ndim == 1 and at.shape == factor.shape and at.size > 0
        if not (valid and (at > 0).all() and (np.diff(at) > 0).all() and (factor > 0).all()):
            raise ModelError(_DAMAGED)

    def __call__(self, at: npt.NDArray[np.floating[Any]]) -> FloatArray:
        """Factors (n,) at abscissae (n,)."""
        return np.interp(np.log(at), np.log(self.at), self.factor)

    @classmethod
    def fit(cls, at: FloatArray, pull: FloatArray, weight: FloatArray, bins: int) -> Curve:
        """Standard deviation of the pull in bins of equal weight; 1 where there are too few molecules to judge by."""
        bins = min(bins, len(at) // _LEAST_PER_BIN)
        if bins < 1:
            return cls()
        order = np.argsort(at, kind="stable")
        share = np.cumsum(weight[order])
        borders = np.searchsorted(share, share[-1] * np.arange(1, bins) / bins)
        centres: list[float] = []
        factors: list[float] = []
        for part in np.split(order, borders):
            if len(part) < _LEAST_PER_BIN // 2:
                continue
            near = np.abs(pull[part]) < _LARGEST_PULL
            centre = round(float(np.exp(np.average(np.log(at[part]), weights=weight[part]))), 5)
            if centres and centre <= centres[-1]:
                continue
            centres.append(centre)
            factors.append(round(float(np.sqrt(np.average(pull[part][near] ** 2, weights=weight[part][near]))), 4))
        return cls(tuple(centres), tuple(factors))


@dataclass(frozen=True)
class Stated:
    """What the factor depends on, one entry per molecule and axis.

    Parameters
    ----------
    sigma_px : array (n,)
        Stated precision, px.
    limit_px : array (n,)
        Smallest possible one of a lone molecule as bright (:func:`smlm_pb.refinement.crlb.mortensen_mle`), px.
    crowding : array (n,)
        Light of neighbours relative to the own (:func:`smlm_pb.localization.crowding.crowding`).
    """

    sigma_px: npt.NDArray[np.floating[Any]]
    limit_px: npt.NDArray[np.floating[Any]]
    crowding: npt.NDArray[np.floating[Any]]

    def abscissae(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """One for each curve, all > 0."""
        sigma = self.sigma_px.astype(np.float64)
        return sigma, sigma / self.limit_px.astype(np.float64), self.crowding.astype(np.float64) + _ALONE


@dataclass(frozen=True)
class SigmaCalibration:
    """Turns stated into calibrated precisions.

    Parameters
    ----------
    over_stated : Curve
        Over the stated precision, px.
    over_ratio : Curve
        Over the ratio of stated precision to the limit for a lone molecule.
    over_crowding : Curve
        Over the light of neighbours.
    """

    over_stated: Curve
    over_ratio: Curve = Curve()
    over_crowding: Curve = Curve()

    def apply(self, stated: Stated) -> npt.NDArray[np.float32]:
        """Turn stated into calibrated precisions (n,), px."""
        return (stated.sigma_px * self._factor(stated)).astype(np.float32)

    def _factor(self, stated: Stated) -> FloatArray:
        curves = (self.over_stated, self.over_ratio, self.over_crowding)
        factor = np.ones(len(stated.sigma_px))
        for curve, at in zip(curves, stated.abscissae(), strict=True):
            factor *= curve(at)
        return factor

    @classmethod
    def fit(
        cls,
        stated: Stated,
        error_px: npt.NDArray[np.floating[Any]],
        weight: npt.NDArray[np.floating[Any]] | None = None,
        *,
        bins: int = 12,
    ) -> SigmaCalibration:
        """Measure the curves.

        Parameters
        ----------
        stated : Stated
            Of matched molecules.
        error_px : array (n,)
            Their errors, px.
        weight : array (n,), optional
            How much each counts.
        bins : int
            Most bins of each curve; fewer where there are too few molecules.

        Returns
        -------
        SigmaCalibration
            A factor of 1 where there are no molecules to judge by.
        """
        abscissae = stated.abscissae()
        pull = error_px / stated.sigma_px.astype(np.float64)
        weights = np.ones(len(pull)) if weight is None else weight.astype(np.float64)
        curves = [Curve(), Curve(), Curve()]
        for _ in range(_ROUNDS):
            for index in range(len(curves)):
                others = np.ones(len(pull))
                for other, (curve, at) in enumerate(zip(curves, abscissae, strict=True)):
                    if other != index:
                        others *= curve(at)
                curves[index] = Curve.fit(abscissae[index], pull / others, weights, bins)
        return cls(*curves)

    def as_dict(self) -> dict[str, list[float]]:
        """Plain values for the card."""
        curves = {"stated_px": self.over_stated, "ratio": self.over_ratio, "crowding": self.over_crowding}
        plain = {}
        for name, curve in curves.items():
            plain[name], plain[_FACTOR_OF[name]] = list(curve.at), list(curve.factor)
        return plain

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> SigmaCalibration | None:
        """Read the card's values; None where there are none. Curves that a card does not hold are 1."""
        if not content:
            return None
        try:
            return cls(
                *(
                    Curve(tuple(map(float, content[name])), tuple(map(float, content[factor])))
                    if name in content or name == "stated_px"
                    else Curve()
                    for name, factor in _FACTOR_OF.items()
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(_DAMAGED) from error
