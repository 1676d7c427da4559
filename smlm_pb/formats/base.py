"""What a table format is: its convention declared as data, how it is recognised, read and written."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

Array = npt.NDArray[Any]

#: What h5py raises on damaged files; a name that leads nowhere even gives None instead of an object.
_H5PY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True)
class Convention:
    """Where a format puts its origin, how it counts frames, which axis is x and what unit lengths have.

    Parameters
    ----------
    origin_px : float
        Coordinate, in pixels, that the format gives to the centre of the first pixel: 0 (pixel centre),
        0.5 (corner of the image) or 1 (pixels counted from 1).
    first_frame : int
        Number of the first frame.
    length_unit : {"px", "nm"}
        Unit of the positions.
    x_axis : {"column", "row"}
        Which camera axis the format calls x.
    documented : bool
        False where no source states the origin, so that it is an assumption.
    """

    origin_px: float
    first_frame: int
    length_unit: str
    x_axis: str = "column"
    documented: bool = True

    def describe(self) -> str:
        """Say the convention in words."""
        assumed = "" if self.documented else " (assumed: not documented)"
        return (
            f"{self.length_unit}, centre of the first pixel at {self.origin_px:g} px{assumed}, "
            f"x = {self.x_axis}, frames from {self.first_frame}"
        )


#: The convention of this package, to and from which everything is converted.
OWN_CONVENTION = Convention(origin_px=0.0, first_frame=0, length_unit="px")


@dataclass(frozen=True)
class ReadOptions:
    """What the user says about a file; None where the file itself or the format is to be asked.

    Parameters
    ----------
    pixel_size_nm : float, optional
        Edge of a camera pixel; overrides what the file says.
    height, width, n_frames : int, optional
        Size of the movie, for formats that do not tell.
    origin_px : float, optional
        Overrides :attr:`Convention.origin_px`.
    first_frame : int, optional
        Overrides :attr:`Convention.first_frame`.
    """

    pixel_size_nm: float | None = None
    height: int | None = None
    width: int | None = None
    n_frames: int | None = None
    origin_px: float | None = None
    first_frame: int | None = None


@dataclass
class RawTable:
    """A table as it stands in a file, before conversion to our conventions.

    Parameters
    ----------
    columns : mapping from str to array (n,)
        Columns by the name they have in the file, without unit.
    units : mapping from str to str
        Units that the file itself states; they override the declared ones.
    pixel_size_nm : float or (x, y), optional
        From the file's metadata.
    height, width, n_frames : int, optional
        From the file's metadata.
    roi_px : (x, y)
        Camera pixel of the first pixel of the movie, where the file counts positions on the whole chip.
    origin_px, first_frame : optional
        Where the file states its own convention.
    name : str, optional
        Name of the movie; the stem of the file's name where there is none.
    provenance : list of dict
        Steps recorded in the file.
    notes : list of str
        What the reader had to assume, for the user.
    """

    columns: Mapping[str, Array]
    units: Mapping[str, str] = field(default_factory=dict)
    pixel_size_nm: float | tuple[float, float] | None = None
    height: int | None = None
    width: int | None = None
    n_frames: int | None = None
    roi_px: tuple[float, float] = (0.0, 0.0)
    origin_px: float | None = None
    first_frame: int | None = None
    name: str | None = None
    provenance: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ForeignTable:
    """A table converted to a format's names, units and conventions, ready to be written.

    Parameters
    ----------
    columns : dict from str to array (n,)
        By the name in the file, without unit.
    units : dict from str to str
        Unit of each column, ``""`` for a pure number.
    locs : Localizations
        The table it was made from.
    pixel_size_nm : float, optional
        Pixel size used for the conversion.
    """

    columns: dict[str, Array]
    units: dict[str, str]
    locs: Localizations
    pixel_size_nm: float | None


@dataclass(frozen=True)
class TableFormat:
    """One kind of table file.

    Parameters
    ----------
    name : str
        Key in the registry and in :attr:`smlm_pb.columns.Column.foreign`, unless ``names`` is given.
    title : str
        Name for people.
    extensions : tuple of str
        Usual endings, the first one is used when writing; with the dot.
    convention : Convention
        Origin, frame base, axis and unit.
    sniff : callable(Head) -> bool
        Whether a file is of this kind, judged by its content.
    read : callable(Path, ReadOptions) -> RawTable
        Reads the file as it stands.
    write : callable(ForeignTable, Path), optional
        Writes the file; the path is a temporary one beside the target.
    sidecar : callable(ForeignTable, Path) -> (Path, str), optional
        A second, small text file that belongs to the target path, and its content.
    save : callable(Localizations, Path, overwrite) -> list of Path, optional
        Replaces ``write`` where a format looks after its own files.
    names : str
        Which foreign names of the columns it uses.
    keeps_extra : bool
        Whether columns the format has no name for can be written too, under our name.
    text_columns : bool
        Whether columns of text can be written.
    own_names : bool
        Whether it is written with our own column names.
    exact : bool
        Whether our own conventions are stored, so that nothing is rounded or converted.
    pixel_size_nm : float, optional
        Pixel size that the format prescribes.
    note : str
        One remark for the documentation.
    """

    name: str
    title: str
    extensions: tuple[str, ...]
    convention: Convention
    sniff: Callable[[Head], bool]
    read: Callable[[Path, ReadOptions], RawTable]
    write: Callable[[ForeignTable, Path], None] | None = None
    sidecar: Callable[[ForeignTable, Path], tuple[Path, str]] | None = None
    save: Callable[[Localizations, Path, bool], list[Path]] | None = None
    names: str = ""
    keeps_extra: bool = True
    text_columns: bool = True
    own_names: bool = False
    exact: bool = False
    pixel_size_nm: float | None = None
    note: str = ""

    @property
    def names_key(self) -> str:
        """Key into the columns' foreign names."""
        return self.names or self.name

    @property
    def writable(self) -> bool:
        """Whether tables can be written in this format."""
        return self.write is not None or self.save is not None


