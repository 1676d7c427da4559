"""A bounded, representative sample of a movie, for estimates that need statistics rather than every frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import MovieError
from smlm_pb.movies import Movie, check_block, open_movie, sample_frames

if TYPE_CHECKING:
    from smlm_pb.camera import Camera

FloatArray = npt.NDArray[np.float64]

_BUDGET_PX = 1_300_000
_MAX_FRAMES = 200
_MIN_FRAMES = 32
_PATCH_PX = 64
#: Frames over which the static part of the image is averaged before it is subtracted.
_STATIC_FRAMES = 8


@dataclass(frozen=True, eq=False)
class FrameSample:
    """Patches of evenly spaced frames.

    Attributes
    ----------
    patches : array (patch, frame, y, x)
        The same places in every sampled frame; a single patch holds whole frames of small movies.
    integer : bool
        Whether the values are whole numbers straight from the converter.
    saturation : float
        Value at and above which pixels are clipped (infinite if nothing is).
    name : str
        Name of the movie, for messages.
    n_movie_frames : int
        Length of the whole movie.
    """

    patches: FloatArray
    integer: bool
    saturation: float
    name: str
    n_movie_frames: int

    @property
    def n_frames(self) -> int:
        """Number of frames in the sample."""
        return self.patches.shape[1]

    def _blocks(self) -> list[slice]:
        """Runs of neighbouring sampled frames, none of them with a single frame unless there is only one."""
        n_blocks = max(1, self.n_frames // _STATIC_FRAMES)
        edges = np.linspace(0, self.n_frames, n_blocks + 1).round().astype(int)
        return [slice(first, last) for first, last in pairwise(edges)]

    @cached_property
    def deviations(self) -> FloatArray:
        """What is not static over neighbouring sampled frames, array (patch, frame, y, x).

        Deviations from the average over about eight neighbouring frames, scaled so that noise that is
        independent between frames keeps its variance. Static structure and fixed-pattern noise cancel;
        what blinks stays. Of a single frame the spatial mean is subtracted instead.
        """
        if self.n_frames == 1:
            return self.patches - self.patches.mean(axis=(2, 3), keepdims=True)
        out = np.empty_like(self.patches)
        for block in self._blocks():
            part = self.patches[:, block]
            scale = np.sqrt(1 - 1 / part.shape[1])
            out[:, block] = (part - part.mean(axis=1, keepdims=True)) / scale
        return out

    def variance_means(self) -> FloatArray:
        """Pixel means to which the noise variance of `deviations` belongs.

        Returns
        -------
        array (patch, frame, y, x)
            The own value with weight 1 − 2/n, and the average over the n neighbouring frames for the rest.
        """
        if self.n_frames == 1:
            return self.patches
        out = np.empty_like(self.patches)
        for block in self._blocks():
            part = self.patches[:, block]
            own = _own_weight(part.shape[1])
            out[:, block] = own * part + (1 - own) * part.mean(axis=1, keepdims=True)
        return out

    @property
    def static_frames(self) -> int:
        """Number of neighbouring sampled frames over which the static part is averaged."""
        return self._blocks()[0].stop

    @property
    def own_weight(self) -> float:
        """Weight of a frame itself in `variance_means`."""
        return _own_weight(self.static_frames)

    def in_electrons(self, camera: Camera) -> FrameSample:
        """Convert ADU to photo-electrons with the camera's values, maps by their median."""
        factor = float(np.median(camera.e_per_adu)) / camera.em_gain
        patches = (self.patches - float(np.median(camera.offset_adu))) * factor
        return replace(self, patches=patches, integer=False, saturation=np.inf)


def _own_weight(n: int) -> float:
    """Share of a frame's own noise in its deviation from the average of ``n`` frames."""
    return 1.0 if n == 1 else (1 - 2 / n) / (1 - 1 / n)


def draw_sample(movie: Movie | FrameSample | npt.ArrayLike) -> FrameSample:
    """Draw up to 200 evenly spaced frames, and of large frames evenly spaced patches of 64×64 px.

    Frames that hold one constant value are left out.

    Parameters
    ----------
    movie : Movie, array (frame, y, x), or FrameSample
        Camera values, or photo-electrons; a sample that was drawn already is returned.

    Returns
    -------
    FrameSample
        At most about 1.3 million pixels.

    Raises
    ------
    MovieError
        When the source is no movie, or the values are no numbers.
    """
    if isinstance(movie, FrameSample):
        return movie
    opened = movie if isinstance(movie, Movie) else open_movie(np.asarray(movie))
    area = opened.height * opened.width
    at_most = min(_MAX_FRAMES, max(_MIN_FRAMES, _BUDGET_PX // area))
    indices, frames = sample_frames(opened, at_most=at_most)
    for index, frame in zip(indices, frames, strict=True):
        check_block(frame[np.newaxis], int(index), opened.name)
    # A frame of one value was dropped or never exposed: among others it tells wrong offsets and backgrounds.
    exposed = frames.min(axis=(1, 2)) != frames.max(axis=(1, 2))
    if not exposed.any():
        raise MovieError(
            f"Movie {opened.name}: every pixel of the {len(frames)} frames looked at is {frames.flat[0]}; "
            "nothing can be estimated from it; give the camera values and the PSF width."
        )
    frames = frames if exposed.all() else frames[exposed]
    return FrameSample(
        patches=_cut_patches(frames),
        integer=frames.dtype.kind in "ui",
        saturation=_saturation(frames),
        name=opened.name,
        n_movie_frames=opened.n_frames,
    )


def _saturation(frames: npt.NDArray[Any]) -> float:
    if frames.dtype.kind == "f":
        return np.inf
    highest = int(frames.max())
    clipped = highest == np.iinfo(frames.dtype).max or (highest & (highest + 1)) == 0
    return float(highest) if clipped and highest >= 255 else np.inf


def _cut_patches(frames: npt.NDArray[Any]) -> FloatArray:
    n_frames, height, width = frames.shape
    if frames.size <= _BUDGET_PX:
        return frames[np.newaxis].astype(np.float64)
    size_y, size_x = min(_PATCH_PX, height), min(_PATCH_PX, width)
    places = max(1, _BUDGET_PX // (n_frames * size_y * size_x))
    rows = max(1, min(height // size_y, round(np.sqrt(places * height / width))))
    columns = max(1, min(width // size_x, places // rows))
    tops = _spread(height, size_y, rows)
    lefts = _spread(width, size_x, columns)
    cut = [frames[:, top : top + size_y, left : left + size_x] for top in tops for left in lefts]
    return np.stack(cut).astype(np.float64)


def _spread(length: int, size: int, count: int) -> list[int]:
    """Place ``count`` windows evenly and centred along an axis."""
    step = length / count
    return [min(length - size, max(0, round((index + 0.5) * step - size / 2))) for index in range(count)]
