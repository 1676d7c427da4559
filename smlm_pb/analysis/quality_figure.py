"""The findings about a table as one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.analysis.resolution import THRESHOLD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.analysis.quality_report import Quality
    from smlm_pb.localizations import Localizations


def quality_figure(locs: Localizations, found: Quality) -> Figure:
    """Draw precision, resolution, development, spreads and the sub-pixel histogram.

    Parameters
    ----------
    locs : Localizations
        The table.
    found : Quality
        What :func:`smlm_pb.analysis.quality` said of it.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown; call its ``savefig``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 3)
    _draw_nena(axes[0, 0], found)
    _draw_frc(axes[0, 1], found)
    _draw_development(axes[0, 2], found)
    _draw_spread(axes[1, 0], locs, "photons", "photons (e⁻)")
    _draw_spread(axes[1, 1], locs, "sigma_nm", "reported precision (nm)")
    _draw_sub_pixel(axes[1, 2], found)
    return figure


def _draw_nena(axes: Any, found: Quality) -> None:
    axes.set(xlabel="distance to the nearest in the next frame (nm)", ylabel="fraction", title="NeNA")
    if found.nena is None:
        _say(axes, found.reasons.get("NeNA", ""))
        return
    axes.step(found.nena.distance_nm, found.nena.observed, where="mid", color="0.5", label="found")
    axes.plot(found.nena.distance_nm, found.nena.fitted, color="C3", label=f"σ = {found.nena.sigma_nm:.1f} nm per axis")
    axes.legend(frameon=False)


def _draw_frc(axes: Any, found: Quality) -> None:
    axes.set(xlabel="spatial frequency (1/nm)", ylabel="correlation", title="Fourier ring correlation", ylim=(-0.1, 1))
    if found.frc is None:
        _say(axes, found.reasons.get("FRC", ""))
        return
    label = f"{found.frc.resolution_nm:.0f} nm"
    axes.plot(found.frc.frequency_per_nm, found.frc.correlation, color="C0", label=label)
    axes.axhline(THRESHOLD, color="0.5", linestyle=":", label="1/7")
    axes.legend(frameon=False)


def _draw_development(axes: Any, found: Quality) -> None:
    n_blocks = len(found.per_block)
    centres = found.first_frame + (np.arange(n_blocks) + 0.5) * found.n_frames / max(n_blocks, 1)
    axes.plot(centres, found.per_block, color="C0")
    axes.set(xlabel="frame", ylabel="localizations per frame", title="development", ylim=(0, None))


def _draw_spread(axes: Any, locs: Localizations, name: str, label: str) -> None:
    axes.set(xlabel=label, ylabel="localizations")
    known = name in locs or (
        name == "sigma_nm" and "sigma_x" in locs and "sigma_y" in locs and locs.info.pixel_size_nm is not None
    )
    if not known:
        _say(axes, f"no {name} in the table")
        return
    values = locs[name] if name in locs else locs.derived(name)
    values = values[np.isfinite(values)]
    if len(values):
        axes.hist(values, bins=100, range=(0, float(np.percentile(values, 99.5)) or 1.0), color="C0")


def _draw_sub_pixel(axes: Any, found: Quality) -> None:
    for axis, histogram in found.sub_pixel.items():
        axes.stairs(histogram.fraction * len(histogram.fraction), histogram.edges_px, label=axis)
    axes.axhline(1, color="0.5", linestyle=":")
    axes.set(xlabel="position within the pixel (px)", ylabel="relative frequency", title="sub-pixel histogram")
    axes.set_ylim(0, None)
    axes.legend(frameon=False)


def _say(axes: Any, text: str) -> None:
    import textwrap

    axes.text(0.5, 0.5, textwrap.fill(text, 36), ha="center", va="center", transform=axes.transAxes, fontsize=8)
