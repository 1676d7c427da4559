"""Training crops of a real movie whose molecules somebody else has located."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.formats import read_table
from smlm_pb.simulation.scenes import Scene, SceneSettings, draw_scene
from smlm_pb.training.batches import Batch, collate
from smlm_pb.training.data_settings import DataSettings, LabelTable
from smlm_pb.training.label_light import light_of_labels
from smlm_pb.training.movie_crops import MovieFrames, Window, draw_window, load_frames
from smlm_pb.training.validation import ValidationResult, validate

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations
    from smlm_pb.networks import PointNetwork
    from smlm_pb.training.experiment import Experiment

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

#: Labels further outside the frame than this belong to another movie, px.
_OUTSIDE_PX = 3.0


@dataclass(frozen=True)
class Labels:
    """Labels of one source, by frame.

    Parameters
    ----------
    frames : MovieFrames
        The frames that the source has looked at.
    start : array (frames + 1,), int
        Labels ``start[k]`` to ``start[k + 1]`` belong to frame ``k``.
    x, y, sigma_x, sigma_y, photons : array (labels,)
        Positions and their errors, px; effective photo-electrons, NaN where not known.
    background : array (frames, height, width), float32
        Expected background, e⁻ per pixel.
    """

    frames: MovieFrames
    start: npt.NDArray[np.int64]
    x: Float64Array
    y: Float64Array
    sigma_x: Float64Array
    sigma_y: Float64Array
    photons: Float64Array
    background: Float32Array

    def select(self, first: int, last: int) -> Labels:
        """The labels of frames ``first`` to ``last`` (exclusive)."""
        a, b = int(self.start[first]), int(self.start[last])
        return Labels(
            frames=self.frames.select(np.arange(first, last)),
            start=self.start[first : last + 1] - a,
            x=self.x[a:b],
            y=self.y[a:b],
            sigma_x=self.sigma_x[a:b],
            sigma_y=self.sigma_y[a:b],
            photons=self.photons[a:b],
            background=self.background[first:last],
        )

    def crop(self, window: Window) -> tuple[Scene, Float32Array]:
        """A window with its labels as a scene, and the labels' errors (n, 2) along (y, x)."""
        rows = slice(int(self.start[window.frame]), int(self.start[window.frame + 1]))
        y, x = window.move(self.y[rows], self.x[rows])
        sigma = np.stack((self.sigma_y[rows], self.sigma_x[rows]), axis=1)
        if (window.turn >= 4) != bool(window.turn % 2):
            sigma = sigma[:, ::-1]
        electrons = window.cut(self.frames.electrons[window.frame])
        x32, y32 = x.astype(np.float32), y.astype(np.float32)
        inside = (y32 >= -0.5) & (y32 < electrons.shape[0] - 0.5) & (x32 >= -0.5) & (x32 < electrons.shape[1] - 0.5)
        scene = Scene(
            electrons=electrons,
            x=x32[inside],
            y=y32[inside],
            photons=self.photons[rows][inside].astype(np.float32),
            background=window.cut(self.background[window.frame]),
            psf_sigma_px=self.frames.psf_sigma_px,
            read_noise_e=self.frames.read_noise_e,
            structure="labelled",
        )
        return scene, sigma[inside].astype(np.float32)


class LabelledMovie:
    """Random crops of a labelled movie, each with the labels of one source; see :class:`CropSource`.

    Parameters
    ----------
    experiment : Experiment
        With a ``data`` section that names tables.

    Raises
    ------
    TableError, MovieError, ConfigurationError
        When a table or the movie cannot be used: with the reason.
    """

    def __init__(self, experiment: Experiment) -> None:
        assert experiment.data is not None
        self.experiment, self.data = experiment, experiment.data
        self.scenes: SceneSettings = experiment.scene_settings()
        sources = [load_labels(self.data, one) for one in self.data.labels]
        size = min(min(labels.frames.electrons.shape[1:]) for labels in sources)
        if experiment.crop_px > size:
            raise ConfigurationError(
                f"crop_px = {experiment.crop_px} is larger than the {size} px of movie {self.data.movie}: lower it."
            )
        held = [max(1, round(self.data.held_out * len(labels.frames))) for labels in sources]
        for labels, last in zip(sources, held, strict=True):
            if len(labels.frames) <= last:
                raise ConfigurationError(
                    f"Movie {self.data.movie} has {len(labels.frames)} labelled frame: at least two are needed, one to "
                    "learn from and one to judge by."
                )
        pairs = list(zip(sources, held, strict=True))
        self.learn = [labels.select(0, len(labels.frames) - last) for labels, last in pairs]
        self.unseen = [labels.select(len(labels.frames) - last, len(labels.frames)) for labels, last in pairs]

    def draw(self, rng: np.random.Generator) -> Batch:
        """One batch."""
        simulated = round(self.data.simulated_share * self.experiment.batch_size)
        crops = [self._one(rng, self.learn) for _ in range(self.experiment.batch_size - simulated)]
        scenes = [draw_scene(rng, self.scenes, self.experiment.crop_px) for _ in range(simulated)]
        exact = [np.zeros((len(scene.x), 2), np.float32) for scene in scenes]
        batch = collate([*(scene for scene, _ in crops), *scenes])
        return batch._replace(label_sigma=torch.from_numpy(np.concatenate([*(sigma for _, sigma in crops), *exact])))

    def judge(self, network: PointNetwork, device: torch.device) -> ValidationResult:
        """Score a network on crops of the frames that are not learned from."""
        settings = self.experiment.validation
        rng = np.random.default_rng(settings.seed)
        crops = [self._one(rng, self.unseen) for _ in range(settings.scenes)]
        scenes = [scene for scene, _ in crops]
        return validate(network, scenes, tolerance_px=settings.tolerance_px, device=device)

    def _one(self, rng: np.random.Generator, sources: list[Labels]) -> tuple[Scene, Float32Array]:
        labels = sources[int(rng.integers(len(sources)))]
        return labels.crop(draw_window(rng, labels.frames, self.experiment.crop_px))


