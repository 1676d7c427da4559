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
    from smlm_pb.analysis import (
        apply_drift,
        correct_drift,
        digital_twin,
        estimate_drift,
        filter_by,
        filter_neighbours,
        filter_region,
        frc,
        link,
        merge_groups,
        nena,
        quality,
        refine_table,
        render,
        repeatability,
        residual_map,
        save_image,
        superposition,
        suppress_duplicates,
        verify,
        write_report,
    )
    from smlm_pb.camera import Camera
    from smlm_pb.errors import SmlmPbError
    from smlm_pb.evaluation import error_budget, evaluate
    from smlm_pb.formats import iterate_table, read_table, write_table
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
    "apply_drift",
    "correct_drift",
    "digital_twin",
    "error_budget",
    "estimate_drift",
    "evaluate",
    "filter_by",
    "filter_neighbours",
    "filter_region",
    "frc",
    "iterate_table",
    "link",
    "list_models",
    "load_model",
    "localize",
    "localize_to_file",
    "merge_groups",
    "nena",
    "open_movie",
    "quality",
    "read_table",
    "refine_table",
    "render",
    "repeatability",
    "residual_map",
    "save_image",
    "simulate",
    "superposition",
    "suppress_duplicates",
    "verify",
    "write_report",
    "write_table",
]

_HOME = {
    "Camera": "camera",
    "Localizations": "localizations",
    "MovieInfo": "localizations",
    "Recipe": "simulation",
    "SmlmPbError": "errors",
    "apply_drift": "analysis",
    "correct_drift": "analysis",
    "digital_twin": "analysis",
    "error_budget": "evaluation",
    "estimate_drift": "analysis",
    "evaluate": "evaluation",
    "filter_by": "analysis",
    "filter_neighbours": "analysis",
    "filter_region": "analysis",
    "frc": "analysis",
    "iterate_table": "formats",
    "link": "analysis",
    "list_models": "localization",
    "load_model": "localization",
    "localize": "localization",
    "localize_to_file": "localization",
    "merge_groups": "analysis",
    "nena": "analysis",
    "open_movie": "movies",
    "quality": "analysis",
    "read_table": "formats",
    "refine_table": "analysis",
    "render": "analysis",
    "repeatability": "analysis",
    "residual_map": "analysis",
    "save_image": "analysis",
    "simulate": "simulation",
    "superposition": "analysis",
    "suppress_duplicates": "analysis",
    "verify": "analysis",
    "write_report": "analysis",
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
