"""ONI Nanoimager: a CSV with units in round brackets, positions in nm and, in newer versions, in pixels too."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smlm_pb.formats.base import Convention, ForeignTable, Head, RawTable, ReadOptions, TableFormat
from smlm_pb.formats.text import read_delimited, write_delimited


def _sniff(head: Head) -> bool:
    line = head.first_line.casefold()
    return "x (nm)" in line and "y (nm)" in line


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read a Nanoimager table; the pixel size follows from positions given both in nm and in pixels."""
    table = read_delimited(path)
    raw = RawTable(table.columns, table.units)
    in_nm, in_pixels = table.columns.get("X"), table.columns.get("X (pix)")
    if in_nm is not None and in_pixels is not None:
        inside = in_pixels > 1
        if inside.any():
            raw.pixel_size_nm = round(float(np.median(in_nm[inside] / in_pixels[inside])), 3)
            raw.notes.append("the pixel size follows from X (nm) and X (pix)")
    return raw


def write(table: ForeignTable, path: Path) -> None:
    """Write a Nanoimager table with its usual columns first."""
    columns = dict(table.columns)
    n_rows = len(columns["X"])
    usual = {
        "Channel": columns.pop("Channel", np.zeros(n_rows, np.int64)),
        "Frame": columns.pop("Frame"),
        "X": columns.pop("X"),
        "Y": columns.pop("Y"),
        "Z": columns.pop("Z", np.zeros(n_rows)),
        "Photons": columns.pop("Photons", np.zeros(n_rows)),
        "Background": columns.pop("Background", np.zeros(n_rows)),
    }
    units = {"Z": "nm", **table.units}
    labelled = {
        f"{name} ({units[name]})" if units.get(name) in ("nm", "pix") else name: values
        for name, values in {**usual, **columns}.items()
    }
    write_delimited(path, labelled)


NANOIMAGER = TableFormat(
    name="nanoimager",
    title="ONI Nanoimager",
    extensions=(".csv",),
    convention=Convention(origin_px=0.5, first_frame=0, length_unit="nm", documented=False),
    sniff=_sniff,
    read=read,
    write=write,
    note="pixel size from the positions in pixels, where the file has them",
)
