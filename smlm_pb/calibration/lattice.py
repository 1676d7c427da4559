"""Which point of a target is which: places on the lattice for points found in a picture.

The lattice is grown from its most regular point: every point that has a place tells where its four neighbours should
lie, with the steps that were seen last, so that perspective and distortion are followed. The most certain step is
always taken next.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import MovieError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: A neighbour may miss its place by this share of the step.
_GATE = 0.22
_SEEDS = 12
#: Fewest points that make a lattice, and fewest along each of its axes.
_FEWEST, _FEWEST_ALONG = 9, 3


@dataclass(frozen=True)
class Lattice:
    """Points with their places.

    Parameters
    ----------
    point : int array (n,)
        Index of the point in the list that was given.
    column, row : int array (n,)
        Place on the lattice; columns run along x and rows along y, as nearly as the target lies. From 0.
    step_px : float
        Median distance of neighbours in px.
    """

    point: IntArray
    column: IntArray
    row: IntArray
    step_px: float

    def __len__(self) -> int:
        return len(self.point)

    @property
    def places(self) -> FloatArray:
        """Places (n, 2) as (column, row), in steps of the lattice."""
        return np.stack((self.column, self.row), axis=1).astype(np.float64)

    @property
    def occupancy(self) -> float:
        """Share of the places between occupied ones, along rows and columns, that are occupied themselves."""
        taken = np.zeros((self.row.max() + 1, self.column.max() + 1), bool)
        taken[self.row, self.column] = True
        inside = _between(taken) | _between(taken.T).T
        return float(taken.sum() / (taken | inside).sum())


def _between(taken: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Places with an occupied one on both sides in their row."""
    left = np.maximum.accumulate(taken, axis=1)
    right = np.maximum.accumulate(taken[:, ::-1], axis=1)[:, ::-1]
    return left & right


def find_lattice(positions: FloatArray) -> Lattice:
    """Give points their places on a square lattice.

    Parameters
    ----------
    positions : array (n, 2)
        Positions as (x, y) in px; some may be missing, some false.

    Returns
    -------
    Lattice
        The largest one that was found.

    Raises
    ------
    MovieError
        When the points make no lattice.
    """
    if len(positions) < _FEWEST:
        raise MovieError(
            f"No lattice: only {len(positions)} points of the target were found, at least {_FEWEST} are needed; check "
            "that the picture shows it in focus, and that the kind of target is the right one."
        )
    from scipy.spatial import cKDTree

    tree = cKDTree(positions)
    best: dict[int, tuple[int, int]] = {}
    for seed, steps in _seeds(positions, tree):
        grown = _grow(positions, tree, seed, steps)
        if len(grown) > len(best):
            best = grown
        if len(best) > 0.7 * len(positions):
            break
    lattice = _as_lattice(best, positions)
    along = (len(np.unique(lattice.column)), len(np.unique(lattice.row))) if len(lattice) else (0, 0)
    if len(lattice) < _FEWEST or min(along) < _FEWEST_ALONG:
        raise MovieError(
            f"No lattice: {len(positions)} points were found, but no more than {len(lattice)} of them lie on one "
            f"square lattice ({_FEWEST} in {_FEWEST_ALONG} rows are needed); check the picture and the kind of target."
        )
    return lattice


