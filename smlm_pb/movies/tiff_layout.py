"""Where the frames of a TIFF file lie, and whether all of them are there."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import MovieError
from smlm_pb.movies.axes import time_axis
from smlm_pb.movies.metadata import imagej_count, ome_sizes, read_tiff_metadata

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

#: A page of tifffile (TiffPage or TiffFrame), or None where the file lacks it.
Page = Any


@dataclass(frozen=True)
class RawFrames:
    """Uncompressed frames: in which file and at which byte each one begins."""

    files: tuple[Path, ...]
    file_index: npt.NDArray[np.intp]
    offsets: npt.NDArray[np.int64]
    stored_dtype: np.dtype[Any]


@dataclass(frozen=True)
class TiffLayout:
    """Shape of a TIFF movie and the place of its frames.

    ``raw`` is None when frames must be decoded (compressed, tiled, packed bits); ``pages`` holds them then.
    ``promised`` is the number of frames that the headers speak of.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    raw: RawFrames | None
    pages: list[Page]
    promised: int
    pixel_size_nm: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def count_whole(self) -> int:
        """Count the leading frames whose bytes lie inside their file completely."""
        if self.raw is not None:
            sizes = np.array([file.stat().st_size for file in self.raw.files], dtype=np.int64)
            frame_bytes = self.shape[1] * self.shape[2] * self.dtype.itemsize
            inside = self.raw.offsets + frame_bytes <= sizes[self.raw.file_index]
        else:
            inside = np.array([_is_inside(page) for page in self.pages], dtype=bool)
        return len(inside) if inside.all() else int(np.argmin(inside))

    def first(self, n_frames: int, pixel_size_nm: float | None, metadata: dict[str, Any]) -> TiffLayout:
        """Keep the first frames, and add what the file says of the acquisition."""
        raw = self.raw
        if raw is not None:
            raw = RawFrames(raw.files, raw.file_index[:n_frames], raw.offsets[:n_frames], raw.stored_dtype)
        shape = (n_frames, *self.shape[1:])
        return TiffLayout(shape, self.dtype, raw, self.pages[:n_frames], self.promised, pixel_size_nm, metadata)


class _Swallow(logging.Filter):
    """Keep tifffile's remarks off the terminal: each of them is checked and reported here in our words."""

    def filter(self, record: logging.LogRecord) -> bool:
        return False


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Silence tifffile's logger for the duration of a block."""
    logger = logging.getLogger("tifffile")
    swallow = _Swallow()
    logger.addFilter(swallow)
    try:
        yield
    finally:
        logger.removeFilter(swallow)


def scan_tiff(tif: TiffFile, path: Path, *, allow_truncated: bool = False) -> TiffLayout:
    """Find every frame of an open TIFF file.

    Parameters
    ----------
    tif : tifffile.TiffFile
        The open file.
    path : Path
        Its path, for messages.
    allow_truncated : bool
        Take the whole frames of a file that was cut off instead of refusing it.

    Returns
    -------
    TiffLayout
        Shape, type and place of the frames.

    Raises
    ------
    MovieError
        When the file is cut off, is not a grey-level movie, or belongs to a series with missing files.
    """
    from smlm_pb.movies.tiff_cut import find_remainder, is_cut_off, truncated_message

    if len(tif.pages) == 0:
        raise MovieError(f"{path} holds no image: the file is damaged or the acquisition was stopped; save it again.")
    pixel_size_nm, metadata = read_tiff_metadata(tif)
    cut = is_cut_off(tif)
    layout = find_remainder(tif, path) if cut else _find_frames(tif, path)
    _refuse_ome_channels(tif, path)
    n_whole = layout.count_whole()
    if cut or n_whole < layout.shape[0]:
        if not allow_truncated or n_whole == 0:
            raise MovieError(truncated_message(path, n_whole, layout.promised))
        metadata["notes"].append(f"{path} is cut off: only its {n_whole} whole frames are used")
    elif n_whole < layout.promised:
        metadata["notes"].append(
            f"the header of {path} speaks of {layout.promised} frames, but {n_whole} were written; these are used"
        )
    metadata["notes"] += layout.metadata.pop("notes", [])
    return layout.first(n_whole, pixel_size_nm, metadata | layout.metadata)


def _find_frames(tif: TiffFile, path: Path) -> TiffLayout:
    """Locate the frames of a file whose headers are all there."""
    series = _choose_series(tif, path)
    axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    axis, notes = time_axis(axes, shape, str(path))
    if series.kind == "imagej" and "Z" in axes:
        notes = []  # every ImageJ stack without further settings has its frames as slices
    n_frames = 1 if axis is None else int(shape[axis])
    height, width = (int(length) for length in (shape[axes.index("Y")], shape[axes.index("X")]))
    pages: list[Page] = []
    if series.dataoffset is not None and not series.is_multifile:
        raw: RawFrames | None = block_of_frames(tif, path, series.dataoffset, (n_frames, height, width))
    else:
        pages = _pages_of(tif, series)
        _check_missing_files(tif, path, pages)
        raw = raw_pages(pages, height, width)
    return TiffLayout(
        (len(pages) or n_frames, height, width),
        series.dtype,
        raw,
        pages,
        max(n_frames, imagej_count(tif)),
        metadata={"format": series.kind or "tiff", "axes": axes, "notes": notes},
    )


