"""Training crops of a real movie in which molecules were counted, but not located.

A network that must count right in windows that lie anywhere, and that does not know where they lie, must put each
molecule where it is: otherwise molecules near the border of a window are counted on the wrong side. It is told by the
exact likelihood of the counts alone.

References
----------
J. Schroeter, PhD thesis, Cardiff University (2021), chapter 4 (Eq. 4.6) and section 4.3.3.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smlm_pb.errors import ConfigurationError
from smlm_pb.losses import count_negative_log_likelihood
from smlm_pb.movies import open_movie
from smlm_pb.networks import OffsetRegressionNetwork, PointField
from smlm_pb.networks.offset_regression import SIGMA_RANGE_PX
from smlm_pb.simulation.scenes import Scene
from smlm_pb.training.batches import Batch, collate
from smlm_pb.training.count_table import CountTable, IntArray, read_counts
from smlm_pb.training.movie_crops import MovieFrames, Window, load_frames
from smlm_pb.training.validation import THRESHOLDS, ValidationResult

if TYPE_CHECKING:
    from smlm_pb.networks import PointNetwork
    from smlm_pb.training.experiment import Experiment

#: Symmetries that keep the shape of a window that is not square.
_KEEP_SHAPE = (0, 2)
#: Standard deviation of a position that is known to the pixel, px.
_CELL_SIGMA_PX = math.sqrt(1 / 12)


class CountedMovie:
    """Random crops of a counted movie with all counted windows inside them; see :class:`CropSource`.

    Parameters
    ----------
    experiment : Experiment
        With a ``data`` section that names a table of counts.

    Raises
    ------
    TableError, MovieError, ConfigurationError
        When the table or the movie cannot be used: with the reason.
    """

    def __init__(self, experiment: Experiment) -> None:
        data = experiment.data
        assert data is not None
        assert data.counts is not None
        self.experiment = experiment
        movie = open_movie(data.movie)
        table = read_counts(data.counts, height=movie.height, width=movie.width, n_frames=movie.n_frames)
        movie.close()
        frames = load_frames(data, wanted=np.unique(table.frame))
        crop = experiment.crop_px
        shape = frames.electrons.shape[1:]
        self.size = (min(crop, shape[0]), min(crop, shape[1]))
        largest = (table.window[:, 2:] - table.window[:, :2]).max(0)
        if (largest > self.size).any():
            raise ConfigurationError(
                f"{data.counts} has windows of up to {largest[0]}×{largest[1]} px, but crop_px = {crop}: raise crop_px "
                "to their larger side."
            )
        learn, unseen = frames.hold_out(data.held_out)
        self.learn, self.unseen = _Counted(learn, table), _Counted(unseen, table)

    def draw(self, rng: np.random.Generator) -> Batch:
        """One batch."""
        return self._draw(rng, self.learn, self.experiment.batch_size)

    def judge(self, network: PointNetwork, device: torch.device) -> ValidationResult:
        """Score a network on windows of the frames that are not learned from."""
        settings = self.experiment.validation
        rng = np.random.default_rng(settings.seed)
        expected, counts = [], []
        for _ in range(math.ceil(settings.scenes / self.experiment.batch_size)):
            batch = self._draw(rng, self.unseen, self.experiment.batch_size).to(device)
            assert batch.n_molecules is not None
            with torch.inference_mode():
                logits = window_logits(network(batch.electrons, batch.psf_sigma_px), batch)
            expected.append(torch.sigmoid(logits).cpu().numpy())
            counts.append(batch.n_molecules.cpu().numpy())
        return _score(expected, np.concatenate(counts))

    def _draw(self, rng: np.random.Generator, counted: _Counted, crops: int) -> Batch:
        scenes, windows, counts = [], [], []
        for item in range(crops):
            scene, window, count = counted.crop(rng, self.size)
            scenes.append(scene)
            windows.append(np.column_stack((np.full(len(window), item), window)))
            counts.append(count)
        return collate(scenes)._replace(
            window=torch.from_numpy(np.concatenate(windows)), n_molecules=torch.from_numpy(np.concatenate(counts))
        )


class _Counted:
    """Frames with their counted windows."""

    def __init__(self, frames: MovieFrames, table: CountTable) -> None:
        index = np.searchsorted(frames.number, table.frame)
        here = (index < len(frames)) & (frames.number[index.clip(0, len(frames) - 1)] == table.frame)
        order = np.argsort(index[here], kind="stable")
        self.frames = frames
        self.index = index[here][order]
        self.window = table.window[here][order]
        self.count = table.count[here][order]

    def crop(self, rng: np.random.Generator, size: tuple[int, int]) -> tuple[Scene, IntArray, IntArray]:
        """A crop around a random window: the crop, all windows inside it (n, 4), and their counts."""
        one = int(rng.integers(len(self.index)))
        frame = int(self.index[one])
        shape = self.frames.electrons.shape[1:]
        first = []
        for axis in range(2):
            low = max(0, int(self.window[one, 2 + axis]) - size[axis])
            high = min(shape[axis] - size[axis], int(self.window[one, axis]))
            first.append(int(rng.integers(low, high + 1)))
        turns = range(8) if size[0] == size[1] else _KEEP_SHAPE
        turn = int(rng.choice(turns)) if self.frames.flips else 0
        window = Window(frame, first[0], first[1], size, turn)
        rows = slice(*np.searchsorted(self.index, (frame, frame + 1)))
        around = self.window[rows]
        inside = (around[:, :2] >= first).all(1) & (around[:, 2:] <= np.add(first, size)).all(1)
        scene = Scene(
            electrons=window.cut(self.frames.electrons[frame]),
            x=np.zeros(0, np.float32),
            y=np.zeros(0, np.float32),
            photons=np.zeros(0, np.float32),
            background=np.full(size, np.nan, np.float32),
            psf_sigma_px=self.frames.psf_sigma_px,
            read_noise_e=self.frames.read_noise_e,
            structure="counted",
        )
        return scene, _turned_windows(window, around[inside]), self.count[rows][inside]


def _turned_windows(crop: Window, windows: IntArray) -> IntArray:
    """Windows (n, 4) of the frame in the pixels of the turned crop."""
    y, x = crop.move(windows[:, [0, 2]] - np.array([0, 1]), windows[:, [1, 3]] - np.array([0, 1]))
    y, x = np.sort(y, axis=1), np.sort(x, axis=1)
    return np.stack((y[:, 0], x[:, 0], y[:, 1] + 1, x[:, 1] + 1), axis=1).astype(np.int64)


def window_logits(field: PointField, batch: Batch) -> Tensor:
    """Existence logits of the candidates of every counted window (windows, candidates); -inf outside of it."""
    assert batch.window is not None
    n, height, width = field.logit.shape[1:]
    item, y0, x0, y1, x1 = batch.window.unbind(1)
    row = torch.arange(height, device=field.logit.device)
    column = torch.arange(width, device=field.logit.device)
    rows = (row >= y0[:, None]) & (row < y1[:, None])
    columns = (column >= x0[:, None]) & (column < x1[:, None])
    inside = (rows[:, None, :, None] & columns[:, None, None, :]).expand(-1, n, -1, -1)
    return field.logit[item].masked_fill(~inside, -math.inf).flatten(1)


def count_objective(field: PointField, batch: Batch) -> dict[str, Tensor]:
    """The counting loss of the windows of a batch, averaged over them.

    Parameters
    ----------
    field : PointField
        The network's output.
    batch : Batch
        With ``window`` and ``n_molecules``.

    Returns
    -------
    dict of str to Tensor
        ``count`` and ``total``, which is the same.
    """
    assert batch.n_molecules is not None
    logits = window_logits(field, batch)
    possible = (~torch.isneginf(logits)).sum(1)
    loss = count_negative_log_likelihood(logits, torch.minimum(batch.n_molecules, possible)).mean()
    return {"total": loss, "count": loss}


def read_out_cells(network: OffsetRegressionNetwork) -> None:
    """Let an untrained network state pixels: offsets 0, the precision of a position known to the pixel.

    No count tells where in its pixel a molecule lies, so nothing would ever move these outputs away from their random
    start. Photons and background stay at typical values for the same reason.
    """
    n = network.n_candidates
    low, high = (math.log(sigma) for sigma in SIGMA_RANGE_PX)
    share = (math.log(_CELL_SIGMA_PX) - low) / (high - low)
    with torch.no_grad():
        network.head.weight[n:] = 0
        assert network.head.bias is not None
        network.head.bias[n:] = 0
        network.head.bias[3 * n : 5 * n] = math.log(share / (1 - share))


def _score(probabilities: list[npt.NDArray[np.float32]], counts: IntArray) -> ValidationResult:
    """Agreement of counts: the largest Jaccard index that they allow, over the thresholds."""
    best: ValidationResult | None = None
    at_half = 0.0
    for threshold in THRESHOLDS:
        found = np.concatenate([(p >= threshold).sum(1) for p in probabilities])
        both = float(np.minimum(found, counts).sum())
        jaccard = both / max(1.0, float(np.maximum(found, counts).sum()))
        if best is None or jaccard > best.jaccard:
            best = ValidationResult(
                threshold=threshold,
                jaccard=jaccard,
                precision=both / max(1, int(found.sum())),
                recall=both / max(1, int(counts.sum())),
                rmse_px=math.nan,
                pull=math.nan,
                jaccard_at_half=0.0,
                false_per_empty_scene=float(found[counts == 0].mean()) if (counts == 0).any() else 0.0,
                counts_only=True,
            )
        if threshold == 0.5:
            at_half = jaccard
    assert best is not None
    return replace(best, jaccard_at_half=at_half)
