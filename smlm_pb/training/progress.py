"""What a run shows while it goes: a line in the terminal, and a figure file that is redrawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write the history as JSON and draw it to ``progress.png``.

    Parameters
    ----------
    folder : Path
        The run's folder.
    history : list of dict
        One entry per validation: ``step``, mean ``loss`` terms since the last one, ``validation`` scores.
    """
    part = folder / "history.json.part"
    part.write_text(json.dumps(history, indent=1), encoding="utf-8")
    part.replace(folder / "history.json")
    if history:
        _draw(folder / "progress.png", history)


def _draw(path: Path, history: list[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    steps = [entry["step"] for entry in history]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    loss_axes, score_axes, position_axes = figure.subplots(1, 3)
    for name in ("matching", "count", "tile_count"):
        loss_axes.plot(steps, [entry["loss"][name] for entry in history], label=name.replace("_", " "))
    loss_axes.set(xlabel="step", ylabel="loss per scene", yscale="log", title="Training loss")
    loss_axes.legend(frameon=False)
    for name in ("jaccard", "precision", "recall"):
        score_axes.plot(steps, [entry["validation"][name] for entry in history], label=name)
    score_axes.set(xlabel="step", ylim=(0, 1), title="Validation on unseen scenes")
    score_axes.legend(frameon=False)
    position_axes.plot(steps, [entry["validation"]["rmse_px"] for entry in history], label="position error (px)")
    position_axes.plot(steps, [entry["validation"]["pull"] for entry in history], label="error / stated precision")
    position_axes.axhline(1.0, color="0.7", linewidth=0.8)
    position_axes.set(xlabel="step", ylim=(0, 2), title="Precision")
    position_axes.legend(frameon=False)
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=100)
    part.replace(path)
