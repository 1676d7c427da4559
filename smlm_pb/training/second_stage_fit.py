"""Fitting the small networks of second stages to examples that are in memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.errors import Cancelled
from smlm_pb.losses.map_grid import MapGrid
from smlm_pb.losses.sampling_argmax import LOSSES, sampling_argmax, temperature_at
from smlm_pb.networks.second_look import SecondLook, stated_logit
from smlm_pb.refinement.looks import CHANNELS, FACTS, WINDOW_PX, turned
from smlm_pb.training.second_stage_examples import Examples

OnStep = Callable[[int, int], None]
#: Examples of a scene with n molecules count n^-1/2 each, so that crowds do not decide what lone molecules get.
_SCENE_BALANCE = 0.5
_WARMUP = 0.05


def fit_maps(
    examples: Examples,
    grid: MapGrid,
    *,
    loss: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    hidden: int,
    seed: int,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SecondLook:
    """Train a network whose outputs are position maps.

    Parameters
    ----------
    examples : Examples
        Those without a true molecule are left out.
    grid : MapGrid
        Cells of the map, in units of each molecule.
    loss : str
        One of :data:`smlm_pb.losses.sampling_argmax.LOSSES`.
    steps, batch_size, learning_rate, hidden, seed
        Of the training; equal seeds give equal networks.
    on_step, should_stop : callable, optional
        Called after every step; asked whether to stop.

    Returns
    -------
    SecondLook
    """
    known = examples.select(examples.exists)
    # Beyond the map's edge nothing can be learned but to point there.
    target = torch.from_numpy(known.target.clip(-grid.cells * grid.step, grid.cells * grid.step))
    generator = torch.Generator().manual_seed(seed)

    def score(outputs: Tensor, rows: Tensor, wanted: Tensor, progress: float) -> Tensor:
        if loss == "sampling-argmax":
            heat = temperature_at(progress)
            return sampling_argmax(outputs, wanted, grid, temperature=heat, generator=generator).mean()
        return LOSSES[loss](outputs, wanted, grid).mean()

    return _fit(
        known, target, grid.cells**2, score, steps, batch_size, learning_rate, hidden, seed, on_step, should_stop
    )


def fit_verifier(
    examples: Examples,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    hidden: int,
    seed: int,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SecondLook:
    """Train a network whose output is added to the logit of the probability that the table states.

    Cross-entropy is a proper score: what comes out is a probability, not a ranking.

    Parameters
    ----------
    examples : Examples
        With and without a true molecule.
    steps, batch_size, learning_rate, hidden, seed, on_step, should_stop
        As for :func:`fit_maps`.

    Returns
    -------
    SecondLook
    """
    exists = torch.from_numpy(examples.exists)
    stated = torch.from_numpy(stated_logit(examples.stated["probability"]))
    target = torch.zeros(len(exists), 2)

    def score(outputs: Tensor, rows: Tensor, wanted: Tensor, progress: float) -> Tensor:
        return functional.binary_cross_entropy_with_logits(stated[rows] + outputs[:, 0], exists[rows].float())

    return _fit(examples, target, 1, score, steps, batch_size, learning_rate, hidden, seed, on_step, should_stop)


def rate(progress: float) -> float:
    """Learning rate after a share of the training, relative to its peak: a short rise, then half a cosine."""
    if progress < _WARMUP:
        return max(progress / _WARMUP, 0.02)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (progress - _WARMUP) / (1.0 - _WARMUP)))) + 1e-3


def _fit(
    examples: Examples,
    target: Tensor,
    outputs: int,
    score: Callable[[Tensor, Tensor, Tensor, float], Tensor],
    steps: int,
    batch_size: int,
    learning_rate: float,
    hidden: int,
    seed: int,
    on_step: OnStep | None,
    should_stop: Callable[[], bool] | None,
) -> SecondLook:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SecondLook(
            planes=len(CHANNELS), window_px=WINDOW_PX, facts=len(FACTS), outputs=outputs, hidden=hidden
        )
    channels, facts = (torch.from_numpy(v) for v in (examples.looks.channels, examples.looks.facts))
    network.standardise(facts)
    in_scene = np.bincount(examples.scene)[examples.scene].astype(np.float64)
    share = np.cumsum(in_scene**-_SCENE_BALANCE)
    rng = np.random.default_rng([seed, 2])
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step / steps))
    for step in range(steps):
        if should_stop is not None and should_stop():
            raise Cancelled("Stopped while the second stage was trained; nothing was written.")
        drawn = np.searchsorted(share, rng.random(batch_size) * share[-1], side="right").clip(max=len(share) - 1)
        rows = torch.from_numpy(np.sort(drawn))
        flip_x, flip_y, swap = (bool(v) for v in rng.random(3) < 0.5)
        seen, beside, wanted = turned(
            channels[rows], facts[rows], target[rows], flip_x=flip_x, flip_y=flip_y, swap=swap
        )
        value = score(network(seen, beside), rows, wanted, step / steps)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step + 1, steps)
    return network.eval()
