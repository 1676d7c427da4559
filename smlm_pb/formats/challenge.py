"""The SMLM Challenge: the ground truth with a header, and submissions without one.

Positions are in nm, (0, 0) is the top left corner of the top left pixel, frames count from 1, z is 0 at the
focus (Sage et al., Nature Methods 16, 2019). The images have pixels of 100 nm.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smlm_pb.formats.base import Array, Convention, ForeignTable, Head, RawTable, ReadOptions, TableFormat
from smlm_pb.formats.text import header_names, is_number, read_delimited, split_cells, write_delimited

_CONVENTION = Convention(origin_px=0.5, first_frame=1, length_unit="nm")
_SUBMISSION = ("frame", "xnano", "ynano", "znano", "intensity")


def _cells(head: Head) -> list[str]:
    return split_cells(head.first_line, ",") if head.lines else []


def _sniff_truth(head: Head) -> bool:
    return {"xnano", "ynano"} <= set(header_names(head))


def _sniff(head: Head) -> bool:
    cells = _cells(head)
    return len(cells) == len(_SUBMISSION) and all(map(is_number, cells)) and float(cells[0]).is_integer()


def read(path: Path, options: ReadOptions) -> RawTable:
    """Read a ground truth or a submission, with up to five columns."""
    cells = _cells(Head(path))
    if any(cells) and all(map(is_number, cells)):
        table = read_delimited(path, separator=",", names=_SUBMISSION[: len(cells)])
    else:
        table = read_delimited(path, separator=",")
    return RawTable(table.columns, table.units)


def _columns(table: ForeignTable) -> dict[str, Array]:
    zeros = np.zeros(len(table.columns["xnano"]))
    return {name: table.columns.get(name, zeros) for name in _SUBMISSION}


def write(table: ForeignTable, path: Path) -> None:
    """Write a submission: frame, x, y, z, photons, without a header."""
    write_delimited(path, _columns(table), header="", missing="0")


def write_truth(table: ForeignTable, path: Path) -> None:
    """Write a ground truth, with the challenge's header."""
    columns = _columns(table)
    number = np.arange(1, len(columns["frame"]) + 1)
    write_delimited(path, {"Ground-truth": number, **columns})


CHALLENGE = TableFormat(
    name="challenge",
    title="SMLM Challenge submission",
    extensions=(".csv",),
    convention=_CONVENTION,
    sniff=_sniff,
    read=read,
    write=write,
    keeps_extra=False,
    pixel_size_nm=100.0,
    note="no header; 100 nm pixels unless another size is given",
)

CHALLENGE_TRUTH = TableFormat(
    name="challenge-truth",
    title="SMLM Challenge ground truth",
    extensions=(".csv",),
    convention=_CONVENTION,
    sniff=_sniff_truth,
    read=read,
    write=write_truth,
    names="challenge",
    keeps_extra=False,
    pixel_size_nm=100.0,
    note="100 nm pixels unless another size is given",
)
