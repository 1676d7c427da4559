"""What to do about the errors that cost most, in sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from smlm_pb.evaluation.error_kinds import ERRORS

if TYPE_CHECKING:
    from smlm_pb.evaluation.error_budget import AttributeRow, ErrorBudget

#: Errors that would gain less than this are not worth a sentence.
_WORTH_TELLING = 0.01
#: Errors happen mostly to a quarter of the molecules when so many of them do.
_MOSTLY = 0.5

_LESS_CROWDED = "lower the activation laser, or use a model for higher densities"
_WORDS = {
    "missed": ("missing molecules costs", "longer exposure, more light, or a lower threshold"),
    "merged": ("merging costs", _LESS_CROWDED),
    "mislocalized": ("wrong places cost", "more light, fewer molecules at a time, or the right PSF width"),
    "satellite": ("second answers beside a molecule cost", "raise the threshold, or check the PSF width"),
    "duplicate": ("double answers to a molecule cost", "raise the threshold"),
    "false": ("answers to nothing cost", "raise the threshold, or check camera offset and gain"),
}


def advise(budget: ErrorBudget) -> list[str]:
    """One sentence per kind of error that costs a hundredth of the Jaccard index or more, the worst first.

    Where the errors are broken down by neighbour or photons, the sentence says to which molecules they happen mostly.

    Parameters
    ----------
    budget : ErrorBudget
        Of :func:`smlm_pb.evaluation.error_budget`.

    Returns
    -------
    list of str
    """
    worst = sorted(ERRORS, key=lambda kind: -budget.delta_jaccard[kind])
    return [_sentence(budget, kind) for kind in worst if budget.delta_jaccard[kind] >= _WORTH_TELLING]


def _sentence(budget: ErrorBudget, kind: str) -> str:
    costs, remedy = _WORDS[kind]
    gain = f"{budget.delta_jaccard[kind]:.2f}".lstrip("0")
    whom = ""
    near, dim = (_first_range(budget, name) for name in ("neighbour", "photons"))
    share_near, share_dim = (_share_of_first(budget, name, kind) for name in ("neighbour", "photons"))
    if near is not None and share_near > _MOSTLY and share_near >= share_dim:
        whom = f", mostly of molecules with a neighbour within {near.high:.0f} nm"
        remedy = _LESS_CROWDED if kind in ("missed", "mislocalized") else remedy
    elif dim is not None and share_dim > _MOSTLY:
        whom = f", mostly of molecules below {dim.high:.0f} e⁻"
        remedy = "longer exposure or more laser light" if kind in ("missed", "mislocalized") else remedy
    sentence = f"{costs} {gain} of the Jaccard index{whom}: {remedy}."
    return sentence[0].upper() + sentence[1:]


def _rows(budget: ErrorBudget, attribute: str) -> list[AttributeRow]:
    return [row for row in budget.attributes if row.attribute == attribute]


def _first_range(budget: ErrorBudget, attribute: str) -> AttributeRow | None:
    rows = _rows(budget, attribute)
    return rows[0] if len(rows) > 1 and math.isfinite(rows[0].high) else None


def _share_of_first(budget: ErrorBudget, attribute: str, kind: str) -> float:
    """Part of the errors that happen to the molecules of the lowest range."""
    counts = [row.counts[kind] for row in _rows(budget, attribute)]
    total = sum(counts)
    return counts[0] / total if len(counts) > 1 and total else 0.0
