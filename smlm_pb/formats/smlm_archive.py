"""The ``.smlm`` archive of ShareLoc: a zip file with a manifest and binary tables, version 0.2.

The draft states no origin; positions are taken to be measured from the corner of the image, as in the tables
of ThunderSTORM that most archives were made from (Ouyang et al., Nature Methods 19, 2022).
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from smlm_pb.errors import TableError
from smlm_pb.formats.base import Array, Convention, ForeignTable, Head, RawTable, ReadOptions, TableFormat
from smlm_pb.formats.native_metadata import from_documents, to_documents

_CONVENTION = Convention(origin_px=0.5, first_frame=1, length_unit="nm", documented=False)
_MANIFEST = "manifest.json"
_FORMAT = "smlm-table(binary)"
_OWN_KEY = "smlm-pb"
_PURE_NUMBERS = ("frame", "channel", "id", "original_index", "chi2", "chi_square", "cluster", "slice", "pos")
_DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def _sniff(head: Head) -> bool:
    if not head.start.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(head.path) as archive:
            return _MANIFEST in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return head.path.suffix.lower() == ".smlm"


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read all tables of an archive; several are put below each other, told apart by a channel.

    Raises
    ------
    TableError
        Naming the member of the archive that is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(archive, path)
            entries = [entry for entry in manifest["files"] if entry.get("type") == "table"]
            if not entries:
                raise TableError(f"{path} has no table; its manifest lists {len(manifest['files'])} other files.")
            tables = [_table(archive, manifest, entry, path) for entry in entries]
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        what = " ".join(str(error).split())
        raise TableError(f"{path} is a damaged zip archive ({what}); copy or download it again.") from error
    raw = RawTable(_joined(tables, path), _units(manifest, entries[0]))
    if len(entries) > 1:
        names = ", ".join(str(entry.get("channel", entry["name"])) for entry in entries)
        raw.notes.append(f"{len(entries)} tables are put below each other, channel 0 and up: {names}")
        raw.columns = {
            **raw.columns,
            "channel": np.repeat(np.arange(len(tables)), [len(next(iter(table.values()))) for table in tables]),
        }
    unitless = [name for name in raw.columns if name not in raw.units and name not in _PURE_NUMBERS]
    if unitless:
        raw.notes.append(
            f"no unit is given for {', '.join(unitless)}: the draft's default (nm for lengths) and photons are assumed"
        )
    documents = manifest.get(_OWN_KEY)
    if isinstance(documents, list):
        movie, raw.provenance = from_documents(documents)
        for name, value in movie.items():
            setattr(raw, name, value)
    return raw


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(archive.read(_MANIFEST))
    except KeyError:
        raise TableError(f"{path} has no {_MANIFEST}; it is no .smlm archive.") from None
    except (ValueError, zlib.error):
        raise TableError(f"{path}: {_MANIFEST} is damaged.") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), list) or "formats" not in manifest:
        raise TableError(f"{path}: {_MANIFEST} lists no files and formats.")
    return manifest


def _layout(manifest: dict[str, Any], entry: dict[str, Any], path: Path) -> dict[str, Any]:
    layout = manifest["formats"].get(entry.get("format"))
    if not isinstance(layout, dict) or layout.get("mode") != "binary":
        raise TableError(
            f"{path}: {entry.get('name')} is no binary table; unzip the archive and read the text table in it."
        )
    n_columns = int(layout["columns"])
    for key in ("headers", "dtype", "shape", "units"):
        if len(layout.get(key, [])) != n_columns:
            raise TableError(f"{path}: {_MANIFEST} has {len(layout.get(key, []))} {key} for {n_columns} columns.")
    unknown = [dtype for dtype in layout["dtype"] if dtype not in _DTYPES]
    if unknown:
        raise TableError(f"{path}: {_MANIFEST} has the unknown type {unknown[0]!r}.")
    return layout


def _table(archive: zipfile.ZipFile, manifest: dict[str, Any], entry: dict[str, Any], path: Path) -> dict[str, Array]:
    """One binary table: rows of numbers, one after the other."""
    layout = _layout(manifest, entry, path)
    shapes = [tuple(np.ravel(np.asarray(shape, int)).tolist()) for shape in layout["shape"]]
    dtype = np.dtype(
        [
            (f"c{number}", np.dtype(kind).newbyteorder("<"), () if shape == (1,) else shape)
            for number, (kind, shape) in enumerate(zip(layout["dtype"], shapes, strict=True))
        ]
    )
    name, n_rows = str(entry["name"]), int(entry["rows"])
    try:
        size = archive.getinfo(name).file_size
        if size != n_rows * dtype.itemsize:
            raise TableError(f"{path}: {name} has {size} bytes, {n_rows} rows need {n_rows * dtype.itemsize}.")
        rows = np.frombuffer(archive.read(name), dtype)
    except KeyError:
        raise TableError(f"{path} lacks {name}, which its manifest lists.") from None
    except (zlib.error, zipfile.BadZipFile):
        raise TableError(f"{path}: {name} is damaged.") from None
    offsets = entry.get("offset") or {}
    columns: dict[str, Array] = {}
    for number, header in enumerate(layout["headers"]):
        if shapes[number] == (1,):  # images cut out around a molecule are passed over
            values = rows[f"c{number}"]
            offset = float(offsets.get(header, 0))
            columns[header] = values + offset if offset else values
    return columns


def _units(manifest: dict[str, Any], entry: dict[str, Any]) -> dict[str, str]:
    """Units that are given; an empty one means the draft's default."""
    layout = manifest["formats"][entry["format"]]
    return {header: unit for header, unit in zip(layout["headers"], layout["units"], strict=True) if unit}