def load_labels(data: DataSettings, source: LabelTable) -> Labels:
    """Read one table and the frames that belong to it.

    Raises
    ------
    TableError
        When the table does not fit the movie.
    """
    table = read_table(source.table, source.format, pixel_size_nm=data.pixel_size_nm)
    if not len(table):
        raise TableError(f"{source.table} holds no positions: there is nothing to learn from.")
    wanted = np.unique(table["frame"]).astype(np.int64)
    if source.frames == "all":  # before the first and behind the last label nobody may have looked
        wanted = np.arange(wanted[0], wanted[-1] + 1)
    frames = load_frames(data, wanted=wanted)
    _check_fit(table, source, frames, data)
    chosen = table.select(np.isin(table["frame"], frames.number))
    order = np.argsort(chosen["frame"], kind="stable")
    chosen = chosen.select(order)
    if not len(chosen):
        raise TableError(f"{source.table} has no position in the frames that are used: check frames and frame numbers.")
    start = np.searchsorted(chosen["frame"], np.append(frames.number, frames.number[-1] + 1))
    sigma_x, sigma_y = label_sigma(chosen, source)
    x = chosen["x"].astype(np.float64) - source.shift_px[0]
    y = chosen["y"].astype(np.float64) - source.shift_px[1]
    factor = data.camera.camera().excess_noise_factor
    photons, background = _light(frames, start, x, y, np.hypot(sigma_x, sigma_y) / np.sqrt(2))
    if "photons" in chosen and bool((chosen["photons"] > 0).any()):
        known = chosen["photons"].astype(np.float64) / factor
        photons = np.where(known > 0, known, photons)
    return Labels(frames, start.astype(np.int64), x, y, sigma_x, sigma_y, photons, background)


def label_sigma(table: Localizations, source: LabelTable) -> tuple[Float64Array, Float64Array]:
    """Error of each label along x and y, px: that of its source and, if it counts, its own, in quadrature."""
    errors = []
    for name in ("sigma_x", "sigma_y"):
        own = np.zeros(len(table))
        if source.own_sigma and name in table:
            own = table[name].astype(np.float64)
            known = np.isfinite(own) & (own > 0)
            own = np.where(known, own, np.median(own[known]) if known.any() else 0.0)
        errors.append(np.hypot(own, source.sigma_px))
    return errors[0], errors[1]


def _light(
    frames: MovieFrames, start: npt.NDArray[np.int64], x: Float64Array, y: Float64Array, sigma: Float64Array
) -> tuple[Float64Array, Float32Array]:
    photons, background = np.zeros(len(x)), np.zeros_like(frames.electrons)
    for k, frame in enumerate(frames.electrons):
        rows = slice(int(start[k]), int(start[k + 1]))
        photons[rows], background[k] = light_of_labels(frame, y[rows], x[rows], sigma[rows], frames.psf_sigma_px)
    return photons, background


def _check_fit(table: Localizations, source: LabelTable, frames: MovieFrames, data: DataSettings) -> None:
    height, width = frames.electrons.shape[1:]
    x, y = table["x"] - source.shift_px[0], table["y"] - source.shift_px[1]
    far = (x < -_OUTSIDE_PX) | (y < -_OUTSIDE_PX) | (x > width - 1 + _OUTSIDE_PX) | (y > height - 1 + _OUTSIDE_PX)
    if far.any():
        row = int(np.argmax(far))
        raise TableError(
            f"{source.table}: row {row} lies at x = {x[row]:.4g}, y = {y[row]:.4g} px, outside the {width}×{height} px "
            f"of movie {data.movie}: check the pixel size of the table, and that it belongs to this movie."
        )
