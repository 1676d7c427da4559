"""Tables of molecules as other programs write them, in and out.

Every format declares where its origin is, how it counts frames, which axis is x and what its units are
(:class:`smlm_pb.formats.base.Convention`); the conversion happens in one place
(:mod:`smlm_pb.formats.conversion`).
"""

from __future__ import annotations

import os
from pathlib import Path

from smlm_pb.formats.base import Convention, ReadOptions, TableFormat
from smlm_pb.formats.blocks import iterate_table, row_count
from smlm_pb.formats.conversion import describe_writing, to_foreign, to_localizations
from smlm_pb.formats.native import NativeWriter
from smlm_pb.formats.output import check_target, written_whole
from smlm_pb.formats.registry import FORMATS, format_for_writing, format_named, sniff_format
from smlm_pb.localizations import Localizations

__all__ = [
    "FORMATS",
    "Convention",
    "NativeWriter",
    "TableFormat",
    "describe_writing",
    "iterate_table",
    "read_table",
    "row_count",
    "sniff",
    "write_table",
]


def sniff(path: str | os.PathLike[str]) -> str:
    """Recognise the format of a table by its content.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    str
        Key of :data:`FORMATS`.

    Raises
    ------
    TableError
        When the file cannot be read, or no format recognises it.
    """
    return sniff_format(Path(path)).name


def read_table(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    pixel_size_nm: float | None = None,
    height: int | None = None,
    width: int | None = None,
    n_frames: int | None = None,
    origin_px: float | None = None,
    first_frame: int | None = None,
) -> Localizations:
    """Read a table of any known format into our columns, units and conventions.

    Parameters
    ----------
    path : str or path
        The file.
    format : str, optional
        Key of :data:`FORMATS`; recognised from the content where not given.
    pixel_size_nm : float, optional
        Edge of a camera pixel; overrides what the file says, and is needed for tables in nm that say nothing.
    height, width, n_frames : int, optional
        Size of the movie, for formats that do not tell; taken from the outermost molecules otherwise.
    origin_px : float, optional
        Coordinate, in pixels, that the file gives to the centre of the first pixel, where it differs from the
        format's convention.
    first_frame : int, optional
        Number of the first frame, where it differs from the format's convention.

    Returns
    -------
    Localizations
        Columns without a counterpart are kept under their own name. The last step of its provenance says what
        was converted and assumed.

    Raises
    ------
    TableError
        When the file is missing, damaged (naming the line or dataset) or lacks what is needed.
    ConfigurationError
        When the format is unknown.
    """
    source = Path(path)
    options = ReadOptions(pixel_size_nm, height, width, n_frames, origin_px, first_frame)
    form = sniff_format(source) if format is None else format_named(format)
    return to_localizations(form.read(source, options), form, options, source)


def write_table(
    locs: Localizations,
    path: str | os.PathLike[str],
    format: str | None = None,
    overwrite: bool = False,
    *,
    pixel_size_nm: float | None = None,
) -> list[Path]:
    """Write a table in any writable format; nothing is left behind when it fails.

    Parameters
    ----------
    locs : Localizations
        The table.
    path : str or path
        Target file.
    format : str, optional
        Key of :data:`FORMATS`; chosen by the ending where not given.
    overwrite : bool
        Whether existing files may be replaced.
    pixel_size_nm : float, optional
        Edge of a camera pixel, for formats in nm when the table does not know it.

    Returns
    -------
    list of Path
        The files written, the table first.

    Raises
    ------
    OutputError
        When the target exists or cannot be written.
    TableError
        When the pixel size is needed and unknown.
    ConfigurationError
        When the format is unknown or cannot be written.
    """
    target = Path(path)
    form = format_for_writing(target, format)
    if form.save is not None:
        return form.save(locs, target, overwrite)
    assert form.write is not None
    table = to_foreign(locs, form, pixel_size_nm)
    written = [target]
    sidecar = form.sidecar(table, target) if form.sidecar is not None else None
    if sidecar is not None:
        check_target(sidecar[0], overwrite)
    with written_whole(target, overwrite) as temporary:
        form.write(table, temporary)
    if sidecar is not None:
        with written_whole(sidecar[0], overwrite) as temporary:
            temporary.write_text(sidecar[1], encoding="utf-8")
        written.append(sidecar[0])
    return written
