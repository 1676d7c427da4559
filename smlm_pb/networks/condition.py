"""What a network is told beside the image: the width of the PSF and what the movie's molecules are like."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from smlm_pb.population import POPULATION_FIELDS

#: PSF widths are given to the network relative to this one, px.
_REFERENCE_PSF_PX = 1.2
_REFERENCE_PHOTONS = 1500.0
_REFERENCE_DENSITY_PER_PX2 = 0.01
#: Numbers that describe the PSF width, and those that describe the population, by what a network is told.
N_PSF = 2
N_POPULATION = {"psf": 0, "population": 5, "arrangement": 6}
_HIDDEN, _LEARNED = 32, 16
#: The same of the further features of networks whose kernels are mixed.
_WIDE_HIDDEN, _WIDE_LEARNED = 96, 32


def condition_of(psf_sigma_px: Tensor, population: Tensor | None = None) -> Tensor:
    """The imaging conditions as numbers of order one.

    Parameters
    ----------
    psf_sigma_px : Tensor (batch,)
        PSF width, px.
    population : Tensor (batch, 5), optional
        Rows in the order of :data:`smlm_pb.population.POPULATION_FIELDS`; NaN where nothing is known.

    Returns
    -------
    Tensor (batch, 8)
        Two numbers for the PSF width; whether the population is known; brightness, spread below and above, density,
        and by how much more than that others surround a molecule.
    """
    relative = torch.log(psf_sigma_px / _REFERENCE_PSF_PX) / 0.35
    if population is None:
        known = relative.new_zeros(len(relative), max(N_POPULATION.values()))
    else:
        known = _population_numbers(population.to(relative.dtype))
    return torch.cat((torch.stack((relative, relative.square()), dim=1), known), dim=1)


def _population_numbers(population: Tensor) -> Tensor:
    assert population.shape[1] == len(POPULATION_FIELDS)
    photons, low, high, density, around = population.log().unbind(1)
    numbers = torch.stack(
        (
            torch.ones_like(photons),
            (photons - math.log(_REFERENCE_PHOTONS)) / 1.5,
            photons - low,
            high - photons,
            (density - math.log(_REFERENCE_DENSITY_PER_PX2)) / 2.0,
            around - density,
        ),
        dim=1,
    )
    return torch.where(population.isfinite().all(dim=1, keepdim=True), numbers, torch.zeros_like(numbers))


class ConditionEmbedding(nn.Module):
    """The condition as it modulates the blocks: the PSF width itself, and features learned of all together.

    Parameters
    ----------
    told : {"psf", "population", "arrangement"}
        Networks that are told the PSF width alone have no learned features; those told the population do without the
        last number.
    wide : bool
        Whether further features are learned beside those.
    """

    def __init__(self, told: str, *, wide: bool = False) -> None:
        super().__init__()
        self._numbers = N_PSF + N_POPULATION[told]
        self.learned = self._features(_HIDDEN, _LEARNED) if N_POPULATION[told] else None
        self.further = self._features(_WIDE_HIDDEN, _WIDE_LEARNED) if wide else None
        self.out_features = N_PSF + (_LEARNED if self.learned is not None else 0) + (_WIDE_LEARNED if wide else 0)

    def _features(self, hidden: int, learned: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(self._numbers, hidden), nn.SiLU(), nn.Linear(hidden, learned), nn.SiLU())

    def forward(self, condition: Tensor) -> Tensor:
        """Features (batch, out_features) of conditions (batch, 8)."""
        known = condition[:, : self._numbers]
        learned = [part(known) for part in (self.learned, self.further) if part is not None]
        return torch.cat((condition[:, :N_PSF], *learned), dim=1)
