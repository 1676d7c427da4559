"""Whether a movie is fit for localization with a given camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from smlm_pb.errors import CameraError, MovieError
from smlm_pb.movies.movie import Movie, sample_frames

if TYPE_CHECKING:
    from smlm_pb.camera import Camera

_SAMPLE_FRAMES = 32
#: Below this fraction of the pixels nothing is said, above it a warning is given.
_SATURATED_WARNING, _SATURATED_ERROR = 1e-4, 0.5
#: Frames that are needed to tell pixels that never change, and the fraction of them that is told.
_STILL_FRAMES, _STILL_WARNING = 8, 0.02
_BELOW_OFFSET_WARNING, _BELOW_OFFSET_ERROR = 0.01, 0.9
#: A hot pixel rises above those around it by so many times the noise of one frame, its neighbours by less than this
#: share of that: of the narrowest PSF on the middle of a pixel it is nearly one half.
_HOT_RISE, _HOT_BESIDE = 3.0, 0.2
#: Pixels of frames that suffice to tell: of large frames fewer are looked at.
_HOT_SAMPLE_PX = 1 << 22
#: More is no accident of single pixels.
_MOST_HOT = 0.03


def check_movie(movie: Movie, camera: Camera | None = None) -> list[str]:
    """Look at a sample of frames for what would spoil the result.

    Parameters
    ----------
    movie : Movie
        An open movie; up to 32 frames, evenly spread, are read.
    camera : Camera, optional
        The camera whose offset and per-pixel maps are held against the movie.

    Returns
    -------
    list of str
        Warnings, each one sentence; empty when nothing is wrong.

    Raises
    ------
    MovieError
        When the frames hold NaN or infinity, one constant value, or mostly saturated pixels.
    CameraError
        When the offset lies above nearly all pixels, or a camera map has another size than the frames.
    """
    indices, frames = sample_frames(movie, at_most=_SAMPLE_FRAMES)
    for index, frame in zip(indices, frames, strict=True):
        check_block(frame[np.newaxis], int(index), movie.name)
    warnings = [f"Movie {movie.name}: {note}." for note in movie.metadata.get("notes", [])]
    # Before constant frames: a movie that is saturated everywhere is one, too, and has another remedy.
    warnings += _check_saturation(movie, frames)
    warnings += _check_constant(movie, frames)
    warnings += _check_scaling(movie, frames)
    warnings += _check_still(movie, frames)
    return warnings if camera is None else warnings + _check_offset(movie, frames, camera)


def check_offset(movie: Movie, camera: Camera) -> list[str]:
    """Hold a camera's offset and per-pixel maps against a movie: the part of :func:`check_movie` that needs a camera.

    Parameters
    ----------
    movie : Movie
        An open movie; the frames are those that `check_movie` looks at.
    camera : Camera
        The camera.

    Returns
    -------
    list of str
        One warning, or none.

    Raises
    ------
    CameraError
        When the offset lies above nearly all pixels, or a camera map has another size than the frames.
    """
    return _check_offset(movie, sample_frames(movie, at_most=_SAMPLE_FRAMES)[1], camera)


def find_hot_pixels(movie: Movie, camera: Camera) -> npt.NDArray[np.intp]:
    """Look for single pixels that are brighter than those around them all the time.

    Parameters
    ----------
    movie : Movie
        An open movie; up to 32 frames, evenly spread, are read.
    camera : Camera
        Its maps of offset and gain, and the bad pixels that it knows, are taken into account.

    Returns
    -------
    array (n, 2), int
        Rows and columns, the hottest first; none where so many seem hot that it is a pattern.
    """
    nothing = np.empty((0, 2), np.intp)
    pixels = movie.height * movie.width
    _, frames = sample_frames(movie, at_most=min(_SAMPLE_FRAMES, max(_STILL_FRAMES, _HOT_SAMPLE_PX // pixels)))
    if len(frames) < _STILL_FRAMES or min(frames.shape[1:]) < 3:
        return nothing
    electrons = camera.to_electrons(frames)
    usual = np.median(electrons, axis=0)
    noise = max(1.4826 * float(np.median(np.abs(electrons - usual))), 1e-6)
    around = sliding_window_view(np.pad(usual, 1, constant_values=-np.inf), (3, 3))
    beside = np.maximum.reduce([around[..., k // 3, k % 3] for k in range(9) if k != 4])
    # Few rise so far above their neighbours; only of these the level around is asked for.
    single = np.argwhere(usual - beside > (1 - _HOT_BESIDE) * _HOT_RISE * noise)
    if not len(single):
        return nothing
    row, column = single.T
    level = np.median(sliding_window_view(np.pad(usual, 2, mode="edge"), (5, 5))[row, column], axis=(1, 2))
    rise = usual[row, column] - level
    is_hot = (rise > _HOT_RISE * noise) & (beside[row, column] - level < _HOT_BESIDE * rise)
    hot, rise = single[is_hot], rise[is_hot]
    return hot[np.argsort(-rise, kind="stable")] if len(hot) <= _MOST_HOT * pixels else nothing


def tell_hot_pixels(name: str, hot: npt.NDArray[np.intp]) -> list[str]:
    """Say which pixels of a movie are hot, from :func:`find_hot_pixels`, and that they are filled in."""
    if not len(hot):
        return []
    row, column = hot[0]
    many, they = (f"{len(hot)} pixels are", "they are") if len(hot) > 1 else ("one pixel is", "it is")
    return [
        f"Movie {name}: {many} always brighter than those around (hot pixels; the hottest is row {row}, column "
        f"{column}); {they} filled in from those around. Molecules there are measured better with the mean of a dark "
        "movie as the camera's offset, pixel by pixel (in Python, Camera(offset_adu=map))."
    ]


def check_block(block: npt.NDArray[Any], first_frame: int, name: str) -> None:
    """Refuse a block with values that are no numbers; costs nothing for integers.

    Parameters
    ----------
    block : array (n, y, x)
        Frames in ADU.
    first_frame : int
        Number of the block's first frame, for the message.
    name : str
        Name of the movie, for the message.

    Raises
    ------
    MovieError
        When a value is NaN or infinite.
    """
    if block.dtype.kind != "f":
        return
    wrong = ~np.isfinite(block)
    if wrong.any():
        frame = int(np.flatnonzero(wrong.any(axis=(1, 2)))[0])
        count = int(wrong[frame].sum())
        raise MovieError(
            f"Movie {name}: frame {first_frame + frame} holds {count} values that are NaN or infinite; use "
            "the raw camera frames, or replace these values."
        )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g} %" if fraction < 0.995 else f"{100 * fraction:.4g} %"


def _check_constant(movie: Movie, frames: npt.NDArray[Any]) -> list[str]:
    low, high = frames.min(axis=(1, 2)), frames.max(axis=(1, 2))
    if low.min() == high.max():
        raise MovieError(
            f"Movie {movie.name}: every pixel of the {len(frames)} frames looked at is {low.min()}; the "
            "camera recorded nothing (shutter closed, or an empty export)."
        )
    constant = low == high
    if constant.any():
        return [
            f"Movie {movie.name}: {constant.sum()} of the {len(frames)} frames looked at hold one constant "
            f"value ({low[constant][0]}): frames may have been dropped."
        ]
    return []


def _check_still(movie: Movie, frames: npt.NDArray[Any]) -> list[str]:
    lit = frames[frames.min(axis=(1, 2)) != frames.max(axis=(1, 2))]  # of dropped frames another warning tells
    still = float((lit == lit[0]).all(axis=0).mean()) if len(lit) >= _STILL_FRAMES else 0.0
    if not _STILL_WARNING < still < 1:
        return []
    return [
        f"Movie {movie.name}: {_percent(still)} of the pixels have the same value in all frames looked at: a region "
        "was masked or padded, or the noise rounded off; molecules at its edge may be false, cut the region off."
    ]


def _clipping_level(frames: npt.NDArray[Any]) -> float | None:
    """Find the value at which the converter clips: the type's largest value, or 2ⁿ − 1."""
    if frames.dtype.kind == "f":
        return None
    highest = int(frames.max())
    levels = [2**bits - 1 for bits in (8, 10, 11, 12, 13, 14, 15, 16)] + [int(np.iinfo(frames.dtype).max)]
    return highest if highest in levels else None


