"""Colours of napari's theme, so that nothing of ours is hard to read in another one."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSize
from qtpy.QtGui import QColor, QResizeEvent
from qtpy.QtWidgets import QLabel, QSizePolicy, QWidget

from napari_plugin.words import breakable, in_panel_words

#: Least contrast of small text, as the Web Content Accessibility Guidelines 2 ask for it.
_READABLE = 4.5


def theme_color(viewer: Any, name: str) -> QColor:
    """A colour of the viewer's present theme.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose theme.
    name : str
        ``background``, ``foreground``, ``primary``, ``secondary``, ``highlight``, ``text``, ``warning``, ``error``,
        ``current`` ...
    """
    from napari.utils.theme import get_theme

    return QColor(getattr(get_theme(viewer.theme), name).as_hex())


def readable_color(viewer: Any, name: str) -> QColor:
    """A colour of the theme for text, brightened or darkened until it can be read on the background.

    The theme's red is made for areas; as small text on a dark background it has a contrast of 2.
    """
    color, text, background = (theme_color(viewer, key) for key in (name, "text", "background"))
    for _ in range(10):
        if _contrast(color, background) >= _READABLE:
            break
        mixed = [round(0.8 * a + 0.2 * b) for a, b in zip(_rgb(color), _rgb(text), strict=True)]
        color = QColor(*mixed)
    return color


def _contrast(one: QColor, other: QColor) -> float:
    """Contrast of two colours, 1 to 21, as the Web Content Accessibility Guidelines 2 define it."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(color: QColor) -> float:
    fractions = [c / 255 for c in _rgb(color)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in fractions]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _rgb(color: QColor) -> tuple[int, int, int]:
    return color.red(), color.green(), color.blue()


class Note(QLabel):
    """A line of text that wraps, may be selected, and can warn.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose theme gives the colours.
    text : str
        The first text; empty notes take no room.
    """

    def __init__(self, viewer: Any, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.level = "plain"
        self._said = ""
        self._is_laid_out = False
        self.setWordWrap(True)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        self.say(text)

    def say(self, text: str, level: str = "plain") -> None:
        """Show a text; an empty one hides the note.

        Parameters
        ----------
        text : str
            What to say; messages of the library appear in the words of the panel.
        level : {"plain", "warning", "error"}
            How grave it is.
        """
        self.level = level
        self._said = in_panel_words(text)
        self.setText(breakable(self._said))
        self.setVisible(bool(text))
        self.recolor()

    def text(self) -> str:
        """What was said, as it was said: a label may break it into lines."""
        return self._said

    def sizeHint(self) -> QSize:
        """As high as the text is at its present width; Qt would guess a narrower one, and leave room for it."""
        hint = super().sizeHint()
        return QSize(hint.width(), self.heightForWidth(self.width())) if self._is_laid_out else hint

    def minimumSizeHint(self) -> QSize:
        """The same."""
        hint = super().minimumSizeHint()
        return QSize(hint.width(), self.heightForWidth(self.width())) if self._is_laid_out else hint

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Tell the layout that another width needs another height."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._is_laid_out = True
            self.updateGeometry()

    def recolor(self) -> None:
        """Take the colour of the theme."""
        if self.level == "plain":
            self.setStyleSheet("")
        else:
            self.setStyleSheet(f"color: {readable_color(self._viewer, self.level).name()};")
