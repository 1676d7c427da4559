"""From a napari image layer to a movie: which axis is time, what a pixel measures, what it says of its camera."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.errors import MovieError, SmlmPbError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations, MovieInfo
    from smlm_pb.movies import Movie

_log = logging.getLogger(__name__)

#: Layers with this key in their metadata are drawn by the panel and are not offered as movie or molecules.
HELPER_KEY = "smlm_pb_helper"
#: Pixel sizes outside are no pixel size of a localization microscope, in nm.
_PLAUSIBLE_NM = (10.0, 2000.0)


@dataclass(frozen=True)
class Region:
    """A rectangle of whole pixels, ``top <= row < bottom`` and ``left <= column < right``."""

    top: int
    bottom: int
    left: int
    right: int

    def __str__(self) -> str:
        return f"rows {self.top} to {self.bottom - 1}, columns {self.left} to {self.right - 1}"


@dataclass(frozen=True)
class Place:
    """Where a movie lies in napari's world, remembered: the layer may be gone when its result is shown.

    Parameters
    ----------
    ndim : int
        Axes of the layer; the last two are y and x.
    frame_axis : int or None
        Which axis counts frames; None for a single frame.
    scale, translate : tuple of float
        Of the layer, per axis.
    units, axis_labels : tuple of str
        Of the layer, per axis.
    """

    ndim: int = 3
    frame_axis: int | None = 0
    scale: tuple[float, ...] = (1.0, 1.0, 1.0)
    translate: tuple[float, ...] = (0.0, 0.0, 0.0)
    units: tuple[str, ...] = ("pixel", "pixel", "pixel")
    axis_labels: tuple[str, ...] = ("t", "y", "x")

    @classmethod
    def of_layer(cls, layer: Any) -> Place:
        """Place of an image layer that holds a movie, or of a Points layer."""
        is_points = getattr(layer, "features", None) is not None
        return cls(
            ndim=layer.ndim,
            frame_axis=(layer.ndim - 3 if layer.ndim > 2 else None) if is_points else frame_axis(layer),
            scale=tuple(map(float, layer.scale)),
            translate=tuple(map(float, layer.translate)),
            units=tuple(map(str, layer.units)),
            axis_labels=tuple(layer.axis_labels),
        )

    def as_arguments(self) -> dict[str, Any]:
        """Arguments for another layer with the same axes.

        Units go together with the scale: napari stops honouring units as soon as one layer lacks them.
        """
        return {
            "scale": self.scale,
            "translate": self.translate,
            "units": self.units,
            "axis_labels": self.axis_labels,
        }


class CroppedArray:
    """A view of an array that reads only the rectangle, also from lazy arrays.

    Parameters
    ----------
    array : array-like
        Anything with ``shape``, ``dtype`` and slicing whose last two axes are y and x.
    region : Region
        What remains of the last two axes.
    """

    def __init__(self, array: Any, region: Region) -> None:
        self._array = array
        self._window = (slice(region.top, region.bottom), slice(region.left, region.right))
        self.dtype = array.dtype
        self.shape = (*array.shape[:-2], region.bottom - region.top, region.right - region.left)

    def __getitem__(self, index: Any) -> Any:
        leading = index if isinstance(index, tuple) else (index,)
        return np.asarray(self._array[(*leading[: len(self.shape) - 2], *self._window)])


def movie_of_layer(layer: Any, region: Region | None = None) -> Movie:
    """Take the movie out of an image layer; its frames are read later, block by block.

    Parameters
    ----------
    layer : napari.layers.Image
        A layer whose data are ``(frame, y, x)``, numpy, dask, zarr or alike.
    region : Region, optional
        Rectangle to which the frames are cut; positions then count from its corner.

    Returns
    -------
    Movie
        Its ``pixel_size_nm`` is what the layer's scale says, where its units are lengths.

    Raises
    ------
    MovieError
        When the layer is no movie: colour, several channels, too small.
    """
    if getattr(layer, "rgb", False):
        raise MovieError(
            f"Layer '{layer.name}' is a colour image: localization needs the raw camera frames in grey levels; "
            "open one channel as a 16-bit stack."
        )
    from smlm_pb.movies.arrays import ArrayMovie

    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    movie = ArrayMovie(data if region is None else CroppedArray(data, region), name=layer.name)
    movie.pixel_size_nm = pixel_size_of_layer(layer)
    return movie


def fitting_movie(layer: Any, table: Localizations) -> Movie | None:
    """The movie of a layer, if a table is one of it.

    Parameters
    ----------
    layer : napari.layers.Image or None
        The layer.
    table : Localizations
        Molecules; tables of other programs often do not tell the movie's size, and end at the outermost molecules.
    """
    movie = None if layer is None else _movie_or_none(layer)
    if movie is None:
        return None
    is_same, has_room = _compared(movie, table.info)
    return movie if (is_same if table.last_step("localize") else has_room) else None


def _compared(movie: Movie, info: MovieInfo) -> tuple[bool, bool]:
    """Whether a movie has the size that a table tells of, and whether it has room for it."""
    size, needed = (movie.n_frames, movie.height, movie.width), (info.n_frames, info.height, info.width)
    return size == needed, all(mine >= its for mine, its in zip(size, needed, strict=True))


def is_helper(layer: Any) -> bool:
    """Whether a layer is one that the panel draws itself."""
    return HELPER_KEY in layer.metadata


def why_no_movie(layer: Any) -> str | None:
    """Explain why a layer cannot be localized; None when it can."""
    try:
        movie_of_layer(layer)
    except SmlmPbError as error:
        return str(error)
    return None


def frame_axis(layer: Any) -> int | None:
    """Position of the time axis in the layer's data; None for a single frame."""
    from smlm_pb.movies.axes import array_time_axis

    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    return array_time_axis(data.shape, f"Layer '{layer.name}'")


