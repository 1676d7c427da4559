"""The work file: what an unfinished run has found so far, safe against being killed at any moment.

It begins with the settings of the run, and one record is appended per finished block. Every record carries its length
and checksum, so that one which was cut off is recognised and dropped; everything before it is kept.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from smlm_pb.errors import OutputError
from smlm_pb.localization.candidates import CANDIDATE_DTYPE, Candidates
from smlm_pb.localization.pipeline import Block

_MAGIC = b"SPW1"
_RECORD = struct.Struct("<4sQI")
_BLOCK = struct.Struct("<QQd")
#: The file is forced onto the disk this often, s: a power failure costs no more work than that.
_SYNC_INTERVAL_S = 10.0


class WorkFile:
    """Blocks of an unfinished run on disk; held by one process at a time.

    Use :meth:`create` or :meth:`resume`.
    """

    def __init__(self, path: Path, handle: IO[bytes], header: dict[str, Any]) -> None:
        self.path, self.header = path, header
        self._handle = handle
        self._first_block = self._end = handle.tell()
        self._synced_at = time.monotonic()
        #: The frame after the last finished one, if any.
        self.done_until: int | None = None

    @classmethod
    def create(cls, path: Path, header: dict[str, Any]) -> WorkFile:
        """Start a run, in place of what is there.

        Parameters
        ----------
        path : Path
            The work file.
        header : dict
            Settings of the run, plain values.

        Raises
        ------
        OutputError
            When it cannot be written.
        """
        temporary = path.with_name(f".{path.name}.partial")
        try:
            temporary.write_bytes(_record(json.dumps(header).encode()))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(
                f"{path} cannot be written ({error.strerror or error}): free some space or choose another folder."
            ) from error
        return cls.resume(path)

    @classmethod
    def resume(cls, path: Path) -> WorkFile:
        """Open the work file of a run that was interrupted, and drop what was cut off at its end.

        Raises
        ------
        OutputError
            When it is not a work file, damaged from the start, or in use by another process.
        """
        try:
            handle = path.open("r+b", buffering=0)
        except OSError as error:
            raise OutputError(f"{path} cannot be opened ({error.strerror}): check its permissions.") from error
        try:
            _lock(handle, path)
            head = _next_payload(handle)
            if not head:
                raise OutputError(f"{path} is not a work file, or damaged: start anew with overwrite=True.")
            work = cls(path, handle, json.loads(head))
            for block in work._scan():
                work.done_until = block.stop
            handle.truncate(work._end)
        except BaseException:
            handle.close()
            raise
        return work

    def __enter__(self) -> WorkFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, block: Block) -> None:
        """Keep a finished block.

        Raises
        ------
        OutputError
            When the disk is full; what was kept before stays.
        """
        payload = _BLOCK.pack(block.start, block.stop, block.candidates.expected_unlisted)
        record = memoryview(_record(payload + block.candidates.rows.tobytes()))
        try:
            self._handle.seek(self._end)
            while record:
                record = record[self._handle.write(record) :]
            self._end = self._handle.tell()
            if time.monotonic() - self._synced_at > _SYNC_INTERVAL_S:
                os.fsync(self._handle.fileno())
                self._synced_at = time.monotonic()
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written ({error.strerror or error}): free some space, then continue with "
                "resume=True; what was finished is kept."
            ) from error
        self.done_until = block.stop

    def blocks(self) -> Iterator[Block]:
        """The finished blocks in the order of time, one in memory at a time."""
        return self._scan()

    def close(self) -> None:
        """Release the file, for another process to continue."""
        self._handle.close()

    def remove(self) -> None:
        """Delete the file: the run is complete."""
        self._handle.close()
        self.path.unlink(missing_ok=True)

    def _scan(self) -> Iterator[Block]:
        position = self._first_block
        while True:
            self._handle.seek(position)
            payload = _next_payload(self._handle)
            if not payload:
                break
            position = self._handle.tell()
            start, stop, mass = _BLOCK.unpack_from(payload)
            rows = np.frombuffer(payload, CANDIDATE_DTYPE, offset=_BLOCK.size)
            yield Block(start, stop, Candidates(rows, mass))
        self._end = position


def _record(payload: bytes) -> bytes:
    return _RECORD.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload


def _next_payload(handle: IO[bytes]) -> bytes | None:
    """The payload of the record at the present position; None at the end, or where a record is not whole."""
    head = handle.read(_RECORD.size)
    if len(head) < _RECORD.size:
        return None
    magic, length, checksum = _RECORD.unpack(head)
    # A damaged length must not be believed: it could ask for more than the memory.
    if magic != _MAGIC or length > os.fstat(handle.fileno()).st_size - handle.tell():
        return None
    payload = handle.read(length)
    while len(payload) < length and (more := handle.read(length - len(payload))):
        payload += more
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None


def _lock(handle: IO[bytes], path: Path) -> None:
    """Keep a second process from continuing the same run; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows, where an open file cannot be replaced anyway
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{path} is in use: another run is working on this movie; wait for it to end.") from None
    except OSError:  # some network drives cannot lock
        return
