"""The figures of one comparison at one tolerance, and how they are counted.

``E`` is the efficiency of the SMLM challenge, ``1 − √((1 − J)² + (α·RMSE)²)`` with α = 1 % per nm and the 2-D
RMSE. A root mean square error inside a tolerance is truncated by it: errors spread evenly over the disk give
``tolerance / √2``, so a value near that says nothing. ``mad_nm`` is the challenge's mean of ``|dx| + |dy|``;
``mean_distance_nm`` is what ThunderSTORM calls "RMSE lateral".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError, TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

#: Lateral weight of the efficiency, per nm (Sage et al. 2019: 1 % per nm).
EFFICIENCY_PER_NM = 0.01

NAN = float("nan")


@dataclass(frozen=True)
class ToleranceScores:
    """How well a prediction agrees with the truth at one tolerance.

    Counts, rates from 0 to 1, errors in nm (prediction minus truth), pulls in units of the reported
    precision. A figure that cannot be computed is NaN (``None`` in :meth:`as_dict`).
    """

    tolerance_nm: float
    true_positives: int
    false_positives: int
    false_negatives: int
    precision: float
    recall: float
    f1: float
    jaccard: float
    efficiency: float
    rmse_xy_nm: float
    rmse_x_nm: float
    rmse_y_nm: float
    rmse_z_nm: float
    bias_x_nm: float
    bias_y_nm: float
    median_dx_nm: float
    median_dy_nm: float
    mad_nm: float
    mean_distance_nm: float
    pull_mean_x: float
    pull_std_x: float
    pull_mean_y: float
    pull_std_y: float
    photon_ratio: float
    chance_jaccard: float
    chance_precision: float
    chance_recall: float
    skill: float
    truth_pairs_closer: int

    @property
    def error_is_gate_limited(self) -> bool:
        """Whether the RMSE is so close to that of a uniform disk that it only measures the tolerance."""
        return self.rmse_xy_nm > 0.85 * self.tolerance_nm / math.sqrt(2)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; NaN becomes ``None`` so that the result is valid JSON."""
        return {name: nan_to_none(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class CountingRule:
    """Which rows count.

    A *neutral* molecule may be paired, but the pair is neither right nor wrong; left alone it is no miss.
    A neutral prediction that stays alone is no false positive.

    Parameters
    ----------
    pred_is_neutral, truth_is_neutral : bool array
        One value per row.
    """

    pred_is_neutral: BoolArray
    truth_is_neutral: BoolArray

    def count(self, pred_rows: npt.NDArray[np.intp], truth_rows: npt.NDArray[np.intp]) -> tuple[int, int, int]:
        """Count true positives, false positives and false negatives of a matching."""
        pred_alone = ~self.pred_is_neutral
        truth_alone = ~self.truth_is_neutral
        true_positives = int(np.count_nonzero(~self.truth_is_neutral[truth_rows]))
        pred_alone[pred_rows] = False
        truth_alone[truth_rows] = False
        return true_positives, int(np.count_nonzero(pred_alone)), int(np.count_nonzero(truth_alone))


def rates(true_positives: float, false_positives: float, false_negatives: float) -> tuple[float, float, float, float]:
    """Precision, recall, F1 and Jaccard index; NaN where nothing was there to count."""

    def ratio(part: float, whole: float) -> float:
        return part / whole if whole else NAN

    tp, fp, fn = true_positives, false_positives, false_negatives
    return ratio(tp, tp + fp), ratio(tp, tp + fn), ratio(2 * tp, 2 * tp + fp + fn), ratio(tp, tp + fp + fn)


def efficiency(jaccard: float, rmse_xy_nm: float) -> float:
    """Efficiency of the SMLM challenge from the Jaccard index and the 2-D RMSE: 1 is perfect."""
    return 1.0 - math.hypot(1.0 - jaccard, EFFICIENCY_PER_NM * rmse_xy_nm)


def error_figures(pred: Localizations, truth: Localizations, pixel_size_nm: float) -> dict[str, float]:
    """Errors and pulls of matched rows.

    Parameters
    ----------
    pred, truth : Localizations
        Row ``k`` of one belongs to row ``k`` of the other.
    pixel_size_nm : float
        Edge of a camera pixel.

    Returns
    -------
    dict
        The fields of :class:`ToleranceScores` from ``rmse_xy_nm`` to ``photon_ratio``.
    """
    error_px = {axis: pred[axis].astype(np.float64) - truth[axis].astype(np.float64) for axis in "xy"}
    dx, dy = error_px["x"] * pixel_size_nm, error_px["y"] * pixel_size_nm
    figures = {
        "rmse_xy_nm": _rms(np.hypot(dx, dy)),
        "rmse_x_nm": _rms(dx),
        "rmse_y_nm": _rms(dy),
        "rmse_z_nm": NAN,
        "bias_x_nm": _mean(dx),
        "bias_y_nm": _mean(dy),
        "median_dx_nm": float(np.median(dx)) if dx.size else NAN,
        "median_dy_nm": float(np.median(dy)) if dy.size else NAN,
        "mad_nm": _mean(np.abs(dx) + np.abs(dy)),
        "mean_distance_nm": _mean(np.hypot(dx, dy)),
        "photon_ratio": NAN,
    }
    for axis in "xy":
        pull = pulls(error_px[axis], pred[f"sigma_{axis}"]) if f"sigma_{axis}" in pred else np.zeros(0)
        figures[f"pull_mean_{axis}"] = _mean(pull)
        figures[f"pull_std_{axis}"] = float(np.std(pull)) if pull.size > 1 else NAN
    if "z" in pred and "z" in truth:
        figures["rmse_z_nm"] = _rms(pred["z"].astype(np.float64) - truth["z"].astype(np.float64))
    if "photons" in pred and "photons" in truth and len(pred):
        true_photons = truth["photons"].astype(np.float64)
        known = true_photons > 0
        if known.any():
            figures["photon_ratio"] = float(np.median(pred["photons"][known] / true_photons[known]))
    return figures


def pulls(error_px: FloatArray, sigma_px: npt.ArrayLike) -> FloatArray:
    """Errors in units of the reported precision; rows that report none (0 or not finite) are left out."""
    sigma = np.asarray(sigma_px, dtype=np.float64)
    usable = np.isfinite(sigma) & (sigma > 0)
    return error_px[usable] / sigma[usable]


def is_in_border(locs: Localizations, border_px: float, field_px: Sequence[int]) -> BoolArray:
    """Rows closer than ``border_px`` to the edge of the field of view of ``(height, width)`` pixels."""
    if border_px <= 0:
        return np.zeros(len(locs), bool)
    inside = np.ones(len(locs), bool)
    for axis, size in zip("yx", field_px, strict=True):
        if 2 * border_px >= size:
            raise ConfigurationError(
                f"A border of {border_px:g} px leaves nothing of a field of {size} px; give a smaller border_nm."
            )
        from_edge = locs[axis].astype(np.float64) + 0.5  # the first pixel begins at −0.5
        inside &= (from_edge >= border_px) & (from_edge <= size - border_px)
    return ~inside


def is_too_dim(truth: Localizations, min_photons: float) -> BoolArray:
    """Molecules of the truth with fewer photons than asked for."""
    if min_photons <= 0:
        return np.zeros(len(truth), bool)
    if "photons" not in truth:
        raise TableError("min_photons needs the column photons in the truth, which has none; leave min_photons at 0.")
    return np.asarray(truth["photons"] < min_photons)


def nan_to_none(value: Any) -> Any:
    """``None`` for a number that is not finite, otherwise the value itself."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else NAN


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else NAN
