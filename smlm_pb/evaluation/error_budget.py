"""What each kind of error costs: the Jaccard index and the efficiency that would be won if only it were mended.

Every figure answers one question on its own: all errors of one kind are mended, everything else stays. Figures of
several kinds do not add up, and must not be read as if they were mended one after the other: then whatever is mended
last would look most important.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.evaluation.conventions import tell_unseen_frames
from smlm_pb.evaluation.error_kinds import ERRORS, PRED_ERRORS, TRUTH_ERRORS, ErrorKinds, classify
from smlm_pb.evaluation.matching import check_tolerance, common_pixel_size_nm, positions
from smlm_pb.evaluation.scores import NAN, efficiency, is_in_border, is_too_dim, nan_to_none

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]

#: What errors can be broken down by: their name, and what it is.
ATTRIBUTES = {
    "photons": "photons of the molecule (e⁻)",
    "neighbour": "distance to the nearest other molecule (nm)",
    "background": "background under the molecule (e⁻/px)",
    "border": "distance to the border (nm)",
    "frame": "frame",
    "z": "axial position (nm)",
}


@dataclass(frozen=True)
class AttributeRow:
    """Errors whose molecule has an attribute in one range.

    Parameters
    ----------
    attribute : str
        Key of :data:`ATTRIBUTES`.
    low, high : float
        The range, ``low`` included.
    n_truth : int
        Molecules of the truth in it.
    counts : dict
        Errors of each kind.
    delta_jaccard : dict
        Gain of the Jaccard index *of the whole table* when these errors alone are mended.
    """

    attribute: str
    low: float
    high: float
    n_truth: int
    counts: dict[str, int]
    delta_jaccard: dict[str, float]


@dataclass(frozen=True)
class ErrorBudget:
    """The result of :func:`error_budget`.

    Parameters
    ----------
    tolerance_nm, fwhm_nm, gate_nm : float
        Distance of a right answer; merge radius; distance up to which a prediction is about a molecule.
    true_positives, false_positives, false_negatives : int
        As :func:`smlm_pb.evaluation.evaluate` counts them.
    jaccard, efficiency, rmse_xy_nm : float
        As measured.
    counts : dict
        Errors of each kind; ``mislocalized`` counts pairs.
    false_in_border : int
        False localizations within one FWHM of the border.
    delta_jaccard, delta_efficiency : dict
        Gains when one kind alone is mended. The efficiency also has ``imprecise`` (errors as small as the Cramér–Rao
        bound allows; needs photons, background and the PSF width) and ``biased`` (mean error for each position within
        the pixel removed); ``all`` mends every error, with the RMSE as it is.
    attributes : tuple of AttributeRow
        The errors broken down.
    kinds : ErrorKinds
        The kind of every row.
    """

    tolerance_nm: float
    fwhm_nm: float
    gate_nm: float
    true_positives: int
    false_positives: int
    false_negatives: int
    jaccard: float
    efficiency: float
    rmse_xy_nm: float
    counts: dict[str, int]
    false_in_border: int
    delta_jaccard: dict[str, float]
    delta_efficiency: dict[str, float]
    attributes: tuple[AttributeRow, ...]
    kinds: ErrorKinds

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the kind of every row."""
        plain = {name: nan_to_none(value) for name, value in vars(self).items() if name not in ("kinds", "attributes")}
        for name in ("delta_jaccard", "delta_efficiency"):
            plain[name] = {kind: nan_to_none(value) for kind, value in plain[name].items()}
        plain["attributes"] = [
            {name: nan_to_none(value) for name, value in vars(row).items()} for row in self.attributes
        ]
        for row in plain["attributes"]:
            row["delta_jaccard"] = {kind: nan_to_none(value) for kind, value in row["delta_jaccard"].items()}
        return plain

    def advice(self) -> list[str]:
        """What to do about the errors that cost most, the worst first."""
        from smlm_pb.evaluation.error_advice import advise

        return advise(self)

    def table(self) -> str:
        """Lay the budget out for people."""
        from smlm_pb.evaluation.error_table import format_budget

        return format_budget(self)

    def __str__(self) -> str:
        return self.table()


