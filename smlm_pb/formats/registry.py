"""All table formats, and how one is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.formats.base import Head, TableFormat
from smlm_pb.formats.native import NATIVE, PICASSO
from smlm_pb.formats.own_text import CSV, PARQUET
from smlm_pb.formats.thunderstorm import THUNDERSTORM

#: Every format by name. Where several share an ending, the first one is written by default; where several
#: recognise a file, the first one reads it.
FORMATS: Mapping[str, TableFormat] = MappingProxyType(
    {
        form.name: form
        for form in (
            NATIVE,
            PICASSO,
            CSV,
            PARQUET,
            THUNDERSTORM,
        )
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
        f"{path} is no table of a known format ({seen}); say which one it is with format (--from): "
        f"{', '.join(FORMATS)}."
    )


def format_for_writing(path: Path, name: str | None) -> TableFormat:
    """Choose the format to write: the named one, or the first that uses the path's ending.

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
    for form in FORMATS.values():
        if form.writable and path.suffix.lower() in form.extensions and path.suffix.lower() != ".txt":
            return form
    raise ConfigurationError(
        f"The ending of {path.name} does not tell a table format; name one with format (--to): "
        f"{', '.join(form.name for form in FORMATS.values() if form.writable)}."
    )
