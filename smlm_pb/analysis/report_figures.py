"""The figures of a report, each as SVG in the colours of the page, or ``""`` where there is nothing to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.report_parts import number
from smlm_pb.analysis.report_svg import (
    FIRST,
    INK,
    MUTED,
    SECOND,
    THIRD,
    THIRD_IN,
    drawing,
    histogram,
    legend,
    say,
)
from smlm_pb.analysis.resolution import THRESHOLD
from smlm_pb.analysis.split_figure import draw_repeatability

if TYPE_CHECKING:
    from smlm_pb.analysis.report_findings import Findings
    from smlm_pb.analysis.split_comparison import Repeatability
    from smlm_pb.evaluation import PullByDensity, Reliability


def time_figure(found: Findings, name: str, ylabel: str) -> str:
    """A quantity over the frames of the movie."""
    values = found.over_time.get(name)
    if values is None:
        return ""
    with drawing(f"time-{name}", f"{ylabel} over time", width_in=THIRD_IN, height_in=2.2) as one:
        one.axes.stairs(values, found.frame_edges, color=FIRST, baseline=None, linewidth=1.5)
        one.axes.set(xlabel="frame", ylabel=ylabel, xlim=(found.frame_edges[0], found.frame_edges[-1]))
        one.axes.set_ylim(0, 1.08 * float(np.nanmax(values)) if np.isfinite(values).any() else 1)
    return one.svg


def photons_figure(found: Findings) -> str:
    """Photons per localization."""
    return _spread(found, "photons", "photons (e⁻)")


def background_figure(found: Findings) -> str:
    """Background per pixel at the molecules."""
    return _spread(found, "background", "background (e⁻/px)")


def chi2_figure(found: Findings) -> str:
    """Goodness of fit, where molecules were refined."""
    return _spread(found, "chi2", "χ² of the spot against its model")


def sigma_figure(found: Findings) -> str:
    """Stated precision, with the measured one where there is one."""
    locs = found.locs
    if "sigma_nm" not in found.median:
        return ""
    with drawing("sigma", "histogram of the stated precision") as one:
        histogram(one.axes, locs.derived("sigma_nm"), low=0.0)
        _mark(one.axes, found.median["sigma_nm"], f"median {found.median['sigma_nm']:.1f} nm", INK)
        if found.quality is not None and found.quality.nena is not None and not found.is_linked:
            measured = found.quality.nena.sigma_nm
            one.axes.axvline(measured, color=SECOND, linestyle="--", label=f"measured (NeNA) {measured:.1f} nm")
        one.axes.set(xlabel="stated precision σ (nm)", ylabel=found.kind)
        legend(one.axes)
    return one.svg


def probability_figure(found: Findings) -> str:
    """Probabilities of existence above the threshold."""
    if "probability" not in found.median:
        return ""
    with drawing("probability", "histogram of the probabilities") as one:
        histogram(one.axes, found.locs["probability"], low=0.0, high=1.0)
        threshold = found.localize_step.get("threshold", {}).get("threshold")
        if isinstance(threshold, float | int):
            one.axes.axvline(threshold, color=SECOND, linestyle="--", label=f"threshold {threshold:.2f}")
            legend(one.axes)
        one.axes.set(xlabel="probability that the molecule exists", ylabel=found.kind)
    return one.svg


def sub_pixel_figure(found: Findings) -> str:
    """Where molecules lie within the camera pixels."""
    if found.quality is None:
        return ""
    with drawing("subpixel", "sub-pixel histogram", width_in=THIRD_IN) as one:
        top = 1.5
        for (axis, part), colour in zip(found.quality.sub_pixel.items(), (FIRST, SECOND), strict=True):
            relative = part.fraction * len(part.fraction)
            one.axes.stairs(relative, part.edges_px, color=colour, label=axis, baseline=None, linewidth=1.6)
            top = max(top, 1.1 * float(relative.max()))
        one.axes.axhline(1, color=MUTED, linestyle=":")
        one.axes.set(xlabel="position within the pixel (px)", ylabel="relative frequency", xlim=(-0.5, 0.5))
        one.axes.set_ylim(0, top)
        legend(one.axes)
    return one.svg


def nena_figure(found: Findings) -> str:
    """Distances to the nearest molecule of the next frame."""
    with drawing("nena", "nearest-neighbour analysis of consecutive frames", width_in=THIRD_IN) as one:
        precision = None if found.quality is None else found.quality.nena
        if precision is None:
            say(one.axes, found.reasons.get("NeNA", "not computed"))
        else:
            edges = np.append(precision.distance_nm, 2 * precision.distance_nm[-1] - precision.distance_nm[-2])
            edges = edges - precision.distance_nm[0]
            one.axes.stairs(precision.observed, edges, fill=True, color=FIRST, alpha=0.45, label="found")
            one.axes.plot(
                precision.distance_nm, precision.fitted, color=SECOND, label=f"σ = {precision.sigma_nm:.1f} nm per axis"
            )
            one.axes.set(xlabel="nearest distance in next frame (nm)", ylabel="fraction", xlim=(0, edges[-1]))
            legend(one.axes)
    return one.svg


def frc_figure(found: Findings) -> str:
    """Fourier ring correlation."""
    with drawing("frc", "Fourier ring correlation", width_in=THIRD_IN) as one:
        resolution = None if found.quality is None else found.quality.frc
        if resolution is None:
            say(one.axes, found.reasons.get("FRC", "not computed"))
        else:
            per_um = resolution.frequency_per_nm * 1000
            one.axes.plot(per_um, resolution.correlation, color=FIRST)
            one.axes.axhline(THRESHOLD, color=MUTED, linestyle=":", label="1/7")
            if np.isfinite(resolution.resolution_nm):
                where = 1000 / resolution.resolution_nm
                label = f"resolution {resolution.resolution_nm:.0f} nm"
                one.axes.plot([where], [THRESHOLD], "o", color=SECOND, label=label)
                one.axes.set_xlim(0, min(float(per_um[-1]), 4 * where))
            one.axes.set(xlabel="spatial frequency (1/µm)", ylabel="correlation", ylim=(-0.1, 1.02))
            legend(one.axes)
    return one.svg


def drift_figure(frame: npt.NDArray[Any], x_nm: npt.NDArray[Any], y_nm: npt.NDArray[Any]) -> str:
    """Drift of the sample over the frames."""
    with drawing("drift", "drift of the sample over time", width_in=7.2, height_in=2.9) as one:
        one.axes.plot(frame, x_nm, color=FIRST, label="x")
        one.axes.plot(frame, y_nm, color=SECOND, label="y")
        one.axes.set(xlabel="frame", ylabel="drift (nm)")
        legend(one.axes)
    return one.svg


def reliability_figure(curve: Reliability) -> str:
    """Reported probability against what exists."""
    with drawing("reliability", "reliability of the probabilities", height_in=3.2) as one:
        one.axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.2)
        filled = curve.count > 0
        size = 14 + 120 * curve.count[filled] / curve.count.max()
        one.axes.plot(curve.mean_probability[filled], curve.observed[filled], color=FIRST, linewidth=1.2)
        one.axes.scatter(curve.mean_probability[filled], curve.observed[filled], s=size, color=FIRST)
        one.axes.set(xlabel="stated probability", ylabel="fraction that exists", xlim=(0, 1.04), ylim=(0, 1.04))
    return one.svg


def pull_figure(pull: PullByDensity) -> str:
    """Actual and stated error by density."""
    edges = pull.density_edges_per_um2
    known = [k for k in range(len(pull.count)) if pull.count[k] > 1]
    if not known:
        return ""
    names = [f"{edges[k]:g}–{edges[k + 1]:g}" if np.isfinite(edges[k + 1]) else f"≥ {edges[k]:g}" for k in known]
    with drawing("pull", "actual and stated error by density", height_in=3.2) as one:
        one.axes.plot(names, pull.rmse_nm[known], "o-", color=SECOND, label="actual error (RMS)")
        one.axes.plot(names, pull.reported_nm[known], "s--", color=FIRST, label="stated precision (RMS)")
        one.axes.set(xlabel="molecules per µm² around it", ylabel="nm per axis")
        one.axes.set_ylim(0, None)
        legend(one.axes)
    return one.svg


def repeatability_figure(found: Repeatability) -> str:
    """Measured and stated precision, and repeatability, by photons."""
    if not found.by_photons:
        return ""
    with drawing("splitting", "precision by photon splitting", width_in=7.2, height_in=3.2) as one:
        legend(one.axes, draw_repeatability(one.axes, found, (SECOND, FIRST, THIRD)))
    return one.svg


def _spread(found: Findings, name: str, label: str) -> str:
    if name not in found.median:
        return ""
    with drawing(name, f"histogram of {name}") as one:
        histogram(one.axes, found.locs[name], low=0.0)
        _mark(one.axes, found.median[name], f"median {number(found.median[name])}", INK)
        one.axes.set(xlabel=label, ylabel=found.kind)
        legend(one.axes)
    return one.svg


def _mark(axes: Any, value: float, label: str, colour: str) -> None:
    axes.axvline(value, color=colour, linestyle="-", linewidth=1.2, label=label)
