"""The super-resolved image of a table of molecules.

The image knows where it lies: ``scale_px`` and ``translate_px`` put its pixels on the camera's, in napari and anywhere
else where pixel centres sit at whole numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.splatting import add_spots
from smlm_pb.errors import ConfigurationError, TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations, MovieInfo

Method = Literal["gaussian", "histogram", "blur"]
METHODS: tuple[Method, ...] = ("gaussian", "histogram", "blur")
#: Corners of a region in camera pixels: y and x of the upper left, y and x of the lower right.
Roi = tuple[float, float, float, float]
FloatArray = npt.NDArray[np.float64]

#: Largest image that is made without being asked for, in megapixels (times 4 bytes, times 3 in colour).
MAX_MEGAPIXELS = 400.0
DEFAULT_COLORMAP = "turbo"
# Share of the molecules outside of the frame from which on this is no matter of drift or of a border.
_OUTSIDE = 0.05
# Rows that the limits of the colours are taken from, where there are more.
_ENOUGH_FOR_LIMITS = 1_000_000


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a rendered image lie on the camera.

    Parameters
    ----------
    height, width : int
        Pixels of the image.
    pixel_size_nm : float
        Edge of a pixel of the image.
    camera_pixel_size_nm : float
        Edge of a camera pixel.
    top_px, left_px : float
        Upper and left edge of the image in camera pixels (the edge of the first camera pixel is −0.5).
    """

    height: int
    width: int
    pixel_size_nm: float
    camera_pixel_size_nm: float
    top_px: float
    left_px: float

    @property
    def scale_px(self) -> tuple[float, float]:
        """Camera pixels per pixel of the image, (y, x): napari's ``scale`` where the movie has scale 1."""
        step = self.pixel_size_nm / self.camera_pixel_size_nm
        return (step, step)

    @property
    def translate_px(self) -> tuple[float, float]:
        """Camera coordinates (y, x) of the centre of the first pixel: napari's ``translate``."""
        half = 0.5 * self.scale_px[0]
        return (self.top_px + half, self.left_px + half)

    def to_image(self, position_px: npt.NDArray[Any], axis: Literal["y", "x"]) -> npt.NDArray[np.float32]:
        """Camera coordinates as coordinates in this image, pixel centres at whole numbers."""
        origin = self.translate_px[0 if axis == "y" else 1]
        shifted = np.asarray(position_px, np.float64) - origin
        shifted /= self.scale_px[0]
        return shifted.astype(np.float32)


@dataclass(frozen=True)
class Rendering:
    """A rendered image and its place on the camera.

    Parameters
    ----------
    image : float32 array (height, width) or (height, width, 3)
        Molecules per pixel; in colour, molecules per pixel times their colour.
    grid : Grid
        Where the pixels lie.
    n_molecules : int
        Rows that were drawn, also those outside the region.
    method : str
        How they were drawn.
    colour : dict, optional
        Column, limits and colormap of the colours.
    """

    image: npt.NDArray[np.float32]
    grid: Grid
    n_molecules: int
    method: str
    colour: dict[str, Any] | None = field(default=None)

    @property
    def pixel_size_nm(self) -> float:
        """Edge of a pixel of the image."""
        return self.grid.pixel_size_nm

    @property
    def scale_px(self) -> tuple[float, float]:
        """See :attr:`Grid.scale_px`."""
        return self.grid.scale_px

    @property
    def translate_px(self) -> tuple[float, float]:
        """See :attr:`Grid.translate_px`."""
        return self.grid.translate_px

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy:
            return np.array(self.image, dtype=dtype)
        return np.asarray(self.image, dtype=dtype)


