"""The tab for a model of one's own: what it will know, real beside simulated frames, the course of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_plugin.choosers import OptionalNumber
from napari_plugin.inspect_section import PixelImage
from napari_plugin.long_task import LongTask
from napari_plugin.plot import CurvePlot
from napari_plugin.settings import keep_number
from napari_plugin.theme import Note

_HINT = (
    "For movies outside of what the shipped models know. Fill the ranges from your movie, check that simulated frames "
    "look like real ones, then train: minutes to adapt a model, hours from nothing; napari stays free."
)


class RangeRow(QWidget):
    """Two numbers, from and to."""

    def __init__(self, viewer: Any, low: float, high: float, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.low, self.high = (OptionalNumber(viewer, low, high, "default").explain(tip) for _ in range(2))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.low)
        row.addWidget(QLabel("to"))
        row.addWidget(self.high)

    def value(self) -> tuple[float, float] | None:
        """Both numbers; None where one is left out."""
        low, high = self.low.value(), self.high.value()
        return None if low is None or high is None else (low, high)

    def set_value(self, low: float, high: float) -> None:
        """Fill both."""
        self.low.set_value(float(f"{low:.3g}"))
        self.high.set_value(float(f"{high:.3g}"))


class TrainingSection(QWidget):
    """Rows of an experiment, and what becomes of it.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    look_requested = Signal()
    train_requested = Signal()
    stop_requested = Signal()

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.hint = Note(viewer, _HINT)
        self.name = QLineEdit("my-microscope")
        self.name.setToolTip("Name of the model: letters, digits, dot, dash and underscore")
        self.folder = QLineEdit(str(Path.home() / "smlm-pb-models"))
        self.folder.setToolTip("Folder in which the training makes a folder of its own, with the model in it")
        self.browse = QPushButton("…")
        self.browse.setToolTip("Choose the folder")
        self.start_from = QComboBox()
        self.start_from.addItem("nothing", False)
        self.start_from.addItem("the chosen model", True)
        self.start_from.setCurrentIndex(1)
        self.start_from.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.start_from.setMinimumContentsLength(10)
        self.start_from.setToolTip(
            "The model that is chosen in the tab Localize, or nothing. Adapting a model takes fewer steps than "
            "beginning with nothing, and the result is never worse on your ranges than the model it began with."
        )
        self.psf_sigma_px = RangeRow(viewer, 0.3, 20, "Smallest and largest PSF width σ, in camera pixels")
        self.photons = RangeRow(viewer, 1, 1e7, "Smallest and largest brightness of the molecules, e⁻ per frame")
        self.background_e = RangeRow(viewer, 0, 1e6, "Smallest and largest background, e⁻ per pixel")
        self.density = OptionalNumber(viewer, 1e-4, 1000, "default").explain(
            "Largest density of the molecules that are on in a frame, per µm²"
        )
        self.steps = QSpinBox()
        self.steps.setRange(1, 1_000_000)
        self.steps.setSingleStep(1000)
        keep_number(self.steps, "training", "steps")
        self.steps.setToolTip(
            "Steps of the training: 1500 adapt a model in ten minutes or so; from nothing, 20 000 or more are needed."
        )
        self.measure = LongTask(
            viewer,
            "Fill from the movie",
            "Measure the movie with the chosen model, and find ranges in whose simulated frames the model finds as "
            "many molecules, as bright, as in the movie",
        )
        self.warnings = Note(viewer)
        self.look_button = QPushButton("Real and simulated")
        self.look_button.setToolTip("Show a frame of the movie beside a simulated one: they should look alike")
        self.real, self.simulated = PixelImage(viewer, "real"), PixelImage(viewer, "simulated")
        self.look_note = Note(viewer)
        self.train_button = QPushButton("Train")
        self.train_button.setToolTip("Start the training in a process of its own")
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("End the training; the best model so far is kept")
        self.progress = QProgressBar()
        self.plot = CurvePlot(viewer, "step", "Jaccard index on unseen scenes")
        self.loss_plot = CurvePlot(viewer, "step", "loss")
        self.note = Note(viewer)
        self._build()
        self.set_running(False)
        self.show_pictures(False)

    def set_running(self, running: bool) -> None:
        """Show Train, or progress and Stop."""
        self.train_button.setVisible(not running)
        self.stop_button.setVisible(running)
        self.progress.setVisible(running)
        self.stop_button.setEnabled(running)
        if running:
            self.progress.setRange(0, 0)

    def show_pictures(self, visible: bool) -> None:
        """Show or hide the frames side by side."""
        self.real.setVisible(visible)
        self.simulated.setVisible(visible)

    def faults(self) -> list[str]:
        """What is wrong with the numbers."""
        fields = {
            "PSF width": (self.psf_sigma_px.low, self.psf_sigma_px.high),
            "Photons": (self.photons.low, self.photons.high),
            "Background": (self.background_e.low, self.background_e.high),
            "Density": (self.density,),
        }
        return [f"{name}: {fault}" for name, row in fields.items() for field in row if (fault := field.fault())]

    def _build(self) -> None:
        folder = QHBoxLayout()
        folder.addWidget(self.folder, 1)
        folder.addWidget(self.browse)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setVerticalSpacing(4)
        form.addRow("Name", self.name)
        form.addRow("Folder", folder)
        form.addRow("Start from", self.start_from)
        form.addRow("PSF width σ [px]", self.psf_sigma_px)
        form.addRow("Photons [e⁻]", self.photons)
        form.addRow("Background [e⁻/px]", self.background_e)
        form.addRow("Density up to [/µm²]", self.density)
        form.addRow("Steps", self.steps)
        pictures, run = QHBoxLayout(), QHBoxLayout()
        pictures.addWidget(self.real)
        pictures.addWidget(self.simulated)
        for widget in (self.train_button, self.progress):
            run.addWidget(widget, 1)
        run.addWidget(self.stop_button)
        layout = QVBoxLayout(self)
        layout.setSpacing(4)
        layout.addWidget(self.hint)
        layout.addLayout(form)
        layout.addWidget(self.measure)
        layout.addWidget(self.warnings)
        layout.addWidget(self.look_button)
        layout.addLayout(pictures)
        layout.addWidget(self.look_note)
        layout.addLayout(run)
        layout.addWidget(self.note)
        layout.addWidget(self.plot)
        layout.addWidget(self.loss_plot)
        layout.addStretch(1)
        self.browse.clicked.connect(self._on_browse)
        self.look_button.clicked.connect(self.look_requested)
        self.train_button.clicked.connect(self.train_requested)
        self.stop_button.clicked.connect(self.stop_requested)

    def _on_browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for models", self.folder.text())
        if folder:
            self.folder.setText(folder)
