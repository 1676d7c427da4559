"""Typing numbers: with a decimal point or a decimal comma, never taken for something else."""

from __future__ import annotations

import re
from typing import Any

from qtpy.QtCore import QLocale
from qtpy.QtWidgets import QDoubleSpinBox, QWidget

#: Digits in groups of three: 1,000 is one or a thousand, as the writer's language has it.
_COMMA_GROUPS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")
_GROUPS = re.compile(r"[-+]?[1-9]\d{0,2}([.,]\d{3})+")


class AmbiguousNumberError(ValueError):
    """A number that means different things in different languages."""


def number_of(text: str, *, whole: bool = False) -> float | None:
    """Read a number as people of several languages write it.

    Parameters
    ----------
    text : str
        What was typed; spaces around it do not matter.
    whole : bool
        Whether only whole numbers are meant: a comma or a point can then only stand between groups of three digits.

    Returns
    -------
    float or None
        None for an empty text.

    Raises
    ------
    AmbiguousNumberError
        When a comma may stand before decimals or between thousands.
    ValueError
        When the text is no number.

    Examples
    --------
    >>> number_of("100,5"), number_of("10,000", whole=True)
    (100.5, 10000.0)
    """
    text = text.strip()
    if not text:
        return None
    if whole and _GROUPS.fullmatch(text):
        return float(text.replace(",", "").replace(".", ""))
    if _COMMA_GROUPS.fullmatch(text):
        plain, decimal = text.replace(",", ""), text.replace(",", ".", 1).replace(",", "")
        raise AmbiguousNumberError(f"'{text}' may mean {plain} or {decimal}; write it without a comma.")
    return float(text.replace(",", "."))


class DecimalBox(QDoubleSpinBox):
    """A number with arrows; point and comma both stand before the decimals, whatever the computer's language.

    Qt takes the other of the two for a separator of thousands, and makes 25 of 2,5 without a word; so it does where
    there are no decimals.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        locale = QLocale.c()
        locale.setNumberOptions(QLocale.NumberOption.OmitGroupSeparator | QLocale.NumberOption.RejectGroupSeparator)
        self.setLocale(locale)

    def validate(self, text: str, position: int) -> Any:
        """Take a comma for a point while it is typed."""
        return super().validate(text.replace(",", "."), position)

    def valueFromText(self, text: str) -> float:
        """The number."""
        return float(super().valueFromText(text.replace(",", ".")))

    def textFromValue(self, value: float) -> str:
        """The number, without decimals where it is whole."""
        return f"{value:.0f}" if value == round(value) else str(super().textFromValue(value))
