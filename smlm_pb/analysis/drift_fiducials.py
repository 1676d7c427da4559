"""Drift from fiducials: beads that shine in most frames of the movie.

They are found by themselves: localizations that lie close to each other in consecutive frames are chained, which
follows a bead however far it drifts, and chains that are there most of the time are fiducials. What they have in common
is the drift; it is smoothed as much as they predict their own missing frames best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.drift_kernel import Trajectory
from smlm_pb.errors import TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[Any]

#: Chains that are there in this part of the frames are fiducials.
LEAST_VISIBLE = 0.3
#: Frames that a fiducial may be missing in between.
MOST_DARK_FRAMES = 10
#: A bead is not moved farther than this from one frame to the next, or within a short dark time.
STEP_NM = 80.0
#: Chains of this part of the frames may be pieces of a fiducial, torn by a jump of the stage.
_PIECE = 0.03
#: Widths of the smoothing that are tried, frames (standard deviation).
_WIDTHS = (0.0, 0.7, 1.5, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0)
_ROUNDS = 10
#: Frames before and after a moment that tell whether the stage jumped.
_NEAR = 11
#: Fiducials that scatter this many times as much as usual about the common path are no fiducials.
_OUTLIER = 3.0


@dataclass(frozen=True)
class Fiducials:
    """Beads and their positions.

    Parameters
    ----------
    rows : int array (m,)
        Rows of the table that belong to fiducials.
    which : int array (m,)
        Number of the fiducial of every such row.
    frame : int array (m,)
        Its frame.
    xy_nm : array (m, 2)
        Its position.
    """

    rows: npt.NDArray[np.intp]
    which: npt.NDArray[np.intp]
    frame: npt.NDArray[np.intp]
    xy_nm: FloatArray

    @property
    def count(self) -> int:
        """Number of fiducials."""
        return int(self.which.max()) + 1 if len(self.which) else 0

    def only(self, kept: npt.NDArray[np.bool_]) -> Fiducials:
        """Some of the fiducials, by a mask over their numbers."""
        inside = kept[self.which]
        number = np.cumsum(kept) - 1
        return Fiducials(self.rows[inside], number[self.which[inside]], self.frame[inside], self.xy_nm[inside])


def find_fiducials(
    locs: Localizations,
    n_frames: int,
    pixel_size_nm: float,
    *,
    max_jump_nm: float = 600.0,
    least_visible: float = LEAST_VISIBLE,
) -> Fiducials:
    """Find the beads of a table.

    Parameters
    ----------
    locs : Localizations
        Not linked.
    n_frames : int
        Length of the movie.
    pixel_size_nm : float
        Edge of a camera pixel.
    max_jump_nm : float
        Largest sudden displacement of the stage.
    least_visible : float
        Part of the frames in which a fiducial is there.

    Returns
    -------
    Fiducials

    Raises
    ------
    TableError
        When there are none.
    """
    from smlm_pb.analysis.linking import link

    chained = link(locs, radius_nm=STEP_NM, max_dark_frames=MOST_DARK_FRAMES, merge=False, pixel_size_nm=pixel_size_nm)
    group = chained["group"].astype(np.intp)
    frame = locs["frame"].astype(np.intp)
    size = np.bincount(group)
    pieces = np.flatnonzero(size >= max(_PIECE * n_frames, 5))
    rows = np.flatnonzero(np.isin(group, pieces))
    rows = rows[np.argsort(frame[rows], kind="stable")]
    xy = np.stack([locs["x"][rows], locs["y"][rows]], axis=1).astype(np.float64) * pixel_size_nm
    which = _join(np.searchsorted(pieces, group[rows]), frame[rows], xy, len(pieces), max_jump_nm)
    total = np.bincount(which, minlength=1)
    long = np.flatnonzero(total >= least_visible * n_frames)
    if not len(long):
        best = max(size.max() if len(size) else 0, total.max()) / n_frames
        raise TableError(
            f"There is no fiducial: no spot is there in {100 * least_visible:.0f} % of the {n_frames} frames (the most "
            f"lasting one: {100 * best:.0f} %); use the method kernel."
        )
    kept = np.isin(which, long)
    return Fiducials(rows[kept], np.searchsorted(long, which[kept]), frame[rows[kept]], xy[kept])


def _join(
    piece: npt.NDArray[np.intp], frame: npt.NDArray[np.intp], xy: FloatArray, n_pieces: int, max_jump_nm: float
) -> npt.NDArray[np.intp]:
    """Number of the fiducial of every row: pieces that follow on each other, not too far away, are one.

    Parameters
    ----------
    piece, frame : int array (m,)
        Piece and frame of every row, ordered by frame.
    xy : array (m, 2)
        Positions, nm.
    n_pieces : int
        Number of pieces.
    max_jump_nm : float
        Largest distance of the end of one and the beginning of the next.
    """
    own = np.arange(n_pieces)
    rows = [np.flatnonzero(piece == k) for k in range(n_pieces)]
    starts = np.array([frame[r[0]] for r in rows], np.intp)
    first = np.array([xy[r[:5]].mean(axis=0) for r in rows]).reshape(-1, 2)
    taken = np.zeros(n_pieces, bool)
    for k in sorted(range(n_pieces), key=lambda k: int(frame[rows[k][-1]])):
        end, last = frame[rows[k][-1]], xy[rows[k][-5:]].mean(axis=0)
        away = np.hypot(*(first - last).T)
        follows = (starts > end) & (starts <= end + 2 * MOST_DARK_FRAMES) & ~taken & (away <= max_jump_nm)
        if follows.any():
            successor = int(np.argmin(np.where(follows, away, np.inf)))
            taken[successor] = True
            own[own == own[successor]] = own[k]
    return np.unique(own, return_inverse=True)[1].astype(np.intp)[piece]


def fiducial_path(
    fiducials: Fiducials, n_frames: int, *, on_step: Callable[[float], None] = lambda _share: None
) -> tuple[Trajectory, Fiducials]:
    """What the fiducials have in common.

    Parameters
    ----------
    fiducials : Fiducials
        Of :func:`find_fiducials`.
    n_frames : int
        Length of the movie.
    on_step : callable
        Called with the share of the work that is done.

    Returns
    -------
    Trajectory
        Of mean zero; at frames, half a frame after their beginning.
    Fiducials
        Those that were used: what moves on its own is left out.
    """
    while True:
        common = _common(fiducials, n_frames)
        scatter = _scatter(fiducials, common)
        kept = scatter <= _OUTLIER * max(float(np.median(scatter)), 1e-9)
        if kept.all() or fiducials.count < 3:
            break
        fiducials = fiducials.only(kept)
    on_step(0.5)
    known = np.flatnonzero(np.isfinite(common[:, 0]))
    parts = np.split(np.arange(len(known)), _jumps(common[known]))
    path = np.concatenate([_smooth(common[known[part]], known[part]) for part in parts])
    on_step(1.0)
    return Trajectory(known + 0.5, path - path.mean(axis=0)), fiducials


def _common(fiducials: Fiducials, n_frames: int) -> FloatArray:
    """Mean displacement (n_frames, 2) of the fiducials; NaN where none is there.

    Positions and path are found in turn, because not all fiducials are there in all frames.
    """
    which, frame, xy = fiducials.which, fiducials.frame, fiducials.xy_nm
    per_frame = np.bincount(frame, minlength=n_frames)[:, None]
    per_bead = np.bincount(which)[:, None]
    path = np.zeros((n_frames, 2))
    for _ in range(_ROUNDS if fiducials.count > 1 else 1):
        place = _sums(which, xy - path[frame], len(per_bead)) / per_bead
        total = _sums(frame, xy - place[which], n_frames)
        path = np.divide(total, per_frame, out=np.full(total.shape, np.nan), where=per_frame > 0)
    return path


def _sums(index: npt.NDArray[np.intp], values: FloatArray, n: int) -> FloatArray:
    return np.stack([np.bincount(index, values[:, k], n) for k in (0, 1)], axis=1)


def _scatter(fiducials: Fiducials, path: FloatArray) -> FloatArray:
    """Robust standard deviation of every fiducial about the common path, nm."""
    found = np.zeros(fiducials.count)
    for k in range(fiducials.count):
        mine = fiducials.which == k
        away = fiducials.xy_nm[mine] - path[fiducials.frame[mine]]
        found[k] = 1.4826 * np.median(np.abs(away - np.median(away, axis=0)))
    return found


def _jumps(path: FloatArray) -> npt.NDArray[np.intp]:
    """Where the path jumps: medians before and after differ by far more than noise and the usual motion make them."""
    from scipy.ndimage import maximum_filter1d

    if len(path) < 4 * _NEAR:
        return np.zeros(0, np.intp)
    windows = np.median(np.lib.stride_tricks.sliding_window_view(path, _NEAR, axis=0), axis=-1)
    step = np.hypot(*(windows[_NEAR:] - windows[:-_NEAR]).T)
    noise = 1.4826 * float(np.median(np.abs(np.diff(path, axis=0)))) / np.sqrt(2)
    least = 8 * noise * np.sqrt(np.pi / _NEAR) + 4 * float(np.median(step))
    highest = step == maximum_filter1d(step, 2 * _NEAR + 1)
    return np.flatnonzero(highest & (step > least)) + _NEAR


def _smooth(path: FloatArray, frame: npt.NDArray[np.intp]) -> FloatArray:
    """The path smoothed by the Gaussian that predicts left-out frames best; as it is where none does better."""
    from scipy.ndimage import gaussian_filter1d

    if len(path) < 10:
        return path
    n = int(frame[-1]) - int(frame[0]) + 1
    place = frame - frame[0]
    value, there = np.zeros((n, 2)), np.zeros(n)
    value[place], there[place] = path, 1.0
    best, least = path, np.inf
    for width in _WIDTHS[1:]:
        if width > n / 4:
            break
        total = gaussian_filter1d(value, width, axis=0, mode="constant", truncate=4.0)
        weight = gaussian_filter1d(there, width, mode="constant", truncate=4.0)
        impulse = np.zeros(2 * int(4 * width + 0.5) + 1)
        impulse[len(impulse) // 2] = 1.0
        own = float(gaussian_filter1d(impulse, width, mode="constant", truncate=4.0).max())
        others = np.maximum(weight[place] - own, 1e-12)
        left_out = (total[place] - own * path) / others[:, None]
        error = float(np.mean((left_out - path) ** 2))
        if error < least:
            best, least = total[place] / weight[place, None], error
    # The noise of a frame is told by neighbours; smoothing that predicts worse than the last frame does is no gain.
    jump = float(np.mean(np.diff(path, axis=0) ** 2))
    return best if least < jump else path
