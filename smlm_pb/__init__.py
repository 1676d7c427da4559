"""smlm-pb: from movies of blinking molecules to tables of molecule positions, with believable uncertainties.

>>> import smlm_pb
>>> molecules = smlm_pb.localize("movie.tif", pixel_size_nm=100)  # doctest: +SKIP
>>> molecules.save("movie_locs.hdf5")  # doctest: +SKIP

Arrays are ``(frame, y, x)``. Positions are in camera pixels, x = column, y = row; the centre of the first
pixel is ``0.0``; frames count from 0. Everything listed in ``__all__`` is imported when it is first used, so
that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from smlm_pb._version import __version__

if TYPE_CHECKING:
    from smlm_pb.analysis import render, save_image
    from smlm_pb.camera import Camera
    from smlm_pb.errors import SmlmPbError
    from smlm_pb.evaluation import evaluate
    from smlm_pb.formats import read_table, write_table
    from smlm_pb.localization import list_models, load_model, localize, localize_to_file
    from smlm_pb.localizations import Localizations, MovieInfo
    from smlm_pb.movies import open_movie
    from smlm_pb.simulation import Recipe, simulate

__all__ = [
    "Camera",
    "Localizations",
    "MovieInfo",
    "Recipe",
    "SmlmPbError",
    "__version__",
    "evaluate",
    "list_models",
    "load_model",
    "localize",
    "localize_to_file",
    "open_movie",
    "read_table",
    "render",
    "save_image",
    "simulate",
    "write_table",
]

_HOME = {
    "Camera": "camera",
    "Localizations": "localizations",
    "MovieInfo": "localizations",
    "Recipe": "simulation",
    "SmlmPbError": "errors",
    "evaluate": "evaluation",
    "list_models": "localization",
    "load_model": "localization",
    "localize": "localization",
    "localize_to_file": "localization",
    "open_movie": "movies",
    "read_table": "formats",
    "render": "analysis",
    "save_image": "analysis",
    "simulate": "simulation",
    "write_table": "formats",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'smlm_pb' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"smlm_pb.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
