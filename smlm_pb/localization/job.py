"""A run that is ready to start: movie, model, settings and conditions together, and what of it goes into the table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb._version import __version__
from smlm_pb.localization.candidates import Candidates, as_columns
from smlm_pb.localization.model import Model, load_model
from smlm_pb.localizations import Localizations, MovieInfo

if TYPE_CHECKING:
    from smlm_pb.localization.settings import Conditions, JobSettings
    from smlm_pb.localization.summary import Summary
    from smlm_pb.localization.threshold import Expectation, ProbabilityHistogram
    from smlm_pb.movies import Movie

OnProgress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]


class FinishedBlock(NamedTuple):
    """What a run has found in some frames, for display while it goes on.

    The final threshold is known at the end only, where it is automatic; until then it is the best one for what has
    been seen so far.
    """

    start: int
    stop: int
    #: Everything above the floor.
    candidates: Localizations
    #: Threshold at the moment.
    threshold: float

    @property
    def molecules(self) -> Localizations:
        """The candidates at or above the threshold of the moment."""
        return self.candidates.select(at_or_above(self.candidates["probability"], self.threshold))


OnBlock = Callable[[FinishedBlock], None]


@dataclass(frozen=True)
class Job:
    """One movie and everything needed to localize it."""

    movie: Movie
    model: Model
    settings: JobSettings
    conditions: Conditions
    fingerprint: str

    @property
    def info(self) -> MovieInfo:
        """The movie, with the pixel size that holds."""
        movie = self.movie
        return MovieInfo(movie.n_frames, movie.height, movie.width, self.conditions.pixel_size_nm, movie.name)

    @property
    def network_psf_sigma_px(self) -> float:
        """PSF width that the network is told: it knows nothing beyond the range it was trained for."""
        low, high = self.model.card.psf_sigma_px
        return min(max(self.conditions.psf_sigma_px, low), high)

    def find_candidates(self, frames: tuple[int, int]) -> Any:
        """Blocks of candidates; see :func:`smlm_pb.localization.pipeline.find_candidates`."""
        from smlm_pb.localization.pipeline import find_candidates

        return find_candidates(
            self.movie,
            self.model,
            camera=self.conditions.camera,
            psf_sigma_px=self.network_psf_sigma_px,
            frames=frames,
            floor=self.settings.floor,
            least_significance=self.conditions.least_significance,
            population=self.conditions.population,
            precision=self.conditions.precision,
        )

    def finished_block(self, start: int, stop: int, candidates: Candidates, threshold: float) -> FinishedBlock:
        """A block for the caller to show."""
        return FinishedBlock(start, stop, Localizations(as_columns(candidates.rows), self.info), threshold)

    def engine(self) -> dict[str, Any]:
        """With what the network runs: device, threads, arithmetic, and how the work is cut up."""
        from smlm_pb.devices import device_name
        from smlm_pb.localization.pipeline import plan_work
        from smlm_pb.localization.threads import fit_threads

        device = self.model.device
        plan = plan_work(self.movie.height, self.movie.width, device)
        return {
            "device": str(device),
            "processor": device_name(device),
            "threads": fit_threads(self.model),
            "precision": self.conditions.precision,
            **asdict(plan),
        }

    def describe_engine(self) -> str:
        """One line for people: with what the network runs."""
        engine = self.engine()
        threads = f", {engine['threads']} thread{'s' * (engine['threads'] != 1)}" if engine["device"] == "cpu" else ""
        return f"{engine['device']} ({engine['processor']}){threads}, {engine['precision']}"

    def identity(self) -> dict[str, Any]:
        """What must be equal for an interrupted run to be continued."""
        return identify(self.settings, self.model, self.fingerprint)

    def provenance(self, expectation: Expectation, summary: Summary, warnings: list[str]) -> dict[str, Any]:
        """The step of the history that this run is."""
        card, device = self.model.card, self.model.device
        return {
            "step": "localize",
            "version": __version__,
            "command": command_line(),
            "movie": {
                "name": self.movie.name,
                "source": source_name(self.movie),
                "fingerprint": self.fingerprint,
                "frames": list(self.conditions.frames),
            },
            "model": {
                "name": card.name,
                "sha256": card.weights_sha256,
                "device": device.type,
                **({"classes": card.classes} if card.classes else {}),
            },
            "engine": self.engine(),
            "asked": self.identity(),
            "conditions": {**self.conditions.as_dict(), "network_psf_sigma_px": self.network_psf_sigma_px},
            "threshold": expectation.as_dict(),
            "result": summary.as_dict(),
            "warnings": [*self.conditions.warnings, *warnings],
        }


def identify(settings: JobSettings, model: Model, fingerprint: str) -> dict[str, Any]:
    """Everything that decides the result of a run, as plain values by the name of the option."""
    return {
        **settings.as_dict(),
        "model": {"name": model.card.name, "sha256": model.card.weights_sha256},
        "movie": fingerprint,
        "version": __version__,
    }


def choose_threshold(settings: JobSettings, histogram: ProbabilityHistogram) -> Expectation:
    """The threshold that was asked for, or the best one, with what is expected at it."""
    if settings.threshold == "auto":
        return histogram.best(floor=settings.floor)
    return histogram.at(float(settings.threshold))


def at_or_above(probability: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.bool_]:
    """Which candidates a threshold keeps; compared in float32, in which probabilities are stored."""
    kept: npt.NDArray[np.bool_] = probability >= np.float32(threshold)
    return kept


def get_model(model: str | Any, device: str) -> Model:
    """Load a model, unless it is one already; that stays on its device unless another one is named."""
    if not isinstance(model, Model):
        return load_model(model, device)
    if device == "auto":
        return model
    from smlm_pb.devices import choose_device

    chosen = choose_device(device)
    return model if chosen == model.device else Model(model.network.to(chosen), model.card, chosen)


def command_line() -> str:
    """The command that is running, without the folder of the program."""
    program = Path(sys.argv[0] if sys.argv else "")
    name = program.parent.name if program.name == "__main__.py" else program.name  # python -m name
    return " ".join([name, *sys.argv[1:]]).strip()


def source_name(movie: Movie) -> str:
    """Where a movie comes from, in words: its path, the first of its paths, or what kind of array it is."""
    source = getattr(movie, "source", None)
    if isinstance(source, str):
        return source
    if isinstance(source, list) and source:
        return f"{source[0]} and {len(source) - 1} more files" if len(source) > 1 else str(source[0])
    return f"{type(source).__name__}"
