"""The tab for what comes after the localization: quality without truth, linking, comparison with a truth."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QGroupBox,
    QLayout,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_plugin.checks_section import ChecksSection
from napari_plugin.choosers import LayerChooser
from napari_plugin.movie_layers import is_helper
from napari_plugin.plot import CurvePlot
from napari_plugin.settings import keep_number
from napari_plugin.theme import Note
from napari_plugin.typed_numbers import DecimalBox


class AnalysisSection(QWidget):
    """Groups of rows, each with its button and its answer.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    quality_requested = Signal()
    drift_requested = Signal()
    link_requested = Signal()
    compare_requested = Signal()
    report_requested = Signal()

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        from napari.layers import Points

        self.quality_button = QPushButton("Judge the molecules shown")
        self.quality_button.setToolTip(
            "Without a truth: precision from consecutive frames (NeNA), resolution of the image (FRC)."
        )
        self.quality_note = Note(viewer)

        self.max_drift_nm = DecimalBox()
        self.max_drift_nm.setRange(10, 100_000)
        self.max_drift_nm.setDecimals(1)
        self.max_drift_nm.setValue(600)
        self.max_drift_nm.setToolTip("Largest displacement between any two moments that is looked for, in nm")
        self.drift_button = QPushButton("Correct the drift")
        self.drift_button.setToolTip(
            "Find the drift from the molecules shown, down to single frames, and remove it in a new layer. It is "
            "accepted only if molecules that had no part in finding it are brought together."
        )
        self.drift_plot = CurvePlot(viewer, "frame", "drift [nm]")
        self.drift_note = Note(viewer)

        self.radius_sigma = DecimalBox()
        self.radius_sigma.setRange(0.5, 20)
        self.radius_sigma.setValue(3.5)
        self.radius_sigma.setSingleStep(0.5)
        self.radius_sigma.setToolTip(
            "Localizations of following frames are joined up to this distance, in units of the precision of their "
            "difference."
        )
        self.max_dark_frames = QSpinBox()
        self.max_dark_frames.setRange(0, 1000)
        self.max_dark_frames.setValue(1)
        self.max_dark_frames.setToolTip("Frames that a molecule may miss in between")
        self.link_button = QPushButton("Link the molecules shown")
        self.link_button.setToolTip("Join the localizations of each blink into one molecule, in a new layer")
        self.link_note = Note(viewer)

        self.truth = LayerChooser(
            viewer, lambda layer: isinstance(layer, Points) and not is_helper(layer), "choose a table"
        )
        self.truth.setToolTip("Points layer with the truth, or another program's molecules: drop its table onto napari")
        self.tolerance_nm = DecimalBox()
        self.tolerance_nm.setRange(1, 10000)
        self.tolerance_nm.setDecimals(1)
        self.tolerance_nm.setValue(100)
        self.tolerance_nm.setToolTip("Up to this distance, in nm, a molecule counts as found")
        self.compare_button = QPushButton("Compare the molecules shown")
        self.compare_button.setToolTip("Pair both tables frame by frame: matched, missed and false in three colours")
        self.compare_note = Note(viewer)

        self.checks = ChecksSection(viewer)
        self.report_button = QPushButton("Write a report…")
        self.report_button.setToolTip(
            "One HTML page about the molecules shown: images, figures, how good they are and how they were made; with "
            "the movie, and with the truth where one is chosen above."
        )
        self.report_note = Note(viewer)
        self.report_note.setOpenExternalLinks(True)
        for name in ("max_drift_nm", "radius_sigma", "max_dark_frames", "tolerance_nm"):
            keep_number(getattr(self, name), "analysis", name)
        self._build()
        self.set_enabled(False)

    def set_enabled(self, there_are_molecules: bool) -> None:
        """Offer the buttons where there are molecules."""
        buttons = (self.quality_button, self.drift_button, self.link_button, self.compare_button, self.report_button)
        for button in buttons:
            button.setEnabled(there_are_molecules)
        self.checks.set_enabled(there_are_molecules)

    def clear(self) -> None:
        """Forget the answers: they were about other molecules."""
        for note in (self.quality_note, self.drift_note, self.link_note, self.compare_note, self.report_note):
            note.say("")
        self.drift_plot.show_curves([])
        self.checks.clear()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(6)
        drift = _form(("Largest drift [nm]", self.max_drift_nm))
        link = _form(("Radius [σ]", self.radius_sigma), ("Dark frames", self.max_dark_frames))
        compare = _form(("Truth", self.truth), ("Tolerance [nm]", self.tolerance_nm))
        for title, form, button, note in (
            ("Quality", None, self.quality_button, self.quality_note),
            ("Drift", drift, self.drift_button, self.drift_note),
            ("Blinks", link, self.link_button, self.link_note),
            ("Comparison", compare, self.compare_button, self.compare_note),
            ("Report", None, self.report_button, self.report_note),
        ):
            if title == "Report":
                layout.addWidget(self.checks)
            group = QGroupBox(title)
            column = QVBoxLayout(group)
            column.setSizeConstraint(QLayout.SizeConstraint.SetMinimumSize)  # answers must not squeeze the rows
            column.setContentsMargins(8, 8, 8, 8)
            column.setSpacing(4)
            if form is not None:
                column.addLayout(form)
            column.addWidget(button)
            column.addWidget(note)
            if note is self.drift_note:
                column.addWidget(self.drift_plot)
            column.addStretch(1)
            layout.addWidget(group)
        layout.addStretch(1)
        self.quality_button.clicked.connect(self.quality_requested)
        self.drift_button.clicked.connect(self.drift_requested)
        self.link_button.clicked.connect(self.link_requested)
        self.compare_button.clicked.connect(self.compare_requested)
        self.report_button.clicked.connect(self.report_requested)


def _form(*rows: tuple[str, QWidget]) -> QFormLayout:
    form = QFormLayout()
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setContentsMargins(0, 0, 0, 0)
    form.setVerticalSpacing(4)
    for label, field in rows:
        form.addRow(label, field)
        field.setAccessibleName(label)
    return form
