"""The foot of the panel, always in sight: Run, progress and Cancel, what came out, Save."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_plugin.keyboard import CANCEL_KEYS, RUN_KEYS
from napari_plugin.localize_job import Progress
from napari_plugin.theme import Note
from napari_plugin.words import EXPECTED_TIP

VIEWS = {"frames": "Frames", "image": "Image", "both": "Both"}


class RunBar(QWidget):
    """Buttons and messages of a run.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    run_requested = Signal()
    cancel_requested = Signal()
    save_requested = Signal()
    view_requested = Signal(str)

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.run_button = QPushButton("Run")
        self.run_button.setToolTip(f"Localize the molecules of the movie ({RUN_KEYS})")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip(f"Stop; what was found until then is kept ({CANCEL_KEYS})")
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.timing = QLabel()
        self.status = Note(viewer)
        self.status.setToolTip(EXPECTED_TIP)
        self.save_button = QPushButton("Save molecules…")
        self.save_button.setToolTip(
            "Save the molecules that are shown: HDF5 (opens in Picasso), CSV for ThunderSTORM, and others"
        )
        self._views = QWidget()
        self._view_buttons: dict[str, QPushButton] = {}
        self._running = self._has_result = False
        self._build()
        self.set_running(False)
        self.set_result(False)

    def set_running(self, running: bool) -> None:
        """Show Run, or progress and Cancel."""
        self._running = running
        self.run_button.setVisible(not running)
        self._show_save()
        for widget in (self.progress, self.cancel_button, self.timing):
            widget.setVisible(running)
        self.cancel_button.setEnabled(running)
        self.cancel_button.setText("Cancel")
        if running:
            self.progress.setRange(0, 0)
            self.timing.setText("Loading the model and measuring the movie; the first time this takes some seconds …")

    def set_cancelling(self) -> None:
        """Say that it was understood."""
        self.cancel_button.setEnabled(False)
        self.cancel_button.setText("Cancelling …")

    def set_result(self, there: bool) -> None:
        """Offer what can be done with a result."""
        self._has_result = there
        self._views.setVisible(there)
        self._show_save()

    def _show_save(self) -> None:
        self.save_button.setVisible(self._has_result and not self._running)

    def show_progress(self, progress: Progress) -> None:
        """Frames done, frames per second, time left."""
        if not progress.total:
            return
        self.progress.setUpdatesEnabled(False)  # otherwise each change is painted at once, with the window
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        self.progress.setFormat(f"{progress.done} / {progress.total} frames")
        self.progress.setUpdatesEnabled(True)
        parts = [f"{progress.n_molecules:,} molecules".replace(",", " ")]
        if progress.frames_per_second is not None and progress.seconds_left is not None:
            parts.append(f"{progress.frames_per_second:.3g} frames/s")
            parts.append(f"{duration(progress.seconds_left)} left")
        self.timing.setText(" · ".join(parts))

    def forget_error(self) -> None:
        """What was wrong may have been mended."""
        if self.status.level == "error":
            self.status.say("")

    def show_view(self, view: str) -> None:
        """Press the button of a view, without asking for it."""
        self._view_buttons[view].setChecked(True)

    def _build(self) -> None:
        views = QHBoxLayout(self._views)
        views.setContentsMargins(0, 0, 0, 0)
        views.setSpacing(0)
        label = QLabel("Show")
        views.addWidget(label)
        views.addSpacing(6)
        group = QButtonGroup(self)
        tips = {
            "frames": "The movie and the molecules of each frame",
            "image": "The super-resolved image alone",
            "both": "The image over the movie, with the molecules of the frame",
        }
        for name, text in VIEWS.items():
            button = QPushButton(text)
            button.setCheckable(True)
            button.setToolTip(tips[name])
            group.addButton(button)
            views.addWidget(button, 1)
            button.clicked.connect(lambda _checked=False, name=name: self.view_requested.emit(name))
            self._view_buttons[name] = button
        row = QHBoxLayout()
        row.addWidget(self.run_button, 3)
        row.addWidget(self.progress, 3)
        row.addWidget(self.cancel_button)
        row.addWidget(self.save_button, 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row)
        layout.addWidget(self.timing)
        layout.addWidget(self.status)
        layout.addWidget(self._views)
        self.run_button.clicked.connect(self.run_requested)
        self.cancel_button.clicked.connect(self.cancel_requested)
        self.save_button.clicked.connect(self.save_requested)


def duration(seconds: float) -> str:
    """A time span in words."""
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
