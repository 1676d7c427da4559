"""The digital twin: what errors cost on a real movie, measured on a simulated one that is like it.

The truth of a real movie is not known. A movie with the same camera, PSF width, background, brightness and number of
molecules in the same places can be simulated, and its truth is. Localized with the same model in the same way, it shows
which errors the real table holds. How alike the two are is told by what was found in both: if the model finds as many
molecules in the twin, as bright and as precise, the twin is a fair one.
"""

from __future__ import annotations

import math
import warnings as python_warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.errors import Cancelled, ConfigurationError, TableError

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

    from smlm_pb.analysis.table_conditions import TableConditions
    from smlm_pb.analysis.twin_movie import TwinSource
    from smlm_pb.camera import Camera
    from smlm_pb.evaluation import ErrorBudget
    from smlm_pb.localization.model import Model
    from smlm_pb.localizations import Localizations

DEFAULT_FRAMES = 100
LEAST_MOLECULES = 50
#: Part of the frames that first tell how many true molecules there are per molecule found.
_FIRST_SHARE = 0.5
_LIMITS = (0.2, 5.0)
#: Above this difference the twin is called unlike the movie.
_ALIKE = 0.2


@dataclass(frozen=True)
class DigitalTwin:
    """The result of :func:`digital_twin`.

    Parameters
    ----------
    budget : ErrorBudget
        What each kind of error costs in the twin.
    movie : array (frames, height, width), uint16
        The twin in camera values.
    truth, found : Localizations
        What is in it, and what was found.
    likeness : dict
        For ``per_frame``, ``photons``, ``background`` and ``sigma_px`` (medians; mean number per frame): the value in
        the table and the value found in the twin.
    settings : dict
        Camera, PSF width, model, threshold and so on.
    notes : tuple of str
        What the reader must know.
    """

    budget: ErrorBudget
    movie: npt.NDArray[np.uint16]
    truth: Localizations
    found: Localizations
    likeness: dict[str, tuple[float, float]]
    settings: dict[str, Any]
    notes: tuple[str, ...]

    def advice(self) -> str:
        """What costs most and what to do about it, in one sentence."""
        sentences = self.budget.advice()
        if sentences:
            return sentences[0]
        return (
            f"No kind of error costs a hundredth of the Jaccard index ({self.budget.jaccard:.2f}): leave it as it is."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the movie and its tables."""

        def plain(value: float) -> float | None:
            return None if math.isnan(value) else value

        return {
            "advice": self.advice(),
            "budget": self.budget.as_dict(),
            "likeness": {
                name: {"movie": plain(ours), "twin": plain(twin)} for name, (ours, twin) in self.likeness.items()
            },
            "settings": self.settings,
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """Lay the findings out as lines for people."""
        names = {
            "per_frame": "molecules found per frame",
            "photons": "photons, median (e⁻)",
            "background": "background, median (e⁻/px)",
            "sigma_px": "stated precision, median (px)",
        }
        lines = [f"{'':<30} {'this movie':>11} {'its twin':>11}"]
        lines += [
            f"{names[name]:<30} {ours:>11.4g} {twin:>11.4g}"
            for name, (ours, twin) in self.likeness.items()
            if not (math.isnan(ours) and math.isnan(twin))
        ]
        return "\n".join([*lines, "", self.budget.table(), *(f"Note: {note}" for note in self.notes)])

    def __str__(self) -> str:
        return self.table()


def digital_twin(
    locs: Localizations,
    *,
    model: str | os.PathLike[str] | Model | None = None,
    camera: Camera | None = None,
    psf_sigma_px: float | None = None,
    threshold: float | str | None = None,
    n_frames: int = DEFAULT_FRAMES,
    tolerance_nm: float = 50.0,
    by: Sequence[str] = ("neighbour", "photons"),
    device: str = "auto",
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DigitalTwin:
    """Tell what each kind of error costs on a movie whose truth is not known.

    Parameters
    ----------
    locs : Localizations
        Not linked; with photons and background.
    model : str, path or Model, optional
        When not given, the one the table was made with, else ``default``.
    camera : Camera, optional
        When not given, that of the table's history.
    psf_sigma_px : float, optional
        Width of the point-spread function, px; when not given, that of the table's history or columns.
    threshold : float or "auto", optional
        When not given, as for the table.
    n_frames : int
        Length of the twin.
    tolerance_nm : float
        Distance of a right answer.
    by : sequence of str
        What the errors are broken down by; see :func:`smlm_pb.evaluation.error_budget`.
    device : str
        Where the network runs.
    seed : int
        Seed of the twin.
    on_progress, should_stop : callable, optional
        As for :func:`smlm_pb.localize`.

    Returns
    -------
    DigitalTwin

    Raises
    ------
    TableError
        When the table is linked, too small, or of more frames than any movie has, or lacks photons, background, pixel
        size or PSF width.
    ModelError, ConfigurationError
        When an option is wrong.
    Cancelled
        When ``should_stop`` said so.
    """
    from smlm_pb.analysis.table_conditions import conditions_of
    from smlm_pb.analysis.twin_movie import TwinSource
    from smlm_pb.camera import Camera
    from smlm_pb.evaluation import error_budget
    from smlm_pb.localization.job import get_model
    from smlm_pb.localizations import Localizations, MovieInfo

    if n_frames < 2:
        raise ConfigurationError(f"n_frames = {n_frames} is impossible; give 2 or more, e.g. {DEFAULT_FRAMES}.")
    known = conditions_of(locs)
    sigma = _check_table(locs, known, psf_sigma_px)
    loaded = get_model(model if model is not None else known.model or "default", device)
    used = camera or known.camera or Camera()
    source = TwinSource.of(locs, known.frames, used, sigma)
    first = max(2, round(_FIRST_SHARE * n_frames))
    work = _Work(
        source, loaded, known.threshold if threshold is None else threshold, known.refine, locs, first + n_frames
    )
    work.on_progress, work.should_stop = on_progress, should_stop
    # How many true molecules there are per molecule found is known to the probabilities roughly, to the twin well.
    factor = known.expected_per_found
    trial, _, _ = work.run(first, factor, np.random.default_rng([seed, 0]))
    per_frame = float(source.per_frame.mean())
    factor = float(np.clip(factor * per_frame / max(len(trial) / first, 1e-9), *_LIMITS))
    found, movie, columns = work.run(n_frames, factor, np.random.default_rng([seed, 1]))
    info = MovieInfo(n_frames, locs.info.height, locs.info.width, locs.info.pixel_size_nm, "digital twin")
    settings = {
        "model": loaded.card.name,
        "threshold": work.threshold,
        "refine": known.refine,
        "camera": used.as_dict(),
        "psf_sigma_px": sigma,
        "true_per_found": factor,
        "n_frames": n_frames,
        "seed": seed,
    }
    truth = Localizations(columns, info, [{"step": "twin", **settings}])
    budget = error_budget(found, truth, tolerance_nm=tolerance_nm, by=by)
    likeness = _likeness(locs, per_frame, found, n_frames)
    notes = _remarks(locs, known, loaded, camera, likeness)
    return DigitalTwin(budget, movie, truth, found, likeness, settings, tuple(notes))


@dataclass
class _Work:
    """Simulating and localizing, with one progress for both runs."""

    source: TwinSource
    model: Model
    threshold: float | str
    refine: str
    like: Localizations
    total: int
    done: int = 0
    on_progress: Callable[[int, int], None] | None = None
    should_stop: Callable[[], bool] | None = None

    def run(
        self, n_frames: int, factor: float, rng: np.random.Generator
    ) -> tuple[Localizations, npt.NDArray[np.uint16], dict[str, npt.NDArray[Any]]]:
        """Simulate and localize some frames."""
        from smlm_pb.localization import localize

        if self.should_stop is not None and self.should_stop():
            raise Cancelled("Stopped the digital twin; nothing was measured.")
        movie, columns = self.source.simulate(n_frames, factor, rng)

        def tell(done: int, _total: int) -> None:
            if self.on_progress is not None:
                self.on_progress(self.done + done, self.total)

        with python_warnings.catch_warnings():
            # What there is to warn of was said of the real movie.
            python_warnings.simplefilter("ignore", UserWarning)
            found = localize(
                movie,
                model=self.model,
                camera=self.source.camera,
                pixel_size_nm=self.like.info.pixel_size_nm,
                psf_sigma_px=self.source.psf_sigma_px,
                threshold=self.threshold,
                refine=self.refine,
                on_progress=tell,
                should_stop=self.should_stop,
            )
        self.done += n_frames
        return found, movie, columns


def _check_table(locs: Localizations, known: TableConditions, psf_sigma_px: float | None) -> float:
    """Refuse what no twin can be made of; returns the PSF width."""
    missing = [name for name in ("photons", "background") if name not in locs]
    if missing:
        raise TableError(
            f"The table has no column {' and '.join(missing)}, which a twin needs; use a program that gives it."
        )
    if len(locs) < LEAST_MOLECULES:
        raise TableError(f"A twin needs at least {LEAST_MOLECULES} molecules; the table has {len(locs)}.")
    if locs.info.pixel_size_nm is None:
        raise TableError("Errors are told in nm and need the pixel size, which the table does not know; give it.")
    sigma = psf_sigma_px if psf_sigma_px is not None else known.psf_sigma_px
    if sigma is None:
        raise TableError("The table does not tell the width of the point-spread function; give psf_sigma_px, e.g. 1.2.")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ConfigurationError(f"psf_sigma_px = {sigma} is impossible; give px above 0, e.g. 1.2.")
    return float(sigma)


def _likeness(
    locs: Localizations, per_frame: float, found: Localizations, n_frames: int
) -> dict[str, tuple[float, float]]:
    def median(table: Localizations, name: str) -> float:
        return float(np.median(table[name])) if name in table and len(table) else math.nan

    values = {name: (median(locs, name), median(found, name)) for name in ("photons", "background")}
    return {"per_frame": (per_frame, len(found) / n_frames), **values, "sigma_px": tuple(map(_sigma, (locs, found)))}  # type: ignore[dict-item]


def _sigma(table: Localizations) -> float:
    if "sigma_x" not in table or not len(table):
        return math.nan
    return float(np.median(np.sqrt((table["sigma_x"] ** 2 + table["sigma_y"] ** 2) / 2)))


def _remarks(
    locs: Localizations,
    known: TableConditions,
    model: Model,
    camera: Camera | None,
    likeness: dict[str, tuple[float, float]],
) -> list[str]:
    """What limits the meaning of the figures."""
    notes = []
    if camera is None and known.camera is None:
        notes.append("The table does not tell its camera; the twin has 1 e⁻ per ADU and a read noise of 1.6 e⁻.")
    if known.model is not None and known.model_sha256 not in ("", model.card.weights_sha256):
        notes.append(f"The table was made with another model or version of it ('{known.model}').")
    if any(step.get("step") == "filter" for step in locs.provenance):
        notes.append("The table was filtered after it was made; the twin is not.")
    for name, word in (("per_frame", "molecules per frame"), ("photons", "photons"), ("sigma_px", "stated precision")):
        ours, twin = likeness[name]
        if ours > 0 and twin > 0 and abs(math.log(twin / ours)) > math.log1p(_ALIKE):
            notes.append(
                f"The twin is not quite like the movie: {word} {twin:.3g} instead of {ours:.3g}. Spots of another "
                "shape, structured background or wrong camera values could be the reason."
            )
    return notes
