"""Every prediction and every true molecule gets one kind: right, or what went wrong with it.

After TIDE (Bolya et al., ECCV 2020), with distances instead of overlaps. Frame by frame:

1. One-to-one pairs within the tolerance, as many as possible: **found**.
2. A prediction left over within the tolerance of a molecule: **duplicate** (that molecule is taken: otherwise there
   would be one pair more).
3. Predictions left over are paired with molecules left over within a wider gate: **mislocalized**, on both sides.
4. A prediction left over within that gate of a molecule: **satellite**, a second answer to one that is explained.
5. Any other prediction: **false**.
6. A molecule left over: **merged** when a neighbour within the merge radius is explained by a prediction that lies
   within that radius of this molecule too; **missed** otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.evaluation.chance import within
from smlm_pb.evaluation.matching import Candidates, find_candidates, solve

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]
Kinds = npt.NDArray[Any]

#: Kinds of a prediction, and of a true molecule, that count as errors.
PRED_ERRORS = ("duplicate", "mislocalized", "satellite", "false")
TRUTH_ERRORS = ("mislocalized", "merged", "missed")
#: All errors in the order they are shown.
ERRORS = ("missed", "merged", "mislocalized", "satellite", "duplicate", "false")


@dataclass(frozen=True)
class ErrorKinds:
    """The kind of every row.

    Parameters
    ----------
    pred : str array (n_pred,)
        ``"found"``, ``"duplicate"``, ``"mislocalized"``, ``"satellite"``, ``"false"`` or ``"neutral"``.
    truth : str array (n_truth,)
        ``"found"``, ``"mislocalized"``, ``"merged"``, ``"missed"`` or ``"neutral"``.
    partner_of_pred : int array (n_pred,)
        The molecule a prediction is about: its pair, or the nearest one within the wider gate; −1 for none.
    pred_rows, truth_rows : int array (m,)
        The pairs that count as found.
    """

    pred: Kinds
    truth: Kinds
    partner_of_pred: IntArray
    pred_rows: IntArray
    truth_rows: IntArray

    def count(self, error: str) -> int:
        """Number of errors of one kind; a mislocalized pair counts once."""
        kinds = self.truth if error in TRUTH_ERRORS else self.pred
        return int(np.count_nonzero(kinds == error))


def classify(
    pred_fyx: FloatArray,
    truth_fyx: FloatArray,
    *,
    tolerance_px: float,
    gate_px: float,
    merge_px: float,
    pred_is_neutral: BoolArray,
    truth_is_neutral: BoolArray,
) -> ErrorKinds:
    """Tell what went wrong with every row.

    Parameters
    ----------
    pred_fyx, truth_fyx : array (n, 3)
        Frame, y, x; y and x in pixels.
    tolerance_px, gate_px, merge_px : float
        Distance of a right answer; distance up to which a prediction is about a molecule at all; distance of
        molecules that may be seen as one.
    pred_is_neutral, truth_is_neutral : bool array
        Rows that do not count. A molecule may still be paired; predictions within the tolerance of it do not count.

    Returns
    -------
    ErrorKinds
    """
    n_pred, n_truth = len(pred_fyx), len(truth_fyx)
    pred, truth = np.full(n_pred, "", "U12"), np.full(n_truth, "", "U12")
    near = find_candidates(pred_fyx, truth_fyx, max(tolerance_px, gate_px))
    inside = within(near, tolerance_px)
    chosen = solve(inside, "hungarian")
    pairs = inside.pred[chosen], inside.truth[chosen]
    pred[pairs[0]], truth[pairs[1]] = "found", "found"
    partner = _nearest(near, n_pred)
    partner[pairs[0]] = pairs[1]

    left = pred == ""
    duplicate = np.zeros(n_pred, bool)
    duplicate[inside.pred] = True
    pred[left & duplicate] = "duplicate"

    wide = _keep(near, (pred[near.pred] == "") & (truth[near.truth] == "") & ~truth_is_neutral[near.truth])
    again = solve(wide, "hungarian")
    pred[wide.pred[again]], truth[wide.truth[again]] = "mislocalized", "mislocalized"
    partner[wide.pred[again]] = wide.truth[again]

    left = pred == ""
    pred[left & (partner >= 0)] = "satellite"
    pred[left & (partner < 0)] = "false"
    truth[truth == ""] = "missed"
    truth[_merged(pred_fyx, truth_fyx, pred, truth, partner, merge_px)] = "merged"
    counts = ~truth_is_neutral[pairs[1]]
    _set_neutral(pred, truth, inside, pairs, pred_is_neutral, truth_is_neutral)
    return ErrorKinds(pred, truth, partner, pairs[0][counts], pairs[1][counts])


def _nearest(near: Candidates, n_pred: int) -> IntArray:
    """Nearest molecule of every prediction among the candidates; −1 for none."""
    nearest = np.full(n_pred, -1, np.intp)
    order = np.argsort(near.distance, kind="stable")[::-1]
    nearest[near.pred[order]] = near.truth[order]  # the last one written is the nearest
    return nearest


def _keep(candidates: Candidates, mask: BoolArray) -> Candidates:
    return Candidates(
        candidates.pred[mask],
        candidates.truth[mask],
        candidates.distance[mask],
        candidates.n_pred,
        candidates.n_truth,
    )


def _merged(
    pred_fyx: FloatArray, truth_fyx: FloatArray, pred: Kinds, truth: Kinds, partner: IntArray, merge_px: float
) -> BoolArray:
    """Molecules left over whose neighbour is explained by a prediction that is near them too."""
    explaining = np.flatnonzero((pred == "found") | (pred == "mislocalized"))
    missing = np.flatnonzero(truth == "missed")
    merged = np.zeros(len(truth), bool)
    near = find_candidates(pred_fyx[explaining], truth_fyx[missing], merge_px)
    molecule, explained = missing[near.truth], partner[explaining[near.pred]]
    apart = np.hypot(*(truth_fyx[molecule, 1:] - truth_fyx[explained, 1:]).T)
    merged[molecule[apart <= merge_px]] = True
    return merged


def _set_neutral(
    pred: Kinds,
    truth: Kinds,
    inside: Candidates,
    pairs: tuple[IntArray, IntArray],
    pred_is_neutral: BoolArray,
    truth_is_neutral: BoolArray,
) -> None:
    near_neutral = np.zeros(len(pred), bool)
    near_neutral[inside.pred[truth_is_neutral[inside.truth]]] = True
    alone = (pred != "found") & (pred != "mislocalized")
    pred[alone & (pred_is_neutral | near_neutral)] = "neutral"
    pred[pairs[0][truth_is_neutral[pairs[1]]]] = "neutral"
    truth[truth_is_neutral] = "neutral"
