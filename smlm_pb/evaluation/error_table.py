"""An error budget as text and as a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from smlm_pb.evaluation.error_kinds import ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from smlm_pb.evaluation.error_budget import AttributeRow, ErrorBudget

MEANING = {
    "missed": "molecules without any answer",
    "merged": "molecules swallowed by a neighbour's answer",
    "mislocalized": "answers beyond the tolerance of their molecule",
    "satellite": "surplus answers near a molecule that is explained",
    "duplicate": "surplus answers within the tolerance",
    "false": "answers far from any molecule",
}


def format_budget(budget: ErrorBudget) -> str:
    """Lay a budget out: what each error costs, broken down if asked, and what to do."""
    lines = [
        f"J {budget.jaccard:.3f}, efficiency {budget.efficiency:.3f}, RMSE {_number(budget.rmse_xy_nm, 1)} nm at "
        f"{budget.tolerance_nm:g} nm: {budget.true_positives} found, {budget.false_positives} false positives, "
        f"{budget.false_negatives} misses.",
        "Gains if errors of one kind alone were mended (they do not add up):",
        "",
        f"{'error':<13} {'count':>7} {'ΔJ':>7} {'ΔE':>7}  meaning",
    ]
    for kind in ERRORS:
        lines.append(
            f"{kind:<13} {budget.counts[kind]:>7} {budget.delta_jaccard[kind]:>7.3f} "
            f"{_number(budget.delta_efficiency[kind], 3):>7}  {MEANING[kind]}"
        )
    for kind, meaning in (("imprecise", "errors above the Cramér–Rao bound"), ("biased", "errors that depend on the")):
        extra = " place within the pixel" if kind == "biased" else ""
        lines.append(f"{kind:<13} {'':>7} {'':>7} {_number(budget.delta_efficiency[kind], 3):>7}  {meaning}{extra}")
    if budget.false_in_border:
        lines.append(f"{budget.false_in_border} of the false ones lie within {budget.fwhm_nm:.0f} nm of the border.")
    for attribute in dict.fromkeys(row.attribute for row in budget.attributes):
        lines += ["", *_attribute_lines([row for row in budget.attributes if row.attribute == attribute])]
    return "\n".join([*lines, "", *budget.advice()]).rstrip()


def budget_figure(budgets: Sequence[ErrorBudget]) -> Figure:
    """Draw the gain of the Jaccard index for every kind of error, one group of bars per tolerance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(len(budgets), 1)
    for k, budget in enumerate(budgets):
        places = [place + (k - (len(budgets) - 1) / 2) * width for place in range(len(ERRORS))]
        label = f"within {budget.tolerance_nm:g} nm: J = {budget.jaccard:.2f}"
        axes.bar(places, [budget.delta_jaccard[kind] for kind in ERRORS], width, label=label)
    axes.set_xticks(range(len(ERRORS)), ERRORS)
    axes.set_ylabel("gain of the Jaccard index if mended")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=max(len(budgets), 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _attribute_lines(rows: Sequence[AttributeRow]) -> list[str]:
    head = f"{'by ' + rows[0].attribute:<24} {'molecules':>9} " + " ".join(f"{kind:>13}" for kind in ERRORS)
    lines = [head]
    for row in rows:
        cells = " ".join(f"{row.counts[kind]:>6} {row.delta_jaccard[kind]:>+6.3f}" for kind in ERRORS)
        high = "" if row.high >= 1e8 else f"{row.high:.4g}"
        lines.append(f"{row.low:.4g} – {high}".ljust(24) + f" {row.n_truth:>9} {cells}")
    return lines


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
