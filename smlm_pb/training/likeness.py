"""A training for one's own movie: measured, shown for approval, then a short run that starts from a shipped model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from smlm_pb._version import __version__
from smlm_pb.errors import OutputError
from smlm_pb.formats.output import written_whole
from smlm_pb.localization.job import command_line
from smlm_pb.localization.model import DEFAULT_MODEL, Model, find_model, load_model
from smlm_pb.localization.settings import JobSettings
from smlm_pb.movies import open_movie
from smlm_pb.training.experiment import Experiment
from smlm_pb.training.like_scenes import LikeScenes, scenes_like
from smlm_pb.training.movie_measure import MovieMeasure, measure_movie

if TYPE_CHECKING:
    import os

    from smlm_pb.camera import Camera

#: Steps of a fine-tune: some minutes on a processor.
DEFAULT_STEPS = 1500
EXPERIMENT_FILE, FIGURE_FILE = "experiment.yaml", "likeness.png"
_LEARNING_RATE = 4e-4
#: Simulated and real differ by more than this factor: the user is told.
_UNLIKE = 1.5
#: The loss as it stands at the end of a training, for models that do not tell theirs.
_BANDWIDTH_PX, _COUNT_WEIGHT = 0.3, 1.0


@dataclass(frozen=True)
class Likeness:
    """A movie, scenes like it, and the experiment that would learn from them.

    Parameters
    ----------
    measure : MovieMeasure
        What the movie is like.
    scenes : LikeScenes
        Scenes like it.
    experiment : Experiment
        The fine-tune; ``smlm_pb.training.train(likeness.experiment, out)`` runs it.
    start : str
        Name of the model that it starts from, with which the movie was measured.
    warnings : tuple of str
        Why the result should not be believed blindly, one sentence each.
    """

    measure: MovieMeasure
    scenes: LikeScenes
    experiment: Experiment
    start: str
    warnings: tuple[str, ...]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """What was measured, for people: quantity, in the movie, in simulated frames, range of the training."""
        return _rows(self)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[Path, Path]:
        """Write the experiment file and the figure.

        Parameters
        ----------
        folder : path
            Where to; made if missing.
        overwrite : bool
            Replace an experiment that is there.

        Returns
        -------
        experiment, figure : Path
            ``experiment.yaml`` and ``likeness.png``.

        Raises
        ------
        OutputError
            When the experiment exists or the folder cannot be written.
        """
        return _save(self, Path(folder), overwrite)


def propose_like(
    movie: Any,
    *,
    start: str | os.PathLike[str] = DEFAULT_MODEL,
    name: str | None = None,
    camera: Camera | None = None,
    offset_adu: float | None = None,
    e_per_adu: float | None = None,
    em_gain: float | None = None,
    psf_sigma_px: float | None = None,
    frames: tuple[int, int | None] | None = None,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Likeness:
    """Measure a movie and propose a fine-tune for it; nothing is trained and nothing is written.

    Parameters
    ----------
    movie : path, array (frame, y, x), or Movie
        The movie, with the light, sample and camera that the model is meant for.
    start : str or path
        Model to measure with and to start from: name of a shipped one, or a folder.
    name : str, optional
        Name of the model that results; from the movie's when left out.
    camera, offset_adu, e_per_adu, em_gain, psf_sigma_px, frames
        As for :func:`smlm_pb.localize`; what is not given is estimated.
    steps : int
        Optimisation steps of the fine-tune.
    seed : int
        Seed of everything random.
    device : str
        Where the measuring model runs.
    on_progress, should_stop : callable, optional
        As for :func:`smlm_pb.localize`, while the movie is measured.

    Returns
    -------
    Likeness

    Raises
    ------
    MovieError
        When the movie cannot tell what is needed: too few molecules, saturated, a PSF or a density that the model does
        not know.
    CameraError, ModelError, ConfigurationError
        When an input is wrong.

    Examples
    --------
    >>> likeness = propose_like("movie.tif", offset_adu=100, e_per_adu=0.5)  # doctest: +SKIP
    >>> likeness.save("runs/mine")  # doctest: +SKIP
    >>> smlm_pb.training.train(likeness.experiment, "runs/mine")  # doctest: +SKIP
    """
    settings = JobSettings(
        camera=camera,
        offset_adu=offset_adu,
        e_per_adu=e_per_adu,
        em_gain=em_gain,
        psf_sigma_px=psf_sigma_px,
        frames=frames,
    )
    model = load_model(str(start), device)
    own = _own_training(str(start))
    opened = open_movie(movie)
    try:
        measure = measure_movie(opened, model, settings, on_progress=on_progress, should_stop=should_stop)
    finally:
        if opened is not movie:
            opened.close()
    scenes = scenes_like(measure, model, own.get("scenes", {}), seed=seed)
    experiment = fine_tune(
        measure, scenes, model, own, start_from=str(start), name=name or _name_of(measure.name), steps=steps, seed=seed
    )
    warnings = (*measure.warnings, *_unlike(measure, scenes))
    return Likeness(measure, scenes, experiment, model.card.name, tuple(dict.fromkeys(warnings)))


def fine_tune(
    measure: MovieMeasure,
    scenes: LikeScenes,
    model: Model,
    own: Mapping[str, Any],
    *,
    start_from: str,
    name: str,
    steps: int,
    seed: int,
) -> Experiment:
    """The experiment of a short training that starts from a model.

    Parameters
    ----------
    measure, scenes : MovieMeasure, LikeScenes
        The movie and scenes like it.
    model : Model
        Start of the run.
    own : mapping
        Experiment of that model's training, as far as known: its loss is kept, at the values it ended with.
    start_from : str
        Name or folder of the model.
    name, steps, seed
        Of the run.
    """
    return Experiment.from_dict(
        {
            "name": name,
            "description": f"Movies like {measure.name}: fine-tuned from '{model.card.name}'",
            "seed": seed,
            "network": model.card.network,
            "start_from": start_from,
            "scenes": scenes.settings.as_dict(),
            "loss": _final_loss(own.get("loss")),
            "validation": {"every_steps": max(1, steps // 10), "scenes": 64},
            "steps": steps,
            "batch_size": 8,
            "crop_px": 48,
            "learning_rate": _LEARNING_RATE,
            "warmup": 0.05,
            "ema_decay": min(0.999, 1 - 10 / max(steps, 20)),
            "psf_sigma_jitter": own.get("psf_sigma_jitter", 0.03),
            "like": {
                **measure.as_dict(),
                "measured_with": {"model": model.card.name, "weights_sha256": model.card.weights_sha256},
                "command": command_line(),
                "version": __version__,
            },
        }
    )


def _own_training(start: str) -> dict[str, Any]:
    """The experiment beside a model's weights; empty where there is none."""
    path = find_model(start) / EXPERIMENT_FILE
    return Experiment.from_yaml(path).model_dump(mode="json") if path.exists() else {}


