"""Adding frames as a figure: what is found again against the density."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.analysis.superposition_result import Superposition


def superposition_figure(found: Superposition) -> Figure:
    """Draw the result of :func:`smlm_pb.analysis.superposition`.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown; call its ``savefig``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    in_um = found.pixel_size_nm is not None
    scale = found.per_um2(1.0) if in_um else 1.0
    density = np.array([level.density_per_px2 for level in found.levels]) * scale
    for name, label, style in (
        ("recall", "found again (recall)", "C0^:"),
        ("precision", "of what is found (precision)", "C2s:"),
        ("jaccard", "Jaccard index", "C3o-"),
    ):
        axes.plot(density, [getattr(level, name) for level in found.levels], style, label=label)
    axes.axhline(found.least_jaccard, color="0.6", linewidth=0.8)
    if np.isfinite(found.usable_per_px2) and not found.reaches_the_end:
        axes.axvline(found.usable_per_px2 * scale, color="0.6", linewidth=0.8, linestyle="--")
    axes.axvline(found.density_per_px2 * scale, color="k", linewidth=0.8, linestyle="-.", label="this movie")
    axes.set(
        xscale="log",
        ylim=(0, 1.02),
        xlabel=f"molecules per {'µm²' if in_um else 'pixel'} (frames added: "
        f"{', '.join(str(level.added) for level in found.levels)})",
    )
    axes.legend(frameon=False, fontsize=8)
    return figure
