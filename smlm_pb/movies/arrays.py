"""Movies that are arrays: numpy, dask, zarr, or anything that is indexed like them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import MovieError
from smlm_pb.movies.axes import array_time_axis
from smlm_pb.movies.movie import MovieBase


class ArrayMovie(MovieBase):
    """A movie in an array ``(frame, y, x)``; lazy arrays (dask, zarr, h5py) are read block by block.

    Parameters
    ----------
    array : array-like with ``shape``, ``dtype`` and slicing
        Frames ``(frame, y, x)``, or one frame ``(y, x)``; further axes of length 1 are dropped.
    name : str
        Name for messages and files.
    source : object, optional
        What `open_movie` opens again; the array itself when left out.

    Raises
    ------
    MovieError
        When the axes or the type of the values are not those of a movie.
    """

    def __init__(self, array: Any, *, name: str = "array", source: Any = None) -> None:
        axis = array_time_axis(array.shape, f"Movie {name}")
        n_frames = 1 if axis is None else array.shape[axis]
        self._array = array
        self._axis = axis
        self._source = array if source is None else source
        self._lock = threading.Lock()
        super().__init__(name=name, shape=(n_frames, *array.shape[-2:]), dtype=array.dtype)
        self.metadata["format"] = type(array).__module__.split(".")[0]

    @property
    def source(self) -> Any:
        """The array, or the path it was mapped from."""
        return self._source

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        index: list[int | slice] = [0] * (len(self._array.shape) - 2) + [slice(None), slice(None)]
        if self._axis is not None:
            index[self._axis] = slice(start, stop)
        try:
            with self._lock:
                block = np.asarray(self._array[tuple(index)])
        except Exception as error:  # lazy arrays raise whatever their storage raises
            raise MovieError(
                f"Movie {self.name}: frames {start} to {stop} cannot be read from the "
                f"{type(self._array).__name__} ({error}); check the data behind it."
            ) from error
        return block if self._axis is not None else block[np.newaxis]
