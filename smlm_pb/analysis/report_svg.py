"""Figures for a page that may be light, dark or printed: vector graphics that take their colours from the page.

matplotlib draws with placeholder colours; in the finished SVG they become the variables of the page's style sheet. One
figure so serves both themes, stays sharp at any size, and its text can be searched.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Placeholders that no figure uses for anything else, and the variables of the page they stand for.
INK, MUTED, RULE, FIRST, SECOND, THIRD = "#010102", "#010103", "#010104", "#010105", "#010106", "#010107"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
}
#: Widths of figures two and three beside each other, such that their text is equally large on the page.
HALF_IN, THIRD_IN = 5.3, 3.5
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.limits": (-4, 6),
    "axes.unicode_minus": True,
}


class Drawing:
    """One figure while it is drawn; :attr:`svg` holds it afterwards."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure, self.axes, self.svg = figure, axes, ""


@contextmanager
def drawing(identity: str, label: str, *, width_in: float = HALF_IN, height_in: float = 2.7) -> Iterator[Drawing]:
    """Draw one figure in the style of the page.

    Parameters
    ----------
    identity : str
        Unique on the page; keeps the names inside different figures apart.
    label : str
        What the figure shows, for those who cannot see it.
    width_in, height_in : float
        Proportions, and size of the text relative to them.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": identity}):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        started = Drawing(figure, axes)
        yield started
        started.svg = _to_svg(figure, identity, label)


def _to_svg(figure: Figure, identity: str, label: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head = re.match(r"<svg[^>]*>", text)
    assert head is not None
    view = re.search(r'viewBox="([^"]*)"', head[0])
    assert view is not None
    text = f'<svg viewBox="{view[1]}" role="img" aria-label="{escape(label, quote=True)}">{text[head.end() :]}'
    text = re.sub(r'\bid="([^"]+)"', rf'id="{identity}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{identity}-", text)
    # The page's typeface instead of the one that happens to be installed where the figure was drawn.
    text = re.sub(r"font: (?:[\w.]+ )*?([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, variable)
    return text


def png_data(picture: npt.NDArray[np.uint8]) -> str:
    """A picture (height, width) or (height, width, 3) as a ``data:`` address."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    imsave(buffer, np.ascontiguousarray(picture), format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def picture_svg(
    picture: npt.NDArray[np.uint8],
    label: str,
    *,
    box_px: tuple[float, float, float, float] | None = None,
    marks: str = "",
    pixelated: bool = False,
) -> str:
    """A picture with marks on it, in coordinates where the centre of its first pixel is 0.

    Parameters
    ----------
    picture : uint8 array (height, width) or (height, width, 3)
        The picture.
    label : str
        What it shows.
    box_px : (float, float, float, float), optional
        A rectangle to mark: top, left, bottom, right.
    marks : str
        SVG elements in the same coordinates.
    pixelated : bool
        Whether enlarged pixels stay squares.
    """
    height, width = picture.shape[:2]
    frame = ""
    if box_px is not None:
        top, left, bottom, right = box_px
        frame = (
            f'<rect class="box" x="{left:.2f}" y="{top:.2f}" width="{right - left:.2f}" height="{bottom - top:.2f}"/>'
        )
    sharp = ' style="image-rendering: pixelated"' if pixelated else ""
    name = escape(label, quote=True)
    return (
        f'<svg class="picture" viewBox="-0.5 -0.5 {width} {height}" role="img" aria-label="{name}">'
        f'<image x="-0.5" y="-0.5" width="{width}" height="{height}"{sharp} href="{png_data(picture)}"/>{frame}{marks}'
        "</svg>"
    )


def histogram(axes: Any, values: npt.NDArray[Any], *, high: float | None = None, low: float | None = None) -> None:
    """Draw a filled histogram of the finite values, up to their 99.5th percentile."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return
    top = float(np.percentile(known, 99.5)) if high is None else high
    bottom = min(0.0, float(known.min())) if low is None else low
    counts, edges = np.histogram(known, bins=80, range=(bottom, top if top > bottom else bottom + 1))
    axes.stairs(counts, edges, fill=True, color=FIRST, alpha=0.75)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, None)


def legend(axes: Any, lines: Any = None) -> None:
    """Put the key above the axes, where it hides nothing."""
    handles = axes.get_legend_handles_labels() if lines is None else lines
    axes.legend(
        *handles, loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=3, borderaxespad=0, handlelength=1.6,
        columnspacing=1.4,
    )  # fmt: skip


def say(axes: Any, text: str) -> None:
    """Write a sentence where a curve would be."""
    import textwrap

    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, textwrap.fill(text, 44), ha="center", va="center", transform=axes.transAxes, color=MUTED)
