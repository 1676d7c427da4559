"""Saving a Points layer as a table of molecules."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_points(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write all points of a layer into our HDF5, which Picasso opens.

    Only the ending ``.hdf5`` is offered to napari: with ``.csv`` this writer would take over every Points layer
    that a user saves. The panel exports other formats, and only the molecules that are shown.

    Parameters
    ----------
    path : str
        Where to, chosen by the user in a dialog that has asked about overwriting.
    data : array (n, ndim)
        Coordinates.
    attributes : dict
        ``features``, ``metadata`` and ``name`` are used.

    Returns
    -------
    list of str
        The files written.

    Raises
    ------
    TableError, OutputError
        When the points are no molecules, or the file cannot be written.
    """
    from napari_plugin.molecule_layers import METADATA_KEY, table_of_points

    table = table_of_points(
        data,
        attributes.get("features", {}),
        attributes.get("metadata", {}).get(METADATA_KEY, {}),
        name=str(attributes.get("name", Path(path).stem)),
    )
    return [str(written) for written in table.save(path, overwrite=True)]
