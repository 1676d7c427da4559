"""The native file: an HDF5 table that Picasso opens, with nothing lost.

``/locs`` is a compound dataset with Picasso's column names, ``/metadata`` the same documents as the YAML file
beside it. Values that make Picasso drop a row are replaced in ``/locs`` and kept in ``/smlm_pb/exact``; columns
that a compound dataset cannot hold for Picasso (text, or nowhere known) are in ``/smlm_pb/columns``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from smlm_pb.columns import COLUMN_BY_NAME
from smlm_pb.errors import OutputError, TableError
from smlm_pb.formats.base import (
    OWN_CONVENTION,
    Array,
    Head,
    RawTable,
    ReadOptions,
    TableFormat,
    hdf5_column,
    open_hdf5,
)
from smlm_pb.formats.hdf5_output import UnfailingStream
from smlm_pb.formats.native_metadata import (
    OWN_KEY,
    dump_yaml,
    from_documents,
    load_json,
    load_yaml,
    to_documents,
)
from smlm_pb.formats.output import check_target, clear_errors, partial_path, written_whole
from smlm_pb.localizations import CORE_COLUMNS, Localizations, MovieInfo

#: Rows that are converted at a time.
_BLOCK_ROWS = 1 << 18
_CHUNK_ROWS = 1 << 14
#: Stored columns in which Picasso allows no negative value.
_NEVER_NEGATIVE = ("x", "y", "lpx", "lpy", "lpz", "photons", "ellipticity", "sx", "sy")


def stored_name(name: str) -> str:
    """Name of one of our columns in ``/locs``."""
    column = COLUMN_BY_NAME.get(name)
    names = column.foreign_names("picasso") if column else ()
    return names[0].name if names else name


class NativeWriter:
    """Writes a native file piece by piece.

    The file has a temporary name until it is closed, so that nobody meets half of it. Used as a context manager
    it is closed at the end of the block, or removed when an error ends the block.

    Parameters
    ----------
    path : str or Path
        Target, ending in ``.hdf5``; the YAML file beside it has the same stem.
    info : MovieInfo
        The movie; may be replaced through :attr:`info` until the file is closed.
    provenance : sequence of dict
        The history; may be replaced through :attr:`provenance` until the file is closed.
    overwrite : bool
        Whether existing files may be replaced.

    Raises
    ------
    OutputError
        When the target exists, its folder does not, or it cannot be written.

    Examples
    --------
    >>> with NativeWriter("movie_locs.hdf5", info) as writer:     # doctest: +SKIP
    ...     for block in blocks:
    ...         writer.append(block)
    """

    def __init__(
        self,
        path: str | Path,
        info: MovieInfo,
        provenance: Sequence[dict[str, Any]] = (),
        *,
        overwrite: bool = False,
    ) -> None:
        import h5py

        self.path = Path(path)
        self.info = info
        self.provenance = [dict(step) for step in provenance]
        self.n_rows = 0
        self.sidecar_path = self.path.with_suffix(".yaml")
        check_target(self.path, overwrite)
        _check_sidecar(self.sidecar_path, self.path, overwrite)
        self._partial = partial_path(self.path)
        self._layout: dict[str, np.dtype[Any]] = {}
        self._apart: dict[str, np.dtype[Any]] = {}
        self._patches: dict[str, Any] = {}
        with clear_errors(self.path):
            self._stream = UnfailingStream(self._partial)
            self._file: Any = h5py.File(self._stream, "w")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def append(self, locs: Localizations) -> None:
        """Add rows.

        Parameters
        ----------
        locs : Localizations
            With the same columns in every call; tables without rows are passed over.

        Raises
        ------
        TableError
            When the columns differ from those of the first call.
        OutputError
            When the disk is full or the file is closed.
        """
        if self._file is None:
            raise OutputError(f"{self.path} is closed; nothing can be added to it.")
        if not len(locs):
            return
        with clear_errors(self.path):
            if not self.n_rows:
                self._create(locs)
            expected = {**self._layout, **self._apart}
            different = set(expected) ^ set(locs.column_names)
            if different:
                raise TableError(
                    f"Rows for {self.path.name} must have the same columns as those before; "
                    f"they differ in {', '.join(sorted(different))}."
                )
            for start in range(0, len(locs), _BLOCK_ROWS):
                self._append_block(locs.select(slice(start, start + _BLOCK_ROWS)))
            self._file.flush()
            self._stream.check()

    def close(self) -> Path:
        """Complete the file and give it its final name; a second call does nothing.

        Returns
        -------
        Path
            Where the table is.

        Raises
        ------
        OutputError
            When the disk is full.
        """
        if self._file is None:
            return self.path
        try:
            with clear_errors(self.path):
                if not self.n_rows and "locs" not in self._file:
                    self._create(Localizations.empty(self.info, CORE_COLUMNS))
                names = {name: stored_name(name) for name in (*self._layout, *self._apart)}
                documents = to_documents(self.info, self.provenance, names)
                self._file.create_dataset("metadata", data=json.dumps(documents))
                file, self._file = self._file, None
                file.close()
                self._stream.close()
                self._stream.check()
                with written_whole(self.sidecar_path, overwrite=True) as temporary:
                    temporary.write_text(dump_yaml(documents), encoding="utf-8")
                self._partial.replace(self.path)
        except BaseException:
            self.discard()
            raise
        return self.path

    def discard(self) -> None:
        """Give up: remove the unfinished file. What was complete before is not touched."""
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        finally:
            self._stream.close()
            self._partial.unlink(missing_ok=True)

    # -- parts -------------------------------------------------------------------------------------------

    def _create(self, locs: Localizations) -> None:
        """Lay the file out after the first rows: which columns can stand in ``/locs``."""
        import h5py

        for name in locs.column_names:
            values = locs[name]
            is_known = values.dtype.kind in "biu" or not len(values) or bool(np.isfinite(_numbers(values)).any())
            fits = values.dtype.kind in "biuf" and (is_known or name in ("frame", "x", "y"))
            (self._layout if fits else self._apart)[name] = values.dtype
        stored = [stored_name(name) for name in self._layout]
        for name in {name for name in stored if stored.count(name) > 1}:
            clash = [own for own in self._layout if stored_name(own) == name]
            raise TableError(f"Columns {' and '.join(clash)} would both be {name} in the file; rename one.")
        dtype = np.dtype([(stored_name(name), kind) for name, kind in self._layout.items()])
        self._file.create_dataset("locs", shape=(0,), maxshape=(None,), chunks=(_CHUNK_ROWS,), dtype=dtype)
        group = self._file.create_group("smlm_pb")
        group.create_group("exact")
        columns = group.create_group("columns")
        for number, (name, kind) in enumerate(self._apart.items()):
            dtype = kind if kind.kind in "biuf" else h5py.string_dtype("utf-8")
            dataset = columns.create_dataset(
                str(number), shape=(0,), maxshape=(None,), chunks=(_CHUNK_ROWS,), dtype=dtype
            )
            dataset.attrs["name"] = stored_name(name)

    def _append_block(self, locs: Localizations) -> None:
        table = self._file["locs"]
        rows = np.empty(len(locs), table.dtype)
        start, stop = self.n_rows, self.n_rows + len(locs)
        for name in self._layout:
            stored = stored_name(name)
            clean, changed = _acceptable(locs[name], name, stored, self.info)
            rows[stored] = clean
            if len(changed):
                self._patch(stored, changed + start, locs[name][changed])
        table.resize((stop,))
        table[start:stop] = rows
        for number, name in enumerate(self._apart):
            dataset = self._file[f"smlm_pb/columns/{number}"]
            dataset.resize((stop,))
            values = locs[name]
            dataset[start:stop] = values if values.dtype.kind in "biuf" else values.astype(str).astype(object)
        self.n_rows = stop

    def _patch(self, stored: str, rows: Array, values: Array) -> None:
        """Keep the true values of rows whose value Picasso would not accept."""
        if stored not in self._patches:
            group = self._file["smlm_pb/exact"].create_group(str(len(self._patches)))
            group.attrs["name"] = stored
            for key, dtype in (("rows", "u8"), ("values", values.dtype)):
                group.create_dataset(key, shape=(0,), maxshape=(None,), chunks=(1024,), dtype=dtype)
            self._patches[stored] = group
        group = self._patches[stored]
        for key, new in (("rows", rows), ("values", values)):
            dataset = group[key]
            dataset.resize((len(dataset) + len(new),))
            dataset[-len(new) :] = new


def _numbers(values: Array) -> Array:
    return values if values.dtype.kind in "biuf" else np.full(len(values), np.nan)


def _acceptable(values: Array, name: str, stored: str, info: MovieInfo) -> tuple[Array, Array]:
    """Values that Picasso keeps, and the rows where they are not the true ones."""
    if values.dtype.kind != "f":
        wrong = values < 0 if stored in _NEVER_NEGATIVE and values.dtype.kind == "i" else np.zeros(0, bool)
        rows = np.flatnonzero(wrong)
        return (np.where(wrong, 0, values) if len(rows) else values), rows
    wrong = ~np.isfinite(values)
    if stored in _NEVER_NEGATIVE:
        wrong |= values < 0
    limit = {"x": max(info.width, 1), "y": max(info.height, 1)}.get(stored)
    if limit is not None:
        wrong |= values >= limit
    rows = np.flatnonzero(wrong)
    if not len(rows):
        return values, rows
    clean = values.copy()
    if limit is not None:
        clean[rows] = np.clip(values[rows], 0, np.nextafter(values.dtype.type(limit), values.dtype.type(0)))
    else:
        clean[rows] = COLUMN_BY_NAME[name].fill if name in COLUMN_BY_NAME else 0
    return clean, rows


def _check_sidecar(sidecar: Path, table: Path, overwrite: bool) -> None:
    """Never write over a YAML file that is not the metadata of a table (a recipe, an experiment)."""
    if not sidecar.exists():
        return
    if not overwrite and not table.exists():
        raise OutputError(f"{sidecar} exists already; choose another name or allow overwriting (overwrite=True).")
    try:
        ours = any("Frames" in document for document in load_yaml(sidecar))
    except TableError:
        ours = False
    if not ours:
        raise OutputError(f"{sidecar} is no metadata of a table and would be replaced; choose another name.")


def save_native(locs: Localizations, path: Path, overwrite: bool) -> list[Path]:
    """Write a whole table as a native file; see :class:`NativeWriter`."""
    with NativeWriter(path, locs.info, locs.provenance, overwrite=overwrite) as writer:
        writer.append(locs)
        if not len(locs):
            writer._create(locs)
    return [writer.path, writer.sidecar_path]


# -- reading ---------------------------------------------------------------------------------------------


def read_native(path: Path, options: ReadOptions) -> RawTable:
    """Read a file written by this package or by Picasso.

    Raises
    ------
    TableError
        When it is damaged or has no table.
    """
    with open_hdf5(path) as file:
        columns = _read_table(locs_of(file, path), path)
        if "smlm_pb" in file:
            _restore(columns, file["smlm_pb"], path)
        movie, provenance, notes = read_history(file, path)
    return RawTable(columns, provenance=provenance, notes=notes, **movie)


def locs_of(file: Any, path: Path) -> Any:
    """The table in an open file.

    Raises
    ------
    TableError
        When there is none.
    """
    table = file.get("locs")
    if table is None:
        raise TableError(f"{path} has no dataset /locs; it holds {', '.join(file) or 'nothing'}.")
    if not hasattr(table, "dtype") or not table.dtype.names:
        raise TableError(f"{path}: /locs is no table of named columns; open and save it in Picasso once more.")
    return table


def read_history(file: Any, path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """What an open file, or the YAML beside it, says of the movie; the history; and what is missing."""
    documents = []
    if "metadata" in file:
        documents = load_json(hdf5_column(file["metadata"], path).item(), str(path))
    sidecar = path.with_suffix(".yaml")
    notes = []
    if not documents and sidecar.exists():
        documents = load_yaml(sidecar)
    if not documents:
        notes.append(f"neither the file nor {sidecar.name} beside it says how large the movie is")
    movie, provenance = from_documents(documents)
    if "pixel_size_nm" not in movie and sidecar.exists():
        added = from_documents(load_yaml(sidecar))[0].get("pixel_size_nm")
        movie |= {"pixel_size_nm": added} if added else {}
    return movie, provenance, notes


def _read_table(table: Any, path: Path) -> dict[str, Array]:
    """Read a compound dataset column by column, in blocks so that memory stays bounded."""
    n_rows = len(table)
    columns = {name: np.empty(n_rows, table.dtype[name]) for name in table.dtype.names}
    for start in range(0, n_rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, n_rows)
        try:
            block = table[start:stop]
        except (OSError, RuntimeError):
            raise TableError(f"{path}: dataset /locs is damaged after row {start}; copy it again.") from None
        for name, values in columns.items():
            values[start:stop] = block[name]
    return {name: values for name, values in columns.items() if values.dtype.kind in "biufSU"}


def _restore(columns: dict[str, Array], group: Any, path: Path) -> None:
    """Put back the values that Picasso would not have accepted, and the columns kept apart."""
    n_rows = len(next(iter(columns.values())))
    for patch in group.get("exact", {}).values():
        name = str(patch.attrs["name"])
        rows = hdf5_column(patch["rows"], path)
        if name in columns and (not len(rows) or rows.max() < n_rows):
            columns[name][rows] = hdf5_column(patch["values"], path)
    for dataset in group.get("columns", {}).values():
        if len(dataset) == n_rows:
            is_text = dataset.dtype.kind == "O"
            values = hdf5_column(dataset.asstr() if is_text else dataset, path)
            columns[str(dataset.attrs["name"])] = values.astype(str) if is_text else values


def _sniff_native(head: Head) -> bool:
    if head.hdf5_keys.get("locs") != "compound" or "metadata" not in head.hdf5_keys:
        return False
    with open_hdf5(head.path) as file:
        return OWN_KEY.encode() in hdf5_column(file["metadata"], head.path).item()


def _sniff_picasso(head: Head) -> bool:
    return head.hdf5_keys.get("locs") == "compound" and not _sniff_native(head)


NATIVE = TableFormat(
    name="native",
    title="smlm-pb",
    extensions=(".hdf5", ".h5"),
    convention=OWN_CONVENTION,
    sniff=_sniff_native,
    read=read_native,
    save=save_native,
    names="picasso",
    exact=True,
    note="Picasso opens it; every value comes back exactly",
)

PICASSO = TableFormat(
    name="picasso",
    title="Picasso",
    extensions=(".hdf5",),
    convention=OWN_CONVENTION,
    sniff=_sniff_picasso,
    read=read_native,
    save=save_native,
    names="picasso",
    note="HDF5 with a YAML file beside it; written as the native file",
)
