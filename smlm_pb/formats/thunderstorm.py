"""ThunderSTORM's CSV, which most programs read.

Positions are in nm from the corner of the image, frames count from 1 (Ovesný et al., Bioinformatics 30, 2014;
the sources add half a pixel to every fitted position). Releases differ in the name of the uncertainty.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from smlm_pb.formats.base import Array, Convention, ForeignTable, Head, RawTable, ReadOptions, TableFormat
from smlm_pb.formats.text import (
    quoted_header,
    read_delimited,
    separator_of,
    split_cells,
    split_label,
    write_delimited,
)

#: Order of the columns in ThunderSTORM's own files.
_ORDER = (
    "id",
    "frame",
    "x",
    "y",
    "z",
    "sigma",
    "sigma1",
    "sigma2",
    "intensity",
    "offset",
    "bkgstd",
    "chi2",
    "uncertainty_xy",
    "uncertainty_z",
    "detections",
)


def protocol_path(path: Path) -> Path:
    """Where ThunderSTORM keeps the measurement protocol of a table."""
    return path.with_name(f"{path.stem}-protocol.txt")


def _sniff(head: Head) -> bool:
    cells = split_cells(head.first_line, separator_of(head.first_line)) if head.lines else []
    units = {name.casefold(): unit for name, unit in map(split_label, cells)}
    return all(units.get(axis) in ("nm", "px", "um", "µm") for axis in ("x", "y")) and "[" in head.first_line


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read a ThunderSTORM table; the pixel size is taken from the protocol beside it where there is one."""
    table = read_delimited(path)
    raw = RawTable(table.columns, table.units)
    protocol = protocol_path(path)
    if protocol.is_file():
        text = protocol.read_text(encoding="utf-8", errors="replace")
        match = re.search(r'"pixelSize"\s*:\s*([0-9.eE+-]+)', text)
        raw.pixel_size_nm = float(match[1]) if match else None
        for size in ("n_frames", "height", "width"):
            match = re.search(rf'"{size}"\s*:\s*(\d+)', text)
            if match:
                setattr(raw, size, int(match[1]))
        raw.notes.append(f"pixel size taken from {protocol.name}") if raw.pixel_size_nm else None
    return raw


def write(table: ForeignTable, path: Path) -> None:
    """Write with the columns that all known readers want, then ours."""
    columns: dict[str, Array] = dict(table.columns)
    n_rows = len(columns["x"])
    first, second = columns.pop("sigma1", None), columns.pop("sigma2", None)
    if first is not None and second is not None and ("z" in columns or not np.array_equal(first, second)):
        columns |= {"sigma1": first, "sigma2": second}
    elif first is not None or second is not None:
        columns["sigma"] = first if first is not None else second  # type: ignore[assignment]
    elif (psf_sigma_px := _psf_sigma_of_movie(table.locs.provenance)) and table.pixel_size_nm:
        # Picasso refuses a table without it; the width found for the whole movie is what is known.
        columns["sigma"] = np.full(n_rows, round(psf_sigma_px * table.pixel_size_nm, 4))
    columns.setdefault("id", np.arange(1, n_rows + 1))
    if "bkgstd [photon]" in columns:
        columns["bkgstd"] = columns.pop("bkgstd [photon]")
    elif "offset" in columns:
        columns["bkgstd"] = np.sqrt(np.maximum(columns["offset"], 0))
    units = {name: "photon" if unit.startswith("e⁻") else unit for name, unit in table.units.items()}
    units |= {"sigma": "nm", "bkgstd": "photon"}
    ordered = [name for name in _ORDER if name in columns]
    ordered += [name for name in columns if name not in ordered]
    labelled = {f"{name} [{units[name]}]" if units.get(name) else name: columns[name] for name in ordered}
    write_delimited(path, labelled, header=quoted_header(list(labelled)))


def _psf_sigma_of_movie(provenance: list[dict[str, Any]]) -> float | None:
    """Width of the spots that the localization step recorded."""
    for step in reversed(provenance):
        for place in (step, step.get("conditions")):
            value = place.get("psf_sigma_px") if isinstance(place, dict) else None
            if isinstance(value, (int, float)) and value > 0:
                return float(value)
    return None


def protocol(table: ForeignTable, path: Path) -> tuple[Path, str]:
    """Give the part of ThunderSTORM's protocol that says how large a pixel is, with our history."""
    info = table.locs.info
    image = {"name": info.name, "n_frames": info.n_frames, "height": info.height, "width": info.width}
    camera = {"pixelSize": table.pixel_size_nm}
    text = f"Image info:\n{json.dumps(image)}\n\nCamera settings:\n{json.dumps(camera)}\n"
    return protocol_path(path), text


THUNDERSTORM = TableFormat(
    name="thunderstorm",
    title="ThunderSTORM",
    extensions=(".csv",),
    convention=Convention(origin_px=0.5, first_frame=1, length_unit="nm"),
    sniff=_sniff,
    read=read,
    write=write,
    sidecar=protocol,
    note="units are taken from the header; pixel size from the protocol beside it",
)
