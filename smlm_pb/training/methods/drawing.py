"""What methods share whose network draws molecules: targets on a grid, and what a peak of the drawing is worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.losses.stencil import stencil_index
from smlm_pb.networks import MapNetwork
from smlm_pb.training.methods.base import Method, with_description
from smlm_pb.training.objective import scene_weights, self_description

if TYPE_CHECKING:
    from smlm_pb.networks import PointField, PointNetwork
    from smlm_pb.networks.map_network import FineMaps
    from smlm_pb.training.batches import Batch
    from smlm_pb.training.experiment import Experiment

#: A peak further from its molecule is not its peak, px.
_PEAK_REACH_PX = 1.0
_PEAK_WEIGHT = 0.1
#: Parts of a Gaussian further from its centre than this many standard deviations are not drawn.
_REACH_SIGMA = 4.0


class DrawingMethod(Method):
    """A method whose network draws; subclasses compare the drawing with one of the true molecules."""

    def predict(self, network: PointNetwork, *inputs: Tensor | None) -> FineMaps:
        """The drawing, before positions are read from it."""
        assert isinstance(network, MapNetwork)
        return network.maps(*inputs)  # type: ignore[arg-type]

    def compare(self, drawing: Tensor, batch: Batch, experiment: Experiment) -> dict[str, Tensor]:
        """Named costs (scenes,) of a drawing (scenes, levels, fine height, fine width)."""
        raise NotImplementedError

    def objective(
        self, network: PointNetwork, output: FineMaps, batch: Batch, experiment: Experiment, progress: float
    ) -> dict[str, Tensor]:
        """Cost of the drawing, of what its peaks are taken for, and what the peaks say about themselves."""
        assert isinstance(network, MapNetwork)
        loss = experiment.loss
        weight = scene_weights(batch, loss, len(output.drawing))
        costs = self.compare(output.drawing, batch, experiment)
        terms = {name: (weight * cost).mean() for name, cost in costs.items()}
        field = network.points(output)
        terms["peaks"] = _PEAK_WEIGHT * peak_cross_entropy(field, batch)
        described = self_description(field, batch, loss, loss.bandwidth_px.end, weight)
        return with_description(terms, described, experiment)


def draw(
    batch: Batch,
    grid: tuple[int, int],
    upsampling: int,
    reach_px: float,
    shape: Callable[[Tensor], Tensor],
    *,
    together: str,
    scenes: int,
) -> Tensor:
    """Draw the true molecules.

    Parameters
    ----------
    batch : Batch
        Truth.
    grid : (int, int)
        Height and width of the drawing.
    upsampling : int
        Pixels of the drawing along each side of a camera pixel.
    reach_px : float
        Up to which distance a molecule is drawn, camera px.
    shape : callable
        From squared distances (camera px²) to values, ≥ 0.
    together : {"sum", "amax"}
        What stands where molecules overlap.
    scenes : int
        Number of scenes.

    Returns
    -------
    Tensor (scenes, 1, height, width)
    """
    radius = math.ceil(reach_px * upsampling)
    fine = (batch.position + 0.5) * upsampling - 0.5
    index, delta = stencil_index(fine, batch.item, grid, radius)
    values = shape((delta / upsampling).square().sum(2))
    height, width = grid[0] + 2 * radius, grid[1] + 2 * radius
    flat = values.new_zeros(scenes * height * width)
    flat.scatter_reduce_(0, index.flatten(), values.flatten(), reduce=together)
    return flat.reshape(scenes, 1, height, width)[..., radius : height - radius, radius : width - radius]


def draw_gaussians(batch: Batch, drawing: Tensor, upsampling: int, sigma_px: float, *, together: str) -> Tensor:
    """Gaussians of height 1 and width ``sigma_px`` (camera px) at the true positions, in the size of ``drawing``."""
    grid = (drawing.shape[-2], drawing.shape[-1])

    def gaussian(squared: Tensor) -> Tensor:
        return torch.exp(-squared / (2 * sigma_px**2))

    reach_px = _REACH_SIGMA * sigma_px
    return draw(batch, grid, upsampling, reach_px, gaussian, together=together, scenes=len(drawing))


def missed_cost(upsampling: int, sigma_px: float) -> float:
    """Sum of squares of one Gaussian's pixels: what a squared error charges for a missed molecule."""
    return math.pi * (sigma_px * upsampling) ** 2


def peak_cross_entropy(field: PointField, batch: Batch) -> Tensor:
    """Cost of what peaks of a given height are taken for: does each have a molecule of its own.

    Peak and molecule belong together if each is the other's nearest. Only the two numbers that turn heights into
    logits learn from it (Platt, 1999), so that thresholds on probability mean the same for all methods.
    """
    scene, slot, row, column = torch.nonzero(field.logit > -29.0, as_tuple=True)
    if not len(scene):
        return field.logit.sum() * 0.0
    place = (scene, slot, row, column)
    peaks = torch.stack((row + field.dy[place], column + field.dx[place]), dim=1).detach().cpu().numpy()
    real = mutual_nearest(peaks, scene.cpu().numpy(), batch.position.cpu().numpy(), batch.item.cpu().numpy())
    wanted = torch.from_numpy(real).to(field.logit)
    cost = functional.binary_cross_entropy_with_logits(field.logit[place], wanted, reduction="sum")
    return cost / len(field.logit)


def mutual_nearest(
    peaks: npt.NDArray[np.float32],
    scene: npt.NDArray[np.int64],
    molecules: npt.NDArray[np.float32],
    item: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """1 for each peak (n, 2) that is the nearest of its nearest molecule (m, 2) in the same scene, else 0."""
    from scipy.spatial import cKDTree

    real = np.zeros(len(peaks), np.float32)
    if not len(molecules):
        return real
    apart = 100 * _PEAK_REACH_PX + 2 * float(max(np.abs(peaks).max(), np.abs(molecules).max()))
    here = cKDTree(np.column_stack((peaks, scene * apart)))
    there = cKDTree(np.column_stack((molecules, item * apart)))
    _, molecule = there.query(here.data, distance_upper_bound=_PEAK_REACH_PX)
    _, peak = here.query(there.data, distance_upper_bound=_PEAK_REACH_PX)
    found = np.flatnonzero(molecule < len(molecules))
    real[found] = peak[molecule[found]] == found
    return real