def _final_loss(loss: Mapping[str, Any] | None) -> dict[str, Any]:
    """The loss with its schedules at their ends: the network is past the beginning."""
    final = dict(loss or {})
    for key, value in (("bandwidth_px", _BANDWIDTH_PX), ("count_weight", _COUNT_WEIGHT)):
        end = final[key]["end"] if key in final else value
        final[key] = {"start": end, "end": end, "reached_at": 1.0}
    return final


def _name_of(movie: str) -> str:
    """A model's name made of a movie's."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"(\.ome)?\.(tiff?|npy|zarr|nd2|czi)$", "", movie)).strip("-._")
    return f"like-{stem or 'movie'}"


def _unlike(measure: MovieMeasure, scenes: LikeScenes) -> list[str]:
    """Say where simulated frames do not look like the movie, by what the same model finds in both."""
    pairs = {
        "photons per molecule": (measure.found.photons[1], scenes.found.photons[1], "e⁻"),
        "molecules per pixel and frame": (
            measure.found.mean_density_per_px2,
            scenes.found.mean_density_per_px2,
            "",
        ),
    }
    return [
        f"Movie {measure.name}: the model finds {real:.3g} {unit} {what} in it and {simulated:.3g} {unit} in the "
        "simulated frames: compare them in the figure before you train.".replace("  ", " ")
        for what, (real, simulated, unit) in pairs.items()
        if not 1 / _UNLIKE <= simulated / max(real, 1e-9) <= _UNLIKE
    ]


def _rows(likeness: Likeness) -> list[tuple[str, str, str, str]]:
    measure, found, settings = likeness.measure, likeness.scenes.found, likeness.scenes.settings
    conditions = measure.conditions

    def triple(values: tuple[float, float, float]) -> str:
        return f"{values[1]:.3g} ({values[0]:.3g} to {values[2]:.3g})"

    def between(values: tuple[float, float]) -> str:
        return f"{values[0]:.3g} to {values[1]:.3g}"

    density = (settings.sparse_density_per_px2[0], settings.dense_density_per_px2[1])
    return [
        (
            "PSF sigma (px)",
            f"{conditions.psf_sigma_px:.3g} ± {measure.psf_error_px:.2g} ({conditions.origin['psf_sigma_px']})",
            "–",
            between(settings.psf_sigma_px),
        ),
        ("photons (e⁻)", triple(measure.found.photons), triple(found.photons), between(settings.photons)),
        (
            "background (e⁻/px)",
            triple(measure.found.background_e),
            triple(found.background_e),
            between(settings.background_e),
        ),
        (
            "molecules per pixel and frame",
            triple(measure.found.density_per_px2),
            triple(found.density_per_px2),
            between(density),
        ),
    ]


def _save(likeness: Likeness, folder: Path, overwrite: bool) -> tuple[Path, Path]:
    from smlm_pb.training.likeness_figure import draw_likeness

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Folder {folder} cannot be made ({error.strerror}): choose another one.") from error
    experiment, figure = folder / EXPERIMENT_FILE, folder / FIGURE_FILE
    if experiment.exists() and not overwrite:
        raise OutputError(f"{experiment} exists already: train from it, or measure anew with overwrite=True.")
    text = yaml.safe_dump(likeness.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    with written_whole(figure, overwrite=True) as part:
        draw_likeness(likeness, part)
    with written_whole(experiment, overwrite=True) as part:
        part.write_text(text, encoding="utf-8")
    return experiment, figure
