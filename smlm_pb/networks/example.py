"""An image as bright as a movie may be: what the steps of integer arithmetic are to suit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from smlm_pb.population import Population
from smlm_pb.psf import render_gaussians

_SIDE_PX, _SPACING_PX, _SEED = 64, 10, 8
#: The brightest molecules in units of the 84th percentile, and where nothing is known: photons.
_ABOVE, _UNKNOWN_PHOTONS = 2.5, 5000.0
_LEAST_PHOTONS, _MOST_PHOTONS = 1000.0, 20000.0
#: The dimmest molecules in units of the brightest ones.
_DIMMEST = 0.03
_MOST_DENSITY_PER_PX2 = 0.1
_BACKGROUND_E = (5.0, 200.0)


def example_image(psf_sigma_px: float, population: Population | None = None) -> Tensor:
    """Molecules of all brightnesses, alone and as crowded as the movie's, on a background that rises from row to row.

    Parameters
    ----------
    psf_sigma_px : float
        Width of the PSF, px.
    population : Population, optional
        What is known of the movie's molecules: how bright they are, and how
        crowded.

    Returns
    -------
    Tensor (1, 1, 64, 64)
        Photo-electrons, always the same ones.
    """
    rng = np.random.default_rng(_SEED)
    corners = np.arange(_SPACING_PX / 2, _SIDE_PX, _SPACING_PX)
    y, x = (grid.ravel() + rng.random(grid.size) for grid in np.meshgrid(corners, corners, indexing="ij"))
    typical, density = _UNKNOWN_PHOTONS / _ABOVE, 0.0
    if population is not None:
        typical, density = population.photons_high, max(population.values()[3:])
    brightest = float(np.clip(_ABOVE * typical, _LEAST_PHOTONS, _MOST_PHOTONS))
    alone = rng.permutation(brightest * np.geomspace(_DIMMEST, 1.0, len(x)))
    crowd = _SIDE_PX * rng.random((2, int(min(density, _MOST_DENSITY_PER_PX2) * _SIDE_PX**2)))
    light = render_gaussians(
        torch.from_numpy(np.concatenate((x, crowd[0]))),
        torch.from_numpy(np.concatenate((y, crowd[1]))),
        torch.from_numpy(np.concatenate((alone, np.full(crowd.shape[1], brightest / _ABOVE)))),
        psf_sigma_px,
        None,
        (1, _SIDE_PX, _SIDE_PX),
        background=torch.from_numpy(np.geomspace(*_BACKGROUND_E, _SIDE_PX))[:, None],
    )
    return torch.from_numpy(rng.poisson(light.numpy()).astype(np.float32))[None]
