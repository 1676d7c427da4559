"""Zeiss Elyra: a tab-separated table, followed by a few lines about the image."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from smlm_pb.formats.base import Convention, ForeignTable, Head, RawTable, ReadOptions, TableFormat
from smlm_pb.formats.text import header_names, is_number, read_delimited, write_delimited


def _sniff(head: Head) -> bool:
    return {"position x", "position y", "first frame"} <= set(header_names(head))


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read an Elyra table up to where its trailing lines begin."""
    n_lines, trailer = _table_length(path)
    table = read_delimited(path, separator="\t", n_lines=n_lines)
    raw = RawTable(table.columns, table.units)
    found = {
        match[1]: float(match[2])
        for line in trailer
        if (match := re.match(r"\W*(\w+)\s*:\s*([0-9.eE+-]+)", line)) and is_number(match[2])
    }
    if "VoxelSizeX" in found:
        size_um = (found["VoxelSizeX"], found.get("VoxelSizeY", found["VoxelSizeX"]))
        raw.pixel_size_nm = (round(size_um[0] * 1e3, 6), round(size_um[1] * 1e3, 6))
        raw.notes.append("the pixel size is taken from VoxelSizeX at the end of the file")
    for size, axis in (("width", "X"), ("height", "Y")):
        # The rendered image has SizeX pixels, each ResolutionX of a camera pixel.
        if f"Size{axis}" in found and f"Resolution{axis}" in found:
            setattr(raw, size, round(found[f"Size{axis}"] * found[f"Resolution{axis}"]))
    return raw


def _table_length(path: Path) -> tuple[int, list[str]]:
    """Number of data lines after the header, and the lines that follow the table."""
    count = 0
    trailer: list[str] = []
    encoding = Head(path).encoding
    with path.open(encoding=encoding, errors="replace") as stream:
        next(stream, None)
        for line in stream:
            if not trailer and is_number(line.split("\t", 1)[0].strip()):
                count += 1
            else:
                trailer.append(line)
    return count, trailer


def write(table: ForeignTable, path: Path) -> None:
    """Write an Elyra table with its usual columns first."""
    n_rows = len(table.columns["Position X"])
    ones, zeros = np.ones(n_rows, np.int64), np.zeros(n_rows, np.int64)
    columns = {"Index": np.arange(1, n_rows + 1), "First Frame": table.columns["First Frame"]}
    columns["Number Frames"] = table.columns.get("Number Frames", ones)
    columns["Frames Missing"] = zeros
    columns |= {name: values for name, values in table.columns.items() if name not in columns}
    labelled = {
        f"{name} [{table.units[name]}]" if table.units.get(name) == "nm" else name: values
        for name, values in columns.items()
    }
    write_delimited(path, labelled, separator="\t", line_end="\r\n")
    info = table.locs.info
    pixel_um = (table.pixel_size_nm or 0.0) / 1e3
    # As in Zeiss's own files, a NUL ends the table.
    lines = ["\x00", *(f"VoxelSize{axis} : {pixel_um:.10f} um" for axis in "XY")]
    lines += [f"Resolution{axis} : 0.1000000000" for axis in "XY"]
    lines += [f"SizeX : {info.width * 10}", f"SizeY : {info.height * 10}"]
    with path.open("a", encoding="utf-8", newline="") as stream:
        stream.write("\r\n".join(lines) + "\r\n")


ELYRA = TableFormat(
    name="elyra",
    title="Zeiss Elyra",
    extensions=(".txt",),
    convention=Convention(origin_px=0.5, first_frame=1, length_unit="nm", documented=False),
    sniff=_sniff,
    read=read,
    write=write,
    note="pixel size from the lines after the table; the background variance is kept as it stands",
)
