"""A movie of which no frame is read twice, for several looks at a sample of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.movies.movie import Movie, MovieBase


class ReadOnce(MovieBase):
    """A movie that remembers the frames that were read from it.

    It keeps all of them: for samples of some dozen frames, and for no longer than these are looked at.

    Parameters
    ----------
    movie : Movie
        An open movie, which stays the caller's to close.
    """

    def __init__(self, movie: Movie) -> None:
        super().__init__(
            name=movie.name,
            shape=(movie.n_frames, movie.height, movie.width),
            dtype=movie.dtype,
            pixel_size_nm=movie.pixel_size_nm,
            metadata=movie.metadata,
        )
        self._movie = movie
        self._frames: dict[int, npt.NDArray[Any]] = {}

    @property
    def source(self) -> Movie:
        """The movie itself."""
        return self._movie

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        missing = [index for index in range(start, stop) if index not in self._frames]
        if len(missing) == stop - start:  # together, as most movies read neighbours faster
            self._frames |= zip(missing, self._movie.read(start, stop), strict=True)
        else:
            self._frames |= {index: self._movie.read(index, index + 1)[0] for index in missing}
        if stop - start == 1:
            return self._frames[start][np.newaxis]
        return np.stack([self._frames[index] for index in range(start, stop)])
