"""The alarm: where a movie lies outside of what the model was trained for, as a whole and tile by tile.

A network answers outside of its range as calmly as inside. Four quantities are held against the model's card, each with
what to do about it; nothing is ever deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.range_tiles import FloatArray, PixelsByTile, TileGrid, measure_tiles
from smlm_pb.localization.settings import GIVEN
from smlm_pb.localization.summary import warn_about

if TYPE_CHECKING:
    from smlm_pb.localization.job import Job
    from smlm_pb.localization.summary import Summary
    from smlm_pb.localization.threshold import Expectation

INSIDE, NEAR, FAR = 0, 1, 2
#: Molecules that a tile must hold before their typical photons are told.
_FEWEST = 20
#: How far beyond the range, relative, is still inside: ranges have no sharp edge. And how far is far.
_TOLERANCE, _FAR = 1.25, 2.0
_PSF_TOLERANCE, _PSF_FAR = 1.06, 1.25
#: Relative difference of a tile's PSF from the width that the network is told, beyond what training tells wrongly, and
#: of the movie's PSF from the width that was given.
_VARIES, _VARIES_FAR, _GIVEN_WRONGLY = 1.12, 1.3, 1.07
#: Share of the tiles from which on the width that holds for the movie is wrong, not that of some tiles.
_MOST = 0.5
#: Standard errors by which a PSF must lie outside, and the smallest error of a width, relative: the PSF is no Gaussian.
_ERRORS, _WIDTH_FLOOR = 4.0, 0.02
#: Background differences below this many e⁻ are errors of the estimate.
_BACKGROUND_ERROR_E = 3.0

_REMEDIES = {
    "density_per_px2": "many are missed there; record with fewer molecules on, or make a model for such movies "
    "(smlm_pb.training.propose_like)",
    "photons": "check offset_adu, e_per_adu and em_gain, leave these parts out, or make a model for such movies "
    "(smlm_pb.training.propose_like)",
    "background_e": "lower the out-of-focus light, leave these parts out, or make a model for such movies "
    "(smlm_pb.training.propose_like)",
    "psf_sigma_px": "check focus and tilt of the sample, leave these parts out, or make a model for such movies "
    "(smlm_pb.training.propose_like)",
    "psf_varies": "check focus and tilt of the sample; positions there are less precise than stated",
}
_WORDS = {
    "density_per_px2": "density of {worst:.3g} molecules per pixel and frame lies outside the {low:.3g} to {high:.3g}",
    "photons": "brightness of {worst:.3g} e⁻ lies outside the {low:.3g} to {high:.3g} e⁻",
    "background_e": "background of {worst:.3g} e⁻ per pixel lies outside the {low:.3g} to {high:.3g} e⁻",
    "psf_sigma_px": "PSF of {worst:.3g} px lies outside the {low:.3g} to {high:.3g} px",
}


@dataclass(frozen=True)
class Quantity:
    """One quantity of a movie against the range of a model.

    Parameters
    ----------
    trained : (float, float)
        Range of the training, in the movie's own e⁻.
    movie : float or None
        The whole movie; None where it is not known.
    tiles : array (rows, columns)
        Each tile; NaN where it is not known.
    level : int
        Of the whole movie: 0 inside, 1 outside, 2 far outside.
    tile_level : array (rows, columns) of int
        Of each tile.
    """

    trained: tuple[float, float]
    movie: float | None
    tiles: FloatArray
    level: int
    tile_level: npt.NDArray[np.int64]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "trained": [float(value) for value in self.trained],
            "movie": _plain(self.movie),
            "tiles": [[_plain(value) for value in row] for row in self.tiles.tolist()],
            "level": int(self.level),
            "tile_level": self.tile_level.tolist(),
        }


@dataclass(frozen=True)
class RangeReport:
    """Whether a movie lies inside the range of the model that localized it.

    Parameters
    ----------
    grid : TileGrid
        The tiles.
    quantities : dict
        ``density_per_px2``, ``photons``, ``background_e``, ``psf_sigma_px``.
    warnings : tuple of str
        One sentence for each quantity that lies outside, with what to do.
    """

    grid: TileGrid
    quantities: dict[str, Quantity]
    warnings: tuple[str, ...]

    @property
    def tile_level(self) -> npt.NDArray[np.int64]:
        """Worst level of each tile (rows, columns)."""
        worst = np.max([quantity.tile_level for quantity in self.quantities.values()], axis=0)
        return np.asarray(worst, dtype=np.int64)

    @property
    def level(self) -> int:
        """Worst level of the movie as a whole."""
        return max(quantity.level for quantity in self.quantities.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the history of the table."""
        return {
            "level": self.level,
            "tile_level": self.tile_level.tolist(),
            "edges_y": self.grid.edges_y.tolist(),
            "edges_x": self.grid.edges_x.tolist(),
            "quantities": {name: quantity.as_dict() for name, quantity in self.quantities.items()},
        }


