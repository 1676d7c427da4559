"""Losses between predicted candidates and true molecules, as pure functions returning named terms."""

from smlm_pb.losses.count_distribution import poisson_binomial_log_pmf
from smlm_pb.losses.counting import count_negative_log_likelihood, start_logit, tile_counts
from smlm_pb.losses.heatmap_grid import heatmap_matching_grid
from smlm_pb.losses.heatmap_points import HeatmapTerms, heatmap_matching_points
from smlm_pb.losses.stencil import stencil_radius

__all__ = [
    "HeatmapTerms",
    "count_negative_log_likelihood",
    "heatmap_matching_grid",
    "heatmap_matching_points",
    "poisson_binomial_log_pmf",
    "start_logit",
    "stencil_radius",
    "tile_counts",
]
