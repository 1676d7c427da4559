"""SMAP: ``_sml.mat`` (MATLAB v7 and v7.3) and its CSV export.

Pixels are counted from 1 and positions are on the whole camera chip, so that the region of interest has to be
taken off (Ries, Nature Methods 17, 2020; the sources add the 1-based pixel to the fit).
"""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from smlm_pb.errors import OutputError, TableError
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
from smlm_pb.formats.text import header_names, read_delimited, write_delimited

_CONVENTION = Convention(origin_px=1.0, first_frame=1, length_unit="nm")
# A variable of a v7 file holds less than 2 GiB.
_LARGEST_V7 = 2**31 - 2**20
#: Camera settings worth remembering.
_SETTINGS = ("conversion", "offset", "emgain", "EMon", "exposure", "comment")


def _sniff(head: Head) -> bool:
    return head.start.startswith(b"MATLAB 5.0 MAT-file")


def _sniff_v73(head: Head) -> bool:
    return head.is_hdf5 and head.hdf5_keys.get("saveloc") == "group"


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read a ``_sml.mat`` file of either MATLAB version.

    Raises
    ------
    TableError
        When it is damaged or no SMAP table.
    """
    saveloc = _saveloc_hdf5(path) if Head(path).is_hdf5 else _saveloc_v7(path)
    locs = saveloc.get("loc")
    if not isinstance(locs, dict):
        raise TableError(f"{path} has no saveloc.loc; it is no SMAP table, or only a part of one.")
    columns = {name: values for name, values in locs.items() if isinstance(values, np.ndarray) and values.size}
    lengths = {name: len(values) for name, values in columns.items()}
    n_rows = lengths.get("xnm", 0)
    columns = {name: values for name, values in columns.items() if lengths[name] == n_rows}
    for name in ("frame", "xnm", "ynm"):
        columns.setdefault(name, np.zeros(0)) if not n_rows else None
    raw = RawTable(columns)
    odd = [name for name, length in lengths.items() if length != n_rows]
    if odd:
        raw.notes.append(f"columns of another length are left out: {', '.join(odd)}")
    _read_file_info(saveloc.get("file"), raw)
    return raw


def _read_file_info(files: Any, raw: RawTable) -> None:
    """Pixel size, region of interest and camera settings of the first file."""
    first = files[0] if isinstance(files, list) and files else files
    if isinstance(files, list) and len(files) > 1:
        raw.notes.append(f"the table holds {len(files)} movies (column filenumber); sizes are those of the first")
    info = first.get("info") if isinstance(first, dict) else None
    if not isinstance(info, dict):
        return
    pixel_um = _vector(info.get("cam_pixelsize_um"))
    if len(pixel_um):
        raw.pixel_size_nm = (float(pixel_um[0]) * 1e3, float(pixel_um[-1]) * 1e3)
        # 0.104 µm is 104 nm, not 103.99999999999999.
        raw.pixel_size_nm = (round(raw.pixel_size_nm[0], 6), round(raw.pixel_size_nm[1], 6))
    roi = _vector(info.get("roi"))
    if len(roi) == 4:
        raw.roi_px = (float(roi[0]), float(roi[1]))
        raw.width, raw.height = int(roi[2]), int(roi[3])
        if any(raw.roi_px):
            raw.notes.append(f"the region of interest begins at camera pixel {raw.roi_px}; it is taken off")
    else:
        raw.width, raw.height = _whole(info.get("Width")), _whole(info.get("Height"))
    raw.n_frames = _whole(info.get("numberOfFrames"))
    name = first.get("name")
    if isinstance(name, str) and name:
        raw.name = PureWindowsPath(name).name
    settings: dict[str, str | float] = {}
    for key in _SETTINGS:
        value = info.get(key)
        if isinstance(value, str):
            settings[key] = value
        elif len(_vector(value)) == 1:
            settings[key] = float(_vector(value)[0])
    if settings:
        raw.provenance.append({"step": "smap", "camera": settings})


def _vector(value: Any) -> Array:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value.ravel()
    return np.asarray([value]) if isinstance(value, (int, float)) else np.zeros(0)


def _whole(value: Any) -> int | None:
    vector = _vector(value)
    return int(vector[0]) if len(vector) == 1 and np.isfinite(vector[0]) and vector[0] > 0 else None


# -- MATLAB v7.3: HDF5 -----------------------------------------------------------------------------------


def _saveloc_hdf5(path: Path) -> dict[str, Any]:
    with open_hdf5(path) as file:
        group = file.get("saveloc")
        if group is None or not hasattr(group, "get"):
            raise TableError(f"{path} has no saveloc; it holds {', '.join(file) or 'nothing'}.")
        found: dict[str, Any] = {}
        if "loc" in group and hasattr(group["loc"], "keys"):
            found["loc"] = {
                name: hdf5_column(item, path).ravel()
                for name, item in group["loc"].items()
                if hasattr(item, "dtype") and item.dtype.kind in "biuf" and "MATLAB_empty" not in item.attrs
            }
        files = group.get("file")
        if files is not None and hasattr(files, "keys"):
            found["file"] = _file_structs(file, files, path)
        return found


def _file_structs(file: Any, group: Any, path: Path) -> list[dict[str, Any]]:
    """The struct array ``saveloc.file``: one group, or one reference per element and field."""
    info = group.get("info")
    if info is None:
        return []
    if hasattr(info, "keys"):
        return [{"info": _struct(info, path), "name": _text(group.get("name"))}]
    names: Any = hdf5_column(group["name"], path).ravel() if "name" in group else []
    structs = []
    for number, reference in enumerate(hdf5_column(info, path).ravel()):
        name = _text(file[names[number]]) if number < len(names) and group["name"].dtype.kind == "O" else ""
        item = file[reference]
        structs.append({"info": _struct(item, path) if hasattr(item, "keys") else {}, "name": name})
    return structs


def _struct(group: Any, path: Path) -> dict[str, Any]:
    """Numbers and texts of a struct; everything else is passed over."""
    values: dict[str, Any] = {}
    for name, item in group.items():
        if not hasattr(item, "dtype") or "MATLAB_empty" in item.attrs:
            continue
        if item.attrs.get("MATLAB_class") == b"char":
            values[name] = _text(item)
        elif item.dtype.kind in "biuf" and item.size < 100:
            values[name] = hdf5_column(item, path).ravel()
    return values


def _text(item: Any) -> str:
    if item is None or not hasattr(item, "dtype") or item.dtype.kind not in "u" or "MATLAB_empty" in item.attrs:
        return ""
    return "".join(map(chr, np.asarray(item[()]).T.ravel()))


# -- MATLAB v7 -------------------------------------------------------------------------------------------


def _saveloc_v7(path: Path) -> dict[str, Any]:
    import scipy.io

    try:
        variables = scipy.io.loadmat(path, variable_names=["saveloc"], struct_as_record=False, squeeze_me=True)
    except Exception as error:  # scipy raises many kinds, from zlib's to TypeError, on damaged files
        raise TableError(f"{path} is a damaged MATLAB file ({type(error).__name__}: {error}).") from None
    if "saveloc" not in variables:
        raise TableError(f"{path} has no variable saveloc; it is no SMAP table.")
    saveloc = _plain(variables["saveloc"])
    if not isinstance(saveloc, dict):
        raise TableError(f"{path}: saveloc is no struct; it is no SMAP table.")
    loc = saveloc.get("loc")
    if isinstance(loc, dict):
        saveloc["loc"] = {name: np.atleast_1d(values) for name, values in loc.items() if _is_column(values)}
    return saveloc


def _is_column(values: Any) -> bool:
    return isinstance(values, (int, float)) or (isinstance(values, np.ndarray) and values.dtype.kind in "biuf")


def _plain(value: Any) -> Any:
    """MATLAB structs as dictionaries, struct arrays as lists."""
    if hasattr(value, "_fieldnames"):
        return {name: _plain(getattr(value, name)) for name in value._fieldnames}
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_plain(item) for item in value.ravel()]
    return value


def write(table: ForeignTable, path: Path) -> None:
    """Write a ``_sml.mat`` file: MATLAB's v7 format, or v7.3 where a column is too large for that."""
    columns = _columns(table)
    if max(values.nbytes for values in columns.values()) > _LARGEST_V7:
        write_v73(table, path)
        return
    import scipy.io

    content = {"saveloc": {"loc": columns, "file": _file_info(table, path)}, "fileformat": {"name": "sml"}}
    try:
        with path.open("wb") as stream:
            scipy.io.savemat(stream, content, do_compression=True, long_field_names=True)
    except scipy.io.matlab.MatWriteError as error:
        raise OutputError(f"MATLAB's v7 format does not hold this table ({error}); use the format smap-v73.") from None


