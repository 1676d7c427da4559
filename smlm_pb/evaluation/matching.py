"""Which prediction belongs to which true molecule: one-to-one pairs within a tolerance, frame by frame.

Only pairs within the tolerance are ever looked at. They are found by one k-d tree for the whole movie (the
frame is a third axis, stretched beyond the tolerance) and fall into connected components, most of them a single
pair or a star, whose answer is known at once. Only the rest is handed to an assignment solver, component by
component, so that crowded movies cost little more than sparse ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError, TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

Matching = Literal["hungarian", "greedy"]
IntArray = npt.NDArray[np.intp]
FloatArray = npt.NDArray[np.float64]

MATCHINGS: tuple[Matching, ...] = ("hungarian", "greedy")

#: By how much less than any difference of probabilities distances count where the likeliest are taken first.
_DISTANCE_WEIGHT = 1e-4

# Above this many cells a dense matrix is slower than the sparse solver (measured: they cross near 600 × 500).
_DENSE_CELLS = 300_000


class Pairs(NamedTuple):
    """Matched rows: ``pred[k]`` belongs to ``truth[k]``, ``distance_nm[k]`` apart."""

    pred: IntArray
    truth: IntArray
    distance_nm: FloatArray


class Candidates(NamedTuple):
    """Every pair of a prediction and a true molecule of the same frame within the tolerance."""

    pred: IntArray
    truth: IntArray
    distance: FloatArray
    n_pred: int
    n_truth: int


def match(
    pred: Localizations,
    truth: Localizations,
    tolerance_nm: float,
    matching: Matching = "hungarian",
    *,
    pixel_size_nm: float | None = None,
) -> Pairs:
    """Pair predictions with true molecules of the same frame.

    Parameters
    ----------
    pred, truth : Localizations
        What was found and what was there.
    tolerance_nm : float
        Pairs farther apart than this are never made.
    matching : {"hungarian", "greedy"}
        ``"hungarian"`` makes as many pairs as possible and, among those ways, the one with the smallest sum
        of distances. ``"greedy"`` repeatedly takes the closest pair that is left, as the SMLM challenge of 2016
        and DECODE do.
    pixel_size_nm : float, optional
        Edge of a camera pixel; needed where neither table knows it.

    Returns
    -------
    Pairs
        Row numbers into both tables, sorted by prediction, and distances in nm.

    Raises
    ------
    TableError
        When the pixel size is unknown or contradictory.
    ConfigurationError
        When the tolerance or the name of the matching is impossible.

    References
    ----------
    Sage et al., Nature Methods 16, 387 (2019), for the greedy rule.
    """
    pixel = common_pixel_size_nm(pred, truth, pixel_size_nm)
    check_tolerance(tolerance_nm)
    candidates = find_candidates(positions(pred), positions(truth), tolerance_nm / pixel)
    chosen = solve(candidates, matching)
    return Pairs(candidates.pred[chosen], candidates.truth[chosen], candidates.distance[chosen] * pixel)


def match_likeliest(
    pred: Localizations, truth: Localizations, tolerance_nm: float, *, pixel_size_nm: float | None = None
) -> Pairs:
    """Pair predictions with true molecules of the same frame, from the likeliest prediction down.

    As many pairs as possible are made, and a prediction is in one exactly if it adds a pair to those of all likelier
    ones: then the predictions at or above any threshold have as many pairs as they can have. Of a molecule found twice,
    the likelier one is right and its copy is not, whichever lies nearer.

    Parameters
    ----------
    pred, truth : Localizations
        What was found, with a column ``probability``, and what was there.
    tolerance_nm : float
        Pairs farther apart than this are never made.
    pixel_size_nm : float, optional
        Edge of a camera pixel; needed where neither table knows it.

    Returns
    -------
    Pairs
        As :func:`match`; among equally likely predictions the nearer ones.

    Raises
    ------
    TableError
        When the pixel size is unknown or contradictory.
    ConfigurationError
        When the tolerance is impossible.
    """
    pixel = common_pixel_size_nm(pred, truth, pixel_size_nm)
    check_tolerance(tolerance_nm)
    candidates = find_candidates(positions(pred), positions(truth), tolerance_nm / pixel)
    # Sets of predictions that can be paired are a matroid: of the largest ones, the likeliest holds as many above any
    # threshold as can be.
    cost = 1.0 - pred["probability"][candidates.pred].astype(np.float64)
    cost += _DISTANCE_WEIGHT * candidates.distance / (tolerance_nm / pixel)
    chosen = solve(candidates._replace(distance=cost), "hungarian")
    return Pairs(candidates.pred[chosen], candidates.truth[chosen], candidates.distance[chosen] * pixel)


def positions(locs: Localizations) -> FloatArray:
    """Frame, y and x of every row as an array (n, 3); the frame is a whole number."""
    return np.stack([locs["frame"], locs["y"], locs["x"]], axis=1).astype(np.float64)


def common_pixel_size_nm(pred: Localizations, truth: Localizations, given: float | None = None) -> float:
    """Return the pixel size both tables share, or the given one.

    Raises
    ------
    TableError
        When none is known, or the tables contradict each other.
    """
    if given is not None:
        if not (np.isfinite(given) and given > 0):
            raise ConfigurationError(f"pixel_size_nm = {given} is impossible; give the camera pixel in nm, e.g. 100.")
        return float(given)
    known = [size for size in (truth.info.pixel_size_nm, pred.info.pixel_size_nm) if size is not None]
    if not known:
        raise TableError("Neither table knows the pixel size, so nm have no meaning; give pixel_size_nm.")
    if abs(known[0] - known[-1]) > 1e-3 * known[0]:
        raise TableError(
            f"The truth has pixels of {known[0]:g} nm and the prediction of {known[-1]:g} nm; "
            "correct one table, or give pixel_size_nm."
        )
    return float(known[0])


def check_tolerance(tolerance_nm: float) -> None:
    """Refuse a tolerance that is not a positive, finite number of nm."""
    if not (np.isfinite(tolerance_nm) and tolerance_nm > 0):
        raise ConfigurationError(f"tolerance_nm = {tolerance_nm} is impossible; give nm above 0, e.g. 50.")


def find_candidates(pred_fyx: FloatArray, truth_fyx: FloatArray, tolerance_px: float) -> Candidates:
    """All pairs of one frame within the tolerance.

    Parameters
    ----------
    pred_fyx, truth_fyx : array (n, 3)
        Frame, y, x; y and x in pixels.
    tolerance_px : float
        Largest distance, in pixels.

    Returns
    -------
    Candidates
        Sorted by prediction, then truth.
    """
    from scipy.spatial import cKDTree

    n_pred, n_truth = len(pred_fyx), len(truth_fyx)
    if not n_pred or not n_truth:
        nothing = np.zeros(0, np.intp)
        return Candidates(nothing, nothing, np.zeros(0), n_pred, n_truth)
    stretch = np.array([4.0 * tolerance_px, 1.0, 1.0])
    found = cKDTree(pred_fyx * stretch).sparse_distance_matrix(
        cKDTree(truth_fyx * stretch), tolerance_px, output_type="ndarray"
    )
    order = np.lexsort((found["j"], found["i"]))
    return Candidates(found["i"][order], found["j"][order], found["v"][order], n_pred, n_truth)


def solve(candidates: Candidates, matching: Matching) -> IntArray:
    """Choose one-to-one pairs among the candidates.

    Returns
    -------
    int array (m,)
        Positions in the candidate list, ascending.
    """
    if matching not in MATCHINGS:
        raise ConfigurationError(f"Unknown matching {matching!r}; choose from {', '.join(MATCHINGS)}.")
    if not len(candidates.pred):
        return np.zeros(0, np.intp)
    return _solve_greedy(candidates) if matching == "greedy" else _solve_hungarian(candidates)


def _solve_greedy(candidates: Candidates) -> IntArray:
    """Take closest pairs first, in rounds: a pair that is closest to both its ends is one the rule takes."""
    by_distance = np.argsort(candidates.distance, kind="stable")
    taken: list[IntArray] = []
    while len(by_distance):
        pred, truth = candidates.pred[by_distance], candidates.truth[by_distance]
        rank = np.arange(len(by_distance))
        best_of_pred = np.full(candidates.n_pred, -1)
        best_of_truth = np.full(candidates.n_truth, -1)
        best_of_pred[pred[::-1]] = rank[::-1]
        best_of_truth[truth[::-1]] = rank[::-1]
        mutual = (best_of_pred[pred] == rank) & (best_of_truth[truth] == rank)
        taken.append(by_distance[mutual])
        pred_is_free = np.ones(candidates.n_pred, bool)
        truth_is_free = np.ones(candidates.n_truth, bool)
        pred_is_free[pred[mutual]] = False
        truth_is_free[truth[mutual]] = False
        by_distance = by_distance[pred_is_free[pred] & truth_is_free[truth]]
    return np.sort(np.concatenate(taken))


def _solve_hungarian(candidates: Candidates) -> IntArray:
    """Most pairs, then least total distance, in every connected component on its own."""
    component = _components(candidates)
    order = np.argsort(component, kind="stable")
    bounds = np.flatnonzero(np.diff(component[order], prepend=-1, append=-1))
    starts, ends = bounds[:-1], bounds[1:]
    preds_in = _distinct_per_component(candidates.pred, component, candidates.n_pred, len(starts))
    truths_in = _distinct_per_component(candidates.truth, component, candidates.n_truth, len(starts))

    # A star (one prediction or one molecule) has one pair: its shortest edge.
    is_star = (preds_in == 1) | (truths_in == 1)
    closest = np.lexsort((candidates.distance, component))[starts]
    chosen = [closest[is_star]]
    chosen += [_solve_component(candidates, order[starts[c] : ends[c]]) for c in np.flatnonzero(~is_star)]
    return np.sort(np.concatenate(chosen))


def _components(candidates: Candidates) -> IntArray:
    """Number the connected components; return the one of every candidate, from 0 without gaps."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = candidates.n_pred + candidates.n_truth
    ends = (candidates.pred, candidates.truth + candidates.n_pred)
    graph = coo_array((np.ones(len(candidates.pred), np.int8), ends), shape=(n, n)).tocsr()
    _, label = connected_components(graph, directed=False)
    return np.unique(label[candidates.pred], return_inverse=True)[1].astype(np.intp)


