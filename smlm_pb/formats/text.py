"""Delimited text tables: reading whatever spreadsheets and programs made of them, and writing them."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from smlm_pb.errors import TableError
from smlm_pb.formats.base import Array, Head

if TYPE_CHECKING:
    import pandas as pd

_LABEL = re.compile(r"^(?P<name>.+?)\s*(?:\[(?P<square>[^\]]*)\]|\((?P<round>[^)]*)\))$")


@dataclass
class TextTable:
    """Columns of a text table by name, with the units its header states.

    Parameters
    ----------
    columns : dict from str to array (n,)
        Numbers where a column holds numbers, text otherwise.
    units : dict from str to str
        Units in square or round brackets in the header; columns without are absent.
    """

    columns: dict[str, Array] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)


def split_label(label: str) -> tuple[str, str | None]:
    """Take ``x [nm]`` or ``X (nm)`` apart into name and unit; the unit is None where there is none."""
    match = _LABEL.match(label.strip())
    if match is None:
        return label.strip(), None
    unit = match["square"] if match["square"] is not None else match["round"]
    return match["name"], unit.strip()


def separator_of(line: str) -> str:
    """Guess the separator of a header or data line: the most frequent of tab, semicolon and comma."""
    unquoted = re.sub(r'"[^"]*"', "", line) if line.count('"') > 2 else line
    counts = {separator: unquoted.count(separator) for separator in ("\t", ";", ",")}
    best = max(counts, key=lambda separator: counts[separator])
    return best if counts[best] else ("," if "," in line else "\t")


def split_cells(line: str, separator: str) -> list[str]:
    """Split one line into cells, also where the whole line was quoted once more."""
    cells = next(csv.reader([line], delimiter=separator), [])
    if len(cells) == 1 and separator in cells[0]:
        cells = next(csv.reader(cells, delimiter=separator))
    return [cell.strip() for cell in cells]


def header_names(head: Head, line_number: int = 0) -> list[str]:
    """Column names without units in a line of a file, for recognising a format; lower case."""
    if len(head.lines) <= line_number:
        return []
    line = head.lines[line_number]
    return [split_label(cell)[0].casefold() for cell in split_cells(line, separator_of(line))]


def read_delimited(
    path: Path,
    *,
    skip_lines: int = 0,
    separator: str | None = None,
    names: Sequence[str] | None = None,
    n_lines: int | None = None,
) -> TextTable:
    """Read a delimited text table.

    Parameters
    ----------
    path : Path
        The file; UTF-8 with or without byte-order mark, UTF-16 or Latin-1.
    skip_lines : int
        Lines before the header (or before the data where ``names`` is given).
    separator : str, optional
        Guessed from the header where not given.
    names : sequence of str, optional
        Column names, for files without a header; may carry units in brackets.
    n_lines : int, optional
        Number of data lines, where something else follows the table.

    Returns
    -------
    TextTable

    Raises
    ------
    TableError
        Naming the line where a row has too few or too many cells, or a number is none.
    """
    head = Head(path)
    first_line = head.lines[skip_lines] if len(head.lines) > skip_lines else ""
    if not first_line and names is None:
        raise TableError(f"{path} ends before its table begins (line {skip_lines + 1}).")
    separator = separator or separator_of(first_line)
    labels = list(names) if names is not None else split_cells(first_line, separator)
    data_start = skip_lines + (names is None)
    layout = _Layout(path, head, separator, data_start, n_lines)
    table = TextTable()
    keys = []
    for number, label in enumerate(labels):
        name, unit = split_label(label)
        key = name if name and name not in keys else (label or f"column {number + 1}")
        if key in keys:
            raise TableError(f"{path}, line {skip_lines + 1}: the column {key} occurs twice.")
        keys.append(key)
        if unit is not None:
            table.units[key] = unit
    frame = layout.read(keys)
    for key in keys:
        table.columns[key] = layout.as_array(frame[key], key)
    return table


class _Layout:
    """Where the data of one file lie, and how to find the line of a row."""

    def __init__(self, path: Path, head: Head, separator: str, data_start: int, n_lines: int | None) -> None:
        self.path = path
        self.encoding = head.encoding
        self.separator = separator
        self.data_start = data_start
        self.n_lines = n_lines
        first = head.lines[data_start] if len(head.lines) > data_start else ""
        cells = next(csv.reader([first], delimiter=separator), [])
        self.is_quoted_twice = len(cells) == 1 and separator in cells[0]
        self.n_cells = len(split_cells(first, separator)) if first else 0
        has_decimal_comma = separator != "," and re.search(r"(^|[;\t])-?\d+,\d+", first) and "." not in first
        self.decimal = "," if has_decimal_comma else "."

    def read(self, keys: list[str]) -> pd.DataFrame:
        import pandas as pd

        n_extra = max(self.n_cells - len(keys), 0)
        extra = [f" extra {number}" for number in range(n_extra)]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                frame = pd.read_csv(
                    self._source(),
                    sep=self.separator,
                    decimal=self.decimal,
                    header=None,
                    names=keys + extra,
                    skiprows=self.data_start,
                    nrows=self.n_lines,
                    index_col=False,
                    encoding=self.encoding,
                    low_memory=False,
                )
        except pd.errors.ParserWarning:
            raise TableError(f"{self.path} has lines with more cells than the {len(keys)} column names.") from None
        except pd.errors.EmptyDataError:
            return pd.DataFrame({key: np.zeros(0) for key in keys})
        except pd.errors.ParserError as error:
            raise TableError(f"{self.path} is damaged: {self._explain(str(error))}") from None
        except UnicodeDecodeError as error:
            raise TableError(f"{self.path} is no text in {self.encoding} ({error.reason}).") from None
        for name in extra:
            filled = np.flatnonzero(frame[name].notna())
            if len(filled):
                line = self.line_of(int(filled[0]))
                raise TableError(f"{self.path}, line {line}: more cells than the {len(keys)} column names.")
        self._refuse_short_lines(frame, keys)
        return frame

    def _source(self) -> Path | IO[str]:
        if not self.is_quoted_twice:
            return self.path
        with self.path.open(encoding=self.encoding, newline="") as stream:
            lines = [stream.readline() for _ in range(self.data_start)]
            unquoted = (self.separator.join(split_cells(line, self.separator)) + "\n" for line in stream)
            return io.StringIO("".join(lines) + "".join(unquoted))

    def _explain(self, message: str) -> str:
        match = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message)
        if match:
            return f"line {match[2]} has {match[3]} cells, the table has {match[1]} columns."
        match = re.search(r"EOF inside string starting at row (\d+)", message)
        if match:
            return f"a quotation mark that opens in line {int(match[1]) + self.data_start + 1} is never closed."
        return " ".join(message.split())

    def _refuse_short_lines(self, frame: pd.DataFrame, keys: list[str]) -> None:
        """A missing last cell is either written as empty, or the line was cut off."""
        suspects = set(np.flatnonzero(frame[keys[-1]].isna()).tolist())
        if not suspects or self.is_quoted_twice:
            return
        for row, number, line in self._data_lines():
            if row in suspects:
                n_cells = len(split_cells(line, self.separator))
                if n_cells < len(keys):
                    raise TableError(
                        f"{self.path}, line {number}: the row has {n_cells} of {len(keys)} cells; "
                        "the file was cut off or damaged there."
                    )

    def _data_lines(self) -> Any:
        """Row number, line number and text of every data line, blank lines left out as pandas does."""
        row = 0
        with self.path.open(encoding=self.encoding, errors="replace") as stream:
            for number, line in enumerate(stream, start=1):
                if number > self.data_start and line.strip():
                    yield row, number, line.rstrip("\r\n")
                    row += 1

    def line_of(self, row: int) -> int:
        """Line number, from 1, of a data row."""
        return next((number for found, number, _ in self._data_lines() if found == row), 0)

    def as_array(self, series: pd.Series[Any], key: str) -> Array:
        """A column as numbers, or as text where it was never meant to be numbers."""
        import pandas as pd

        if not len(series):
            return np.zeros(0)
        if pd.api.types.is_numeric_dtype(series):
            return series.to_numpy()
        numbers = pd.to_numeric(series, errors="coerce")
        broken = numbers.isna() & series.notna()
        n_filled = int(series.notna().sum())
        if n_filled and broken.sum() * 2 <= n_filled:
            row = int(np.argmax(broken.to_numpy()))
            raise TableError(
                f"{self.path}, line {self.line_of(row)}: {str(series.iloc[row])[:40]!r} in column {key} is no number."
            )
        return series.fillna("").astype(str).to_numpy(dtype=object).astype(str)


def write_delimited(
    path: Path,
    columns: Mapping[str, Array],
    *,
    separator: str = ",",
    header: str | None = None,
    preface: str = "",
    missing: str = "NaN",
    line_end: str = "\n",
) -> None:
    """Write columns as delimited text.

    Parameters
    ----------
    path : Path
        Target, overwritten.
    columns : mapping from str to array (n,)
        By label.
    separator : str
        Between cells.
    header : str, optional
        The header line without line end; made from the labels where not given, left out where empty.
    preface : str
        Lines before the header, each with its line end.
    missing : str
        What stands for a value that is not a number.
    line_end : str
        End of each line.
    """
    import pandas as pd

    if header is None:
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=separator, lineterminator="").writerow(columns)
        header = buffer.getvalue()
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write(preface)
        if header:
            stream.write(header + line_end)
        pd.DataFrame(dict(columns)).to_csv(
            stream, sep=separator, header=False, index=False, na_rep=missing, lineterminator=line_end
        )


def quoted_header(labels: Sequence[str], separator: str = ",") -> str:
    """Give a header line with every label in quotation marks."""
    return separator.join(f'"{label}"' for label in labels)


def is_number(cell: str) -> bool:
    """Whether a cell holds a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
