"""Rendered images as files: PNG with a scale bar for people, TIFF and OME-Zarr with physical scale for programs."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError, OutputError
from smlm_pb.formats.output import check_target, written_whole

if TYPE_CHECKING:
    from smlm_pb.analysis.rendering import Rendering

ByteImage = npt.NDArray[np.uint8]

# A few bright spots (beads, molecules that never bleach) must not leave everything else black.
DEFAULT_PERCENTILE = 99.7


def save_image(
    image: Rendering | npt.ArrayLike,
    path: str | os.PathLike[str],
    *,
    pixel_size_nm: float | None = None,
    colormap: str = "hot",
    percentile: float = DEFAULT_PERCENTILE,
    gamma: float = 1.0,
    scale_bar: bool = True,
    dtype: Literal["float32", "uint16"] = "float32",
    overwrite: bool = False,
) -> Path:
    """Write a rendered image; the ending of the name decides the format.

    Parameters
    ----------
    image : Rendering, or array (height, width) or (height, width, 3)
        What to write.
    path : path-like
        ``.png`` for a picture, ``.tif`` or ``.tiff`` for values, ``.zarr`` for values as a pyramid (OME-Zarr, a folder;
        needs the package zarr).
    pixel_size_nm : float, optional
        Edge of a pixel, for an array; a :class:`Rendering` knows it.
    colormap : str
        A matplotlib colormap for the picture; images in colour keep their colours.
    percentile : float
        Percentile of the pixels that are not empty which is drawn at full brightness.
    gamma : float
        Brightness is raised to this power; below 1 dim structures become visible.
    scale_bar : bool
        Whether to draw a scale bar into the picture, and the key of the colours.
    dtype : {"float32", "uint16"}
        Values of the TIFF. ``"uint16"`` is stretched to 0–65535; the factor stands in the file's description.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    OutputError
        When the file exists, cannot be made, or has an unknown ending.
    ConfigurationError
        When an option is impossible or the pixel size is missing.
    """
    values, pixel = _values_and_scale(image, pixel_size_nm)
    ending = _ending(path)
    if ending == ".zarr":
        _write_zarr(image, values, pixel, Path(path), percentile, overwrite)
    elif ending == ".png":
        picture = to_picture(values, colormap=colormap, percentile=percentile, gamma=gamma)
        if scale_bar and pixel is not None:
            picture = draw_scale_bar(picture, pixel)
        key = getattr(image, "colour", None)
        if scale_bar and key is not None:
            picture = draw_colour_key(picture, **key)
        _write_png(picture, path, overwrite)
    else:
        _write_tiff(values, pixel, path, dtype, overwrite)
    return Path(path)


def check_image(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuse a target early, before long work.

    Raises
    ------
    OutputError
        When the ending is unknown, or the file must not or cannot be written.
    """
    from smlm_pb.analysis.ome_zarr import check_folder

    if _ending(path) == ".zarr":
        check_folder(Path(path), overwrite)
    else:
        check_target(Path(path), overwrite)


