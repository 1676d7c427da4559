"""Where files go: the name that a dialog proposes, and the ending that belongs to what was chosen in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from smlm_pb.formats.base import TableFormat

#: Endings of movies, which are no part of their names; a name may well end in ".5nM".
_MOVIE_ENDING = re.compile(
    r"(\.ome)?\.(tiff?|btf|tf[28]|stk|lsm|zarr|npy|h5|hdf5|nd2|czi|dcimg|raw|fits?)$", re.IGNORECASE
)
#: What some file systems do not have in names.
_IMPOSSIBLE = re.compile(r'[\\/:*?"<>|\x00-\x1f]+')
#: File systems take 255 bytes; companions of a file have longer names than it.
_MOST_BYTES = 180


def name_of_file(layer_name: str) -> str:
    """The name of a layer as part of a file name.

    Parameters
    ----------
    layer_name : str
        Of the movie.

    Returns
    -------
    str
        Without a movie's ending and without what file systems do not take; not too long.

    Examples
    --------
    >>> name_of_file("cell.ome.tif"), name_of_file("imager 0.5nM"), name_of_file("a/b")
    ('cell', 'imager 0.5nM', 'a_b')
    """
    name = _IMPOSSIBLE.sub("_", _MOVIE_ENDING.sub("", layer_name)).strip(" .")
    return name.encode()[:_MOST_BYTES].decode(errors="ignore") or "movie"


def with_ending(path: Path, endings: Sequence[str]) -> Path:
    """The path, with the first of the endings added where it has none of them.

    Parameters
    ----------
    path : Path
        From a dialog; many of them add no ending.
    endings : sequence of str
        Those that can be written, the usual one first.
    """
    return path if path.suffix.lower() in endings else path.with_name(path.name + endings[0])


def table_target(path: Path, chosen: TableFormat | None, forms: Sequence[TableFormat]) -> tuple[Path, str]:
    """Path and format of a table: the ending must tell what is inside, or no program opens it.

    Parameters
    ----------
    path : Path
        As it was typed into the dialog.
    chosen : TableFormat or None
        The kind of file that stands in the dialog.
    forms : sequence of TableFormat
        Those that it offers. The first stands there when nobody has chosen: an ending of another one then wins.

    Returns
    -------
    path : Path
        With the ending of the format.
    format_name : str
        Key of :data:`smlm_pb.formats.FORMATS`.
    """
    from smlm_pb.formats.registry import DEFAULT_BY_EXTENSION

    form, ending = chosen or forms[0], path.suffix.lower()
    if ending in form.extensions:
        return path, form.name
    if form is forms[0] and ending in DEFAULT_BY_EXTENSION:
        return path, DEFAULT_BY_EXTENSION[ending]
    is_of_another = any(ending in other.extensions for other in forms)
    return with_ending(path.with_suffix("") if is_of_another else path, form.extensions), form.name
