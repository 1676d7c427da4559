"""Heatmaps compared pixel by pixel, by squared error: on a finer grid, as spikes, or on camera pixels with a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from smlm_pb.networks.local_maxima import gaussian_filter
from smlm_pb.training.methods.drawing import DrawingMethod, draw_gaussians, missed_cost

if TYPE_CHECKING:
    from smlm_pb.training.batches import Batch
    from smlm_pb.training.experiment import Experiment

#: Price of a spike of height 1 relative to that of a missed molecule.
_SPIKE_PRICE = 0.03


class Upsampling(DrawingMethod):
    """A heatmap on a grid finer than the camera's; molecules are its local maxima."""

    name = "upsampling"
    title = "heatmap on a finer grid"
    source = "the baseline 'Upsampling' of J. Schroeter et al., ACCV 2020"
    read_out = "peaks"
    network: ClassVar[Mapping[str, Any]] = {"upsampling": 4, "drawn_width_px": 0.25}

    def compare(self, drawing: Tensor, batch: Batch, experiment: Experiment) -> dict[str, Tensor]:
        """Squared error against the sum of Gaussians; a missed molecule costs 1."""
        network = experiment.network
        factor, width = network.upsampling, network.drawn_width_px
        wanted = draw_gaussians(batch, drawing, factor, width, together="sum")
        return {"drawing": (drawing - wanted).square().flatten(1).sum(1) / missed_cost(factor, width)}


class HeatmapRefinement(Upsampling):
    """A heatmap on the camera's pixels; positions by fitting Gaussians to it and subtracting them."""

    name = "heatmap-refinement"
    title = "heatmap on camera pixels and fit"
    source = "the baseline 'Refinement' of J. Schroeter et al., ACCV 2020"
    read_out = "fits"
    network: ClassVar[Mapping[str, Any]] = {"upsampling": 1, "drawn_width_px": 0.8, "n_candidates": 3}


class DeepStorm(DrawingMethod):
    """Spikes on a finer grid, compared after a Gaussian filter, with a price on every spike."""

    name = "deep-storm"
    title = "Deep-STORM's loss"
    source = "E. Nehme et al., Optica 5 (2018)"
    read_out = "blurred-peaks"
    network: ClassVar[Mapping[str, Any]] = {"upsampling": 4, "drawn_width_px": 0.25}

    def compare(self, drawing: Tensor, batch: Batch, experiment: Experiment) -> dict[str, Tensor]:
        """Squared error of the filtered drawing, a missed molecule costing 1, and the ℓ1 norm of the drawing."""
        network = experiment.network
        factor, width = network.upsampling, network.drawn_width_px
        filtered = gaussian_filter(drawing, width * factor)
        wanted = draw_gaussians(batch, drawing, factor, width, together="sum")
        return {
            "drawing": (filtered - wanted).square().flatten(1).sum(1) / missed_cost(factor, width),
            "spikes": _SPIKE_PRICE * drawing.abs().flatten(1).sum(1),
        }
