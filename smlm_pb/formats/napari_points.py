"""Points as napari saves them: one column per axis, in the order frame, y, x, then the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smlm_pb.errors import TableError
from smlm_pb.formats.base import OWN_CONVENTION, ForeignTable, Head, RawTable, ReadOptions, TableFormat
from smlm_pb.formats.text import header_names, read_delimited, write_delimited


def _sniff(head: Head) -> bool:
    return {"axis-0", "axis-1"} <= set(header_names(head))


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read a CSV of a points layer with the axes (frame, y, x), or (y, x) for a single frame.

    Raises
    ------
    TableError
        When it has more axes.
    """
    table = read_delimited(path, separator=",")
    columns = {name: values for name, values in table.columns.items() if name != "index"}
    axes = sorted(name for name in columns if name.startswith("axis-"))
    n_axes = len(axes)
    if axes == ["axis-0", "axis-1"]:
        columns = {"axis-2": columns.pop("axis-1"), "axis-1": columns.pop("axis-0"), **columns}
    elif n_axes != 3:
        raise TableError(f"{path} has {n_axes} axes; points of a movie have three: frame, y, x.")
    return RawTable(columns, table.units)


def write(table: ForeignTable, path: Path) -> None:
    """Write a CSV that napari opens as a points layer with features."""
    axes = {name: table.columns[name] for name in ("axis-0", "axis-1", "axis-2")}
    features = {name: values for name, values in table.columns.items() if name not in axes}
    write_delimited(path, {"index": np.arange(len(axes["axis-0"])), **axes, **features}, missing="nan")


NAPARI = TableFormat(
    name="napari",
    title="napari points",
    extensions=(".csv",),
    convention=OWN_CONVENTION,
    sniff=_sniff,
    read=read,
    write=write,
    note="axes are frame, y, x; the other columns become features",
)
