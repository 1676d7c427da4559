"""Photons of every blink in every frame around it, measured in the movie at the blink's mean position.

The localizations of a blink tell its photons frame by frame, but not in the frames where it was too dim to be found,
and with the errors of each frame's position. Here the position is known, from the whole blink: the photons of a frame
are one coefficient of a weighted least-squares fit with the pixels' background and the light of the neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import Cancelled, ConfigurationError, MovieError, TableError

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Frames before the first and after the last localization of a blink that are looked at.
PAD_FRAMES = 3
#: Neighbours whose light is fitted as well, and how near they are, in widths of the PSF.
_NEIGHBOURS, _NEAR_SIGMA = 3, 5.0
_WINDOW_SIGMA = 3.0
#: Windows that are fitted at a time.
_BATCH = 4000
_BLOCK_PX = 1 << 23


@dataclass(frozen=True)
class Traces:
    """Photons of blinks, frame by frame; one row per blink and frame, ordered by blink, then frame.

    Parameters
    ----------
    blink : int array (n,)
        Row of the blink in its table.
    frame : int array (n,)
        Frame of the movie.
    photons : array (n,)
        Effective photo-electrons (electrons, divided by the excess noise factor); may be negative.
    variance_dark : array (n,)
        Variance of ``photons`` without any light of the blink.
    variance_per_photon : array (n,)
        What each photo-electron of the blink adds to it.
    """

    blink: IntArray
    frame: IntArray
    photons: FloatArray
    variance_dark: FloatArray
    variance_per_photon: FloatArray


def measure_traces(
    linked: Localizations,
    movie: Any,
    *,
    camera: Camera,
    psf_sigma_px: float,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Traces:
    """Measure the traces of the blinks of a linked table.

    Parameters
    ----------
    linked : Localizations
        One row per blink, with ``on_frames`` and ``photons``; positions are those on the camera.
    movie : path, array (frame, y, x), or Movie
        The movie it was made from.
    camera : Camera
        For photo-electrons.
    psf_sigma_px : float
        Width of the point-spread function.
    on_progress, should_stop : callable, optional
        As for :func:`smlm_pb.localize`.

    Returns
    -------
    Traces

    Raises
    ------
    TableError
        When the table is not linked.
    MovieError
        When the movie cannot be read or is another one.
    Cancelled
        When ``should_stop`` said so.
    """
    from smlm_pb.movies import open_movie

    missing = [name for name in ("on_frames", "photons") if name not in linked]
    if missing:
        raise TableError(f"The table has no column {' and '.join(missing)}: link it first, one row per blink.")
    if not (math.isfinite(psf_sigma_px) and psf_sigma_px >= 0.3):
        raise ConfigurationError(f"psf_sigma_px = {psf_sigma_px} is impossible; give 0.3 or more, e.g. 1.2.")
    opened = open_movie(movie)
    try:
        fits = _Fits(linked, opened.height, opened.width, opened.n_frames, camera, psf_sigma_px)
        if len(linked) and (fits.first.max() >= opened.n_frames or not fits.inside):
            raise MovieError(
                f"Movie {opened.name} has {opened.n_frames} frames of {opened.height}×{opened.width} px, the table has "
                "molecules outside of them: give the movie that the table was made from."
            )
        per_block = max(1, _BLOCK_PX // (opened.height * opened.width))
        parts = []
        for start in range(0, opened.n_frames, per_block):
            if should_stop is not None and should_stop():
                raise Cancelled("Stopped measuring the traces; no times were found.")
            stop = min(start + per_block, opened.n_frames)
            rows, frames = fits.rows_in(start, stop)
            if len(rows):
                electrons = camera.to_electrons(opened.read(start, stop)) / camera.excess_noise_factor
                parts += fits.measure(rows, frames, np.asarray(electrons, np.float64), start)
            if on_progress is not None:
                on_progress(stop, opened.n_frames)
        return _joined(parts)
    finally:
        if opened is not movie:
            opened.close()


def _joined(parts: list[tuple[Any, ...]]) -> Traces:
    if not parts:
        empty = np.empty(0)
        return Traces(np.empty(0, np.int64), np.empty(0, np.int64), empty, empty, empty)
    blink, frame, photons, dark, per_photon = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((frame, blink))
    return Traces(blink[order], frame[order], photons[order], dark[order], per_photon[order])


class _Fits:
    """Windows around blinks, and who shines into them."""

    def __init__(
        self, linked: Localizations, height: int, width: int, n_frames: int, camera: Camera, psf_sigma_px: float
    ) -> None:
        self.x, self.y = linked["x"].astype(np.float64), linked["y"].astype(np.float64)
        self.first = linked["frame"].astype(np.int64)
        self.last = self.first + linked["on_frames"].astype(np.int64) - 1
        factor = camera.excess_noise_factor
        counted = linked["n_localizations"] if "n_localizations" in linked else linked["on_frames"]
        self.rate = linked["photons"].astype(np.float64) / np.maximum(counted, 1) / factor
        background = linked["background"] if "background" in linked else np.zeros(len(linked))
        self.background = np.clip(background.astype(np.float64) / factor, 0.1, None)
        variance = np.broadcast_to(np.asarray(camera.read_variance_e2, np.float64), (height, width))
        self.read_variance = variance / factor**2
        self.shape, self.n_frames, self.sigma = (height, width), n_frames, psf_sigma_px
        self.radius = max(2, math.ceil(_WINDOW_SIGMA * psf_sigma_px))
        self.begin, self.end = np.maximum(self.first - PAD_FRAMES, 0), np.minimum(self.last + PAD_FRAMES, n_frames - 1)
        self.neighbours = self._find_neighbours()

    @property
    def inside(self) -> bool:
        """Whether all blinks lie in the frame."""
        height, width = self.shape
        return bool(((self.x > -1) & (self.x < width) & (self.y > -1) & (self.y < height)).all())

    def _find_neighbours(self) -> IntArray:
        """The nearest blinks that are on at about the same time (n, 3); -1 where there are none."""
        from scipy.spatial import cKDTree

        found = np.full((len(self.x), _NEIGHBOURS), -1, np.int64)
        if len(self.x) < 2:
            return found
        points = np.stack((self.x, self.y), axis=1)
        pairs = cKDTree(points).query_pairs(_NEAR_SIGMA * self.sigma, output_type="ndarray")
        both = np.concatenate((pairs, pairs[:, ::-1]))
        one, other = both.T
        meet = (self.first[other] - 1 <= self.end[one]) & (self.last[other] + 1 >= self.begin[one])
        one, other = one[meet], other[meet]
        distance = np.hypot(*(points[one] - points[other]).T)
        order = np.lexsort((distance, one))
        one, other = one[order], other[order]
        rank = np.arange(len(one)) - np.searchsorted(one, one)
        kept = rank < _NEIGHBOURS
        found[one[kept], rank[kept]] = other[kept]
        return found

    def rows_in(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """Blinks and frames of all windows in some frames."""
        first, last = np.maximum(self.begin, start), np.minimum(self.end, stop - 1)
        length = np.maximum(last - first + 1, 0)
        rows = np.repeat(np.arange(len(length)), length)
        frames = np.arange(len(rows)) - np.repeat(np.cumsum(length) - length, length) + first[rows]
        return rows, frames

    def measure(self, rows: IntArray, frames: IntArray, electrons: FloatArray, start: int) -> list[tuple[Any, ...]]:
        """Photons and their variances, a batch of windows at a time."""
        return [
            self._measure(rows[k : k + _BATCH], frames[k : k + _BATCH], electrons, start)
            for k in range(0, len(rows), _BATCH)
        ]

    def _measure(self, rows: IntArray, frames: IntArray, electrons: FloatArray, start: int) -> tuple[Any, ...]:
        height, width = self.shape
        steps = np.arange(-self.radius, self.radius + 1)
        row = np.rint(self.y[rows]).astype(np.int64)[:, None] + steps
        column = np.rint(self.x[rows]).astype(np.int64)[:, None] + steps
        in_row, in_column = (row >= 0) & (row < height), (column >= 0) & (column < width)
        inside = (in_row[:, :, None] & in_column[:, None, :]).reshape(len(rows), -1)
        at = (frames - start)[:, None, None], row.clip(0, height - 1)[:, :, None], column.clip(0, width - 1)[:, None, :]
        pixels = electrons[at].reshape(len(rows), -1)
        read = self.read_variance[at[1], at[2]].reshape(len(rows), -1)
        inside &= np.isfinite(pixels)
        pixels = np.where(inside, pixels, 0.0)
        own = self._spot(self.x[rows], self.y[rows], row, column)
        noise = self.background[rows][:, None] + read
        design = [own, np.ones_like(own)]
        for k in range(_NEIGHBOURS):
            other = self.neighbours[rows, k]
            # A neighbour may shine in the frames beside those where it was found, too.
            lit = (other >= 0) & (frames >= self.first[other] - 1) & (frames <= self.last[other] + 1)
            spot = self._spot(self.x[other], self.y[other], row, column) * lit[:, None]
            noise = noise + spot * self.rate[other][:, None]
            design.append(spot)
        # Weights for half of the light: they may be off without harm, but not so wrong as without any of it.
        weight = inside / (noise + 0.5 * own * self.rate[rows][:, None])
        columns = np.stack(design, axis=2)
        normal = np.einsum("npi,np,npj->nij", columns, weight, columns)
        # Absent neighbours leave empty rows; two at one place nearly so.
        scale = np.einsum("nii->ni", normal)
        normal += np.einsum("ni,ij->nij", np.where(scale > 0, 1e-6 * scale, 1.0), np.eye(columns.shape[2]))
        first = np.zeros((len(rows), columns.shape[2], 1))
        first[:, 0] = 1.0
        coefficient = np.linalg.solve(normal, first)[:, :, 0]
        estimator = np.einsum("npi,ni->np", columns, coefficient) * weight
        return (
            rows,
            frames,
            (estimator * pixels).sum(1),
            (estimator**2 * noise).sum(1),
            np.maximum((estimator**2 * own).sum(1), 1e-9),
        )

    def _spot(self, x: FloatArray, y: FloatArray, row: IntArray, column: IntArray) -> FloatArray:
        """Share of a blink's light in every pixel of its window (n, pixels)."""
        from scipy.special import ndtr

        along_x, along_y = (
            ndtr((pixel + 0.5 - centre[:, None]) / self.sigma) - ndtr((pixel - 0.5 - centre[:, None]) / self.sigma)
            for pixel, centre in ((column, x), (row, y))
        )
        return np.asarray((along_y[:, :, None] * along_x[:, None, :]).reshape(len(x), -1))
