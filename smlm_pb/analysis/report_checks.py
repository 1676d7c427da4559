"""The parts of a report that judge the table against its movie: the digital twin, and what is left over."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.report_parts import count, figure, grid, hint, number, section, table, text
from smlm_pb.analysis.report_svg import FIRST, HALF_IN, INK, MUTED, SECOND, drawing, picture_svg
from smlm_pb.analysis.residual_result import SUSPICIONS
from smlm_pb.evaluation.error_kinds import ERRORS
from smlm_pb.evaluation.error_table import MEANING

if TYPE_CHECKING:
    from smlm_pb.analysis.report_findings import Findings
    from smlm_pb.analysis.residual_result import ResidualMap
    from smlm_pb.analysis.twin import DigitalTwin
    from smlm_pb.evaluation import ErrorBudget

#: Marks that a picture can show before they hide it.
_MOST_MARKS = 1500
_LIKENESS = {
    "per_frame": "molecules found per frame",
    "photons": "photons, median (e⁻)",
    "background": "background, median (e⁻/px)",
    "sigma_px": "stated precision, median (px)",
}


def twin_section(found: Findings) -> str:
    """What errors cost, by a simulated movie that is like this one."""
    twin = found.twin
    if twin is None:
        return ""
    told = hint(
        "A movie like this one was simulated, with the same camera, PSF width, background, brightness and number of "
        "molecules in the same places, and localized in the same way. Its truth is known, so its errors can be told "
        f"apart: Jaccard index <b>{number(twin.budget.jaccard)}</b> at {twin.budget.tolerance_nm:g} nm."
    )
    advice = twin.budget.advice() or [twin.advice()]
    sentences = "".join(f"<li>{text(sentence)}</li>" for sentence in advice)
    bars = figure(
        _budget_figure(twin.budget), "Gain of the Jaccard index if errors of this kind alone were mended.", "What costs"
    )
    notes = "".join(hint(f"Note: {text(note)}") for note in twin.notes)
    return section(
        "What errors cost (digital twin)",
        told,
        f'<div class="notice {"warn" if twin.budget.advice() else "good"}"><b>What to do</b><ul>{sentences}</ul></div>',
        grid([bars, f"<figure><h3>Is the twin like the movie?</h3>{_likeness(twin)}</figure>"], "pair"),
        _budget_table(twin.budget),
        notes,
    )


def _likeness(twin: DigitalTwin) -> str:
    rows = [
        (label, number(ours), number(theirs))
        for name, label in _LIKENESS.items()
        for ours, theirs in [twin.likeness.get(name, (math.nan, math.nan))]
        if not (math.isnan(ours) and math.isnan(theirs))
    ]
    return table(("", "this movie", "its twin"), rows)


def _budget_table(budget: ErrorBudget) -> str:
    rows = [
        (
            f"<b>{kind}</b>: {MEANING[kind]}",
            count(budget.counts[kind]),
            number(budget.delta_jaccard[kind], 2),
            number(budget.delta_efficiency[kind], 2),
        )
        for kind in ERRORS
    ]
    return table(("error", "number", "gain of J", "gain of efficiency"), rows)


def _budget_figure(budget: ErrorBudget) -> str:
    with drawing("twin", "gain of the Jaccard index for every kind of error", width_in=HALF_IN, height_in=2.7) as one:
        gains = [budget.delta_jaccard[kind] for kind in ERRORS]
        one.axes.barh(range(len(ERRORS)), gains, color=FIRST, alpha=0.8, height=0.65)
        for place, gain in enumerate(gains):
            one.axes.text(gain, place, f" {gain:.3f}", va="center", color=INK)
        one.axes.set_yticks(range(len(ERRORS)), ERRORS)
        one.axes.invert_yaxis()
        one.axes.grid(visible=False, axis="y")
        one.axes.set(xlabel="gain of the Jaccard index", xlim=(0, max(0.05, 1.25 * max(gains))))
    return one.svg


def residual_section(found: Findings) -> str:
    """What the table does not explain of its movie."""
    result = found.residuals
    if result is None:
        return ""
    told = hint(
        f"The {count(result.n_molecules)} molecules in {count(result.n_frames)} frames were fitted to the pixels and "
        "taken out. What is left over tells, without truth, what looks missed, false or merged."
    )
    shares = [
        (f"<b>suspected {name}</b>: {meaning}", count(result.count(name)), number(100 * result.share(name), 2))
        for name, meaning in (
            ("missed", "light without a molecule"),
            ("false", "molecules the pixels do not need"),
            ("merged", "molecules that look like several"),
        )
    ]
    pictures = [
        figure(
            _suspicions(result),
            f"<b>What is left over, on average</b>: blue less, red more light than the molecules explain, up to "
            f'{_limit(result):.0f} standard deviations. <span class="key-found">Circles: suspected missed</span>, '
            '<span class="key-true">crosses: suspected false</span>, squares: suspected merged.',
        ),
        figure(
            _chi2_figure(result),
            "Squared residual of the pixels of each tile in units of the noise: 1 where molecules and noise explain "
            f"them. All pixels {number(result.chi2_total)}, far from molecules {number(result.chi2_background)}.",
            "χ² of the parts of the field",
        ),
    ]
    notes = "".join(hint(f"Note: {text(note)}") for note in result.notes)
    return section(
        "What is left over",
        told,
        table(("", "number", "per 100 molecules"), shares),
        f"<p>{text(result.advice())}</p>",
        grid(pictures, "pair"),
        notes,
    )


def _limit(result: ResidualMap) -> float:
    """Residual at full colour; the rim of the frame, where light comes from outside, must not dim the rest."""
    return max(4.0, float(np.percentile(np.abs(result.mean_residual), 95)))


def _suspicions(result: ResidualMap) -> str:
    """The mean residual with a mark for every suspicion."""
    relative = np.clip(result.mean_residual / _limit(result), -1, 1)
    picture = _diverging(relative)
    shapes = {
        "missed": lambda x, y: f'<circle class="found" cx="{x:.1f}" cy="{y:.1f}" r="1"/>',
        "false": lambda x, y: f'<path class="true" d="M{x - 0.7:.1f} {y:.1f}h1.4m-0.7 -0.7v1.4"/>',
        "merged": lambda x, y: f'<rect class="merged" x="{x - 0.8:.1f}" y="{y - 0.8:.1f}" width="1.6" height="1.6"/>',
    }
    marks = []
    for name, code in SUSPICIONS.items():
        rows = np.flatnonzero(result.suspects["suspicion"] == code)
        rows = rows[np.argsort(-np.abs(result.suspects["score"][rows]), kind="stable")][: _MOST_MARKS // 3]
        marks += [shapes[name](float(result.suspects["x"][row]), float(result.suspects["y"][row])) for row in rows]
    return picture_svg(picture, "mean residual of the movie", marks="".join(marks), pixelated=True)


def _diverging(relative: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Blue below, black at, red above zero: next to black the marks stay visible in either theme."""
    red, blue = np.clip(relative, 0, 1), np.clip(-relative, 0, 1)
    picture = np.stack([red + 0.25 * blue, 0.35 * red + 0.55 * blue, 0.2 * red + blue], axis=-1)
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _chi2_figure(result: ResidualMap) -> str:
    from matplotlib.patches import Rectangle

    rows, columns = result.chi2.shape
    side = result.tile_px
    with drawing("chi2-tiles", "χ² of the tiles of the field", width_in=HALF_IN, height_in=HALF_IN) as one:
        for row, column in np.ndindex(rows, columns):
            value = float(result.chi2[row, column])
            if not math.isfinite(value):
                continue
            corner = (column * side - 0.5, row * side - 0.5)
            shade = min(1.0, abs(math.log(max(value, 0.05))) / math.log(4))
            colour = FIRST if value < 1 else SECOND
            one.axes.add_patch(Rectangle(corner, side, side, color=colour, alpha=0.08 + 0.8 * shade, linewidth=0))
            if rows * columns <= 100:
                middle = (corner[0] + side / 2, corner[1] + side / 2)
                one.axes.text(*middle, f"{value:.2f}", ha="center", va="center", color=INK, fontsize=8)
        height, width = result.mean_residual.shape
        one.axes.grid(visible=False)
        one.axes.tick_params(color=MUTED)
        one.axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xlabel="x (px)", ylabel="y (px)")
        one.axes.set_aspect("equal")
    return one.svg
