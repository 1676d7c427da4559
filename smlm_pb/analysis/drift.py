"""Removing the drift of the stage from a table, and knowing whether that helped.

The displacement is found from the localizations themselves (:mod:`smlm_pb.analysis.drift_kernel`, or
:mod:`smlm_pb.analysis.drift_correlation`), or from beads among them (:mod:`smlm_pb.analysis.drift_fiducials`). It is
accepted only if it brings molecules together that had no part in
finding it: the field is divided into two halves of a chequerboard, the path found in one half is tried on the other,
and the gain must be certain. The difference of the two paths also tells how large the
remaining error is at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.drift_check import CERTAIN, chequerboard, held_out_gain, tiles
from smlm_pb.analysis.drift_joint import Rows
from smlm_pb.analysis.drift_kernel import Trajectory, fit_trajectory
from smlm_pb.analysis.movie_length import movie_length, refuse_endless
from smlm_pb.errors import Cancelled, ConfigurationError, TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[Any]
Method = Literal["kernel", "correlation", "fiducials", "comet"]
METHODS: tuple[Method, ...] = ("kernel", "correlation", "fiducials", "comet")

LEAST_MOLECULES = 300
#: Points of the path that the history of a table keeps: enough for a figure.
_KEPT_POINTS = 1000


@dataclass(frozen=True)
class Drift:
    """The path of a drifting stage.

    Parameters
    ----------
    dx_nm, dy_nm : array (n_frames,)
        Displacement in every frame; subtract it from the positions. Mean zero over the localizations, so that the
        image stays where it is. All zero when not accepted.
    method : str
        How it was found.
    accepted : bool
        Whether molecules that had no part in finding it were brought together by it (always true without check).
    reason : str
        Why it was not accepted; empty otherwise.
    error_nm : float
        Remaining error per axis, root mean square over the frames, from two halves of the field; NaN without check.
        What both halves have wrong in common it cannot see: a lower limit.
    gain, gain_error : float
        Held-out gain of the mean log density per molecule, and its standard error; NaN without check.
    proposed_nm : array (n_frames, 2)
        The path that was found, also where it was not accepted.
    settings : dict
        Options and sizes.
    """

    dx_nm: FloatArray
    dy_nm: FloatArray
    method: str
    accepted: bool
    reason: str
    error_nm: float
    gain: float
    gain_error: float
    proposed_nm: FloatArray
    settings: dict[str, Any]

    @property
    def range_nm(self) -> tuple[float, float]:
        """Distance between the extreme displacements along x and y."""
        return float(np.ptp(self.dx_nm)), float(np.ptp(self.dy_nm))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON and the table's history, without the path."""

        def plain(value: float) -> float | None:
            return None if math.isnan(value) else value

        return {
            "method": self.method,
            "accepted": self.accepted,
            "reason": self.reason,
            "range_x_nm": self.range_nm[0],
            "range_y_nm": self.range_nm[1],
            "error_nm": plain(self.error_nm),
            "gain": plain(self.gain),
            "gain_error": plain(self.gain_error),
            **self.settings,
        }

    def history(self) -> dict[str, Any]:
        """The step of a table's history: :meth:`as_dict`, and the path at no more than 1000 frames, to 0.01 nm."""
        step = {"step": "drift", **self.as_dict()}
        if not self.accepted:
            return step
        kept = np.unique(np.linspace(0, len(self.dx_nm) - 1, min(len(self.dx_nm), _KEPT_POINTS)).astype(int))
        return step | {
            "path_frame": kept.tolist(),
            "path_x_nm": np.round(self.dx_nm[kept].astype(float), 2).tolist(),
            "path_y_nm": np.round(self.dy_nm[kept].astype(float), 2).tolist(),
        }


def correct_drift(locs: Localizations, **options: Any) -> tuple[Localizations, Drift]:
    """Find the drift and remove it; the options are those of :func:`estimate_drift`.

    Returns
    -------
    (Localizations, Drift)
        The table is unchanged, but for its history, where the drift was not accepted.
    """
    drift = estimate_drift(locs, **options)
    return apply_drift(locs, drift), drift


