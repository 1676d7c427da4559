"""Simulated experiments: movies with known molecules, and single scenes for training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smlm_pb.simulation.movie import SimulatedFrame, iterate_frames, simulate, truth_table
    from smlm_pb.simulation.recipe import Recipe
    from smlm_pb.simulation.scene_settings import SceneSettings
    from smlm_pb.simulation.scenes import Scene, draw_scene

__all__ = [
    "Recipe",
    "Scene",
    "SceneSettings",
    "SimulatedFrame",
    "draw_scene",
    "iterate_frames",
    "simulate",
    "truth_table",
]

# Imported when first used: recipes need pydantic, scenes do not, and start quickly in worker processes.
_HOME = {
    "Recipe": "recipe",
    "Scene": "scenes",
    "SceneSettings": "scene_settings",
    "SimulatedFrame": "movie",
    "draw_scene": "scenes",
    "iterate_frames": "movie",
    "simulate": "movie",
    "truth_table": "movie",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'smlm_pb.simulation' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"smlm_pb.simulation.{_HOME[name]}"), name)
    globals()[name] = value
    return value
