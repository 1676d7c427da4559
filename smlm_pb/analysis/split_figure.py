"""Photon splitting as a figure: measured and stated precision, and repeatability, by brightness."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.analysis.split_comparison import Repeatability


def repeatability_figure(found: Repeatability) -> Figure:
    """Draw the result of :func:`smlm_pb.analysis.repeatability`.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown; call its ``savefig``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    handles = draw_repeatability(axes, found, ("C3", "C0", "C2"))
    axes.legend(*handles, loc="lower left", ncols=3, frameon=False)
    return figure


def draw_repeatability(axes: Any, found: Repeatability, colours: tuple[str, str, str]) -> tuple[list[Any], list[str]]:
    """Draw onto axes; returns the handles and labels of the key."""
    scale, unit = (1.0, "px") if found.pixel_size_nm is None else (found.pixel_size_nm, "nm")
    photons = [math.sqrt(max(part.low, 1.0) * max(part.high, 1.0)) for part in found.by_photons]
    measured = [part.sigma_px * scale for part in found.by_photons]
    error = [m / math.sqrt(4 * max(p.pairs - 1, 1)) for m, p in zip(measured, found.by_photons, strict=True)]
    stated = [part.stated_sigma_px * scale for part in found.by_photons]
    axes.errorbar(photons, measured, error, color=colours[0], marker="o", label="measured precision")
    axes.plot(photons, stated, "s--", color=colours[1], label="stated precision")
    axes.set(xlabel="photons of the whole exposure (e⁻)", ylabel=f"precision per axis ({unit})")
    axes.set_ylim(0, None)
    right = axes.twinx()
    right.plot(
        photons, [part.repeatability for part in found.by_photons], "^:", color=colours[2], label="repeatability"
    )
    right.set(ylabel="repeatability", ylim=(0, 1.05))
    right.grid(False)
    right.spines["right"].set_visible(True)
    (first, labels), (second, more) = axes.get_legend_handles_labels(), right.get_legend_handles_labels()
    return first + second, labels + more
