"""Cross-entropy against smoothed labels: the usual Gaussian heatmap, one value per camera pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from torch.nn import functional

from smlm_pb.training.methods.drawing import DrawingMethod, draw_gaussians

if TYPE_CHECKING:
    from smlm_pb.training.batches import Batch
    from smlm_pb.training.experiment import Experiment


class LabelSmoothing(DrawingMethod):
    """Every pixel is asked for the value of a Gaussian around the nearest molecule, as if it were a probability."""

    name = "label-smoothing"
    title = "cross-entropy, smoothed labels"
    source = "J. Schroeter, PhD thesis (2021), Eq. 5.6"
    read_out = "probability-peaks"
    network: ClassVar[Mapping[str, Any]] = {"upsampling": 1, "drawn_width_px": 0.8}

    def compare(self, drawing: Tensor, batch: Batch, experiment: Experiment) -> dict[str, Tensor]:
        """Cross-entropy above that of the labels themselves, so that a perfect drawing costs nothing."""
        network = experiment.network
        wanted = draw_gaussians(batch, drawing, network.upsampling, network.drawn_width_px, together="amax")
        cost = functional.binary_cross_entropy_with_logits(drawing, wanted, reduction="none")
        certain = functional.binary_cross_entropy(wanted.clamp(0, 1), wanted.clamp(0, 1), reduction="none")
        return {"drawing": (cost - certain).flatten(1).sum(1) / network.upsampling**2}
