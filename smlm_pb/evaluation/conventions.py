"""Whether both tables mean the same by x, y and frame.

Programs put the origin at the centre or at the corner of the first pixel, count frames from 0 or from 1, and
some call the rows x. A missing half pixel ruins every score while the image still looks right. This check tries
all usual mistakes on a sample of the predictions and says when one of them explains the data clearly better.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smlm_pb.evaluation.matching import positions

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]

#: Width of the kernel that says how well a prediction lies on a molecule: half-pixel steps must tell apart.
KERNEL_PX = 0.35
_SHIFTS_PX = (-1.0, -0.5, 0.0, 0.5, 1.0)
_FRAME_SHIFTS = (-1, 0, 1)
# 150 alternatives are tried; five standard errors keep the chance of a false alarm below 1 in 10 000.
_STANDARD_ERRORS = 5.0
_LEAST_GAIN = 0.05


@dataclass(frozen=True)
class ConventionCheck:
    """What would bring the predictions closest to the truth.

    Parameters
    ----------
    swap_xy : bool
        Whether x and y are exchanged.
    frame_shift : int
        Frames to add to the predictions.
    dx_px, dy_px : float
        Pixels to add to the predictions, after the exchange.
    agreement, best_agreement : float
        Mean kernel value from 0 to 1, as the tables are and after that correction.
    is_suspicious : bool
        Whether the correction is clearly better than none.
    """

    swap_xy: bool
    frame_shift: int
    dx_px: float
    dy_px: float
    agreement: float
    best_agreement: float
    is_suspicious: bool

    @property
    def message(self) -> str:
        """One line for the user; empty when nothing is wrong."""
        if not self.is_suspicious:
            return ""
        steps = ["exchanging x and y"] if self.swap_xy else []
        if self.frame_shift:
            steps.append(f"adding {self.frame_shift:+d} to their frames")
        if self.dx_px or self.dy_px:
            steps.append(f"moving them by ({self.dx_px:+g}, {self.dy_px:+g}) px in (x, y)")
        return (
            f"The predictions fit the truth better after {' and '.join(steps)} (agreement {self.agreement:.2f}"
            f" → {self.best_agreement:.2f}): {self._cause()}; check the format given for each file."
        )

    def _cause(self) -> str:
        if self.swap_xy:
            return "one of the files calls the rows x"
        if self.dx_px or self.dy_px:
            if abs(self.dx_px) == 0.5 and self.dx_px == self.dy_px:
                return "one of the files counts from the corner of the first pixel, the other from its centre"
            return "the files place their origin differently"
        return "one of the files counts frames from 1, the other from 0"


def check_conventions(
    pred: Localizations, truth: Localizations, *, max_molecules: int = 2000, seed: int = 0
) -> ConventionCheck:
    """Look for an exchanged axis, a shifted origin or a shifted frame number.

    Parameters
    ----------
    pred, truth : Localizations
        What was found and what was there.
    max_molecules : int
        Predictions to try; a random sample of this size where there are more.
    seed : int
        Seed of that sample.

    Returns
    -------
    ConventionCheck
        Unsuspicious where either table is empty or too small to say.
    """
    pred_fyx, truth_fyx = positions(pred), positions(truth)
    nothing = ConventionCheck(False, 0, 0.0, 0.0, 0.0, 0.0, False)
    if len(pred_fyx) < 10 or len(truth_fyx) < 10:
        return nothing
    if len(pred_fyx) > max_molecules:
        pred_fyx = np.random.default_rng(seed).permutation(pred_fyx)[:max_molecules]
    trials = list(itertools.product((False, True), _FRAME_SHIFTS, _SHIFTS_PX, _SHIFTS_PX))
    agreement = _agreements(pred_fyx, truth_fyx, trials)
    as_is = agreement[trials.index((False, 0, 0.0, 0.0))]
    best = int(np.argmax(agreement.mean(axis=1)))
    gain = agreement[best] - as_is
    standard_error = float(gain.std()) / np.sqrt(len(gain))
    is_suspicious = bool(gain.mean() > _LEAST_GAIN and gain.mean() > _STANDARD_ERRORS * standard_error)
    swap, frame_shift, dx, dy = trials[best]
    return ConventionCheck(swap, frame_shift, dx, dy, float(as_is.mean()), float(agreement[best].mean()), is_suspicious)


def _agreements(
    pred_fyx: FloatArray, truth_fyx: FloatArray, trials: list[tuple[bool, int, float, float]]
) -> FloatArray:
    """Kernel of the distance to the nearest molecule, for every trial and prediction (n_trials, n_pred)."""
    from scipy.spatial import cKDTree

    reach = 4 * KERNEL_PX
    stretch = np.array([4 * reach, 1.0, 1.0])
    tree = cKDTree(truth_fyx * stretch)
    moved = []
    for swap, frame_shift, dx, dy in trials:
        columns = [0, 2, 1] if swap else [0, 1, 2]
        moved.append(pred_fyx[:, columns] + (frame_shift, dy, dx))
    distance, _ = tree.query(np.concatenate(moved) * stretch, distance_upper_bound=reach)
    kernel = np.exp(-0.5 * (distance / KERNEL_PX) ** 2)  # beyond the reach the distance is infinite: 0
    return kernel.reshape(len(trials), len(pred_fyx))


def tell_unseen_frames(pred: Localizations, truth: Localizations) -> str | None:
    """Say which part of the truth lies in frames that were never localized; None where that is next to nothing.

    Parameters
    ----------
    pred, truth : Localizations
        What was found, whose history tells the frames that were looked at, and what is there.

    Returns
    -------
    str or None
    """
    step = pred.last_step("localize")
    start, stop = (step.get("conditions") or {}).get("frames") or (0, truth.info.n_frames)
    unseen = int(np.count_nonzero((truth["frame"] < start) | (truth["frame"] >= stop)))
    if unseen <= len(truth) / 100:
        return None
    return (
        f"Only frames {start} to {stop - 1} were localized: {unseen} of {len(truth)} molecules of the truth lie in "
        "others and count as missed; keep these frames of the truth only."
    )
