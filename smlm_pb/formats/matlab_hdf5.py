"""MATLAB's v7.3 files: HDF5 with a header of its own and the classes of the values as attributes.

Numbers are datasets with their axes reversed, texts are 16-bit codes, structs are groups. MATLAB tells such a file by
its first 512 bytes, and the class of a value by the attribute ``MATLAB_class``; ``MATLAB_fields`` keeps the order of
the fields of a struct, ``MATLAB_empty`` marks a value without elements, whose dataset holds its size instead.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_HEADER_BYTES = 512
_CLASSES = {
    "f8": "double",
    "f4": "single",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
}


def write_matlab_hdf5(path: Path, variables: Mapping[str, Any]) -> None:
    """Write variables into a new MATLAB v7.3 file.

    Parameters
    ----------
    path : Path
        The file.
    variables : mapping
        Numbers, texts, arrays of up to two dimensions (a vector is a column), and mappings of these for structs.
        Names must be names of MATLAB.
    """
    import h5py

    with h5py.File(path, "w", userblock_size=_HEADER_BYTES) as file:
        for name, value in variables.items():
            _write(file, name, value)
    with path.open("r+b") as stream:
        stream.write(_header())


def _header() -> bytes:
    """116 bytes of text, 8 without a subsystem, version 2.0, and the order of the bytes."""
    now = datetime.datetime.now(tz=datetime.UTC).strftime("%a %b %d %H:%M:%S %Y")
    text = f"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: {now} HDF5 schema 1.00 ."
    header = text.encode("ascii").ljust(116) + bytes(8) + b"\x00\x02IM"
    return header.ljust(_HEADER_BYTES, b"\0")


def _write(parent: Any, name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        group = parent.create_group(name, track_order=True)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        _write_fields(group, list(value))
        for field, item in value.items():
            _write(group, field, item)
    elif isinstance(value, str):
        codes = np.frombuffer(value.encode("utf-16-le"), "<u2")
        dataset = _write_array(parent, name, codes[np.newaxis], "char")
        dataset.attrs["MATLAB_int_decode"] = np.int32(2)
    else:
        array = np.asarray(value)
        if array.dtype.kind == "b":
            dataset = _write_array(parent, name, array.astype(np.uint8), "logical")
            dataset.attrs["MATLAB_int_decode"] = np.int32(1)
        else:
            _write_array(parent, name, array, _CLASSES[array.dtype.str[1:]])


def _write_fields(group: Any, names: list[str]) -> None:
    import h5py

    letters = h5py.vlen_dtype(np.dtype("S1"))
    fields = np.empty(len(names), object)
    for k, name in enumerate(names):
        fields[k] = np.frombuffer(name.encode("ascii"), "S1")
    group.attrs.create("MATLAB_fields", fields, shape=(len(names),), dtype=letters)


def _write_array(parent: Any, name: str, array: Any, matlab_class: str) -> Any:
    if array.ndim < 2:
        array = array.reshape(-1, 1)
    if array.size:
        compressed = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if array.size > 1000 else {}
        dataset = parent.create_dataset(name, data=np.ascontiguousarray(array.T), **compressed)
    else:
        dataset = parent.create_dataset(name, data=np.array(array.shape, np.uint64))
        dataset.attrs["MATLAB_empty"] = np.uint8(1)
    dataset.attrs["MATLAB_class"] = np.bytes_(matlab_class)
    return dataset
