"""Pieces of a page: text that is safe in HTML, tiles, tables, figures with captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np


def text(value: object) -> str:
    """Any value as text that HTML shows as it is."""
    return escape(str(value), quote=True)


def number(value: Any, digits: int = 3) -> str:
    """A number for people: significant digits, thousands apart, a dash where it is unknown."""
    if value is None or not np.isfinite(value):
        return "–"
    value = float(value)
    if value == 0:
        return "0"
    size = int(np.floor(np.log10(abs(value)))) + 1
    decimals = max(0, digits - size)
    return f"{value:,.{decimals}f}".replace(",", "\u202f").replace("-", "\u2212")


def count(value: int) -> str:
    """A whole number, thousands apart."""
    return f"{int(value):,}".replace(",", "\u202f")


def share(value: Any) -> str:
    """A fraction as a percentage."""
    return "–" if value is None or not np.isfinite(value) else f"{100 * float(value):.1f} %"


def tile(value: str, unit: str, label: str) -> str:
    """One figure in large type; nothing where it is unknown."""
    shown = f" <small>{text(unit)}</small>" if unit else ""
    return f'<div class="tile"><b>{value}{shown}</b><span>{text(label)}</span></div>'


def figure(svg: str, caption: str, title: str = "") -> str:
    """A figure with what it shows; nothing where there is no figure. The caption is HTML."""
    if not svg:
        return ""
    heading = f"<h3>{text(title)}</h3>" if title else ""
    return f"<figure>{heading}{svg}<figcaption>{caption}</figcaption></figure>"


def grid(figures: Iterable[str], kind: str = "") -> str:
    """Figures beside each other."""
    inner = "\n".join(part for part in figures if part)
    return f'<div class="grid {kind}">{inner}</div>' if inner else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of figures; cells are HTML."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """A list of names and values."""
    body = "".join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows)
    return f'<div class="scroll"><table class="plain"><tbody>{body}</tbody></table></div>'


def section(title: str, *content: str) -> str:
    """A part of the page; nothing where it has no content."""
    inner = "\n".join(part for part in content if part)
    return f"<section><h2>{text(title)}</h2>\n{inner}</section>" if inner else ""


def hint(sentence: str) -> str:
    """A paragraph that explains; HTML."""
    return f'<p class="hint">{sentence}</p>'