def write_v73(table: ForeignTable, path: Path) -> None:
    """Write a ``_sml.mat`` file in MATLAB's v7.3 format, which is HDF5 and holds tables of any length."""
    from smlm_pb.formats.matlab_hdf5 import write_matlab_hdf5

    saveloc = {"loc": _columns(table), "file": _file_info(table, path)}
    write_matlab_hdf5(path, {"fileformat": {"name": "sml"}, "saveloc": saveloc})


def _columns(table: ForeignTable) -> dict[str, Array]:
    """Columns under names of MATLAB, each (n, 1)."""
    locs = _with_lateral_precision(table.columns)
    n_rows = len(locs["xnm"])
    locs.setdefault("channel", np.zeros(n_rows))
    locs.setdefault("filenumber", np.ones(n_rows))
    struct: dict[str, Array] = {}
    for name, values in locs.items():
        if values.dtype.kind in "biuf":
            struct[_field(name)] = values.astype(np.float64 if name == "frame" else np.float32)[:, np.newaxis]
    return struct


def _field(name: str) -> str:
    """A name that MATLAB accepts for a field."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return (plain if plain[:1].isalpha() else f"f_{plain}")[:63]


def _file_info(table: ForeignTable, path: Path) -> dict[str, Any]:
    """What SMAP keeps of the movie."""
    info = table.locs.info
    pixel_um = (table.pixel_size_nm or 0.0) / 1e3
    return {
        "info": {
            "Width": float(info.width),
            "Height": float(info.height),
            "roi": np.array([[0.0, 0.0, info.width, info.height]]),
            "cam_pixelsize_um": np.array([[pixel_um, pixel_um]]),
            "numberOfFrames": float(info.n_frames),
            "basefile": info.name,
        },
        "name": info.name or path.stem,
        "number": 1.0,
        "average": np.zeros((0, 0)),
        "numberOfTif": 0.0,
    }


def _with_lateral_precision(columns: dict[str, Array]) -> dict[str, Array]:
    """Add SMAP's one lateral precision, the root mean square of those along x and y."""
    result = dict(columns)
    errors = [columns[name].astype(float) for name in ("xnmerr", "ynmerr") if name in columns]
    if errors:
        result["locprecnm"] = np.sqrt(np.mean(np.square(errors), axis=0))
    return result


