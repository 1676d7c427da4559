"""What every movie offers: frames by blocks, a name, a pixel size, a fingerprint."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import MovieError

if TYPE_CHECKING:
    from smlm_pb.localizations import MovieInfo

#: Smallest height and width of a frame in which a molecule can be localized.
MIN_SIDE_PX = 5
_BLOCK_BYTES = 32 * 2**20
_FINGERPRINT_FRAMES = 8


@runtime_checkable
class Movie(Protocol):
    """Frames ``(frame, y, x)`` that can be read block by block.

    Attributes
    ----------
    name : str
        Short name for messages and file names.
    n_frames, height, width : int
        Shape of the movie.
    dtype : numpy.dtype
        Type of the values that `read` returns, in the machine's byte order.
    pixel_size_nm : float or None
        Edge of a camera pixel in the sample, in nm, where the metadata tell.
    metadata : dict
        What the file says of the acquisition; see `smlm_pb.movies.open_movie`.
    """

    name: str
    n_frames: int
    height: int
    width: int
    dtype: np.dtype[Any]
    pixel_size_nm: float | None
    metadata: dict[str, Any]

    @property
    def info(self) -> MovieInfo:
        """Shape, pixel size and name, as tables of molecules carry them."""

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read frames ``start`` to ``stop`` (exclusive) as an array (n, y, x)."""

    def fingerprint(self) -> str:
        """Tell one movie's content from another's: a short hexadecimal hash."""

    def close(self) -> None:
        """Release what reading keeps; the movie can still be read afterwards."""


