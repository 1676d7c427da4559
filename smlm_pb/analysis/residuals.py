"""Errors without truth: take the molecules of a table out of their movie and look at what is left.

The molecules are fitted to the pixels once more, groups of overlapping ones together. Light that is left over far from
any of them looks like a missed molecule; a molecule without which the pixels are explained as well looks false; one
whose spot is wider than the point-spread function looks like several merged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.residual_frames import (
    distance_to_nearest,
    find_peaks,
    least_of_neighbours,
    matched_filter,
    smooth_level,
    tile_sums,
)
from smlm_pb.analysis.residual_result import FALSE, MERGED, MISSED, SUSPICIONS, ResidualMap, remarks
from smlm_pb.errors import Cancelled, ConfigurationError, TableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from smlm_pb.camera import Camera
    from smlm_pb.localizations import Localizations
    from smlm_pb.movies import Movie

FloatArray = npt.NDArray[np.float64]

__all__ = ["SUSPICIONS", "ResidualMap", "residual_map"]

DEFAULT_MAX_FRAMES = 200
DEFAULT_TILE_PX = 16
#: Pixels in memory at a time.
_BLOCK_PX = 1 << 20
#: Light this near to a molecule is taken for a part of its spot, in PSF widths: one full width at half maximum.
_OWN_LIGHT_IN_SIGMA = 2.355
#: Molecules beyond the border shine this far into the frame, in PSF widths; what lies there is not judged.
_BORDER_IN_SIGMA = 2.5
#: A spot of several molecules has second moments that perfect fits exceed once in ten million.
_LEAST_MISSHAPE = 35.0
#: A molecule that reaches less than this part of the score is not needed; three fitted parameters reach a third alone.
_NEEDED = 0.45
#: Pixels farther than this from all molecules tell the noise, in PSF widths.
_FAR_IN_SIGMA = 5.0
#: The prior keeps a fit near the table's position, loosely.
_PRIOR_INFLATION = 3.0


def residual_map(
    locs: Localizations,
    movie: Any,
    *,
    camera: Camera | None = None,
    psf_sigma_px: float | None = None,
    frames: tuple[int, int | None] | None = None,
    max_frames: int = DEFAULT_MAX_FRAMES,
    tile_px: int = DEFAULT_TILE_PX,
    least_score: float = 5.0,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ResidualMap:
    """Find what a table does not explain of its movie: suspected missed, false and merged molecules, χ² per tile.

    Parameters
    ----------
    locs : Localizations
        Not linked and not corrected for drift: positions must be those on the camera.
    movie : path, array (frame, y, x), or Movie
        The movie it was made from.
    camera : Camera, optional
        When not given, that of the table's history.
    psf_sigma_px : float, optional
        Width of the point-spread function, px; when not given, that of the table's history or columns.
    frames : (int, int or None), optional
        First frame and the one after the last; when not given, those that were localized.
    max_frames : int
        At most this many frames, evenly spread, are looked at.
    tile_px : int
        Side of the tiles of χ².
    least_score : float
        Light left over counts from this many standard deviations on; a molecule that is not needed to half
        of that looks false.
    device : str
        Where the fits run.
    on_progress, should_stop : callable, optional
        As for :func:`smlm_pb.localize`.

    Returns
    -------
    ResidualMap

    Raises
    ------
    TableError
        When the table is linked or corrected for drift, or camera or PSF width are unknown.
    MovieError
        When the movie cannot be read or has another frame size.
    ConfigurationError
        When an option is impossible.
    Cancelled
        When ``should_stop`` said so.

    References
    ----------
    Residuals of a rendered model as a quality measure: Bi et al., Deep Reflectance Volumes, ECCV 2020. Test of the
    spot's shape: Rao's score test (Rao, Proc. Camb. Phil. Soc. 44, 50, 1948).
    """
    from smlm_pb.movies import open_movie
    from smlm_pb.movies.movie import even_frames

    _check_options(max_frames, tile_px, least_score)
    camera, sigma, (start, stop) = pixel_conditions(locs, camera, psf_sigma_px, frames)
    opened = open_movie(movie)
    try:
        check_movie(locs, opened)
        stop = min(stop, opened.n_frames)
        if stop <= start:
            raise ConfigurationError(f"Movie {opened.name} has no frame {start}; it has {opened.n_frames} frames.")
        chosen = np.array([start + k for k in even_frames(stop - start, max_frames)], np.intp)
        work = _Work(opened, camera, sigma, tile_px, least_score, device)
        per_block = max(1, _BLOCK_PX // (opened.height * opened.width))
        for first in range(0, len(chosen), per_block):
            if should_stop is not None and should_stop():
                raise Cancelled(f"Stopped looking at the residuals of movie {opened.name}; nothing was measured.")
            work.add(locs, chosen[first : first + per_block])
            if on_progress is not None:
                on_progress(min(first + per_block, len(chosen)), len(chosen))
        return work.finish(locs)
    finally:
        if opened is not movie:
            opened.close()


def _check_options(max_frames: int, tile_px: int, least_score: float) -> None:
    if max_frames < 1:
        raise ConfigurationError(f"max_frames = {max_frames} is impossible; give 1 or more, e.g. {DEFAULT_MAX_FRAMES}.")
    if tile_px < 4:
        raise ConfigurationError(f"tile_px = {tile_px} is impossible; give 4 or more, e.g. {DEFAULT_TILE_PX}.")
    if not (math.isfinite(least_score) and least_score >= 3):
        raise ConfigurationError(f"least_score = {least_score} is impossible; give 3 or more, e.g. 5.")


def pixel_conditions(
    locs: Localizations, camera: Camera | None, psf_sigma_px: float | None, frames: tuple[int, int | None] | None
) -> tuple[Camera, float, tuple[int, int]]:
    """Camera, PSF width and frames for comparing a table with its pixels; TableError where that is not possible."""
    from smlm_pb.analysis.table_conditions import conditions_of

    known = conditions_of(locs)
    moved = [s for s in locs.provenance if s.get("step") == "drift" and s.get("accepted", True)]
    if moved:
        raise TableError(
            "The drift of the table was corrected, so its positions are no longer those on the camera; give the table "
            "before that step."
        )
    camera = camera or known.camera
    sigma = psf_sigma_px if psf_sigma_px is not None else known.psf_sigma_px
    if camera is None:
        raise TableError("The table does not tell its camera; give offset_adu and e_per_adu (camera=Camera(...)).")
    if sigma is None:
        raise TableError("The table does not tell the width of the point-spread function; give psf_sigma_px, e.g. 1.2.")
    if not (math.isfinite(sigma) and sigma >= 0.3):
        raise ConfigurationError(f"psf_sigma_px = {sigma} is impossible; give 0.3 or more, e.g. 1.2.")
    start, stop = known.frames if frames is None else (frames[0], known.frames[1] if frames[1] is None else frames[1])
    return camera, float(sigma), (start, stop)


def check_movie(locs: Localizations, movie: Movie) -> None:
    """Refuse a movie that cannot be the table's."""
    from smlm_pb.errors import MovieError

    info = locs.info
    if info.height > movie.height or info.width > movie.width:
        raise MovieError(
            f"Movie {movie.name} has frames of {movie.height}×{movie.width} px, those of the table are "
            f"{info.height}×{info.width} px: give the movie that the table was made from."
        )
    last = int(locs["frame"].max()) if len(locs) else 0
    if last >= movie.n_frames:
        raise TableError(
            f"The table reaches to frame {last}, movie {movie.name} has {movie.n_frames} frames: give the movie that "
            "the table was made from."
        )
    for axis, size in (("y", movie.height), ("x", movie.width)):
        # Half a pixel more than the frame: molecules at its border may be found outside of it.
        outside = int(np.count_nonzero((locs[axis] < -1) | (locs[axis] > size)))
        if outside:
            raise MovieError(
                f"Movie {movie.name} has frames of {movie.height}×{movie.width} px, and {outside} of the {len(locs)} "
                f"molecules of the table lie outside of them along {axis}: give the movie that it was made from, "
                "and check the unit of its positions."
            )