def error_budget(
    pred: Localizations,
    truth: Localizations,
    *,
    tolerance_nm: float = 50.0,
    fwhm_nm: float | None = None,
    border_nm: float = 0.0,
    min_photons: float = 0.0,
    by: Sequence[str] = (),
    n_bins: int = 4,
    pixel_size_nm: float | None = None,
) -> ErrorBudget:
    """Tell what each kind of error costs.

    Parameters
    ----------
    pred, truth : Localizations
        What was found and what was there.
    tolerance_nm : float
        Distance of a right answer.
    fwhm_nm : float, optional
        Full width at half maximum of the point-spread function: molecules closer than this may merge. When not given
        2.355 times the median ``psf_sigma_x``, or 250 nm where neither table has that column.
    border_nm, min_photons
        Molecules near the border or too dim are neutral, as in :func:`smlm_pb.evaluation.evaluate`.
    by : sequence of str
        Attributes to break the errors down by: photons, neighbour, background, border, frame, z.
    n_bins : int
        Ranges per attribute; they hold equally many molecules of the truth.
    pixel_size_nm : float, optional
        Edge of a camera pixel; needed where neither table knows it.

    Returns
    -------
    ErrorBudget

    Raises
    ------
    TableError
        When a column or the pixel size is needed and missing.
    ConfigurationError
        When an option is impossible.

    References
    ----------
    Bolya, Foley, Hays, Hoffman: TIDE, ECCV 2020.
    """
    by = (by,) if isinstance(by, str) else by
    pixel = common_pixel_size_nm(pred, truth, pixel_size_nm)
    check_tolerance(tolerance_nm)
    _check_options(by, n_bins, fwhm_nm)
    unseen = tell_unseen_frames(pred, truth)
    if unseen is not None:
        warnings.warn(unseen, UserWarning, stacklevel=2)
    fwhm = fwhm_nm or _fwhm_of(pred, truth, pixel)
    gate = max(fwhm, 1.5 * tolerance_nm)
    field = tuple(max(getattr(t.info, side) for t in (pred, truth)) for side in ("height", "width"))
    kinds = classify(
        positions(pred),
        positions(truth),
        tolerance_px=tolerance_nm / pixel,
        gate_px=gate / pixel,
        merge_px=fwhm / pixel,
        pred_is_neutral=is_in_border(pred, border_nm / pixel, field),
        truth_is_neutral=is_in_border(truth, border_nm / pixel, field) | is_too_dim(truth, min_photons),
    )
    counts = {error: kinds.count(error) for error in ERRORS}
    tp = len(kinds.pred_rows)
    fp = int(np.isin(kinds.pred, PRED_ERRORS).sum())
    fn = int(np.isin(kinds.truth, TRUTH_ERRORS).sum())
    assert fp == sum(counts[kind] for kind in PRED_ERRORS), "every false positive has one kind"
    assert fn == sum(counts[kind] for kind in TRUTH_ERRORS), "every false negative has one kind"

    errors_nm = _errors_nm(pred, truth, kinds, pixel)
    rmse = float(np.sqrt((errors_nm**2).sum(axis=1).mean())) if tp else NAN
    jaccard = tp / (tp + fp + fn) if tp + fp + fn else NAN
    gains = {error: mended_jaccard(error, counts[error], tp, fp, fn) - jaccard for error in ERRORS}
    delta_efficiency = {
        kind: efficiency(jaccard + gain, rmse) - efficiency(jaccard, rmse) for kind, gain in gains.items()
    }
    delta_efficiency["imprecise"] = _gain_of_precision(truth, kinds, jaccard, rmse, fwhm / 2.3548, pixel)
    delta_efficiency["biased"] = _gain_of_unbias(truth, kinds, errors_nm, jaccard, rmse)
    delta_efficiency["all"] = efficiency(1.0, rmse) - efficiency(jaccard, rmse)
    false_rows = pred.select(kinds.pred == "false")
    return ErrorBudget(
        tolerance_nm=float(tolerance_nm),
        fwhm_nm=float(fwhm),
        gate_nm=float(gate),
        true_positives=tp,
        false_positives=fp,
        false_negatives=fn,
        jaccard=jaccard,
        efficiency=efficiency(jaccard, rmse),
        rmse_xy_nm=rmse,
        counts=counts,
        false_in_border=int(is_in_border(false_rows, min(fwhm / pixel, min(field) / 2.01), field).sum()),
        delta_jaccard={
            **gains,
            "all false positives": mended_jaccard("false", fp, tp, fp, fn) - jaccard,
            "all misses": mended_jaccard("missed", fn, tp, fp, fn) - jaccard,
        },
        delta_efficiency=delta_efficiency,
        attributes=_break_down(pred, truth, kinds, by, n_bins, (tp, fp, fn), field, pixel),
        kinds=kinds,
    )


