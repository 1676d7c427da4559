"""From a movie to the frames that are explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from smlm_pb.errors import MovieError
from smlm_pb.localization.frame_sample import draw_sample
from smlm_pb.localization.settings import Conditions, JobSettings
from smlm_pb.movies import Movie
from smlm_pb.training.label_free.molecules import Frames
from smlm_pb.training.proposal import movie_conditions

if TYPE_CHECKING:
    from smlm_pb.localization.model import Model

#: Pixels that are explained; of longer movies evenly spaced frames.
_BUDGET_PX = 1 << 21
#: Pixels that are explained at once.
_CHUNK_PX = 1 << 18
FEWEST_FRAMES = 10
#: Share of clipped pixels from which on the light of molecules is not known.
_CLIPPED = 0.002


@dataclass(frozen=True)
class Recording:
    """The frames of a movie that a label-free training looks at.

    Parameters
    ----------
    name, fingerprint : str
        The movie.
    conditions : Conditions
        Camera, PSF width to begin with, and where they come from.
    chunks : tuple of Frames
        The frames in parts, in effective photo-electrons.
    """

    name: str
    fingerprint: str
    conditions: Conditions
    chunks: tuple[Frames, ...]

    @property
    def n_frames(self) -> int:
        """Frames that are looked at."""
        return sum(len(chunk.electrons) for chunk in self.chunks)

    @property
    def field(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.chunks[0].shape[1:]

    @property
    def read_noise_e(self) -> float:
        """Read noise in effective photo-electrons."""
        return float(self.chunks[0].read_variance.median().sqrt())


def record(
    movie: Movie, settings: JobSettings, start: Model | None, *, crop_px: int, device: torch.device
) -> Recording:
    """Read the frames and convert them to effective photo-electrons.

    Parameters
    ----------
    movie : Movie
        An open movie.
    settings : JobSettings
        Camera values, PSF width and frames, as far as given.
    start : Model, optional
        The model that the training starts from.
    crop_px : int
        Side of the crops that will be cut, px.
    device : torch.device
        Where the frames are explained.

    Returns
    -------
    Recording

    Raises
    ------
    MovieError
        When the movie is too short, too small, saturated, or cannot be read.
    CameraError, ConfigurationError
        When camera values or PSF width are neither given nor to be estimated.
    """
    if min(movie.height, movie.width) < crop_px:
        raise MovieError(
            f"Movie {movie.name} has frames of {movie.height} × {movie.width} px: at least {crop_px} × {crop_px} are "
            "needed to learn from; record a larger field."
        )
    conditions = movie_conditions(movie, settings, start)
    first, stop = conditions.frames
    if stop - first < FEWEST_FRAMES:
        raise MovieError(
            f"Movie {movie.name}: {stop - first} frames are too few to learn from; give at least {FEWEST_FRAMES}, "
            "better some hundred."
        )
    adu = _evenly_spaced(movie, first, stop)
    _refuse_saturated(movie.name, adu)
    camera = conditions.camera
    excess = camera.excess_noise_factor
    electrons = torch.from_numpy(camera.to_electrons(adu) / np.float32(excess)).to(device)
    # Divided by F², the pixels have variance = mean; the read noise is divided with them.
    variance = np.broadcast_to(np.asarray(camera.read_variance_e2, np.float32) / excess**2, adu.shape[1:])
    noise = torch.from_numpy(np.maximum(variance, 1e-3).astype(np.float32)).to(device)
    size = max(1, _CHUNK_PX // (movie.height * movie.width))
    # The likelihood knows no negative counts: pixels far below zero are noise of the camera.
    electrons = torch.maximum(electrons, -noise)
    chunks = tuple(Frames(electrons[at : at + size], noise) for at in range(0, len(electrons), size))
    return Recording(movie.name, movie.fingerprint(), conditions, chunks)


def _evenly_spaced(movie: Movie, first: int, stop: int) -> npt.NDArray[Any]:
    at_most = max(FEWEST_FRAMES, _BUDGET_PX // (movie.height * movie.width))
    if stop - first <= at_most:
        return movie.read(first, stop)
    chosen = np.unique(np.linspace(first, stop - 1, at_most).round().astype(int))
    return np.concatenate([movie.read(int(k), int(k) + 1) for k in chosen])


def _refuse_saturated(name: str, adu: npt.NDArray[Any]) -> None:
    level = draw_sample(adu).saturation
    share = float(np.mean(adu >= level)) if np.isfinite(level) else 0.0
    if share > _CLIPPED:
        raise MovieError(
            f"Movie {name}: {100 * share:.2g} % of the pixels are saturated, so the shape of the spots is not known: "
            "record with less light, gain or exposure."
        )
