"""The sections of a report; each takes the findings and gives HTML, or nothing where there is nothing to tell."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.analysis import report_figures as figures
from smlm_pb.analysis.report_parts import (
    count,
    figure,
    grid,
    hint,
    number,
    pairs,
    section,
    share,
    table,
    text,
    tile,
)

if TYPE_CHECKING:
    from smlm_pb.analysis.drift import Drift
    from smlm_pb.analysis.report_findings import Findings


def header(found: Findings, heading: str) -> str:
    """Heading and one line that says what the table is."""
    info, step = found.locs.info, found.localize_step
    parts = [
        f"{count(len(found.locs))} {found.kind}",
        f"{count(info.n_frames)} frames of {info.height} × {info.width} px",
        f"{info.pixel_size_nm:g} nm pixels" if info.pixel_size_nm else "pixel size unknown",
    ]
    if step.get("model", {}).get("name"):
        parts.append(f"model {step['model']['name']}")
    return f'<header><h1>{text(heading)}</h1><p class="lead">{text(" · ".join(parts))}</p></header>'


def notice(found: Findings) -> str:
    """Warnings, or that there are none."""
    if not found.warnings:
        if not found.localize_step:
            return ""
        return '<div class="notice good">No warnings: the movie lies inside what the model was trained for.</div>'
    lines = "".join(f"<li>{text(line)}</li>" for line in found.warnings)
    return f'<div class="notice warn" role="alert"><b>Look at this first</b><ul>{lines}</ul></div>'


def summary(found: Findings) -> str:
    """The figures a microscopist asks for first."""
    if found.quality is None:
        return hint(text(found.reasons.get("molecules", "")))
    locs, quality, median = found.locs, found.quality, found.median
    each = "blink" if found.is_linked else "localization"
    tiles = [tile(count(len(locs)), "", f"{found.kind}, {number(found.per_frame)} per frame")]
    if locs.info.pixel_size_nm:
        area_um2 = locs.info.height * locs.info.width * (locs.info.pixel_size_nm / 1000) ** 2
        if area_um2:
            tiles.append(tile(number(found.per_frame / area_um2), "per µm²", f"{found.kind} in a frame"))
    if "photons" in median:
        tiles.append(tile(number(median["photons"]), "e⁻", f"photons per {each}, median"))
    if "background" in median:
        tiles.append(tile(number(median["background"]), "e⁻/px", "background, median"))
    if "sigma_nm" in median:
        tiles.append(tile(number(median["sigma_nm"]), "nm", f"stated precision σ of a {each}, median"))
    if quality.nena is not None:
        tiles.append(tile(number(quality.nena.sigma_nm), "nm", "measured precision σ in one frame (NeNA)"))
    if quality.frc is not None and math.isfinite(quality.frc.resolution_nm):
        tiles.append(tile(number(quality.frc.resolution_nm), "nm", "resolution of the image (FRC)"))
    if found.repeatability is not None:
        tiles.append(tile(number(found.repeatability.repeatability), "", "repeatability (photon splitting)"))
    threshold = found.localize_step.get("threshold", {})
    if threshold.get("jaccard") is not None:
        tiles.append(tile(number(threshold["jaccard"]), "", "expected Jaccard index"))
    if found.twin is not None:
        tiles.append(tile(number(found.twin.budget.jaccard), "", "Jaccard index of the digital twin"))
    if found.evaluation is not None and found.evaluation.scores:
        score = min(found.evaluation.scores, key=lambda entry: abs(entry.tolerance_nm - 50))
        tiles.append(tile(number(score.jaccard), "", f"true Jaccard index at {score.tolerance_nm:g} nm"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def molecules(found: Findings) -> str:
    """Histograms of what each molecule carries."""
    parts = [
        figure(
            figures.photons_figure(found),
            "Detected photo-electrons of a molecule " + ("while it was on." if found.is_linked else "in one frame."),
            "Photons",
        ),
        figure(
            figures.sigma_figure(found),
            "What the table states for each molecule. NeNA measures the same from molecules that stay on; it lies "
            "near the root mean square, a little above the median.",
            "Precision",
        ),
        figure(figures.background_figure(found), "Light per pixel under the molecules.", "Background"),
        figure(
            figures.probability_figure(found),
            "How sure the localizer is that there is a molecule. Many near the threshold are many doubtful ones.",
            "Probability",
        ),
        figure(figures.chi2_figure(found), "How well the pixels agree with the model of the spot.", "Goodness of fit"),
    ]
    return section("Molecules", grid(parts, "pair"))


def development(found: Findings) -> str:
    """How the movie develops."""
    if not found.over_time:
        return ""
    parts = [
        figure(
            figures.time_figure(found, "per_frame", f"{found.kind} per frame"),
            "Should change smoothly: a step is a change of focus or laser, a decay is bleaching.",
        ),
        figure(figures.time_figure(found, "photons", "median photons (e⁻)"), "Falls where focus is lost or dye fades."),
        figure(
            figures.time_figure(found, "background", "median background (e⁻/px)"),
            "Falls while out-of-focus light bleaches.",
        ),
    ]
    return section("Over time", grid(parts))


def drift(found: Findings, path: Drift | None = None) -> str:
    """Drift, where it was looked for: what was removed, or why nothing was."""
    step = found.locs.last_step("drift")
    if not step:
        return ""
    if not step.get("accepted", True):
        return section("Drift", hint(f"The drift was not corrected: {text(step.get('reason', ''))}."))
    along = " and ".join(f"{number(step.get(f'range_{axis}_nm'))} nm along {axis}" for axis in "xy")
    error = step.get("error_nm")
    left = "" if error is None else f" About {number(error, 2)} nm per axis are left, by two halves of the field."
    told = hint(
        f"The stage moved by {along}; this was taken out of the table (method: {text(step.get('method'))}).{left}"
    )
    frames, x_nm, y_nm = _drift_path(step, path)
    curve = figures.drift_figure(frames, x_nm, y_nm) if len(frames) else ""
    return section("Drift", told, grid([figure(curve, "Displacement of the stage over the movie.")], "single"))


def _drift_path(step: dict[str, Any], path: Drift | None) -> tuple[Any, Any, Any]:
    """Frames and displacements along x and y, thinned to what a figure can show."""
    if path is not None:
        shown = np.unique(np.linspace(0, len(path.dx_nm) - 1, min(len(path.dx_nm), 1000)).astype(int))
        return shown, path.dx_nm[shown], path.dy_nm[shown]
    stored = [np.asarray(step.get(name, ()), float) for name in ("path_frame", "path_x_nm", "path_y_nm")]
    return stored[0], stored[1], stored[2]


def precision(found: Findings) -> str:
    """NeNA, FRC and the sub-pixel histogram."""
    quality = found.quality
    if quality is None:
        return ""
    stay = ""
    if quality.nena is not None:
        stay = (
            f" {share(quality.nena.staying_fraction)} stay on from frame to frame; uncertainty "
            f"± {number(quality.nena.standard_error_nm, 2)} nm."
        )
        if quality.nena.pull is not None:
            stay += f" Actual / stated precision: <b>{quality.nena.pull:.2f}</b> (1 is honest)."
    spread = ""
    if quality.frc is not None and math.isfinite(quality.frc.spread_nm):
        spread = f" Spread over {quality.frc.n_repeats} splits: ± {number(quality.frc.spread_nm, 2)} nm."
    attraction = ", ".join(f"{axis} {number(part.attraction, 2)}" for axis, part in quality.sub_pixel.items())
    parts = [
        figure(
            figures.nena_figure(found),
            "Molecules that stay on for two frames tell the precision: the peak near zero is the same molecule twice."
            + stay,
            "Precision (NeNA)",
        ),
        figure(
            figures.frc_figure(found),
            "Two halves of the data, split by blocks of frames, agree down to this detail (1/7 criterion). Labels that "
            "blink again later still raise it: read it as a lower limit." + spread,
            "Resolution (FRC)",
        ),
        figure(
            figures.sub_pixel_figure(found),
            "Should be flat: molecules do not know the camera's pixels. Attraction to the centres, from −1 to 1: "
            f"{attraction}.",
            "Sub-pixel histogram",
        ),
    ]
    return section("Precision and resolution", grid(parts))


def splitting(found: Findings) -> str:
    """Photon splitting, where it was done."""
    result = found.repeatability
    if result is None:
        return ""
    scale, unit = (1.0, "px") if result.pixel_size_nm is None else (result.pixel_size_nm, "nm")
    rows = [
        (
            axis,
            f"{number(getattr(result, f'sigma_{axis}_px') * scale)} ± "
            f"{number(getattr(result, f'standard_error_{axis}_px') * scale, 2)} {unit}",
            f"{number(getattr(result, f'stated_sigma_{axis}_px') * scale)} {unit}",
            f"{getattr(result, f'pull_{axis}'):.2f}",
        )
        for axis in "xy"
    ]
    text_ = hint(
        f"The photons of {count(result.n_frames)} frames were divided at random into two independent half-exposures "
        f"and both localized: {count(result.n_first)} and {count(result.n_second)} molecules, {count(result.n_pairs)} "
        f"in both, a repeatability of <b>{result.repeatability:.3f}</b>. Their distances tell the precision on this "
        "very movie, as far as noise limits it; errors that both halves share, as of crowded neighbours, are not seen."
    )
    curve = figure(
        figures.repeatability_figure(result), "Measured and stated precision of the whole exposure, by brightness."
    )
    head = ("axis", "measured precision", "stated precision", "actual / stated")
    return section("Photon splitting", text_, table(head, rows), grid([curve], "single"))


def expectation(found: Findings) -> str:
    """What the probabilities promise."""
    expected = found.localize_step.get("threshold")
    if not expected:
        return ""
    chosen = "the best for the expected Jaccard index" if expected.get("automatic") else "as asked for"
    rows = [
        ("threshold", f"{expected['threshold']:.3f} ({chosen})"),
        ("expected Jaccard index", number(expected.get("jaccard"))),
        ("expected precision", f"{share(expected.get('precision'))} of what was found exists"),
        ("expected recall", f"{share(expected.get('recall'))} of the molecules were found"),
        (
            "expected numbers",
            f"{count(round(expected['true']))} true, {count(round(expected['false']))} false, "
            f"{count(round(expected['missed']))} missed",
        ),
    ]
    explanation = hint(
        "From the probabilities alone, without truth, when the movie was localized; as reliable as the probabilities "
        "are. They hold for movies like those the model was trained for."
    )
    return section("What to expect", explanation, pairs(rows))


def comparison(found: Findings) -> str:
    """Scores against the truth."""
    result = found.evaluation
    if result is None:
        reason = found.reasons.get("truth")
        return section("Comparison with the truth", hint(text(reason))) if reason else ""
    rows = [
        (
            f"{score.tolerance_nm:g} nm",
            f"<b>{number(score.jaccard)}</b>",
            number(score.chance_jaccard),
            share(score.precision),
            share(score.recall),
            f"{number(score.rmse_x_nm)} · {number(score.rmse_y_nm)} nm",
            f"{number(score.bias_x_nm, 2)} · {number(score.bias_y_nm, 2)} nm",
            f"{number(score.pull_std_x)} · {number(score.pull_std_y)}",
            number(score.photon_ratio),
        )
        for score in result.scores
    ]
    head = (
        "tolerance",
        "Jaccard",
        "by chance",
        "precision",
        "recall",
        "RMSE x · y",
        "bias x · y",
        "pull x · y",
        "photons",
    )
    explanation = hint(
        f"{count(result.n_truth)} true molecules, {number(result.density_per_um2)} per µm² and frame, paired one to "
        "one within the tolerance. <b>By chance</b>: the same molecules with their frames exchanged. <b>Pull</b>: "
        "error / stated precision, 1 is honest. <b>Photons</b>: found / true."
    )
    parts = []
    if found.reliability is not None:
        parts.append(
            figure(
                figures.reliability_figure(found.reliability),
                "On the dotted line a stated probability of 0.8 is true in 80 % of the cases. Calibration error "
                f"<b>{found.reliability.expected_calibration_error:.3f}</b> at {found.reliability.tolerance_nm:g} nm.",
                "Are the probabilities honest?",
            )
        )
    if found.pull is not None:
        parts.append(
            figure(
                figures.pull_figure(found.pull),
                "The two curves coincide where the stated precision is honest at every density.",
                "Are the precisions honest?",
            )
        )
    return section("Comparison with the truth", explanation, table(head, rows), grid(parts, "pair"))


def history(found: Findings) -> str:
    """How the table was made: step by step for people, and complete for programs."""
    steps = found.locs.provenance
    if not steps:
        return section("How it was made", hint("The table does not tell how it was made."))
    items = "".join(f"<li><b>{text(step.get('step', 'step'))}</b>{_describe(step)}</li>" for step in steps)
    complete = json.dumps(steps, indent=2, ensure_ascii=False, default=str)
    return section(
        "How it was made",
        f'<ol class="steps">{items}</ol>',
        f"<details><summary>Complete record (JSON)</summary><pre>{text(complete)}</pre></details>",
    )


def _describe(step: dict[str, Any]) -> str:
    if step.get("step") == "localize":
        return _describe_localize(step)
    rows = [(name, _plain(value)) for name, value in step.items() if name != "step" and _is_short(value)]
    return pairs(rows)


def _describe_localize(step: dict[str, Any]) -> str:
    conditions, movie, model = (step.get(name, {}) for name in ("conditions", "movie", "model"))
    camera, origin = conditions.get("camera", {}), conditions.get("origin", {})
    first, stop = movie.get("frames") or (0, 0)
    frames = f", frames {first} to {stop - 1}" if stop else ""

    def told(name: str, value: Any, unit: str) -> tuple[str, str]:
        where = f" ({origin[name]})" if name in origin else ""
        return name.replace("_", " "), ("unknown" if value is None else f"{value:.5g} {unit}".strip()) + where

    rows: list[tuple[str, object]] = [
        ("movie", f"{movie.get('source') or movie.get('name', '')}{frames}"),
        ("fingerprint of the movie", movie.get("fingerprint", "")),
        ("model", f"{model.get('name')} ({str(model.get('sha256', ''))[:12]}), on {model.get('device')}"),
        told("pixel_size_nm", conditions.get("pixel_size_nm"), "nm"),
        told("offset_adu", camera.get("offset_adu"), "ADU"),
        told("e_per_adu", camera.get("e_per_adu"), "e⁻/ADU"),
        told("em_gain", camera.get("em_gain"), ""),
        told("psf_sigma_px", conditions.get("psf_sigma_px"), "px"),
        told("background_e", conditions.get("background_e"), "e⁻/px"),
        ("program", f"smlm-pb {step.get('version', '')}"),
        ("command", step.get("command", "")),
    ]
    return pairs(rows)


def _is_short(value: Any) -> bool:
    return not (isinstance(value, list | tuple) and len(value) > 12) and value not in (None, [], {}, "")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(entry)}" for name, entry in value.items() if _is_short(entry))
    if isinstance(value, list | tuple):
        return ", ".join(_plain(entry) for entry in value)
    return str(value)
