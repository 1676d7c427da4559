"""HDF5 files on a disk that may fill up.

The HDF5 library cannot close a file whose last bytes do not fit on the disk, and brings the whole process down
some time later. So it writes through a stream that never fails: the first error is remembered, everything after
it is thrown away, and the error is raised where Python code can handle it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class UnfailingStream:
    """A file for HDF5 to write to, which remembers the first error instead of raising it.

    Parameters
    ----------
    path : Path
        The file, created or emptied.

    Raises
    ------
    OSError
        When it cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._size = 0
        self._position = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes, or throw them away after an error."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.error is None:
            try:
                self._file.seek(self._position + done)
                done += self._file.write(view[done:])
            except OSError as error:
                self.error = error
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read bytes; those that were thrown away are zeros."""
        view = memoryview(buffer).cast("B")
        n_there = min(len(view), max(self._size - self._position, 0))
        done = 0
        try:
            self._file.seek(self._position)
            while done < n_there:
                n_read = self._file.readinto(view[done:n_there])
                if not n_read:
                    break
                done += n_read
        except OSError as error:
            self.error = self.error or error
        view[done:n_there] = bytes(n_there - done)
        self._position += n_there
        return n_there

    def read(self, size: int = -1) -> bytes:
        """Read bytes; h5py recognises a file by this method."""
        n_bytes = max(self._size - self._position, 0) if size < 0 else size
        buffer = bytearray(n_bytes)
        return bytes(buffer[: self.readinto(buffer)])

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, also behind what really is on the disk."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Give the position."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        self._size = self._position if size is None else size
        if self.error is None:
            try:
                self._file.truncate(self._size)
            except OSError as error:
                self.error = error
        return self._size

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def check(self) -> None:
        """Raise the first error that was met, if any.

        Raises
        ------
        OSError
            What the operating system said.
        """
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error


@contextmanager
def hdf5_output(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for writing and close it, whatever happens.

    Parameters
    ----------
    path : Path
        The file, created or emptied.

    Raises
    ------
    OSError
        When it cannot be created, or the disk is full.
    """
    import h5py

    stream = UnfailingStream(path)
    try:
        with h5py.File(stream, "w") as file:
            yield file
    finally:
        stream.close()
    stream.check()
