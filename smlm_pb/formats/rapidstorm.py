"""rapidSTORM: one line of XML that names the columns, then numbers between spaces.

The header gives the range of positions as 0 to (width - 1) pixels, so that the centre of the first pixel is 0
(Wolter et al., Nature Methods 9, 2012). Widths of the spot are full widths at half maximum.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from smlm_pb.errors import TableError
from smlm_pb.formats.base import Convention, ForeignTable, Head, RawTable, ReadOptions, TableFormat
from smlm_pb.formats.text import read_delimited, write_delimited

_MAX_HEADER = 1 << 20
_SEMANTICS = {
    "Position-0-0": "position in sample space in X",
    "Position-1-0": "position in sample space in Y",
    "Position-2-0": "position in sample space in Z",
    "ImageNumber-0-0": "frame number",
    "Amplitude-0-0": "emission strength",
    "LocalBackground-0-0": "local background",
    "FitResidues-0-0": "fit residue chi square value",
}


def _sniff(head: Head) -> bool:
    return head.first_line.startswith("# <localizations")


def _fields(path: Path) -> list[dict[str, str]]:
    """Attributes of each column, from the header line."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        line = stream.readline(_MAX_HEADER).strip()
    if not line.startswith("#") or "<!" in line:
        raise TableError(f"{path}, line 1: this is no header of rapidSTORM.")
    try:
        root = ElementTree.fromstring(line.lstrip("# "))
    except ElementTree.ParseError as error:
        raise TableError(f"{path}, line 1: the header is no XML ({error}).") from None
    fields = [dict(field.attrib) for field in root.iter("field")]
    if not fields or any("identifier" not in field for field in fields):
        raise TableError(f"{path}, line 1: the header names no columns.")
    return fields


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read a rapidSTORM localization file.

    Raises
    ------
    TableError
        When the header or a line is damaged.
    """
    fields = _fields(path)
    names = [field["identifier"] for field in fields]
    table = read_delimited(path, skip_lines=1, separator=" ", names=names)
    raw = RawTable(table.columns)
    units = {field["identifier"]: field["unit"] for field in fields if field.get("unit")}
    raw.units = {
        name: f"{unit} FWHM" if name.startswith(("PSFWidth", "FWHM")) else unit for name, unit in units.items()
    }
    limits = {field["identifier"]: _limit(field.get("max", "")) for field in fields}
    for size, axis in (("width", "0"), ("height", "1")):
        far_m = limits.get(f"Position-{axis}-0")
        if far_m is not None and options.pixel_size_nm:
            setattr(raw, size, round(far_m * 1e9 / options.pixel_size_nm) + 1)
    last = limits.get("ImageNumber-0-0")
    raw.n_frames = None if last is None else int(last) + 1
    return raw


def _limit(text: str) -> float | None:
    """A limit such as ``3.2e-05 m`` or ``999 fr``, in metres or frames."""
    match = re.fullmatch(r"\s*([-+0-9.eE]+)\s*(m|fr)\s*", text)
    return float(match[1]) if match else None


def write(table: ForeignTable, path: Path) -> None:
    """Write a rapidSTORM localization file."""
    info = table.locs.info
    pixel_nm = table.pixel_size_nm or 0.0
    limits = {
        "Position-0-0": f"{max(info.width - 1, 0) * pixel_nm * 1e-9:.9g} m",
        "Position-1-0": f"{max(info.height - 1, 0) * pixel_nm * 1e-9:.9g} m",
        "ImageNumber-0-0": f"{max(info.n_frames - 1, 0)} fr",
    }
    fields = []
    columns = {name: values for name, values in table.columns.items() if values.dtype.kind in "biuf"}
    for name in columns:
        unit = table.units[name].removesuffix(" FWHM")
        unit = {"nm": "nanometer", "": "frame" if name.startswith("ImageNumber") else "dimensionless"}.get(unit, unit)
        attributes = {
            "identifier": name,
            "syntax": "floating point with . for decimals and optional scientific e-notation",
            "semantic": _SEMANTICS.get(name, name),
            "unit": unit,
        }
        if name.startswith("ImageNumber"):
            attributes["syntax"] = "integer"
        if name in limits:
            attributes |= {"min": "0 fr" if "Image" in name else "0 m", "max": limits[name]}
        fields.append("<field " + " ".join(f"{key}={quoteattr(value)}" for key, value in attributes.items()) + " />")
    header = '# <localizations insequence="true" repetitions="variable">' + "".join(fields) + "</localizations>"
    write_delimited(path, columns, separator=" ", header=header, missing="nan")


RAPIDSTORM = TableFormat(
    name="rapidstorm",
    title="rapidSTORM",
    extensions=(".txt",),
    convention=Convention(origin_px=0.0, first_frame=0, length_unit="nm"),
    sniff=_sniff,
    read=read,
    write=write,
    text_columns=False,
    note="units are taken from the header; intensities in A/D counts are kept as they stand, not taken for photons",
)
