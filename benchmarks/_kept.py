"""Parts of a benchmark that are done, kept beside the trial runs: a run that was cut off goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from _report import QUICK_RESULTS, to_json, write_text


def kept(benchmark: str, part: str, measure: Callable[[], Any]) -> Any:
    """Results of one part: from its file where it was measured before, else measured now and written.

    Parameters
    ----------
    benchmark, part : str
        Names; the part's must tell every setting that decides its results, and :func:`origin` where it rests on
        simulation or on a shipped model.
    measure : callable
        Returns plain values.
    """
    path = _path(benchmark, part)
    if not path.exists():
        found = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, to_json(found))
    return json.loads(path.read_text(encoding="utf-8"))


def is_kept(benchmark: str, part: str) -> bool:
    """Whether a part was measured before."""
    return _path(benchmark, part).exists()


def _path(benchmark: str, part: str) -> Path:
    return QUICK_RESULTS / benchmark / f"{part}.json"


@cache
def origin(*models: str) -> str:
    """Eight digits that change with what the simulator draws for a seed, and with weights and calibration of models.

    Parts of different origin are not comparable, and never stand in one table.

    Parameters
    ----------
    *models : str
        Names of the shipped models that the parts start from or are held against.
    """
    import numpy as np

    from smlm_pb.localization import load_model
    from smlm_pb.simulation import simulate
    from smlm_pb.simulation.presets import density_sweep
    from smlm_pb.simulation.scenes import SceneSettings, draw_scene

    digest = hashlib.sha256()
    rng = np.random.default_rng(0)
    for _ in range(20):
        digest.update(draw_scene(rng, SceneSettings(), 16).electrons.tobytes())
    movie, _ = simulate(density_sweep(1.0, frames=4, size_px=16), seed=0)
    digest.update(movie.tobytes())
    for model in models:
        card = load_model(model, "cpu").card
        digest.update(card.weights_sha256.encode())
        digest.update(json.dumps([card.sigma_calibration, card.statement_calibration, card.neighbour_pull]).encode())
    return digest.hexdigest()[:8]