def _distinct_per_component(node: IntArray, component: IntArray, n_nodes: int, n_components: int) -> IntArray:
    component_of_node = np.full(n_nodes, -1, np.intp)
    component_of_node[node] = component
    return np.bincount(component_of_node[component_of_node >= 0], minlength=n_components)


def _solve_component(candidates: Candidates, edges: IntArray) -> IntArray:
    from scipy.optimize import linear_sum_assignment

    preds, row = np.unique(candidates.pred[edges], return_inverse=True)
    truths, column = np.unique(candidates.truth[edges], return_inverse=True)
    distance = candidates.distance[edges]
    if len(preds) * len(truths) > _DENSE_CELLS:
        return _solve_sparse(edges, row, column, distance, len(preds), len(truths))
    # One forbidden pair costs more than all allowed pairs together, so cardinality comes first.
    forbidden = (min(len(preds), len(truths)) + 1.0) * (distance.max() + 1.0)
    cost = np.full((len(preds), len(truths)), forbidden)
    cost[row, column] = distance
    edge_at = np.full(cost.shape, -1, np.intp)
    edge_at[row, column] = edges
    chosen: IntArray = edge_at[linear_sum_assignment(cost)]
    return chosen[chosen >= 0]


def _solve_sparse(
    edges: IntArray, row: IntArray, column: IntArray, distance: FloatArray, n_rows: int, n_columns: int
) -> IntArray:
    """Solve without the dense matrix: every row may also stay alone, at a high price."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    alone = (min(n_rows, n_columns) + 1.0) * (distance.max() + 1.0)
    rows = np.concatenate([row, np.arange(n_rows)])
    columns = np.concatenate([column, n_columns + np.arange(n_rows)])
    # The solver takes an explicit zero for a missing edge, so all costs are raised by one.
    cost = csr_array(
        (np.concatenate([distance, np.full(n_rows, alone)]) + 1.0, (rows, columns)),
        shape=(n_rows, n_columns + n_rows),
    )
    matched_row, matched_column = min_weight_full_bipartite_matching(cost)
    real = matched_column < n_columns
    edge_at: dict[tuple[int, int], Any] = dict(zip(zip(row.tolist(), column.tolist(), strict=True), edges, strict=True))
    pairs = zip(matched_row[real].tolist(), matched_column[real].tolist(), strict=True)
    return np.array([edge_at[pair] for pair in pairs], np.intp)
