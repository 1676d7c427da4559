"""Movies that are spread over several files: image sequences, and stacks cut at 2 or 4 GB."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import MovieError
from smlm_pb.movies.movie import MovieBase
from smlm_pb.movies.tiff import TiffMovie, movie_name

TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf2", ".tf8")
_KNOWN_FILES = 8


def natural_key(path: str | Path) -> tuple[str | int, ...]:
    """Sort key that puts ``img_2.tif`` before ``img_10.tif`` and ``a.tif`` before ``a_1.tif``."""
    parts = re.split(r"(\d+)", Path(path).name.lower())
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))


class SequenceMovie(MovieBase):
    """Several TIFF files, one after the other in time.

    Parameters
    ----------
    paths : sequence of Path
        The files in the order of time; each holds one frame or more.
    name : str
        Name of the whole.
    allow_truncated : bool
        Take the whole frames of the last file if it was cut off, instead of refusing it.
    known_counts : sequence of int
        Frames of the first files, where they are known already: those files are not looked at.

    Raises
    ------
    MovieError
        When there is no file, or a file cannot be read or differs in frame size or type.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        name: str | None = None,
        allow_truncated: bool = False,
        known_counts: Sequence[int] = (),
    ) -> None:
        if not paths:
            raise MovieError("An empty list of files was given as a movie: give at least one TIFF file.")
        self._paths = [path.absolute() for path in paths]
        self._allow_truncated = allow_truncated
        self._lock = threading.Lock()
        self._known: OrderedDict[int, TiffMovie] = OrderedDict()
        first = self._open_part(0)
        self._known[0] = first
        self._frame = (first.height, first.width, first.dtype)
        self._first_frames = np.cumsum([0, *self._count_frames(first, known_counts)])
        super().__init__(
            name=name or movie_name(self._paths[0]),
            shape=(int(self._first_frames[-1]), first.height, first.width),
            dtype=first.dtype,
            pixel_size_nm=first.pixel_size_nm,
            metadata={**first.metadata, "n_files": len(self._paths)},
        )

    @property
    def source(self) -> list[str]:
        """Absolute paths of the files."""
        return [str(path) for path in self._paths]

    def reopen(self) -> SequenceMovie:
        """Open the same files again, independent of this movie."""
        return _reopen(self.source, self.name, self._allow_truncated)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.source, self.name, self._allow_truncated)

    def _open_part(self, index: int) -> TiffMovie:
        may_be_cut = self._allow_truncated and index == len(self._paths) - 1
        return TiffMovie(self._paths[index], single_file=True, allow_truncated=may_be_cut)

    @property
    def frame_counts(self) -> list[int]:
        """Frames of every file."""
        return [int(count) for count in np.diff(self._first_frames)]

    def _count_frames(self, first: TiffMovie, known: Sequence[int]) -> list[int]:
        """Count the frames of every file.

        Uncompressed files of equal size are taken to be alike until they are read.
        """
        first_size = self._paths[0].stat().st_size
        counts = [*known] or [first.n_frames]
        for index, path in enumerate(self._paths[len(counts) :], start=len(counts)):
            try:
                alike = first.is_raw and path.stat().st_size == first_size
            except OSError:
                alike = False
            counts.append(first.n_frames if alike else self._part(index).n_frames)
        return counts

    def _part(self, index: int) -> TiffMovie:
        """Open one file, remembering the places of the frames in a few of the last ones."""
        if index in self._known:
            self._known.move_to_end(index)
            return self._known[index]
        part = self._open_part(index)
        if (part.height, part.width, part.dtype) != self._frame:
            height, width, dtype = self._frame
            raise MovieError(
                f"{self._paths[index]} has {part.height}×{part.width} px frames of {part.dtype}, but "
                f"{self._paths[0].name} has {height}×{width} px of {dtype}: they are not one movie; give "
                "one of them."
            )
        self._known[index] = part
        while len(self._known) > _KNOWN_FILES:
            self._known.popitem(last=False)
        return part

    def _read(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        block = np.empty((stop - start, self.height, self.width), dtype=self.dtype)
        with self._lock:
            index = int(np.searchsorted(self._first_frames, start, side="right")) - 1
            position = start
            while position < stop:
                before, behind = (int(edge) for edge in self._first_frames[index : index + 2])
                last = min(stop, behind)
                part = self._part(index)
                if part.n_frames != behind - before:
                    raise MovieError(
                        f"{self._paths[index]} has {part.n_frames} frames instead of the {behind - before} "
                        "of the other files of its size: give the files of one movie as a list."
                    )
                block[position - start : last - start] = part.read(position - before, last - before)
                position, index = last, index + 1
        return block


def _reopen(paths: list[str], name: str, allow_truncated: bool = False) -> SequenceMovie:
    return SequenceMovie([Path(path) for path in paths], name=name, allow_truncated=allow_truncated)


class FolderMovie(SequenceMovie):
    """A folder of single-frame TIFF files in natural order, or of the parts of one stack.

    Parameters
    ----------
    folder : Path
        The folder; files other than TIFF are passed over.

    Raises
    ------
    MovieError
        When the folder holds no TIFF file, or several movies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        paths = list_frames_files(folder)
        if not paths:
            raise MovieError(f"Folder {folder} holds no TIFF files: give the folder of the frames, or a file.")
        super().__init__(paths, name=folder.name or "folder")
        if self.n_frames > len(paths) > 1 and not are_parts(paths):
            names = ", ".join(path.name for path in paths[:4])
            raise MovieError(
                f"Folder {folder} holds {len(paths)} stacks ({names}{', …' if len(paths) > 4 else ''}): "
                "give one of them, or the list of files that make up one movie, in order."
            )
        if self.n_frames == len(paths):
            self.metadata["notes"] = [*self.metadata["notes"], *_missing_numbers(paths)]


def _missing_numbers(paths: Sequence[Path]) -> list[str]:
    """Say where the numbers in the names of single frames jump; nothing where they are no running numbers."""
    parts = [re.split(r"(\d+)", path.stem) for path in paths]
    counted = [index for index, texts in enumerate(zip(*parts, strict=False)) if len(set(texts)) > 1]
    if len({len(part) for part in parts}) > 1 or len(counted) != 1 or counted[0] % 2 == 0:
        return []
    steps = np.diff([int(part[counted[0]]) for part in parts])
    usual = int(np.median(steps))
    jumps = np.flatnonzero(steps > usual)
    # Time stamps differ by something else every time, running numbers by the same nearly always.
    if not len(jumps) or np.count_nonzero(steps == usual) < 0.75 * len(steps):
        return []
    first = int(jumps[0])
    return [
        f"the numbers in the file names jump {len(jumps)} times, first from {paths[first].name} to "
        f"{paths[first + 1].name}: files may be missing; frames are counted without them"
    ]


def list_frames_files(folder: Path) -> list[Path]:
    """TIFF files of a folder in natural order; hidden ones are passed over. Raises MovieError when not readable."""
    try:
        files = [entry for entry in folder.iterdir() if entry.suffix.lower() in TIFF_ENDINGS]
    except OSError as error:
        raise MovieError(f"Folder {folder} cannot be read ({error.strerror}): check its permissions.") from error
    return sorted((file for file in files if not file.name.startswith(".")), key=natural_key)


def are_parts(paths: Sequence[Path]) -> bool:
    """Tell the parts of one stack by their names: ``a, a_1, a_2`` or ``a, a_X2, a_X3``."""
    stem = movie_name(paths[0])
    numbers = []
    for path in paths[1:]:
        match = re.fullmatch(re.escape(stem) + r"_X?(\d+)", movie_name(path))
        if match is None:
            return False
        numbers.append(int(match.group(1)))
    return numbers == list(range(numbers[0], numbers[0] + len(numbers))) and numbers[0] in (1, 2)
