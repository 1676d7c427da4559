"""Which molecules overlap: groups that are fitted together, and the neighbours that shine into their windows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.intp]
FloatArray = npt.NDArray[np.float64]


class Groups(NamedTuple):
    """Groups of molecules of one frame each, ordered by ``rows``.

    Group ``g`` holds the molecules ``rows[starts[g] : starts[g + 1]]``.
    """

    rows: IntArray
    starts: IntArray
    crowd_sizes: IntArray
    """(groups,): molecules of the crowd the group belongs to; more than its own where the crowd was cut."""

    @property
    def sizes(self) -> IntArray:
        """Molecules per group."""
        return np.diff(self.starts)

    def of_rows(self) -> IntArray:
        """Group of every molecule, in the order of the table."""
        group = np.empty(self.rows.size, dtype=np.intp)
        group[self.rows] = np.repeat(np.arange(self.starts.size - 1), self.sizes)
        return group


def find_groups(frame: npt.NDArray[Any], x: FloatArray, y: FloatArray, *, link_px: float, largest: int) -> Groups:
    """Join molecules of a frame that are linked by steps of at most ``link_px``.

    Parameters
    ----------
    frame, x, y : array (molecules,)
        Frame, and position in px.
    link_px : float
        Largest distance of two molecules that overlap, px.
    largest : int
        Larger groups are cut in two, across their longer side, until they are small enough.

    Returns
    -------
    Groups
        Every molecule is in exactly one.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = x.size
    pairs = neighbour_pairs(frame, x, y, link_px)
    links = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    n_crowds, crowd = connected_components(links, directed=False)
    order = np.argsort(crowd, kind="stable")
    sizes = np.bincount(crowd, minlength=n_crowds) if n else np.empty(0, dtype=np.intp)
    if n and sizes.max() > largest:
        parts: list[IntArray] = []
        crowd_sizes: list[int] = []
        for members in np.split(order, np.cumsum(sizes)[:-1]):
            cut = _cut(members, x, y, largest)
            parts += cut
            crowd_sizes += [len(members)] * len(cut)
        rows, part_sizes = np.concatenate(parts), np.array([len(part) for part in parts])
        of_crowd = np.array(crowd_sizes)
    else:
        rows, part_sizes, of_crowd = order, sizes, sizes
    starts = np.concatenate([[0], np.cumsum(part_sizes)]).astype(np.intp)
    return Groups(rows.astype(np.intp), starts, of_crowd.astype(np.intp))


def _cut(members: IntArray, x: FloatArray, y: FloatArray, largest: int) -> list[IntArray]:
    if len(members) <= largest:
        return [members]
    axis = x if np.ptp(x[members]) >= np.ptp(y[members]) else y
    ordered = members[np.argsort(axis[members], kind="stable")]
    middle = len(ordered) // 2
    return _cut(ordered[:middle], x, y, largest) + _cut(ordered[middle:], x, y, largest)


def neighbour_pairs(frame: npt.NDArray[Any], x: FloatArray, y: FloatArray, reach_px: float) -> IntArray:
    """List the pairs of molecules of the same frame that are at most ``reach_px`` apart.

    Parameters
    ----------
    frame, x, y : array (molecules,)
        Frame, and position in px.
    reach_px : float
        Largest distance, px.

    Returns
    -------
    array (pairs, 2)
        Each pair once.
    """
    from scipy.spatial import cKDTree

    if x.size < 2:
        return np.empty((0, 2), dtype=np.intp)
    # Frames lie further apart than the reach in a third dimension: one tree serves all of them.
    points = np.column_stack([x, y, np.asarray(frame, dtype=np.float64) * (2.0 * reach_px + 1.0)])
    return np.asarray(cKDTree(points).query_pairs(reach_px, output_type="ndarray"), dtype=np.intp).reshape(-1, 2)


def outsiders(groups: Groups, pairs: IntArray) -> tuple[IntArray, IntArray]:
    """For pairs of neighbours, which molecule lies near which group without being in it.

    Parameters
    ----------
    groups : Groups
        The groups.
    pairs : array (pairs, 2)
        Neighbours, from :func:`neighbour_pairs`.

    Returns
    -------
    group, row : array (outsiders,)
        Ordered by group; every combination once.
    """
    group_of = groups.of_rows()
    both = np.concatenate([pairs, pairs[:, ::-1]])
    group, row = group_of[both[:, 0]], both[:, 1]
    apart = group != group_of[row]
    found = np.unique(np.column_stack([group[apart], row[apart]]), axis=0)
    return found[:, 0], found[:, 1]
