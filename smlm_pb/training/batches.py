"""Training batches, simulated on the fly and reproducible step by step."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smlm_pb.population import POPULATION_FIELDS, UNKNOWN_POPULATION
from smlm_pb.simulation.scenes import Scene


class Views(NamedTuple):
    """Two views of the same crops without labels."""

    #: Effective photo-electrons (crops, 1, height, width), as they are.
    first: Tensor
    #: The same, dimmed and turned.
    second: Tensor
    #: PSF width of each crop, px (crops,).
    psf_sigma_px: Tensor
    #: How the second views are turned, see `smlm_pb.training.movie_crops.turned`.
    turn: int

    def to(self, device: torch.device, non_blocking: bool = False) -> Views:
        """The views on another device."""
        first, second, width = (t.to(device, non_blocking=non_blocking) for t in self[:3])
        return Views(first, second, width, self.turn)


class Batch(NamedTuple):
    """Scenes and their truth as tensors."""

    #: Effective photo-electrons (batch, frames, height, width): one frame, or with those before and after.
    electrons: Tensor
    #: Expected background (batch, height, width); NaN where it is not known.
    background: Tensor
    #: PSF width of each scene, px (batch,).
    psf_sigma_px: Tensor
    #: True positions (molecules, 2) as (y, x), px.
    position: Tensor
    #: Photons of the true molecules (molecules,); NaN where they are not known.
    photons: Tensor
    #: Scene to which each molecule belongs (molecules,).
    item: Tensor
    #: What is known of each scene's molecules as a whole (batch, 5), NaN where nothing is; see `smlm_pb.population`.
    population: Tensor | None = None
    #: Error of each position that is a label and not the truth (molecules, 2) as (y, x), px.
    label_sigma: Tensor | None = None
    #: Counted windows (windows, 5): scene, first row and column, row and column after the last.
    window: Tensor | None = None
    #: Molecules in each of them (windows,).
    n_molecules: Tensor | None = None
    #: Crops without labels.
    views: Views | None = None
    #: Class of each molecule (molecules,); None where all are alike.
    label: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return Batch(*(None if t is None else t.to(device, non_blocking=True) for t in self))  # type: ignore[arg-type]


def collate(scenes: Sequence[Scene]) -> Batch:
    """Put scenes together into one batch."""
    counts = [len(scene.x) for scene in scenes]
    position = np.concatenate([np.stack((s.y, s.x), axis=1) for s in scenes]).astype(np.float32)
    return Batch(
        electrons=torch.from_numpy(np.stack([_frames(s) for s in scenes])),
        background=torch.from_numpy(np.stack([s.background for s in scenes])),
        psf_sigma_px=torch.tensor([s.psf_sigma_px for s in scenes], dtype=torch.float32),
        position=torch.from_numpy(position),
        photons=torch.from_numpy(np.concatenate([s.photons for s in scenes]).astype(np.float32)),
        item=torch.from_numpy(np.repeat(np.arange(len(scenes)), counts)),
        population=torch.from_numpy(populations_of(scenes).astype(np.float32)),
        label=_labels(scenes),
    )


def populations_of(scenes: Sequence[Scene]) -> npt.NDArray[np.float64]:
    """What is known of each scene's molecules (scenes, 5), NaN where nothing is."""
    rows = [UNKNOWN_POPULATION if scene.population is None else scene.population.values() for scene in scenes]
    return np.array(rows, np.float64).reshape(len(scenes), len(POPULATION_FIELDS))


def _labels(scenes: Sequence[Scene]) -> Tensor | None:
    known = [scene.label for scene in scenes if scene.label is not None]
    return torch.from_numpy(np.concatenate(known)) if len(known) == len(scenes) else None


def _frames(scene: Scene) -> npt.NDArray[np.float32]:
    """The scene's frame, in the middle of those before and after where there are any: (frames, height, width)."""
    if scene.context is None:
        return scene.electrons[None]
    before, after = np.split(scene.context, 2)
    return np.concatenate((before, scene.electrons[None], after))


def batch_stream(batches: Dataset[Batch], workers: int) -> Iterator[Batch]:
    """Batches in order, simulated ahead of time by worker processes."""
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        worker_init_fn=_prepare_worker,
    )
    return iter(loader)


def _prepare_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C, and the end signal of a batch system, reach every process; what they mean is for the training process
    # to decide, and when that ends the workers end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
