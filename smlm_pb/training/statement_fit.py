"""Fits the small network that turns what candidates state into what is true of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smlm_pb.localization.statement_calibration import (
    FEATURES,
    LOG_MISSED,
    OUTPUTS,
    StatementCalibration,
    Statements,
    limits,
    scaled,
)

FloatArray = npt.NDArray[np.float64]

#: Fewer candidates do not tell more than the network itself.
LEAST_CANDIDATES = 4000
#: Errors beyond this many stated precisions come from mistaken identity, not from noise.
_LARGEST_PULL = 4.0
#: Precision is judged of candidates that a table is likely to hold.
_LIKELY = 0.3
_HIDDEN = (48, 24)
_EPOCHS, _BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 40, 2048, 4e-3, 1e-5


def fit_statements(
    stated: Statements,
    exists: npt.NDArray[np.bool_],
    pull: FloatArray,
    missed: FloatArray,
    weight: FloatArray,
    *,
    seed: int = 0,
) -> StatementCalibration | None:
    """Fit the small network by likelihood: of existing or not, of the errors of those that exist, of what is missed.

    Parameters
    ----------
    stated : Statements
        Of candidates of simulated scenes.
    exists : array (n,) of bool
        Which of them are matched with a true molecule.
    pull : array (n, 2)
        Their errors along x and y over the stated precision; NaN where they are not matched.
    missed : array (n,)
        Number of molecules nearby that none of them is matched with.
    weight : array (n,)
        How much each counts.
    seed : int
        Of the first weights and of the order.

    Returns
    -------
    StatementCalibration or None
        None where there are fewer than :data:`LEAST_CANDIDATES`.
    """
    if len(exists) < LEAST_CANDIDATES:
        return None
    features = stated.features()
    lowest, highest = limits(features)
    x = torch.from_numpy(scaled(features, np.asarray(lowest), np.asarray(highest))).float()
    judged = (stated.probability >= _LIKELY) & (np.abs(pull) < _LARGEST_PULL).all(axis=1)
    y = torch.from_numpy(exists).float()
    square = torch.from_numpy(np.where(judged, np.square(pull).sum(axis=1), -1.0)).float()
    importance = torch.from_numpy(weight / weight.mean()).float()
    network = _trained(x, (y, square, torch.from_numpy(missed).float(), importance), seed)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    return StatementCalibration(
        lowest,
        highest,
        tuple((_rounded(layer.weight.detach().T), _rounded(layer.bias.detach())) for layer in layers),
    )


def _trained(x: Tensor, truth: tuple[Tensor, ...], seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = (len(FEATURES), *_HIDDEN, OUTPUTS)
        parts: list[nn.Module] = []
        for before, after in pairwise(sizes):
            parts += [nn.Linear(before, after), nn.ReLU()]
        network = nn.Sequential(*parts[:-1])
        optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS)
        for _ in range(_EPOCHS):
            for some in torch.randperm(len(x)).split(_BATCH):
                optimizer.zero_grad()
                _loss(network(x[some]), *(values[some] for values in truth)).backward()
                optimizer.step()
            schedule.step()
    return network.eval()


def _loss(out: Tensor, exists: Tensor, square: Tensor, missed: Tensor, importance: Tensor) -> Tensor:
    """Negative log likelihood; ``square`` is the summed squared pull, or -1 where there is none to judge by."""
    logit, log_factor, log_missed = out.unbind(1)
    existence = nn.functional.binary_cross_entropy_with_logits(logit, exists, reduction="none")
    position = torch.where(square >= 0, 2 * log_factor + 0.5 * square * torch.exp(-2 * log_factor), 0.0)
    number = nn.functional.poisson_nll_loss(log_missed.clamp(*LOG_MISSED), missed, reduction="none")
    loss: Tensor = (importance * (existence + position + number)).mean()
    return loss


def _rounded(values: Tensor) -> FloatArray:
    plain: FloatArray = np.round(values.double().numpy(), 4)
    return plain
