"""Frames of a real movie in photo-electrons, and random crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError
from smlm_pb.localization.settings import frame_range
from smlm_pb.movies import Movie, open_movie
from smlm_pb.training.data_settings import MovieSettings

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

#: Memory that the frames of a movie may take; of longer movies evenly spaced frames are used.
_MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class MovieFrames:
    """Some frames of a movie as a network sees them.

    Parameters
    ----------
    number : array (n,), int
        Their numbers in the movie, ascending.
    electrons : array (n, height, width), float32
        Effective photo-electrons: divided by the camera's excess noise factor.
    read_noise_e : float
        Read noise on the same scale.
    psf_sigma_px : float
        Width of the point-spread function, px.
    flips : bool
        Whether crops may be flipped and turned.
    """

    number: IntArray
    electrons: Float32Array
    read_noise_e: float
    psf_sigma_px: float
    flips: bool

    def __len__(self) -> int:
        return len(self.number)

    def select(self, index: npt.ArrayLike) -> MovieFrames:
        """Some of the frames, by index or mask."""
        chosen = np.asarray(index)
        return MovieFrames(
            self.number[chosen], self.electrons[chosen], self.read_noise_e, self.psf_sigma_px, self.flips
        )

    def hold_out(self, share: float) -> tuple[MovieFrames, MovieFrames]:
        """Split off the last frames, which share no blink with most of the others.

        Returns
        -------
        MovieFrames, MovieFrames
            To learn from, and to judge by.

        Raises
        ------
        ConfigurationError
            When there are fewer than two frames.
        """
        if len(self) < 2:
            raise ConfigurationError(
                "Only one frame has labels or counts: at least two are needed, one to learn from and one to judge by."
            )
        last = min(len(self) - 1, max(1, round(share * len(self))))
        index = np.arange(len(self))
        return self.select(index[:-last]), self.select(index[-last:])


@dataclass(frozen=True)
class Window:
    """A window of a frame and how it is turned; positions are carried along.

    Parameters
    ----------
    frame : int
        Index of the frame.
    row, column : int
        First row and column.
    turn : int
        0 to 7: quarter turns (modulo 4), and a transposition before them from 4 on.
    """

    frame: int
    row: int
    column: int
    size: tuple[int, int]
    turn: int = 0

    def cut(self, image: npt.NDArray[np.float32]) -> Float32Array:
        """The window of ``image`` (height, width), turned."""
        height, width = self.size
        return turned(image[self.row : self.row + height, self.column : self.column + width], self.turn)

    def move(self, y: npt.ArrayLike, x: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Positions in the movie to positions in the turned window, px."""
        rows, columns = self.size
        a, b = np.asarray(y, np.float64) - self.row, np.asarray(x, np.float64) - self.column
        if self.turn >= 4:
            a, b, rows, columns = b, a, columns, rows
        for _ in range(self.turn % 4):
            # np.rot90: what lay at (a, b) of a (rows, columns) image comes to (columns - 1 - b, a).
            a, b, rows, columns = columns - 1 - b, a, columns, rows
        return a, b


def turned(image: npt.NDArray[np.float32], turn: int) -> Float32Array:
    """An image under one of the eight symmetries of the square."""
    if turn >= 4:
        image = image.T
    return np.ascontiguousarray(np.rot90(image, turn % 4), dtype=np.float32)


def draw_window(rng: np.random.Generator, frames: MovieFrames, size_px: int) -> Window:
    """A random window of a random frame."""
    height, width = frames.electrons.shape[1:]
    return Window(
        frame=int(rng.integers(len(frames))),
        row=int(rng.integers(height - size_px + 1)),
        column=int(rng.integers(width - size_px + 1)),
        size=(size_px, size_px),
        turn=int(rng.integers(8)) if frames.flips else 0,
    )


def load_frames(settings: MovieSettings, *, wanted: Sequence[int] | IntArray | None = None) -> MovieFrames:
    """Read frames of a movie into photo-electrons.

    Parameters
    ----------
    settings : MovieSettings
        The movie, its camera and the frames asked for.
    wanted : sequence of int, optional
        Only these frames.

    Returns
    -------
    MovieFrames
        All of them, or evenly spaced ones where they would take more than 256 MB.

    Raises
    ------
    MovieError
        When the movie cannot be read.
    ConfigurationError
        When it has none of the frames.
    """
    movie = open_movie(settings.movie)
    try:
        start, stop = frame_range(settings.frames, movie)[0]
        number = np.arange(start, stop)
        if wanted is not None:
            number = np.intersect1d(number, np.asarray(wanted, np.int64))
        if not len(number):
            raise ConfigurationError(
                f"Movie {movie.name}: none of its frames {start} to {stop - 1} is labelled or counted: check the frame "
                "numbers, which count from 0, and frames."
            )
        most = max(2, _MAX_BYTES // (4 * movie.height * movie.width))
        if len(number) > most:
            number = number[np.unique(np.linspace(0, len(number) - 1, most).round().astype(int))]
        adu = _read(movie, number)
    finally:
        movie.close()
    camera = settings.camera.camera()
    factor = camera.excess_noise_factor
    electrons = camera.to_electrons(adu) / np.float32(factor)
    read_noise = float(np.sqrt(np.median(camera.read_variance_e2))) / factor
    return MovieFrames(number, electrons.astype(np.float32), read_noise, settings.psf_sigma_px, settings.flips)


def _read(movie: Movie, number: IntArray) -> npt.NDArray[Any]:
    """Frames of a movie, runs of neighbours in one piece."""
    runs = np.split(number, np.flatnonzero(np.diff(number) != 1) + 1)
    return np.concatenate([movie.read(int(run[0]), int(run[-1]) + 1) for run in runs])
