"""The path of a drift as a figure and as a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smlm_pb.formats.output import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.analysis.drift import Drift

#: More than can be told apart in a figure.
_MOST_POINTS = 20_000


def drift_figure(drift: Drift) -> Figure:
    """Draw the displacement over the movie, and in the plane.

    Parameters
    ----------
    drift : Drift
        What :func:`smlm_pb.analysis.estimate_drift` found; where it was not accepted, the proposed path is drawn
        dashed and the reason stands above it.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown; call its ``savefig``.
    """
    import textwrap

    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    over_time, plane = figure.subplots(1, 2, width_ratios=(2, 1))
    n_frames = len(drift.proposed_nm)
    frame = np.unique(np.linspace(0, n_frames - 1, min(n_frames, _MOST_POINTS)).round().astype(int))
    path = drift.proposed_nm[frame]
    style = "-" if drift.accepted else "--"
    for k, axis in enumerate("xy"):
        over_time.plot(frame, path[:, k], style, color=f"C{k}", linewidth=1, label=axis)
    over_time.set(xlabel="frame", ylabel="displacement (nm)")
    over_time.legend(frameon=False)
    title = f"drift ({drift.method})"
    if not drift.accepted:
        title = textwrap.fill("not applied: " + textwrap.shorten(drift.reason, 110), 64)
    elif np.isfinite(drift.error_nm):
        title += f", remaining error at least {drift.error_nm:.1f} nm per axis"
    over_time.set_title(title, fontsize=9)
    points = plane.scatter(*path.T, c=frame, s=3, cmap="viridis")
    plane.set(xlabel="x (nm)", ylabel="y (nm)")
    plane.set_aspect("equal", adjustable="datalim")  # a path along one axis needs room for the other's labels, too
    plane.set_title("path", fontsize=9)
    plane.invert_yaxis()  # as in the image
    figure.colorbar(points, ax=plane, label="frame")
    return figure


def save_path(drift: Drift, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the displacement of every frame as CSV: ``frame,dx_nm,dy_nm``."""
    with written_whole(Path(path), overwrite) as temporary:
        rows = np.column_stack([np.arange(len(drift.dx_nm)), drift.dx_nm, drift.dy_nm])
        np.savetxt(temporary, rows, fmt=("%d", "%.3f", "%.3f"), delimiter=",", header="frame,dx_nm,dy_nm", comments="")
    return Path(path)