def check_range(job: Job, summary: Summary, expectation: Expectation) -> RangeReport:
    """Hold a finished run against the range of its model.

    Parameters
    ----------
    job : Job
        The run; some frames of its movie are read again.
    summary : Summary
        What it found, also tile by tile.
    expectation : Expectation
        What is expected to be missed counts towards the density.

    Returns
    -------
    RangeReport
    """
    conditions, grid = job.conditions, TileGrid.of_frame(job.movie.height, job.movie.width)
    stopped = summary.frames < conditions.n_frames  # whoever stops a run does not want to wait
    pixels = (
        PixelsByTile.unknown(grid) if stopped else measure_tiles(job.movie, conditions.camera, grid, conditions.frames)
    )
    quantities = judge(job, summary, expectation, grid, pixels)
    warnings = warn_about(
        summary,
        expectation,
        job.model.card,
        name=job.movie.name,
        excess_noise_factor=conditions.camera.excess_noise_factor,
    )
    warnings += [text for name in quantities if (text := _tell(name, quantities[name], job, grid))]
    if not stopped:
        warnings += _tell_variation(pixels, job, grid) or _tell_wrong_width(pixels, job)
    return RangeReport(grid, quantities, tuple(warnings))


def judge(
    job: Job, summary: Summary, expectation: Expectation, grid: TileGrid, pixels: PixelsByTile
) -> dict[str, Quantity]:
    """All quantities, of the movie and of its tiles."""
    card, conditions = job.model.card, job.conditions
    excess = conditions.camera.excess_noise_factor
    expected = (expectation.true + expectation.missed) / max(1, expectation.molecules)
    tiles = summary.tiles
    nothing = np.full((grid.rows, grid.columns), np.nan)
    photons, density = nothing, nothing
    if tiles is not None and summary.molecules >= _FEWEST:
        photons = tiles.typical_photons(_FEWEST)
        density = tiles.count * expected / (grid.area_px2 * max(1, summary.frames))
    photon_range = (card.photons[0] * excess, card.photons[1] * excess)
    # Less background than in training is no harm.
    background_range = (0.0, card.background_e[1] * excess)
    return {
        "density_per_px2": _quantity(card.density_per_px2, summary.density_per_px2 * expected, density),
        "photons": _quantity(photon_range, summary.median_photons if summary.molecules >= _FEWEST else None, photons),
        "background_e": _quantity(
            background_range, conditions.background_e, pixels.background_e, slack=_BACKGROUND_ERROR_E
        ),
        "psf_sigma_px": _psf(card.psf_sigma_px, conditions.psf_sigma_px, job.network_psf_sigma_px, pixels),
    }


def _quantity(trained: tuple[float, float], movie: float | None, tiles: FloatArray, *, slack: float = 0.0) -> Quantity:
    def level(values: FloatArray) -> npt.NDArray[np.int64]:
        return _levels(values, trained, _TOLERANCE, _FAR, slack)

    whole = INSIDE if movie is None else int(level(np.array([movie]))[0])
    return Quantity(trained, movie, tiles, whole, level(tiles))


def _psf(trained: tuple[float, float], movie: float, told: float, pixels: PixelsByTile) -> Quantity:
    sure = _certainty(pixels)
    inner = np.clip(np.nan_to_num(pixels.psf_sigma_px), trained[0], trained[1])
    certain = np.abs(pixels.psf_sigma_px - inner) > sure
    tiles = np.where(certain, _levels(pixels.psf_sigma_px, trained, _PSF_TOLERANCE, _PSF_FAR), INSIDE)
    varies = np.where(
        np.abs(pixels.psf_sigma_px - told) > sure,
        _levels(pixels.psf_sigma_px, (told, told), _VARIES, _VARIES_FAR),
        INSIDE,
    )
    whole = int(_levels(np.array([movie]), trained, _PSF_TOLERANCE, _PSF_FAR)[0])
    return Quantity(trained, movie, pixels.psf_sigma_px, whole, np.maximum(tiles, varies))