def mended_jaccard(error: str, n: int, true_positives: int, false_positives: int, false_negatives: int) -> float:
    """Jaccard index when ``n`` errors of one kind are mended, in closed form.

    A mislocalized pair becomes a right one; a missed or merged molecule is found; a surplus prediction disappears.
    Where nothing is there and mending leaves nothing that is claimed, the answer is perfect: 1.
    """
    tp, fp, fn = true_positives, false_positives, false_negatives
    if error == "mislocalized":
        tp, fp, fn = tp + n, fp - n, fn - n
    elif error in TRUTH_ERRORS:
        tp, fn = tp + n, fn - n
    else:
        fp -= n
    return tp / (tp + fp + fn) if tp + fp + fn else 1.0


def _errors_nm(pred: Localizations, truth: Localizations, kinds: ErrorKinds, pixel: float) -> FloatArray:
    """Errors (m, 2) along x and y of what was found."""
    return np.stack(
        [
            (pred[axis][kinds.pred_rows].astype(np.float64) - truth[axis][kinds.truth_rows]) * pixel
            for axis in ("x", "y")
        ],
        axis=1,
    )


def _gain_of_precision(
    truth: Localizations, kinds: ErrorKinds, jaccard: float, rmse: float, sigma_nm: float, pixel: float
) -> float:
    """Gain of efficiency if every found molecule were as precise as the Cramér–Rao bound, neighbours included."""
    rows = kinds.truth_rows
    if not len(rows) or "photons" not in truth or "background" not in truth:
        return NAN
    if not ((truth["photons"] > 0).all() and (truth["background"] >= 0).all()):
        return NAN
    from smlm_pb.refinement.crlb import crlb_table

    bound = crlb_table(truth["frame"], truth["x"], truth["y"], truth["photons"], truth["background"], sigma_nm / pixel)
    squared = (bound.sigma_x[rows] ** 2 + bound.sigma_y[rows] ** 2) * pixel**2
    # In the thick of a crowd the bound is larger than what the tolerance lets through.
    best = float(np.sqrt(np.mean(np.minimum(squared, rmse**2))))
    return efficiency(jaccard, best) - efficiency(jaccard, rmse)


def _gain_of_unbias(
    truth: Localizations, kinds: ErrorKinds, errors_nm: FloatArray, jaccard: float, rmse: float
) -> float:
    """Gain of efficiency if the mean error of every place within the pixel were removed.

    The mean of a bin is taken without the molecule itself; otherwise few molecules per bin would seem biased.
    """
    n = len(errors_nm)
    if n < 50:
        return NAN
    side = int(np.clip(math.sqrt(n / 50), 1, 10))
    place = []
    for axis in ("x", "y"):
        position = truth[axis][kinds.truth_rows].astype(np.float64)
        place.append(np.minimum(((position - np.floor(position + 0.5) + 0.5) * side).astype(np.intp), side - 1))
    which = place[0] * side + place[1]
    count = np.bincount(which, minlength=side**2)[which]
    squared = 0.0
    for k in (0, 1):
        total = np.bincount(which, errors_nm[:, k], side**2)[which]
        others = np.divide(total - errors_nm[:, k], count - 1, out=np.zeros(n), where=count > 1)
        squared += float(np.mean((errors_nm[:, k] - others) ** 2))
    return max(efficiency(jaccard, min(math.sqrt(squared), rmse)) - efficiency(jaccard, rmse), 0.0)