def to_picture(
    values: npt.NDArray[Any],
    *,
    colormap: str = "hot",
    percentile: float = DEFAULT_PERCENTILE,
    gamma: float = 1.0,
) -> ByteImage:
    """Map values to colours (height, width, 3), full brightness at a percentile of the pixels that are not empty."""
    import matplotlib

    if not 0 < percentile <= 100:
        raise ConfigurationError(f"percentile = {percentile} is impossible; give a number above 0 and up to 100.")
    if not (math.isfinite(gamma) and gamma > 0):
        raise ConfigurationError(f"gamma = {gamma} is impossible; give a number above 0, e.g. 0.5.")
    if colormap not in matplotlib.colormaps:
        raise ConfigurationError(f"Unknown colormap {colormap!r}; use a name that matplotlib knows, e.g. hot.")
    brightness = values if values.ndim == 2 else values.max(axis=2)
    full = full_brightness(brightness, percentile)
    relative = np.clip(brightness / full, 0, 1) ** gamma
    if values.ndim == 2:
        table = np.rint(matplotlib.colormaps[colormap](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)
        return table[np.rint(relative * 255).astype(np.uint8)]
    hue = values / np.maximum(brightness, 1e-30)[:, :, None]
    picture: ByteImage = np.rint(hue * relative[:, :, None] * 255).astype(np.uint8)
    return picture


def full_brightness(values: npt.NDArray[Any], percentile: float = DEFAULT_PERCENTILE) -> float:
    """Value drawn at full brightness; 1 for an empty image."""
    # What a wide Gaussian leaves in far pixels is no structure, and would pull the percentile down.
    filled = values[values > 0.02 * values.max()] if values.size else values
    full = float(np.percentile(filled, percentile)) if filled.size else 1.0
    return full if full > 0 else 1.0


def draw_scale_bar(picture: ByteImage, pixel_size_nm: float) -> ByteImage:
    """Draw a scale bar of round length with its label into the lower right corner of a copy; tiny images get none."""
    height, width = picture.shape[:2]
    if min(height, width) < 60:
        return picture
    length_nm = nice_length(0.25 * width * pixel_size_nm)
    length = max(1, round(length_nm / pixel_size_nm))
    label = f"{length_nm / 1000:g} µm" if length_nm >= 1000 else f"{length_nm:g} nm"
    text = _draw_text(label, max(9, round(0.03 * min(height, width))))
    thickness, margin = max(2, round(0.008 * min(height, width))), max(6, round(0.03 * min(height, width)))
    marked = picture.copy()
    bottom, right = height - margin, width - margin
    _blend(marked, np.ones((thickness, length)), bottom - thickness, right - length)
    left = right - (length + text.shape[1]) // 2
    _blend(marked, text, bottom - thickness - margin // 3 - text.shape[0], min(left, width - text.shape[1] - 2))
    return marked


def draw_colour_key(picture: ByteImage, *, column: str, limits: tuple[float, float] | None, colormap: str) -> ByteImage:
    """Draw the colormap with its column and limits into the lower left corner of a copy; tiny images get none."""
    import matplotlib

    height, width = picture.shape[:2]
    if min(height, width) < 60 or limits is None:
        return picture
    thickness, margin = max(4, round(0.016 * min(height, width))), max(6, round(0.03 * min(height, width)))
    length = max(20, round(0.25 * width))
    text = _draw_text(f"{column} {limits[0]:.4g} – {limits[1]:.4g}", max(9, round(0.025 * min(height, width))))
    marked = picture.copy()
    colours = matplotlib.colormaps[colormap](np.linspace(0, 1, length))[:, :3]
    marked[height - margin - thickness : height - margin, margin : margin + length] = np.rint(colours * 255)
    _blend(marked, text, height - margin - thickness - margin // 3 - text.shape[0], margin)
    return marked


def nice_length(at_most_nm: float) -> float:
    """Return the largest of 1, 2, 5 × 10ⁿ nm that is not longer."""
    power = 10.0 ** math.floor(math.log10(at_most_nm))
    return max(step * power for step in (1, 2, 5) if step * power <= at_most_nm * (1 + 1e-9))


def _draw_text(text: str, height_px: int) -> npt.NDArray[np.float64]:
    """Opacity (rows, columns) of one line of text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(len(text) * height_px / 100, 2 * height_px / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=height_px * 0.72, color="black")
    canvas.draw()
    opacity = 1 - np.asarray(canvas.buffer_rgba())[:, :, 0] / 255
    rows, columns = np.flatnonzero(opacity.max(axis=1) > 0), np.flatnonzero(opacity.max(axis=0) > 0)
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _blend(picture: ByteImage, opacity: npt.NDArray[np.float64], top: int, left: int) -> None:
    """Paint white with an opacity onto a picture, as far as it fits."""
    top, left = max(top, 0), max(left, 0)
    part = picture[top : top + opacity.shape[0], left : left + opacity.shape[1]]
    alpha = opacity[: part.shape[0], : part.shape[1], None]
    part[...] = np.rint(part * (1 - alpha) + 255 * alpha).astype(np.uint8)


def _values_and_scale(
    image: Rendering | npt.ArrayLike, pixel_size_nm: float | None
) -> tuple[npt.NDArray[np.float32], float | None]:
    known = getattr(image, "pixel_size_nm", None)
    values = np.asarray(image, dtype=np.float32)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3) or not values.size:
        raise ConfigurationError(f"An image must be (height, width) or (height, width, 3), not {values.shape}.")
    if not np.isfinite(values).all():
        raise ConfigurationError("The image holds values that are not finite; replace them, e.g. by 0.")
    pixel = pixel_size_nm if pixel_size_nm is not None else known
    if pixel is not None and not (math.isfinite(pixel) and pixel > 0):
        raise ConfigurationError(f"pixel_size_nm = {pixel} is impossible; give nm above 0, e.g. 10.")
    return values, pixel


def _ending(path: str | os.PathLike[str]) -> str:
    ending = Path(path).suffix.lower()
    if ending not in (".png", ".tif", ".tiff", ".zarr"):
        raise OutputError(f"{path}: unknown kind of image {ending!r}; use .png, .tif, .tiff or .ome.zarr.")
    return ending


def _write_zarr(
    image: Rendering | npt.ArrayLike,
    values: npt.NDArray[np.float32],
    pixel: float | None,
    path: Path,
    percentile: float,
    overwrite: bool,
) -> None:
    from smlm_pb.analysis.ome_zarr import write_pyramid

    grid = getattr(image, "grid", None)
    origin = (0.0, 0.0)
    if grid is not None:
        origin = tuple(place * grid.camera_pixel_size_nm for place in grid.translate_px)
    full = full_brightness(values if values.ndim == 2 else values.max(axis=2), percentile)
    name = path.name.removesuffix(".zarr").removesuffix(".ome")
    write_pyramid(values, path, pixel_size_nm=pixel, origin_nm=origin, full=full, name=name, overwrite=overwrite)


def _write_png(picture: ByteImage, path: str | os.PathLike[str], overwrite: bool) -> None:
    from matplotlib.image import imsave

    with written_whole(Path(path), overwrite) as temporary:
        imsave(temporary, picture, format="png")


def _write_tiff(
    values: npt.NDArray[np.float32],
    pixel_size_nm: float | None,
    path: str | os.PathLike[str],
    dtype: str,
    overwrite: bool,
) -> None:
    import tifffile

    if dtype not in ("float32", "uint16"):
        raise ConfigurationError(f"Unknown dtype {dtype!r} for TIFF; choose float32 or uint16.")
    metadata: dict[str, Any] = {"unit": "um", "axes": "YX" if values.ndim == 2 else "CYX"}
    if dtype == "uint16":
        factor = 65535 / max(float(values.max()), 1e-30)
        values = np.rint(np.clip(values, 0, None) * factor).astype(np.uint16)
        metadata["Info"] = f"value = molecules per pixel × {factor:.9g}"
    if values.ndim == 3:
        values = np.ascontiguousarray(np.moveaxis(values, 2, 0))
    # ImageJ reads pixels per unit from the resolution, and the unit from its own description.
    resolution = None if pixel_size_nm is None else (1000 / pixel_size_nm, 1000 / pixel_size_nm)
    if pixel_size_nm is None:
        metadata.pop("unit")
    with written_whole(Path(path), overwrite) as temporary:
        tifffile.imwrite(temporary, values, imagej=True, resolution=resolution, metadata=metadata)
