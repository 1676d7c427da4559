"""The pictures of a report: the super-resolved image, a detail of it, what the camera saw, single frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.report_svg import picture_svg

if TYPE_CHECKING:
    from smlm_pb.analysis.rendering import Roi
    from smlm_pb.localizations import Localizations
    from smlm_pb.movies import Movie

ByteImage = npt.NDArray[np.uint8]

#: Longest side of a picture, px: sharp on any screen, and small enough to be sent by mail.
_LONGEST_PX = 1600
_DETAIL_NM = 3000.0
_DETAIL_PX = 750
#: Frames larger than this are shown in part, so that single molecules stay visible.
_FRAME_PX = 64
_N_FRAMES = 3
_PROJECTED_FRAMES = 300


@dataclass(frozen=True)
class SuperResolved:
    """The rendered image.

    Parameters
    ----------
    overview, detail : str
        SVG; the detail is empty where the overview shows everything.
    pixel_size_nm, detail_pixel_size_nm : float
        Edges of their pixels.
    """

    overview: str
    detail: str
    pixel_size_nm: float
    detail_pixel_size_nm: float


def super_resolved(
    locs: Localizations, *, pixel_size_nm: float = 10.0, camera_pixel_size_nm: float | None = None
) -> SuperResolved:
    """Render a table for a page; larger pixels where the picture would be larger than any screen.

    Parameters
    ----------
    locs : Localizations
        The table.
    pixel_size_nm : float
        Edge of a pixel of the image.
    camera_pixel_size_nm : float, optional
        Edge of a camera pixel, where the table does not know it.

    Raises
    ------
    SmlmPbError
        When it cannot be rendered, for example without a pixel size.
    """
    from smlm_pb.analysis.picture import draw_scale_bar, to_picture
    from smlm_pb.analysis.rendering import render

    camera_nm = camera_pixel_size_nm or locs.info.pixel_size_nm
    field_nm = max(locs.info.height, locs.info.width) * (camera_nm or 0.0)
    pixel = max(pixel_size_nm, field_nm / _LONGEST_PX)
    method: Any = "gaussian" if "sigma_x" in locs and "sigma_y" in locs else "blur"
    image = render(locs, pixel_size_nm=pixel, method=method, camera_pixel_size_nm=camera_pixel_size_nm)
    picture = draw_scale_bar(to_picture(image.image), pixel)
    label = f"super-resolved image of {image.n_molecules} molecules"
    if camera_nm is None or field_nm < 2 * _DETAIL_NM:
        return SuperResolved(picture_svg(picture, label), "", pixel, pixel)
    region = _densest(locs, _DETAIL_NM / camera_nm)
    fine_nm = _DETAIL_NM / _DETAIL_PX
    detail = render(locs, pixel_size_nm=fine_nm, method=method, roi=region, camera_pixel_size_nm=camera_pixel_size_nm)
    y0, x0, y1, x1 = region
    (top, left), step = image.translate_px, image.scale_px[0]
    box = ((y0 - top) / step, (x0 - left) / step, (y1 - top) / step, (x1 - left) / step)
    fine = draw_scale_bar(to_picture(detail.image), fine_nm)
    return SuperResolved(
        picture_svg(picture, label, box_px=box), picture_svg(fine, "detail of the image"), pixel, fine_nm
    )


def _densest(locs: Localizations, side_px: float) -> Roi:
    """The square window with the most molecules, inside the frame."""
    height, width = locs.info.height, locs.info.width
    step = side_px / 4
    counts, y_edges, x_edges = np.histogram2d(
        locs["y"], locs["x"], [np.arange(-0.5, size - 0.5 + step, step) for size in (height, width)]
    )
    # A few spots that shine all the time must not draw the eye away from the structure.
    counts = np.minimum(counts, np.percentile(counts[counts > 0], 95) if counts.any() else 1)
    summed = np.pad(counts.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    n = min(4, *counts.shape)
    window = summed[n:, n:] - summed[:-n, n:] - summed[n:, :-n] + summed[:-n, :-n]
    row, column = np.unravel_index(int(np.argmax(window)), window.shape)
    top = min(max(float(y_edges[row]), -0.5), max(height - 0.5 - side_px, -0.5))
    left = min(max(float(x_edges[column]), -0.5), max(width - 0.5 - side_px, -0.5))
    return (top, left, min(top + side_px, height - 0.5), min(left + side_px, width - 0.5))


def camera_average(movie: Movie) -> tuple[str, int]:
    """What the camera saw on average: SVG and number of frames."""
    from smlm_pb.movies.movie import sample_frames

    indices, frames = sample_frames(movie, at_most=_PROJECTED_FRAMES)
    mean = frames.astype(np.float64).mean(axis=0)
    return picture_svg(_grey(mean, 0.5, 99.8), f"average of {len(indices)} frames", pixelated=True), len(indices)


def example_frames(
    movie: Movie, locs: Localizations, frames: tuple[int, int], truth: Localizations | None = None
) -> list[tuple[str, int, int]]:
    """Single frames with circles around what was found, crosses on what is true.

    Parameters
    ----------
    movie : Movie
        Camera frames.
    locs : Localizations
        Found molecules, frame by frame (not linked).
    frames : (int, int)
        First frame that was localized, and the one after the last.
    truth : Localizations, optional
        True molecules.

    Returns
    -------
    list of (str, int, int)
        SVG, frame number, molecules found in the part that is shown.
    """
    shown = []
    for frame in _typical_frames(locs, frames[0], min(frames[1], movie.n_frames)):
        image = movie.read(frame, frame + 1)[0].astype(np.float64)
        here = locs["frame"] == frame
        top, left, bottom, right = _crowded_part(locs["y"][here], locs["x"][here], image.shape)
        inside = here & (locs["y"] >= top - 0.5) & (locs["y"] < bottom - 0.5)
        inside &= (locs["x"] >= left - 0.5) & (locs["x"] < right - 0.5)
        marks = "".join(
            f'<circle class="found" cx="{x - left:.2f}" cy="{y - top:.2f}" r="1.7"/>'
            for x, y in zip(locs["x"][inside], locs["y"][inside], strict=True)
        )
        if truth is not None:
            marks += "".join(
                f'<path class="true" d="M{x - left - 0.7:.2f} {y - top:.2f}h1.4m-0.7 -0.7v1.4"/>'
                for x, y in zip(*(truth[axis][truth["frame"] == frame] for axis in "xy"), strict=True)
                if left - 0.5 <= x < right - 0.5 and top - 0.5 <= y < bottom - 0.5
            )
        part = _grey(image[top:bottom, left:right], 1, 99.9)
        label = f"frame {frame} with the molecules found"
        shown.append((picture_svg(part, label, marks=marks, pixelated=True), frame, int(inside.sum())))
    return shown


def _typical_frames(locs: Localizations, start: int, stop: int) -> list[int]:
    """In each third of the movie the frame whose number of molecules is nearest to the median of that third."""
    frame = locs["frame"].astype(np.intp)
    per_frame = np.bincount(frame[frame < stop], minlength=stop)
    chosen = []
    for part in np.array_split(np.arange(start, stop), max(min(_N_FRAMES, stop - start), 1)):
        if not len(part):
            continue
        filled = part[per_frame[part] > 0] if per_frame[part].any() else part
        chosen.append(int(filled[np.argmin(np.abs(per_frame[filled] - np.median(per_frame[filled])))]))
    return chosen


def _crowded_part(y: npt.NDArray[Any], x: npt.NDArray[Any], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Corners (top, left, bottom, right) of the part of a frame that is shown."""
    corners = []
    for position, size in zip((y, x), shape, strict=True):
        middle = float(np.median(position)) if len(position) else size / 2
        corners.append(int(np.clip(round(middle) - _FRAME_PX // 2, 0, max(size - _FRAME_PX, 0))))
    return corners[0], corners[1], min(corners[0] + _FRAME_PX, shape[0]), min(corners[1] + _FRAME_PX, shape[1])


def _grey(values: npt.NDArray[Any], low: float, high: float) -> ByteImage:
    bottom, top = np.percentile(values, [low, high])
    # The square root shows dim molecules beside bright ones, and gives photon noise the same strength everywhere.
    relative = np.sqrt(np.clip((values - bottom) / max(top - bottom, 1e-9), 0, 1))
    grey: ByteImage = np.rint(255 * relative).astype(np.uint8)
    return grey
