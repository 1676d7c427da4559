"""A histogram with two handles that choose a range."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_plugin.theme import theme_color

_BINS = 80
_MARGIN_PX = 6
_GRAB_PX = 8
_HANDLE_STEPS = 200
#: Histograms of more values than this are drawn from an even sample of them.
_SAMPLE = 40_000


class RangeHistogram(QWidget):
    """Bars of a distribution, with a lower and an upper handle to drag or to move with the arrow keys.

    A handle at the end of the axis stands for no limit.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose theme gives the colours.
    logarithmic : bool
        Whether the axis is.
    """

    range_changed = Signal(object, object)

    def __init__(self, viewer: Any, *, logarithmic: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._wants_log = viewer, logarithmic
        self._log = False
        self._counts: npt.NDArray[np.intp] = np.zeros(_BINS, np.intp)
        self._low_end, self._high_end = 0.0, 1.0
        self._low: float | None = None
        self._high: float | None = None
        self._dragged = -1
        self._active = 0
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)

    # -- values --------------------------------------------------------------------------------------------

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """Lower and upper limit; None where the handle stands at the end."""
        return self._low, self._high

    def set_values(self, values: npt.NDArray[Any]) -> None:
        """Show the distribution of values; the limits stay."""
        step = max(1, -(-len(values) // _SAMPLE))
        sample = np.asarray(values[::step], float)
        sample = sample[np.isfinite(sample)]
        self._log = bool(self._wants_log and len(sample) and np.quantile(sample, 0.01) > 0)
        if self._log:
            sample = sample[sample > 0]
        if not len(sample):
            self._low_end, self._high_end = 0.0, 1.0
            self._counts = np.zeros(_BINS, np.intp)
        else:
            # The axis covers all but the wildest values; a handle at its end lets those through too.
            low, high = (float(v) for v in np.quantile(sample, (0.0005, 0.9995)))
            if high <= low:
                low, high = (low * 0.9, low * 1.1) if low > 0 else (low - 0.5, low + 0.5)
            self._low_end, self._high_end = low, high
            if values.dtype.kind in "iu":  # bins hold now one whole number more, now one less: spread them evenly
                sample = (sample + np.random.default_rng(0).uniform(-0.5, 0.5, len(sample))).clip(low, high)
            positions = np.clip(self._fraction_array(sample), 0, 1 - 1e-9)
            self._counts = np.bincount((positions * _BINS).astype(np.intp), minlength=_BINS)
        self.update()

    def set_limits(self, low: float | None, high: float | None) -> None:
        """Move the handles, without `range_changed`."""
        self._low, self._high = low, high
        self.update()

    # -- geometry ------------------------------------------------------------------------------------------

    def sizeHint(self) -> QSize:
        """Give Qt a preferred size."""
        return QSize(200, 52)

    def minimumSizeHint(self) -> QSize:
        """Give Qt the smallest size."""
        return QSize(120, 52)

    def _fraction_array(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._log:
            return np.log(values / self._low_end) / np.log(self._high_end / self._low_end)
        return (values - self._low_end) / (self._high_end - self._low_end)

    def _fraction(self, value: float | None, default: float) -> float:
        if value is None:
            return default
        if self._log and value <= 0:
            return 0.0
        return float(np.clip(self._fraction_array(np.array([value]))[0], 0, 1))

    def _value(self, fraction: float) -> float:
        if self._log:
            return float(self._low_end * (self._high_end / self._low_end) ** fraction)
        return float(self._low_end + fraction * (self._high_end - self._low_end))

    def _x(self, fraction: float) -> float:
        return _MARGIN_PX + fraction * (self.width() - 2 * _MARGIN_PX)

    def _handles(self) -> tuple[float, float]:
        return self._fraction(self._low, 0.0), self._fraction(self._high, 1.0)

    # -- interaction ---------------------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Grab the nearer handle."""
        x = event.position().x()
        distances = [abs(x - self._x(fraction)) for fraction in self._handles()]
        self._dragged = self._active = int(np.argmin(distances))
        if distances[0] == distances[1]:
            self._dragged = self._active = int(x > self._x(self._handles()[0]))
        self._move_to(self._dragged, self._fraction_at(x))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag a handle, or show that one can be grabbed."""
        x = event.position().x()
        if self._dragged >= 0:
            self._move_to(self._dragged, self._fraction_at(x))
            return
        near = any(abs(x - self._x(fraction)) < _GRAB_PX for fraction in self._handles())
        self.setCursor(Qt.CursorShape.SizeHorCursor if near else Qt.CursorShape.ArrowCursor)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Let go."""
        self._dragged = -1

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Remove both limits."""
        self._dragged = -1
        self._set(None, None)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Arrow keys move a handle; up and down choose which."""
        key = event.key()
        if key in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            self._active = int(key == Qt.Key.Key_Up)
            self.update()
        elif key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            step = (1 if key == Qt.Key.Key_Right else -1) / _HANDLE_STEPS
            self._move_to(self._active, self._handles()[self._active] + step)
        else:
            super().keyPressEvent(event)

    def _fraction_at(self, x: float) -> float:
        return (x - _MARGIN_PX) / max(1, self.width() - 2 * _MARGIN_PX)

    def _move_to(self, handle: int, fraction: float) -> None:
        fraction = float(np.clip(fraction, 0, 1))
        low, high = self._handles()
        if handle == 0:
            fraction = min(fraction, high)
            self._set(None if fraction <= 0 else self._value(fraction), self._high)
        else:
            fraction = max(fraction, low)
            self._set(self._low, None if fraction >= 1 else self._value(fraction))

    def _set(self, low: float | None, high: float | None) -> None:
        if (low, high) != (self._low, self._high):
            self._low, self._high = low, high
            self.update()
            self.range_changed.emit(low, high)

    # -- drawing -------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw bars, the range and its handles, and the ends of the axis."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text, highlight = theme_color(self._viewer, "text"), theme_color(self._viewer, "current")
        faint = QColor(text)
        faint.setAlpha(70)
        font = painter.font()
        font.setPointSizeF(max(6.5, font.pointSizeF() * 0.8))
        painter.setFont(font)
        line = painter.fontMetrics().height()
        base = self.height() - line
        low, high = self._handles()
        self._paint_bars(painter, base, low, high, text, faint)
        for number, fraction in enumerate((low, high)):
            x = self._x(fraction)
            is_active = self.hasFocus() and number == self._active
            painter.setPen(QPen(highlight, 3 if is_active else 1.5))
            painter.drawLine(QPointF(x, 1), QPointF(x, base))
            painter.setBrush(highlight)
            painter.drawEllipse(QPointF(x, base - 4), 3.5, 3.5)
        painter.setPen(faint if not self.isEnabled() else text)
        area = QRectF(_MARGIN_PX, base, self.width() - 2 * _MARGIN_PX, line)
        painter.drawText(area, Qt.AlignmentFlag.AlignLeft, _number(self._low_end if self._low is None else self._low))
        painter.drawText(
            area, Qt.AlignmentFlag.AlignRight, _number(self._high_end if self._high is None else self._high)
        )
        painter.end()

    def _paint_bars(
        self, painter: QPainter, base: float, low: float, high: float, inside: QColor, outside: QColor
    ) -> None:
        highest = max(1, int(self._counts.max()))
        painter.setPen(Qt.PenStyle.NoPen)
        step = (self.width() - 2 * _MARGIN_PX) / _BINS
        for number, count in enumerate(self._counts):
            if not count:
                continue
            middle = (number + 0.5) / _BINS
            painter.setBrush(inside if low <= middle <= high else outside)
            height = max(1.0, (base - 2) * count / highest)
            painter.drawRect(QRectF(self._x(number / _BINS), base - height, max(1.0, step - 0.5), height))
        painter.setPen(QPen(outside, 1))
        painter.drawLine(QPointF(_MARGIN_PX, base), QPointF(self.width() - _MARGIN_PX, base))


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
