"""The tab of histograms with handles: which molecules are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_plugin.filters import LOGARITHMIC, FilterChain
from napari_plugin.histogram import RangeHistogram
from napari_plugin.theme import Note
from smlm_pb.localizations import COLUMN_BY_NAME

if TYPE_CHECKING:
    from napari_plugin.molecules import Molecules

_NO_MOLECULES = "Localize a movie or choose a layer of molecules; then drag the handles of the histograms."


class FilterSection(QWidget):
    """One histogram per quantity; dragging a handle hides molecules at once.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    range_changed = Signal(str, object, object)
    reset_requested = Signal()
    colour_requested = Signal(str)

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.histograms: dict[str, RangeHistogram] = {}
        self._rows: list[QWidget] = []
        self.note = Note(viewer, _NO_MOLECULES)
        self.reset = QPushButton("Show all above the threshold")
        self.reset.setToolTip("Remove all ranges but the threshold")
        self.colour = QComboBox()
        self.colour.setToolTip("Colour the points on the frames by any column, from its 1st to its 99th percentile")
        self.colour.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.colour.setMinimumContentsLength(10)
        self._colour_row = QWidget()
        row = QHBoxLayout(self._colour_row)
        row.setContentsMargins(0, 0, 0, 0)
        label = QLabel("Colour of the points")
        label.setToolTip(self.colour.toolTip())
        self.colour.setAccessibleName(label.text())
        row.addWidget(label)
        row.addWidget(self.colour, 1)
        self._layout = QVBoxLayout(self)
        self._layout.setSpacing(2)
        self._layout.addWidget(self.note)
        self._layout.addWidget(self._colour_row)
        self._layout.addWidget(self.reset)
        self._layout.addStretch(1)
        self._show_controls(False)
        self.reset.clicked.connect(self.reset_requested)
        self.colour.currentIndexChanged.connect(
            lambda _index: self.colour_requested.emit(str(self.colour.currentData() or ""))
        )

    def set_molecules(self, molecules: Molecules | None) -> None:
        """Show the distributions of a table."""
        for row in self._rows:
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        self._rows, self.histograms = [], {}
        self._show_controls(molecules is not None)
        if molecules is None:
            self.note.say(_NO_MOLECULES)
            return
        self.note.say("")
        for position, (name, quantity) in enumerate(molecules.filters.quantities.items()):
            row = QWidget()
            label = QLabel(quantity.label)
            histogram = RangeHistogram(self._viewer, logarithmic=name in LOGARITHMIC)
            tip = f"{quantity.meaning}.\nDrag a handle, or use the arrow keys; double-click removes the limits."
            for widget in (label, histogram):
                widget.setToolTip(tip)
            histogram.setAccessibleName(quantity.label)
            histogram.set_values(quantity.values)
            histogram.range_changed.connect(lambda low, high, name=name: self.range_changed.emit(name, low, high))
            column = QVBoxLayout(row)
            column.setContentsMargins(0, 0, 0, 4)
            column.setSpacing(0)
            column.addWidget(label)
            column.addWidget(histogram)
            self._layout.insertWidget(1 + position, row)
            self._rows.append(row)
            self.histograms[name] = histogram
        self._offer_colours(molecules)
        self.show_ranges(molecules.filters)

    def show_ranges(self, filters: FilterChain) -> None:
        """Move the handles to the ranges in force."""
        for name, histogram in self.histograms.items():
            histogram.set_limits(*filters.ranges.get(name, (None, None)))

    def redraw(self) -> None:
        """Draw in the colours of another theme."""
        for histogram in self.histograms.values():
            histogram.update()

    def _offer_colours(self, molecules: Molecules) -> None:
        self.colour.blockSignals(True)
        self.colour.clear()
        self.colour.addItem("one colour", "")
        for name, label in colour_choices(molecules).items():
            self.colour.addItem(label, name)
        self.colour.blockSignals(False)

    def _show_controls(self, visible: bool) -> None:
        self._colour_row.setVisible(visible)
        self.reset.setVisible(visible)


def colour_choices(molecules: Molecules) -> dict[str, str]:
    """What points can be coloured by, and how it is called: the quantities, then every other column of numbers."""
    choices = {name: quantity.label for name, quantity in molecules.filters.quantities.items()}
    for name, values in molecules.table.columns.items():
        if name not in choices and values.dtype.kind in "biuf":
            unit = COLUMN_BY_NAME[name].unit if name in COLUMN_BY_NAME else ""
            choices[name] = f"{name} [{unit}]" if unit else name
    return choices
