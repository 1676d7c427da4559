"""Choosing a layer, and typing a number that may be left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QComboBox, QLineEdit, QSizePolicy, QToolTip, QWidget

from napari_plugin.theme import theme_color
from napari_plugin.typed_numbers import AmbiguousNumberError, number_of


class LayerChooser(QComboBox):
    """A list of the viewer's layers of one kind, which follows what is added, removed and renamed.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    accepts : callable
        Whether a layer belongs into the list.
    nothing : str
        What the first entry says, which stands for no layer.
    takes_first : bool
        Whether a layer that is added is chosen while none is.
    """

    layer_changed = Signal(object)

    def __init__(
        self,
        viewer: Any,
        accepts: Callable[[Any], bool],
        nothing: str,
        *,
        takes_first: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._accepts, self._nothing, self._takes_first = viewer, accepts, nothing, takes_first
        self._layers: list[Any] = []
        self._named: list[Any] = []
        self._current: Any = None
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.view().setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names of movies differ at their ends
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_list)
        viewer.layers.events.reordered.connect(self._on_list)
        self.currentIndexChanged.connect(self._on_index)
        self.refresh()

    @property
    def layer(self) -> Any:
        """The chosen layer, or None."""
        return self._current

    def choose(self, layer: Any) -> None:
        """Choose a layer; one that is not in the list, or None, chooses nothing."""
        index = next((i + 1 for i, known in enumerate(self._layers) if known is layer), 0)
        self.setCurrentIndex(index)
        self._on_index(index)

    def refresh(self) -> None:
        """Read the viewer's list of layers anew, keeping the choice where it is still there."""
        self._layers = [layer for layer in reversed(self._viewer.layers) if self._accepts(layer)]
        self.blockSignals(True)
        self.clear()
        self.addItem(self._nothing if not self._layers else f"– {self._nothing} –")
        for number, layer in enumerate(self._layers, 1):
            self.addItem(layer.name)
            self.setItemData(number, layer.name, Qt.ItemDataRole.ToolTipRole)  # long names are cut off
        index = next((i + 1 for i, layer in enumerate(self._layers) if layer is self._current), 0)
        self.setCurrentIndex(index)
        self.blockSignals(False)
        self._listen_to_names()
        self._on_index(index)

    def stop_listening(self) -> None:
        """Let go of the viewer; for the end of the panel."""
        events = self._viewer.layers.events
        events.inserted.disconnect(self._on_inserted)
        events.removed.disconnect(self._on_list)
        events.reordered.disconnect(self._on_list)
        for layer in self._named:
            layer.events.name.disconnect(self._on_list)
        self._named = []

    def event(self, event: QEvent) -> bool:
        """Show the whole name as well where there is no room for it."""
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip and self._current is not None:
            QToolTip.showText(event.globalPos(), f"{self._current.name}\n{self.toolTip()}", self)
            return True
        return bool(super().event(event))

    def _listen_to_names(self) -> None:
        for layer in self._named:
            layer.events.name.disconnect(self._on_list)
        self._named = list(self._layers)
        for layer in self._named:
            layer.events.name.connect(self._on_list)

    def _on_inserted(self, event: Any) -> None:
        if not isalive(self):
            return
        new = event.value
        if self._takes_first and self._current is None and self._accepts(new):
            self.refresh()
            self.choose(new)
        else:
            self.refresh()

    def _on_list(self, event: Any = None) -> None:
        if isalive(self):
            self.refresh()

    def _on_index(self, index: int) -> None:
        chosen = self._layers[index - 1] if 0 < index <= len(self._layers) else None
        if chosen is not self._current:
            self._current = chosen
            self.layer_changed.emit(chosen)


class OptionalNumber(QLineEdit):
    """A number with a range; left empty it stands for "measured" (or whatever ``empty`` says).

    Parameters
    ----------
    viewer : napari.Viewer
        Whose theme colours an impossible number.
    low, high : float
        Range.
    empty : str
        What an empty field means; shown in it in grey.
    whole : bool
        Whether only whole numbers are possible.
    """

    number_changed = Signal()

    def __init__(
        self,
        viewer: Any,
        low: float,
        high: float,
        empty: str,
        *,
        whole: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._low, self._high, self._empty, self._whole = viewer, low, high, empty, whole
        self._tip = ""
        self.setPlaceholderText(empty)
        self.setClearButtonEnabled(True)
        self.setMinimumWidth(70)
        self.textEdited.connect(self._on_text)

    def value(self) -> float | None:
        """The number; None where the field is empty or holds none that is possible."""
        try:
            number = number_of(self.text(), whole=self._whole)
        except ValueError:
            return None
        return number if number is not None and self._is_possible(number) else None

    def is_valid(self) -> bool:
        """Whether the field is empty or holds a possible number."""
        return self.fault() is None

    def _is_possible(self, number: float) -> bool:
        return self._low <= number <= self._high and (not self._whole or number == int(number))

    def set_value(self, number: float | None) -> None:
        """Fill or empty the field, without `number_changed`."""
        self.setText("" if number is None else f"{number:.6g}")
        self._show_validity()

    def set_measured(self, number: float | None, word: str = "measured") -> None:
        """Say in grey what is used for as long as the field is empty."""
        self.setPlaceholderText(self._empty if number is None else f"{word}: {number:.4g}")

    def explain(self, tip: str) -> OptionalNumber:
        """Set the tooltip; what the range is, is added."""
        self._tip = f"{tip}\nPossible: {self._low:g} to {self._high:g}. Empty: {self._empty}."
        self.setToolTip(self._tip)
        return self

    def fault(self) -> str | None:
        """What is wrong with the number; None where nothing is."""
        try:
            number = number_of(self.text(), whole=self._whole)
        except AmbiguousNumberError as error:
            return str(error)
        except ValueError:
            number = math.nan
        if number is None or self._is_possible(number):
            return None
        kind = "a whole number" if self._whole else "a number"
        return f"'{self.text()}' is not {kind} from {self._low:g} to {self._high:g}; correct it or empty the field."

    def _on_text(self) -> None:
        self._show_validity()
        self.number_changed.emit()

    def _show_validity(self) -> None:
        fault = self.fault()
        color = theme_color(self._viewer, "error").name()
        self.setStyleSheet("" if fault is None else f"QLineEdit {{ border: 1px solid {color}; }}")
        self.setToolTip(self._tip if fault is None else fault)
