"""Fits the small network that turns what candidates state into what is true of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smlm_pb.localization.statement_calibration import (
    LOG_MISSED,
    OUTPUTS,
    StatementCalibration,
    Statements,
)
from smlm_pb.training.small_fit import fit_small

FloatArray = npt.NDArray[np.float64]

#: Fewer candidates do not tell more than the network itself.
LEAST_CANDIDATES = 4000
#: Errors beyond this many stated precisions come from mistaken identity, not from noise.
_LARGEST_PULL = 4.0
#: Precision is judged of candidates that a table is likely to hold.
_LIKELY = 0.3
_HIDDEN = (48, 24)
_EPOCHS, _BATCH = 40, 2048


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
    judged = (stated.probability >= _LIKELY) & (np.abs(pull) < _LARGEST_PULL).all(axis=1)
    truth = (
        torch.from_numpy(exists).float(),
        torch.from_numpy(np.where(judged, np.square(pull).sum(axis=1), -1.0)).float(),
        torch.from_numpy(missed).float(),
        torch.from_numpy(weight / weight.mean()).float(),
    )
    network = fit_small(
        stated.features(),
        _HIDDEN,
        OUTPUTS,
        epochs=_EPOCHS,
        batches=lambda: iter(torch.randperm(len(exists)).split(_BATCH)),
        loss=lambda out, some: _loss(out, *(values[some] for values in truth)),
        seed=seed,
    )
    return StatementCalibration(network)


def _loss(out: Tensor, exists: Tensor, square: Tensor, missed: Tensor, importance: Tensor) -> Tensor:
    """Negative log likelihood; ``square`` is the summed squared pull, or -1 where there is none to judge by."""
    logit, log_factor, log_missed = out.unbind(1)
    existence = nn.functional.binary_cross_entropy_with_logits(logit, exists, reduction="none")
    position = torch.where(square >= 0, 2 * log_factor + 0.5 * square * torch.exp(-2 * log_factor), 0.0)
    number = nn.functional.poisson_nll_loss(log_missed.clamp(*LOG_MISSED), missed, reduction="none")
    loss: Tensor = (importance * (existence + position + number)).mean()
    return loss
