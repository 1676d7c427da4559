"""One door for everything that is a movie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smlm_pb.errors import MovieError
from smlm_pb.movies.arrays import ArrayMovie
from smlm_pb.movies.movie import Movie
from smlm_pb.movies.series import FolderMovie, SequenceMovie
from smlm_pb.movies.tiff import TiffMovie, movie_name

_TIFF_READER_ENDINGS = (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".stk", ".lsm", "")


def open_movie(source: Any, *, allow_truncated: bool = False) -> Movie:
    """Open a movie without reading its frames.

    Parameters
    ----------
    source : path, folder, list of paths, array, or Movie
        * the path of a TIFF file: ImageJ (also beyond 4 GB), OME, MicroManager, BigTIFF, compressed, tiled;
          files that belong to the same OME or MicroManager series are found by themselves;
        * the path of a ``.npy`` file or ``.zarr`` folder;
        * a folder of single-frame TIFF files, taken in natural order (``img_2`` before ``img_10``);
        * a list of TIFF paths that follow each other in time, in this order;
        * a numpy, dask, zarr or similar array ``(frame, y, x)``, or one frame ``(y, x)``; axes of length
          1 in front are dropped;
        * an open movie, which is returned as it is.
    allow_truncated : bool
        Take the whole frames of a TIFF file that was cut off instead of refusing it.

    Returns
    -------
    Movie
        ``metadata`` may hold ``exposure_ms``, ``frame_interval_ms``, ``camera`` (name and settings as the
        file states them), ``pixel_size_source``, ``format``, and always ``notes``: sentences that the user
        should see.

    Raises
    ------
    MovieError
        When the source is missing, empty, cut off, damaged, no TIFF, smaller than 5×5 px, or no grey-level
        movie (colour, several channels, z-stacks).

    Examples
    --------
    >>> import numpy as np
    >>> movie = open_movie(np.zeros((10, 32, 48), dtype=np.uint16))
    >>> movie.n_frames, movie.height, movie.width
    (10, 32, 48)
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(source), allow_truncated=allow_truncated)
    if isinstance(source, Movie):
        return source
    if hasattr(source, "shape") and hasattr(source, "dtype") and hasattr(source, "__getitem__"):
        if type(source).__module__.partition(".")[0] == "torch":
            raise MovieError("A Tensor was given as a movie: give its numpy array, tensor.numpy(force=True).")
        return ArrayMovie(source)
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        if all(isinstance(item, (str, os.PathLike)) for item in source):
            paths = [Path(item) for item in source]
            if len(paths) == 1:
                return TiffMovie(paths[0], single_file=True, allow_truncated=allow_truncated)
            return SequenceMovie(paths)
        if all(hasattr(item, "shape") for item in source):
            raise MovieError(
                f"A list of {len(source)} arrays was given as a movie: stack them into one, numpy.stack(frames)."
            )
    raise MovieError(
        f"A {type(source).__name__} was given as a movie: give the path of a TIFF file, a folder, a list of "
        "paths or an array (frame, y, x)."
    )


def _open_path(path: Path, *, allow_truncated: bool) -> Movie:
    path = path.expanduser()
    ending = path.suffix.lower()
    if not path.exists():
        raise MovieError(f"There is no movie at {path}: check the path.")
    if ending == ".zarr" and path.is_dir():
        return _open_zarr(path)
    if path.is_dir():
        return FolderMovie(path)
    if ending == ".npy":
        return _open_npy(path)
    if ending not in _TIFF_READER_ENDINGS and not _looks_like_tiff(path):
        raise MovieError(
            f"{path} is not a TIFF file: {ending} files are not read; export the movie from your camera "
            "software as TIFF."
        )
    return TiffMovie(path, allow_truncated=allow_truncated)


def _looks_like_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") or path.stat().st_size == 0
    except OSError:
        return True  # the reader itself will say what is wrong


def _open_npy(path: Path) -> Movie:
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise MovieError(f"{path} cannot be read as a numpy array ({error}); save it again with numpy.save.") from error
    return ArrayMovie(array, name=movie_name(path), source=str(path.absolute()))


def _open_zarr(path: Path) -> Movie:
    try:
        import zarr
    except ImportError:
        raise MovieError(f"{path} needs the package zarr: install it with 'pip install zarr'.") from None
    try:
        array = zarr.open_array(path, mode="r")
    except Exception as error:  # zarr's own exceptions differ between its versions
        raise MovieError(
            f"{path} is not a zarr array ({error}); give the folder of one array (frame, y, x)."
        ) from error
    return ArrayMovie(array, name=movie_name(path), source=str(path.absolute()))
