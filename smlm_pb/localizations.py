"""The table of molecules.

A table is a set of equally long numpy columns, the movie it belongs to, and the list of steps that made it.
Positions are in camera pixels with the centre of the first pixel at 0, x along columns, y along rows, frames
counted from 0. The columns are declared in :mod:`smlm_pb.columns`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.columns import COLUMN_BY_NAME, COLUMNS, CORE_COLUMNS, Column
from smlm_pb.errors import TableError

if TYPE_CHECKING:
    import os

    import pandas as pd

__all__ = ["COLUMNS", "COLUMN_BY_NAME", "CORE_COLUMNS", "Column", "Localizations", "MovieInfo"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MovieInfo:
    """What a table must know of the movie it belongs to.

    Parameters
    ----------
    n_frames : int
        Number of frames.
    height, width : int
        Size of a frame in pixels: rows and columns.
    pixel_size_nm : float, optional
        Edge of a camera pixel in the sample, in nm; None where unknown.
    name : str
        Name for people, for example the file name.

    Raises
    ------
    TableError
        When a size is negative or the pixel size is not a positive number.
    """

    n_frames: int
    height: int
    width: int
    pixel_size_nm: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for size in ("n_frames", "height", "width"):
            value = getattr(self, size)
            if int(value) != value or value < 0:
                raise TableError(f"Movie {self.name!r}: {size} = {value} is no size; give a whole number ≥ 0.")
            object.__setattr__(self, size, int(value))
        if self.pixel_size_nm is not None:
            if not (math.isfinite(self.pixel_size_nm) and self.pixel_size_nm > 0):
                raise TableError(
                    f"Movie {self.name!r}: pixel_size_nm = {self.pixel_size_nm} is impossible; "
                    "give the edge of a camera pixel in the sample in nm, e.g. 100."
                )
            object.__setattr__(self, "pixel_size_nm", float(self.pixel_size_nm))


class Localizations:
    """A table of molecules: named columns of equal length, with the movie's size and the history.

    Parameters
    ----------
    columns : mapping from str to array (n,)
        ``frame``, ``x`` and ``y`` are required. Declared columns are converted to their declared type;
        others keep theirs. Arrays of the right type are not copied.
    info : MovieInfo
        The movie the molecules were found in.
    provenance : sequence of dict
        The steps that made this table, oldest first; plain values only (they are written as JSON).

    Raises
    ------
    TableError
        When a required column is missing, lengths differ, or a position or frame is impossible.

    Examples
    --------
    >>> info = MovieInfo(n_frames=10, height=64, width=64, pixel_size_nm=100.0)
    >>> locs = Localizations({"frame": [0, 0], "x": [3.5, 7.0], "y": [1.0, 2.0]}, info)
    >>> len(locs.select(locs.x > 5))
    1
    """

    def __init__(
        self,
        columns: Mapping[str, npt.ArrayLike],
        info: MovieInfo,
        provenance: Sequence[dict[str, Any]] = (),
    ) -> None:
        missing = [column.name for column in COLUMNS if column.required and column.name not in columns]
        if missing:
            raise TableError(
                f"The table lacks the required column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
                f"it has {', '.join(map(str, columns)) or 'none'}."
            )
        self._columns = {str(name): _as_column(str(name), values) for name, values in columns.items()}
        self._info = info
        self._provenance = [dict(step) for step in provenance]
        lengths = {name: len(values) for name, values in self._columns.items()}
        if len(set(lengths.values())) > 1:
            odd = [f"{name} ({n})" for name, n in lengths.items() if n != lengths["x"]]
            raise TableError(f"Columns differ in length: x has {lengths['x']} rows, but {', '.join(odd)}.")
        for axis in ("x", "y"):
            n_bad = int(np.count_nonzero(~np.isfinite(self._columns[axis])))
            if n_bad:
                raise TableError(f"Column {axis} has {n_bad} values that are not finite; remove those rows.")

    # -- access ------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Array:
        try:
            return self._columns[name]
        except KeyError:
            known = ", ".join(self._columns)
            raise TableError(f"The table has no column {name!r}; it has {known}.") from None

    def __getattr__(self, name: str) -> Array:
        columns = self.__dict__.get("_columns", {})
        if name in columns:
            return columns[name]
        raise AttributeError(f"Localizations has no attribute or column {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._columns]

    def __len__(self) -> int:
        return len(self._columns["x"])

    def __bool__(self) -> bool:
        return True

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __repr__(self) -> str:
        pixel = f", {self.info.pixel_size_nm:g} nm pixels" if self.info.pixel_size_nm else ""
        return (
            f"<Localizations: {len(self)} rows in {self.info.n_frames} frames of "
            f"{self.info.height}×{self.info.width}{pixel}; columns {', '.join(self._columns)}>"
        )

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self._columns)

    @property
    def columns(self) -> dict[str, Array]:
        """The columns as a new dictionary; the arrays are not copied."""
        return dict(self._columns)

    @property
    def info(self) -> MovieInfo:
        """The movie the table belongs to."""
        return self._info

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """The steps that made this table, oldest first."""
        return [dict(step) for step in self._provenance]

    # -- new tables from this one ------------------------------------------------------------------------

    def select(self, mask_or_indices: npt.ArrayLike | slice) -> Localizations:
        """Take some of the rows.

        Parameters
        ----------
        mask_or_indices : bool array (n,), int array or slice
            Which rows, in which order.

        Returns
        -------
        Localizations

        Raises
        ------
        TableError
            When a mask has another length than the table, or an index lies outside.
        """
        chosen: Any = mask_or_indices
        if not isinstance(chosen, slice):
            chosen = np.asarray(chosen)
            if chosen.dtype == bool and chosen.shape != (len(self),):
                raise TableError(f"The mask has shape {chosen.shape}, the table has {len(self)} rows.")
            if chosen.size == 0 and chosen.dtype != bool:
                chosen = chosen.astype(np.intp)
            if chosen.dtype != bool and chosen.dtype.kind not in "iu":
                raise TableError(f"Select rows by a mask or by whole numbers, not by {chosen.dtype}.")
        try:
            rows = {name: values[chosen] for name, values in self._columns.items()}
        except IndexError as error:
            raise TableError(f"Rows outside the table of {len(self)} rows: {error}.") from None
        return Localizations(rows, self.info, self._provenance)

    def with_columns(self, **arrays: npt.ArrayLike) -> Localizations:
        """Add or replace columns; a scalar fills the whole column."""
        filled = {
            name: np.full(len(self), values) if np.ndim(values) == 0 else values for name, values in arrays.items()
        }
        return Localizations({**self._columns, **filled}, self.info, self._provenance)

    def without_columns(self, *names: str) -> Localizations:
        """Leave columns out; names it does not have are ignored."""
        kept = {name: values for name, values in self._columns.items() if name not in names}
        return Localizations(kept, self.info, self._provenance)

    def with_info(self, info: MovieInfo) -> Localizations:
        """Keep the rows, say that they belong to another movie (for example with the pixel size known)."""
        return Localizations(self._columns, info, self._provenance)

    def with_provenance(self, step: dict[str, Any]) -> Localizations:
        """Add one step to the history."""
        return Localizations(self._columns, self.info, [*self._provenance, dict(step)])

    def last_step(self, name: str) -> dict[str, Any]:
        """The latest step of that name in the history, e.g. ``localize``; empty where there is none."""
        return next((step for step in reversed(self.provenance) if step.get("step") == name), {})

    def end_frame(self) -> int:
        """One after the last frame that holds a molecule; 0 where there is none."""
        return int(self["frame"].max()) + 1 if len(self) else 0

    @classmethod
    def concatenate(cls, tables: Sequence[Localizations]) -> Localizations:
        """Put tables of the same movie below each other.

        Parameters
        ----------
        tables : sequence of Localizations
            With the same columns; tables without rows are passed over.

        Returns
        -------
        Localizations
            With the information and the history of the first table.

        Raises
        ------
        TableError
            When there is no table, or columns or pixel sizes differ.
        """
        if not tables:
            raise TableError("There is no table to concatenate.")
        filled = [table for table in tables if len(table)] or list(tables[:1])
        first = filled[0]
        for number, table in enumerate(filled):
            different = set(table.column_names) ^ set(first.column_names)
            if different:
                raise TableError(
                    f"Tables with different columns cannot be joined: table {number} differs in "
                    f"{', '.join(sorted(different))}."
                )
            here, there = table.info.pixel_size_nm, first.info.pixel_size_nm
            if here and there and not math.isclose(here, there, rel_tol=1e-3):
                raise TableError(
                    f"Tables of different pixels cannot be joined: those of table {number} are {here:g} nm, those of "
                    f"the first {there:g} nm."
                )
        joined = {name: np.concatenate([table[name] for table in filled]) for name in first.column_names}
        return cls(joined, tables[0].info, tables[0].provenance)

    @classmethod
    def empty(cls, info: MovieInfo, column_names: Sequence[str] = CORE_COLUMNS) -> Localizations:
        """Make a table without rows."""
        return cls({name: np.zeros(0, _dtype_of(name)) for name in column_names}, info)

    # -- units and other shapes --------------------------------------------------------------------------

    def derived(self, name: str) -> npt.NDArray[np.float64]:
        """Compute a quantity in nm from the columns.

        Parameters
        ----------
        name : {"x_nm", "y_nm", "sigma_x_nm", "sigma_y_nm", "sigma_nm", "psf_sigma_x_nm", "psf_sigma_y_nm"}
            ``x_nm`` and ``y_nm`` keep the origin at the centre of the first pixel; ``sigma_nm`` is the root
            mean square of ``sigma_x`` and ``sigma_y``.

        Returns
        -------
        array (n,), float64

        Raises
        ------
        TableError
            When the name is unknown, a column is missing, or the pixel size is unknown.
        """
        if name == "sigma_nm":
            return np.sqrt((self.derived("sigma_x_nm") ** 2 + self.derived("sigma_y_nm") ** 2) / 2)
        base = name.removesuffix("_nm")
        declared = COLUMN_BY_NAME.get(base)
        if base == name or declared is None or declared.unit != "px":
            possible = [f"{column.name}_nm" for column in COLUMNS if column.unit == "px"]
            raise TableError(f"Unknown derived quantity {name!r}; choose from {', '.join(possible)}, sigma_nm.")
        if self.info.pixel_size_nm is None:
            raise TableError(f"{name} needs the pixel size, which this table does not know; give pixel_size_nm.")
        return self[base].astype(np.float64) * self.info.pixel_size_nm

    def to_dataframe(self) -> pd.DataFrame:
        """Give the columns as a pandas data frame; movie and history go into ``.attrs``."""
        import pandas as pd

        frame = pd.DataFrame(self._columns)
        frame.attrs = {"info": dict(vars(self.info)), "provenance": self.provenance}
        return frame

    # -- files -------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Localizations:
        """Read a table of any known format; see :func:`smlm_pb.formats.read_table`."""
        from smlm_pb.formats import read_table

        return read_table(path, format=format, **options)

    def save(
        self, path: str | os.PathLike[str], format: str | None = None, overwrite: bool = False, **options: Any
    ) -> list[Any]:
        """Write the table in any writable format; see :func:`smlm_pb.formats.write_table`."""
        from smlm_pb.formats import write_table

        return write_table(self, path, format=format, overwrite=overwrite, **options)


def _dtype_of(name: str) -> np.dtype[Any]:
    declared = COLUMN_BY_NAME.get(name)
    return np.dtype(declared.dtype if declared else np.float32)


def _as_column(name: str, values: npt.ArrayLike) -> Array:
    """Convert one column to its declared type; refuse where that would change a value."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise TableError(f"Column {name} has shape {array.shape}; a column has one dimension.")
    if array.dtype.kind == "O":
        array = array.astype(str)
    declared = COLUMN_BY_NAME.get(name)
    if declared is None:
        if array.dtype.kind not in "biufSU":
            raise TableError(f"Column {name} has type {array.dtype}; use numbers, truth values or text.")
        return array
    if array.dtype.kind not in "biuf":
        raise TableError(f"Column {name} holds {array.dtype} values; it must hold numbers.")
    dtype = np.dtype(declared.dtype)
    if dtype.kind in "iu" and array.dtype != dtype and array.size:
        limits = np.iinfo(dtype)
        whole = np.isfinite(array) & (array == np.rint(array)) & (array >= limits.min) & (array <= limits.max)
        if not whole.all():
            row = int(np.argmin(whole))
            raise TableError(f"Column {name} must hold whole numbers from {limits.min}; row {row} has {array[row]}.")
    with np.errstate(over="ignore"):  # beyond the range of the type is infinite
        return array.astype(dtype, copy=False)
