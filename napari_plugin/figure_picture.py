"""A figure of the library as a picture in the panel, in the colours of the theme."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel, QSizePolicy, QWidget

from napari_plugin.background import Latest
from napari_plugin.theme import theme_color

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)
_WIDTH_PX, _HEIGHT_PX, _DPI = 330, 230, 100
_FONT_PT = 7
_BLACK = ("k", "black")


class FigurePicture(QLabel):
    """Drawn beside the screen's thread, and again when the theme changes.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose theme gives the colours.
    name : str
        What is shown, for screen readers.
    """

    #: A figure can be seen where there was none.
    appeared = Signal()

    def __init__(self, viewer: Any, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._make: Callable[[], Figure] | None = None
        self._pixels_per_point = 1.0
        self._latest = Latest(self._show, self._fail, self)
        self.setAccessibleName(name)
        self.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.setVisible(False)

    def show_figure(self, make: Callable[[], Figure] | None) -> None:
        """Draw a figure; None hides the picture.

        Parameters
        ----------
        make : callable
            Makes the figure; called in a thread, each time that it is drawn.
        """
        self._make = make
        if make is None:
            self._latest.forget()
            self.setVisible(False)
            return
        text, background = (theme_color(self._viewer, name).name() for name in ("text", "background"))
        finer = self._pixels_per_point = self.devicePixelRatioF()
        self._latest.submit(lambda: draw(make(), text, background, finer=finer))

    def recolor(self) -> None:
        """Take the colours of the theme."""
        self.show_figure(self._make)

    def close_task(self) -> None:
        """Take no more requests."""
        self._latest.close()

    def _show(self, pixels: npt.NDArray[np.uint8]) -> None:
        height, width, _ = pixels.shape
        image = QImage(pixels.data, width, height, 4 * width, QImage.Format.Format_RGBA8888)
        picture = QPixmap.fromImage(image.copy())
        picture.setDevicePixelRatio(self._pixels_per_point)
        self.setPixmap(picture)
        if self.isHidden():
            self.setVisible(True)
            self.appeared.emit()

    def _fail(self, error: Exception) -> None:
        _log.error("A figure could not be drawn", exc_info=error)


def draw(figure: Figure, text: str, background: str, *, finer: float = 1.0) -> npt.NDArray[np.uint8]:
    """Turn a figure into pixels, as large as the panel is wide.

    Parameters
    ----------
    figure : matplotlib Figure
        Its size and colours are changed.
    text, background : str
        Colours of writing and lines, and of what is behind.
    finer : float
        Pixels of the screen per unit of length of the window; more than 1 on fine screens.

    Returns
    -------
    array (height, width, 4), uint8
        Red, green, blue, alpha.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    figure.set_size_inches(_WIDTH_PX / _DPI, _HEIGHT_PX / _DPI)
    figure.set_dpi(_DPI * finer)
    figure.set_facecolor(background)
    for axes in figure.axes:
        axes.set_facecolor(background)
        axes.tick_params(which="both", colors=text, labelsize=_FONT_PT)
        for spine in axes.spines.values():
            spine.set_edgecolor(text)
        for line in axes.get_lines():
            if line.get_color() in _BLACK:
                line.set_color(text)
        if any(label.get_text().isalpha() for label in axes.get_xticklabels()):
            axes.tick_params(axis="x", rotation=25)  # words are longer than numbers
    for words in figure.findobj(Text):
        words.set_color(text)
        words.set_fontsize(_FONT_PT)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(canvas.buffer_rgba())
