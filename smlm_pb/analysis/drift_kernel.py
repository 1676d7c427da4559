"""The path of a drifting stage, found with the kernel of the continuous heatmap.

Of two stretches of the movie, the localizations of one are a sample of the density of the other, moved by the drift
between them. The overlap of the two sums of Gaussians, ``C(d) = ΣΣ exp(−|x_i − d − y_j|²/2λ²)``, is the cross term of
continuous heatmap matching as a function of that displacement; it has a closed form, an analytic gradient and no
pixels. Three stages use it:

* *coarse*: some ten stretches, all pairs at once, with λ annealed from half the largest drift down (a small λ alone
  leaves far points without a pull);
* *fine*: ever shorter stretches, down to a few molecules. Each molecule is pulled along the gradient of
  ``log Σ_j exp(−|x_i − d − y_j|²/2λ²)`` towards the molecules of other times; the pulls of a stretch are a
  measurement of its displacement with a known variance. A random walk with heavy-tailed steps (so that a jump stays a
  jump) around a smooth curve is fitted through these measurements; how flexible the curve is, how far the walk steps,
  and how much noisier the measurements are than they claim, is found from the data (marginal likelihood);
* *joint* (:mod:`smlm_pb.analysis.drift_joint`): single frames, with every localization instead of every blink.

Stretches across a jump start half-way and would never be pulled to either side; they try all positions in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.drift_joint import Rows, settle
from smlm_pb.analysis.drift_walk import Walk, follow

FloatArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.intp]

_COARSE_PAIRS = 1_000_000
_FINE_PAIRS = 4_000_000
_LARGEST_NODES = 20_000
# Molecules without a neighbour must not pull with the full weight of their nearest stray: a floor under the density,
# relative to its median, does for false localizations what a uniform background would.
_FLOOR = 0.1
_REACH = 3.5


@dataclass(frozen=True)
class Trajectory:
    """Displacements at moments of the movie, linear in between.

    Parameters
    ----------
    time : array (n,)
        Moments in frames, ascending.
    displacement_nm : array (n, 2)
        Along x and y.
    """

    time: FloatArray
    displacement_nm: FloatArray

    def at(self, time: npt.ArrayLike) -> FloatArray:
        """Displacement (m, 2) at any moments."""
        t = np.asarray(time, np.float64)
        return np.stack([np.interp(t, self.time, self.displacement_nm[:, k]) for k in (0, 1)], axis=-1)


class _Problem(NamedTuple):
    """Molecules: positions in nm (n, 2), moments in frames, and how long each blink may last."""

    xy: FloatArray
    time: FloatArray
    n_frames: int
    apart: float


def fit_trajectory(
    xy_nm: FloatArray,
    time: FloatArray,
    n_frames: int,
    *,
    sigma_nm: float,
    max_drift_nm: float,
    apart: float,
    seed: int,
    on_step: Callable[[float], None],
    rows: Rows | None = None,
) -> Trajectory:
    """Find the path of the drift.

    Parameters
    ----------
    xy_nm : array (n, 2)
        Positions, one per blink.
    time : array (n,)
        Moments in frames.
    n_frames : int
        Length of the movie.
    sigma_nm : float
        Typical precision of a position.
    max_drift_nm : float
        Largest displacement between any two moments.
    apart : float
        Molecules closer in time than this may be the same blink and do not pull at each other.
    seed : int
        Seed of the choice of molecules where there are too many pairs.
    on_step : callable
        Called with the finished share, 0 to 1; may raise to stop.
    rows : Rows, optional
        The single localizations of the blinks, for the last stage.

    Returns
    -------
    Trajectory
        With mean displacement zero over the molecules.
    """
    rng = np.random.default_rng(seed)
    problem = _Problem(np.asarray(xy_nm, np.float64), np.asarray(time, np.float64), n_frames, apart)
    n = len(problem.xy)
    n_nodes = int(np.clip(n / 500, 5, 40))
    widths = [max_drift_nm / 2]
    while widths[-1] > max(100.0, 5 * sigma_nm):
        widths.append(widths[-1] / 2)
    levels = _levels(n, n_nodes, n_frames, sigma_nm)
    path = Trajectory(_node_times(n_nodes, n_frames), np.zeros((n_nodes, 2)))
    n_steps = len(widths) + len(levels) + (rows is not None)
    for k, width in enumerate(widths):
        path = _coarse(problem, path, width, rng)
        on_step((k + 1) / n_steps)
    walks: list[Walk] | None = None
    for k, (nodes, width) in enumerate(levels):
        path, walks = _fine(problem, path, walks, nodes, width, rng)
        on_step((len(widths) + k + 1) / n_steps)
    if rows is not None and walks is not None:
        path = settle(rows, path, walks, n_frames, apart, rng, lambda share: on_step((n_steps - 1 + share) / n_steps))
    return path


def _levels(n: int, n_nodes: int, n_frames: int, sigma_nm: float) -> list[tuple[int, float]]:
    """Numbers of stretches and kernel widths of the fine stage."""
    most = max(n_nodes, min(n_frames, _LARGEST_NODES))
    levels = [(min(4 * n_nodes, most), max(40.0, 3 * sigma_nm))]
    while levels[-1][0] * 4 < most:
        levels.append((levels[-1][0] * 4, max(25.0, 2.5 * sigma_nm)))
    return [*levels, (most, max(1.5 * sigma_nm, 4.0))]


def _node_times(n_nodes: int, n_frames: int) -> FloatArray:
    return np.asarray((np.arange(n_nodes) + 0.5) * n_frames / n_nodes)


def _node_of(time: FloatArray, n_nodes: int, n_frames: int) -> IntArray:
    return np.clip((time * n_nodes / n_frames).astype(np.intp), 0, n_nodes - 1)


# -- coarse: all pairs of stretches at once --------------------------------------------------------------------


def _coarse(problem: _Problem, path: Trajectory, width_nm: float, rng: np.random.Generator) -> Trajectory:
    """Maximise the overlap of all pairs of stretches at one kernel width."""
    from scipy.optimize import minimize

    n_nodes = len(path.time)
    node = _node_of(problem.time, n_nodes, problem.n_frames)
    start = path.displacement_nm
    chosen, pairs = near_pairs(problem.xy - start[node], 3 * width_nm, _COARSE_PAIRS, rng)
    first, second = chosen[pairs[:, 0]], chosen[pairs[:, 1]]
    a, b = node[first], node[second]
    other = a != b
    a, b = a[other], b[other]
    gap = (problem.xy[first[other]] - problem.xy[second[other]]) / width_nm
    if not len(a):
        return path

    def cost(flat: FloatArray) -> tuple[float, FloatArray]:
        d = flat.reshape(n_nodes, 2)
        u = gap - d[a] + d[b]
        kernel = np.exp(-0.5 * np.einsum("ij,ij->i", u, u))
        gradient = np.empty((n_nodes, 2))
        for k in (0, 1):
            pull = kernel * u[:, k]
            gradient[:, k] = np.bincount(a, pull, n_nodes) - np.bincount(b, pull, n_nodes)
        return -float(kernel.mean()), -gradient.ravel() / len(a)

    found = minimize(cost, (start / width_nm).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 80})
    displacement = found.x.reshape(n_nodes, 2) * width_nm
    return Trajectory(path.time, _centred(displacement, node))


def near_pairs(xy: FloatArray, reach: float, at_most: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Rows of a sample small enough, and its pairs (m, 2) within the reach as positions in the sample."""
    from scipy.spatial import cKDTree

    chosen = np.arange(len(xy))
    for _ in range(8):
        # A small sample tells how many pairs there would be, before a large one fills the memory.
        probe = chosen if len(chosen) <= 5000 else rng.choice(chosen, 5000, replace=False)
        tree = cKDTree(xy[probe])
        expected = (tree.count_neighbors(tree, reach) - len(probe)) / 2 * (len(chosen) / len(probe)) ** 2
        if expected <= at_most:
            break
        chosen = rng.choice(chosen, max(200, int(len(chosen) * math.sqrt(0.8 * at_most / expected))), replace=False)
        if len(chosen) == 200:
            break
    chosen = np.sort(chosen)
    return chosen, cKDTree(xy[chosen]).query_pairs(reach, output_type="ndarray")


