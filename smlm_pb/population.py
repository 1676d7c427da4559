"""What is known of a movie's molecules as a whole, before any single one is looked at."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from smlm_pb.errors import ConfigurationError

#: The order in which arrays and tensors hold a population.
POPULATION_FIELDS = ("photons", "photons_low", "photons_high", "density_per_px2", "density_around_px2")
#: What is told of a movie whose molecules nobody measured.
UNKNOWN_POPULATION = (math.nan,) * len(POPULATION_FIELDS)

#: How many times the mean density may surround a molecule: few pairs in a sparse movie tell little.
CROWDING_RANGE = (0.7, 50.0)
#: Below this crowding molecules lie anywhere, and some stand alone by chance: their brightness can be measured.
EVEN_CROWDING = 1.3


@dataclass(frozen=True)
class Population:
    """Brightness, number and crowding of the molecules of a movie.

    Whether a spot of 4000 photons is one molecule or two depends on what the others look like, and on how often
    molecules lie that close.

    Parameters
    ----------
    photons : float
        Median of the molecules' photo-electrons per frame, divided by the camera's excess noise factor.
    photons_low, photons_high : float
        Their 16th and 84th percentile.
    density_per_px2 : float
        Mean number of molecules per frame and square pixel.
    density_around_px2 : float, optional
        Mean density of other molecules around a molecule, see :func:`smlm_pb.pair_density.density_around`; the mean
        density, as of molecules that lie anywhere, where left out.
    photon_scale : float
        By what a network's photons must be multiplied to be those in the pixels of this movie; a network is not told.

    Raises
    ------
    ConfigurationError
        When a value is not above zero, or the percentiles are out of order.
    """

    photons: float
    photons_low: float
    photons_high: float
    density_per_px2: float
    density_around_px2: float | None = None
    photon_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.density_around_px2 is None:
            object.__setattr__(self, "density_around_px2", self.density_per_px2)
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"Population: {name} = {value!r} must be a number above 0.")
        if not self.photons_low <= self.photons <= self.photons_high:
            raise ConfigurationError(
                f"Population: photons_low = {self.photons_low:g}, photons = {self.photons:g} and "
                f"photons_high = {self.photons_high:g} must rise in this order."
            )

    def values(self) -> tuple[float, ...]:
        """The values in the order of :data:`POPULATION_FIELDS`."""
        return tuple(getattr(self, name) for name in POPULATION_FIELDS)

    def as_dict(self) -> dict[str, float]:
        """Plain values, to four digits."""
        return {name: float(f"{value:.4g}") for name, value in asdict(self).items()}
