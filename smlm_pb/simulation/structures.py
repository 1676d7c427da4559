"""From the structure section of a recipe to a geometry in pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smlm_pb.errors import ConfigurationError
from smlm_pb.simulation.geometry import (
    Box,
    Float64Array,
    Mixture,
    Points,
    Structure,
    Uniform,
    random_clusters,
    random_filaments,
    random_rings,
)
from smlm_pb.simulation.recipe import (
    ClustersStructure,
    EmptyStructure,
    FilamentsStructure,
    GridStructure,
    MixtureStructure,
    Recipe,
    RingsStructure,
    StarStructure,
    StructureRecipe,
)

#: Molecules up to this far outside the frame are simulated; 8 σ of a usual PSF.
MARGIN_PX = 10.0


@dataclass(frozen=True)
class Star:
    """Arms of a Siemens star: sectors that take half of the circle.

    Parameters
    ----------
    x, y, radius_px : float
        Centre and radius in px.
    arms : int
        Number of sectors.
    """

    x: float
    y: float
    radius_px: float
    arms: int

    @property
    def extent(self) -> float:
        """Area of the arms in px²."""
        return float(np.pi * self.radius_px**2 / 2)

    def sample(self, rng: np.random.Generator, n: int) -> Points:
        """Draw the positions (x, y) of ``n`` molecules in px."""
        radius = self.radius_px * np.sqrt(rng.random(n))
        angle = 2 * np.pi / self.arms * (rng.integers(0, self.arms, n) + rng.random(n) / 2)
        return self.x + radius * np.cos(angle), self.y + radius * np.sin(angle)


@dataclass(frozen=True)
class Grid:
    """Nodes that are filled one after the other in random order, each time displaced anew.

    Parameters
    ----------
    x, y : array (nodes,)
        Nodes in px.
    jitter_px : float
        Largest displacement along x and y in px.
    """

    x: Float64Array
    y: Float64Array
    jitter_px: float

    @property
    def extent(self) -> float:
        """Number of nodes."""
        return float(self.x.size)

    def sample(self, rng: np.random.Generator, n: int) -> Points:
        """Draw the positions (x, y) of ``n`` molecules in px; no node is used twice before all are used."""
        rounds = [rng.permutation(self.x.size) for _ in range(-(-n // self.x.size))]
        node = np.concatenate([*rounds, np.empty(0, dtype=np.int64)])[:n].astype(np.int64)
        dx, dy = rng.uniform(-self.jitter_px, self.jitter_px, (2, n))
        return self.x[node] + dx, self.y[node] + dy


def build_structure(rng: np.random.Generator, recipe: Recipe) -> Structure | None:
    """Draw the geometry that a recipe asks for; None for an empty sample.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    recipe : Recipe
        What to build.

    Returns
    -------
    Structure or None

    Raises
    ------
    ConfigurationError
        When the structure does not fit the frame.
    """
    return _build(rng, recipe, recipe.structure)


def _build(rng: np.random.Generator, recipe: Recipe, wanted: StructureRecipe) -> Structure | None:
    box = Box.around_frame(recipe.shape, MARGIN_PX)
    px = recipe.pixel_size_nm
    if isinstance(wanted, EmptyStructure):
        return None
    if isinstance(wanted, FilamentsStructure):
        return random_filaments(
            rng,
            box,
            wanted.count,
            width_px=wanted.width_nm / px,
            curvature_per_px=0.0,
            # A worm-like chain pressed into a plane: the heading's variance grows by 1 per persistence length.
            bend_per_sqrt_px=float(np.sqrt(px / (1000.0 * wanted.persistence_um))),
            bundle_size=wanted.bundle_size,
            bundle_gap_px=wanted.bundle_gap_nm / px,
            length_px=None if wanted.length_um is None else wanted.length_um * 1000.0 / px,
            step_px=0.5,
        )
    if isinstance(wanted, RingsStructure):
        radius = (wanted.radius_nm[0] / px, wanted.radius_nm[1] / px)
        return random_rings(
            rng, box, wanted.count, radius_px=radius, corners=wanted.corners, width_px=wanted.width_nm / px
        )
    if isinstance(wanted, ClustersStructure):
        sigma = (wanted.sigma_nm[0] / px, wanted.sigma_nm[1] / px)
        return random_clusters(rng, box, wanted.count, sigma_px=sigma)
    if isinstance(wanted, StarStructure):
        radius_px = 0.45 * min(recipe.shape) if wanted.radius_um is None else wanted.radius_um * 1000.0 / px
        return Star((recipe.width - 1) / 2, (recipe.height - 1) / 2, radius_px, wanted.arms)
    if isinstance(wanted, GridStructure):
        return _grid(recipe, wanted)
    if isinstance(wanted, MixtureStructure):
        built = [(_build(rng, recipe, part.structure), part.share) for part in wanted.parts]
        kept = [(structure, share) for structure, share in built if structure is not None]
        return Mixture(tuple(s for s, _ in kept), tuple(share for _, share in kept)) if kept else None
    return Uniform(box)


def _grid(recipe: Recipe, wanted: GridStructure) -> Grid:
    """Lay nodes one spacing apart, centred in the frame."""
    spacing = wanted.spacing_nm / recipe.pixel_size_nm
    axes = []
    for size in (recipe.width, recipe.height):
        count = int(size // spacing)
        if count < 1:
            raise ConfigurationError(
                f"structure.spacing_nm = {wanted.spacing_nm:g} is larger than the frame"
                f" ({min(recipe.shape) * recipe.pixel_size_nm:g} nm); choose a smaller spacing."
            )
        axes.append((np.arange(count) - (count - 1) / 2) * spacing + (size - 1) / 2)
    x, y = np.meshgrid(*axes)
    return Grid(x.ravel(), y.ravel(), wanted.jitter_nm / recipe.pixel_size_nm)
