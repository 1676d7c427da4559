"""SMAPpy: an HDF5 group of columns, in nm from the centre of the first chip pixel, frames from 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from smlm_pb.errors import TableError
from smlm_pb.formats.base import (
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

_FORMAT = "smappy-localizations"


def _sniff(head: Head) -> bool:
    if head.hdf5_keys.get("locs") != "group":
        return False
    with open_hdf5(head.path) as file:
        return file.attrs.get("format") == _FORMAT or "x_nm" in file["locs"] or "x_pix" in file["locs"]


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read a SMAPpy file.

    Raises
    ------
    TableError
        When it is damaged or has no group of columns.
    """
    with open_hdf5(path) as file:
        group = file.get("locs")
        if group is None or not hasattr(group, "items"):
            raise TableError(f"{path} has no group /locs; it holds {', '.join(file) or 'nothing'}.")
        columns = {
            name: hdf5_column(item, path)
            for name, item in group.items()
            if isinstance(name, str) and hasattr(item, "shape") and item.dtype.kind in "biuf" and item.ndim == 1
        }
        metadata = _metadata(file, path)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        n_rows = min(lengths)
        longer = ", ".join(name for name, values in columns.items() if len(values) > n_rows)
        raise TableError(f"{path}: the datasets in /locs differ in length (longer: {longer}); the file is damaged.")
    raw = RawTable(columns)
    raw_camera = metadata.get("camera")
    camera: dict[str, Any] = raw_camera if isinstance(raw_camera, dict) else {}
    pixel: Any = metadata.get("pixelsize_nm_xy") or metadata.get("pixelsize_nm")
    if not pixel and camera.get("pixelsize_um"):
        pixel = (np.asarray(camera["pixelsize_um"], float) * 1e3).round(6).tolist()
    if pixel:
        raw.pixel_size_nm = (float(pixel[0]), float(pixel[-1])) if isinstance(pixel, list) else float(pixel)
    if camera.get("roi"):
        x, y, raw.width, raw.height = (int(value) for value in camera["roi"])
        raw.roi_px = (float(x), float(y))
        if x or y:
            raw.notes.append(f"the region of interest begins at camera pixel ({x}, {y}); it is taken off")
    if isinstance(metadata.get("n_frames"), int):
        raw.n_frames = metadata["n_frames"]
    if metadata:
        raw.provenance.append({"step": "smappy", "metadata": metadata})
    return raw


def _metadata(file: Any, path: Path) -> dict[str, Any]:
    text = file.attrs.get("metadata")
    if text is None:
        return {}
    try:
        metadata = json.loads(text)
    except ValueError:
        raise TableError(f"{path}: the attribute metadata is no JSON; the file is damaged.") from None
    return metadata if isinstance(metadata, dict) else {}


def write(table: ForeignTable, path: Path) -> None:
    """Write a SMAPpy file."""
    info = table.locs.info
    columns = {name: values for name, values in table.columns.items() if values.dtype.kind in "biuf"}
    if "x_err_nm" in columns and "y_err_nm" in columns:
        columns["xy_err_nm"] = np.sqrt((columns["x_err_nm"] ** 2 + columns["y_err_nm"] ** 2) / 2)
    pixel_nm = table.pixel_size_nm or 0.0
    metadata = {
        "units": "nm",
        "pixelsize_nm": pixel_nm,
        "n_frames": info.n_frames,
        "camera": {"pixelsize_um": pixel_nm / 1e3, "roi": [0, 0, info.width, info.height]},
        "source": info.name,
    }
    with hdf5_output(path) as file:
        file.attrs["format"] = _FORMAT
        file.attrs["format_version"] = 1
        file.attrs["n_localizations"] = len(columns["x_nm"])
        file.attrs["metadata"] = json.dumps(metadata)
        group = file.create_group("locs")
        for name, values in columns.items():
            dtype = np.int64 if name == "frame" else (np.float32 if values.dtype.kind == "f" else values.dtype)
            group.create_dataset(name.replace("/", "_"), data=values.astype(dtype))


SMAPPY = TableFormat(
    name="smappy",
    title="SMAPpy",
    extensions=(".h5",),
    convention=Convention(origin_px=0.0, first_frame=0, length_unit="nm"),
    sniff=_sniff,
    read=read,
    write=write,
    text_columns=False,
    note="the camera's region of interest is taken off",
)
