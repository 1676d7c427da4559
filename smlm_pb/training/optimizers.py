"""How weights follow their gradients: AdamW, or Muon for the convolutions between stem and head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from smlm_pb.training.experiment import Experiment

#: Learning rate of orthogonalised updates in units of AdamW's.
MUON_RATE = 2.0
_BETAS = (0.9, 0.99)
_MOMENTUM = 0.95
#: Root mean square of the entries of an update, about what AdamW's have (Liu et al., 2025).
_UPDATE_RMS = 0.2
#: Five steps of this polynomial take singular values between .002 and 1 to between .68 and 1.21 (Jordan et al., 2024).
_NEWTON_SCHULZ_STEPS = 5
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def make_optimizer(network: nn.Module, experiment: Experiment) -> torch.optim.Optimizer:
    """Build what the experiment asks for.

    Parameters
    ----------
    network : nn.Module
        The network, on its device.
    experiment : Experiment
        Names the optimizer, its peak learning rate and its weight decay.

    Returns
    -------
    torch.optim.Optimizer
        Weights of one dimension (biases) are not decayed.
    """
    hidden = hidden_convolutions(network) if experiment.optimizer == "muon" else []
    taken = {id(weight) for weight in hidden}
    others = [p for p in network.parameters() if id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": experiment.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if experiment.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=experiment.learning_rate, betas=_BETAS)
    groups.append({"params": hidden, "weight_decay": experiment.weight_decay, "orthogonal": True, "rate": MUON_RATE})
    return Muon(groups, lr=experiment.learning_rate, betas=_BETAS)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group: ``rate`` times the group's own ``rate``, where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate", 1.0)


def hidden_convolutions(network: nn.Module) -> list[Tensor]:
    """Weights of the backbone's convolutions except the first, which sees the image.

    Those of stem and head have rows or columns that mean different things (image and background; probability, offset,
    photons), so that one size of update would not fit all of them.
    """
    backbone = network.backbone
    assert isinstance(backbone, nn.Module)
    return [module.weight for module in backbone.modules() if isinstance(module, nn.Conv2d)][1:]


class Muon(torch.optim.Optimizer):
    """Updates whose singular values are all alike, for weights that are matrices; AdamW for all others.

    Parameters
    ----------
    groups : list of dict
        As for :class:`torch.optim.AdamW`. In a group with ``orthogonal=True`` every weight ``(out, in, …)`` counts as a
        matrix of ``out`` rows: the momentum of its gradient (.95, Nesterov's) is orthogonalised by
        :func:`orthogonalised` and scaled to the size of AdamW's updates, by ``.2 √max(rows, columns)``.
    lr : float
        Learning rate of groups that name none.
    betas : pair of float
        AdamW's.

    Notes
    -----
    Weights decay by ``lr × weight_decay`` beside the update, as in AdamW. ``torch.optim.Muon`` takes plain matrices
    only, and needs a newer torch than the rest of the program.

    References
    ----------
    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    J. Liu et al., "Muon is scalable for LLM training", arXiv:2502.16982, 2025.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float] = _BETAS) -> None:
        others = [group for group in groups if not group.get("orthogonal", False)]
        self._adamw = torch.optim.AdamW(others or [{"params": []}], lr=lr, betas=betas)
        super().__init__(groups, self._adamw.defaults)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        # One state for both rules, so that checkpoints need not know of them; loading one makes new groups.
        self._adamw.state = self.state
        self._adamw.param_groups = [group for group in self.param_groups if not group.get("orthogonal", False)]
        loss: float | None = self._adamw.step(closure)
        for group in self.param_groups:
            if group.get("orthogonal", False):
                self._orthogonal_step(group)
        return loss

    @torch.no_grad()
    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momentum = state["momentum"].lerp_(weight.grad, 1 - _MOMENTUM)
            matrix = weight.grad.lerp(momentum, _MOMENTUM).flatten(1)
            alike.setdefault(matrix.shape, []).append((weight, matrix))
        # Many small matrices take hardly longer than one.
        for shape, members in alike.items():
            updates = orthogonalised(torch.stack([matrix for _, matrix in members]))
            scale = _UPDATE_RMS * math.sqrt(max(shape))
            for (weight, _), update in zip(members, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view(weight.shape), alpha=-group["lr"] * scale)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices with the same singular vectors and singular values near 1, by five Newton-Schulz steps.

    Parameters
    ----------
    matrices : Tensor (n, rows, columns)
        Zeros stay zeros.

    Returns
    -------
    Tensor (n, rows, columns)
        Singular values between .68 and 1.21 where they were above .002 of the matrix' Frobenius norm; smaller ones
        stay smaller.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-30)
    first, third, fifth = _NEWTON_SCHULZ
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = first * x + (third * gram + fifth * gram @ gram) @ x
    return x.mT if tall else x
