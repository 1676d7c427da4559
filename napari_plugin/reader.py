"""Opening tables of molecules in napari: our own, Picasso's, ThunderSTORM's and whatever else we read."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Offer to read a file, after a look at its first bytes.

    Parameters
    ----------
    path : str or list of str
        What was dropped onto napari.

    Returns
    -------
    callable or None
        None for anything that is no table of molecules; it never raises.
    """
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    try:
        is_ours = bool(paths) and all(_is_table(Path(one)) for one in paths)
    except Exception:
        # A reader that raises would keep napari from asking the others.
        _log.debug("%s could not be looked at", path, exc_info=True)
        return None
    return read_layers if is_ours else None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Read one Points layer per file.

    Raises
    ------
    TableError
        When a table is damaged.
    """
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    return [_layer(Path(one)) for one in paths]


def _is_table(path: Path) -> bool:
    from smlm_pb.errors import SmlmPbError
    from smlm_pb.formats import sniff

    if not path.is_file():
        return False
    try:
        name = sniff(path)
    except SmlmPbError:
        return False
    if path.suffix.lower() in (".mat", ".parquet"):  # their first bytes do not tell what is inside
        return _can_be_read(path)
    if path.suffix.lower() not in (".csv", ".txt") or (path.suffix.lower() == ".txt" and name not in ("csv", "napari")):
        return True
    # Many a table of numbers has columns x and y; molecules also have a frame.
    with path.open("rb") as stream:
        header = stream.readline(4096).decode("utf-8", "replace").casefold()
    return name != "napari" and "frame" in header


def _can_be_read(path: Path) -> bool:
    """Whether a file is a table also when it is looked at as a whole; a pixel size may still be missing."""
    from smlm_pb.errors import TableError
    from smlm_pb.formats import read_table

    try:
        read_table(path, pixel_size_nm=100.0)
    except TableError:
        return False
    return True


def _layer(path: Path) -> LayerData:
    from napari import current_viewer

    from napari_plugin.molecule_layers import points_arguments
    from napari_plugin.movie_layers import place_beside, place_for

    table = _read(path)
    viewer = current_viewer()
    # On its movie, in the movie's scale and units, where the viewer shows it.
    layers = [] if viewer is None else list(viewer.layers)
    place = place_for(table.info, layers) or place_beside(table.info, layers)
    arguments = points_arguments(table, place=place, name=path.stem)
    return arguments.pop("data"), arguments, "points"


def _read(path: Path) -> Any:
    from smlm_pb.errors import TableError
    from smlm_pb.formats import read_table

    try:
        return read_table(path)
    except TableError as error:
        return _read_with_assumed_pixels(path, error)


def _read_with_assumed_pixels(path: Path, first_error: Exception) -> Any:
    """Many tables in nm do not say how large a camera pixel is: take the size from Preferences, and say so."""
    from napari.utils.notifications import show_info

    from napari_plugin.settings import remembered
    from smlm_pb.errors import TableError
    from smlm_pb.formats import read_table

    pixel_size_nm = float(remembered("files", "pixel_size_nm"))
    try:
        table = read_table(path, pixel_size_nm=pixel_size_nm)
    except TableError:
        raise first_error from None  # the pixel size was not what is wrong
    show_info(
        f"{path.name} does not state the camera's pixel size: {pixel_size_nm:g} nm was assumed; "
        "another can be set in Preferences ▸ smlm-pb ▸ Files, then open it again."
    )
    return table
