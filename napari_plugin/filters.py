"""Which molecules are shown: ranges of their quantities, kept as a list that goes into the saved file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import TableError
from smlm_pb.localizations import COLUMN_BY_NAME, Localizations

Range = tuple[float | None, float | None]
#: Quantities that are offered, where the table has them, in this order.
OFFERED = ("probability", "photons", "precision", "background", "chi2", "psf_sigma_x", "z", "frame")
#: The precision in pixels, as a condition of the library.
_SIGMA_PX = "sqrt((sigma_x**2 + sigma_y**2) / 2)"
#: Quantities that span decades are shown on a logarithmic axis.
LOGARITHMIC = frozenset({"photons", "precision", "background"})


@dataclass(frozen=True)
class Quantity:
    """One number per molecule.

    Parameters
    ----------
    name : str
        Column, or ``precision``.
    unit : str
        For the axis.
    meaning : str
        One sentence.
    values : array (n,)
        The numbers.
    term : str
        The quantity in a condition of :func:`smlm_pb.analysis.filter_by`.
    """

    name: str
    unit: str
    meaning: str
    values: npt.NDArray[Any]
    term: str

    @property
    def label(self) -> str:
        """Name and unit, for an axis."""
        shown = {"chi2": "χ²", "psf_sigma_x": "spot width σ", "z": "z"}.get(self.name, self.name)
        return f"{shown} [{self.unit}]" if self.unit else shown


def quantities(table: Localizations) -> dict[str, Quantity]:
    """The quantities that a table can be filtered by.

    Parameters
    ----------
    table : Localizations
        n molecules.

    Returns
    -------
    dict from str to Quantity
        In the order of :data:`OFFERED`.
    """
    found = {}
    for name in OFFERED:
        if name == "precision":
            if {"sigma_x", "sigma_y"} <= set(table.column_names):
                found[name] = _precision(table)
        elif name in table.column_names:
            column = COLUMN_BY_NAME[name]
            found[name] = Quantity(name, column.unit, column.meaning, table[name], name)
    return found


def _precision(table: Localizations) -> Quantity:
    meaning = "Localization precision: standard deviation of the position error, mean of x and y"
    if table.info.pixel_size_nm is None:
        squares = table.sigma_x.astype(np.float64) ** 2 + table.sigma_y.astype(np.float64) ** 2
        return Quantity("precision", "px", meaning, np.sqrt(squares / 2), _SIGMA_PX)
    return Quantity("precision", "nm", meaning, table.derived("sigma_nm"), "sigma_nm")


class FilterChain:
    """Ranges of quantities, all of which a molecule must satisfy; the masks of unchanged ones are kept.

    Parameters
    ----------
    table : Localizations
        n molecules.
    """

    def __init__(self, table: Localizations) -> None:
        self._n = len(table)
        self.quantities = quantities(table)
        self._ranges: dict[str, Range] = {}
        self._masks: dict[str, npt.NDArray[np.bool_]] = {}

    @property
    def ranges(self) -> dict[str, Range]:
        """The ranges in force: lower and upper limit, None where there is none."""
        return dict(self._ranges)

    def set_range(self, name: str, low: float | None, high: float | None) -> None:
        """Keep the molecules with ``low <= quantity <= high``; None is no limit.

        Raises
        ------
        TableError
            When the table does not have the quantity.
        """
        if name not in self.quantities:
            raise TableError(f"The table has no {name} to filter by; it has {', '.join(self.quantities)}.")
        if low is None and high is None:
            self._ranges.pop(name, None)
            self._masks.pop(name, None)
            return
        values = self.quantities[name].values
        mask = np.ones(self._n, bool)
        # Rounded as the condition writes them, and compared in float64 as the library does.
        low, high = (None if limit is None else float(f"{limit:.6g}") for limit in (low, high))
        if low is not None:
            mask &= values >= np.float64(low)
        if high is not None:
            mask &= values <= np.float64(high)
        self._ranges[name] = (low, high)
        self._masks[name] = mask

    def clear(self, *, keep: tuple[str, ...] = ()) -> None:
        """Drop all ranges but those named."""
        for name in [name for name in self._ranges if name not in keep]:
            self.set_range(name, None, None)

    def mask(self) -> npt.NDArray[np.bool_]:
        """Whether each molecule satisfies all ranges (n,)."""
        masks = list(self._masks.values())
        if not masks:
            return np.ones(self._n, bool)
        result = masks[0].copy()
        for mask in masks[1:]:
            result &= mask
        return result

    @property
    def condition(self) -> str:
        """The ranges as a condition of :func:`smlm_pb.analysis.filter_by`; empty where nothing is filtered."""
        parts = []
        for name, (low, high) in self._ranges.items():
            term = self.quantities[name].term
            if low is not None:
                parts.append(f"{term} >= {low:.6g}")
            if high is not None:
                parts.append(f"{term} <= {high:.6g}")
        return " and ".join(parts)
