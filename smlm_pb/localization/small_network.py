"""Very small networks that stand on a model's card: a few numbers of a candidate in, a few out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.compiled import compiled
from smlm_pb.errors import ModelError
from smlm_pb.narrow_product import narrow_product

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
Layer = tuple[FloatArray, FloatArray]

#: Examples that are looked at at a time: what lies between the layers fits in the cache.
_ROWS = 1 << 11


@dataclass(frozen=True)
class SmallNetwork:
    """Layers with rectifiers between them, for features that are clipped to the range of the fit.

    Parameters
    ----------
    lowest, highest : tuple of float
        Range of each feature among the examples of the fit; beyond it the nearest value counts.
    layers : tuple of (array (in, out), array (out,))
        Weights and shifts.

    Raises
    ------
    ValueError
        When shapes do not fit together, or a number is not finite.
    """

    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        sizes = [len(self.lowest), *(len(shift) for _, shift in self.layers)]
        shaped = all(w.shape == pair for (w, _), pair in zip(self.layers, pairwise(sizes), strict=True))
        finite = all(np.isfinite(a).all() for layer in self.layers for a in layer)
        if not (self.layers and len(self.highest) == len(self.lowest) and shaped and finite):
            raise ValueError("the layers of a small network do not fit together")
        if not all(low < high for low, high in zip(self.lowest, self.highest, strict=True)):
            raise ValueError("the range of a small network's features is empty")

    @property
    def outputs(self) -> int:
        """How many numbers come out."""
        return len(self.layers[-1][1])

    def __call__(self, features: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Numbers (n, outputs) for features (n, k), of which the first ones are seen."""
        # Fewer digits than those of the probabilities that come in would be too few, more are of no use.
        low, high = (np.asarray(ends, np.float32) for ends in (self.lowest, self.highest))
        layers = [_with_one(*layer) for layer in self._from_features()]
        out = np.empty((len(features), self.outputs), np.float32)
        for start in range(0, len(features), _ROWS):
            part = slice(start, start + _ROWS)
            values = _clipped(np.asarray(features[part], np.float32), low, high)
            for index, weight in enumerate(layers):
                if index:
                    np.maximum(values, 0.0, out=values)
                values = narrow_product(values, weight)
            out[part] = values[:, :-1]
        return out

    def _from_features(self) -> Iterator[Layer]:
        """The layers, of which the first one scales the features too."""
        low, high = np.asarray(self.lowest), np.asarray(self.highest)
        (weight, shift), *others = self.layers
        ends = scaled(np.stack((low, high)), low, high)
        slope = (ends[1] - ends[0]) / (high - low)
        yield slope[:, None] * weight, shift + (ends[0] - slope * low) @ weight
        yield from others

    def as_dict(self, features: tuple[str, ...]) -> dict[str, Any]:
        """Plain values for a card, with the names of the features."""
        return {
            "features": list(features[: len(self.lowest)]),
            "lowest": list(self.lowest),
            "highest": list(self.highest),
            "layers": [[weight.tolist(), shift.tolist()] for weight, shift in self.layers],
        }

    @classmethod
    def from_card(
        cls, content: dict[str, Any], field: str, features: tuple[str, ...], least: int | None = None
    ) -> SmallNetwork | None:
        """Read a card's values; None where there are none.

        Parameters
        ----------
        content : dict
            What the card holds.
        field : str
            Its name there.
        features : tuple of str
            The features of this version.
        least : int, optional
            How many of them there are at least, the first ones; all when left out.

        Raises
        ------
        ModelError
            When they are damaged, or belong to another version of the program.
        """
        if not content:
            return None
        try:
            known = len(content["features"])
            if tuple(content["features"]) != features[:known] or known < (least or len(features)):
                raise ModelError(
                    f"The model's {field} is of another version of smlm-pb: retrain it, or update smlm-pb."
                )
            layers = tuple((np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in content["layers"])
            return cls(tuple(map(float, content["lowest"])), tuple(map(float, content["highest"])), layers)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"The model card's {field} is damaged: reinstall or retrain the model.") from error


def _with_one(weight: FloatArray, shift: FloatArray) -> Float32Array:
    """The matrix of a layer whose values have a 1 behind them, and keep it: there is nothing to be added to them."""
    matrix = np.zeros((len(weight) + 1, len(shift) + 1), np.float32)
    matrix[:-1, :-1], matrix[-1, :-1], matrix[-1, -1] = weight, shift, 1.0
    return matrix


@compiled
def _clipped(features: Float32Array, low: Float32Array, high: Float32Array) -> Float32Array:
    """Those of the features that are seen, within their range, and a 1 behind them (n, seen + 1)."""
    seen = len(low)
    values = np.empty((len(features), seen + 1), np.float32)
    for row in range(len(features)):
        for k in range(seen):
            values[row, k] = min(max(features[row, k], low[k]), high[k])
        values[row, seen] = 1.0
    return values


def scaled(features: npt.NDArray[Any], lowest: FloatArray, highest: FloatArray) -> npt.NDArray[Any]:
    """Features (n, k) as a small network sees them: -2 at the lowest value of the fit, 2 at the highest."""
    middle, half = ((highest + lowest) / 2).astype(features.dtype), ((highest - lowest) / 2).astype(features.dtype)
    clipped: npt.NDArray[Any] = 2.0 * ((features - middle) / half).clip(-1.0, 1.0)
    return clipped


def limits(features: npt.NDArray[Any], share: float = 0.001) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lowest and highest value of each feature (n, k) but for a small share; never the same."""
    low, high = np.quantile(features, (share, 1 - share), axis=0).astype(np.float64)
    high = np.maximum(high, low + 1e-3)
    return tuple(np.round(low, 4).tolist()), tuple(np.round(high, 4).tolist())
