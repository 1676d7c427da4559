"""From a file's names, units, origin, axis and frame base to ours, and back.

The only place where such a conversion happens; readers and writers hand over tables as they stand in a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from smlm_pb.columns import COLUMN_BY_NAME, COLUMNS, Column, ForeignName
from smlm_pb.errors import TableError
from smlm_pb.formats.base import OWN_CONVENTION, Array, ForeignTable, RawTable, ReadOptions, TableFormat
from smlm_pb.formats.units import PixelSizeNeededError, is_pure_number, unit_factor
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.pixel_size import tell_implausible

#: Decimals of lengths in nm in a text file: a ten-thousandth of a nanometre.
_NM_DECIMALS = 4
#: Frames have 32 bits.
_LAST_FRAME = int(np.iinfo(np.dtype(COLUMN_BY_NAME["frame"].dtype)).max)


# -- reading ---------------------------------------------------------------------------------------------


def to_localizations(raw: RawTable, form: TableFormat, options: ReadOptions, path: Path) -> Localizations:
    """Convert a table as it stands in a file to our names, units and conventions.

    Parameters
    ----------
    raw : RawTable
        What the reader found.
    form : TableFormat
        The format, whose convention applies unless the file or the user says otherwise.
    options : ReadOptions
        What the user said.
    path : Path
        For messages and provenance.

    Returns
    -------
    Localizations
        Rows without a finite position or frame are left out, and said so in the last provenance step.

    Raises
    ------
    TableError
        When a position column is missing, or the pixel size is needed and unknown.
    """
    notes = list(raw.notes)
    pixel_xy = _pixel_size_xy(raw, form, options, notes)
    columns, used = _known_columns(raw, form, pixel_xy, path, notes)
    origin = _first_of(options.origin_px, raw.origin_px, form.convention.origin_px)
    for axis, roi in zip(("x", "y"), raw.roi_px, strict=True):
        shift = origin + roi
        if shift:
            columns[axis] = columns[axis].astype(np.float64) - shift
    first_frame = _shift_frames(columns, raw, form, options, notes)
    rows = _possible_rows(columns, path, first_frame, notes)
    for name, values in raw.columns.items():
        if name not in used:
            unit = raw.units.get(name, "")
            label = name if is_pure_number(unit) else f"{name} [{unit}]"
            is_other = label in columns or (label in COLUMN_BY_NAME and not _fits(values, COLUMN_BY_NAME[label]))
            columns[f"{form.name} {label}" if is_other else label] = values
    if rows is not None:
        columns = {name: values[rows] for name, values in columns.items()}
    info = _movie_info(raw, options, columns, pixel_xy, path, notes)
    provenance = list(raw.provenance)
    if not (form.exact and not notes):
        convention = f"{form.convention.length_unit}, centre of the first pixel at {origin:g} px, "
        convention += f"x = {form.convention.x_axis}, frames from {first_frame}"
        step: dict[str, Any] = {
            "step": "read",
            "file": path.name,
            "format": form.name,
            "convention": convention,
            "converted_to": OWN_CONVENTION.describe(),
        }
        if info.pixel_size_nm:
            step["pixel_size_nm"] = info.pixel_size_nm
        provenance.append({**step, "notes": notes} if notes else step)
    return Localizations(columns, info, provenance)


def _first_of(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _pixel_size_xy(
    raw: RawTable, form: TableFormat, options: ReadOptions, notes: list[str]
) -> tuple[float, float] | None:
    """Pixel size along x and y: the user's word, the file's, the format's."""
    if options.pixel_size_nm is not None:
        stated = () if raw.pixel_size_nm is None else np.atleast_1d(raw.pixel_size_nm)
        if len(stated) and not np.allclose(stated, options.pixel_size_nm, rtol=1e-3):
            told = " × ".join(f"{value:g}" for value in stated)
            notes.append(f"pixels of {options.pixel_size_nm:g} nm were given, and are used, not the file's {told} nm")
        notes += tell_implausible(options.pixel_size_nm)
        return options.pixel_size_nm, options.pixel_size_nm
    found = raw.pixel_size_nm
    if found is None:
        if form.pixel_size_nm is None:
            return None
        notes.append(f"the pixel size is not in the file; {form.pixel_size_nm:g} nm is the format's standard")
        found = form.pixel_size_nm
    pair = found if isinstance(found, tuple) else (found, found)
    return float(pair[0]), float(pair[1])


def _normal(name: str) -> str:
    return name.strip().strip('"').casefold()


