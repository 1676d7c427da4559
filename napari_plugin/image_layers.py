"""The super-resolved image: drawn by the library, laid on the movie in napari."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_plugin.movie_layers import Place

if TYPE_CHECKING:
    from smlm_pb.analysis.rendering import Grid, Rendering
    from smlm_pb.localizations import Localizations, MovieInfo

#: Where nobody knows the camera's pixel size, the image is drawn as if it were this.
ASSUMED_PIXEL_SIZE_NM = 100.0
#: Rows of an image that tell how bright it is.
_SAMPLE_PX = 640


def draw_image(table: Localizations, *, told: list[str] | None = None, **options: Any) -> Rendering:
    """Draw a table with :func:`smlm_pb.analysis.render`, also where its pixel size is unknown.

    Parameters
    ----------
    table : Localizations
        The molecules.
    told : list of str, optional
        Gets what the library warns of; napari would open a notification for every image that is drawn.
    **options
        Of :func:`smlm_pb.analysis.render`.

    Returns
    -------
    Rendering
    """
    from smlm_pb.analysis import render

    camera_pixel = table.info.pixel_size_nm or ASSUMED_PIXEL_SIZE_NM
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        rendering = render(table, camera_pixel_size_nm=camera_pixel, **options)
    if told is not None:
        told += [str(warning.message) for warning in caught]
    return rendering


def growing_pixel_size_nm(info: MovieInfo, wanted_nm: float, megapixels: float) -> float:
    """Pixel size with which the whole field of view has at most so many megapixels."""
    camera_pixel = info.pixel_size_nm or ASSUMED_PIXEL_SIZE_NM
    area_nm2 = info.height * info.width * camera_pixel**2
    return max(wanted_nm, math.sqrt(area_nm2 / (megapixels * 1e6)))


def image_placement(place: Place, grid: Grid) -> dict[str, Any]:
    """Where an image lies, as arguments for an image layer on top of the movie, in the movie's units.

    Parameters
    ----------
    place : Place
        Where the movie, or the layer of the molecules, lies.
    grid : Grid
        Where the image lies on the camera.

    Returns
    -------
    dict
        ``scale``, ``translate``, ``units`` and ``axis_labels`` of the last two axes.
    """
    scale, translate = np.asarray(place.scale[-2:]), np.asarray(place.translate[-2:])
    return {
        "scale": tuple(map(float, scale * grid.scale_px)),
        "translate": tuple(map(float, translate + scale * grid.translate_px)),
        "units": place.units[-2:],
        "axis_labels": place.axis_labels[-2:],
    }


def brightness_limits(image: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Contrast limits with which dim structures are seen and a few bright spots do not blacken the rest."""
    from smlm_pb.analysis.picture import full_brightness

    # An even sample is enough, and fast for large images.
    step = max(1, -(-image.shape[0] // _SAMPLE_PX))
    return 0.0, full_brightness(image[::step, ::step])


def as_rgb(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Colours of a colour-coded image (height, width, 3), ready for an RGB layer."""
    from smlm_pb.analysis.picture import to_picture

    return to_picture(image)