class MovieBase(ABC):
    """The common part of all movies; a kind of movie adds `_read` and its `source`.

    A movie may be read from several threads. It is pickled as its source, so that a movie in files travels to
    another process as its path(s) and is opened there anew.
    """

    def __init__(
        self,
        *,
        name: str,
        shape: tuple[int, int, int],
        dtype: npt.DTypeLike,
        pixel_size_nm: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.n_frames, self.height, self.width = (int(length) for length in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
        self.pixel_size_nm = pixel_size_nm
        self.metadata: dict[str, Any] = {"notes": [], **(metadata or {})}
        self._validate()

    def _validate(self) -> None:
        if self.dtype.kind not in "uif":
            raise MovieError(
                f"Movie {self.name} holds values of type {self.dtype}: save the raw camera frames as "
                "integers (for example 16 bits)."
            )
        if self.n_frames < 1:
            raise MovieError(f"Movie {self.name} has no frames: check that the acquisition was saved to the end.")
        if min(self.height, self.width) < MIN_SIDE_PX:
            raise MovieError(
                f"Movie {self.name} has frames of {self.height}×{self.width} px, smaller than "
                f"{MIN_SIDE_PX}×{MIN_SIDE_PX} px: no molecule fits; choose a larger region of interest."
            )

    @property
    @abstractmethod
    def source(self) -> Any:
        """What `open_movie` needs to open the same movie again (absolute path, list of paths, or array)."""

    @abstractmethod
    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read frames ``start`` < ``stop``, both inside the movie."""

    @property
    def info(self) -> MovieInfo:
        """Shape, pixel size and name, as tables of molecules carry them."""
        from smlm_pb.localizations import MovieInfo

        return MovieInfo(
            n_frames=self.n_frames,
            height=self.height,
            width=self.width,
            pixel_size_nm=self.pixel_size_nm,
            name=self.name,
        )

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read a block of frames.

        Parameters
        ----------
        start, stop : int
            First frame and the one after the last, ``0 <= start <= stop <= n_frames``.

        Returns
        -------
        array (stop - start, height, width)
            Camera values in ADU, of `dtype`, C-contiguous.

        Raises
        ------
        MovieError
            When the block lies outside the movie or cannot be read.
        """
        if not 0 <= start <= stop <= self.n_frames:
            raise MovieError(
                f"Frames {start} to {stop} were asked of movie {self.name}, which has {self.n_frames}: "
                f"ask for frames from 0 to {self.n_frames}."
            )
        shape = (stop - start, self.height, self.width)
        if start == stop:
            return np.empty(shape, dtype=self.dtype)
        block = np.ascontiguousarray(self._read(start, stop), dtype=self.dtype)
        if block.shape != shape:
            raise MovieError(
                f"Movie {self.name}: frames {start} to {stop} came with shape {block.shape} instead of "
                f"{shape}; the source changed or is damaged; open it again."
            )
        return block

    def fingerprint(self) -> str:
        """Hash of shape, type and eight evenly spaced frames (BLAKE2b, 128 bits, hexadecimal).

        Equal content gives equal fingerprints wherever and however it is stored.
        """
        digest = hashlib.blake2b(digest_size=16)
        header = (self.n_frames, self.height, self.width, self.dtype.newbyteorder("<").str)
        digest.update(repr(header).encode())
        for index in even_frames(self.n_frames, _FINGERPRINT_FRAMES):
            frame = self.read(index, index + 1)
            digest.update(frame.astype(self.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()

    def reopen(self) -> Movie:
        """Open the same movie again, independent of this one."""
        from smlm_pb.movies.opening import open_movie

        return open_movie(self.source)

    def close(self) -> None:  # noqa: B027 - most movies keep nothing
        """Release what reading keeps; the movie can still be read afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        from smlm_pb.movies.opening import open_movie

        return open_movie, (self.source,)

    def __repr__(self) -> str:
        size = f"{self.n_frames} frames of {self.height}×{self.width} px"
        pixel = "" if self.pixel_size_nm is None else f", {self.pixel_size_nm:g} nm pixels"
        return f"<{type(self).__name__} {self.name}: {size}, {self.dtype}{pixel}>"


def even_frames(n_frames: int, at_most: int) -> list[int]:
    """Choose up to ``at_most`` frame numbers, evenly spaced, first and last included."""
    count = min(n_frames, at_most)
    return sorted({int(index) for index in np.linspace(0, n_frames - 1, count).round()}) if count else []


def frames_per_block(movie: Movie, *, max_bytes: int = _BLOCK_BYTES) -> int:
    """Count the frames that fit into ``max_bytes``, at least one."""
    return max(1, max_bytes // (movie.height * movie.width * movie.dtype.itemsize))


def iterate_blocks(
    movie: Movie, start: int = 0, stop: int | None = None, block_frames: int | None = None
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Walk through a movie without holding more than one block of it.

    Parameters
    ----------
    movie : Movie
        The movie.
    start, stop : int
        First frame and the one after the last; all frames when left out.
    block_frames : int, optional
        Frames per block; about 32 MiB when left out.

    Yields
    ------
    first_frame : int
        Number of the block's first frame.
    block : array (n, height, width)
        Its frames in ADU; the last block may be shorter.

    Raises
    ------
    MovieError
        When the range lies outside the movie or a block cannot be read.
    """
    last = movie.n_frames if stop is None else stop
    step = frames_per_block(movie) if block_frames is None else block_frames
    if step < 1:
        raise MovieError(f"A block of {step} frames was asked of movie {movie.name}: ask for at least 1 frame.")
    if not 0 <= start <= last <= movie.n_frames:
        raise MovieError(
            f"Frames {start} to {last} were asked of movie {movie.name}, which has {movie.n_frames}: "
            f"ask for frames from 0 to {movie.n_frames}."
        )
    for first in range(start, last, step):
        yield first, movie.read(first, min(first + step, last))


def sample_frames(
    movie: Movie, *, at_most: int = 32, run_length: int = 1, max_bytes: int = 2 * _BLOCK_BYTES
) -> tuple[npt.NDArray[np.intp], npt.NDArray[Any]]:
    """Read a bounded number of frames, evenly spread over the movie.

    Parameters
    ----------
    movie : Movie
        The movie.
    at_most : int
        Number of frames at most.
    run_length : int
        Frames are taken in runs of this many neighbours in time (2 allows differences of consecutive frames).
    max_bytes : int
        Memory the sample may take.

    Returns
    -------
    indices : array (n,), int
        Frame numbers.
    frames : array (n, height, width)
        Camera values in ADU.

    Raises
    ------
    MovieError
        When a frame cannot be read.
    """
    budget = max(run_length, min(at_most, frames_per_block(movie, max_bytes=max_bytes)))
    if movie.n_frames <= budget:
        return np.arange(movie.n_frames), movie.read(0, movie.n_frames)
    starts = [run_length * run for run in even_frames(movie.n_frames // run_length, budget // run_length)]
    blocks = [movie.read(first, first + run_length) for first in starts]
    indices = np.concatenate([np.arange(first, first + run_length) for first in starts])
    return indices, np.concatenate(blocks)
