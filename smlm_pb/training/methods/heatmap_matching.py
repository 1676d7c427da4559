"""Continuous heatmap matching with exact counting, and the forms of it that were published or left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from smlm_pb.training.methods.base import Method
from smlm_pb.training.objective import count_loss, objective

if TYPE_CHECKING:
    from smlm_pb.networks import PointField, PointNetwork
    from smlm_pb.training.batches import Batch
    from smlm_pb.training.experiment import Experiment

_THESIS = "J. Schroeter, PhD thesis (2021)"


class HeatmapMatching(Method):
    """What the shipped models are trained with: kernels averaged over stated precision, counts per frame and tile."""

    name = "heatmap-matching"
    title = "heatmap matching and counting (default)"
    source = f"{_THESIS}, Eq. 6.4 and 2.9, with kernels that know the stated precision"
    #: Whether an isolated missed molecule costs 1 whatever the kernel width.
    normalised: ClassVar[bool] = True

    def counting(self, logits: Tensor, counts: Tensor) -> Tensor:
        """What the number of molecules (items,) asks of the logits (items, candidates); one cost per item."""
        return count_loss(logits, counts)

    def objective(
        self, network: PointNetwork, output: PointField, batch: Batch, experiment: Experiment, progress: float
    ) -> dict[str, Tensor]:
        """Matching, counting, and what candidates say about themselves."""
        return objective(
            output,
            batch,
            experiment.loss,
            progress=progress,
            reach_px=experiment.network.reach_px,
            counting=self.counting,
            normalised=self.normalised,
        )


class PointKernels(HeatmapMatching):
    """Kernels between points, as published: a candidate that is uncertain of its position is punished for existing."""

    name = "point-kernels"
    title = "heatmap matching between points"
    source = f"{_THESIS}, Eq. 6.4, divided by πλ²/2"
    loss: ClassVar[Mapping[str, Any]] = {"uncertainty_aware": False}


class Unnormalised(HeatmapMatching):
    """A missed molecule costs πλ²/2: the weight of counting then changes with the kernel width."""

    name = "unnormalised"
    title = "heatmap matching, not normalised"
    source = f"{_THESIS}, Eq. 6.4"
    normalised = False


class Paper(HeatmapMatching):
    """The published objective: points, not normalised, one width, one count per frame."""

    name = "paper"
    title = "as published (ACCV 2020)"
    source = f"{_THESIS}, Eq. 6.4 and 6.5 with λ = 0.2 px, β = 0.1; ACCV 2020"
    normalised = False
    loss: ClassVar[Mapping[str, Any]] = {
        "uncertainty_aware": False,
        "bandwidth_px": {"start": 0.2, "end": 0.2},
        "count_weight": {"start": 0.1, "end": 0.1},
        "tile_weight": 0.0,
        "scene_balance": 0.0,
    }