# -- CSV -------------------------------------------------------------------------------------------------


def _sniff_csv(head: Head) -> bool:
    return {"xnm", "ynm"} <= set(header_names(head))


def read_csv(path: Path, options: ReadOptions) -> RawTable:
    """Read a CSV with SMAP's column names."""
    table = read_delimited(path)
    return RawTable(table.columns, table.units)


def write_csv(table: ForeignTable, path: Path) -> None:
    """Write a CSV with SMAP's column names."""
    columns = _with_lateral_precision(table.columns)
    if "locprecnm" in columns:
        columns["locprecnm"] = np.round(columns["locprecnm"], 4)
    number = {"ID": columns.pop("ID", np.arange(1, len(columns["xnm"]) + 1))}
    write_delimited(path, {**number, **columns})


SMAP = TableFormat(
    name="smap",
    title="SMAP",
    extensions=(".mat",),
    convention=_CONVENTION,
    sniff=_sniff,
    read=read,
    write=write,
    text_columns=False,
    note="MATLAB v7, or v7.3 where a column exceeds 2 GB; the camera's region of interest is taken off",
)

SMAP_V73 = TableFormat(
    name="smap-v73",
    title="SMAP (MATLAB v7.3)",
    extensions=(".mat",),
    convention=_CONVENTION,
    sniff=_sniff_v73,
    read=read,
    write=write_v73,
    names="smap",
    text_columns=False,
    note="as `smap`, in MATLAB's HDF5",
)

SMAP_CSV = TableFormat(
    name="smap-csv",
    title="SMAP CSV",
    extensions=(".csv",),
    convention=_CONVENTION,
    sniff=_sniff_csv,
    read=read_csv,
    write=write_csv,
    names="smap",
    note="the export does not tell the region of interest",
)
