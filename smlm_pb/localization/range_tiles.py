"""A movie tile by tile: what was found in each part of the field, and what its pixels tell."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.background_level import background_of_tiles
from smlm_pb.localization.frame_sample import FrameSample
from smlm_pb.localization.psf_width import measure_widths

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.localizations import Localizations
    from smlm_pb.movies import Movie

FloatArray = npt.NDArray[np.float64]

#: Tiles are this large at least, px, and at most this many along a side.
_LEAST_PX, _MOST_TILES = 32, 8
#: Part of a large tile that is looked at, px, and frames that are.
_WINDOW_PX, _MOST_FRAMES = 48, 64
#: Shorter movies do not tell the width of the PSF by parts.
FEWEST_FRAMES = 16


@dataclass(frozen=True)
class TileGrid:
    """A frame cut into nearly equal tiles.

    Parameters
    ----------
    height, width : int
        The frame, px.
    rows, columns : int
        Tiles along y and x.
    """

    height: int
    width: int
    rows: int
    columns: int

    @classmethod
    def of_frame(cls, height: int, width: int) -> TileGrid:
        """Tiles of at least 32 px, at most 8 along the longer side."""
        side = max(_LEAST_PX, -(-max(height, width) // _MOST_TILES))
        return cls(height, width, max(1, round(height / side)), max(1, round(width / side)))

    @property
    def edges_y(self) -> npt.NDArray[np.int64]:
        """First rows of the tiles, and the height (rows + 1,)."""
        return np.linspace(0, self.height, self.rows + 1).round().astype(np.int64)

    @property
    def edges_x(self) -> npt.NDArray[np.int64]:
        """First columns of the tiles, and the width (columns + 1,)."""
        return np.linspace(0, self.width, self.columns + 1).round().astype(np.int64)

    @property
    def area_px2(self) -> FloatArray:
        """Area of every tile (rows, columns), px²."""
        return np.outer(np.diff(self.edges_y), np.diff(self.edges_x)).astype(np.float64)

    def index(self, y: npt.NDArray[np.floating], x: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """Number of the tile that holds each position, row by row."""
        row = np.searchsorted(self.edges_y[1:-1] - 0.5, y, side="right")
        column = np.searchsorted(self.edges_x[1:-1] - 0.5, x, side="right")
        return (row * self.columns + column).astype(np.int64)

    def name(self, row: int, column: int) -> str:
        """Where a tile is, in pixels."""
        y, x = self.edges_y, self.edges_x
        return f"x {x[column]} to {x[column + 1] - 1}, y {y[row]} to {y[row + 1] - 1}"


class MoleculesByTile:
    """Gathers what was found in each tile, portion by portion in constant memory."""

    def __init__(self, grid: TileGrid) -> None:
        self.grid = grid
        self._count = np.zeros(grid.rows * grid.columns)
        self._log_photons, self._background = np.zeros_like(self._count), np.zeros_like(self._count)

    def add(self, rows: Localizations) -> None:
        """Take in some rows of the table."""
        tile, size = self.grid.index(rows["y"], rows["x"]), len(self._count)
        photons = np.maximum(rows["photons"].astype(np.float64), 1e-3)
        self._count += np.bincount(tile, minlength=size)
        self._log_photons += np.bincount(tile, np.log(photons), minlength=size)
        self._background += np.bincount(tile, rows["background"].astype(np.float64), minlength=size)

    @property
    def count(self) -> FloatArray:
        """Molecules in each tile (rows, columns)."""
        return self._count.reshape(self.grid.rows, self.grid.columns)

    def typical_photons(self, fewest: int) -> FloatArray:
        """Geometric mean of the photons in each tile, e⁻; NaN with fewer molecules than ``fewest``."""
        return np.exp(self._mean(self._log_photons, fewest))

    def mean_background(self, fewest: int) -> FloatArray:
        """Mean background under the molecules of each tile, e⁻ per pixel; NaN with too few."""
        return self._mean(self._background, fewest)

    def _mean(self, sums: FloatArray, fewest: int) -> FloatArray:
        enough = self._count >= max(1, fewest)
        mean = np.full_like(sums, np.nan)
        mean[enough] = sums[enough] / self._count[enough]
        return mean.reshape(self.grid.rows, self.grid.columns)


@dataclass(frozen=True)
class PixelsByTile:
    """What the pixels of each tile tell without any model; NaN where they do not tell.

    Parameters
    ----------
    psf_sigma_px, psf_error_px : array (rows, columns)
        Width of the PSF and its standard error.
    background_e : array (rows, columns)
        Background between the molecules, e⁻ per pixel.
    movie_psf_px : (float, float)
        Width of the PSF and its standard error over all tiles.
    """

    psf_sigma_px: FloatArray
    psf_error_px: FloatArray
    background_e: FloatArray
    movie_psf_px: tuple[float, float] = (float("nan"), float("nan"))

    @classmethod
    def unknown(cls, grid: TileGrid) -> PixelsByTile:
        """Of a movie that is too short."""
        nothing = np.full((grid.rows, grid.columns), np.nan)
        return cls(nothing, nothing, nothing)


def measure_tiles(movie: Movie, camera: Camera, grid: TileGrid, frames: tuple[int, int]) -> PixelsByTile:
    """Measure PSF width and background in each tile, from some 64 frames.

    Parameters
    ----------
    movie : Movie
        The movie.
    camera : Camera
        Turns its values into photo-electrons.
    grid : TileGrid
        The tiles; of large ones the middle 48 px are looked at.
    frames : (int, int)
        First frame and the one after the last.

    Returns
    -------
    PixelsByTile
    """
    import torch

    start, stop = frames
    if stop - start < FEWEST_FRAMES:
        return PixelsByTile.unknown(grid)
    windows = _windows(movie, camera, grid, np.unique(np.linspace(start, stop - 1, _MOST_FRAMES).round().astype(int)))
    read_variance = float(np.median(camera.read_variance_e2))

    def background_of(window: FloatArray) -> float:
        sample = _sample(window[np.newaxis], movie)
        return float(np.median(background_of_tiles(sample, read_variance, camera.excess_noise_factor)))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        sigma, error, together = measure_widths(windows, pool.map)
        background = np.array(list(pool.map(background_of, windows)))
    shape = (grid.rows, grid.columns)
    return PixelsByTile(sigma.reshape(shape), error.reshape(shape), background.reshape(shape), together)


def _windows(movie: Movie, camera: Camera, grid: TileGrid, frames: npt.NDArray[np.intp]) -> FloatArray:
    """Middle parts of all tiles (tile, frame, y, x) in photo-electrons."""
    side_y = min(_WINDOW_PX, int(np.diff(grid.edges_y).min()))
    side_x = min(_WINDOW_PX, int(np.diff(grid.edges_x).min()))
    tops = (grid.edges_y[:-1] + grid.edges_y[1:] - side_y) // 2
    lefts = (grid.edges_x[:-1] + grid.edges_x[1:] - side_x) // 2
    out = np.empty((grid.rows * grid.columns, len(frames), side_y, side_x))
    for k, frame in enumerate(frames):
        electrons = camera.to_electrons(movie.read(int(frame), int(frame) + 1))[0]
        for tile, (top, left) in enumerate((t, c) for t in tops for c in lefts):
            out[tile, k] = electrons[top : top + side_y, left : left + side_x]
    return out


def _sample(patches: FloatArray, movie: Movie) -> FrameSample:
    return FrameSample(patches, integer=False, saturation=np.inf, name=movie.name, n_movie_frames=movie.n_frames)