def _break_down(
    pred: Localizations,
    truth: Localizations,
    kinds: ErrorKinds,
    by: Sequence[str],
    n_bins: int,
    totals: tuple[int, int, int],
    field: tuple[int, ...],
    pixel: float,
) -> tuple[AttributeRow, ...]:
    rows = []
    tp, fp, fn = totals
    jaccard = tp / (tp + fp + fn) if tp + fp + fn else NAN
    for attribute in by:
        of_truth = _attribute(truth, attribute, field, pixel, None)
        of_pred = _attribute(pred, attribute, field, pixel, truth)
        # A prediction that is about a molecule has the attribute of that molecule.
        about = kinds.partner_of_pred >= 0
        of_pred[about] = of_truth[kinds.partner_of_pred[about]]
        known = of_truth[np.isfinite(of_truth) & (kinds.truth != "neutral")]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, n_bins + 1))) if len(known) else np.zeros(1)
        if len(edges) == 1:
            edges = np.repeat(edges, 2)
        # Predictions may lie beyond all molecules of the truth; they belong to the outermost ranges.
        bounds = [-np.inf, *edges[1:-1], np.inf]
        for k, (low, high) in enumerate(itertools.pairwise(bounds)):
            in_truth, in_pred = (of_truth >= low) & (of_truth < high), (of_pred >= low) & (of_pred < high)
            counts = {
                error: int(
                    np.count_nonzero((kinds.truth[in_truth] if error in TRUTH_ERRORS else kinds.pred[in_pred]) == error)
                )
                for error in ERRORS
            }
            rows.append(
                AttributeRow(
                    attribute=attribute,
                    low=float(edges[k]),
                    high=float(edges[k + 1]),
                    n_truth=int(np.count_nonzero(in_truth & (kinds.truth != "neutral"))),
                    counts=counts,
                    delta_jaccard={e: mended_jaccard(e, n, tp, fp, fn) - jaccard for e, n in counts.items()},
                )
            )
    return tuple(rows)


def _attribute(
    locs: Localizations, name: str, field: tuple[int, ...], pixel: float, neighbours_in: Localizations | None
) -> FloatArray:
    """Values of an attribute for every row; NaN where a prediction does not know it."""
    from scipy.spatial import cKDTree

    n = len(locs)
    if name == "border":
        edges = [np.minimum(locs[a] + 0.5, size - 0.5 - locs[a]) for a, size in zip("yx", field, strict=True)]
        return np.asarray(np.minimum(*edges) * pixel, np.float64)
    if name == "neighbour":
        others = locs if neighbours_in is None else neighbours_in
        rank = 2 if neighbours_in is None else 1
        if n == 0 or len(others) < rank:
            return np.full(n, np.inf)
        # Frames lie farther apart than the field is wide, so that only the same frame is near.
        stretch = np.array([4.0 * (max(field) + 1), 1, 1])
        distance = cKDTree(positions(others) * stretch).query(positions(locs) * stretch, k=[rank])[0][:, 0]
        return np.asarray(np.where(distance < stretch[0] / 2, distance * pixel, 1e9), np.float64)
    if name not in locs:
        if neighbours_in is None:
            raise TableError(f"The truth has no column {name}, so errors cannot be broken down by it.")
        return np.full(n, NAN)
    return locs[name].astype(np.float64)


def _fwhm_of(pred: Localizations, truth: Localizations, pixel: float) -> float:
    for table in (truth, pred):
        if "psf_sigma_x" in table and len(table):
            width = float(np.median(table["psf_sigma_x"]))
            if math.isfinite(width) and width > 0:
                return 2.3548 * width * pixel
    return 250.0


def _check_options(by: Sequence[str], n_bins: int, fwhm_nm: float | None) -> None:
    unknown = [name for name in by if name not in ATTRIBUTES]
    if unknown:
        raise ConfigurationError(f"Unknown attribute {unknown[0]!r}; choose from {', '.join(ATTRIBUTES)}.")
    if n_bins < 1:
        raise ConfigurationError(f"n_bins = {n_bins} is impossible; give 1 or more.")
    if fwhm_nm is not None and not (math.isfinite(fwhm_nm) and fwhm_nm > 0):
        raise ConfigurationError(f"fwhm_nm = {fwhm_nm} is impossible; give nm above 0, e.g. 250.")
