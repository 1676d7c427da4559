"""Movies made of another movie, in effective photo-electrons, and what a model finds in them."""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import os

    from smlm_pb.localization.job import Job
    from smlm_pb.localization.model import Model
    from smlm_pb.localization.settings import JobSettings
    from smlm_pb.localization.threshold import ProbabilityHistogram
    from smlm_pb.movies import Movie


@contextmanager
def opened_job(movie: Any, model: str | os.PathLike[str] | Model, device: str, settings: JobSettings) -> Iterator[Job]:
    """A movie with the conditions under which it would be localized; closed at the end, if it was opened here.

    Parameters
    ----------
    movie : path, array (frame, y, x), or Movie
        Anything that :func:`smlm_pb.open_movie` opens.
    model : str, path or Model
        Loaded if need be.
    device : str
        Where the network runs.
    settings : JobSettings
        What is asked for.

    Yields
    ------
    Job

    Raises
    ------
    MovieError, CameraError, ModelError, ConfigurationError
        When an input is wrong.

    Warns
    -----
    UserWarning
        As :func:`smlm_pb.localize`.
    """
    from smlm_pb.localization.conditions import resolve
    from smlm_pb.localization.job import Job, get_model
    from smlm_pb.movies import open_movie

    opened = open_movie(movie)
    try:
        loaded = get_model(model, device)
        job = Job(opened, loaded, settings, resolve(opened, settings, loaded.card), opened.fingerprint())
        for warning in job.conditions.warnings:
            python_warnings.warn(warning, UserWarning, stacklevel=4)  # beyond contextlib, and whoever enters
        yield job
    finally:
        if opened is not movie:
            opened.close()


def find_in(movie: Movie, job: Job, tell: Callable[[int], None]) -> tuple[npt.NDArray[Any], ProbabilityHistogram]:
    """Find the candidates of a movie that was made of that of a job.

    Parameters
    ----------
    movie : Movie
        Effective photo-electrons, on which photon noise has variance = mean.
    job : Job
        Model, settings, and the conditions of the original.
    tell : callable
        Called with the number of frames done; may raise to end it.

    Returns
    -------
    rows : structured array (n,)
        Candidates; photons are electrons of the original's camera.
    histogram : ProbabilityHistogram
        Of their probabilities, for a threshold.
    """
    from smlm_pb.camera import Camera
    from smlm_pb.localization.candidates import CANDIDATE_DTYPE
    from smlm_pb.localization.pipeline import find_candidates
    from smlm_pb.localization.threshold import ProbabilityHistogram

    rows: list[npt.NDArray[Any]] = [np.empty(0, CANDIDATE_DTYPE)]
    histogram = ProbabilityHistogram()
    with find_candidates(
        movie,
        job.model,
        camera=Camera(offset_adu=0.0, e_per_adu=1.0, read_noise_e=0.0),
        psf_sigma_px=job.network_psf_sigma_px,
        frames=(0, movie.n_frames),
        floor=job.settings.floor,
    ) as blocks:
        for block in blocks:
            rows.append(block.candidates.rows)
            histogram.add(block.candidates.rows["probability"], block.candidates.expected_unlisted)
            tell(block.stop)
    found = np.concatenate(rows)
    found["photons"] *= job.conditions.camera.excess_noise_factor
    return found, histogram
