"""The maximum of the posterior of every group of a batch, by damped Fisher scoring."""

from __future__ import annotations

import torch
from torch import Tensor

from smlm_pb.refinement.spots import Spots, State, evaluate_spots

#: A step that promises to raise twice the log posterior by less than this is the last one: it is below 0.03 σ.
_LAST_STEP = 1e-3
_START_DAMPING, _MOST_DAMPING = 1e-3, 1e6
#: Largest step of a position, px, and of a logarithm of photons.
_LONGEST_STEP_PX, _LONGEST_STEP_LOG = 0.5, 1.0


def maximize(spots: Spots, theta: Tensor, *, iterations: int) -> tuple[Tensor, Tensor]:
    """Climb to the maximum of the posterior.

    Steps are (I + damping · diag I)⁻¹ · score with the Fisher information I (Levenberg, Marquardt); a step that
    does not raise the posterior is taken back and shortened. Groups that have arrived leave the batch.

    Parameters
    ----------
    spots : Spots
        The batch.
    theta : Tensor (groups, 3·molecules + 1)
        Start.
    iterations : int
        Largest number of steps.

    Returns
    -------
    theta : Tensor (groups, 3·molecules + 1)
        Parameters at the maximum, or where the steps ran out.
    arrived : Tensor (groups,), bool
        Whether the maximum was reached.
    """
    result = theta.clone()
    arrived = torch.zeros(len(theta), dtype=torch.bool, device=theta.device)
    rows = torch.arange(len(theta), device=theta.device)
    state = _held_at_zero(evaluate_spots(spots, theta), theta)
    damping = torch.full((len(theta),), _START_DAMPING, dtype=theta.dtype, device=theta.device)
    for _ in range(iterations):
        step = _solve(state, damping)
        gain = (state.score * step).sum(dim=1)
        trial = _inside(theta + _limited(step, spots))
        done = (gain < _LAST_STEP) & (damping <= _START_DAMPING * 10)
        result[rows[done]] = trial[done]
        arrived[rows[done]] = True
        left = ~done & (damping < _MOST_DAMPING)
        if not bool(left.any()):
            break
        if not bool(left.all()):
            keep = torch.nonzero(left)[:, 0]
            rows, spots, theta, trial, damping = rows[keep], spots.take(keep), theta[keep], trial[keep], damping[keep]
            state = State(*(part[keep] for part in state))
        proposed = _held_at_zero(evaluate_spots(spots, trial), trial)
        better = proposed.objective <= state.objective + 1e-9
        theta = torch.where(better[:, None], trial, theta)
        state = State(
            torch.where(better, proposed.objective, state.objective),
            torch.where(better[:, None], proposed.score, state.score),
            torch.where(better[:, None, None], proposed.information, state.information),
        )
        damping = torch.where(better, (damping * 0.1).clamp(min=_START_DAMPING), damping * 10.0)
        result[rows] = theta
    return result, arrived


def _solve(state: State, damping: Tensor) -> Tensor:
    """(I + damping · diag I)⁻¹ · score; the diagonal is scaled to one first, so that photons and px do not mix."""
    diagonal = state.information.diagonal(dim1=1, dim2=2).clamp(min=1e-12)
    scale = diagonal.rsqrt()
    matrix = state.information * scale[:, :, None] * scale[:, None, :]
    # Two molecules at one place cannot be told apart: without a floor the matrix is singular there.
    matrix.diagonal(dim1=1, dim2=2).add_(damping[:, None] + 1e-7)
    factor, _ = torch.linalg.cholesky_ex(matrix)
    step = torch.cholesky_solve((state.score * scale)[:, :, None], factor)[:, :, 0] * scale
    return torch.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0)


def _limited(step: Tensor, spots: Spots) -> Tensor:
    n = spots.present.shape[1]
    position = step[:, : 2 * n].clamp(-_LONGEST_STEP_PX, _LONGEST_STEP_PX)
    photons = step[:, 2 * n : 3 * n].clamp(-_LONGEST_STEP_LOG, _LONGEST_STEP_LOG)
    return torch.cat([position, photons, step[:, 3 * n :]], dim=1)


def _held_at_zero(state: State, theta: Tensor) -> State:
    """A background that is zero and would rather be negative is no parameter."""
    held = (theta[:, -1] <= 0.0) & (state.score[:, -1] < 0.0)
    if not bool(held.any()):
        return state
    free = torch.ones_like(theta)
    free[:, -1] = (~held).to(theta.dtype)
    information = state.information * free[:, :, None] * free[:, None, :]
    information[:, -1, -1] += 1.0 - free[:, -1]
    return State(state.objective, state.score * free, information)


def _inside(theta: Tensor) -> Tensor:
    """The background cannot be negative."""
    return torch.cat([theta[:, :-1], theta[:, -1:].clamp(min=0.0)], dim=1)
