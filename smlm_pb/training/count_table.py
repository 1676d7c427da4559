"""Counts of molecules per frame or per window of a frame, as a person or a program wrote them down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import TableError
from smlm_pb.formats.text import read_delimited

IntArray = npt.NDArray[np.int64]

#: Columns of a window: first row and column, and those after the last.
WINDOW_COLUMNS = ("y0", "x0", "y1", "x1")


@dataclass(frozen=True)
class CountTable:
    """Counted windows.

    Parameters
    ----------
    frame : array (n,), int
        Frame of each window, from 0.
    window : array (n, 4), int
        First row, first column, row after the last, column after the last: a molecule belongs to the window if its
        centre lies in one of these pixels.
    count : array (n,), int
        Molecules in it.
    whole_frames : bool
        Whether the table gave no windows but one count per frame.
    """

    frame: IntArray
    window: IntArray
    count: IntArray
    whole_frames: bool

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def is_constant(self) -> bool:
        """Whether the count says nothing: windows of one size, all with the same count."""
        sides = self.window[:, 2:] - self.window[:, :2]
        return bool((self.count == self.count[0]).all() and (sides == sides[0]).all())


def read_counts(path: str | Path, *, height: int, width: int, n_frames: int) -> CountTable:
    """Read a CSV with the columns ``frame,count`` or ``frame,y0,x0,y1,x1,count``.

    Parameters
    ----------
    path : path
        The file.
    height, width, n_frames : int
        The movie that was counted.

    Returns
    -------
    CountTable

    Raises
    ------
    TableError
        When a column is missing, or a value is no whole number or lies outside the movie: with the line.
    """
    columns = dict(read_delimited(Path(path), separator=",").columns)
    windows = [name for name in WINDOW_COLUMNS if name in columns]
    missing = [name for name in ("frame", "count") if name not in columns]
    if windows:
        missing += [name for name in WINDOW_COLUMNS if name not in columns]
    if missing:
        raise TableError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: counts need frame,count (one per "
            "frame) or frame,y0,x0,y1,x1,count (rows y0 to y1-1, columns x0 to x1-1)."
        )
    if not len(columns["frame"]):
        raise TableError(f"{path} holds no counts.")
    frame, count = (_whole(path, columns, name) for name in ("frame", "count"))
    _check(path, frame, (frame >= 0) & (frame < n_frames), f"frame must lie in 0 to {n_frames - 1}")
    _check(path, count, count >= 0, "count must be 0 or more")
    if not windows:
        window = np.tile(np.array([0, 0, height, width]), (len(frame), 1))
        return CountTable(frame, window, count, True)
    y0, x0, y1, x1 = (_whole(path, columns, name) for name in WINDOW_COLUMNS)
    for low, high, size, names in ((y0, y1, height, "y0, y1"), (x0, x1, width, "x0, x1")):
        fits = (low >= 0) & (low < high) & (high <= size)
        _check(path, low, fits, f"{names} must satisfy 0 ≤ {names.replace(', ', ' < ')} ≤ {size}")
    return CountTable(frame, np.stack((y0, x0, y1, x1), axis=1), count, False)


def _whole(path: str | Path, columns: Mapping[str, npt.NDArray[Any]], name: str) -> IntArray:
    values = columns[name]
    if values.dtype.kind not in "biuf":
        raise TableError(f"{path}: column {name} holds text; it must hold whole numbers.")
    numbers = values.astype(np.float64)
    _check(path, numbers, np.isfinite(numbers) & (numbers == np.rint(numbers)), f"{name} must be a whole number")
    return numbers.astype(np.int64)


def _check(path: str | Path, values: npt.NDArray[Any], fits: npt.NDArray[np.bool_], rule: str) -> None:
    if not fits.all():
        row = int(np.argmin(fits))
        raise TableError(f"{path}: row {row + 1} below the header has {values[row]:g}, but {rule}; correct it.")