def _levels(
    values: FloatArray, trained: tuple[float, float], tolerance: float, far: float, slack: float = 0.0
) -> npt.NDArray[np.int64]:
    """0 inside, 1 outside, 2 far outside; what is not known is inside."""
    low, high = trained
    known = np.nan_to_num(values, nan=low)
    # A range that starts at zero has no lower end.
    below = np.where(known < low - slack, low / np.maximum(known, 1e-9), 1.0) if low > 0 else np.ones_like(known)
    above = np.where(known > high + slack, known / max(high, 1e-9), 1.0)
    beyond = np.maximum(below, above)
    return (beyond > tolerance).astype(np.int64) + (beyond > far).astype(np.int64)


def _tell(name: str, quantity: Quantity, job: Job, grid: TileGrid) -> str:
    """One sentence on the tiles, where the movie as a whole has not raised the alarm already."""
    low, high = quantity.trained
    if name == "psf_sigma_px":
        outside = _levels(quantity.tiles, quantity.trained, _PSF_TOLERANCE, _PSF_FAR) * (quantity.tile_level > 0)
    else:
        outside = quantity.tile_level
    if quantity.level or not outside.any():
        return ""
    beyond = np.where(
        outside > 0, np.maximum(quantity.tiles / max(high, 1e-9), low / np.maximum(quantity.tiles, 1e-9)), 0
    )
    row, column = np.unravel_index(int(beyond.argmax()), beyond.shape)
    words = _WORDS[name].format(worst=quantity.tiles[row, column], low=low, high=high)
    return (
        f"Movie {job.movie.name}: in {int((outside > 0).sum())} of {outside.size} tiles (worst: "
        f"{grid.name(int(row), int(column))}) the {words} of model '{job.model.card.name}': {_REMEDIES[name]}."
    )


def _tell_variation(pixels: PixelsByTile, job: Job, grid: TileGrid) -> list[str]:
    """Say where the PSF is another than the network is told, inside the range of the model."""
    told, trained = job.network_psf_sigma_px, job.model.card.psf_sigma_px
    outside = (_levels(pixels.psf_sigma_px, (told, told), _VARIES, _VARIES_FAR) > 0) & (
        np.abs(pixels.psf_sigma_px - told) > _certainty(pixels)
    )
    outside &= _levels(pixels.psf_sigma_px, trained, _PSF_TOLERANCE, _PSF_FAR) == INSIDE
    if not outside.any() or outside.mean() > _MOST:
        return []
    off = np.where(outside, np.abs(np.log(np.where(outside, pixels.psf_sigma_px, told) / told)), 0.0)
    row, column = np.unravel_index(int(off.argmax()), off.shape)
    return [
        f"Movie {job.movie.name}: in {int(outside.sum())} of {outside.size} tiles (worst: "
        f"{grid.name(int(row), int(column))}) the PSF of {pixels.psf_sigma_px[row, column]:.3g} px is another than the "
        f"{told:.3g} px of the movie: {_REMEDIES['psf_varies']}."
    ]


def _tell_wrong_width(pixels: PixelsByTile, job: Job) -> list[str]:
    """Say that a width that was given is not that of the movie."""
    conditions = job.conditions
    given, (measured, error) = conditions.psf_sigma_px, pixels.movie_psf_px
    if conditions.origin.get("psf_sigma_px") != GIVEN or not np.isfinite(measured):
        return []
    if 1 / _GIVEN_WRONGLY <= measured / given <= _GIVEN_WRONGLY or abs(measured - given) <= _ERRORS * error:
        return []
    return [
        f"Movie {job.movie.name}: the PSF measures {measured:.3g} px, but {given:.3g} px were given: check focus and "
        "psf_sigma_px (left out, it is measured); molecules are missed and photons wrong otherwise."
    ]


def _certainty(pixels: PixelsByTile) -> FloatArray:
    """Difference of a tile's PSF that is no chance, px; infinite where the tile does not tell."""
    error = np.hypot(pixels.psf_error_px, _WIDTH_FLOOR * pixels.psf_sigma_px)
    return np.asarray(_ERRORS * np.nan_to_num(error, nan=np.inf))


def _plain(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.5g}")