def apply_drift(locs: Localizations, drift: Drift) -> Localizations:
    """Subtract a drift from the positions, for example one that was found in another channel.

    Raises
    ------
    TableError
        When the table has frames beyond the drift, or does not know its pixel size.
    """
    if len(locs) and int(locs["frame"].max()) >= len(drift.dx_nm):
        raise TableError(
            f"The table has a molecule in frame {int(locs['frame'].max())}, but the drift is known for "
            f"{len(drift.dx_nm)} frames only; estimate it from the whole movie."
        )
    pixel = drift.settings.get("pixel_size_nm") or locs.info.pixel_size_nm
    if pixel is None:
        raise TableError("The drift is in nm and needs the pixel size, which this table does not know.")
    frame = locs["frame"].astype(np.intp)
    moved = locs.with_columns(
        x=(locs["x"].astype(np.float64) - drift.dx_nm[frame] / pixel).astype(np.float32),
        y=(locs["y"].astype(np.float64) - drift.dy_nm[frame] / pixel).astype(np.float32),
    )
    return moved.with_provenance(drift.history())


def estimate_drift(
    locs: Localizations,
    *,
    method: Method = "kernel",
    max_drift_nm: float = 600.0,
    n_stretches: int | None = None,
    check: bool = True,
    pixel_size_nm: float | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Drift:
    """Find the drift from the localizations themselves.

    Parameters
    ----------
    locs : Localizations
        Not linked, with ``sigma_x`` and ``sigma_y`` for the method ``"kernel"``.
    method : {"kernel", "correlation", "fiducials", "comet"}
        ``"kernel"`` maximises the overlap of the Gaussians of all molecules, down to single frames.
        ``"correlation"`` is redundant cross-correlation of rendered stretches. ``"fiducials"`` follows beads that are
        there most of the time; it is checked on all other molecules. ``"comet"`` asks the package comet-smlm, where it
        is installed.
    max_drift_nm : float
        Largest displacement between any two moments that is looked for.
    n_stretches : int, optional
        Stretches for ``"correlation"`` and ``"comet"``; when not given as many as hold 2000 localizations each, 5 to
        40.
    check : bool
        Whether to accept the path only when it helps held-out molecules.
    pixel_size_nm : float, optional
        Edge of a camera pixel, where the table does not know it.
    seed : int
        Seed of the choice of molecules where there are very many.
    on_progress : callable, optional
        Called with (done, total).
    should_stop : callable, optional
        Asked now and then; a true answer ends the work.

    Returns
    -------
    Drift
        Zero everywhere where it was not accepted.

    Raises
    ------
    TableError
        When there are too few molecules or frames, more frames than any movie has, or precisions are missing.
    ConfigurationError
        When an option is impossible.
    Cancelled
        When ``should_stop`` said so.
    """
    pixel = pixel_size_nm or locs.info.pixel_size_nm
    _check_options(method, max_drift_nm, n_stretches, pixel)
    assert pixel is not None
    refuse_endless(movie_length(locs), locs)
    if method == "fiducials":
        from smlm_pb.analysis.drift_beads import follow_beads

        reporter = Reporter(on_progress, should_stop, 1)
        return follow_beads(locs, pixel, max_drift_nm=max_drift_nm, check=check, seed=seed, reporter=reporter)
    if method == "comet":
        from smlm_pb.analysis.drift_comet import require_comet

        require_comet()
    data = Data.of(locs, method, pixel)
    fitter = _Fitter(data, method, max_drift_nm, n_stretches, seed)
    n_fits = 3 if check else 1
    reporter = Reporter(on_progress, should_stop, n_fits)

    full = fitter.fit(np.ones(len(data.time), bool), reporter.for_fit(0))
    settings = {
        "max_drift_nm": float(max_drift_nm),
        "pixel_size_nm": float(pixel),
        "n_molecules": len(data.time),
        "n_nodes": len(full.time),
        "seed": seed,
    }
    every = np.arange(data.n_frames) + 0.5
    path = full.at(every)
    path -= path[locs["frame"].astype(np.intp)].mean(axis=0)
    error = gain = gain_error = float("nan")
    reason = ""
    if check:
        tile = tiles(data.xy - full.at(data.time))
        parity = chequerboard(tile)
        if min(parity.sum(), (~parity).sum()) < LEAST_MOLECULES / 2:
            reason = "too few molecules in one half of the field to check the drift on the other"
        else:
            halves = [fitter.fit(half, reporter.for_fit(k + 1)) for k, half in enumerate((parity, ~parity))]
            difference = halves[0].at(every) - halves[1].at(every)
            difference -= difference.mean(axis=0)
            error = float(np.sqrt(np.mean(difference**2)) / 2)
            gain, gain_error = held_out_gain(data, halves, (~parity, parity), tile, seed)
            if not gain > CERTAIN * gain_error:
                reason = (
                    f"molecules held out are not brought together by it (gain {gain:+.4f} ± {gain_error:.4f}), "
                    "so there is no drift, or too little to see"
                )
    if not np.isfinite(path).all():
        reason = "the fit did not converge"
    accepted = not reason
    used = path if accepted else np.zeros_like(path)
    reporter.finish()
    return Drift(used[:, 0], used[:, 1], method, accepted, reason, error, gain, gain_error, path, settings)


@dataclass(frozen=True)
class Data:
    """What the drift is found from: blinks for the kernel, localizations for the correlation."""

    xy: FloatArray
    time: FloatArray
    n_frames: int
    sigma_nm: float
    apart: float
    rows: Rows | None = None

    @classmethod
    def of(cls, locs: Localizations, method: Method, pixel_size_nm: float) -> Data:
        """Take from a table what a method needs; refuses one that does not suffice."""
        from smlm_pb.analysis.linking import DEFAULT_RADIUS_SIGMA, find_blinks, make_gate, merge_groups

        n_frames = movie_length(locs)
        if n_frames < 20:
            raise TableError(f"Drift needs a movie of at least 20 frames; this one has {n_frames}.")
        missing = [name for name in ("sigma_x", "sigma_y") if name not in locs]
        if missing:
            raise TableError(
                f"The table has no column {' and '.join(missing)}, which drift needs to know what belongs together; "
                "localize with a program that reports precisions, or add them."
            )
        # One row per blink: the frames of a blink agree with each other whatever the stage does.
        group = find_blinks(locs, make_gate(locs, None, DEFAULT_RADIUS_SIGMA, pixel_size_nm), 1)
        blinks = merge_groups(locs, group)
        if len(blinks) < LEAST_MOLECULES:
            raise TableError(f"Drift needs at least {LEAST_MOLECULES} blinks; the table has {len(blinks)}.")
        length = blinks["on_frames"].astype(np.float64)
        rows = locs if method == "correlation" else blinks
        time = rows["frame"] + (0.5 if method == "correlation" else length / 2)
        sigma = np.sqrt((blinks["sigma_x"].astype(np.float64) ** 2 + blinks["sigma_y"].astype(np.float64) ** 2) / 2)
        sigma_nm = float(np.median(sigma)) * pixel_size_nm
        if not (math.isfinite(sigma_nm) and sigma_nm > 0):
            raise TableError("Columns sigma_x and sigma_y hold no usable precisions, which drift needs.")
        return cls(
            xy=np.stack([rows["x"], rows["y"]], axis=1).astype(np.float64) * pixel_size_nm,
            time=np.asarray(time, np.float64),
            n_frames=n_frames,
            sigma_nm=sigma_nm,
            apart=min(3 * float(np.percentile(length, 95)) + 2, n_frames / 5),
            rows=_rows(locs, group, sigma_nm, pixel_size_nm) if method == "kernel" else None,
        )

    def rows_of(self, part: npt.NDArray[np.bool_]) -> Rows | None:
        """The localizations of some of the blinks, which are numbered anew."""
        if self.rows is None or part.all():
            return self.rows
        inside = part[self.rows.blink]
        number = np.cumsum(part) - 1
        rows = self.rows
        return Rows(rows.xy[inside], rows.time[inside], rows.sigma[inside], number[rows.blink[inside]])


def _rows(locs: Localizations, group: npt.NDArray[np.intp], sigma_nm: float, pixel_size_nm: float) -> Rows:
    """All localizations in nm, sorted by blink and time."""
    order = np.lexsort((locs["frame"], group))
    xy = np.stack([locs["x"], locs["y"]], axis=1).astype(np.float64)[order] * pixel_size_nm
    sigma = np.sqrt((locs["sigma_x"].astype(np.float64) ** 2 + locs["sigma_y"].astype(np.float64) ** 2) / 2)
    usable = np.isfinite(sigma) & (sigma > 0)
    # A precision far from all others is a failed fit, and must not outweigh them.
    sigma = np.clip(np.where(usable, sigma * pixel_size_nm, 5 * sigma_nm), 0.2 * sigma_nm, 5 * sigma_nm)
    return Rows(xy, locs["frame"][order] + 0.5, sigma[order], group[order])


@dataclass(frozen=True)
class _Fitter:
    """One method with its options, for any part of the data."""

    data: Data
    method: Method
    max_drift_nm: float
    n_stretches: int | None
    seed: int

    def fit(self, part: npt.NDArray[np.bool_], on_step: Callable[[float], None]) -> Trajectory:
        xy, time = self.data.xy[part], self.data.time[part]
        if self.method == "kernel":
            return fit_trajectory(
                xy,
                time,
                self.data.n_frames,
                sigma_nm=self.data.sigma_nm,
                max_drift_nm=self.max_drift_nm,
                apart=self.data.apart,
                seed=self.seed,
                on_step=on_step,
                rows=self.data.rows_of(part),
            )
        n_stretches = self.n_stretches or int(np.clip(len(self.data.time) / 2000, 5, 40))
        if self.method == "comet":
            from smlm_pb.analysis.drift_comet import run_comet

            return run_comet(
                xy,
                time,
                self.data.n_frames,
                sigma_nm=self.data.sigma_nm,
                max_drift_nm=self.max_drift_nm,
                n_stretches=n_stretches,
                seed=self.seed,
                on_step=on_step,
            )
        from smlm_pb.analysis.drift_correlation import correlate_stretches

        return correlate_stretches(
            xy,
            time.astype(np.intp),
            self.data.n_frames,
            n_stretches=n_stretches,
            max_drift_nm=self.max_drift_nm,
            on_step=on_step,
        )


class Reporter:
    """Turns shares of single fits into overall progress, and stops when asked."""

    def __init__(
        self, on_progress: Callable[[int, int], None] | None, should_stop: Callable[[], bool] | None, n_fits: int
    ) -> None:
        self._on_progress, self._should_stop, self._n_fits = on_progress, should_stop, n_fits

    def for_fit(self, k: int) -> Callable[[float], None]:
        """What the ``k``-th fit calls with its share."""

        def on_step(share: float) -> None:
            if self._should_stop is not None and self._should_stop():
                raise Cancelled("Drift correction was stopped; the table is unchanged.")
            if self._on_progress is not None:
                self._on_progress(int(100 * (k + share) / self._n_fits), 100)

        return on_step

    def finish(self) -> None:
        """Everything is done."""
        if self._on_progress is not None:
            self._on_progress(100, 100)


def _check_options(method: str, max_drift_nm: float, n_stretches: int | None, pixel: float | None) -> None:
    if method not in METHODS:
        raise ConfigurationError(f"Unknown method {method!r}; choose from {', '.join(METHODS)}.")
    if not (math.isfinite(max_drift_nm) and max_drift_nm > 0):
        raise ConfigurationError(f"max_drift_nm = {max_drift_nm} is impossible; give nm above 0, e.g. 600.")
    if n_stretches is not None and n_stretches < 2:
        raise ConfigurationError(f"n_stretches = {n_stretches} is impossible; give 2 or more.")
    if pixel is None:
        raise TableError("Drift is found in nm and needs the pixel size; give pixel_size_nm.")