def _centred(displacement: FloatArray, node: IntArray) -> FloatArray:
    """Mean zero over the molecules, so that the image as a whole stays where it is."""
    weight = np.bincount(node, minlength=len(displacement)).astype(np.float64)
    return displacement - np.average(displacement, axis=0, weights=weight)


# -- fine: every molecule against the density of the others ----------------------------------------------------


def _fine(
    problem: _Problem,
    path: Trajectory,
    walks: list[Walk] | None,
    n_nodes: int,
    width_nm: float,
    rng: np.random.Generator,
    n_rounds: int = 8,
) -> tuple[Trajectory, list[Walk] | None]:
    """Refine the path with more stretches and one kernel width."""
    node = _node_of(problem.time, n_nodes, problem.n_frames)
    time = _node_times(n_nodes, problem.n_frames)
    d = path.at(time)
    width_nm = _wide_enough(problem, d[node], width_nm, rng)
    d = _snap(problem, path, node, time, d, width_nm, rng)
    chosen, pairs = near_pairs(problem.xy - d[node], _REACH * width_nm, _FINE_PAIRS, rng)
    moments = problem.time[chosen]
    pairs = pairs[np.abs(moments[pairs[:, 0]] - moments[pairs[:, 1]]) >= problem.apart]
    i, j = pairs[:, 0], pairs[:, 1]
    if not len(i):
        return path, walks
    own = node[chosen]
    gap = problem.xy[chosen[i]] - problem.xy[chosen[j]]
    count = np.bincount(own, minlength=n_nodes).astype(np.float64)
    coarser: list[Walk | None] = [None, None] if walks is None else list(walks)
    current: list[Walk | None] = [None, None]
    for _ in range(n_rounds):
        u = gap - d[own[i]] + d[own[j]]
        kernel = np.exp(-np.einsum("ij,ij->i", u, u) / (2 * width_nm**2))
        density = np.bincount(i, kernel, len(chosen)) + np.bincount(j, kernel, len(chosen))
        floored = density + max(_FLOOR * float(np.median(density)), 1e-12)
        moved = d.copy()
        for k in (0, 1):
            measured, information = _measure(kernel, u[:, k], i, j, density, floored, width_nm, own, count)
            measured = d[:, k] + np.clip(measured, -2 * width_nm, 2 * width_nm)
            moved[:, k], current[k] = follow(measured, information, current[k], coarser[k])
        step = math.sqrt(float(np.mean((moved - d) ** 2)))
        d = moved
        if step < 0.02 * width_nm / math.sqrt(n_rounds):
            break
    return Trajectory(time, _centred(d, node)), [walk for walk in current if walk is not None]


