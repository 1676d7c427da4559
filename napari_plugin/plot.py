"""A small plot of a few curves, in the colours of the theme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_plugin.theme import theme_color

#: Okabe and Ito, 2008: also for people with colour-blindness.
_COLORS = ("#2b9be0", "#e69f00", "#00a37a")
_MARGIN_PX = 4
#: Longer curves are thinned out: no screen shows more points.
_MOST_POINTS = 2000


@dataclass(frozen=True)
class Curve:
    """Points of a curve, and its name for the legend."""

    name: str
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]


class CurvePlot(QWidget):
    """Curves over a common axis, with the range of both axes written at the edges.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose theme gives the colours.
    x_label, y_label : str
        What the axes show, with units.
    """

    def __init__(self, viewer: Any, x_label: str, y_label: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._x_label, self._y_label = viewer, x_label, y_label
        self._curves: list[Curve] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setVisible(False)

    def sizeHint(self) -> QSize:
        """Give Qt a preferred size."""
        return QSize(200, 120)

    def minimumSizeHint(self) -> QSize:
        """Give Qt the smallest size."""
        return QSize(120, 100)

    def show_curves(self, curves: list[Curve]) -> None:
        """Draw these; without points the plot is hidden."""
        self._curves = [curve for curve in curves if len(curve.x) and np.isfinite(curve.y).any()]
        self.setVisible(bool(self._curves))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw frame, curves, ranges and legend."""
        if not self._curves:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPointSizeF(max(6.5, font.pointSizeF() * 0.8))
        painter.setFont(font)
        text = theme_color(self._viewer, "text")
        line = painter.fontMetrics().height()
        area = QRectF(_MARGIN_PX, line, self.width() - 2 * _MARGIN_PX, self.height() - 2 * line - 2)
        x_range = _range(np.concatenate([curve.x for curve in self._curves]))
        y_range = _range(np.concatenate([curve.y for curve in self._curves]))
        faint = QColor(text)
        faint.setAlpha(70)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(area)
        for curve, color in zip(self._curves, _COLORS, strict=False):
            painter.setPen(QPen(QColor(color), 1.5))
            painter.drawPolyline(_polygon(curve, area, x_range, y_range))
        painter.setPen(text)
        inside = area.adjusted(3, 0, -3, 0)
        painter.drawText(inside, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop, f"{y_range[1]:.3g}")
        painter.drawText(inside, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignBottom, f"{y_range[0]:.3g}")
        below = QRectF(area.left(), area.bottom() + 1, area.width(), line)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, f"{x_range[0]:.4g}")
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, self._x_label)
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, f"{x_range[1]:.4g}")
        self._paint_legend(painter, QRectF(area.left(), 0, area.width(), line), text)
        painter.end()

    def _paint_legend(self, painter: QPainter, area: QRectF, text: QColor) -> None:
        painter.drawText(area, Qt.AlignmentFlag.AlignLeft, self._y_label)
        right = area.right()
        named = [(curve.name, color) for curve, color in zip(self._curves, _COLORS, strict=False) if curve.name]
        for name, color in reversed(named):
            width = painter.fontMetrics().horizontalAdvance(name) + 10
            right -= width
            painter.setPen(QColor(color))
            painter.drawText(QRectF(right, area.top(), width, area.height()), Qt.AlignmentFlag.AlignLeft, name)
        painter.setPen(text)


def _range(values: npt.NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _polygon(curve: Curve, area: QRectF, x_range: tuple[float, float], y_range: tuple[float, float]) -> QPolygonF:
    step = max(1, len(curve.x) // _MOST_POINTS)
    known = np.isfinite(curve.y[::step])
    x = area.left() + (curve.x[::step][known] - x_range[0]) / (x_range[1] - x_range[0]) * area.width()
    y = area.bottom() - (curve.y[::step][known] - y_range[0]) / (y_range[1] - y_range[0]) * area.height()
    return QPolygonF([QPointF(float(a), float(b)) for a, b in zip(x, y, strict=True)])
