"""Movies that are still being recorded: which of their frames are whole already."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from smlm_pb.errors import MovieError
from smlm_pb.movies.movie import Movie
from smlm_pb.movies.opening import open_movie
from smlm_pb.movies.series import TIFF_ENDINGS, SequenceMovie, are_parts, list_frames_files
from smlm_pb.movies.tiff import movie_name

_Signature = tuple[int, str, int, int]


class GrowingMovie:
    """A TIFF stack, the parts of one, or a folder of single frames, while it is being written.

    Parameters
    ----------
    path : Path
        The file (of an OME series: its first file), or the folder; need not exist yet.

    Raises
    ------
    MovieError
        When it is neither a folder nor a TIFF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        if self.path.suffix.lower() not in TIFF_ENDINGS and not self.path.is_dir() and self.path.suffix:
            raise MovieError(
                f"{path} cannot be followed while it grows: give a TIFF file or a folder of TIFF files; localize "
                "other movies when they are complete."
            )
        self.name = (self.path.name or "folder") if self._is_folder else movie_name(self.path)
        self._seen: _Signature | None = None
        self._snapshot: SequenceMovie | None = None

    @property
    def _is_folder(self) -> bool:
        return self.path.suffix.lower() not in TIFF_ENDINGS or self.path.is_dir()

    def look(self) -> Movie | None:
        """The frames that are certainly whole by now.

        The last page is held back until another one follows it: a writer may place its header before its pixels.

        Returns
        -------
        Movie or None
            With all whole frames; None as long as there is none. The same movie as before when nothing was added.

        Raises
        ------
        MovieError
            When a folder holds several movies, or the first frame is no grey-level image.
        """
        files = self._files()
        signature = _signature(files)
        if signature is None or signature == self._seen:
            return self._snapshot
        self._refuse_several(files)
        snapshot = self._open(files)
        if snapshot is None:
            return self._snapshot
        self._seen, self._snapshot = signature, snapshot
        return snapshot

    def finish(self) -> tuple[Movie, str | None]:
        """The movie as it is when nothing is added any more.

        Returns
        -------
        Movie
            As :func:`smlm_pb.open_movie` opens it; of a movie that was cut off or is damaged at its end, the whole
            frames.
        str or None
            What is wrong with the end of the movie.

        Raises
        ------
        MovieError
            When there is no whole frame.
        """
        try:
            return open_movie(self.path), None
        except MovieError as error:
            files = self._files()
            whole = _try(files, allow_truncated=True) or _try(files[:-1]) or self._snapshot
            if whole is None:
                raise
            return whole, str(error)

    def _files(self) -> list[Path]:
        if self._is_folder:
            return list_frames_files(self.path) if self.path.is_dir() else []
        if not self.path.is_file():
            return []
        stem = movie_name(self.path)
        if not re.search(r"\.ome\.\w+$", self.path.name, re.IGNORECASE):
            return [self.path]
        # A series continues in stem_1.ome.tif when the file of 4 GB is full.
        parts = [self.path]
        ending = self.path.name.removeprefix(stem)
        while (part := self.path.with_name(f"{stem}_{len(parts)}{ending}")).is_file():
            parts.append(part)
        return parts

    def _refuse_several(self, files: list[Path]) -> None:
        """Say at once, not at the end, that a folder does not hold one movie."""
        if not self._is_folder or len(files) < 2 or are_parts(files):
            return
        first = _try(files[:1])
        if first is not None and first.n_frames > 1:
            raise MovieError(
                f"Folder {self.path} holds several stacks ({files[0].name}, {files[1].name}): watch one of the files, "
                "or a folder into which a single movie is written."
            )

    def _open(self, files: list[Path]) -> SequenceMovie | None:
        # Files that others followed do not change any more.
        counts = [] if self._snapshot is None else self._snapshot.frame_counts[:-1]
        movie = _try(files, allow_truncated=True, name=self.name, known_counts=counts)
        if movie is None:  # the last file has no readable header yet: those before it are complete
            return _try(files[:-1], name=self.name, known_counts=counts)
        movie.n_frames -= 1  # the last page is held back
        movie.metadata["notes"] = []  # to be cut off is no fault yet
        return movie if movie.n_frames > 0 else None


def _signature(files: list[Path]) -> _Signature | None:
    """What changes when frames are added."""
    try:
        last = files[-1].stat()
    except (IndexError, OSError):
        return None
    return len(files), files[-1].name, last.st_size, last.st_mtime_ns


def _try(files: list[Path], **options: Any) -> SequenceMovie | None:
    try:
        return SequenceMovie(files, **options)
    except MovieError:
        return None