def _check_saturation(movie: Movie, frames: npt.NDArray[Any]) -> list[str]:
    level = _clipping_level(frames)
    if level is None:
        return []
    fraction = float(np.mean(frames >= level))
    if fraction > _SATURATED_ERROR:
        raise MovieError(
            f"Movie {movie.name}: {_percent(fraction)} of the pixels are saturated at {level:g} ADU; record "
            "it again with less light, gain or exposure."
        )
    if fraction > _SATURATED_WARNING:
        return [
            f"Movie {movie.name}: {_percent(fraction)} of the pixels are saturated at {level:g} ADU; "
            "molecules there come out too dim and too wide."
        ]
    return []


def _check_scaling(movie: Movie, frames: npt.NDArray[Any]) -> list[str]:
    if frames.dtype.kind == "f" and frames.min() >= 0 and frames.max() <= 1:
        return [
            f"Movie {movie.name}: all values lie between 0 and 1; normalized images carry no photon counts, "
            "use the raw camera frames."
        ]
    if frames.dtype.itemsize == 1:
        return [
            f"Movie {movie.name}: values have 8 bits; if they were converted for display, use the raw camera frames."
        ]
    return []


def _check_maps(movie: Movie, camera: Camera) -> None:
    for name in ("offset_adu", "e_per_adu", "read_noise_e"):
        shape = np.shape(getattr(camera, name))
        if shape and shape != (movie.height, movie.width):
            raise CameraError(
                f"The camera's map {name} has shape {shape}, but movie {movie.name} has frames of "
                f"({movie.height}, {movie.width}): crop the map to the movie's region of interest."
            )


def _check_offset(movie: Movie, frames: npt.NDArray[Any], camera: Camera) -> list[str]:
    _check_maps(movie, camera)
    offset = np.asarray(camera.offset_adu, dtype=np.float64)
    read_noise_adu = np.asarray(camera.read_noise_e, dtype=np.float64) / np.asarray(camera.e_per_adu)
    # Dark pixels scatter around the offset by the read noise: only what lies clearly below speaks against it.
    below = float(np.mean(frames < offset - np.maximum(3 * read_noise_adu, 1.0)))
    shown = f"{float(np.median(offset)):g}"
    if below > _BELOW_OFFSET_ERROR:
        raise CameraError(
            f"The camera offset {shown} ADU is above {_percent(below)} of the pixels of movie {movie.name} "
            f"(median {float(np.median(frames)):g} ADU): give the mean of a dark movie as offset."
        )
    if below > _BELOW_OFFSET_WARNING:
        return [
            f"The camera offset {shown} ADU is above {_percent(below)} of the pixels of movie {movie.name}: "
            "the offset is too high, or the background was subtracted; photons and background will be wrong."
        ]
    return []
