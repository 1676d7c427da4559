"""Compare a table of molecules with the known truth."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from smlm_pb.errors import ConfigurationError
from smlm_pb.evaluation.chance import chance_rates, within
from smlm_pb.evaluation.conventions import ConventionCheck, check_conventions, tell_unseen_frames
from smlm_pb.evaluation.matching import (
    Candidates,
    Matching,
    check_tolerance,
    common_pixel_size_nm,
    find_candidates,
    positions,
    solve,
)
from smlm_pb.evaluation.scores import (
    NAN,
    CountingRule,
    ToleranceScores,
    efficiency,
    error_figures,
    is_in_border,
    is_too_dim,
    nan_to_none,
    rates,
)

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

BorderRule = Literal["neutral", "exclude"]
DEFAULT_TOLERANCES_NM = (25.0, 50.0, 100.0, 250.0)


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Parameters
    ----------
    scores : tuple of ToleranceScores
        One entry per tolerance, ascending.
    settings : dict
        How it was computed: matching, border, photon threshold, pixel size, rolls of the chance level.
    n_pred, n_truth : int
        Rows that count (neither in the border nor too dim).
    n_frames : int
        Frames of the movie.
    density_per_um2 : float
        True molecules that count, per frame and µm² of the field of view.
    neighbour_nm : float
        Median distance of a true molecule to its nearest neighbour in the same frame.
    convention : ConventionCheck or None
        Outcome of the check for a shifted origin, exchanged axes or shifted frames.
    notes : tuple of str
        What the reader must know, one line each.
    """

    scores: tuple[ToleranceScores, ...]
    settings: dict[str, Any]
    n_pred: int
    n_truth: int
    n_frames: int
    density_per_um2: float
    neighbour_nm: float
    convention: ConventionCheck | None
    notes: tuple[str, ...]

    def at(self, tolerance_nm: float) -> ToleranceScores:
        """Return the scores at one tolerance."""
        for entry in self.scores:
            if abs(entry.tolerance_nm - tolerance_nm) < 1e-9:
                return entry
        known = ", ".join(f"{entry.tolerance_nm:g}" for entry in self.scores)
        raise ConfigurationError(f"No scores at {tolerance_nm:g} nm; computed were {known} nm.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a figure that cannot be computed is ``None``."""
        return {
            "scores": [entry.as_dict() for entry in self.scores],
            "settings": dict(self.settings),
            "n_pred": self.n_pred,
            "n_truth": self.n_truth,
            "n_frames": self.n_frames,
            "density_per_um2": nan_to_none(self.density_per_um2),
            "neighbour_nm": nan_to_none(self.neighbour_nm),
            "convention": None if self.convention is None else dict(vars(self.convention)),
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """Lay the scores out as a table for people."""
        from smlm_pb.evaluation.table import format_evaluation

        return format_evaluation(self)

    def __str__(self) -> str:
        return self.table()


def evaluate(
    pred: Localizations,
    truth: Localizations,
    *,
    tolerance_nm: float | Sequence[float] = DEFAULT_TOLERANCES_NM,
    matching: Matching = "hungarian",
    border_nm: float = 0.0,
    border_rule: BorderRule = "neutral",
    min_photons: float = 0.0,
    chance: bool = True,
    n_rolls: int = 3,
    check: bool = True,
    pixel_size_nm: float | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score a prediction against the truth at several tolerances.

    Parameters
    ----------
    pred, truth : Localizations
        What was found and what was there; both with the centre of the first pixel at 0.
    tolerance_nm : float or sequence of float
        Lateral distances up to which a prediction may belong to a molecule.
    matching : {"hungarian", "greedy"}
        See :func:`smlm_pb.evaluation.match`.
    border_nm : float
        Margin of the field of view that does not count; the challenge of 2016 uses 450.
    border_rule : {"neutral", "exclude"}
        ``"neutral"``: molecules in the margin may be paired, but neither they nor what is paired with them
        count. ``"exclude"``: rows in the margin are removed before pairing, as the challenge does; a molecule
        and its prediction on either side of the line then become a miss and a false positive.
    min_photons : float
        Molecules of the truth with fewer photons are neutral, as in the challenge.
    chance : bool
        Whether to compute what the prediction scores with its frames rolled.
    n_rolls : int
        Rolls that are averaged for it.
    check : bool
        Whether to look for mistaken conventions (a warning says what was found).
    pixel_size_nm : float, optional
        Edge of a camera pixel; needed where neither table knows it.
    seed : int
        Seed of the rolls and of the sample for the check.

    Returns
    -------
    Evaluation

    Raises
    ------
    TableError
        When the pixel size is unknown or contradictory, or photons are asked for and missing.
    ConfigurationError
        When an option is impossible.

    Warns
    -----
    UserWarning
        When another convention fits clearly better, or the prediction goes on after the truth ends.

    References
    ----------
    Sage et al., Nature Methods 16, 387 (2019), for counting, efficiency and the border.
    """
    pixel = common_pixel_size_nm(pred, truth, pixel_size_nm)
    tolerances = _checked_tolerances(tolerance_nm)
    _check_options(border_nm, border_rule, min_photons, n_rolls)
    # A table that was read from text may know its field only up to the outermost molecule.
    field = tuple(max(getattr(t.info, side) for t in (pred, truth)) for side in ("height", "width"))
    pred_in_border = is_in_border(pred, border_nm / pixel, field)
    truth_in_border = is_in_border(truth, border_nm / pixel, field)
    if border_rule == "exclude":
        pred, truth = pred.select(~pred_in_border), truth.select(~truth_in_border)
        pred_in_border, truth_in_border = np.zeros(len(pred), bool), np.zeros(len(truth), bool)
    rule = CountingRule(pred_in_border, truth_in_border | is_too_dim(truth, min_photons))

    n_frames = _number_of_frames(pred, truth)
    pred_fyx, truth_fyx = positions(pred), positions(truth)
    tolerances_px = [tolerance / pixel for tolerance in tolerances]
    by_chance = [(NAN, NAN, NAN)] * len(tolerances)
    if chance:
        by_chance = chance_rates(
            pred_fyx, truth_fyx, rule, tolerances_px, matching, n_frames=n_frames, n_rolls=n_rolls, seed=seed
        )
    widest = find_candidates(pred_fyx, truth_fyx, max(tolerances_px))
    scores = []
    for tolerance, tolerance_px, chance_level in zip(tolerances, tolerances_px, by_chance, strict=True):
        candidates = within(widest, tolerance_px)
        closer = _pairs_closer(truth_fyx, tolerance_px)
        scores.append(_score(pred, truth, candidates, rule, matching, tolerance, pixel, chance_level, closer))

    convention = check_conventions(pred, truth, seed=seed) if check else None
    notes = _notes(pred, truth, convention, scores)
    n_truth = int(np.count_nonzero(~rule.truth_is_neutral))
    return Evaluation(
        scores=tuple(scores),
        settings={
            "matching": matching,
            "border_nm": float(border_nm),
            "border_rule": border_rule,
            "min_photons": float(min_photons),
            "pixel_size_nm": pixel,
            "n_rolls": n_rolls if chance else 0,
            "seed": seed,
        },
        n_pred=int(np.count_nonzero(~rule.pred_is_neutral)),
        n_truth=n_truth,
        n_frames=n_frames,
        density_per_um2=_density(field, n_truth, n_frames, border_nm, pixel),
        neighbour_nm=_median_neighbour(truth_fyx) * pixel,
        convention=convention,
        notes=notes,
    )


def _score(
    pred: Localizations,
    truth: Localizations,
    candidates: Candidates,
    rule: CountingRule,
    matching: Matching,
    tolerance_nm: float,
    pixel_size_nm: float,
    chance_level: tuple[float, float, float],
    truth_pairs_closer: int,
) -> ToleranceScores:
    chosen = solve(candidates, matching)
    pred_rows, truth_rows = candidates.pred[chosen], candidates.truth[chosen]
    counts = rule.count(pred_rows, truth_rows)
    precision, recall, f1, jaccard = rates(*counts)
    counted = ~rule.truth_is_neutral[truth_rows]
    figures = error_figures(pred.select(pred_rows[counted]), truth.select(truth_rows[counted]), pixel_size_nm)
    chance_jaccard, chance_precision, chance_recall = chance_level
    return ToleranceScores(
        tolerance_nm=tolerance_nm,
        true_positives=counts[0],
        false_positives=counts[1],
        false_negatives=counts[2],
        precision=precision,
        recall=recall,
        f1=f1,
        jaccard=jaccard,
        efficiency=efficiency(jaccard, figures["rmse_xy_nm"]),
        chance_jaccard=chance_jaccard,
        chance_precision=chance_precision,
        chance_recall=chance_recall,
        skill=(jaccard - chance_jaccard) / (1 - chance_jaccard) if chance_jaccard < 1 else NAN,
        truth_pairs_closer=truth_pairs_closer,
        **figures,
    )


def _checked_tolerances(tolerance_nm: float | Sequence[float]) -> list[float]:
    values = [float(tolerance_nm)] if isinstance(tolerance_nm, int | float) else [float(v) for v in tolerance_nm]
    if not values:
        raise ConfigurationError("No tolerance given; give at least one in nm, e.g. 50.")
    for value in values:
        check_tolerance(value)
    return sorted(set(values))


def _check_options(border_nm: float, border_rule: str, min_photons: float, n_rolls: int) -> None:
    if not (np.isfinite(border_nm) and border_nm >= 0):
        raise ConfigurationError(f"border_nm = {border_nm} is impossible; give nm from 0, e.g. 450.")
    if border_rule not in ("neutral", "exclude"):
        raise ConfigurationError(f"Unknown border_rule {border_rule!r}; choose neutral or exclude.")
    if not (np.isfinite(min_photons) and min_photons >= 0):
        raise ConfigurationError(f"min_photons = {min_photons} is impossible; give photons from 0.")
    if n_rolls < 1:
        raise ConfigurationError(f"n_rolls = {n_rolls} gives no chance level; give 1 or more, or chance=False.")


def _number_of_frames(pred: Localizations, truth: Localizations) -> int:
    return max(max(table.end_frame(), table.info.n_frames) for table in (pred, truth))


def _pairs_closer(truth_fyx: np.ndarray, tolerance_px: float) -> int:
    from scipy.spatial import cKDTree

    if len(truth_fyx) < 2:
        return 0
    tree = cKDTree(truth_fyx * (4 * tolerance_px, 1.0, 1.0))
    return int(tree.count_neighbors(tree, tolerance_px) - len(truth_fyx)) // 2


def _median_neighbour(truth_fyx: np.ndarray) -> float:
    """Median distance to the nearest molecule of the same frame, in pixels; NaN where no frame has two."""
    from scipy.spatial import cKDTree

    if len(truth_fyx) < 2:
        return NAN
    span = float(np.ptp(truth_fyx[:, 1:])) + 1.0
    distance = cKDTree(truth_fyx * (4 * span, 1.0, 1.0)).query(truth_fyx * (4 * span, 1.0, 1.0), k=2)[0][:, 1]
    same_frame = distance < 2 * span
    return float(np.median(distance[same_frame])) if same_frame.any() else NAN


def _density(field_px: tuple[int, ...], n_truth: int, n_frames: int, border_nm: float, pixel_size_nm: float) -> float:
    height, width = ((size * pixel_size_nm - 2 * border_nm) * 1e-3 for size in field_px)
    area = height * width * n_frames
    return n_truth / area if area > 0 else NAN


def _notes(
    pred: Localizations,
    truth: Localizations,
    convention: ConventionCheck | None,
    scores: Sequence[ToleranceScores],
) -> tuple[str, ...]:
    notes = []
    if convention is not None and convention.is_suspicious:
        notes.append(convention.message)
    beyond = int(np.count_nonzero(pred["frame"] >= max(truth.info.n_frames, 1)))
    if beyond > len(pred) / 100:
        notes.append(
            f"{beyond} of {len(pred)} predictions lie beyond the {truth.info.n_frames} frames of the truth and "
            "count as false; cut the prediction if the truth is shorter."
        )
    unseen = tell_unseen_frames(pred, truth)
    if unseen is not None:
        notes.append(unseen)
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    limited = [f"{entry.tolerance_nm:g}" for entry in scores if entry.error_is_gate_limited]
    if limited:
        notes.append(f"RMSE at {', '.join(limited)} nm is about what the tolerance alone gives: it says little.")
    return tuple(notes)
