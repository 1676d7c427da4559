"""The tab for the super-resolved image: how it is drawn, and saving it."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_plugin.result_image import ImageOptions
from napari_plugin.settings import remember, remembered
from napari_plugin.theme import Note
from napari_plugin.typed_numbers import DecimalBox

_METHODS = {
    "gaussian": "Gaussians, wide as σ",
    "histogram": "Molecules per pixel",
    "blur": "One blur for all",
}
_COLORMAPS = ("inferno", "hot", "magma", "viridis", "gray", "cyan", "green", "magenta")
_COLOUR_BY = {"frame": "frame", "z": "z", "sigma_nm": "precision", "photons": "photons", "probability": "probability"}


class ImageSection(QWidget):
    """Settings of the super-resolved image; every change draws it anew.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    changed = Signal()
    save_requested = Signal()

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.pixel_size_nm = DecimalBox()
        self.pixel_size_nm.setRange(0.5, 1000)
        self.pixel_size_nm.setDecimals(1)
        self.pixel_size_nm.setValue(float(remembered("image", "pixel_size_nm")))
        self.pixel_size_nm.setKeyboardTracking(False)
        self.pixel_size_nm.setToolTip("Edge of a pixel of the super-resolved image, in nm; half the precision is fine.")
        self.method = QComboBox()
        for name, label in _METHODS.items():
            self.method.addItem(label, name)
        self.method.setCurrentIndex(max(0, self.method.findData(remembered("image", "method"))))
        self.method.setToolTip("How a molecule is drawn. Each has weight 1: the sum of the image is their number.")
        self.blur_nm = DecimalBox()
        self.blur_nm.setRange(0.5, 1000)
        self.blur_nm.setValue(20)
        self.blur_nm.setKeyboardTracking(False)
        self.blur_nm.setToolTip("σ of the fixed blur, in nm")
        self._blur_label = QLabel("Blur σ [nm]")
        self.colour_by = QComboBox()
        self.colour_by.setToolTip("Colour the molecules by any column, from its 1st to its 99th percentile (turbo).")
        self.colormap = QComboBox()
        self.colormap.addItems(_COLORMAPS)
        self.colormap.setCurrentText(str(remembered("image", "colormap")))
        self.colormap.setToolTip("Colours of the brightness")
        self.follow_view = QCheckBox("Follow the zoom, as fine as the screen")
        self.follow_view.setToolTip(
            "Draw only what is on the screen, with one pixel of the image per pixel of the screen, whenever you zoom "
            "or move."
        )
        self.save_button = QPushButton("Save image…")
        self.save_button.setToolTip("PNG with scale bar, or TIFF with values and pixel size; the whole field")
        self.note = Note(viewer)
        self.set_columns(())
        self._build()

    def options(self) -> ImageOptions:
        """The settings."""
        return ImageOptions(
            pixel_size_nm=self.pixel_size_nm.value(),
            method=str(self.method.currentData()),
            blur_nm=self.blur_nm.value(),
            colour_by=self.colour_by.currentData() or None,
            colormap=self.colormap.currentText(),
            follow_view=self.follow_view.isChecked(),
        )

    def set_columns(self, names: tuple[str, ...]) -> None:
        """Offer the columns of a table for colours."""
        chosen = self.colour_by.currentData()
        self.colour_by.blockSignals(True)
        self.colour_by.clear()
        self.colour_by.addItem("brightness only", "")
        usual = [name for name in _COLOUR_BY if name in names]
        for name in (*usual, *(name for name in names if name not in _COLOUR_BY)):
            self.colour_by.addItem(_COLOUR_BY.get(name, name), name)
        self.colour_by.setCurrentIndex(max(0, self.colour_by.findData(chosen)))
        self.colour_by.blockSignals(False)
        self._show_relevant()

    def _build(self) -> None:
        for box in (self.method, self.colour_by, self.colormap):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(10)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setVerticalSpacing(4)
        form.addRow("Pixel size [nm]", self.pixel_size_nm)
        form.addRow("Drawing", self.method)
        form.addRow(self._blur_label, self.blur_nm)
        form.addRow("Colour by", self.colour_by)
        form.addRow("Colours", self.colormap)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.follow_view)
        layout.addWidget(self.note)
        layout.addWidget(self.save_button)
        layout.addStretch(1)
        self.pixel_size_nm.valueChanged.connect(self._on_change)
        self.blur_nm.valueChanged.connect(self._on_change)
        self.follow_view.toggled.connect(self._on_change)
        for box in (self.method, self.colour_by, self.colormap):
            box.currentIndexChanged.connect(self._on_change)
        self.save_button.clicked.connect(self.save_requested)
        self._show_relevant()

    def _show_relevant(self) -> None:
        is_blur = self.method.currentData() == "blur"
        self.blur_nm.setVisible(is_blur)
        self._blur_label.setVisible(is_blur)
        self.colormap.setEnabled(not self.colour_by.currentData())
        self.pixel_size_nm.setEnabled(not self.follow_view.isChecked())

    def _on_change(self) -> None:
        self._show_relevant()
        remember("image", "pixel_size_nm", self.pixel_size_nm.value())
        remember("image", "method", str(self.method.currentData()))
        remember("image", "colormap", self.colormap.currentText())
        self.changed.emit()
