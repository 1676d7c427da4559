"""Choosing a model, and reading what it is for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QGroupBox, QHBoxLayout, QLayout, QPushButton, QVBoxLayout, QWidget

from napari_plugin.settings import remember, remembered
from napari_plugin.theme import Note
from smlm_pb.errors import SmlmPbError

if TYPE_CHECKING:
    from smlm_pb.localization.model_card import ModelCard


class ModelSection(QGroupBox):
    """The shipped models, folders of one's own, and the range each was made for.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    changed = Signal()

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__("Model", parent)
        self._cards: dict[str, ModelCard] = {}
        self._pixel_size_nm: float | None = None
        self.names = QComboBox()
        self.names.setAccessibleName("Model")
        self.names.setToolTip("The network that finds the molecules; the lines below say what it was made for.")
        self.names.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.names.setMinimumContentsLength(10)
        folder = QPushButton()
        folder.setText("Folder…")
        folder.setToolTip("Use a model of your own: the folder that training made")
        folder.clicked.connect(self._on_folder)
        self.description = Note(viewer)
        row = QHBoxLayout()
        row.addWidget(self.names, 1)
        row.addWidget(folder)
        layout = QVBoxLayout(self)
        layout.setSizeConstraint(QLayout.SizeConstraint.SetMinimumSize)  # notes below must not squeeze the rows
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(4)
        layout.addLayout(row)
        layout.addWidget(self.description)
        layout.addStretch(1)
        self.refresh()
        self.names.currentIndexChanged.connect(self._on_choice)

    @property
    def model(self) -> str:
        """Name or folder of the chosen model; empty where there is none."""
        return str(self.names.currentData() or "")

    @property
    def card(self) -> ModelCard | None:
        """What is known of the chosen model."""
        return self._cards.get(self.model)

    def refresh(self) -> None:
        """Read the shipped models anew and choose the remembered one."""
        from smlm_pb.localization import list_models

        wanted = self.model or str(remembered("localization", "model"))
        own = {name: card for name, card in self._cards.items() if Path(name).is_absolute()}
        self._cards = {card.name: card for card in list_models()} | own
        self.names.blockSignals(True)
        self.names.clear()
        for name in self._cards:
            self.names.addItem(_shown(name), name)
        self.names.blockSignals(False)
        if wanted not in self._cards and Path(wanted).is_absolute():
            self.add_folder(wanted, quietly=True)
        self.choose(wanted)
        self._describe()

    def choose(self, name: str) -> None:
        """Choose a model that is in the list."""
        index = self.names.findData(name)
        if index >= 0:
            self.names.setCurrentIndex(index)

    def add_folder(self, folder: str, *, quietly: bool = False) -> None:
        """Take a folder into the list and choose it; what is wrong with it is shown."""
        from smlm_pb.localization.model_card import ModelCard

        try:
            card = ModelCard.load(Path(folder))
        except SmlmPbError as error:
            if not quietly:
                self.description.say(str(error), "error")
            return
        self._cards[folder] = card
        if self.names.findData(folder) < 0:
            self.names.addItem(_shown(folder), folder)
        self.choose(folder)

    def set_pixel_size(self, pixel_size_nm: float | None) -> None:
        """Say widths and densities in nm and µm² where the pixel size is known."""
        self._pixel_size_nm = pixel_size_nm
        self._describe()

    def _on_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a model")
        if folder:
            self.add_folder(folder)

    def _on_choice(self) -> None:
        remember("localization", "model", self.model or "default")
        self._describe()
        self.changed.emit()

    def _describe(self) -> None:
        card = self.card
        if card is None:
            self.description.say("No model is installed; choose a folder, or train one: smlm-pb train.", "warning")
            return
        valid = _range_of_validity(card, self._pixel_size_nm)
        tells_numbers = any(letter.isdigit() for letter in card.description)
        here = _at_this_pixel_size(card, self._pixel_size_nm) if tells_numbers else valid
        self.description.say("\n".join(filter(None, (card.description, here))))
        self.description.setToolTip(valid)


def _shown(name: str) -> str:
    return Path(name).name if Path(name).is_absolute() else name


def _at_this_pixel_size(card: ModelCard, pixel_size_nm: float | None) -> str:
    if not pixel_size_nm or not math.isfinite(pixel_size_nm):
        return ""
    low, high = (sigma * pixel_size_nm for sigma in card.psf_sigma_px)
    return f"At {pixel_size_nm:g} nm per pixel: spots of σ {low:.0f}–{high:.0f} nm."


def _range_of_validity(card: ModelCard, pixel_size_nm: float | None) -> str:
    low, high = card.psf_sigma_px
    spot = f"spots of σ {low:g}–{high:g} px"
    density = f"up to {card.density_per_px2[1]:g} molecules per px"
    if pixel_size_nm and math.isfinite(pixel_size_nm):
        spot = f"spots of σ {low * pixel_size_nm:.0f}–{high * pixel_size_nm:.0f} nm"
        density = f"up to {card.density_per_px2[1] / (pixel_size_nm / 1000) ** 2:.2g} molecules/µm²"
    photons = f"{card.photons[0]:g}–{card.photons[1]:g} photons"
    background = f"background {card.background_e[0]:g}–{card.background_e[1]:g} e⁻/px"
    return f"For {spot}, {photons}, {background}, {density}."
