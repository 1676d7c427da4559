"""An analysis that takes a while: its button, then a bar and Cancel in its place, and what came out below."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_plugin.background import Latest
from napari_plugin.theme import Note
from smlm_pb.errors import SmlmPbError

_log = logging.getLogger(__name__)
_POLL_MS = 100

OnProgress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]


class LongTask(QWidget):
    """One analysis at a time, beside the screen's thread.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose theme gives the colours.
    text, tip : str
        Of the button.
    """

    requested = Signal()

    def __init__(self, viewer: Any, text: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.button = QPushButton(text)
        self.button.setToolTip(tip)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop; nothing is shown then")
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.note = Note(viewer)
        self._done: tuple[int, int] = (0, 0)
        self._stop = threading.Event()
        self._on_result: Callable[[Any], None] = lambda _: None
        self._latest = Latest(self._finish, self._fail, self)
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self._show_progress)
        row = QHBoxLayout()
        for widget in (self.button, self.progress):
            row.addWidget(widget, 1)
        row.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setSizeConstraint(QLayout.SizeConstraint.SetMinimumSize)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row)
        layout.addWidget(self.note)
        self.button.clicked.connect(self.requested)
        self.cancel_button.clicked.connect(self.cancel)
        self._show_running(False)

    @property
    def running(self) -> bool:
        """Whether the analysis goes on."""
        return self._timer.isActive()

    def run(self, work: Callable[[OnProgress, ShouldStop], Any], on_result: Callable[[Any], None]) -> None:
        """Start.

        Parameters
        ----------
        work : callable
            Called in a thread with ``on_progress(done, total)`` and ``should_stop()``.
        on_result : callable
            Called in the screen's thread with what it returned.
        """
        self._stop = stop = threading.Event()
        self._done, self._on_result = (0, 0), on_result
        latest = self._latest

        def on_progress(done: int, total: int) -> None:
            self._done = (done, total)

        def quietly() -> Any:
            with warnings.catch_warnings():
                # What there is to warn of is among the notes of the result.
                warnings.simplefilter("ignore", UserWarning)
                return work(on_progress, lambda: stop.is_set() or latest.closed)

        self.note.say("")
        self._show_running(True)
        latest.submit(quietly)

    def cancel(self) -> None:
        """Ask the analysis to end; it does so unheard, as soon as it can."""
        self.forget()
        self.note.say("Cancelled.")

    def forget(self) -> None:
        """End unheard, and take back what was said: it was about something else."""
        self._stop.set()
        self._latest.forget()
        self._show_running(False)
        self.note.say("")

    def close_task(self) -> None:
        """Take no more requests."""
        self._timer.stop()
        self._latest.close()

    def _finish(self, result: Any) -> None:
        self._show_running(False)
        self._on_result(result)

    def _fail(self, error: Exception) -> None:
        self._show_running(False)
        if not isinstance(error, SmlmPbError):
            _log.error("The analysis failed", exc_info=error)
        self.note.say(str(error), "error")

    def _show_progress(self) -> None:
        done, total = self._done
        self.progress.setRange(0, total)
        self.progress.setValue(done)

    def _show_running(self, running: bool) -> None:
        self.button.setVisible(not running)
        self.progress.setVisible(running)
        self.cancel_button.setVisible(running)
        self.cancel_button.setEnabled(running)
        if running:
            self.progress.setRange(0, 0)
            self._timer.start()
        else:
            self._timer.stop()
