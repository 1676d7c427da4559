"""What a run shows while it goes: a line in the terminal, and a figure file that is redrawn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from smlm_pb.errors import OutputError
from smlm_pb.formats.output import whole_file


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write the history to ``history.json`` and draw it to ``progress.png``.

    Parameters
    ----------
    folder : Path
        The run's folder.
    history : list of dict
        One entry per validation: ``step``, mean ``loss`` terms since the last one, ``validation`` scores.

    Raises
    ------
    OutputError
        When the folder cannot be written or the disk is full; the previous files stay.
    """
    try:
        with whole_file(folder / "history.json") as part:
            part.write_text(json.dumps(without_nan(history), indent=1), encoding="utf-8")
        if history:
            with whole_file(folder / "progress.png") as part:
                _draw(part, history)
    except OSError as error:
        raise OutputError(
            f"History in {folder} cannot be written ({error.strerror or error}): free some space and continue with "
            "resume=True; the last checkpoint is kept."
        ) from error


def without_nan(value: Any) -> Any:
    """JSON knows no NaN; null says the same."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drawn_terms(history: list[dict[str, Any]]) -> list[str]:
    """The method's own terms, in the order in which it names them."""
    names = dict.fromkeys(name for entry in history for name in entry["loss"])
    return [name for name in names if name not in ("total", "position", "photons", "background")]


def _draw(path: Path, history: list[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    steps = [entry["step"] for entry in history]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    loss_axes, score_axes, position_axes = figure.subplots(1, 3)
    lowest = math.inf
    for name in _drawn_terms(history):
        values = [entry["loss"].get(name, math.nan) for entry in history]
        lowest = min([lowest, *(value for value in values if math.isfinite(value))])
        loss_axes.plot(steps, values, label=name.replace("_", " "))
    # A likelihood of positions may be negative.
    scale = "log" if lowest > 0 else "symlog"
    loss_axes.set(xlabel="step", ylabel="loss per scene", yscale=scale, title="Training loss")
    if math.isfinite(lowest):  # before the first step there is no loss
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
    figure.savefig(path, dpi=100, format="png")