def render(
    locs: Localizations | Iterable[Localizations],
    *,
    pixel_size_nm: float = 10.0,
    method: Method = "gaussian",
    blur_nm: float | None = None,
    min_blur_nm: float = 0.0,
    roi: Roi | None = None,
    colour_by: str | None = None,
    colour_limits: tuple[float, float] | None = None,
    colormap: str = DEFAULT_COLORMAP,
    camera_pixel_size_nm: float | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Rendering:
    """Draw the super-resolved image.

    Parameters
    ----------
    locs : Localizations, or iterable of them
        The molecules; blocks of one movie may come one after the other, so that they need not be in memory at once.
    pixel_size_nm : float
        Edge of a pixel of the image.
    method : {"gaussian", "histogram", "blur"}
        ``"gaussian"`` draws every molecule as wide as its own precision (the root mean square of ``sigma_x`` and
        ``sigma_y``), ``"blur"`` all with the same width, ``"histogram"`` counts molecules per pixel. Each
        molecule has total weight one and is integrated over the pixels.
    blur_nm : float, optional
        Width (standard deviation) for ``"blur"``; one pixel of the image when not given.
    min_blur_nm : float
        Least width for ``"gaussian"``.
    roi : (y0, x0, y1, x1), optional
        Region in camera pixels, edges included in the image; the whole field of view when not given. The first
        camera pixel reaches from −0.5 to 0.5.
    colour_by : str, optional
        Column (``frame``, ``z``, any) or derived quantity (``sigma_nm``) that gives each molecule its colour.
    colour_limits : (low, high), optional
        Values at the ends of the colormap; the 1st and 99th percentile when not given (needed for blocks).
    colormap : str
        A matplotlib colormap for ``colour_by``.
    camera_pixel_size_nm : float, optional
        Edge of a camera pixel, where the table does not know it.
    max_megapixels : float
        Refuse to make a larger image.

    Returns
    -------
    Rendering
        Its ``image`` is float32 (height, width), in colour (height, width, 3).

    Raises
    ------
    TableError
        When the pixel size or the precision is unknown, or the colour column is missing.
    ConfigurationError
        When an option is impossible or the image would be too large.

    Notes
    -----
    Peak memory is the image, the molecules' positions, and some 50 bytes per molecule of the largest block.
    A single Gaussian differs from the exact one by at most 3 % of its peak; total weight, mean and variance are exact.
    """
    _check_options(pixel_size_nm, method, blur_nm, min_blur_nm, colour_limits)
    blocks = _blocks(locs)
    first = next(blocks, None)
    if first is None:
        raise TableError("There is no table to render.")
    grid = make_grid(first.info, pixel_size_nm, roi, camera_pixel_size_nm, max_megapixels, colour_by is not None)
    shape = (grid.height, grid.width) if colour_by is None else (grid.height, grid.width, 3)
    image = np.zeros(shape, np.float32)
    limits = colour_limits
    n_molecules = n_rows = n_inside = 0
    for block in _chain(first, blocks):
        colours = None
        if colour_by is not None:
            values = colour_values(block, colour_by)
            if limits is None:
                limits = _percentile_limits(values[:: max(1, len(values) // _ENOUGH_FOR_LIMITS)])
            colours = _Colours(colour_index(values, limits), palette_of(colormap))
            del values
        y, x = grid.to_image(block["y"], "y"), grid.to_image(block["x"], "x")
        n_molecules += _draw(image, grid, block, (y, x), method, blur_nm, min_blur_nm, colours)
        n_rows, n_inside = n_rows + len(block), n_inside + int(_are_inside(y, x, *shape[:2]).sum())
    _warn_of_outside(n_rows, n_inside, first.info, whole=roi is None)
    colour = None if colour_by is None else {"column": colour_by, "limits": limits, "colormap": colormap}
    return Rendering(image, grid, n_molecules, method, colour)


def make_grid(
    info: MovieInfo,
    pixel_size_nm: float,
    roi: Roi | None,
    camera_pixel_size_nm: float | None,
    max_megapixels: float = MAX_MEGAPIXELS,
    in_colour: bool = False,
) -> Grid:
    """Lay an image over a region of the camera.

    Raises
    ------
    TableError
        When the size of a camera pixel is unknown.
    ConfigurationError
        When the region is empty or the image would be too large.
    """
    camera_pixel = camera_pixel_size_nm or info.pixel_size_nm
    if camera_pixel is None:
        raise TableError("The table does not know its pixel size, so nm have no meaning; give camera_pixel_size_nm.")
    if not (math.isfinite(camera_pixel) and camera_pixel > 0):
        raise ConfigurationError(f"camera_pixel_size_nm = {camera_pixel} is impossible; give nm above 0, e.g. 100.")
    top, left, bottom, right = roi if roi is not None else (-0.5, -0.5, info.height - 0.5, info.width - 0.5)
    if not (all(map(math.isfinite, (top, left, bottom, right))) and bottom > top and right > left):
        raise ConfigurationError(
            f"The region {(top, left, bottom, right)} is empty; give (y0, x0, y1, x1) in camera pixels with "
            "y1 > y0 and x1 > x0."
        )
    steps = [(stop - start) * camera_pixel / pixel_size_nm for start, stop in ((top, bottom), (left, right))]
    height, width = (max(1, math.ceil(step - 1e-6)) for step in steps)
    megapixels = height * width / 1e6
    if megapixels > max_megapixels:
        fitting = math.ceil(10 * pixel_size_nm * math.sqrt(megapixels / max_megapixels)) / 10
        memory = megapixels * (12 if in_colour else 4) / 1000
        raise ConfigurationError(
            f"An image of {height} × {width} pixels ({memory:.3g} GB) is too large; use pixel_size_nm ≥ {fitting:g}, "
            f"a smaller region, or allow more than {max_megapixels:g} megapixels."
        )
    return Grid(height, width, float(pixel_size_nm), float(camera_pixel), float(top), float(left))


class _Colours(NamedTuple):
    """Colour of every molecule: a row of the palette."""

    row: npt.NDArray[np.uint8]
    palette: npt.NDArray[np.float32]


def colour_values(locs: Localizations, name: str) -> npt.NDArray[Any]:
    """Return the values of a column or derived quantity, which must be numbers."""
    values = locs[name] if name in locs or not name.endswith("_nm") else locs.derived(name)
    if values.dtype.kind not in "biuf":
        raise TableError(f"Column {name} holds text; colours need numbers.")
    return values


def palette_of(colormap: str) -> npt.NDArray[np.float32]:
    """Red, green and blue (256, 3) from 0 to 1 of a matplotlib colormap."""
    import matplotlib

    if colormap not in matplotlib.colormaps:
        raise ConfigurationError(f"Unknown colormap {colormap!r}; use a name that matplotlib knows, e.g. turbo.")
    return np.asarray(matplotlib.colormaps[colormap](np.linspace(0, 1, 256))[:, :3], np.float32)


def colour_index(values: npt.NDArray[Any], limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Row of the palette for every value; values beyond the limits get the end colours."""
    low, high = limits
    index = np.zeros(len(values), np.uint8)
    if high > low:
        step = 1 << 18  # so that no wide copy of a long column is made
        for start in range(0, len(values), step):
            part = np.nan_to_num(values[start : start + step].astype(np.float64), nan=low)
            index[start : start + step] = np.clip((part - low) / (high - low) * 255 + 0.5, 0, 255)
    return index


def limits_of(blocks: Iterable[Localizations], name: str) -> tuple[float, float]:
    """The 1st and 99th percentile of a column of a table that comes in blocks, from some of its rows."""
    values = [np.zeros(0)]
    for block in blocks:
        # Limits need no more than this, however long the table is.
        values.append(colour_values(block.select(slice(None, None, max(1, len(block) // 20_000))), name))
    return _percentile_limits(np.concatenate(values))


def _blocks(locs: Localizations | Iterable[Localizations]) -> Iterator[Localizations]:
    from smlm_pb.localizations import Localizations

    return iter([locs] if isinstance(locs, Localizations) else locs)


def _chain(first: Localizations, rest: Iterator[Localizations]) -> Iterator[Localizations]:
    yield first
    yield from rest


def _percentile_limits(values: npt.NDArray[Any]) -> tuple[float, float]:
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return 0.0, 1.0
    low, high = np.percentile(known, [1, 99])
    return float(low), float(high)


def _draw(
    image: npt.NDArray[np.float32],
    grid: Grid,
    locs: Localizations,
    place: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    method: Method,
    blur_nm: float | None,
    min_blur_nm: float,
    colours: _Colours | None,
) -> int:
    y, x = place
    if method == "histogram":
        _count(image, y, x, colours)
        return len(locs)
    index, palette = (None, None) if colours is None else colours
    if method == "blur":
        width_nm = grid.pixel_size_nm if blur_nm is None else blur_nm
        add_spots(image, x, y, np.full(len(x), width_nm / grid.pixel_size_nm, np.float32), index, palette)
        return len(locs)
    sigma = _sigma_in_image(locs, grid)
    known = np.isfinite(sigma) & (sigma >= 0)
    sigma = np.maximum(sigma, np.float32(min_blur_nm / grid.pixel_size_nm))
    if not known.all():
        n_unknown = int(np.count_nonzero(~known))
        warnings.warn(
            f"{n_unknown} of {len(locs)} molecules have no valid sigma_x and sigma_y and are left out of the image.",
            UserWarning,
            stacklevel=3,
        )
        y, x, sigma = y[known], x[known], sigma[known]
        index = None if index is None else index[known]
    add_spots(image, x, y, sigma, index, palette)
    return len(x)


def _are_inside(y: npt.NDArray[Any], x: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (y >= -0.5) & (y < height - 0.5) & (x >= -0.5) & (x < width - 0.5)
    return inside


def _warn_of_outside(n_rows: int, n_inside: int, info: MovieInfo, *, whole: bool) -> None:
    """A black image, or one with a part missing, has a reason that nobody sees in it."""
    if not n_rows or (n_inside and not (whole and n_rows - n_inside > _OUTSIDE * n_rows)):
        return
    size = f"{info.height}×{info.width} px"
    where = f"frame of {size}: check unit and axes of the positions" if whole else f"region: the frame has {size}"
    warnings.warn(f"{n_rows - n_inside} of {n_rows} molecules lie outside of the {where}.", UserWarning, stacklevel=3)


def _sigma_in_image(locs: Localizations, grid: Grid) -> npt.NDArray[np.float32]:
    missing = [name for name in ("sigma_x", "sigma_y") if name not in locs]
    if missing:
        raise TableError(
            f"The table has no column {' and '.join(missing)}, so molecules cannot be drawn as wide as their "
            "precision; use method 'blur' or 'histogram'."
        )
    sigma = np.square(locs["sigma_x"], dtype=np.float32)
    sigma += np.square(locs["sigma_y"], dtype=np.float32)
    sigma = np.sqrt(sigma / np.float32(2)) / np.float32(grid.scale_px[0])
    return np.where((locs["sigma_x"] < 0) | (locs["sigma_y"] < 0), np.float32(-1), sigma)


def _count(
    image: npt.NDArray[np.float32],
    y: npt.NDArray[np.float32],
    x: npt.NDArray[np.float32],
    colours: _Colours | None,
) -> None:
    height, width = image.shape[:2]
    inside = _are_inside(y, x, height, width)
    row, column = (np.floor(position[inside] + np.float32(0.5)).astype(np.intp) for position in (y, x))
    cell = np.minimum(row, height - 1) * width + np.minimum(column, width - 1)
    if colours is None:
        image += np.bincount(cell, minlength=height * width).reshape(height, width)
        return
    index = colours.row[inside]
    for c in range(3):
        image[:, :, c] += np.bincount(cell, colours.palette[index, c], minlength=height * width).reshape(height, width)


def _check_options(
    pixel_size_nm: float,
    method: str,
    blur_nm: float | None,
    min_blur_nm: float,
    colour_limits: tuple[float, float] | None,
) -> None:
    if method not in METHODS:
        raise ConfigurationError(f"Unknown method {method!r}; choose from {', '.join(METHODS)}.")
    if not (math.isfinite(pixel_size_nm) and pixel_size_nm > 0):
        raise ConfigurationError(f"pixel_size_nm = {pixel_size_nm} is impossible; give nm above 0, e.g. 10.")
    if blur_nm is not None and not (math.isfinite(blur_nm) and blur_nm >= 0):
        raise ConfigurationError(f"blur_nm = {blur_nm} is impossible; give nm from 0, e.g. 10.")
    if blur_nm is not None and method != "blur":
        raise ConfigurationError(
            f"blur_nm belongs to method 'blur', not to {method!r}; see min_blur_nm for 'gaussian'."
        )
    if not (math.isfinite(min_blur_nm) and min_blur_nm >= 0):
        raise ConfigurationError(f"min_blur_nm = {min_blur_nm} is impossible; give nm from 0.")
    if colour_limits is not None and not (
        all(map(math.isfinite, colour_limits)) and colour_limits[0] < colour_limits[1]
    ):
        raise ConfigurationError(f"colour_limits = {colour_limits} must be two ascending numbers.")
