"""Whether the probabilities and the precisions can be believed.

*Reliability*: of the molecules reported with probability 0.8, do 80 % exist? A prediction exists when there is a true
molecule for it that no likelier prediction stands for. *Pull*: is the error divided by the reported precision of unit
width, at every density? With calibrated probabilities the Jaccard index of any threshold follows without truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.evaluation.matching import Matching, common_pixel_size_nm, match, match_likeliest, positions
from smlm_pb.evaluation.scores import NAN, nan_to_none, pulls

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Reported probability against observed frequency.

    Parameters
    ----------
    bin_edges : array (n_bins + 1,)
        Edges of the probability bins.
    mean_probability, observed : array (n_bins,)
        Mean reported probability and fraction of predictions that exist; NaN in empty bins.
    count : int array (n_bins,)
        Predictions per bin.
    expected_calibration_error : float
        Mean of |observed − reported| over the predictions (Naeini et al. 2015).
    brier : float
        Mean of (probability − existence)².
    expected_true, true : float
        Sum of the probabilities, and number of predictions that exist: equal when calibrated.
    tolerance_nm : float
        Distance up to which a prediction counts as existing.
    """

    bin_edges: FloatArray
    mean_probability: FloatArray
    observed: FloatArray
    count: npt.NDArray[np.intp]
    expected_calibration_error: float
    brier: float
    expected_true: float
    true: int
    tolerance_nm: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes ``None``."""
        return plain_fields(vars(self))


@dataclass(frozen=True)
class PullByDensity:
    """Width of error / reported precision, by the density around the molecule.

    Parameters
    ----------
    density_edges_per_um2 : array (n_bins + 1,)
        Edges of the bins of local density: other true molecules of the frame within ``radius_nm``, per µm².
    count : int array (n_bins,)
        Matched molecules per bin.
    mean_x, mean_y, std_x, std_y : array (n_bins,)
        Mean and standard deviation of the pull; 0 and 1 when calibrated; NaN in bins with fewer than 2.
    rmse_nm, reported_nm : array (n_bins,)
        Root mean square error per axis, and root mean square of the reported precision.
    radius_nm, tolerance_nm : float
        As given.
    """

    density_edges_per_um2: FloatArray
    count: npt.NDArray[np.intp]
    mean_x: FloatArray
    mean_y: FloatArray
    std_x: FloatArray
    std_y: FloatArray
    rmse_nm: FloatArray
    reported_nm: FloatArray
    radius_nm: float
    tolerance_nm: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes ``None``."""
        return plain_fields(vars(self))


def reliability(
    pred: Localizations,
    truth: Localizations,
    *,
    tolerance_nm: float = 100.0,
    n_bins: int = 10,
    pixel_size_nm: float | None = None,
) -> Reliability:
    """Compare reported probabilities with what exists, from the likeliest prediction down.

    Parameters
    ----------
    pred, truth : Localizations
        The prediction needs the column ``probability``; it should reach down to small probabilities.
    tolerance_nm : float
        Distance up to which a prediction counts as existing. Small tolerances also ask for precision.
    n_bins : int
        Equally wide bins of probability.
    pixel_size_nm : float, optional
        See :func:`smlm_pb.evaluation.match_likeliest`.

    Returns
    -------
    Reliability

    Raises
    ------
    TableError
        When there is no column ``probability``, or a value outside 0 to 1.
    """
    probability = checked_probability(pred)
    if n_bins < 1:
        raise ConfigurationError(f"n_bins = {n_bins} is impossible; give 1 or more.")
    exists = np.zeros(len(pred), bool)
    exists[match_likeliest(pred, truth, tolerance_nm, pixel_size_nm=pixel_size_nm).pred] = True
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    which = np.minimum((probability * n_bins).astype(np.intp), n_bins - 1)
    count = np.bincount(which, minlength=n_bins)
    reported = _per_bin(np.bincount(which, weights=probability, minlength=n_bins), count)
    observed = _per_bin(np.bincount(which, weights=exists, minlength=n_bins), count)
    filled = count > 0
    gap = np.abs(observed[filled] - reported[filled])
    return Reliability(
        bin_edges=edges,
        mean_probability=reported,
        observed=observed,
        count=count,
        expected_calibration_error=float(np.average(gap, weights=count[filled])) if len(pred) else NAN,
        brier=float(np.mean((probability - exists) ** 2)) if len(pred) else NAN,
        expected_true=float(probability.sum()),
        true=int(exists.sum()),
        tolerance_nm=float(tolerance_nm),
    )


