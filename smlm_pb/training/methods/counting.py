"""Other ways to make superfluous candidates vanish, each in place of exact counting; the matching stays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from smlm_pb.training.methods.heatmap_matching import HeatmapMatching

_THESIS = "J. Schroeter, PhD thesis (2021)"
#: Smallest variance of the count: where all probabilities are 0 or 1 the Gaussian would be infinitely narrow.
_LEAST_VARIANCE = 0.05


class NoCount(HeatmapMatching):
    """Matching alone: several candidates share each molecule."""

    name = "no-count"
    title = "no counting"
    source = f"{_THESIS}, Table 6.3 'none'"
    loss: ClassVar[Mapping[str, Any]] = {"tile_weight": 0.0}

    def counting(self, logits: Tensor, counts: Tensor) -> Tensor:
        """No demand at all."""
        return logits.new_zeros(len(logits))


class L1(HeatmapMatching):
    """A price on every probability; weak, because it also takes from those that are right."""

    name = "l1"
    title = "ℓ1 on probabilities"
    source = f"{_THESIS}, Table 6.3 'ℓ1', after Nehme et al. (2018)"
    loss: ClassVar[Mapping[str, Any]] = {"count_weight": {"start": 0.1, "end": 0.1}, "tile_weight": 0.0}

    def counting(self, logits: Tensor, counts: Tensor) -> Tensor:
        """The sum of the probabilities, whatever the count."""
        return torch.sigmoid(logits).sum(1)


class CountMse(HeatmapMatching):
    """``(Σp − c)²``: asks for the right sum, and not for probabilities of 0 or 1.

    With a smaller weight than counting has: in a scene of 50 molecules an error of 10 would drown the matching.
    """

    name = "count-mse"
    title = "squared error of the count"
    source = f"{_THESIS}, Definition 2.1 and Eq. 3.3"
    loss: ClassVar[Mapping[str, Any]] = {"count_weight": {"start": 0.03, "end": 0.1, "reached_at": 0.3}}

    def counting(self, logits: Tensor, counts: Tensor) -> Tensor:
        """Squared error of the expected count."""
        return (torch.sigmoid(logits).sum(1) - counts).square()


class GaussianCount(HeatmapMatching):
    """The count's likelihood by its mean and variance alone."""

    name = "gaussian-count"
    title = "Gaussian count"
    source = "A. Speiser et al., Nature Methods 18 (2021), count term, without its factor N"

    def counting(self, logits: Tensor, counts: Tensor) -> Tensor:
        """``−log N(c; Σp, Σp(1 − p))``."""
        return gaussian_likelihood(logits, counts)


def gaussian_likelihood(logits: Tensor, counts: Tensor) -> Tensor:
    """``−log N(c; Σp, Σp(1 − p))`` of each item's logits (items, candidates) and count (items,)."""
    p = torch.sigmoid(logits)
    mean, variance = p.sum(1), (p * (1 - p)).sum(1) + _LEAST_VARIANCE
    return 0.5 * ((counts - mean).square() / variance + torch.log(2 * math.pi * variance))
