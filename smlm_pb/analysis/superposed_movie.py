"""A movie whose frames are sums of frames of another one: the same sample, several times as crowded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.movies.movie import MovieBase

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.movies import Movie


class SuperposedMovie(MovieBase):
    """Sums of frames in effective photo-electrons, on which photon noise has variance = mean.

    Light adds up, and so does its noise: a sum of frames is what the camera would have seen of all their molecules at
    once, on the sum of their backgrounds.

    Parameters
    ----------
    movie : Movie
        Camera frames in ADU.
    camera : Camera
        Turns them into photo-electrons.
    members : list of int arrays
        Frames of the movie whose sum each frame of this one is.
    """

    def __init__(self, movie: Movie, camera: Camera, members: list[npt.NDArray[np.intp]]) -> None:
        self._movie, self._camera, self._members = movie, camera, members
        super().__init__(
            name=movie.name,
            shape=(len(members), movie.height, movie.width),
            dtype=np.float32,
            pixel_size_nm=movie.pixel_size_nm,
        )

    @property
    def source(self) -> Any:
        """The movie whose frames are added."""
        return self._movie

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        return np.stack([self._sum(members) for members in self._members[start:stop]])

    def _sum(self, members: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        camera = self._camera
        total = np.zeros((self._movie.height, self._movie.width), np.float32)
        for frame in members:
            total += camera.to_electrons(self._movie.read(int(frame), int(frame) + 1)[0])
        return total / np.float32(camera.excess_noise_factor)


def group_frames(frames: npt.NDArray[np.intp], added: int) -> list[npt.NDArray[np.intp]]:
    """Deal frames to sums: every frame once, those of one sum as far apart as they can be.

    Parameters
    ----------
    frames : int array (n,)
        Ascending.
    added : int
        Frames per sum; what is left over at the end is not used.

    Returns
    -------
    list of int arrays (added,)
        ``n // added`` sums.
    """
    n = len(frames) // added
    return [frames[first : n * added : n] for first in range(n)]