def _seeds(positions: FloatArray, tree: object) -> list[tuple[int, FloatArray]]:
    """Points whose four nearest neighbours make a cross, the most regular first, with the two steps."""
    _, index = tree.query(positions, k=min(5, len(positions)))  # type: ignore[attr-defined]
    if index.shape[1] < 5:
        return []
    steps = positions[index[:, 1:]] - positions[:, None]
    found = []
    for point in range(len(positions)):
        cross = _cross(steps[point])
        if cross is not None:
            found.append((cross[0], point, cross[1]))
    found.sort(key=lambda entry: entry[0])
    # Regular points far from each other first: a target may lie beside something else that repeats.
    stride = max(1, len(found) // (2 * _SEEDS))
    return [(point, axes) for _, point, axes in found[: stride * _SEEDS : stride]]


def _cross(steps: FloatArray) -> tuple[float, FloatArray] | None:
    """Irregularity of four steps as a cross, and its two axes; None where they make none."""
    first = steps[0]
    opposite = int(np.argmin(np.hypot(*(steps + first).T)))
    others = [k for k in range(1, 4) if k != opposite]
    if opposite == 0 or len(others) != 2:
        return None
    a, b = (first - steps[opposite]) / 2, (steps[others[0]] - steps[others[1]]) / 2
    length = np.hypot(*a), np.hypot(*b)
    if min(length) <= 0 or max(length) > 1.6 * min(length):
        return None
    skew = abs(a @ b) / (length[0] * length[1])
    miss = np.hypot(*(first + steps[opposite])) + np.hypot(*(steps[others[0]] + steps[others[1]]))
    irregularity = float(miss / sum(length) + skew)
    if irregularity > 0.6:
        return None
    return irregularity, _oriented(a, b)


def _oriented(a: FloatArray, b: FloatArray) -> FloatArray:
    """The two axes (2, 2) with the first along x and the second along y, as nearly as they lie."""
    if abs(a[0]) < abs(b[0]):
        a, b = b, a
    return np.stack((a if a[0] > 0 else -a, b if b[1] > 0 else -b))


def _grow(positions: FloatArray, tree: object, seed: int, steps: FloatArray) -> dict[int, tuple[int, int]]:
    """Places of all points that can be reached from the seed."""
    place_of = {seed: (0, 0)}
    point_at = {(0, 0): seed}
    axes_of = {seed: steps}
    queue: list[tuple[float, int, int, int, int]] = []
    _offer(queue, positions, tree, seed, (0, 0), steps)
    while queue:
        _, point, column, row, origin = heapq.heappop(queue)
        place = (column, row)
        if point in place_of or place in point_at:
            continue
        place_of[point], point_at[place] = place, point
        axes = axes_of[origin].copy()
        from_column, from_row = place_of[origin]
        axis = 0 if column != from_column else 1
        sign = (column - from_column) + (row - from_row)
        axes[axis] = 0.5 * axes[axis] + 0.5 * sign * (positions[point] - positions[origin])
        # The other axis is told by the neighbour beside, where it has a place already.
        for side in (1, -1):
            beside = point_at.get((column, row + side) if axis == 0 else (column + side, row))
            if beside is not None:
                axes[1 - axis] = 0.5 * axes[1 - axis] + 0.5 * side * (positions[beside] - positions[point])
        axes_of[point] = axes
        _offer(queue, positions, tree, point, place, axes)
    return place_of


def _offer(
    queue: list[tuple[float, int, int, int, int]],
    positions: FloatArray,
    tree: object,
    point: int,
    place: tuple[int, int],
    axes: FloatArray,
) -> None:
    """Put the neighbours that lie where they should into the queue."""
    for column, row in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        step = column * axes[0] + row * axes[1]
        miss, neighbour = tree.query(positions[point] + step)  # type: ignore[attr-defined]
        relative = float(miss / np.hypot(*step))
        if relative < _GATE and neighbour != point:
            heapq.heappush(queue, (relative, int(neighbour), place[0] + column, place[1] + row, point))


def _as_lattice(place_of: dict[int, tuple[int, int]], positions: FloatArray) -> Lattice:
    point = np.fromiter(place_of, np.int64, len(place_of))
    places = np.array(list(place_of.values()), np.int64).reshape(-1, 2)
    if not len(point):
        return Lattice(point, places[:, 0], places[:, 1], float("nan"))
    places = places - places.min(0)
    order = np.lexsort((places[:, 0], places[:, 1]))
    point, places = point[order], places[order]
    at = {(int(c), int(r)): positions[p] for p, (c, r) in zip(point, places, strict=True)}
    lengths = [
        np.hypot(*(at[c + i, r + j] - here))
        for (c, r), here in at.items()
        for i, j in ((1, 0), (0, 1))
        if (c + i, r + j) in at
    ]
    return Lattice(point, places[:, 0], places[:, 1], float(np.median(lengths)) if lengths else float("nan"))