def _known_columns(
    raw: RawTable,
    form: TableFormat,
    pixel_xy: tuple[float, float] | None,
    path: Path,
    notes: list[str],
) -> tuple[dict[str, Array], set[str]]:
    """Find the declared columns in the file and convert their units."""
    present = {_normal(name): name for name in raw.columns}
    columns: dict[str, Array] = {}
    used: set[str] = set()
    for column in COLUMNS:
        spellings = list(column.foreign_names(form.names_key))
        if form.own_names or not spellings:
            spellings.append(ForeignName(column.name, column.unit))
        for spelling in spellings:
            name = present.get(_normal(spelling.name))
            if name is None:
                continue
            values = _convert_units(raw, name, spelling, column, pixel_xy, form, path, notes)
            if values is not None:
                columns[column.name] = values
                used.add(name)
                break
    for axis in ("x", "y"):
        if axis not in columns:
            wanted = " or ".join(str(name) for name in COLUMN_BY_NAME[axis].foreign_names(form.names_key))
            raise TableError(
                f"{path}: a {form.name} table needs the column {wanted}; "
                f"the file has {', '.join(raw.columns) or 'no columns'}."
            )
    if "frame" not in columns:
        notes.append("there is no frame column; every molecule is put into the first frame")
        base = _first_of(raw.first_frame, form.convention.first_frame)
        columns["frame"] = np.full(len(columns["x"]), base, np.int64)
    return columns, used


def _convert_units(
    raw: RawTable,
    name: str,
    spelling: ForeignName,
    column: Column,
    pixel_xy: tuple[float, float] | None,
    form: TableFormat,
    path: Path,
    notes: list[str],
) -> Array | None:
    """One column in our unit, or None where its unit measures something else."""
    values = raw.columns[name]
    if values.dtype.kind not in "biuf":
        if column.required:
            raise TableError(f"{path}: column {name} must hold numbers, but holds text such as {str(values[0])!r}.")
        notes.append(f"column {name} holds text; it is kept as it stands")
        return None
    unit = raw.units.get(name, spelling.unit)
    pixel = None if pixel_xy is None else pixel_xy[1 if column.name.endswith("y") else 0]
    try:
        factor = unit_factor(unit, column.unit, pixel)
    except PixelSizeNeededError:
        raise TableError(
            f"{path}: {name} is in {unit}, and the file does not say how large a camera pixel is; "
            "give pixel_size_nm, e.g. 100."
        ) from None
    if factor is None:
        notes.append(f"column {name} is in {unit or 'no unit'}, not {column.unit}; it is kept as it stands")
        return None
    if np.dtype(column.dtype).kind in "iu":
        if not column.required and not _fits(values, column):
            notes.append(f"column {name} does not hold whole numbers; it is kept as it stands")
            return None
        return values
    return values if factor == 1.0 else values.astype(np.float64) * factor


def _fits(values: Array, column: Column) -> bool:
    """Whether values can stand in one of our columns: numbers, and whole ones where it holds such."""
    if values.dtype.kind not in "biuf" or np.dtype(column.dtype).kind not in "iu":
        return values.dtype.kind in "biuf"
    return bool(np.all(np.isfinite(values) & (values == np.rint(values))))


def _shift_frames(
    columns: dict[str, Array], raw: RawTable, form: TableFormat, options: ReadOptions, notes: list[str]
) -> int:
    """Count frames from 0, also where a file starts earlier than its format allows."""
    frame = columns["frame"]
    first = int(_first_of(options.first_frame, raw.first_frame, form.convention.first_frame))
    finite = frame[np.isfinite(frame)]
    lowest = int(finite.min()) if len(finite) else first
    if options.first_frame is None and lowest == 0 and first == 1:
        notes.append(
            "there is a frame 0 although the format counts from 1: frames are taken as counted from 0; "
            "its writer may also measure from the pixel centre (then give origin_px 0)"
        )
        first = 0
    if first:
        columns["frame"] = frame.astype(np.float64 if frame.dtype.kind == "f" else np.int64) - first
    return first


def _possible_rows(columns: dict[str, Array], path: Path, first_frame: int, notes: list[str]) -> Array | None:
    """Rows with a position and a frame; None where that is all of them."""
    good = np.isfinite(columns["x"]) & np.isfinite(columns["y"])
    frame = columns["frame"]
    good &= np.isfinite(frame) & (frame >= 0) & (frame <= _LAST_FRAME) & (frame == np.rint(frame))
    n_bad = int(len(good) - np.count_nonzero(good))
    if not n_bad:
        return None
    if n_bad == len(good):
        raise TableError(
            f"{path}: none of the {n_bad} rows has a finite position and a frame, a whole number from {first_frame}; "
            "check the file, and first_frame where it was given."
        )
    row = int(np.argmin(good))
    notes.append(f"{n_bad} rows without a finite position and a valid frame are left out, the first is row {row + 1}")
    return np.flatnonzero(good)


