"""The last stage of the drift: all localizations at once, frame by frame.

Two things tell where the stage was. *Between* blinks, the mean position of a blink, freed of the drift, is a sample of
the density of all others; its score ``∂ log Σ_j exp(−|x_i − x_j|²/2λ_ij²)/λ_ij²`` pulls it there, with
``λ_ij² = σ_i² + σ_j²`` so that precise blinks count for more. *Within* a blink, all localizations are of one place,
so that their differences measure the drift from frame to frame without any knowledge of the structure. Both are
quadratic forms of the path; their matrix has the width of a blink, and the posterior of a random walk around a smooth
curve follows from one banded Cholesky factorisation. How far the walk steps is chosen by the marginal likelihood.

Localizations that lie farther apart than their precisions allow are taken for different molecules, and the precisions
are corrected by what the blinks show of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.drift_walk import TAIL, Walk, spline_design

if TYPE_CHECKING:
    from collections.abc import Callable

    from smlm_pb.analysis.drift_kernel import Trajectory

FloatArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.intp]

# Longer blinks are divided: the matrix of the path is as wide as the longest.
_LONGEST = 12
# Two localizations of a blink lie apart by less, in units of the precision of their difference (3.4 % do not).
_GATE = 2.6
_PAIRS = 4_000_000
_REACH = 3.2
# Blur of the density besides that of the precisions, in units of the typical one.
_EXTRA_BLUR = 0.4
_FLOOR = 0.02
_SAMPLES = 16
_ROUNDS = 5


class Rows(NamedTuple):
    """Localizations, sorted by blink and time: positions (n, 2) and precision in nm, moment in frames, blink."""

    xy: FloatArray
    time: FloatArray
    sigma: FloatArray
    blink: IntArray


class _Blinks(NamedTuple):
    """Localizations as measurements of nodes of the path: weight 1/σ², blink, and pairs within a blink."""

    xy: FloatArray
    node: IntArray
    weight: FloatArray
    blink: IntArray
    total: FloatArray
    time: FloatArray
    first: IntArray
    second: IntArray
    n_nodes: int

    @property
    def share(self) -> FloatArray:
        """Weight of every localization in the mean of its blink."""
        return self.weight / self.total[self.blink]

    def mean(self, values: FloatArray) -> FloatArray:
        """Weighted mean over every blink of values (n, 2)."""
        n, share = len(self.total), self.share
        return np.stack([np.bincount(self.blink, share * values[:, k], n) for k in (0, 1)], axis=1)

    def at_nodes(self, values: FloatArray) -> FloatArray:
        """Sum of values (n,) over every node."""
        return np.bincount(self.node, values, self.n_nodes)

    def outer(self, scale: FloatArray, width: int) -> FloatArray:
        """Upper band of the sum over the blinks of ``scale`` times the outer product of their shares."""
        band = np.zeros((width + 1, self.n_nodes))
        share = self.share
        band[-1] = self.at_nodes(scale[self.blink] * share**2)
        lag = self.node[self.second] - self.node[self.first]
        product = scale[self.blink[self.first]] * share[self.first] * share[self.second]
        band[-1] += 2 * np.bincount(self.node[self.first[lag == 0]], product[lag == 0], self.n_nodes)
        for step in range(1, width + 1):
            here = lag == step
            band[-1 - step] += np.bincount(self.node[self.second[here]], product[here], self.n_nodes)
        return band


class _Prior(NamedTuple):
    """A random walk around a smooth curve: typical squared step, weights of the steps, columns of the curve."""

    step_variance: float
    weight: FloatArray
    design: FloatArray


def settle(
    rows: Rows,
    path: Trajectory,
    walks: list[Walk],
    n_frames: int,
    apart: float,
    rng: np.random.Generator,
    on_round: Callable[[float], None] = lambda share: None,
    *,
    structure_nm: FloatArray | None = None,
) -> Trajectory:
    """Refine a path from all localizations at once.

    Parameters
    ----------
    rows : Rows
        Localizations with their blinks.
    path : Trajectory
        What was found so far, one displacement per node.
    walks : list of Walk
        The random walk along x and y that was found with it.
    n_frames : int
        Length of the movie.
    apart : float
        Blinks closer in time than this do not pull at each other.
    rng : numpy.random.Generator
        Source of randomness.
    on_round : callable
        Called with the finished share; may raise to stop.
    structure_nm : array (m, 2), optional
        Places that are known without drift: every blink is of one of them, and they pull instead of the other blinks.

    Returns
    -------
    Trajectory
        With the nodes of ``path``; ``path`` itself where nothing can be learnt.
    """
    from scipy.linalg import LinAlgError

    from smlm_pb.analysis.drift_kernel import Trajectory

    n_nodes = len(path.time)
    blinks = _blinks(rows, path, n_frames)
    d = path.displacement_nm
    if n_nodes < 3 or not len(blinks.total):
        return path
    spans = blinks.node[blinks.second] - blinks.node[blinks.first]
    width = int(spans.max()) if len(spans) else 0
    width = max(width, 1)
    within = -blinks.outer(blinks.total, width)
    within[-1] += blinks.at_nodes(blinks.weight)
    priors: list[_Prior | None] = [None, None]
    pulls = _Pulls(blinks, apart, rng, structure_nm)
    try:
        for k in range(_ROUNDS):
            moved = np.empty_like(d)
            target, information = pulls(d)
            for axis in (0, 1):
                band = within + blinks.outer(information[:, axis], width)
                force = blinks.at_nodes(blinks.share * (information * target)[blinks.blink, axis])
                rest = blinks.xy[:, axis] - blinks.mean(blinks.xy)[blinks.blink, axis]
                force += blinks.at_nodes(blinks.weight * rest)
                prior = priors[axis] or _choose(band, force, walks[axis], rng)
                moved[:, axis], priors[axis] = _follow(band, force, prior, rng)
            step = math.sqrt(float(np.mean((moved - d) ** 2)))
            d = moved
            on_round((k + 1) / _ROUNDS)
            if step < 0.01 * pulls.blur:
                break
    except LinAlgError:
        return path
    weight = np.bincount(blinks.node, minlength=n_nodes)
    return Trajectory(path.time, d - np.average(d, axis=0, weights=weight))


def _blinks(rows: Rows, path: Trajectory, n_frames: int) -> _Blinks:
    """Divide blinks where they are too long or no longer one molecule, with precisions as they show them."""
    n_nodes = len(path.time)
    node = np.clip((rows.time * n_nodes / n_frames).astype(np.intp), 0, n_nodes - 1)
    still = rows.xy - path.displacement_nm[node]
    follows = rows.blink[1:] == rows.blink[:-1]
    squared = ((still[1:] - still[:-1]) ** 2).sum(axis=1) / (rows.sigma[1:] ** 2 + rows.sigma[:-1] ** 2)
    excess = 1.0
    if follows.sum() > 100:
        # The median of the squared distance of two dimensions in units of its variance is 2 ln 2.
        excess = float(np.clip(np.median(squared[follows]) / (2 * math.log(2)), 0.1, 10.0))
    new = np.concatenate([[True], ~follows | (squared > _GATE**2 * excess)])
    start = np.flatnonzero(new)[np.cumsum(new) - 1]
    part = (node - node[start]) // _LONGEST
    new[1:] |= part[1:] != part[:-1]
    blink = np.cumsum(new) - 1
    weight = 1 / (rows.sigma**2 * excess)
    total = np.bincount(blink, weight)
    first, second = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for lag in range(1, len(blink)):
        pair = np.flatnonzero(blink[lag:] == blink[:-lag])
        if not len(pair):
            break
        first.append(pair)
        second.append(pair + lag)
    return _Blinks(
        rows.xy,
        node,
        weight,
        blink,
        total,
        np.bincount(blink, weight * rows.time) / total,
        np.concatenate(first),
        np.concatenate(second),
        n_nodes,
    )


class _Pulls:
    """How far every blink is pulled towards the density of the others."""

    def __init__(
        self, blinks: _Blinks, apart: float, rng: np.random.Generator, structure_nm: FloatArray | None
    ) -> None:
        self._blinks, self._apart, self._rng, self._structure = blinks, apart, rng, structure_nm
        self._variance = 1 / blinks.total
        typical = float(np.median(self._variance))
        self._extra = _EXTRA_BLUR**2 * typical if structure_nm is None else 0.0
        self.blur = math.sqrt(2 * typical)
        # Blinks that are known alike share a curvature.
        self._kind = np.clip(np.rint(np.log2(self._variance / typical)), -4, 4).astype(np.intp) + 4
        self._pairs: tuple[IntArray, IntArray] | None = None

    def __call__(self, d: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Displacement that each blink asks of its nodes, and how much is known of it, along both axes (n, 2)."""
        blinks = self._blinks
        mean_d = blinks.mean(d[blinks.node])
        still = blinks.mean(blinks.xy) - mean_d
        i, u, variance = self._neighbours(still)
        kernel = np.exp(-np.einsum("ij,ij->i", u, u) / (2 * variance)) / variance
        n = len(still)
        density = np.bincount(i, kernel, n)
        is_used = density > 0
        floored = density + max(_FLOOR * float(np.median(density[is_used])) if is_used.any() else 0.0, 1e-300)
        target, information = mean_d, np.zeros((n, 2))
        for axis in (0, 1):
            relative = u[:, axis] / variance
            weighted = kernel * relative
            score = np.bincount(i, weighted, n) / floored
            bend = kernel / variance - weighted * relative
            curvature = np.bincount(i, bend, n) / floored + score**2
            asked, known = self._by_kind(score, curvature, is_used)
            target[:, axis] += np.clip(asked, -4 * self.blur, 4 * self.blur)
            information[:, axis] = known
        return target, information

    def _by_kind(
        self, score: FloatArray, curvature: FloatArray, is_used: npt.NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray]:
        """Newton steps with the mean curvature of blinks that are known alike, and their information (sandwich)."""
        count = np.bincount(self._kind[is_used], minlength=9)
        mean = np.bincount(self._kind[is_used], curvature[is_used], 9) / np.maximum(count, 1)
        spread = np.bincount(self._kind[is_used], score[is_used] ** 2, 9) / np.maximum(count, 1)
        sharpest = 1 / (self._variance + self._extra)
        bend = np.maximum(mean[self._kind], 0.02 * sharpest)
        known = np.where(is_used, bend**2 / np.maximum(spread[self._kind], 1e-6 * sharpest), 0.0)
        return score / bend, known

    def _neighbours(self, still: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
        """Blinks, how far each lies from a neighbour (m, 2), and the variance of that distance."""
        from scipy.spatial import cKDTree

        reach = _REACH * math.sqrt((1 + (self._structure is None)) * float(np.percentile(self._variance, 95)))
        if self._structure is not None:
            found = cKDTree(still).sparse_distance_matrix(cKDTree(self._structure), reach, output_type="ndarray")
            return found["i"], still[found["i"]] - self._structure[found["j"]], self._variance[found["i"]]
        if self._pairs is None:
            self._pairs = self._near(still, reach)
        i, j = self._pairs
        # Millions of pairs: single precision is enough for a pull.
        u = (still[i] - still[j]).astype(np.float32)
        variance = (self._variance[i] + self._variance[j] + self._extra).astype(np.float32)
        return np.concatenate([i, j]), np.concatenate([u, -u]), np.concatenate([variance, variance])

    def _near(self, still: FloatArray, reach: float) -> tuple[IntArray, IntArray]:
        from smlm_pb.analysis.drift_kernel import near_pairs

        chosen, pairs = near_pairs(still, reach, _PAIRS, self._rng)
        i, j = chosen[pairs[:, 0]], chosen[pairs[:, 1]]
        other = np.abs(self._blinks.time[i] - self._blinks.time[j]) >= self._apart
        return i[other], j[other]


# -- the random walk around a curve ----------------------------------------------------------------------------


def _choose(band: FloatArray, force: FloatArray, walk: Walk, rng: np.random.Generator) -> _Prior:
    """The strength of the walk that explains the measurements best."""
    n = len(force)
    design = spline_design(n, walk.n_knots)
    rest = force - banded_product(band, _curve(band, force, design))
    best, best_evidence = _Prior(walk.step_variance, walk.weight, design), -math.inf
    for variance in walk.step_variance * 10.0 ** np.arange(-1.5, 2.1, 0.5):
        # A jump that was found already need not be found again.
        weight, evidence = walk.weight, 0.0
        for _ in range(3):
            _, squared_step, evidence = posterior(band, rest, weight / variance, rng, 8)
            evidence += 0.5 * TAIL * float((np.log(weight) - weight).sum())  # of the tail's scale mixture
            weight = (TAIL + 1) / (TAIL + squared_step / variance)
        if evidence > best_evidence:
            best, best_evidence = _Prior(float(variance), weight, design), evidence
    return best


def _follow(
    band: FloatArray, force: FloatArray, prior: _Prior, rng: np.random.Generator, n_rounds: int = 4
) -> tuple[FloatArray, _Prior]:
    """The path, and the strength of its walk by expectation maximisation."""
    curve = _curve(band, force, prior.design)
    rest = force - banded_product(band, curve)
    variance, weight = prior.step_variance, prior.weight
    mean = rest
    for _ in range(n_rounds):
        mean, squared_step, _ = posterior(band, rest, weight / variance, rng, _SAMPLES)
        weight = (TAIL + 1) / (TAIL + squared_step / variance)
        variance = max(float(np.mean(weight * squared_step)), 1e-8)
    return mean + curve, prior._replace(step_variance=variance, weight=weight)


def _curve(band: FloatArray, force: FloatArray, design: FloatArray) -> FloatArray:
    """Weighted least-squares curve through what is measured."""
    if not design.shape[1]:
        return np.zeros(len(force))
    normal = design.T @ np.stack([banded_product(band, column) for column in design.T], axis=1)
    return np.asarray(design @ np.linalg.lstsq(normal, design.T @ force, rcond=1e-12)[0])


def banded_product(band: FloatArray, vector: FloatArray) -> FloatArray:
    """A symmetric matrix, given by its upper band, times a vector."""
    product = band[-1] * vector
    for step in range(1, len(band)):
        above = band[-1 - step, step:]
        product[:-step] += above * vector[step:]
        product[step:] += above * vector[:-step]
    return product


def posterior(
    band: FloatArray, force: FloatArray, stiffness: FloatArray, rng: np.random.Generator, n_samples: int
) -> tuple[FloatArray, FloatArray, float]:
    """Mean path of a random walk, expected squares of its steps (variances from samples), and log evidence."""
    from scipy.linalg import cho_solve_banded, cholesky_banded
    from scipy.linalg.lapack import dtbtrs

    full = band.copy()
    full[-1, :-1] += stiffness
    full[-1, 1:] += stiffness
    full[-2, 1:] -= stiffness
    full[-1] += 1e-9 * full[-1].max()
    root = cholesky_banded(full)
    mean = cho_solve_banded((root, False), force)
    samples = dtbtrs(root, rng.normal(size=(len(force), n_samples)), uplo="U")[0]
    squared_step = np.diff(mean) ** 2 + np.mean(np.diff(samples, axis=0) ** 2, axis=1)
    evidence = 0.5 * (float(np.log(stiffness).sum()) + float(force @ mean)) - float(np.log(root[-1]).sum())
    return mean, squared_step, evidence
