"""What a movie is like, as far as a model tells: width, light, background and crowding of what it shows."""

from __future__ import annotations

import math
import warnings as python_warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.camera import Camera
from smlm_pb.errors import MovieError
from smlm_pb.localization.conditions import resolve
from smlm_pb.localization.estimate import estimate_background, estimate_psf_sigma
from smlm_pb.localization.settings import ASSUMED, ESTIMATED, Conditions, JobSettings
from smlm_pb.localization.to_table import localize
from smlm_pb.movies import Movie, sample_frames
from smlm_pb.training.arrangement import arrangement_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from smlm_pb.localization.model import Model
    from smlm_pb.localizations import Localizations

#: Pixels and frames that are localized to learn what the movie is like.
_BUDGET_PX, _MOST_FRAMES, _FEWEST_FRAMES = 1 << 21, 600, 4
_MOST_BYTES = 1 << 28
#: Only what is rather there than not tells what molecules are like.
_CONFIDENT = 0.5
#: Side of the regions in which molecules are counted, px: about the size of a training scene.
_REGION_PX = 48
#: Molecules below which nothing is said, and below which a warning is given.
_FEWEST_MOLECULES, _FEW_MOLECULES = 100, 500
#: Share of molecules on a clipped pixel: a warning, and too many. Share of all pixels: too many, found or not.
_CLIPPED_WARNING, _CLIPPED_ERROR, _CLIPPED_PIXELS = 0.005, 0.05, 0.005
#: Share of what was found that should exist, and expected Jaccard index below which the user is warned.
_LEAST_PRECISION, _LOW_JACCARD = 0.6, 0.5
#: How far beyond the start model's range a measurement with it means nothing.
_PSF_BEYOND, _DENSITY_BEYOND = 1.3, 2.5


Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Found:
    """What a model finds in frames, in numbers; triples are the 5th, 50th and 95th percentile.

    Parameters
    ----------
    frames, molecules : int
        Frames looked at, and molecules found in them with a probability of at least 0.5.
    photons : (float, float, float)
        Detected photo-electrons per molecule and frame, e⁻.
    photon_spread : float
        Standard deviation of ln(photons), from the quartiles.
    background_e : (float, float, float)
        Background at the molecules, e⁻ per pixel.
    density_per_px2 : (float, float, float)
        Molecules per pixel in regions of 48 px in single frames; those expected to be missed are counted in.
    mean_density_per_px2 : float
        The same over all frames.
    arrangement : str
        On what the molecules lie, see :func:`smlm_pb.training.arrangement.arrangement_of`.
    expected_precision, expected_jaccard : float or None
        What the probabilities promise.
    """

    frames: int
    molecules: int
    photons: Triple
    photon_spread: float
    background_e: Triple
    density_per_px2: Triple
    mean_density_per_px2: float
    arrangement: str
    expected_precision: float | None
    expected_jaccard: float | None