def _joined(tables: list[dict[str, Array]], path: Path) -> dict[str, Array]:
    for table in tables[1:]:
        if set(table) != set(tables[0]):
            raise TableError(f"{path}: its tables have different columns; unzip it and read them one by one.")
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def write(table: ForeignTable, path: Path) -> None:
    """Write an archive with one binary table; our history goes into its manifest."""
    columns = {name: _allowed(values) for name, values in table.columns.items() if values.dtype.kind in "biuf"}
    rows = np.empty(len(columns["x"]), [(name, values.dtype.newbyteorder("<")) for name, values in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    info = table.locs.info
    layout = {
        "name": _FORMAT,
        "type": "table",
        "mode": "binary",
        "extension": ".bin",
        "columns": len(columns),
        "headers": list(columns),
        "dtype": [str(values.dtype) for values in columns.values()],
        "shape": [1] * len(columns),
        "units": ["frame" if name == "frame" else table.units[name] for name in columns],
    }
    entry = {
        "name": "table-0.bin",
        "type": "table",
        "format": _FORMAT,
        "channel": "default",
        "rows": len(rows),
        "offset": {},
        "min": {name: float(values.min()) for name, values in columns.items() if len(rows)},
        "max": {name: float(values.max()) for name, values in columns.items() if len(rows)},
    }
    manifest = {
        "format_version": "0.2",
        "formats": {_FORMAT: layout},
        "files": [entry],
        "name": info.name,
        "description": f"positions in nm from the corner of the image, pixels of {table.pixel_size_nm:g} nm",
        "tags": [],
        _OWN_KEY: to_documents(info, table.locs.provenance, {}),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
        archive.writestr("table-0.bin", rows.tobytes())


def _allowed(values: Array) -> Array:
    """The draft knows unsigned integers and floats only."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "i":
        small = not len(values) or (values.min() >= 0 and values.max() <= np.iinfo(np.uint32).max)
        return values.astype(np.uint32 if small else np.float64)
    if values.dtype == np.float64 or values.dtype.kind == "f":
        return values.astype(np.float32 if values.dtype.itemsize <= 8 else np.float64)
    return values.astype(np.uint32) if values.dtype.itemsize > 4 else values


SMLM = TableFormat(
    name="smlm",
    title="ShareLoc .smlm",
    extensions=(".smlm",),
    convention=_CONVENTION,
    sniff=_sniff,
    read=read,
    write=write,
    text_columns=False,
    note="a column without a unit is taken in the unit of the draft",
)
