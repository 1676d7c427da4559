"""The camera's rows in the panel: what the data sheet says, or what is measured from the movie."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QInputDialog,
    QLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_plugin.choosers import OptionalNumber
from napari_plugin.settings import camera_presets, save_camera_preset
from napari_plugin.theme import Note

#: Under this name the camera of the last run is kept.
LAST_USED = "last used"
_MEASURED = "Measured from the movie"


class CameraSection(QGroupBox):
    """Pixel size, offset, e⁻/ADU and EM gain, with named cameras.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    changed = Signal()

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__("Camera", parent)
        self._viewer = viewer
        self.pixel_size_nm = OptionalNumber(viewer, 1, 10000, "unknown").explain(
            "Edge of a camera pixel in the sample, in nm: camera pixel divided by the magnification.\n"
            "Taken from the layer's scale or its file where they tell. Needed for distances in nm only."
        )
        self.offset_adu = OptionalNumber(viewer, -65536, 65536, "measured").explain(
            "Value of a pixel without any light, in ADU (Picasso: baseline, ThunderSTORM: base level)."
        )
        self.e_per_adu = OptionalNumber(viewer, 1e-4, 1e4, "measured").explain(
            "Photo-electrons per ADU, before electron multiplication (Picasso: sensitivity)."
        )
        self.em_gain = OptionalNumber(viewer, 1, 5000, "none").explain(
            "Gain of the electron multiplication (EMCCD cameras); leave empty for sCMOS and CCD."
        )
        self.read_noise_e = OptionalNumber(viewer, 0, 10000, "1.6").explain(
            "Standard deviation of the camera's read noise in electrons, from its data sheet.\n"
            "Left empty: 1.6 e⁻, or more where the movie shows more noise than the other values explain."
        )
        self.check = Note(viewer)
        self._fields = {
            "pixel_size_nm": self.pixel_size_nm,
            "offset_adu": self.offset_adu,
            "e_per_adu": self.e_per_adu,
            "em_gain": self.em_gain,
            "read_noise_e": self.read_noise_e,
        }
        self._build()
        self.refresh_presets()

    def values(self) -> dict[str, float]:
        """What the user gave; what is left to measure is absent."""
        given = {name: field.value() for name, field in self._fields.items()}
        return {name: value for name, value in given.items() if value is not None}

    def set_values(self, values: dict[str, float]) -> None:
        """Fill the fields; those that are not named become empty."""
        for name, field in self._fields.items():
            field.set_value(values.get(name))

    def fault(self) -> str | None:
        """The first impossible number, as a sentence; None where all are possible."""
        labels = {
            "pixel_size_nm": "Pixel size",
            "offset_adu": "Offset",
            "e_per_adu": "e⁻/ADU",
            "em_gain": "EM gain",
            "read_noise_e": "Read noise",
        }
        faults = [f"{labels[name]}: {fault}" for name, field in self._fields.items() if (fault := field.fault())]
        return faults[0] if faults else None

    def show_measured(self, values: dict[str, float], origin: dict[str, str] | None = None) -> None:
        """Show in the empty fields what is used for them.

        Parameters
        ----------
        values : dict
            Numbers by name; none for what is not known.
        origin : dict
            By name, in a word, where the number comes from.
        """
        for name, field in self._fields.items():
            field.set_measured(values.get(name), (origin or {}).get(name, "measured"))

    def remember_last(self) -> None:
        """Offer the present values again the next time."""
        if self.values():
            save_camera_preset(LAST_USED, self.values())
            self.refresh_presets()

    def refresh_presets(self) -> None:
        """Read the saved cameras anew."""
        chosen = self.presets.currentText()
        self.presets.blockSignals(True)
        self.presets.clear()
        self.presets.addItem(_MEASURED)
        self.presets.addItems(sorted(camera_presets(), key=lambda name: (name != LAST_USED, name)))
        self.presets.setCurrentIndex(max(0, self.presets.findText(chosen)))
        self.presets.blockSignals(False)
        self._show_buttons()

    def _build(self) -> None:
        self.presets = QComboBox()
        self.presets.setToolTip(
            "A camera that you saved, or everything measured from the movie. What the data sheet says is better than "
            "a measurement."
        )
        self.presets.setAccessibleName("Saved cameras")
        self.presets.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.presets.setMinimumContentsLength(10)
        self.save_button = _tool_button("Save…", "Save these values under a name")
        self.forget_button = _tool_button("Forget", "Forget the saved camera")
        row = QHBoxLayout()
        row.addWidget(self.presets, 1)
        row.addWidget(self.save_button)
        row.addWidget(self.forget_button)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(4)
        form.addRow("Pixel size [nm]", self.pixel_size_nm)
        form.addRow("Offset [ADU]", self.offset_adu)
        form.addRow("e⁻ per ADU", self.e_per_adu)
        form.addRow("EM gain", self.em_gain)
        form.addRow("Read noise [e⁻]", self.read_noise_e)
        layout = QVBoxLayout(self)
        layout.setSizeConstraint(QLayout.SizeConstraint.SetMinimumSize)  # notes below must not squeeze the rows
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(4)
        layout.addLayout(row)
        layout.addLayout(form)
        layout.addWidget(self.check)
        layout.addStretch(1)
        for name, field in self._fields.items():
            label = form.labelForField(field)
            label.setToolTip(field.toolTip())
            field.setAccessibleName(name)
            field.number_changed.connect(self.changed)
        self.presets.activated.connect(self._on_preset)
        self.save_button.clicked.connect(self._on_save)
        self.forget_button.clicked.connect(self._on_forget)

    def _on_preset(self, index: int) -> None:
        values = {} if index == 0 else camera_presets().get(self.presets.itemText(index), {})
        # "Measured" concerns the camera; how large a pixel is cannot be measured.
        if index == 0 and self.pixel_size_nm.value() is not None:
            values = {"pixel_size_nm": self.pixel_size_nm.value() or 0.0}
        self.set_values(values)
        self._show_buttons()
        self.changed.emit()

    def _on_save(self) -> None:
        name, accepted = QInputDialog.getText(self, "Save camera", "Name of the camera:")
        if accepted and name.strip():
            self.save_as(name.strip())

    def save_as(self, name: str) -> None:
        """Save the present values under a name."""
        save_camera_preset(name, self.values())
        self.refresh_presets()
        self.presets.setCurrentText(name)
        self._show_buttons()

    def _on_forget(self) -> None:
        save_camera_preset(self.presets.currentText(), None)
        self.refresh_presets()

    def _show_buttons(self) -> None:
        self.forget_button.setVisible(self.presets.currentIndex() > 0)


def _tool_button(text: str, tip: str) -> QPushButton:
    button = QPushButton()
    button.setText(text)
    button.setToolTip(tip)
    return button
