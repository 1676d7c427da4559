"""Trains the very small networks that stand on a model's card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smlm_pb.localization.small_network import SmallNetwork, limits, scaled

_LEARNING_RATE, _WEIGHT_DECAY = 4e-3, 1e-5


def fit_small(
    features: npt.NDArray[np.floating],
    hidden: tuple[int, ...],
    outputs: int,
    *,
    epochs: int,
    batches: Callable[[], Iterator[Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    seed: int,
) -> SmallNetwork:
    """Fit a small network.

    Parameters
    ----------
    features : array (n, k)
        What it sees of each example.
    hidden : tuple of int
        Width of the layers between.
    outputs : int
        Numbers that come out.
    epochs : int
        Times that all examples are gone through; the step falls along a cosine.
    batches : callable
        The examples of an epoch: tensors (m,) of their indices.
    loss : callable
        What is made small: of the numbers (m, outputs) that come out, and the indices (m,).
    seed : int
        Of the first weights and of the order.

    Returns
    -------
    SmallNetwork
        Its numbers have four digits after the point, as on the card.
    """
    lowest, highest = limits(features)
    x = torch.from_numpy(scaled(features, np.asarray(lowest), np.asarray(highest))).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: list[nn.Module] = []
        for before, after in pairwise((x.shape[1], *hidden, outputs)):
            parts += [nn.Linear(before, after), nn.ReLU()]
        network = nn.Sequential(*parts[:-1])
        optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for _ in range(epochs):
            for some in batches():
                optimizer.zero_grad()
                loss(network(x[some]), some).backward()
                optimizer.step()
            schedule.step()
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    return SmallNetwork(
        lowest, highest, tuple((_rounded(one.weight.detach().T), _rounded(one.bias.detach())) for one in layers)
    )


def _rounded(values: Tensor) -> npt.NDArray[np.float64]:
    plain: npt.NDArray[np.float64] = np.round(values.double().numpy(), 4)
    return plain