def pull_by_density(
    pred: Localizations,
    truth: Localizations,
    *,
    tolerance_nm: float = 250.0,
    radius_nm: float = 500.0,
    density_edges_per_um2: Sequence[float] = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, np.inf),
    matching: Matching = "hungarian",
    pixel_size_nm: float | None = None,
) -> PullByDensity:
    """Width of the pull for molecules in ever more crowded surroundings.

    Parameters
    ----------
    pred, truth : Localizations
        The prediction needs ``sigma_x`` and ``sigma_y``.
    tolerance_nm : float
        Matching distance; wide, since a narrow one cuts the errors and flatters the pull.
    radius_nm : float
        Radius of the disk in which other true molecules of the frame are counted.
    density_edges_per_um2 : sequence of float
        Edges of the bins, ascending.
    matching, pixel_size_nm
        See :func:`smlm_pb.evaluation.match`.

    Returns
    -------
    PullByDensity

    Raises
    ------
    TableError
        When a column is missing.
    ConfigurationError
        When the edges do not ascend or the radius is impossible.
    """
    pixel = common_pixel_size_nm(pred, truth, pixel_size_nm)
    edges = np.asarray(density_edges_per_um2, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ConfigurationError("density_edges_per_um2 must be at least two ascending numbers, e.g. (0, 1, 2, 4).")
    pairs = match(pred, truth, tolerance_nm, matching, pixel_size_nm=pixel)
    density = local_density_per_um2(truth, radius_nm, pixel)[pairs.truth]
    which = np.digitize(density, edges) - 1
    n_bins = len(edges) - 1
    figures = {name: np.full(n_bins, NAN) for name in ("mean_x", "mean_y", "std_x", "std_y", "rmse_nm", "reported_nm")}
    for b in range(n_bins):
        here = which == b
        if np.count_nonzero(here) < 2:
            continue
        squared_error, squared_sigma = 0.0, 0.0
        for axis in "xy":
            error = pred[axis][pairs.pred[here]].astype(np.float64) - truth[axis][pairs.truth[here]]
            sigma = pred[f"sigma_{axis}"][pairs.pred[here]].astype(np.float64)
            pull = pulls(error, sigma)
            figures[f"mean_{axis}"][b] = pull.mean() if pull.size else NAN
            figures[f"std_{axis}"][b] = pull.std() if pull.size else NAN
            squared_error += float(np.mean(error**2)) / 2
            squared_sigma += float(np.mean(sigma**2)) / 2
        figures["rmse_nm"][b] = np.sqrt(squared_error) * pixel
        figures["reported_nm"][b] = np.sqrt(squared_sigma) * pixel
    inside = which[(which >= 0) & (which < n_bins)]
    return PullByDensity(
        density_edges_per_um2=edges,
        count=np.bincount(inside, minlength=n_bins),
        radius_nm=float(radius_nm),
        tolerance_nm=float(tolerance_nm),
        **figures,
    )


def local_density_per_um2(truth: Localizations, radius_nm: float, pixel_size_nm: float) -> FloatArray:
    """Other molecules of the same frame within a radius, per µm² of that disk, for every row."""
    from scipy.spatial import cKDTree

    if not (np.isfinite(radius_nm) and radius_nm > 0):
        raise ConfigurationError(f"radius_nm = {radius_nm} is impossible; give nm above 0, e.g. 500.")
    if not len(truth):
        return np.zeros(0)
    radius_px = radius_nm / pixel_size_nm
    points = positions(truth) * (4 * radius_px, 1.0, 1.0)
    others = cKDTree(points).query_ball_point(points, radius_px, return_length=True) - 1
    return np.asarray(others / (np.pi * (radius_nm * 1e-3) ** 2), dtype=np.float64)


def expected_jaccard(locs: Localizations, threshold: npt.ArrayLike) -> FloatArray | float:
    """Jaccard index at a threshold as the probabilities themselves promise it; no truth is needed.

    With calibrated probabilities the expected number of molecules is the sum of all of them, and the expected
    true positives are the sum of those at or above the threshold. The table must therefore hold every
    candidate down to a negligible probability.

    Parameters
    ----------
    locs : Localizations
        With the column ``probability``.
    threshold : float or array (n,)
        Smallest probability that is kept.

    Returns
    -------
    float, or array as long as ``threshold``
        NaN for an empty table.
    """
    probability = np.sort(checked_probability(locs))[::-1]
    total = float(probability.sum())
    running = np.concatenate([[0.0], np.cumsum(probability)])
    kept = np.searchsorted(-probability, -np.atleast_1d(np.asarray(threshold, dtype=np.float64)), side="right")
    union = kept + total - running[kept]
    jaccard = np.divide(running[kept], union, out=np.full(len(kept), NAN), where=union > 0)
    return float(jaccard[0]) if np.ndim(threshold) == 0 else jaccard


def checked_probability(locs: Localizations) -> FloatArray:
    """Return the column ``probability`` as float64; refuse it where it is missing or outside 0 to 1."""
    if "probability" not in locs:
        raise TableError("The prediction has no column probability, so its calibration cannot be judged.")
    probability = locs["probability"].astype(np.float64)
    if len(probability) and not (probability.min() >= 0 and probability.max() <= 1):
        raise TableError(
            f"Column probability reaches from {probability.min():g} to {probability.max():g}; it must lie in 0 to 1."
        )
    return probability


def _per_bin(total: npt.NDArray[Any], count: npt.NDArray[np.intp]) -> FloatArray:
    return np.divide(total, count, out=np.full(len(count), NAN), where=count > 0)


def plain_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Arrays as lists and NaN as ``None``, for JSON."""

    def plain(value: Any) -> Any:
        return [nan_to_none(v) for v in value.tolist()] if isinstance(value, np.ndarray) else nan_to_none(value)

    return {name: plain(value) for name, value in fields.items()}