def _movie_info(
    raw: RawTable,
    options: ReadOptions,
    columns: dict[str, Array],
    pixel_xy: tuple[float, float] | None,
    path: Path,
    notes: list[str],
) -> MovieInfo:
    """Size of the movie: the user's word, the file's, or just large enough for the molecules."""
    sizes: dict[str, int] = {}
    guessed = []
    for size, name, margin in (("n_frames", "frame", 1.0), ("height", "y", 1.5), ("width", "x", 1.5)):
        known = _first_of(getattr(options, size), getattr(raw, size))
        needed = int(np.floor(float(columns[name].max()) + margin)) if len(columns[name]) else 0
        if known is None:
            guessed.append(size)
            known = max(needed, 1)
        elif name == "frame" and needed > known:
            notes.append(f"the file speaks of {known} frames, but has molecules up to frame {needed - 1}")
            known = needed
        sizes[size] = int(known)
    if guessed:
        notes.append(f"{', '.join(guessed)} not in the file: taken from the outermost molecules")
    pixel_size_nm = None
    if pixel_xy is not None:
        pixel_size_nm = float(np.sqrt(pixel_xy[0] * pixel_xy[1]))
        if pixel_xy[0] != pixel_xy[1]:
            notes.append(
                f"camera pixels are {pixel_xy[0]:g} × {pixel_xy[1]:g} nm (x × y); "
                f"lengths in nm are computed with their geometric mean, {pixel_size_nm:.6g} nm"
            )
        else:
            pixel_size_nm = pixel_xy[0]
    return MovieInfo(**sizes, pixel_size_nm=pixel_size_nm, name=path.stem if raw.name is None else raw.name)


# -- writing ---------------------------------------------------------------------------------------------


def to_foreign(locs: Localizations, form: TableFormat, pixel_size_nm: float | None = None) -> ForeignTable:
    """Convert a table to a format's names, units and conventions.

    Parameters
    ----------
    locs : Localizations
        The table.
    form : TableFormat
        The format.
    pixel_size_nm : float, optional
        Needed for formats in nm when the table does not know it.

    Returns
    -------
    ForeignTable
        Columns that share a foreign name (the two uncertainties where a format has one) are combined to their
        root mean square. Columns the format has no name for are added under our name where it allows that.

    Raises
    ------
    TableError
        When the pixel size is needed and unknown.
    """
    pixel = _first_of(pixel_size_nm, locs.info.pixel_size_nm, form.pixel_size_nm)
    columns: dict[str, Array] = {}
    units: dict[str, str] = {}
    shared: dict[str, int] = {}
    for column in COLUMNS:
        if column.name not in locs:
            continue
        target = _foreign_name(column, form)
        if target is None:
            continue
        values = _foreign_values(locs[column.name], column, target, form, pixel)
        if target.name in columns:
            squares = columns[target.name].astype(np.float64) ** 2 * shared[target.name] + values.astype(float) ** 2
            shared[target.name] += 1
            values = np.sqrt(squares / shared[target.name])
        else:
            shared[target.name] = 1
        columns[target.name], units[target.name] = values, target.unit
    if form.keeps_extra:
        for name in _extra_columns(locs):
            if name not in columns and (form.text_columns or locs[name].dtype.kind in "biuf"):
                columns[name], units[name] = locs[name], ""
    rounded = {
        name: np.round(values.astype(np.float64), _NM_DECIMALS) if units[name].startswith("nm") else values
        for name, values in columns.items()
    }
    return ForeignTable(rounded, units, locs, pixel)


def _extra_columns(locs: Localizations) -> list[str]:
    return [name for name in locs.column_names if name not in COLUMN_BY_NAME]


def _foreign_name(column: Column, form: TableFormat) -> ForeignName | None:
    names = column.foreign_names(form.names_key)
    if names and not (form.own_names and not column.required):
        return names[0]
    if form.keeps_extra or form.own_names:
        return ForeignName(column.name, column.unit)
    return None


def _foreign_values(
    values: Array, column: Column, target: ForeignName, form: TableFormat, pixel_size_nm: float | None
) -> Array:
    convention = form.convention
    if column.name == "frame":
        return values.astype(np.int64) + convention.first_frame if convention.first_frame else values
    if column.name in ("x", "y") and convention.origin_px:
        values = values.astype(np.float64) + convention.origin_px
    try:
        factor = unit_factor(target.unit, column.unit, pixel_size_nm)
    except PixelSizeNeededError:
        raise TableError(
            f"A {form.name} table is in {convention.length_unit}, but this table does not know its pixel size; "
            "give pixel_size_nm, e.g. 100."
        ) from None
    if factor is None:
        raise AssertionError(f"{form.name} declares {target} for {column.name} in {column.unit}")
    return values if factor == 1.0 else values.astype(np.float64) / factor


def describe_writing(locs: Localizations, form: TableFormat) -> list[str]:
    """Say what writing a table in a format combines or loses, one sentence per line."""
    lines = []
    targets: dict[str, list[str]] = {}
    lost = []
    for column in COLUMNS:
        if column.name in locs:
            target = _foreign_name(column, form)
            if target is None:
                lost.append(column.name)
            else:
                targets.setdefault(target.name, []).append(column.name)
    for target_name, sources in targets.items():
        if len(sources) > 1:
            lines.append(f"{' and '.join(sources)} share {target_name}: their root mean square is written")
    extra = _extra_columns(locs)
    if form.keeps_extra:
        extra = [name for name in extra if not form.text_columns and locs[name].dtype.kind not in "biuf"]
    lost += extra
    if lost:
        lines.append(f"not written, the format has no place for them: {', '.join(lost)}")
    return lines