@dataclass
class _Work:
    """Sums over the frames."""

    movie: Movie
    camera: Camera
    psf_sigma_px: float
    tile_px: int
    least_score: float
    device: str
    n_frames: int = 0
    n_molecules: int = 0
    squared: Any = 0.0
    freedom: Any = 0.0
    residual: Any = 0.0
    n_crowded: int = 0
    background: list[float] = field(default_factory=lambda: [0.0, 0.0])
    widths: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
    suspects: dict[str, list[npt.NDArray[Any]]] = field(
        default_factory=lambda: {name: [] for name in ("frame", "x", "y", "photons", "suspicion", "score")}
    )

    def add(self, locs: Localizations, frames: npt.NDArray[np.intp]) -> None:
        """Look at some frames."""
        camera = self.camera
        adu = np.stack([self.movie.read(int(k), int(k) + 1)[0] for k in frames])
        electrons = camera.to_electrons(adu)
        rows = np.flatnonzero(np.isin(locs["frame"], frames))
        number = np.searchsorted(frames, locs["frame"][rows].astype(np.intp))
        part = locs.select(rows).with_columns(frame=number.astype(np.uint32))
        part = part.with_info(type(locs.info)(len(frames), self.movie.height, self.movie.width, None, ""))
        molecules = self._fit(part, electrons)
        excess = camera.excess_noise_factor
        read = np.broadcast_to(np.asarray(camera.read_variance_e2, np.float64) / excess**2, electrons.shape[1:])
        effective = electrons.astype(np.float64) / excess
        for k, frame in enumerate(frames):
            self._add_frame(int(frame), effective[k], read, {name: v[number == k] for name, v in molecules.items()})
        self._add_doubtful(frames[number], molecules)
        self.n_frames += len(frames)
        self.n_molecules += len(rows)

    def finish(self, locs: Localizations) -> ResidualMap:
        """Put the result together."""
        from smlm_pb.localizations import Localizations
        from smlm_pb.refinement.reference import usual_width_error

        columns = {name: np.concatenate([np.zeros(0), *parts]) for name, parts in self.suspects.items()}
        order = np.lexsort((columns["x"], columns["suspicion"], columns["frame"]))
        columns = {name: values[order] for name, values in columns.items()}
        columns["suspicion"] = columns["suspicion"].astype(np.uint8)
        step = {
            "step": "residuals",
            "suspicion": {str(number): name for name, number in SUSPICIONS.items()},
            "least_score": self.least_score,
            "psf_sigma_px": self.psf_sigma_px,
        }
        suspects = Localizations(columns, locs.info, [*locs.provenance, step])
        score, information = (np.concatenate([np.zeros(0), *(w[k] for w in self.widths)]) for k in (0, 1))
        width_error = usual_width_error(score, information)
        total = float(np.sum(self.squared) / max(float(np.sum(self.freedom)), 1.0))
        background = self.background[0] / self.background[1] if self.background[1] else math.nan
        found = ResidualMap(
            n_frames=self.n_frames,
            n_molecules=self.n_molecules,
            suspects=suspects,
            chi2=np.divide(self.squared, self.freedom, out=np.full(self.squared.shape, np.nan), where=self.freedom > 0),
            chi2_total=total,
            chi2_background=background,
            tile_px=self.tile_px,
            mean_residual=self.residual / math.sqrt(max(self.n_frames, 1)),
            psf_sigma_px=self.psf_sigma_px,
            psf_sigma_error_px=width_error,
            pixel_size_nm=locs.info.pixel_size_nm,
            notes=tuple(remarks(self.psf_sigma_px, width_error, background, self.n_crowded / max(self.n_molecules, 1))),
        )
        return found

    def _fit(self, part: Localizations, electrons: npt.NDArray[np.float32]) -> dict[str, FloatArray]:
        """Molecules where the pixels want them, in effective electrons, and how well the pixels agree."""
        from smlm_pb.refinement.table import LARGEST_GROUP, FitOptions, fit_table

        if not len(part):
            return {name: np.zeros(0) for name in ("x", "y", "photons", "llr", "misshape", "width", "whole")}
        camera = self.camera
        options = FitOptions(
            self.psf_sigma_px, camera.read_variance_e2, camera.excess_noise_factor, _PRIOR_INFLATION, self.device
        )
        before, fits = fit_table(part, electrons, 0, options, "on")
        moved = np.hypot(fits["x"] - before["x"], fits["y"] - before["y"])
        sound = fits.arrived & np.isfinite(fits["photons"]) & (moved <= self.psf_sigma_px)
        # A crowd that is cut into groups, or a group of which a part found no place, says nothing about shapes.
        whole = (fits.crowd_size <= LARGEST_GROUP) & (np.bincount(fits.group, ~sound)[fits.group] == 0)
        self.n_crowded += int(np.count_nonzero(fits.crowd_size > LARGEST_GROUP))
        lone = sound & (fits.crowd_size == 1) & (fits["photons"] > 10 * fits["sigma_photons"])
        self.widths.append((fits["width_score"][lone], fits["width_information"][lone]))
        photons = before["photons"] / camera.excess_noise_factor
        return {
            "x": np.where(sound, fits["x"], before["x"]),
            "y": np.where(sound, fits["y"], before["y"]),
            "photons": np.where(sound, fits["photons"], photons),
            "llr": fits["log_likelihood_ratio"],
            "misshape": fits["misshape"],
            "width": fits["width_score"],
            "whole": whole.astype(np.float64),
        }

    def _add_frame(self, frame: int, image: FloatArray, read: FloatArray, molecules: dict[str, FloatArray]) -> None:
        from smlm_pb.simulation.rendering import render_tiled

        x, y = molecules["x"], molecules["y"]
        light = render_tiled(x, y, molecules["photons"], np.full(len(x), self.psf_sigma_px), image.shape)
        usable = np.isfinite(image)
        image = np.where(usable, image, light)
        spread = np.sqrt(np.maximum(light + np.median(image - light), 1.0) + read)
        expected = light + np.maximum(smooth_level(image - light, spread), 0.0)
        variance = np.maximum(expected + read, 1e-3)
        residual = np.where(usable, image - expected, 0.0)
        photons, score = matched_filter(residual, variance, self.psf_sigma_px)
        peaks = find_peaks(photons, score, self.least_score, self.psf_sigma_px)
        missed = distance_to_nearest(peaks, x, y) > _OWN_LIGHT_IN_SIGMA * self.psf_sigma_px
        missed &= self._is_inside(peaks.x, peaks.y)
        excess = self.camera.excess_noise_factor
        self._suspect(
            frame, MISSED, peaks.x[missed], peaks.y[missed], peaks.photons[missed] * excess, peaks.score[missed]
        )
        inner = np.zeros(image.shape, bool)
        inner[self._margin : -self._margin or None, self._margin : -self._margin or None] = True
        usable &= inner
        squared = np.where(usable, residual**2 / variance, 0.0)
        sums, _ = tile_sums(squared, self.tile_px)
        sizes, _ = tile_sums(usable.astype(np.float64), self.tile_px)
        rows, columns = (np.clip(np.rint(v), 0, n - 1).astype(int) for v, n in zip((y, x), image.shape, strict=True))
        fitted = np.zeros(sums.shape)
        np.add.at(fitted, (rows // self.tile_px, columns // self.tile_px), 3.0 * inner[rows, columns])
        self.squared = self.squared + sums
        # Position and photons of a molecule follow the noise, and so does the background of a tile.
        self.freedom = self.freedom + np.maximum(sizes - fitted - sizes / 16**2, 0.0)
        self.residual = self.residual + residual / np.sqrt(variance)
        far = usable & self._is_far(image.shape, np.append(x, peaks.x), np.append(y, peaks.y))
        self.background[0] += float(squared[far].sum())
        self.background[1] += float(far.sum())

    @property
    def _margin(self) -> int:
        """Pixels along the border that are not judged; none in frames that would hardly be left."""
        margin = math.ceil(_BORDER_IN_SIGMA * self.psf_sigma_px)
        return margin if min(self.movie.height, self.movie.width) > 4 * margin else 0

    def _is_inside(self, x: FloatArray, y: FloatArray) -> npt.NDArray[np.bool_]:
        low, height, width = self._margin - 0.5, self.movie.height, self.movie.width
        inside = (x >= low) & (y >= low) & (x <= width - 1 - low) & (y <= height - 1 - low)
        return np.asarray(inside)

    def _is_far(self, shape: tuple[int, ...], x: FloatArray, y: FloatArray) -> npt.NDArray[np.bool_]:
        """Pixels far from all molecules."""
        near = np.zeros(shape, bool)
        reach = math.ceil(_FAR_IN_SIGMA * self.psf_sigma_px)
        for row, column in zip(np.rint(y).astype(int), np.rint(x).astype(int), strict=True):
            near[max(row - reach, 0) : max(row + reach + 1, 0), max(column - reach, 0) : max(column + reach + 1, 0)] = (
                True
            )
        return ~near

    def _add_doubtful(self, frame: npt.NDArray[np.intp], molecules: dict[str, FloatArray]) -> None:
        """Molecules that the pixels do not need, and those that look like several."""
        evidence = np.sqrt(2 * np.maximum(molecules["llr"], 0.0))
        false = (evidence < _NEEDED * self.least_score) | (molecules["photons"] < 1.0)
        judged = self._is_inside(molecules["x"], molecules["y"])
        false &= judged
        # Of two that stand for one molecule each can be spared, but not both.
        own_px = _OWN_LIGHT_IN_SIGMA * self.psf_sigma_px
        false[false] = least_of_neighbours(
            frame[false], molecules["x"][false], molecules["y"][false], evidence[false], own_px
        )
        merged = (
            judged
            & (molecules["whole"] > 0)
            & ~false
            & (molecules["misshape"] > _LEAST_MISSHAPE)
            & (molecules["width"] > 0)
        )
        excess = self.camera.excess_noise_factor
        for kind, which, score in ((FALSE, false, evidence), (MERGED, merged, np.sqrt(molecules["misshape"].clip(0)))):
            self._suspect(
                frame[which],
                kind,
                molecules["x"][which],
                molecules["y"][which],
                molecules["photons"][which] * excess,
                score[which],
            )

    def _suspect(
        self, frame: Any, kind: int, x: FloatArray, y: FloatArray, photons: FloatArray, score: FloatArray
    ) -> None:
        for name, values in (
            ("frame", frame),
            ("x", x),
            ("y", y),
            ("photons", photons),
            ("suspicion", kind),
            ("score", score),
        ):
            self.suspects[name].append(np.broadcast_to(np.asarray(values, np.float64), x.shape))
