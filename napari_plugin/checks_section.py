"""The groups of the tab Analyse that judge a result without a truth: what is left over, a twin, added frames."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QGroupBox, QLayout, QVBoxLayout, QWidget

from napari_plugin.figure_picture import FigurePicture
from napari_plugin.long_task import LongTask


class ChecksSection(QWidget):
    """Three analyses, each with its button, its progress and its answer.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.residuals = LongTask(
            viewer,
            "Look at what is left over",
            "Take the molecules shown out of up to 200 frames of the movie: light that is left over looks missed, a "
            "molecule that the pixels do not need looks false, a spot too wide looks merged. They appear in colours, "
            "with a map of how well each tile is explained.",
        )
        self.twin = LongTask(
            viewer,
            "Measure the errors on a twin",
            "Simulate 100 frames like this movie, whose truth is known, localize them in the same way, and tell what "
            "each kind of error costs, and what to do about it.",
        )
        self.twin_picture = FigurePicture(viewer, "What each kind of error costs")
        self.density = LongTask(
            viewer,
            "Add frames until it fails",
            "Add up 2, 4, 8, 16 frames of the movie and localize the sums: up to which density does the chosen model "
            "find again what it found in the single frames?",
        )
        self.density_picture = FigurePicture(viewer, "What is found again, against the density")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        for title, parts in (
            ("Residuals", (self.residuals,)),
            ("Digital twin", (self.twin, self.twin_picture)),
            ("Density", (self.density, self.density_picture)),
        ):
            group = QGroupBox(title)
            column = QVBoxLayout(group)
            column.setSizeConstraint(QLayout.SizeConstraint.SetMinimumSize)
            column.setContentsMargins(8, 8, 8, 8)
            column.setSpacing(4)
            for part in parts:
                column.addWidget(part)
            layout.addWidget(group)

    def set_enabled(self, there_are_molecules: bool) -> None:
        """Offer the buttons where there are molecules; adding frames needs none."""
        for task in (self.residuals, self.twin):
            task.button.setEnabled(there_are_molecules)

    def clear(self) -> None:
        """Forget the answers about the molecules: they were about others."""
        self.residuals.forget()
        self.twin.forget()
        self.twin_picture.show_figure(None)

    def clear_density(self) -> None:
        """Forget the answer about the movie."""
        self.density.forget()
        self.density_picture.show_figure(None)