def place_for(info: MovieInfo, layers: Iterable[Any]) -> Place | None:
    """Find where a table belongs: on the one movie among the layers into which it fits.

    Parameters
    ----------
    info : MovieInfo
        What the table says of its movie.
    layers : iterable of napari layers
        The viewer's.

    Returns
    -------
    Place or None
        None where there is no such movie, or where several lie in different places.
    """
    exact: set[Place] = set()
    larger: set[Place] = set()
    for layer, movie in _movies_among(layers):
        is_same, has_room = _compared(movie, info)
        if has_room:
            (exact if is_same else larger).add(Place.of_layer(layer))
    fitting = exact or larger
    return fitting.pop() if len(fitting) == 1 else None


def place_beside(info: MovieInfo, layers: Iterable[Any]) -> Place | None:
    """Where a table lies whose movie is not there: in the units of the movie that is, or napari does without any.

    Parameters
    ----------
    info, layers
        As for :func:`place_for`.

    Returns
    -------
    Place or None
        None where no movie has a scale in units of length.
    """
    for layer, _ in _movies_among(layers):
        pixel_size_nm, place = pixel_size_of_layer(layer), Place.of_layer(layer)
        if pixel_size_nm is None or place.frame_axis is None:
            continue
        zoom = (info.pixel_size_nm or pixel_size_nm) / pixel_size_nm
        scale = (*place.scale[:-2], *(zoom * edge for edge in place.scale[-2:]))
        return replace(place, scale=scale, translate=(*place.translate[:-2], 0.0, 0.0))
    return None


def _movies_among(layers: Iterable[Any]) -> Iterator[tuple[Any, Movie]]:
    """The layers that are movies, with the movie."""
    from napari.layers import Image

    for layer in layers:
        if isinstance(layer, Image) and not is_helper(layer) and (movie := _movie_or_none(layer)) is not None:
            yield layer, movie


def _movie_or_none(layer: Any) -> Movie | None:
    """The movie of an image layer; None where it is none."""
    try:
        return movie_of_layer(layer)
    except SmlmPbError:
        return None


