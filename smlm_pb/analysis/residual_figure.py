"""What is left over as a figure: χ² of the tiles, the mean residual, and where the suspicions lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from smlm_pb.analysis.residual_result import SUSPICIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.analysis.residual_result import ResidualMap

_MARKS = {"missed": ("C3", "o"), "false": ("C0", "x"), "merged": ("C1", "s")}
_MOST_MARKS = 3000


def residual_figure(found: ResidualMap) -> Figure:
    """Draw the result of :func:`smlm_pb.analysis.residual_map`.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown; call its ``savefig``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    tiles, mean, places = figure.subplots(1, 3)
    height, width = found.mean_residual.shape
    rows, columns = found.chi2.shape
    extent = (-0.5, columns * found.tile_px - 0.5, rows * found.tile_px - 0.5, -0.5)
    largest = max(1.5, float(np.nanmax(found.chi2)))
    shown = tiles.imshow(found.chi2, extent=extent, cmap="magma", vmin=0.5, vmax=largest)
    tiles.set_title("χ² per pixel (1 is noise)", fontsize=9)
    figure.colorbar(shown, ax=tiles, shrink=0.8)
    limit = max(4.0, float(np.percentile(np.abs(found.mean_residual), 99.5)))
    shown = mean.imshow(found.mean_residual, cmap="RdBu_r", vmin=-limit, vmax=limit)
    mean.set_title(f"mean residual of {found.n_frames} frames (σ)", fontsize=9)
    figure.colorbar(shown, ax=mean, shrink=0.8)
    for name, number in SUSPICIONS.items():
        part = np.flatnonzero(found.suspects["suspicion"] == number)[:_MOST_MARKS]
        colour, mark = _MARKS[name]
        places.plot(
            found.suspects["x"][part],
            found.suspects["y"][part],
            mark,
            color=colour,
            markersize=3,
            fillstyle="none",
            label=f"{name} ({found.count(name)})",
        )
    places.set(aspect="equal")
    places.set_title("suspicions", fontsize=9)
    places.legend(fontsize=7, loc="upper right")
    for axes in (tiles, mean, places):
        axes.set(xlabel="x (px)", ylabel="y (px)", xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return figure
