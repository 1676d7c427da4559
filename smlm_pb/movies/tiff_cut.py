"""What is left of a TIFF file that was cut off: a full disk, a broken copy, a crashed acquisition."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smlm_pb.movies.axes import time_axis
from smlm_pb.movies.metadata import imagej_count, ome_sizes
from smlm_pb.movies.tiff_layout import Page, RawFrames, TiffLayout, block_of_frames, raw_pages

if TYPE_CHECKING:
    from tifffile import TiffFile

#: Bytes that a writer may leave between the last frame and the next header.
_ALIGNMENT_BYTES = 64


def truncated_message(path: Path, n_whole: int, promised: int) -> str:
    """Say in one line how much of a cut-off file can be read."""
    of = f" of {promised}" if promised > n_whole else ""
    if n_whole == 0:
        return f"{path} is cut off (truncated) and holds no whole frame{of}: copy or save it again."
    frames = "1 whole frame" if n_whole == 1 else f"{n_whole} whole frames"
    return (
        f"{path} is cut off (truncated): {frames}{of} can be read; copy it again, or use these: "
        "open_movie(path, allow_truncated=True)."
    )


def is_cut_off(tif: TiffFile) -> bool:
    """Tell whether headers are missing at the end of a file."""
    position = tif.pages.next_page_offset
    if position is not None and _pointer_at(tif, position) != 0:
        return True
    # An ImageJ stack beyond 4 GB has a single header, and all frames in one block behind it. A single frame that
    # kept the header of its stack is followed by nothing.
    first = tif.pages.first
    if imagej_count(tif) < 2 or len(tif.pages) > 1 or not first.is_final:
        return False
    behind = tif.filehandle.size - first.dataoffsets[0]
    return 1.5 * first.nbytes < behind < imagej_count(tif) * first.nbytes


def find_remainder(tif: TiffFile, path: Path) -> TiffLayout:
    """Locate the frames of a file that lacks headers, whole or not.

    Parameters
    ----------
    tif : tifffile.TiffFile
        The open file.
    path : Path
        Its path, for messages.

    Returns
    -------
    TiffLayout
        The frames that the remaining headers allow to place; the last ones may lie outside the file.

    Raises
    ------
    MovieError
        When the first frame is no grey-level image.
    """
    first = tif.pages.first
    time_axis(first.axes, first.shape, str(path))
    height, width = (int(length) for length in first.shape[-2:])
    promised = _promise(tif)
    n_block = _block_length(tif, promised)
    pages: list[Page] = []
    if n_block > 1:
        start = first.dataoffsets[0]
        raw: RawFrames | None = block_of_frames(tif, path, start, (n_block, height, width))
    else:
        pages = _readable_pages(tif)
        raw = raw_pages(pages, height, width)
    n_frames = len(pages) or n_block
    return TiffLayout((n_frames, height, width), np.dtype(first.dtype), raw, pages, max(promised, n_frames))


def _pointer_at(tif: TiffFile, position: int) -> int | None:
    """Read the pointer to the next header; None outside the file."""
    tif.filehandle.seek(position)
    try:
        (pointer,) = struct.unpack(tif.tiff.offsetformat, tif.filehandle.read(tif.tiff.offsetsize))
    except struct.error:
        return None
    return int(pointer)


def _block_length(tif: TiffFile, promised: int) -> int:
    """Count the frames that lay in one block between the first and the second header; 1 if there is no block."""
    first = tif.pages.first
    if not first.is_final:
        return 1
    tif.filehandle.seek(first.offset)
    (n_tags,) = struct.unpack(tif.tiff.tagnoformat, tif.filehandle.read(tif.tiff.tagnosize))
    second = _pointer_at(tif, first.offset + tif.tiff.tagnosize + n_tags * tif.tiff.tagsize)
    if not second or second < first.dataoffsets[0]:
        return promised
    n_frames, rest = divmod(second - first.dataoffsets[0], first.nbytes)
    return n_frames if rest < _ALIGNMENT_BYTES or n_frames == promised else 1


def _readable_pages(tif: TiffFile) -> list[Page]:
    """List the pages up to the first one whose header is damaged or speaks of another frame size."""
    pages: list[Page] = []
    for index in range(len(tif.pages)):
        try:
            page: Page = tif.pages[index]
        except Exception:  # half a header raises almost anything
            break
        if page.keyframe.shape != tif.pages.first.shape:
            break
        pages.append(page)
    return pages


def _promise(tif: TiffFile) -> int:
    """Count the frames that the first header speaks of; 1 if it says nothing."""
    first = tif.pages.first
    sizes = ome_sizes(tif)
    told = max(imagej_count(tif), sizes.get("T", 1) * sizes.get("Z", 1), 1)
    try:
        shape = json.loads(first.description)["shape"]
        return max(told, math.prod(shape) // max(1, math.prod(first.shape)))
    except (ValueError, TypeError, KeyError):
        return told
