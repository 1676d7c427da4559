"""Tables that need not fit into memory: a file read some rows at a time."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smlm_pb.columns import COLUMNS
from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.formats.base import Array, RawTable, ReadOptions, TableFormat, hdf5_column, open_hdf5
from smlm_pb.formats.conversion import to_localizations
from smlm_pb.formats.native import locs_of, read_history, stored_name
from smlm_pb.formats.registry import format_named, sniff_format
from smlm_pb.localizations import Localizations

DEFAULT_ROWS = 1 << 20
_STREAMED = ("native", "picasso")


def row_count(path: str | os.PathLike[str], format: str | None = None) -> int | None:
    """Rows of a table, where that can be told without reading it (HDF5 of this package and of Picasso); else None."""
    source = Path(path)
    if _form(source, format).name not in _STREAMED:
        return None
    with open_hdf5(source) as file:
        return len(locs_of(file, source))


def iterate_table(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    rows: int = DEFAULT_ROWS,
    columns: Collection[str] | None = None,
    pixel_size_nm: float | None = None,
) -> Iterator[Localizations]:
    """Read a table some rows at a time.

    HDF5 files of this package and of Picasso are never in memory as a whole; other formats are read whole and given in
    parts.

    Parameters
    ----------
    path : str or path
        The file.
    format : str, optional
        Key of :data:`smlm_pb.formats.FORMATS`; recognised from the content where not given.
    rows : int
        Rows at a time.
    columns : collection of str, optional
        Which columns are wanted; ``frame``, ``x`` and ``y`` always are. All when not given.
    pixel_size_nm : float, optional
        Edge of a camera pixel; overrides what the file says.

    Yields
    ------
    Localizations
        In the order of the file; a table without rows is given as one.

    Raises
    ------
    TableError
        When the file is missing or damaged.
    ConfigurationError
        When the format is unknown or ``rows`` is not positive.
    """
    if rows < 1:
        raise ConfigurationError(f"rows = {rows} is impossible; give 1 or more, e.g. {DEFAULT_ROWS}.")
    source = Path(path)
    form = _form(source, format)
    options = ReadOptions(pixel_size_nm, None, None, None, None, None)
    if form.name in _STREAMED:
        yield from _stream(source, form, options, rows, columns)
        return
    whole = to_localizations(form.read(source, options), form, options, source)
    if columns is not None:
        whole = whole.without_columns(*set(whole.column_names) - {"frame", "x", "y", *columns})
    for start in range(0, max(len(whole), 1), rows):
        yield whole.select(slice(start, start + rows))


def _form(path: Path, format: str | None) -> TableFormat:
    return sniff_format(path) if format is None else format_named(format)


def _stream(
    path: Path, form: TableFormat, options: ReadOptions, rows: int, columns: Collection[str] | None
) -> Iterator[Localizations]:
    with open_hdf5(path) as file:
        table = locs_of(file, path)
        movie, provenance, notes = read_history(file, path)
        if not {"height", "width", "n_frames"} <= set(movie):
            raise TableError(
                f"{path} does not say how large its movie is, so it cannot be read in parts; convert it first "
                "(smlm-pb convert)."
            )
        names = _wanted(table.dtype.names, columns)
        exact = _exact_values(file, path)
        for start in range(0, max(len(table), 1), rows):
            stop = min(start + rows, len(table))
            try:
                block = table[start:stop]
            except (OSError, RuntimeError):
                raise TableError(f"{path}: dataset /locs is damaged after row {start}; copy it again.") from None
            found = {name: np.ascontiguousarray(block[name]) for name in names}
            for name, (where, values) in exact.items():
                if name in found:
                    inside = (where >= start) & (where < stop)
                    found[name][where[inside] - start] = values[inside]
            raw = RawTable(found, provenance=provenance, notes=list(notes), **movie)
            yield to_localizations(raw, form, options, path)


def _wanted(stored: Collection[str], columns: Collection[str] | None) -> list[str]:
    """Names in the file of the columns that are wanted."""
    if columns is None:
        return list(stored)
    asked = {"frame", "x", "y", *columns}
    wanted = asked | {stored_name(name) for name in asked}
    wanted |= {name.name for c in COLUMNS if c.name in asked for name in c.foreign_names("picasso")}
    return [name for name in stored if name in wanted]


def _exact_values(file: Any, path: Path) -> dict[str, tuple[Array, Array]]:
    """Values that Picasso would not have accepted, and the rows they belong into."""
    group = file.get("smlm_pb/exact")
    if group is None:
        return {}
    return {
        str(patch.attrs["name"]): (
            hdf5_column(patch["rows"], path).astype(np.int64),
            hdf5_column(patch["values"], path),
        )
        for patch in group.values()
    }
