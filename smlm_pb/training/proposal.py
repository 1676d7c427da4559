"""An experiment made for a movie and what somebody else knows of it, to be looked at before it is run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from smlm_pb.errors import ConfigurationError, OutputError
from smlm_pb.formats.output import written_whole
from smlm_pb.localization.conditions import resolve
from smlm_pb.localization.model import DEFAULT_MODEL, find_model, load_model
from smlm_pb.localization.settings import ASSUMED, Conditions, JobSettings
from smlm_pb.training.experiment import Experiment

if TYPE_CHECKING:
    import os

    from smlm_pb.localization.model import Model
    from smlm_pb.movies import Movie

EXPERIMENT_FILE = "experiment.yaml"
#: A network that is trained from nothing on one movie: small, since there is little to learn from.
SMALL_NETWORK = {"channels": 32, "blocks": 4}
#: Range of the PSF width around the movie's, relative.
_PSF_MARGIN = 0.06


@dataclass(frozen=True)
class Proposal:
    """An experiment, and what should be known before it is run.

    Parameters
    ----------
    experiment : Experiment
        ``smlm_pb.training.train(proposal.experiment, out)`` runs it.
    facts : tuple of str
        What was found out, one sentence each.
    warnings : tuple of str
        Why the result should not be believed blindly, one sentence each.
    """

    experiment: Experiment
    facts: tuple[str, ...]
    warnings: tuple[str, ...]

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the experiment file.

        Parameters
        ----------
        folder : path
            Where to; made if missing.
        overwrite : bool
            Replace an experiment that is there.

        Returns
        -------
        Path
            ``experiment.yaml``.

        Raises
        ------
        OutputError
            When it exists or the folder cannot be written.
        """
        target = Path(folder) / EXPERIMENT_FILE
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"Folder {target.parent} cannot be made ({error.strerror}): choose another one."
            ) from error
        text = yaml.safe_dump(self.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        with written_whole(target, overwrite) as part:
            part.write_text(text, encoding="utf-8")
        return target


def movie_conditions(movie: Movie, settings: JobSettings, start: Model | None) -> Conditions:
    """Camera and PSF of the movie, given or estimated; warnings on a model's range only where one is the start.

    Raises
    ------
    ConfigurationError
        When the width of the PSF is neither given nor to be measured.
    MovieError, CameraError
        As :func:`smlm_pb.localize`.
    """
    card = (start or load_model(DEFAULT_MODEL, "cpu")).card
    if start is None:
        card = replace(card, psf_sigma_px=(0.0, np.inf), background_e=(0.0, np.inf))
        if settings.psf_sigma_px is None:
            from smlm_pb.localization.estimate import estimate_psf_sigma

            if estimate_psf_sigma(movie).sigma_px is None:
                raise _unknown_width(movie.name)
    conditions = resolve(movie, settings, card)
    if conditions.origin["psf_sigma_px"] == ASSUMED:
        raise _unknown_width(movie.name)
    return conditions


def movie_section(source: Any, conditions: Conditions) -> dict[str, Any]:
    """What an experiment file says of a movie.

    Raises
    ------
    ConfigurationError
        When the movie is no file, or the camera has a value per pixel.
    """
    if not isinstance(source, (str, Path)):
        raise ConfigurationError(
            f"A training reads its movie again and again: give the path of a file, not a {type(source).__name__}."
        )
    camera = conditions.camera.as_dict()
    values = {name: camera[name] for name in ("offset_adu", "e_per_adu", "em_gain", "read_noise_e")}
    if any(np.ndim(value) for value in values.values()):
        raise ConfigurationError(
            "A training from a movie takes one camera value for all pixels: give the medians of the maps."
        )
    return {
        "movie": str(Path(source).expanduser().resolve()),
        "camera": {name: float(value) for name, value in values.items()},
        "psf_sigma_px": round(float(conditions.psf_sigma_px), 4),
        "frames": list(conditions.frames),
    }


def card_ranges(conditions: Conditions, photons: Any, density_per_px2: float) -> dict[str, Any]:
    """Ranges of simulated scenes that are like the movie; they go onto the model's card.

    Parameters
    ----------
    conditions : Conditions
        Of the movie.
    photons : array
        Effective photo-electrons of molecules; those that are not known are NaN.
    density_per_px2 : float
        Mean density of molecules.
    """
    sigma = conditions.psf_sigma_px
    known = np.asarray(photons, np.float64)
    known = known[np.isfinite(known) & (known > 0)]
    low, high = np.quantile(known, (0.1, 0.9)) if len(known) >= 20 else (500.0, 5000.0)
    excess = conditions.camera.excess_noise_factor
    background = max(conditions.background_e, 0.0) / excess
    dense = max(0.005, 1.5 * density_per_px2)
    ranges = {
        "psf_sigma_px": (max(0.3, sigma * (1 - _PSF_MARGIN)), sigma * (1 + _PSF_MARGIN)),
        "photons": (max(20.0, float(low)), max(30.0, float(high))),
        "background_e": (0.6 * background, 1.4 * background + 2),
        "sparse_density_per_px2": (max(1e-4, 0.2 * density_per_px2), max(2e-4, density_per_px2)),
        "dense_density_per_px2": (max(2e-4, density_per_px2), dense),
    }
    rounded = {name: [float(f"{value:.3g}") for value in pair] for name, pair in ranges.items()}
    return {**rounded, "em_fraction": 1.0 if excess > 1 else 0.0}


def own_training(start: str) -> Mapping[str, Any]:
    """The experiment beside a model's weights; empty where there is none."""
    path = find_model(start) / EXPERIMENT_FILE
    return Experiment.from_yaml(path).model_dump(mode="json") if path.exists() else {}


def optimizer_for(start: object | None) -> str:
    """The optimizer that learns faster: from nothing Muon; a trained network gains too little by it."""
    return "muon" if start is None else "adamw"


def name_of(movie: str, kind: str) -> str:
    """A model's name made of a movie's."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"(\.ome)?\.(tiff?|npy|zarr|nd2|czi)$", "", movie)).strip("-._")
    return f"{kind}-{stem or 'movie'}"


def _unknown_width(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"Movie {name}: the width of the PSF cannot be measured from it; give it with psf_sigma_px."
    )
