"""Deep Watershed: an energy landscape of cones, cut at a level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from torch.nn import functional

from smlm_pb.training.methods.drawing import DrawingMethod, draw

if TYPE_CHECKING:
    from smlm_pb.training.batches import Batch
    from smlm_pb.training.experiment import Experiment


class DeepWatershed(DrawingMethod):
    """Every pixel of a finer grid is classified by its distance from the nearest molecule."""

    name = "deep-watershed"
    title = "Deep Watershed"
    source = "L. Tuggener, I. Elezi et al., ISMIR 2018; I. Elezi, PhD thesis (2020), Eq. 6.1"
    read_out = "watershed"
    network: ClassVar[Mapping[str, Any]] = {"upsampling": 4, "drawn_width_px": 1.5}

    def compare(self, drawing: Tensor, batch: Batch, experiment: Experiment) -> dict[str, Tensor]:
        """Cross-entropy of the level of energy, per camera pixel, summed over the scene."""
        factor = experiment.network.upsampling
        wanted = energy_levels(batch, drawing, factor, experiment.network.drawn_width_px)
        cost = functional.cross_entropy(drawing, wanted, reduction="none")
        return {"drawing": cost.flatten(1).sum(1) / factor**2}


def energy_levels(batch: Batch, drawing: Tensor, upsampling: int, radius_px: float) -> Tensor:
    """Level of every pixel (scenes, height, width): ``floor(highest · (1 − distance / radius))``, at least 0.

    The highest level is that of the pixels at the tip of a cone, half a pixel of the drawing around the molecule.
    """
    highest = drawing.shape[1] - 1
    grid = (drawing.shape[-2], drawing.shape[-1])
    tip_px = 0.5 / upsampling

    def cone(squared: Tensor) -> Tensor:
        return (1 - (squared.sqrt() - tip_px).clamp_min(0.0) / radius_px).clamp_min(0.0)

    height = draw(batch, grid, upsampling, radius_px + tip_px, cone, together="amax", scenes=len(drawing))
    return (highest * height[:, 0]).floor().long()
