"""From the precision a network states to the precision it has: a curve measured on simulated scenes.

A network's stated precision grows with doubt but may be too large or too small by a factor that depends on its size.
The factor is the standard deviation of error over stated precision among molecules of similar stated precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ModelError

#: Errors beyond this many stated precisions come from mistaken identity, not from noise.
_LARGEST_PULL = 4.0
_LEAST_PER_BIN = 200


@dataclass(frozen=True)
class SigmaCalibration:
    """A piecewise linear factor over the logarithm of the stated precision.

    Parameters
    ----------
    stated_px : tuple of float
        Stated precisions, px, increasing.
    factor : tuple of float
        True over stated precision at each; constant beyond the ends.
    """

    stated_px: tuple[float, ...]
    factor: tuple[float, ...]

    def __post_init__(self) -> None:
        stated, factor = np.asarray(self.stated_px, float), np.asarray(self.factor, float)
        valid = stated.ndim == 1 and stated.shape == factor.shape and stated.size > 0
        if not (valid and (stated > 0).all() and (np.diff(stated) > 0).all() and (factor > 0).all()):
            raise ModelError("The model card's sigma_calibration is damaged: reinstall or retrain the model.")

    def apply(self, sigma_px: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Turn stated into calibrated precisions.

        Parameters
        ----------
        sigma_px : array (n,)
            Stated precisions, px.

        Returns
        -------
        array (n,), float32
        """
        factor = np.interp(np.log(sigma_px), np.log(self.stated_px), self.factor)
        return (sigma_px * factor).astype(np.float32)

    @classmethod
    def fit(
        cls,
        stated_px: npt.NDArray[np.floating[Any]],
        error_px: npt.NDArray[np.floating[Any]],
        weight: npt.NDArray[np.floating[Any]] | None = None,
        *,
        bins: int = 12,
    ) -> SigmaCalibration:
        """Measure the curve.

        Parameters
        ----------
        stated_px, error_px : array (n,)
            Stated precision and error of matched molecules, one entry per axis.
        weight : array (n,), optional
            How much each counts.
        bins : int
            Most bins; fewer where there are too few molecules.

        Returns
        -------
        SigmaCalibration
            A factor of 1 where there are no molecules to judge by.
        """
        bins = min(bins, len(stated_px) // _LEAST_PER_BIN)
        if bins < 1:
            return cls((1.0,), (1.0,))
        weight = np.ones(len(stated_px)) if weight is None else weight
        order = np.argsort(stated_px, kind="stable")
        share = np.cumsum(weight[order])
        borders = np.searchsorted(share, share[-1] * np.arange(1, bins) / bins)
        centres: list[float] = []
        factors: list[float] = []
        for part in np.split(order, borders):
            if len(part) < _LEAST_PER_BIN // 2:
                continue
            pull = error_px[part] / stated_px[part]
            near = np.abs(pull) < _LARGEST_PULL
            centre = round(float(np.exp(np.average(np.log(stated_px[part]), weights=weight[part]))), 5)
            if centres and centre <= centres[-1]:
                continue
            centres.append(centre)
            factors.append(round(float(np.sqrt(np.average(pull[near] ** 2, weights=weight[part][near]))), 4))
        return cls(tuple(centres), tuple(factors))

    def as_dict(self) -> dict[str, list[float]]:
        """Plain values for the card."""
        return {"stated_px": list(self.stated_px), "factor": list(self.factor)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> SigmaCalibration | None:
        """Read the card's values; None where there are none."""
        if not content:
            return None
        try:
            return cls(tuple(map(float, content["stated_px"])), tuple(map(float, content["factor"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                "The model card's sigma_calibration is damaged: reinstall or retrain the model."
            ) from error
