"""Our own columns as CSV and Parquet: our names, our units, our origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from smlm_pb.errors import OutputError, TableError
from smlm_pb.formats.base import OWN_CONVENTION, Array, ForeignTable, Head, RawTable, ReadOptions, TableFormat
from smlm_pb.formats.native_metadata import dump_yaml, from_documents, load_json, load_yaml, to_documents
from smlm_pb.formats.text import header_names, read_delimited, write_delimited

_METADATA_KEY = b"smlm-pb"


def _documents(table: ForeignTable) -> list[dict[str, Any]]:
    return to_documents(table.locs.info, table.locs.provenance, {name: name for name in table.locs.column_names})


def sidecar_path(path: Path) -> Path:
    """Where the movie and the history of a CSV are; not the name that a native file beside it uses."""
    return path.with_name(f"{path.name}.yaml")


def _sniff_csv(head: Head) -> bool:
    names = header_names(head)
    return {"x", "y"} <= set(names) and "[" not in head.first_line and "(" not in head.first_line


def read_csv(path: Path, options: ReadOptions) -> RawTable:
    """Read a CSV with our column names, or with Picasso's."""
    table = read_delimited(path)
    sidecar = sidecar_path(path)
    documents = load_yaml(sidecar) if sidecar.exists() else []
    movie, provenance = from_documents(documents)
    notes = []
    if not documents:
        notes.append("the file states no convention; positions are taken as px from the centre of the first pixel")
    return RawTable(table.columns, table.units, provenance=provenance, notes=notes, **movie)


def write_csv(table: ForeignTable, path: Path) -> None:
    """Write our columns as CSV, in the shortest digits that give back the same value."""
    write_delimited(path, table.columns)


def csv_sidecar(table: ForeignTable, path: Path) -> tuple[Path, str]:
    """Give the movie and the history, which a CSV cannot hold."""
    return sidecar_path(path), dump_yaml(_documents(table))


def _sniff_parquet(head: Head) -> bool:
    return head.start.startswith(b"PAR1")


def _pyarrow(error: type[TableError] | type[OutputError]) -> Any:
    from importlib import import_module

    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError:
        raise error("Parquet tables need the package pyarrow: pip install pyarrow.") from None


def read_parquet(path: Path, options: ReadOptions) -> RawTable:
    """Read a Parquet table with our column names, or with Picasso's."""
    pyarrow = _pyarrow(TableError)
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f"{path} is a damaged Parquet file: {str(error).splitlines()[0]}") from None
    columns: dict[str, Array] = {}
    for name in table.column_names:
        values = table[name].to_numpy()
        columns[name] = values.astype(str) if values.dtype.kind == "O" else np.asarray(values)
    metadata = (table.schema.metadata or {}).get(_METADATA_KEY)
    movie, provenance = from_documents(load_json(metadata, str(path)) if metadata else [])
    return RawTable(columns, provenance=provenance, **movie)


def write_parquet(table: ForeignTable, path: Path) -> None:
    """Write our columns as Parquet, movie and history included."""
    pyarrow = _pyarrow(OutputError)
    arrow = pyarrow.table({name: pyarrow.array(values) for name, values in table.columns.items()})
    arrow = arrow.replace_schema_metadata({_METADATA_KEY: json.dumps(_documents(table)).encode()})
    pyarrow.parquet.write_table(arrow, path)


CSV = TableFormat(
    name="csv",
    title="CSV with our columns",
    extensions=(".csv",),
    convention=OWN_CONVENTION,
    sniff=_sniff_csv,
    read=read_csv,
    write=write_csv,
    sidecar=csv_sidecar,
    names="picasso",
    own_names=True,
    exact=True,
    note="movie and history in a YAML file beside it; Picasso's column names are understood too",
)

PARQUET = TableFormat(
    name="parquet",
    title="Parquet with our columns",
    extensions=(".parquet",),
    convention=OWN_CONVENTION,
    sniff=_sniff_parquet,
    read=read_parquet,
    write=write_parquet,
    names="picasso",
    own_names=True,
    exact=True,
    note="needs the package pyarrow",
)
