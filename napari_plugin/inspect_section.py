"""The tab that shows one molecule: values, and data, model and residual side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_plugin.inspection import Neighbourhood
from napari_plugin.theme import Note, theme_color

_HINT = "Click a molecule on a frame, or press Next: its values and the pixels around it appear here."


class PixelImage(QWidget):
    """A few pixels drawn large, with a title and a cross where the molecule is.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose theme gives the colours.
    title : str
        Written above.
    """

    def __init__(self, viewer: Any, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._title = viewer, title
        self._bytes: npt.NDArray[np.uint8] | None = None
        self._mark: tuple[float, float] | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        """Give Qt a preferred size."""
        return QSize(96, 116)

    def minimumSizeHint(self) -> QSize:
        """Give Qt the smallest size."""
        return QSize(70, 90)

    def show_pixels(
        self, pixels: npt.NDArray[Any] | None, low: float, high: float, mark: tuple[float, float] | None = None
    ) -> None:
        """Show values from ``low`` (black) to ``high`` (white), and a cross at ``mark`` (y, x)."""
        self._bytes, self._mark = None, mark
        if pixels is not None:
            relative = (pixels - low) / max(high - low, 1e-9)
            self._bytes = np.ascontiguousarray(np.clip(relative * 255, 0, 255).astype(np.uint8))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the title, the pixels and the cross."""
        painter = QPainter(self)
        painter.setPen(theme_color(self._viewer, "text"))
        line = painter.fontMetrics().height()
        painter.drawText(QRectF(0, 0, self.width(), line), Qt.AlignmentFlag.AlignHCenter, self._title)
        if self._bytes is not None:
            height, width = self._bytes.shape
            image = QImage(self._bytes.data, width, height, width, QImage.Format.Format_Grayscale8)
            edge = min(self.width() / width, (self.height() - line - 2) / height)
            left = (self.width() - edge * width) / 2
            painter.drawImage(QRectF(left, line + 2, edge * width, edge * height), image)
            if self._mark is not None:
                painter.setRenderHint(QPainter.RenderHint.Antialiasing)
                painter.setPen(QPen(QColor("#00d0ff"), 1.5))
                y, x = line + 2 + edge * (self._mark[0] + 0.5), left + edge * (self._mark[1] + 0.5)
                painter.drawLine(int(x) - 5, int(y), int(x) + 5, int(y))
                painter.drawLine(int(x), int(y) - 5, int(x), int(y) + 5)
        painter.end()


class InspectSection(QWidget):
    """Values and pixels of the molecule that was clicked.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    step_requested = Signal(int)

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.note = Note(viewer, _HINT)
        self.previous, self.next = QPushButton("‹ Previous"), QPushButton("Next ›")
        for button, step, name in ((self.previous, -1, "Previous"), (self.next, 1, "Next")):
            button.setToolTip(f"{name} of the molecules that are shown; the movie goes to its frame")
            button.setAccessibleName(f"{name} molecule")
            button.clicked.connect(lambda _checked=False, step=step: self.step_requested.emit(step))
        self.data, self.model, self.residual = (PixelImage(viewer, title) for title in ("data", "model", "residual"))
        self._images = QWidget()
        row = QHBoxLayout(self._images)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        for image in (self.data, self.model, self.residual):
            row.addWidget(image, 1)
        self.scale_note = Note(viewer)
        self.values = QTableWidget(0, 2)
        self.values.horizontalHeader().setVisible(False)
        self.values.verticalHeader().setVisible(False)
        self.values.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.values.setShowGrid(False)
        self.values.setAccessibleName("Values of the molecule")
        steps = QHBoxLayout()
        steps.addWidget(self.previous)
        steps.addWidget(self.next)
        layout = QVBoxLayout(self)
        layout.addWidget(self.note)
        layout.addLayout(steps)
        layout.addWidget(self._images)
        layout.addWidget(self.scale_note)
        layout.addWidget(self.values, 1)
        self.clear()

    def clear(self) -> None:
        """Show no molecule."""
        self.note.say(_HINT)
        self._images.setVisible(False)
        self.scale_note.say("")
        self.values.setVisible(False)

    def show_values(self, lines: list[tuple[str, str]]) -> None:
        """Show names and values."""
        self.note.say("")
        self.values.setVisible(True)
        self.values.setRowCount(len(lines))
        for number, (name, value) in enumerate(lines):
            self.values.setItem(number, 0, QTableWidgetItem(name))
            self.values.setItem(number, 1, QTableWidgetItem(value))
        header = self.values.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)

    def show_pixels(self, around: Neighbourhood, y: float, x: float) -> None:
        """Show the pixels around the molecule at (y, x)."""
        self._images.setVisible(True)
        low, high = float(around.data.min()), float(around.data.max())
        mark = (y - around.top, x - around.left)
        self.data.show_pixels(around.data, low, high, mark)
        self.model.show_pixels(around.model, low, high, mark)
        residual = around.residual
        self.model.setVisible(residual is not None)
        self.residual.setVisible(residual is not None)
        text = f"black {low:.0f}, white {high:.0f} {around.unit} per pixel"
        if residual is not None:
            largest = max(float(np.abs(residual).max()), (high - low) / 4)
            self.residual.show_pixels(residual, -largest, largest, mark)
            text += f"; residual −{largest:.0f} to +{largest:.0f}"
        self.scale_note.say(text)
