"""An evaluation as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smlm_pb.evaluation.assessment import Evaluation
    from smlm_pb.evaluation.scores import ToleranceScores

_HEADER = (
    ("tolerance", "nm"),
    ("J", ""),
    ("P", ""),
    ("R", ""),
    ("F1", ""),
    ("E", ""),
    ("chance J", ""),
    ("chance P", ""),
    ("skill", ""),
    ("RMSE xy", "nm"),
    ("RMSE x / y", "nm"),
    ("bias x / y", "nm"),
    ("pull sd x / y", "σ"),
    ("TP", ""),
    ("FP", ""),
    ("FN", ""),
)


def format_evaluation(evaluation: Evaluation) -> str:
    """Lay out an evaluation as a table with one row per tolerance, and what the reader must know below it."""
    rows = [[name for name, _ in _HEADER], [unit for _, unit in _HEADER]]
    rows += [_row(entry) for entry in evaluation.scores]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(2, "-" * sum(widths, 2 * (len(widths) - 1)))
    return "\n".join([_head(evaluation), "", *lines, *(f"Note: {note}" for note in evaluation.notes)])


def _head(evaluation: Evaluation) -> str:
    settings = evaluation.settings
    facts = [
        f"{evaluation.n_pred} predictions against {evaluation.n_truth} molecules",
        f"{evaluation.n_frames} frames",
        f"{_number(evaluation.density_per_um2, 2)} molecules/µm²",
        f"median neighbour {_number(evaluation.neighbour_nm, 0)} nm",
        f"{settings['matching']} matching",
    ]
    if settings["border_nm"]:
        facts.append(f"border {settings['border_nm']:g} nm ({settings['border_rule']})")
    if settings["min_photons"]:
        facts.append(f"truth from {settings['min_photons']:g} photons")
    if settings["n_rolls"]:
        facts.append(f"chance = same predictions in rolled frames ({settings['n_rolls']} rolls)")
    return "; ".join(facts) + "."


def _row(entry: ToleranceScores) -> list[str]:
    def pair(x: float, y: float, digits: int) -> str:
        return f"{_number(x, digits)} / {_number(y, digits)}"

    return [
        f"{entry.tolerance_nm:g}",
        *(_number(value, 3) for value in (entry.jaccard, entry.precision, entry.recall, entry.f1, entry.efficiency)),
        *(_number(value, 3) for value in (entry.chance_jaccard, entry.chance_precision, entry.skill)),
        _number(entry.rmse_xy_nm, 1),
        pair(entry.rmse_x_nm, entry.rmse_y_nm, 1),
        pair(entry.bias_x_nm, entry.bias_y_nm, 1),
        pair(entry.pull_std_x, entry.pull_std_y, 2),
        *(str(value) for value in (entry.true_positives, entry.false_positives, entry.false_negatives)),
    ]


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
