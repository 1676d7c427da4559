"""Work of the screen's thread in small steps, and a window that gets its turn soon while a run computes beside it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress

from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QMainWindow, QWidget

#: Between two steps the window draws, and hears mouse and keyboard.
_REST_MS = 10
#: How long a thread may compute on in Python before another one gets its turn; Python's own 5 ms add up to tenths of
#: a second, because drawing a frame hands over a dozen times.
_HAND_OVER_S = 0.001


class Turns(QObject):
    """Takes the steps of a generator one by one, and lets the window live in between.

    Parameters
    ----------
    parent : QObject
        Ends with it.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._steps: Generator[None, None, None] | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REST_MS)
        self._timer.timeout.connect(self._take)

    @property
    def busy(self) -> bool:
        """Whether there are steps left."""
        return self._steps is not None

    def start(self, steps: Generator[None, None, None]) -> None:
        """Begin with the first step, soon; steps that are under way are given up.

        Parameters
        ----------
        steps : generator
            Does a part of the work each time that it is asked for its next value.
        """
        self.stop()
        self._steps = steps
        self._timer.start()

    def stop(self) -> None:
        """Give up what is left."""
        self._timer.stop()
        steps, self._steps = self._steps, None
        if steps is not None:
            with suppress(ValueError):  # a step that stops its own steps ends them by returning
                steps.close()

    def _take(self) -> None:
        steps = self._steps
        if steps is None:
            return
        goes_on = False
        try:
            goes_on = next(steps, self) is not self
        finally:
            if self._steps is steps:  # otherwise the step has begun something else, or stopped
                if goes_on:
                    self._timer.start()
                else:
                    self._steps = None


@contextmanager
def unpainted(widget: QWidget) -> Iterator[None]:
    """Paint nothing of the window for a moment, so that a change and its painting fall into different turns.

    Parameters
    ----------
    widget : QWidget
        Any widget in the window.
    """
    window: QWidget | None = widget
    while window is not None and not isinstance(window, QMainWindow):
        window = window.parentWidget()
    if window is None:
        yield
        return
    window.setUpdatesEnabled(False)
    try:
        yield
    finally:
        with suppress(RuntimeError):  # the window is gone
            window.setUpdatesEnabled(True)


class Lively:
    """Keeps Python from holding up the window for as long as a run goes on.

    Python looks for garbage now and then, and napari asks it to whenever a layer is taken away. With all that a session
    has loaded, this stops every thread for a third of a second. During a run only what came into being since its
    beginning is looked through; afterwards everything is as it was.
    """

    def __init__(self) -> None:
        self._hand_over_s: float | None = None

    def begin(self) -> None:
        """From now on the window comes first."""
        if self._hand_over_s is None:
            self._hand_over_s = sys.getswitchinterval()
            sys.setswitchinterval(min(_HAND_OVER_S, self._hand_over_s))
        gc.freeze()  # also what a run has left that ended just now

    def end(self) -> None:
        """Leave everything as it was found."""
        if self._hand_over_s is not None:
            gc.unfreeze()
            sys.setswitchinterval(self._hand_over_s)
            self._hand_over_s = None
