"""Movies in TIFF files: ImageJ, OME, MicroManager, BigTIFF, compressed or not."""

from __future__ import annotations

import gc
import itertools
import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import MovieError
from smlm_pb.movies.movie import MovieBase
from smlm_pb.movies.tiff_layout import RawFrames, TiffLayout, quiet_tifffile, scan_tiff

if TYPE_CHECKING:
    from tifffile import TiffFile

#: Headers of so many pages are worth being cleared away at once: 0.3 kB each.
_MANY_PAGES = 5000


def movie_name(path: Path) -> str:
    """Strip folder and endings: ``/data/cell.ome.tif`` becomes ``cell``."""
    name = path.name
    for ending in (path.suffix, ".ome"):
        if ending and name.lower().endswith(ending.lower()) and len(name) > len(ending):
            name = name[: -len(ending)]
    return name


class TiffMovie(MovieBase):
    """A movie in a TIFF file, or in the several files of one OME or MicroManager series.

    Uncompressed frames are read straight from their place in the file, and no file stays open in between.
    Other frames are decoded page by page.

    Parameters
    ----------
    path : Path
        The file; any file of an OME or MicroManager series.
    allow_truncated : bool
        Take the whole frames of a file that was cut off instead of refusing it.
    single_file : bool
        Read this file only, even when its header names others.

    Raises
    ------
    MovieError
        When the file is missing, empty, no TIFF, cut off, or no grey-level movie.
    """

    def __init__(self, path: Path, *, allow_truncated: bool = False, single_file: bool = False) -> None:
        self._path = path.absolute()
        self._allow_truncated = allow_truncated
        self._single_file = single_file
        self._lock = threading.Lock()
        self._decoder: tuple[TiffFile, Any] | None = None
        layout = self._scan()
        self._raw = layout.raw
        super().__init__(
            name=movie_name(path),
            shape=layout.shape,
            dtype=layout.dtype,
            pixel_size_nm=layout.pixel_size_nm,
            metadata=layout.metadata,
        )

    @property
    def source(self) -> str:
        """Absolute path of the file."""
        return str(self._path)

    @property
    def is_raw(self) -> bool:
        """Whether frames are stored uncompressed and can be read without decoding."""
        return self._raw is not None

    def reopen(self) -> TiffMovie:
        """Open the same file again, independent of this movie."""
        return _reopen(self.source, self._allow_truncated, self._single_file)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.source, self._allow_truncated, self._single_file)

    def _scan(self) -> TiffLayout:
        """Open the file, locate its frames, and close it again."""
        tif = _open_tiff(self._path, single_file=self._single_file)
        try:
            with quiet_tifffile():
                layout = scan_tiff(tif, self._path, allow_truncated=self._allow_truncated)
                if layout.raw is None:
                    from tifffile import TiffPageSeries

                    series = TiffPageSeries(layout.pages, layout.shape, layout.dtype, "IYX", parent=tif)
                    self._decoder = tif, series
        except MovieError:
            raise
        except Exception as error:  # damaged headers surface as almost any exception
            raise MovieError(
                f"{self._path} is a damaged TIFF file ({type(error).__name__}: {error}); copy or save it again."
            ) from error
        finally:
            tif.close()
        if layout.raw is not None and layout.shape[0] > _MANY_PAGES:
            # tifffile's pages refer to each other in a circle, and would stay for long.
            del tif
            layout = replace(layout, pages=[])
            gc.collect()
        return layout

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        if self._raw is not None:
            return self._read_raw(self._raw, start, stop)
        assert self._decoder is not None
        tif, series = self._decoder
        handles = {page.parent.filehandle for page in series[start:stop]} | {tif.filehandle}
        with self._lock:
            try:
                for handle in handles:
                    handle.open()
                with quiet_tifffile():
                    block = tif.asarray(key=range(start, stop), series=series)
            except Exception as error:  # decoders raise whatever they like on damaged data
                raise MovieError(
                    f"{self._path}: frames {start} to {stop} cannot be decoded ({error}); the file is damaged or "
                    "gone, copy or save it again."
                ) from error
            finally:
                for handle in handles:
                    handle.close()
        return np.asarray(block).reshape(stop - start, self.height, self.width)

    def _read_raw(self, raw: RawFrames, start: int, stop: int) -> npt.NDArray[Any]:
        block = np.empty((stop - start, self.height, self.width), dtype=raw.stored_dtype)
        frame_bytes = block[0].nbytes
        files, offsets = raw.file_index[start:stop], raw.offsets[start:stop]
        breaks = np.flatnonzero((np.diff(files) != 0) | (np.diff(offsets) != frame_bytes)) + 1
        edges = [0, *breaks.tolist(), stop - start]
        for first, last in itertools.pairwise(edges):
            path = raw.files[files[first]]
            try:
                with path.open("rb") as stream:
                    stream.seek(int(offsets[first]))
                    n_read = stream.readinto(block[first:last].data.cast("B"))
            except OSError as error:
                raise MovieError(f"{path} can no longer be read ({error.strerror}); is the drive connected?") from error
            if n_read != (last - first) * frame_bytes:
                raise MovieError(
                    f"{path} ends inside frame {start + first + n_read // frame_bytes}: it was shortened "
                    "while it was being read; open it again."
                )
        return block


def _reopen(path: str, allow_truncated: bool, single_file: bool) -> TiffMovie:
    return TiffMovie(Path(path), allow_truncated=allow_truncated, single_file=single_file)


def _open_tiff(path: Path, *, single_file: bool) -> TiffFile:
    """Open a TIFF file, or say in one line why it cannot be opened."""
    import tifffile

    try:
        if path.stat().st_size == 0:
            raise MovieError(f"{path} is empty (0 bytes): the acquisition or the copy failed; save or copy it again.")
        # Each of these kinds would pull in sibling files.
        flags: dict[str, Any] = {"is_ome": False, "is_mmstack": False, "is_ndtiff": False} if single_file else {}
        with quiet_tifffile():
            return tifffile.TiffFile(path, **flags)
    except MovieError:
        raise
    except FileNotFoundError:
        raise MovieError(f"There is no movie at {path}: check the path.") from None
    except OSError as error:
        raise MovieError(
            f"{path} cannot be opened ({error.strerror or error}): check the file's permissions."
        ) from error
    except (tifffile.TiffFileError, struct.error, ValueError, IndexError, KeyError, TypeError) as error:
        raise MovieError(
            f"{path} is not a TIFF file ({error}): export the movie from your camera software as TIFF."
        ) from error
