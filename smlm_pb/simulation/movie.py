"""Movies of blinking molecules with known positions.

Every frame has its own random stream, and positions and on-times have theirs, so that frame k of a recipe is the
same whether the movie is made whole or frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import Cancelled, ConfigurationError
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation.blinking import draw_blinks, draw_flux, light_per_frame
from smlm_pb.simulation.geometry import Box, Float64Array, Points, Structure, Uniform
from smlm_pb.simulation.molecule_classes import factors, labels_of_numbers
from smlm_pb.simulation.recipe import Recipe
from smlm_pb.simulation.rendering import render_separable, render_tiled, smooth_background
from smlm_pb.simulation.sampled_psf import SampledPsf
from smlm_pb.simulation.structures import MARGIN_PX, build_structure

#: More binding sites than this do not fit into a usual memory.
_MOST_SITES = 50_000_000
#: Structures of which less than this part lies in the frame are taken to fill the surroundings evenly.
_LEAST_SHARE_IN_FRAME = 0.02
#: Points that measure that part, to some 0.3 %.
_SAMPLES_FOR_SHARE = 1 << 16


class SimulatedFrame(NamedTuple):
    """One frame, and the molecules in it that belong to the truth."""

    adu: npt.NDArray[np.uint16]
    """Camera values (height, width)."""
    columns: dict[str, npt.NDArray[Any]]
    """Columns of the truth: frame, x, y, photons, background, psf_sigma_x, psf_sigma_y, molecule."""


class _Shining(NamedTuple):
    x: Float64Array
    y: Float64Array
    photons: Float64Array
    width: Float64Array
    molecule: npt.NDArray[np.int64]


class _Source(Protocol):
    def molecules(self, frame: int, rng: np.random.Generator) -> _Shining: ...


def simulate(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    seed: int | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[npt.NDArray[np.uint16], Localizations]:
    """Simulate a movie.

    Parameters
    ----------
    recipe : Recipe, mapping, str or Path
        What to simulate: a recipe, its plain values, or the path of a YAML file.
    seed : int, optional
        Seed of all randomness; the recipe's own by default.
    on_progress : callable, optional
        Called with (frames done, frames in all).
    should_stop : callable, optional
        Asked before each frame; True ends the work.

    Returns
    -------
    movie : array (frames, height, width), uint16
        Camera values in ADU.
    truth : Localizations
        Molecules whose centre lies in the frame, one row per molecule and frame: ``frame``, ``x``, ``y``,
        ``photons`` (expected e⁻), ``background`` (expected e⁻/px in the molecule's pixel), ``psf_sigma_x``,
        ``psf_sigma_y`` and ``molecule`` (number of the binding site).

    Raises
    ------
    ConfigurationError
        When the recipe is wrong.
    Cancelled
        When ``should_stop`` said so.

    Examples
    --------
    >>> movie, truth = simulate({"frames": 3, "molecules": {"density_per_um2": 1.0}}, seed=1)
    >>> movie.shape
    (3, 64, 64)
    """
    recipe = as_recipe(recipe)
    movie = np.empty((recipe.frames, *recipe.shape), dtype=np.uint16)
    columns: list[dict[str, npt.NDArray[Any]]] = []
    for index, frame in enumerate(iterate_frames(recipe, seed)):
        if should_stop is not None and should_stop():
            raise Cancelled(f"simulation stopped after {index} of {recipe.frames} frames.")
        movie[index] = frame.adu
        columns.append(frame.columns)
        if on_progress is not None:
            on_progress(index + 1, recipe.frames)
    return movie, truth_table(recipe, columns, seed)


def as_recipe(recipe: Recipe | Mapping[str, Any] | str | Path) -> Recipe:
    """Accept a recipe, its plain values, or the path of its file."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return Recipe.from_dict(recipe)
    return Recipe.from_yaml(recipe)


def iterate_frames(recipe: Recipe, seed: int | None = None) -> Iterator[SimulatedFrame]:
    """Simulate frame by frame; only one frame and the molecules' on-times are in memory.

    Parameters
    ----------
    recipe : Recipe
        What to simulate.
    seed : int, optional
        Seed of all randomness; the recipe's own by default.

    Yields
    ------
    SimulatedFrame

    Raises
    ------
    ConfigurationError
        When the recipe asks for what does not fit.
    """
    root = recipe.seed if seed is None else seed
    psf = recipe.psf.sampled()
    geometry_rng, blinking_rng, background_rng = (_stream(root, 0, part) for part in range(3))
    structure = build_structure(geometry_rng, recipe)
    source = _make_source(recipe, structure, geometry_rng, blinking_rng)
    shape_of_background = _background_shape(background_rng, recipe, structure)
    for index in range(recipe.frames):
        yield _simulate_frame(recipe, source, psf, shape_of_background, index, _stream(root, 1, index))


def truth_table(recipe: Recipe, columns: list[dict[str, npt.NDArray[Any]]], seed: int | None = None) -> Localizations:
    """Join the truth of all frames into one table.

    Parameters
    ----------
    recipe : Recipe
        What was simulated.
    columns : list of dict
        :attr:`SimulatedFrame.columns` of every frame, in order.
    seed : int, optional
        The seed that was used; the recipe's own by default.

    Returns
    -------
    Localizations
    """
    from smlm_pb._version import __version__

    info = MovieInfo(recipe.frames, recipe.height, recipe.width, recipe.pixel_size_nm, recipe.name)
    joined = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    step = {
        "step": "simulate",
        "version": __version__,
        "seed": recipe.seed if seed is None else seed,
        "recipe": recipe.as_dict(),
    }
    return Localizations(joined, info, [step])


def _stream(root: int, *branch: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(root, spawn_key=branch))


def _simulate_frame(
    recipe: Recipe,
    source: _Source,
    psf: SampledPsf | None,
    shape_of_background: Float64Array,
    index: int,
    rng: np.random.Generator,
) -> SimulatedFrame:
    efficiency = recipe.camera.quantum_efficiency
    x, y, photons, width, molecule = source.molecules(index, rng)
    photons = photons * efficiency
    decay = recipe.background.decay_frames
    level = recipe.background.photons_per_px * efficiency * (np.exp(-index / decay) if decay else 1.0)
    background = level * shape_of_background
    classes = recipe.molecules.molecule_classes()
    label = labels_of_numbers(classes, molecule) if classes else None
    if label is not None:
        photons = photons * factors(classes, label, "photons")
        width_x, width_y = (width * factors(classes, label, key) for key in ("width_x", "width_y"))
        light = render_separable(x, y, photons, width_x, recipe.shape, sigma_y_px=width_y)
    elif psf is None:
        light, width_x, width_y = render_tiled(x, y, photons, width, recipe.shape), width, width
    else:
        light = psf.render(x, y, photons, recipe.shape)
        width_x, width_y = (np.full(x.size, one) for one in psf.gaussian_widths())
    adu = recipe.camera.camera().digitize(background + light, rng)
    # Rounded to the table's precision first, so that the window holds for the numbers in the table.
    x32, y32 = x.astype(np.float32), y.astype(np.float32)
    true = Box.around_frame(recipe.shape, 0.0).contains(x32, y32)
    true &= photons >= recipe.molecules.min_photons
    x32, y32 = x32[true], y32[true]
    rows, columns = np.rint(y32).astype(int), np.rint(x32).astype(int)
    return SimulatedFrame(
        adu,
        {
            "frame": np.full(x32.size, index, dtype=np.uint32),
            "x": x32,
            "y": y32,
            "photons": photons[true].astype(np.float32),
            "background": background[np.clip(rows, 0, recipe.height - 1), np.clip(columns, 0, recipe.width - 1)].astype(
                np.float32
            ),
            "psf_sigma_x": width_x[true].astype(np.float32),
            "psf_sigma_y": width_y[true].astype(np.float32),
            "molecule": molecule[true].astype(np.int32),
            **({} if label is None else {"class": label[true].astype(np.int32)}),
        },
    )


def _background_shape(rng: np.random.Generator, recipe: Recipe, structure: Structure | None) -> Float64Array:
    if recipe.background.shape == "flat":
        return np.ones(recipe.shape)
    field = smooth_background(rng, recipe.shape, structure, kind=recipe.background.shape)
    contrast = recipe.background.contrast
    return 1.0 - contrast + contrast * field


def _make_source(
    recipe: Recipe,
    structure: Structure | None,
    geometry_rng: np.random.Generator,
    blinking_rng: np.random.Generator,
) -> _Source:
    if structure is None:
        return _Darkness()
    if recipe.molecules.per_frame is not None:
        return _FreshMolecules(recipe, structure, expected=None)
    share = _share_in_frame(geometry_rng, recipe, structure)
    expected = (recipe.molecules.density_per_um2 or 0.0) * recipe.area_um2 / share
    if recipe.molecules.blinking is None:
        return _FreshMolecules(recipe, structure, expected=expected)
    return _BlinkingMolecules(recipe, structure, expected, geometry_rng, blinking_rng)


def _share_in_frame(rng: np.random.Generator, recipe: Recipe, structure: Structure) -> float:
    """Part of the molecules that lies in the frame: the density asked for is that inside it."""
    surroundings = Box.around_frame(recipe.shape, MARGIN_PX)
    even = recipe.height * recipe.width / surroundings.area_px2
    if isinstance(structure, Uniform):
        return even
    x, y = structure.sample(rng, _SAMPLES_FOR_SHARE)
    share = float(Box.around_frame(recipe.shape, 0.0).contains(x, y).mean())
    return share if share >= _LEAST_SHARE_IN_FRAME else even


class _Darkness:
    """Nothing ever shines."""

    def molecules(self, frame: int, rng: np.random.Generator) -> _Shining:
        nothing = np.empty(0)
        return _Shining(nothing, nothing, nothing, nothing, np.empty(0, np.int64))


class _FreshMolecules:
    """Every frame draws new molecules, which shine for the whole frame."""

    def __init__(self, recipe: Recipe, structure: Structure, expected: float | None) -> None:
        self._recipe, self._structure, self._expected = recipe, structure, expected
        self._next_molecule = 0

    def molecules(self, frame: int, rng: np.random.Generator) -> _Shining:
        recipe = self._recipe
        if self._expected is None:
            x, y = self._inside(rng, recipe.molecules.per_frame or 0)
        else:
            x, y = self._structure.sample(rng, int(rng.poisson(self._expected)))
        number = np.arange(self._next_molecule, self._next_molecule + x.size)
        self._next_molecule += x.size
        photons = _draw_flux(rng, recipe, x.size)
        return _Shining(x, y, photons, _draw_widths(rng, recipe, x.size), number)

    def _inside(self, rng: np.random.Generator, n: int) -> Points:
        """Draw exactly ``n`` molecules in the frame and none outside."""
        frame = Box.around_frame(self._recipe.shape, 0.0)
        x, y = np.empty(0), np.empty(0)
        for _ in range(1000):
            more_x, more_y = self._structure.sample(rng, n - x.size)
            inside = frame.contains(more_x.astype(np.float32), more_y.astype(np.float32))
            x, y = np.concatenate([x, more_x[inside]]), np.concatenate([y, more_y[inside]])
            if x.size == n:
                return x, y
        raise ConfigurationError(
            "molecules.per_frame cannot be met: almost nothing of the structure lies in the frame;"
            " choose another seed or a structure that fills the frame."
        )


class _BlinkingMolecules:
    """Binding sites stay where they are and blink."""

    def __init__(
        self,
        recipe: Recipe,
        structure: Structure,
        expected: float,
        geometry_rng: np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        blinking = recipe.molecules.blinking
        assert blinking is not None
        n_sites = expected * (blinking.on_frames + blinking.off_frames) / blinking.on_frames
        if n_sites > _MOST_SITES:
            raise ConfigurationError(
                f"The recipe needs {n_sites:.3g} binding sites, more than {_MOST_SITES:.0e}: lower"
                " molecules.density_per_um2 or molecules.blinking.off_frames."
            )
        count = int(rng.poisson(n_sites))
        self._x, self._y = structure.sample(geometry_rng, count)
        self._width = _draw_widths(geometry_rng, recipe, count)
        blinks = draw_blinks(
            rng,
            count,
            recipe.frames,
            on_frames=blinking.on_frames,
            off_frames=blinking.off_frames,
            blinks=blinking.blinks,
        )
        flux = _draw_flux(rng, recipe, blinks.start.size)
        self._lit = light_per_frame(blinks, flux, recipe.frames)
        self._first = np.searchsorted(self._lit.frame, np.arange(recipe.frames + 1))

    def molecules(self, frame: int, rng: np.random.Generator) -> _Shining:
        part = slice(self._first[frame], self._first[frame + 1])
        site = self._lit.molecule[part]
        return _Shining(self._x[site], self._y[site], self._lit.light[part], self._width[site], site)


def _draw_flux(rng: np.random.Generator, recipe: Recipe, n: int) -> Float64Array:
    wanted = recipe.molecules
    return draw_flux(rng, n, wanted.photons, wanted.photon_distribution, wanted.photon_spread)


def _draw_widths(rng: np.random.Generator, recipe: Recipe, n: int) -> Float64Array:
    # Cut at 3 σ: a width must stay positive.
    relative = recipe.psf.spread * rng.normal(size=n).clip(-3.0, 3.0)
    return recipe.psf.sigma_px * (1.0 + relative)
