"""Training of the network that finds corners and holes, on synthetic targets: one command, one seed.

``smlm-pb calibrate train --seed 0 --out DIR`` makes the model that is shipped.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from smlm_pb._version import __version__
from smlm_pb.calibration.boards import KINDS, Board, BoardSettings, draw_board
from smlm_pb.calibration.grid_network import REACH_CELLS, GridNetwork, condition_of_kind, prepare, to_cells
from smlm_pb.errors import ConfigurationError, OutputError
from smlm_pb.formats.output import write_together
from smlm_pb.training.batches import Batch
from smlm_pb.training.checkpoint import load_checkpoint, save_checkpoint
from smlm_pb.training.experiment import LossSettings, Schedule
from smlm_pb.training.objective import objective

CARD_FILE = "grid.json"
WEIGHTS_FILE = "weights.safetensors"
DEFAULT_STEPS = 5000
_BATCH, _CROP_PX, _CHANNELS = 8, 96, 32
_LEARNING_RATE = 2e-3
_CHECKPOINT_STEPS = 250
#: Share of targets that are shown while the network is asked for the other kind: it must find nothing.
_OTHER_KIND = 0.15
#: In cells of two pixels. The published width is 1.25 px throughout.
_LOSS = LossSettings(
    bandwidth_px=Schedule(start=0.9, end=0.2, reached_at=0.6),
    count_weight=Schedule(start=0.05, end=0.5, reached_at=0.4),
    position_weight=0.2,
    photon_weight=0.0,
    background_weight=0.0,
)


def train_grid(
    out: str | Path,
    *,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    settings: BoardSettings | None = None,
    overwrite: bool = False,
    resume: bool = False,
    max_seconds: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path | None:
    """Train and write the model.

    Parameters
    ----------
    out : path
        Folder of the model.
    steps : int
        Optimisation steps of eight pictures each.
    seed : int
        Seed of weights and pictures.
    settings : BoardSettings, optional
        Range of targets.
    overwrite : bool
        Whether a model that is there is replaced.
    resume : bool
        Continue from the checkpoint in the folder; the result is that of an uninterrupted run.
    max_seconds : float, optional
        Stop after this time with a checkpoint, to be resumed.
    on_progress : callable, optional
        Called with steps done and all steps.

    Returns
    -------
    Path or None
        The folder; None where time ran out before the last step.

    Raises
    ------
    OutputError
        When the folder holds a model, or cannot be written.
    ConfigurationError
        When the number of steps is impossible, or there is nothing to resume.
    """
    folder = Path(out)
    if steps < 1:
        raise ConfigurationError(f"steps = {steps} is impossible; give a whole number from 1.")
    if (folder / CARD_FILE).exists() and not overwrite:
        raise OutputError(
            f"{folder} already holds a model: choose another folder, or allow overwriting (overwrite=True)."
        )
    settings = settings or BoardSettings()
    run = _Run(folder, settings, steps, seed)
    if resume:
        run.restore()
    if not run.go(max_seconds, on_progress):
        return None
    card = {
        "name": "grid",
        "description": "Corners of checkerboards and holes of grids, for pixel size, distortion and registration",
        "kinds": list(KINDS),
        "channels": _CHANNELS,
        "boards": asdict(settings),
        "training": {
            "command": f"smlm-pb calibrate train --steps {steps} --seed {seed} --out DIR",
            "seed": seed,
            "steps": steps,
            "minutes": round(run.seconds / 60, 1),
            "version": __version__,
        },
    }
    _write(folder, run.averaged, card)
    run.forget()
    return folder


class _Run:
    """Weights, their average and the optimiser, from step to step."""

    def __init__(self, folder: Path, settings: BoardSettings, steps: int, seed: int) -> None:
        self.folder, self.settings, self.steps, self.seed = folder, settings, steps, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = GridNetwork(_CHANNELS)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = self.network.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, weight_decay=1e-4, betas=(0.9, 0.99))
        self.step, self.seconds = 0, 0.0

    @property
    def _identity(self) -> dict[str, Any]:
        # By way of JSON, in which the checkpoint keeps it.
        plain: dict[str, Any] = json.loads(
            json.dumps({"steps": self.steps, "seed": self.seed, **asdict(self.settings)})
        )
        return plain

    def restore(self) -> None:
        """Continue where the last checkpoint stopped."""
        self.step, _, state = load_checkpoint(
            self.folder,
            network=self.network,
            averaged=self.averaged,
            optimizer=self.optimizer,
            experiment=self._identity,
        )
        self.seconds = float(state["seconds"])

    def save(self) -> None:
        """Write a checkpoint."""
        save_checkpoint(
            self.folder,
            step=self.step,
            network=self.network,
            averaged=self.averaged,
            best=None,
            optimizer=self.optimizer,
            experiment=self._identity,
            state={"seconds": self.seconds},
        )

    def forget(self) -> None:
        """Remove the checkpoint of a run that is done."""
        (self.folder / "checkpoint.safetensors").unlink(missing_ok=True)

    def go(self, max_seconds: float | None, on_progress: Callable[[int, int], None] | None) -> bool:
        """Train to the last step, or until time is out; returns whether all is done."""
        before, began = self.seconds, time.monotonic()
        while self.step < self.steps:
            self.improve()
            self.seconds = before + time.monotonic() - began
            if on_progress is not None:
                on_progress(self.step, self.steps)
            out_of_time = max_seconds is not None and time.monotonic() - began > max_seconds
            if out_of_time or self.step % _CHECKPOINT_STEPS == 0:
                self.save()
            if out_of_time:
                break
        return self.step >= self.steps

    def improve(self) -> None:
        """One step of AdamW, with warm-up and cosine."""
        progress = self.step / self.steps
        warm = min(1.0, (self.step + 1) / max(1, 0.03 * self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        image, condition, batch = draw_batch(np.random.default_rng([self.seed, self.step]), self.settings)
        field = self.network(image, condition)
        terms = objective(field, batch, _LOSS, progress=progress, reach_px=REACH_CELLS)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 20.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        decay = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, value in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
                kept.lerp_(value, 1 - decay)
        self.step += 1


def draw_batch(
    rng: np.random.Generator, settings: BoardSettings, *, size: int = _BATCH, crop_px: int = _CROP_PX
) -> tuple[torch.Tensor, torch.Tensor, Batch]:
    """Pictures, what is asked for in each, and the true points, in cells."""
    boards = [draw_board(rng, settings, crop_px) for _ in range(size)]
    asked = [_asked(rng, board) for board in boards]
    wanted = [board.kind == kind for board, kind in zip(boards, asked, strict=True)]
    truth = [
        np.stack((board.y, board.x), axis=1) if is_wanted else np.empty((0, 2))
        for board, is_wanted in zip(boards, wanted, strict=True)
    ]
    position = to_cells(np.concatenate(truth)).astype(np.float32)
    item = np.repeat(np.arange(size), [len(t) for t in truth])
    image = torch.from_numpy(np.stack([prepare(board.image) for board in boards]))
    cells = (size, crop_px // 2, crop_px // 2)
    batch = Batch(
        electrons=image[:, :1],
        background=torch.zeros(cells),
        psf_sigma_px=torch.ones(size),
        position=torch.from_numpy(position),
        photons=torch.ones(len(position)),
        item=torch.from_numpy(item),
    )
    return image, condition_of_kind(asked), batch


def _asked(rng: np.random.Generator, board: Board) -> str:
    """Mostly what is there, sometimes the other kind."""
    if board.kind not in KINDS:
        return str(rng.choice(KINDS))
    if rng.random() < _OTHER_KIND:
        return KINDS[1 - KINDS.index(board.kind)]
    return board.kind


def _write(folder: Path, network: nn.Module, card: dict[str, Any]) -> None:
    """Weights and card, whole or not at all."""
    from safetensors.torch import save

    content = save({k: v.detach().contiguous().clone() for k, v in network.state_dict().items()})
    card = {**card, "weights_sha256": hashlib.sha256(content).hexdigest()}
    files = {
        WEIGHTS_FILE: content,
        CARD_FILE: (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode(),
    }
    try:
        write_together(folder, files)
    except OSError as error:
        raise OutputError(f"Model folder {folder} cannot be written ({error.strerror or error}).") from error
