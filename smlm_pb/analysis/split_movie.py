"""A movie whose frames are the two halves, and the whole, of the frames of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.thinning import split_exposure
from smlm_pb.movies.movie import MovieBase, even_frames

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.movies import Movie

#: Frames made of one: first half, second half, whole.
VIEWS = 3


class SplitMovie(MovieBase):
    """Half-exposures of a movie in effective photo-electrons, on which photon noise has variance = mean.

    Frame ``3 k`` and ``3 k + 1`` are the halves of the ``k``-th chosen frame, ``3 k + 2`` is the whole. A frame is
    always split the same way, however the movie is read.

    Parameters
    ----------
    movie : Movie
        Camera frames in ADU.
    camera : Camera
        Turns them into photo-electrons; its read noise is split too.
    frames : (int, int)
        First frame and the one after the last.
    max_frames : int
        How many of them are taken at most, evenly spread.
    seed : int
        Seed of the splitting.
    """

    def __init__(self, movie: Movie, camera: Camera, frames: tuple[int, int], max_frames: int, seed: int) -> None:
        start, stop = frames
        self._movie, self._camera, self._seed = movie, camera, seed
        self._chosen = [start + index for index in even_frames(stop - start, max_frames)]
        super().__init__(
            name=movie.name,
            shape=(VIEWS * len(self._chosen), movie.height, movie.width),
            dtype=np.float32,
            pixel_size_nm=movie.pixel_size_nm,
        )

    @property
    def source(self) -> Any:
        """The movie that is split."""
        return self._movie

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        first, last = start // VIEWS, -(-stop // VIEWS)
        views = np.concatenate([self._views(self._chosen[k]) for k in range(first, last)])
        return views[start - VIEWS * first : stop - VIEWS * first]

    def _views(self, frame: int) -> npt.NDArray[np.float32]:
        camera = self._camera
        electrons = camera.to_electrons(self._movie.read(frame, frame + 1)[0]) / np.float32(camera.excess_noise_factor)
        # Divided by F², the read variance by its square.
        read_variance_e2 = np.asarray(camera.read_variance_e2) / camera.excess_noise_factor**2
        rng = np.random.default_rng([self._seed, frame])
        return np.stack([*split_exposure(electrons, rng, read_variance_e2=read_variance_e2), electrons])