def _measure(
    kernel: FloatArray,
    u: FloatArray,
    i: IntArray,
    j: IntArray,
    density: FloatArray,
    floored: FloatArray,
    width_nm: float,
    own: IntArray,
    count: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """How far each stretch is pulled along one axis, and how much is known of it (1/variance).

    The pull is a Newton step of the log density, with the curvature averaged over all molecules; its variance follows
    from the spread of the single pulls (the sandwich formula, since a blurred density is no exact likelihood).
    """
    n = len(density)
    weighted = kernel * u
    first = (np.bincount(i, weighted, n) - np.bincount(j, weighted, n)) / floored
    weighted *= u
    second = (np.bincount(i, weighted, n) + np.bincount(j, weighted, n)) / floored
    pull = first / width_nm**2
    bend = np.mean(density / floored) / width_nm**2 - np.mean(second - first**2) / width_nm**4
    curvature = max(float(bend), 0.02 / width_nm**2)
    spread = max(float(np.mean(pull**2)), 1e-12)
    total = np.bincount(own, pull, len(count))
    displacement = np.divide(total, count * curvature, out=np.zeros(len(count)), where=count > 0)
    return displacement, count * curvature**2 / spread


def _wide_enough(problem: _Problem, moved: FloatArray, width_nm: float, rng: np.random.Generator) -> float:
    """A kernel in which a typical molecule has at least three others."""
    from scipy.spatial import cKDTree

    xy = problem.xy - moved
    tree = cKDTree(xy)
    probe = xy if len(xy) <= 2000 else xy[rng.choice(len(xy), 2000, replace=False)]
    distance = tree.query(probe, k=min(4, len(xy)))[0][:, -1]
    return max(width_nm, float(np.median(distance)) / 1.5)


def _snap(
    problem: _Problem,
    path: Trajectory,
    node: IntArray,
    time: FloatArray,
    d: FloatArray,
    width_nm: float,
    rng: np.random.Generator,
    most: int = 24,
) -> FloatArray:
    """Where the path is steep, try the positions between both sides and keep the one the density likes best."""
    from scipy.spatial import cKDTree

    spacing = problem.n_frames / len(path.time)
    before, after = path.at(time - 2 * spacing), path.at(time + 2 * spacing)
    steep = np.hypot(*(after - before).T) > width_nm
    if not steep.any() or steep.all():
        return d
    is_reference = ~steep[node]
    rows = _some_per_node(np.flatnonzero(~is_reference), node, rng)
    reference = np.flatnonzero(is_reference)
    if not len(rows) or len(reference) < 100:
        return d
    reference = _thinned(problem.xy, d[node], reference, rows, _REACH * width_nm, rng)
    tree = cKDTree(problem.xy[reference] - d[node[reference]])
    n_tried = int(np.clip(np.hypot(*(after - before)[steep].T).max() / width_nm + 1, 3, most))
    tried = [before + (after - before) * share for share in np.linspace(0, 1, n_tried)] + [d]
    likelihood = np.empty((len(tried), len(time)))
    floor = None
    for c, candidate in reversed(list(enumerate(tried))):
        found = cKDTree(problem.xy[rows] - candidate[node[rows]]).sparse_distance_matrix(
            tree, _REACH * width_nm, output_type="ndarray"
        )
        kernel = np.exp(-(found["v"] ** 2) / (2 * width_nm**2))
        density = np.bincount(found["i"], kernel, len(rows))
        floor = max(_FLOOR * float(np.median(density)), 1e-3) if floor is None else floor
        likelihood[c] = np.bincount(node[rows], np.log(density + floor), len(time))
    best = np.argmax(likelihood, axis=0)
    # Ties and empty stretches stay where they were.
    best[likelihood.max(axis=0) <= likelihood[-1] + 1e-9] = len(tried) - 1
    snapped = d.copy()
    snapped[steep] = np.stack(tried)[best, np.arange(len(time))][steep]
    return snapped


def _some_per_node(rows: IntArray, node: IntArray, rng: np.random.Generator, most: int = 40) -> IntArray:
    """At most so many rows of every stretch, at random; enough to tell positions apart that lie a kernel away."""
    shuffled = rng.permutation(rows)
    order = np.argsort(node[shuffled], kind="stable")
    ordered = node[shuffled][order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.sort(shuffled[order[rank < most]])


def _thinned(
    xy: FloatArray, moved: FloatArray, reference: IntArray, rows: IntArray, reach: float, rng: np.random.Generator
) -> IntArray:
    """So many reference molecules that a typical row has some dozens of them within its reach."""
    from scipy.spatial import cKDTree

    probe = rows if len(rows) <= 500 else rng.choice(rows, 500, replace=False)
    few = reference if len(reference) <= 5000 else rng.choice(reference, 5000, replace=False)
    near = cKDTree(xy[probe] - moved[probe]).count_neighbors(cKDTree(xy[few] - moved[few]), reach) / len(probe)
    wanted = int(len(few) * 60 / max(near, 1e-3))
    return reference if wanted >= len(reference) else rng.choice(reference, max(wanted, 1000), replace=False)
