"""The drift by fiducials, and whether the molecules that are none agree with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from smlm_pb.analysis.drift_fiducials import Fiducials, fiducial_path, find_fiducials
from smlm_pb.analysis.movie_length import movie_length
from smlm_pb.errors import TableError

if TYPE_CHECKING:
    from smlm_pb.analysis.drift import Drift, Reporter
    from smlm_pb.analysis.drift_kernel import Trajectory
    from smlm_pb.localizations import Localizations


def follow_beads(
    locs: Localizations, pixel_size_nm: float, *, max_drift_nm: float, check: bool, seed: int, reporter: Reporter
) -> Drift:
    """Find the drift by fiducials; see :func:`smlm_pb.analysis.estimate_drift`.

    Accepted where molecules that are no fiducials are brought together by it. Where there are too few of them, two
    halves of the fiducials must agree better with each other than with no drift at all.
    """
    from smlm_pb.analysis.drift import Drift

    n_frames = movie_length(locs)
    beads = find_fiducials(locs, n_frames, pixel_size_nm, max_jump_nm=max_drift_nm)
    path, used = fiducial_path(beads, n_frames, on_step=reporter.for_fit(0))
    every = np.arange(n_frames) + 0.5
    proposed = path.at(every)
    proposed -= proposed[locs["frame"].astype(np.intp)].mean(axis=0)
    error = gain = gain_error = float("nan")
    reason = ""
    if used.count > 1:
        error = _difference_of_halves(used, n_frames)
    if check:
        others = locs.select(np.setdiff1d(np.arange(len(locs)), beads.rows))
        gain, gain_error, reason = _held_out(others, path, pixel_size_nm, seed)
        if np.isnan(gain):
            size = float(np.sqrt(np.mean((proposed - proposed.mean(axis=0)) ** 2)))
            if used.count < 2:
                reason = "one fiducial alone cannot be checked, and there are too few other molecules to do it"
            elif not error < 0.5 * size:
                reason = f"two halves of the fiducials differ by {error:.1f} nm, as much as they drift"
            else:
                reason = ""
    accepted = not reason
    applied = proposed if accepted else np.zeros_like(proposed)
    reporter.finish()
    settings = {
        "max_drift_nm": float(max_drift_nm),
        "pixel_size_nm": float(pixel_size_nm),
        "n_molecules": len(used.rows),
        "n_fiducials": used.count,
        "seed": seed,
    }
    return Drift(
        applied[:, 0], applied[:, 1], "fiducials", accepted, reason, error, gain, gain_error, proposed, settings
    )


def _difference_of_halves(beads: Fiducials, n_frames: int) -> float:
    """Error of the path from two halves of the fiducials, nm per axis, root mean square."""
    even = np.arange(beads.count) % 2 == 0
    every = np.arange(n_frames) + 0.5
    halves = [fiducial_path(beads.only(part), n_frames)[0].at(every) for part in (even, ~even)]
    difference = halves[0] - halves[1]
    difference -= difference.mean(axis=0)
    return float(np.sqrt(np.mean(difference**2)) / 2)


def _held_out(others: Localizations, path: Trajectory, pixel_size_nm: float, seed: int) -> tuple[float, float, str]:
    """Gain of the molecules that are no fiducials, its error, and why it does not suffice; NaN for too few."""
    from smlm_pb.analysis.drift import Data
    from smlm_pb.analysis.drift_check import CERTAIN, held_out_gain, tiles

    try:
        data = Data.of(others, "kernel", pixel_size_nm)
    except TableError:
        return float("nan"), float("nan"), ""
    everyone = np.ones(len(data.time), bool)
    tile = tiles(data.xy - path.at(data.time))
    gain, error = held_out_gain(data, [path], (everyone,), tile, seed)
    if gain > CERTAIN * error:
        return gain, error, ""
    return (
        gain,
        error,
        (
            f"molecules that are no fiducials are not brought together by it (gain {gain:+.4f} ± {error:.4f}), so the "
            "fiducials move on their own, or there is no drift to see"
        ),
    )