@dataclass(frozen=True)
class MovieMeasure:
    """A movie as a training must know it.

    Parameters
    ----------
    name, fingerprint : str
        The movie.
    conditions : Conditions
        Camera, PSF width and where they come from.
    psf_error_px : float
        Standard error of the PSF width; 0 where it was given.
    background_e : (float, float, float)
        Background between the molecules: 10th, 50th and 90th percentile over the field, e⁻ per pixel.
    found : Found
        The molecules.
    electrons : array (n, height, width), float32
        The frames that were looked at, in photo-electrons divided by the excess noise factor.
    warnings : tuple of str
        Why the measurement should not be believed blindly.
    """

    name: str
    fingerprint: str
    conditions: Conditions
    psf_error_px: float
    background_e: Triple
    found: Found
    electrons: npt.NDArray[np.float32]
    warnings: tuple[str, ...]

    @property
    def excess_noise_factor(self) -> float:
        """Of the camera: 2 with electron multiplication, else 1."""
        return self.conditions.camera.excess_noise_factor

    @property
    def read_noise_e(self) -> float:
        """Read noise referred to the photo-electrons, e⁻."""
        return float(np.sqrt(np.median(self.conditions.camera.read_variance_e2)))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for YAML and JSON."""
        camera = self.conditions.camera
        return {
            "movie": self.name,
            "fingerprint": self.fingerprint,
            "psf_sigma_px": round(self.conditions.psf_sigma_px, 4),
            "psf_error_px": round(self.psf_error_px, 4),
            "offset_adu": round(float(np.median(camera.offset_adu)), 3),
            "e_per_adu": round(float(np.median(camera.e_per_adu)), 5),
            "em_gain": float(camera.em_gain),
            "origin": dict(self.conditions.origin),
            "background_between_molecules_e": _plain(self.background_e),
            **{name: _plain(value) for name, value in asdict(self.found).items()},
        }


def measure_movie(
    movie: Movie,
    model: Model,
    settings: JobSettings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> MovieMeasure:
    """Localize evenly spaced frames of a movie and say what it is like.

    Parameters
    ----------
    movie : Movie
        An open movie.
    model : Model
        Finds the molecules.
    settings : JobSettings
        Camera values, PSF width and frames, as far as given.
    on_progress, should_stop : callable, optional
        As for :func:`smlm_pb.localize`.

    Returns
    -------
    MovieMeasure

    Raises
    ------
    MovieError
        When the movie does not hold enough to be measured, or the model cannot be believed on it: with the reason.
    CameraError, ConfigurationError
        As :func:`smlm_pb.localize`.
    LocalizationStopped
        When ``should_stop`` asked for it.
    """
    conditions = resolve(movie, settings, model.card)
    _refuse_unknown_width(movie.name, conditions, model)
    error_px = estimate_psf_sigma(movie).spread_px if conditions.origin["psf_sigma_px"] == ESTIMATED else 0.0
    between = estimate_background(movie, conditions.camera)
    adu = _some_frames(movie, conditions.frames)
    table = find(
        adu, model, conditions.camera, conditions.psf_sigma_px, on_progress=on_progress, should_stop=should_stop
    )
    warnings = [*conditions.warnings, *_judge(movie.name, table, adu, model, conditions)]
    electrons = conditions.camera.to_electrons(adu) / np.float32(conditions.camera.excess_noise_factor)
    return MovieMeasure(
        name=movie.name,
        fingerprint=movie.fingerprint(),
        conditions=conditions,
        psf_error_px=float(error_px),
        background_e=(max(0.0, between.low), max(0.0, between.background), max(0.0, between.high)),
        found=describe(table),
        electrons=electrons.astype(np.float32),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def find(
    frames: npt.NDArray[Any],
    model: Model,
    camera: Camera,
    psf_sigma_px: float,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Localizations:
    """Localize frames (n, height, width) quietly: whoever asks judges the result."""
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", UserWarning)
        return localize(
            frames,
            model=model,
            camera=camera,
            psf_sigma_px=psf_sigma_px,
            on_progress=on_progress,
            should_stop=should_stop,
        )


def describe(table: Localizations) -> Found:
    """Put into numbers what was found.

    Parameters
    ----------
    table : Localizations
        From :func:`find`; its history tells what is expected to be missed.
    """
    expected = table.provenance[-1]["threshold"]
    sure = table.select(table["probability"] >= np.float32(_CONFIDENT))
    photons, background = sure["photons"].astype(np.float64), sure["background"].astype(np.float64)
    missed = (expected["true"] + expected["missed"]) / max(1, expected["molecules"])
    counts, area_px2 = _regional_counts(table)
    quartile = np.quantile(np.log(photons), (0.25, 0.75)) if len(sure) else np.zeros(2)
    return Found(
        frames=table.info.n_frames,
        molecules=len(sure),
        photons=_triple(photons),
        photon_spread=float((quartile[1] - quartile[0]) / 1.349),
        background_e=_triple(background),
        density_per_px2=_triple(counts * missed / area_px2),
        mean_density_per_px2=float(counts.mean() * missed / area_px2.mean()),
        arrangement=arrangement_of(sure),
        expected_precision=expected["precision"],
        expected_jaccard=expected["jaccard"],
    )


def _some_frames(movie: Movie, frames: tuple[int, int]) -> npt.NDArray[Any]:
    """Evenly spaced frames of those asked for, as the camera gave them."""
    at_most = max(_FEWEST_FRAMES, min(_MOST_FRAMES, _BUDGET_PX // (movie.height * movie.width)))
    start, stop = frames
    if (start, stop) == (0, movie.n_frames):
        return sample_frames(movie, at_most=at_most, max_bytes=_MOST_BYTES)[1]
    chosen = np.unique(np.linspace(start, stop - 1, min(at_most, stop - start)).round().astype(int))
    return np.concatenate([movie.read(int(k), int(k) + 1) for k in chosen])


def _refuse_unknown_width(name: str, conditions: Conditions, model: Model) -> None:
    if conditions.origin["psf_sigma_px"] == ASSUMED:
        raise MovieError(
            f"Movie {name}: the width of the PSF cannot be measured from it; give it with psf_sigma_px, "
            "or write an experiment file."
        )
    low, high = model.card.psf_sigma_px
    if not low / _PSF_BEYOND <= conditions.psf_sigma_px <= high * _PSF_BEYOND:
        raise MovieError(
            f"Movie {name}: the PSF of {conditions.psf_sigma_px:.3g} px is too far from the {low:g} to {high:g} px of "
            f"model '{model.card.name}', which cannot tell what the molecules are like: start from another model, give "
            "psf_sigma_px if it is wrong, or write an experiment file."
        )


def _judge(name: str, table: Localizations, adu: npt.NDArray[Any], model: Model, conditions: Conditions) -> list[str]:
    """Refuse what cannot be believed; warn of what should be looked at."""
    sure = table.select(table["probability"] >= np.float32(_CONFIDENT))
    expected, n_frames = table.provenance[-1]["threshold"], len(adu)
    clipped, pixels = _share_clipped(sure, adu)
    if clipped > _CLIPPED_ERROR or pixels > _CLIPPED_PIXELS:
        raise MovieError(
            f"Movie {name}: {100 * clipped:.0f} % of the molecules and {100 * pixels:.2g} % of the pixels are "
            "saturated, so the light of the molecules is not known: record with less light, gain or exposure."
        )
    if len(sure) < _FEWEST_MOLECULES:
        raise MovieError(
            f"Movie {name}: only {len(sure)} molecules were found in the {n_frames} frames looked at, at least "
            f"{_FEWEST_MOLECULES} are needed to tell what they are like: give a longer movie, check the camera values, "
            "or write an experiment file."
        )
    if expected["precision"] < _LEAST_PRECISION:
        raise MovieError(
            f"Movie {name}: of what model '{model.card.name}' finds only {100 * expected['precision']:.0f} % is "
            "expected to exist, so it does not know such movies: check the camera values and the PSF width, or write "
            "an experiment file."
        )
    warnings = [str(text) for text in table.provenance[-1]["warnings"]]
    if clipped > _CLIPPED_WARNING:
        warnings.append(f"Movie {name}: {100 * clipped:.1f} % of the molecules are saturated; photons come out low.")
    if len(sure) < _FEW_MOLECULES:
        warnings.append(
            f"Movie {name}: {len(sure)} molecules were found in the {n_frames} frames looked at; their distributions "
            "are known roughly only."
        )
    if expected["jaccard"] is not None and expected["jaccard"] < _LOW_JACCARD:
        warnings.append(
            f"Movie {name}: model '{model.card.name}' is expected to reach a Jaccard index of "
            f"{expected['jaccard']:.2f} only; what it tells of photons and density is rough."
        )
    warnings += _judge_density(name, describe(table).mean_density_per_px2, model)
    return warnings


def _judge_density(name: str, density: float, model: Model) -> list[str]:
    highest = model.card.density_per_px2[1]
    if density > highest * _DENSITY_BEYOND:
        raise MovieError(
            f"Movie {name}: {density:.3g} molecules per pixel and frame are far beyond the {highest:g} of model "
            f"'{model.card.name}', which cannot tell them apart: record with fewer molecules on, or start from a model "
            "for crowded movies."
        )
    if density > highest:
        return [
            f"Movie {name}: {density:.3g} molecules per pixel and frame are more than model '{model.card.name}' was "
            f"trained for ({highest:g}); how many there really are is known roughly only."
        ]
    return []


def _share_clipped(sure: Localizations, adu: npt.NDArray[Any]) -> tuple[float, float]:
    """Share of molecules whose central pixel is at the converter's end, and share of all pixels."""
    from smlm_pb.localization.frame_sample import draw_sample

    level = draw_sample(adu).saturation
    if not math.isfinite(level):
        return 0.0, 0.0
    row = np.clip(np.rint(sure["y"]).astype(int), 0, adu.shape[1] - 1)
    column = np.clip(np.rint(sure["x"]).astype(int), 0, adu.shape[2] - 1)
    at_molecules = adu[sure["frame"].astype(int), row, column] >= level
    return float(at_molecules.mean()) if len(sure) else 0.0, float(np.mean(adu >= level))


def _regional_counts(table: Localizations) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rows in every region of every frame, and the regions' areas, px²."""
    info = table.info
    rows, columns = max(1, round(info.height / _REGION_PX)), max(1, round(info.width / _REGION_PX))
    edges_y = np.linspace(-0.5, info.height - 0.5, rows + 1)
    edges_x = np.linspace(-0.5, info.width - 0.5, columns + 1)
    edges_t = np.arange(info.n_frames + 1) - 0.5
    counts, _ = np.histogramdd(
        np.stack((table["frame"], table["y"], table["x"]), axis=1).astype(np.float64), bins=(edges_t, edges_y, edges_x)
    )
    area = np.diff(edges_y)[:, None] * np.diff(edges_x)
    return counts.ravel(), np.broadcast_to(area, counts.shape).ravel().astype(np.float64)


def _triple(values: npt.NDArray[np.float64]) -> Triple:
    if not values.size:
        return (0.0, 0.0, 0.0)
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return float(low), float(middle), float(high)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
