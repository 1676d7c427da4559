"""The part of a report that tells whether the movie lies inside what its model was trained for, and where not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.analysis.report_parts import figure, grid, hint, number, section, table
from smlm_pb.analysis.report_svg import FIRST, INK, MUTED, SECOND, THIRD_IN, drawing

if TYPE_CHECKING:
    from smlm_pb.analysis.report_findings import Findings

#: Names for people, units, in the order in which they are shown.
_QUANTITIES = {
    "density_per_px2": ("density", "per px and frame"),
    "photons": ("photons", "e⁻"),
    "background_e": ("background", "e⁻/px"),
    "psf_sigma_px": ("PSF sigma", "px"),
}
_LEVELS = ("inside", "outside", "far outside")


def training_range(found: Findings) -> str:
    """Every quantity against the model's range, and a map of the tiles where one lies outside."""
    record = found.localize_step.get("range")
    if not record:
        return ""
    rows = [_row(name, record["quantities"][name]) for name in _QUANTITIES if name in record["quantities"]]
    level = np.asarray(record["tile_level"])
    worst = max(int(record["level"]), int(level.max(initial=0)))
    outside = int((level > 0).sum())
    told = (
        "The movie and all its parts lie inside what the model was trained for."
        if worst == 0
        else f"{outside} of {level.size} parts of the field lie outside of what the model was trained for: what it "
        "says of existence and precision may not hold there. The warnings say what to do."
    )
    head = ("quantity", "trained for", "this movie", "parts of the field", "parts outside")
    pictures = grid([figure(_map(record, level), "Parts of the field, by how far they lie outside.")], "single")
    return section("Inside the model's range?", hint(told), table(head, rows), pictures if worst else "")


def _row(name: str, quantity: dict[str, Any]) -> tuple[str, ...]:
    label, unit = _QUANTITIES[name]
    low, high = quantity["trained"]
    known = [value for row in quantity["tiles"] for value in row if value is not None and math.isfinite(value)]
    level = np.asarray(quantity["tile_level"])
    movie = "–" if quantity["movie"] is None else number(quantity["movie"])
    if quantity["level"]:
        movie = f"<b>{movie}, {_LEVELS[quantity['level']]}</b>"
    return (
        f"{label} ({unit})",
        f"{number(low)} to {number(high)}",
        movie,
        f"{number(min(known))} to {number(max(known))}" if known else "–",
        f"{int((level > 0).sum())} of {level.size}",
    )


def _map(record: dict[str, Any], level: Any) -> str:
    from matplotlib.patches import Rectangle

    edges_y, edges_x = record["edges_y"], record["edges_x"]
    with drawing(
        "range", "map of the parts outside of the model's range", width_in=THIRD_IN, height_in=THIRD_IN
    ) as one:
        for row in range(level.shape[0]):
            for column in range(level.shape[1]):
                corner = (edges_x[column] - 0.5, edges_y[row] - 0.5)
                width, height = edges_x[column + 1] - edges_x[column], edges_y[row + 1] - edges_y[row]
                colour, opacity = ((MUTED, 0.1), (FIRST, 0.4), (SECOND, 0.8))[int(level[row, column])]
                one.axes.add_patch(Rectangle(corner, width, height, color=colour, alpha=opacity, linewidth=0))
                if level[row, column]:
                    middle = (corner[0] + width / 2, corner[1] + height / 2)
                    one.axes.text(*middle, _initials(record, row, column), ha="center", va="center", color=INK)
        one.axes.grid(visible=False)
        one.axes.set(xlim=(-0.5, edges_x[-1] - 0.5), ylim=(edges_y[-1] - 0.5, -0.5), xlabel="x (px)", ylabel="y (px)")
        one.axes.set_aspect("equal")
    return one.svg


def _initials(record: dict[str, Any], row: int, column: int) -> str:
    """What lies outside there, so that the map does not speak by colour alone."""
    outside = [
        label
        for name, (label, _) in _QUANTITIES.items()
        if name in record["quantities"] and record["quantities"][name]["tile_level"][row][column]
    ]
    return "\n".join(outside)