def pixel_size_of_layer(layer: Any) -> float | None:
    """Edge of a pixel in nm, from the layer's scale and units.

    Parameters
    ----------
    layer : napari.layers.Layer
        Any layer with ``scale`` and ``units``.

    Returns
    -------
    float or None
        None where the units are no lengths, the pixels are not square, or the size is impossible.
    """
    sizes = []
    for scale, unit in zip(layer.scale[-2:], layer.units[-2:], strict=True):
        if dict(unit.dimensionality) != {"[length]": 1}:
            return None
        sizes.append(float((float(scale) * unit).to("nm").magnitude))
    y_nm, x_nm = sizes
    is_square = abs(y_nm - x_nm) <= 0.01 * x_nm
    return x_nm if is_square and _PLAUSIBLE_NM[0] <= x_nm <= _PLAUSIBLE_NM[1] else None


def pixel_size_of_source(layer: Any) -> tuple[float | None, str]:
    """Edge of a pixel in nm as the file behind the layer states it; reads the file's header.

    Returns
    -------
    pixel_size_nm : float or None
        None where there is no file, it is none that we read, or it says nothing.
    source : str
        Where the number comes from, in words.
    """
    path = getattr(getattr(layer, "source", None), "path", None)
    if not path or not Path(path).exists():
        return None, ""
    from smlm_pb.movies import open_movie

    try:
        with open_movie(path) as movie:  # type: ignore[attr-defined]
            return movie.pixel_size_nm, str(movie.metadata.get("pixel_size_source", "the file"))
    except SmlmPbError as error:
        _log.info("The header of %s was not understood: %s", path, error)
        return None, ""


def placed_in_whole(table: Localizations, region: Region | None, whole: MovieInfo | None) -> Localizations:
    """Turn positions in a cut movie into positions in the whole frames.

    Parameters
    ----------
    table : Localizations
        Molecules of the movie that was cut.
    region : Region, optional
        Where it was cut; nothing changes without.
    whole : MovieInfo, optional
        The whole movie.
    """
    if region is None or whole is None:
        return table
    from smlm_pb.localizations import Localizations, MovieInfo

    moved = table.with_columns(x=table.x + np.float32(region.left), y=table.y + np.float32(region.top))
    pixel_size_nm = table.info.pixel_size_nm or whole.pixel_size_nm
    info = MovieInfo(whole.n_frames, whole.height, whole.width, pixel_size_nm, whole.name)
    history = [_with_moved_pixels(step, region) for step in table.provenance]
    return Localizations(moved.columns, info, history)


def _with_moved_pixels(step: dict[str, Any], region: Region) -> dict[str, Any]:
    """A step of a table's history, with the bad pixels of its camera where they are in the whole frames."""
    conditions = step.get("conditions") or {}
    camera = conditions.get("camera") or {}
    if not camera.get("bad_pixels"):
        return step
    places = [[row + region.top, column + region.left] for row, column in camera["bad_pixels"]]
    return {**step, "conditions": {**conditions, "camera": {**camera, "bad_pixels": places}}}


def region_of_shapes(shapes: Any, layer: Any) -> Region | None:
    """Bounding box, in whole pixels of the movie, of the last shape drawn.

    Parameters
    ----------
    shapes : napari.layers.Shapes
        Where the user drew the rectangle.
    layer : napari.layers.Image
        The movie.

    Returns
    -------
    Region or None
        None when nothing is drawn or it lies outside the movie.
    """
    if not len(shapes.data):
        return None
    corners = np.asarray(shapes.data[-1], float)
    world = np.array([shapes.data_to_world(corner) for corner in corners])
    # Shapes drawn in 2-D may have fewer axes than the movie: the last two are y and x in both.
    padded = np.zeros((len(world), layer.ndim))
    shared = min(world.shape[1], layer.ndim)
    padded[:, -shared:] = world[:, -shared:]
    pixels = np.array([layer.world_to_data(point) for point in padded])[:, -2:]
    height, width = (layer.data[0] if getattr(layer, "multiscale", False) else layer.data).shape[-2:]
    top, left = (int(v) for v in np.floor(pixels.min(axis=0) + 0.5))
    bottom, right = (int(v) for v in np.floor(pixels.max(axis=0) + 0.5))
    top, bottom = max(top, 0), min(max(bottom, top + 1), height)
    left, right = max(left, 0), min(max(right, left + 1), width)
    return Region(top, bottom, left, right) if bottom > top and right > left else None
