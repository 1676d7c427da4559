"""A small network that looks at one molecule at a time: the second stage behind a localizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


class SecondLook(nn.Module):
    """Window and numbers of a molecule → a few outputs.

    Two hidden layers without convolutions: the window is always centred on the molecule, so that every pixel has a
    meaning of its own.

    Parameters
    ----------
    planes, window_px, facts : int
        Size of what is seen, see :mod:`smlm_pb.refinement.looks`.
    outputs : int
        Numbers that come out: cells of a position map, or one logit.
    hidden : int
        Width of the hidden layers.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, *, planes: int, window_px: int, facts: int, outputs: int, hidden: int = 96) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "planes": planes,
            "window_px": window_px,
            "facts": facts,
            "outputs": outputs,
            "hidden": hidden,
        }
        self.register_buffer("mean", torch.zeros(facts))
        self.register_buffer("deviation", torch.ones(facts))
        self.body = nn.Sequential(
            nn.Linear(planes * window_px**2 + facts, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
        )
        self.head = nn.Linear(hidden, outputs)
        # The first answer is "nothing new": a flat map, or the probability that is there already.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def standardise(self, facts: Tensor) -> None:
        """Take mean and deviation of the numbers from examples (molecules, facts)."""
        self.mean.copy_(facts.mean(0))
        self.deviation.copy_(facts.std(0).clamp_min(1e-3))

    def forward(self, channels: Tensor, facts: Tensor) -> Tensor:
        """Outputs (molecules, outputs) for channels (molecules, planes, window, window) and facts (molecules, …)."""
        beside = ((facts - self.mean) / self.deviation).clamp(-8.0, 8.0)
        outputs: Tensor = self.head(self.body(torch.cat((channels.flatten(1), beside), dim=1)))
        return outputs


def stated_logit(probability: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Logit of stated probabilities (n,), kept away from certainty."""
    p = np.asarray(probability, np.float64).clip(1e-3, 1.0 - 1e-3)
    return np.log(p / (1.0 - p)).astype(np.float32)


def outputs_of(network: nn.Module, channels: npt.NDArray[np.float32], facts: npt.NDArray[np.float32]) -> Tensor:
    """Outputs (molecules, outputs) of a network, some thousand molecules at a time."""
    at_once = 8192
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(channels[i : i + at_once]), torch.from_numpy(facts[i : i + at_once]))
            for i in range(0, len(facts), at_once)
        ]
    return torch.cat(parts) if parts else torch.empty(0, 1)