class Head:
    """The beginning of a file, for recognising its format without reading all of it.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    TableError
        When it does not exist, is a folder, cannot be read, or is empty.
    """

    SIZE = 65536

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise TableError(f"{path} is a folder; give the table file inside it.")
        try:
            with path.open("rb") as stream:
                self.start = stream.read(self.SIZE)
        except FileNotFoundError:
            raise TableError(f"There is no file {path}.") from None
        except OSError as error:
            raise TableError(f"{path} cannot be read: {error.strerror}.") from None
        if not self.start:
            raise TableError(f"{path} is empty; it has no table.")

    @cached_property
    def is_hdf5(self) -> bool:
        """Whether it is an HDF5 file, also behind MATLAB's 512-byte preface."""
        signature = b"\x89HDF\r\n\x1a\n"
        return self.start.startswith(signature) or self.start[512:520] == signature

    @cached_property
    def hdf5_keys(self) -> dict[str, str]:
        """Names and kinds ("group", "compound", "array") of what lies at the root of an HDF5 file."""
        if not self.is_hdf5:
            return {}
        import h5py

        with open_hdf5(self.path) as file:
            return {
                key: "group" if isinstance(item, h5py.Group) else ("compound" if item.dtype.names else "array")
                for key, item in file.items()
            }

    @cached_property
    def encoding(self) -> str:
        """Text encoding, from the byte-order mark or from what decodes."""
        if self.start.startswith(codecs.BOM_UTF8):
            return "utf-8-sig"
        if self.start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        try:
            codecs.getincrementaldecoder("utf-8")().decode(self.start)
        except UnicodeDecodeError:
            return "latin-1"
        return "utf-8"

    @cached_property
    def lines(self) -> list[str]:
        """Whole lines of a text file; empty for a binary one."""
        # Zeiss writes a NUL behind the table of a text file; in a first line it means no text at all.
        if self.is_hdf5 or (b"\x00" in self.start.split(b"\n", 1)[0] and self.encoding != "utf-16"):
            return []
        text = codecs.getincrementaldecoder(self.encoding)(errors="replace").decode(self.start)
        lines = text.splitlines()
        complete = len(self.start) < self.SIZE or len(lines) < 2
        return lines if complete else lines[:-1]

    @property
    def first_line(self) -> str:
        """First line of a text file, ``""`` for a binary one."""
        return self.lines[0] if self.lines else ""


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; whatever h5py meets in a damaged file becomes one clear error.

    Raises
    ------
    TableError
        When it is damaged, cut short, or not HDF5 at all.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = "is cut short" if "truncated" in str(error) else "is damaged or no HDF5 file"
        raise TableError(f"{path} {reason}; copy or export it again.") from None
    try:
        with file:
            yield file
    except _H5PY_ERRORS as error:
        raise TableError(f"{path} is damaged ({' '.join(str(error).split())}); copy or export it again.") from error


def hdf5_column(dataset: Any, path: Path) -> Array:
    """Read one HDF5 dataset as a column, with an error that names it.

    Raises
    ------
    TableError
        When the dataset cannot be read.
    """
    try:
        return np.asarray(dataset[()])
    except (OSError, RuntimeError) as error:
        raise TableError(f"{path}: dataset {dataset.name} is damaged ({error}).") from None