def _choose_series(tif: TiffFile, path: Path) -> TiffPageSeries:
    """Take the series with the most frames; small companions (thumbnails, labels) are left aside."""
    frames = [series.size // max(1, series.keyframe.size) for series in tif.series]
    longest = [series for series, count in zip(tif.series, frames, strict=True) if count == max(frames)]
    if not longest:
        raise MovieError(f"{path} holds no image that can be read; save it again as an uncompressed TIFF stack.")
    if len(longest) > 1:
        shapes = ", ".join("×".join(map(str, series.shape)) for series in longest[:4])
        more = ", …" if len(longest) > 4 else ""
        raise MovieError(
            f"{path} holds {len(longest)} image series ({shapes}{more}): save the one to be localized as a file "
            "of its own."
        )
    return longest[0]


def _refuse_ome_channels(tif: TiffFile, path: Path) -> None:
    """Refuse several channels or planes that a file read on its own would pass off as frames."""
    sizes = ome_sizes(tif)
    if sizes.get("C", 1) > 1 or (sizes.get("Z", 1) > 1 and sizes.get("T", 1) > 1):
        time_axis("TZCYX", [sizes.get(axis, 1) for axis in "TZCYX"], str(path))


def block_of_frames(tif: TiffFile, path: Path, start: int, shape: tuple[int, int, int]) -> RawFrames:
    """Place frames that follow each other without gaps from byte ``start``."""
    n_frames, height, width = shape
    dtype = np.dtype(tif.pages.first.dtype).newbyteorder(tif.byteorder)
    offsets = start + height * width * dtype.itemsize * np.arange(n_frames, dtype=np.int64)
    return RawFrames((path,), np.zeros(n_frames, dtype=np.intp), offsets, dtype)


def _pages_of(tif: TiffFile, series: TiffPageSeries) -> list[Page]:
    """List the pages that hold the frames; one page per frame."""
    own = len(tif.series) == 1 and series.kind not in ("ome", "mmstack", "ndtiff")
    if own and len(series) != len(tif.pages):
        # The header's promise may exceed what was written; the chain of pages does not lie.
        pages: list[Page] = list(tif.pages)
    else:
        pages = list(series)
    while pages and _is_absent(pages[-1]):  # an acquisition stopped early
        pages.pop()
    return pages


def _is_absent(page: Page) -> bool:
    return page is None or not page.dataoffsets or (page.dataoffsets[0] == 0 and not any(page.databytecounts))


def _check_missing_files(tif: TiffFile, path: Path, pages: Sequence[Page]) -> None:
    if tif.is_ome:
        named = set(re.findall(r'FileName="([^"]+)"', tif.ome_metadata or ""))
        # A renamed single file still names its old self: only a series of several files can lack one.
        several = named if len(named) > 1 else set()
        absent = sorted(name for name in several if not (path.parent / name).exists())
        if absent:
            is_are = "is" if len(absent) == 1 else "are"
            raise MovieError(
                f"{path} belongs to a series of {len(named)} files, of which {', '.join(absent[:3])} {is_are} "
                f"missing in {path.parent}: put the files side by side, or give a list of the files to be read."
            )
    gaps = sum(_is_absent(page) for page in pages)
    if gaps or not pages:
        raise MovieError(
            f"{path}: {gaps} of {len(pages)} frames announced in the header are missing; copy the complete "
            "series again, or give a list of the files to be read."
        )


def raw_pages(pages: Sequence[Page], height: int, width: int) -> RawFrames | None:
    """Turn uncompressed pages into byte positions; None where a page must be decoded."""
    files: dict[Path, int] = {}
    file_index = np.empty(len(pages), dtype=np.intp)
    offsets = np.empty(len(pages), dtype=np.int64)
    for number, page in enumerate(pages):
        starts, counts = page.dataoffsets, page.databytecounts
        gaps = any(starts[k] + counts[k] != starts[k + 1] for k in range(len(starts) - 1))
        if gaps or not page.is_final or page.keyframe.size != height * width:
            return None
        owner = Path(page.parent.filehandle.path)
        file_index[number] = files.setdefault(owner, len(files))
        offsets[number] = starts[0]
    dtype = np.dtype(pages[0].keyframe.dtype).newbyteorder(pages[0].parent.byteorder)
    return RawFrames(tuple(files), file_index, offsets, dtype)


def _is_inside(page: Page) -> bool:
    size = page.parent.filehandle.size
    segments = zip(page.dataoffsets, page.databytecounts, strict=True)
    return all(count > 0 and start + count <= size for start, count in segments)
