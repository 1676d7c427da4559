"""Joining the localizations of one blink into one molecule.

A molecule that stays on is localized in every frame. Joined, its position is known better by the root of the number
of frames, its photons add up, and the image no longer shows it as a cluster. Localizations of consecutive frames are
joined where they lie close enough, first those without a dark frame between them, then those with one, and so on;
within each step as many as possible, and among those the closest (a rectangular assignment, as in the tracking
literature).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.columns import COLUMN_BY_NAME
from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.evaluation.matching import Candidates, positions, solve

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

#: Distances in units of the pair's precision that still join; one blink in 460 frames is torn apart by chance.
DEFAULT_RADIUS_SIGMA = 3.5
# No precision worse than a camera pixel widens the search: it would join half the image.
_LARGEST_SIGMA_PX = 1.0


def link(
    locs: Localizations,
    *,
    radius_nm: float | None = None,
    radius_sigma: float | None = None,
    max_dark_frames: int = 1,
    merge: bool = True,
    dark_times: bool = False,
    pixel_size_nm: float | None = None,
) -> Localizations:
    """Join the localizations of each blink.

    Parameters
    ----------
    locs : Localizations
        In any order.
    radius_nm : float, optional
        Largest distance of two localizations that are joined.
    radius_sigma : float, optional
        The same in units of the precision of their difference, ``√(σ₁² + σ₂²)``. When neither is given: 3.5. With
        both, both must hold.
    max_dark_frames : int
        Frames a molecule may miss between two localizations; 0 joins consecutive frames only.
    merge : bool
        Whether to return one row per blink; otherwise all rows, with the column ``group``.
    dark_times : bool
        Whether to add the column ``dark_frames``: frames until the next blink within the radius, −1 where none comes.
    pixel_size_nm : float, optional
        Edge of a camera pixel, where the table does not know it; needed for ``radius_nm``.

    Returns
    -------
    Localizations
        Merged: ``x``, ``y``, ``z`` are means weighted by 1/σ², the precisions those of the mean, ``photons`` the sum,
        ``background`` the mean, ``frame`` the first one, ``on_frames`` first to last, ``n_localizations`` the number
        of rows; ``probability`` is that at least one of them exists. Codes (``refinement``) are those of the
        first row, other columns are averaged.

    Raises
    ------
    TableError
        When precisions or the pixel size are needed and missing.
    ConfigurationError
        When an option is impossible.
    """
    _check_options(radius_nm, radius_sigma, max_dark_frames)
    if radius_nm is None and radius_sigma is None:
        radius_sigma = DEFAULT_RADIUS_SIGMA
    gate = make_gate(locs, radius_nm, radius_sigma, pixel_size_nm)
    group = find_blinks(locs, gate, max_dark_frames)
    step = {
        "step": "link",
        "radius_nm": radius_nm,
        "radius_sigma": radius_sigma,
        "max_dark_frames": max_dark_frames,
        "rows_before": len(locs),
        "rows_after": (int(group.max()) + 1 if len(group) else 0) if merge else len(locs),
    }
    result = merge_groups(locs, group) if merge else locs.with_columns(group=group.astype(np.int32))
    if dark_times:
        if not merge:
            raise ConfigurationError("dark_times are those after whole blinks: let the rows of each blink be joined.")
        result = result.with_columns(dark_frames=_dark_frames(result, gate))
    return result.with_provenance(step)


@dataclass(frozen=True)
class Gate:
    """How near two localizations must lie to be joined, in pixels, with the precision of every row where it counts."""

    radius_px: float
    radius_sigma: float | None
    sigma_px: FloatArray

    @property
    def widest_px(self) -> float:
        """A distance beyond which nothing is joined."""
        if self.radius_sigma is None:
            return self.radius_px
        largest = float(self.sigma_px.max()) if len(self.sigma_px) else 0.0
        return max(min(self.radius_px, self.radius_sigma * math.sqrt(2) * largest), 1e-9)

    def relative(self, first: IntArray, second: IntArray, distance_px: FloatArray) -> FloatArray:
        """Distance in units of the largest allowed one."""
        limit = np.full(len(distance_px), self.radius_px)
        if self.radius_sigma is not None:
            limit = np.minimum(limit, self.radius_sigma * np.hypot(self.sigma_px[first], self.sigma_px[second]))
        return np.asarray(distance_px / np.maximum(limit, 1e-12))


def make_gate(
    locs: Localizations, radius_nm: float | None, radius_sigma: float | None, pixel_size_nm: float | None
) -> Gate:
    """Turn radii in nm and in units of the precision into a gate for the rows of a table."""
    radius_px = math.inf
    if radius_nm is not None:
        pixel = pixel_size_nm or locs.info.pixel_size_nm
        if pixel is None:
            raise TableError("radius_nm needs the pixel size, which this table does not know; give pixel_size_nm.")
        radius_px = radius_nm / pixel
    return Gate(radius_px, radius_sigma, np.zeros(0) if radius_sigma is None else _precision_px(locs))


def _precision_px(locs: Localizations) -> FloatArray:
    missing = [name for name in ("sigma_x", "sigma_y") if name not in locs]
    if missing:
        raise TableError(
            f"The table has no column {' and '.join(missing)}, so a radius in units of the precision has no meaning; "
            "give radius_nm."
        )
    mean_square = (locs["sigma_x"].astype(np.float64) ** 2 + locs["sigma_y"].astype(np.float64) ** 2) / 2
    return np.minimum(np.sqrt(np.nan_to_num(mean_square, nan=0.0)), _LARGEST_SIGMA_PX)


def find_blinks(locs: Localizations, gate: Gate, max_dark_frames: int) -> IntArray:
    """Number of the blink of every row, from 0 in the order of their first localization."""
    from scipy.spatial import cKDTree

    n = len(locs)
    successor, has_predecessor = np.full(n, -1, np.intp), np.zeros(n, bool)
    points = positions(locs)
    widest = gate.widest_px
    stretch = np.array([4 * widest, 1.0, 1.0])
    longest_lag = int(np.ptp(points[:, 0])) if n else 0
    for lag in range(1, min(max_dark_frames + 1, longest_lag) + 1):
        open_end, open_start = np.flatnonzero(successor < 0), np.flatnonzero(~has_predecessor)
        if not len(open_end) or not len(open_start):
            break
        earlier = points[open_end] + (lag, 0, 0)
        found = cKDTree(earlier * stretch).sparse_distance_matrix(
            cKDTree(points[open_start] * stretch), widest, output_type="ndarray"
        )
        first, second = open_end[found["i"]], open_start[found["j"]]
        relative = gate.relative(first, second, found["v"])
        near = relative <= 1
        candidates = Candidates(first[near], second[near], relative[near], n, n)
        chosen = solve(candidates, "hungarian")
        successor[candidates.pred[chosen]] = candidates.truth[chosen]
        has_predecessor[candidates.truth[chosen]] = True
    return _chains(successor, has_predecessor, points[:, 0])


def _chains(successor: IntArray, has_predecessor: npt.NDArray[np.bool_], frame: FloatArray) -> IntArray:
    """Number the chains of successors by their first frame."""
    group = np.full(len(successor), -1, np.intp)
    heads = np.flatnonzero(~has_predecessor)
    heads = heads[np.argsort(frame[heads], kind="stable")]
    members, number = heads, np.arange(len(heads))
    while len(members):
        group[members] = number
        following = successor[members]
        members, number = following[following >= 0], number[following >= 0]
    return group


def merge_groups(locs: Localizations, group: npt.NDArray[Any]) -> Localizations:
    """One row per group: weighted means, sums and counts, as :func:`link` describes.

    Parameters
    ----------
    locs : Localizations
        The rows.
    group : int array (n,)
        Number of the group of every row, from 0 without gaps.
    """
    from smlm_pb.localizations import Localizations

    if not len(locs):
        return locs.with_columns(on_frames=np.zeros(0, np.uint32), n_localizations=np.zeros(0, np.uint32))
    order = np.lexsort((locs["frame"], group))
    starts = np.flatnonzero(np.diff(np.asarray(group)[order], prepend=-1))
    lengths = np.diff(np.append(starts, len(order)))
    merged: dict[str, npt.NDArray[Any]] = {}
    for name, column in locs.columns.items():
        merged[name] = _merge_column(locs, name, column[order], order, starts, lengths)
    frame = locs["frame"][order].astype(np.int64)
    merged["frame"] = frame[starts]
    merged["on_frames"] = frame[starts + lengths - 1] - frame[starts] + 1
    merged["n_localizations"] = _sum_counts(locs, order, starts, lengths)
    merged.pop("group", None)
    return Localizations(merged, locs.info, locs.provenance)


_SUMMED = {"photons", "log_likelihood_ratio"}
_FIRST = {"frame", "on_frames", "n_localizations"}
_SIGMAS = {"sigma_x", "sigma_y", "sigma_z"}


def _merge_column(
    locs: Localizations, name: str, values: npt.NDArray[Any], order: IntArray, starts: IntArray, lengths: IntArray
) -> npt.NDArray[Any]:
    declared = COLUMN_BY_NAME.get(name)
    is_code = declared is not None and np.dtype(declared.dtype).kind in "iu"
    if name in _FIRST or is_code or values.dtype.kind not in "iuf":
        return values[starts]
    numbers = values.astype(np.float64)
    if name in _SUMMED:
        return np.add.reduceat(numbers, starts)
    if name == "probability":
        return -np.expm1(np.add.reduceat(np.log1p(-np.clip(numbers, 0, 1 - 1e-12)), starts))
    if name == "sigma_photons":
        return np.sqrt(np.add.reduceat(numbers**2, starts))
    if name in _SIGMAS:
        weight = _weights(locs, name.removeprefix("sigma_"), order)
        single = lengths == 1
        combined = 1 / np.sqrt(np.add.reduceat(weight, starts))
        return np.where(single, numbers[starts], combined)
    weight = _weights(locs, name, order) if name in ("x", "y", "z") else np.ones(len(numbers))
    return np.add.reduceat(numbers * weight, starts) / np.add.reduceat(weight, starts)


def _weights(locs: Localizations, axis: str, order: IntArray) -> FloatArray:
    """Weight of every row for its position: 1/σ², else photons, else equal."""
    if f"sigma_{axis}" in locs:
        sigma = locs[f"sigma_{axis}"][order].astype(np.float64)
        # A precision of 0 is none; such rows must not outweigh all others.
        usable = np.isfinite(sigma) & (sigma > 0)
        worst = float(sigma[usable].max()) if usable.any() else 1.0
        return np.asarray(np.where(usable, sigma, worst) ** -2.0)
    if "photons" in locs:
        return np.maximum(locs["photons"][order].astype(np.float64), 1e-6)
    return np.ones(len(order))


def _sum_counts(locs: Localizations, order: IntArray, starts: IntArray, lengths: IntArray) -> IntArray:
    """Localizations per group; rows that were merged before bring their own count."""
    if "n_localizations" in locs:
        return np.add.reduceat(locs["n_localizations"][order].astype(np.intp), starts)
    return lengths


def _dark_frames(linked: Localizations, gate: Gate) -> npt.NDArray[np.int32]:
    """Frames from the end of each blink to the next one at the same place; −1 where none comes."""
    from scipy.spatial import cKDTree

    xy = np.stack([linked["y"], linked["x"]], axis=1).astype(np.float64)
    begin = linked["frame"].astype(np.int64)
    end = begin + linked["on_frames"].astype(np.int64)
    dark = np.full(len(linked), -1, np.int32)
    if not len(linked):
        return dark
    if gate.radius_sigma is not None:
        gate = replace(gate, sigma_px=_precision_px(linked))
    tree = cKDTree(xy)
    chunk = 20_000
    for start in range(0, len(linked), chunk):
        rows = np.arange(start, min(start + chunk, len(linked)))
        found = cKDTree(xy[rows]).sparse_distance_matrix(tree, gate.widest_px, output_type="ndarray")
        first, second = rows[found["i"]], found["j"]
        later = (begin[second] >= end[first]) & (gate.relative(first, second, found["v"]) <= 1)
        wait = np.full(len(linked), np.iinfo(np.int64).max)
        np.minimum.at(wait, first[later], begin[second[later]] - end[first[later]])
        known = rows[wait[rows] < np.iinfo(np.int64).max]
        dark[known] = wait[known]
    return dark


def _check_options(radius_nm: float | None, radius_sigma: float | None, max_dark_frames: int) -> None:
    for name, value in (("radius_nm", radius_nm), ("radius_sigma", radius_sigma)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigurationError(f"{name} = {value} is impossible; give a number above 0.")
    if max_dark_frames < 0 or int(max_dark_frames) != max_dark_frames:
        raise ConfigurationError(f"max_dark_frames = {max_dark_frames} is impossible; give a whole number from 0.")
