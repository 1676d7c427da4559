"""DECODE: HDF5 and CSV. Its x is the row of the camera, its y the column (Speiser et al., Nat. Methods 18, 2021)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from smlm_pb.errors import TableError
from smlm_pb.formats.base import (
    Array,
    Convention,
    ForeignTable,
    Head,
    RawTable,
    ReadOptions,
    TableFormat,
    hdf5_column,
    open_hdf5,
)
from smlm_pb.formats.hdf5_output import hdf5_output
from smlm_pb.formats.text import read_delimited, write_delimited

_CONVENTION = Convention(origin_px=0.0, first_frame=0, length_unit="px", x_axis="row")
_TITLE = "# DECODE EmitterSet"
_AXES = ("x", "y", "z")
#: Columns in the unit that the metadata name; z is always in nm.
_LATERAL = ("x", "y", "x_sig", "y_sig")


def _sniff(head: Head) -> bool:
    if head.hdf5_keys.get("data") != "group":
        return False
    with open_hdf5(head.path) as file:
        return "xyz" in file["data"]


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read a DECODE HDF5 file.

    Raises
    ------
    TableError
        When it is damaged or lacks ``data/xyz``.
    """
    with open_hdf5(path) as file:
        data = file.get("data")
        if data is None or "xyz" not in data:
            raise TableError(f"{path} has no dataset data/xyz; it holds {', '.join(file) or 'nothing'}.")
        columns: dict[str, Array] = {}
        for name, item in data.items():
            if item.shape is None:  # how DECODE writes a column that is nowhere known
                continue
            values = hdf5_column(item, path)
            if name.startswith("xyz"):
                if values.ndim != 2 or values.shape[1] != 3:
                    raise TableError(f"{path}: dataset data/{name} has shape {values.shape}, not (N, 3).")
                columns |= {axis + name[3:]: values[:, number] for number, axis in enumerate(_AXES)}
            elif values.ndim == 1:
                columns[name] = values
        meta = dict(file["meta"].attrs) if "meta" in file else {}
        version = dict(file["decode"].attrs).get("version") if "decode" in file else None
    n_rows = len(columns["x"])
    for name, values in columns.items():
        if len(values) != n_rows:
            raise TableError(f"{path}: dataset data/{name} has {len(values)} rows, data/xyz has {n_rows}.")
    return _raw(columns, meta, version, path)


def _raw(columns: dict[str, Array], meta: dict[str, Any], version: Any, path: Path) -> RawTable:
    raw = RawTable(columns)
    unit = meta.get("xy_unit")
    if unit is None:
        raw.notes.append("the file does not say its unit; positions are taken to be in px")
        unit = "px"
    raw.units = {name: str(unit) for name in _LATERAL}
    sizes = meta.get("px_size")
    if sizes is not None:
        row_nm, column_nm = (round(float(size), 4) for size in np.ravel(np.asarray(sizes, float))[[0, -1]])
        raw.pixel_size_nm = (column_nm, row_nm)
    if version is not None:
        raw.provenance.append({"step": "decode", "version": str(version)})
    return raw


def _sniff_csv(head: Head) -> bool:
    return head.first_line.startswith(_TITLE)


def read_csv(path: Path, options: ReadOptions) -> RawTable:
    """Read a DECODE CSV: three lines of comment, the second and third with metadata.

    Raises
    ------
    TableError
        Naming the line that is damaged.
    """
    head = Head(path)
    comments = [line for line in head.lines[:3] if line.startswith("#")]
    documents: list[dict[str, Any]] = []
    for number, line in enumerate(comments[1:], start=2):
        try:
            documents.append(dict(json.loads(line.lstrip("# "))))
        except ValueError:
            raise TableError(f"{path}, line {number}: the metadata are no JSON; the file is damaged.") from None
    table = read_delimited(path, skip_lines=len(comments), separator=",")
    known = {
        name: values
        for name, values in table.columns.items()
        if not len(values) or values.dtype.kind != "f" or np.isfinite(values).any() or name in _AXES
    }
    version = documents[0].get("version") if documents else None
    return _raw(known, documents[1] if len(documents) > 1 else {}, version, path)


# -- writing ---------------------------------------------------------------------------------------------


def _emitters(table: ForeignTable) -> dict[str, Array]:
    """DECODE's columns in its order; what is not known is not a number, a missing probability is 1."""
    n_rows = len(table.columns["x"])
    unknown = np.full(n_rows, np.nan, np.float32)
    columns = {name: table.columns.get(name, unknown).astype(np.float32) for name in ("x", "y", "z")}
    if "z" not in table.columns:
        columns["z"] = np.zeros(n_rows, np.float32)
    columns["phot"] = table.columns.get("phot", unknown).astype(np.float32)
    columns["frame_ix"] = table.columns["frame_ix"].astype(np.int64)
    columns["id"] = np.full(n_rows, -1, np.int64)
    columns["prob"] = table.columns.get("prob", np.ones(n_rows)).astype(np.float32)
    columns["bg"] = table.columns.get("bg", unknown).astype(np.float32)
    for name in ("phot_cr", "bg_cr", "phot_sig", "bg_sig", "x_cr", "y_cr", "z_cr", "x_sig", "y_sig", "z_sig"):
        columns[name] = table.columns.get(name, unknown).astype(np.float32)
    return columns


def write(table: ForeignTable, path: Path) -> None:
    """Write a DECODE HDF5 file."""
    import h5py

    columns = _emitters(table)
    with hdf5_output(path) as file:
        meta = file.create_group("meta")
        meta.attrs["xy_unit"] = "px"
        if table.pixel_size_nm is not None:
            meta.attrs["px_size"] = np.full(2, table.pixel_size_nm, np.float32)
        file.create_group("decode").attrs["version"] = "0.10.0"
        data = file.create_group("data")
        for suffix in ("", "_cr", "_sig"):
            columns[f"xyz{suffix}"] = np.column_stack([columns.pop(axis + suffix) for axis in _AXES])
        for name, values in columns.items():
            optional = name.endswith(("_cr", "_sig"))
            empty = optional and not np.isfinite(values).any()
            data.create_dataset(name, data=h5py.Empty("f") if empty else values)


def write_csv(table: ForeignTable, path: Path) -> None:
    """Write a DECODE CSV."""
    pixel = table.pixel_size_nm
    meta = {"xy_unit": "px", "px_size": None if pixel is None else [pixel, pixel]}
    preface = f"{_TITLE}\n# {json.dumps({'version': '0.10.0'})}\n# {json.dumps(meta)}\n"
    write_delimited(path, _emitters(table), preface=preface, missing="")


DECODE = TableFormat(
    name="decode",
    title="DECODE",
    extensions=(".h5",),
    convention=_CONVENTION,
    sniff=_sniff,
    read=read,
    write=write,
    keeps_extra=False,
    note="px or nm, as the file says; x is the row",
)

DECODE_CSV = TableFormat(
    name="decode-csv",
    title="DECODE CSV",
    extensions=(".csv",),
    convention=_CONVENTION,
    sniff=_sniff_csv,
    read=read_csv,
    write=write_csv,
    names="decode",
    keeps_extra=False,
    note="px or nm, as the file says; x is the row",
)
