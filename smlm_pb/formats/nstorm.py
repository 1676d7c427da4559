"""Nikon N-STORM (NIS-Elements): a tab-separated molecule list; ``Xc`` and ``Yc`` are corrected for drift."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smlm_pb.formats.base import Array, Convention, ForeignTable, Head, RawTable, ReadOptions, TableFormat
from smlm_pb.formats.text import header_names, read_delimited, write_delimited

#: Nikon's columns in their order.
_ORDER = (
    "Channel Name",
    "X",
    "Y",
    "Xc",
    "Yc",
    "Height",
    "Area",
    "Width",
    "Phi",
    "Ax",
    "BG",
    "I",
    "Frame",
    "Length",
    "Link",
    "Valid",
    "Z",
    "Zc",
    "Photons",
    "Lateral Localization Accuracy",
    "Xw",
    "Yw",
    "Xwc",
    "Ywc",
)
#: What a column repeats where a table has no raw and warped positions of its own.
_SAME_AS = {"X": "Xc", "Y": "Yc", "Xw": "Xc", "Yw": "Yc", "Xwc": "Xc", "Ywc": "Yc", "Z": "Zc"}
_ONE = ("Ax", "Length", "Valid")


def _sniff(head: Head) -> bool:
    return {"x", "y", "xc", "yc", "frame", "length", "link"} <= set(header_names(head))


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read a molecule list of NIS-Elements."""
    table = read_delimited(path, separator="\t")
    return RawTable(table.columns, table.units)


def write(table: ForeignTable, path: Path) -> None:
    """Write a molecule list with all of Nikon's columns."""
    given = dict(table.columns)
    n_rows = len(given["Xc"])
    columns: dict[str, Array] = {}
    for name in _ORDER:
        if name in given:
            columns[name] = given.pop(name)
        elif name == "Channel Name":
            columns[name] = np.full(n_rows, "0")
        elif _SAME_AS.get(name) in table.columns:
            columns[name] = table.columns[_SAME_AS[name]]
        else:
            columns[name] = np.full(n_rows, 1 if name in _ONE else 0)
    write_delimited(path, {**columns, **given}, separator="\t", missing="0")


NSTORM = TableFormat(
    name="nstorm",
    title="Nikon N-STORM",
    extensions=(".txt",),
    convention=Convention(origin_px=0.5, first_frame=1, length_unit="nm", documented=False),
    sniff=_sniff,
    read=read,
    write=write,
    note="the drift-corrected Xc, Yc, Zc are taken as positions, the raw ones are kept",
)
