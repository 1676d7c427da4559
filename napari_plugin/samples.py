"""The sample movie, in File ▸ Open Sample."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

LayerData = tuple[Any, dict[str, Any], str]

_MOVIE, _TRUTH = "filaments.tif", "filaments_truth.csv"


def filaments() -> list[LayerData]:
    """A small simulated movie of blinking molecules on filaments, with its pixel size."""
    from smlm_pb.movies import open_movie

    with as_file(files("smlm_pb.sample_data") / _MOVIE) as path:
        movie = open_movie(path)
        frames = movie.read(0, movie.n_frames)
    scale = (movie.pixel_size_nm or 100.0) / 1000.0
    attributes = {
        "name": "filaments",
        "scale": (1.0, scale, scale),
        "units": ("pixel", "um", "um"),
        "axis_labels": ("t", "y", "x"),
        "projection_mode": "none",
        "contrast_limits": (float(frames.min()), float(frames.max())),
    }
    return [(frames, attributes, "image")]


def filaments_with_truth() -> list[LayerData]:
    """The sample movie and the molecules that were simulated."""
    from napari_plugin.molecule_layers import points_arguments
    from smlm_pb.formats import read_table

    movie = filaments()[0]
    with as_file(files("smlm_pb.sample_data") / _TRUTH) as path:
        truth = read_table(path)
    arguments = points_arguments(truth, name="true molecules")
    for key in ("scale", "units", "axis_labels"):
        arguments[key] = movie[1][key]
    arguments |= {"visible": False, "border_color": "#ffb000"}
    return [movie, (arguments.pop("data"), arguments, "points")]
