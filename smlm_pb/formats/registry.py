"""All table formats, and how one is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.formats.base import Head, TableFormat
from smlm_pb.formats.challenge import CHALLENGE, CHALLENGE_TRUTH
from smlm_pb.formats.decode import DECODE, DECODE_CSV
from smlm_pb.formats.elyra import ELYRA
from smlm_pb.formats.nanoimager import NANOIMAGER
from smlm_pb.formats.napari_points import NAPARI
from smlm_pb.formats.native import NATIVE, PICASSO
from smlm_pb.formats.nstorm import NSTORM
from smlm_pb.formats.own_text import CSV, PARQUET
from smlm_pb.formats.rapidstorm import RAPIDSTORM
from smlm_pb.formats.smap import SMAP, SMAP_CSV, SMAP_V73
from smlm_pb.formats.smappy import SMAPPY
from smlm_pb.formats.smlm_archive import SMLM
from smlm_pb.formats.thunderstorm import THUNDERSTORM

#: Every format by name; where several recognise a file, the first one reads it.
FORMATS: Mapping[str, TableFormat] = MappingProxyType(
    {
        form.name: form
        for form in (
            NATIVE,
            PICASSO,
            THUNDERSTORM,
            SMAP,
            SMAP_V73,
            SMAP_CSV,
            SMAPPY,
            DECODE,
            DECODE_CSV,
            CHALLENGE,
            CHALLENGE_TRUTH,
            RAPIDSTORM,
            ELYRA,
            NSTORM,
            NANOIMAGER,
            SMLM,
            NAPARI,
            CSV,
            PARQUET,
        )
    }
)

#: What is written when only the ending of a file says what it shall be.
DEFAULT_BY_EXTENSION: Mapping[str, str] = MappingProxyType(
    {
        ".hdf5": "native",
        ".h5": "native",
        ".csv": "csv",
        ".parquet": "parquet",
        ".mat": "smap",
        ".smlm": "smlm",
    }
)


def format_named(name: str) -> TableFormat:
    """Find a format by name.

    Raises
    ------
    ConfigurationError
        Listing the known names.
    """
    try:
        return FORMATS[name]
    except KeyError:
        raise ConfigurationError(f"Unknown table format {name!r}; choose from {', '.join(FORMATS)}.") from None


def sniff_format(path: Path) -> TableFormat:
    """Recognise the format of a file by its content.

    Raises
    ------
    TableError
        When the file cannot be read, or no format recognises it.
    """
    head = Head(path)
    for form in FORMATS.values():
        if form.sniff(head):
            return form
    if head.is_hdf5:
        seen = f"an HDF5 file with {', '.join(head.hdf5_keys) or 'nothing'} inside"
    elif head.lines:
        seen = f"its first line is {head.first_line[:60]!r}"
    else:
        seen = f"a binary file that begins with {head.start[:8]!r}"
    raise TableError(
        f"{path} is no table of a known format ({seen}); say which one it is, load(path, format=NAME): "
        f"{', '.join(FORMATS)}."
    )


def format_for_writing(path: Path, name: str | None) -> TableFormat:
    """Choose the format to write: the named one, or the one its ending stands for.

    Raises
    ------
    ConfigurationError
        When the name is unknown, the format cannot be written, or the ending says nothing.
    """
    if name is not None:
        form = format_named(name)
        if not form.writable:
            raise ConfigurationError(f"Tables cannot be written as {name}, only read.")
        return form
    default = DEFAULT_BY_EXTENSION.get(path.suffix.lower())
    if default is not None:
        return FORMATS[default]
    raise ConfigurationError(
        f"The ending of {path.name} does not tell a table format; name one, save(path, format=NAME): "
        f"{', '.join(form.name for form in FORMATS.values() if form.writable)}."
    )
