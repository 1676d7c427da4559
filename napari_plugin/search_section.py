"""What is searched and what is kept: PSF width, frames, region, threshold, live preview."""

from __future__ import annotations

from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLayout,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_plugin.choosers import LayerChooser, OptionalNumber
from napari_plugin.movie_layers import Place
from napari_plugin.settings import remember, remembered
from napari_plugin.theme import Note
from napari_plugin.typed_numbers import DecimalBox
from napari_plugin.words import EXPECTED_TIP

_STEPS = 1000
#: Width of the line around a region, as a share of the frame.
_EDGE = 0.005


class ThresholdControl(QWidget):
    """The smallest probability that is shown: automatic, or set by a slider.

    The slider moves what is shown of a finished result; nothing is computed anew.
    """

    threshold_changed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._best = 0.5
        tip = (
            "Smallest probability that a molecule exists, from 0 to 1. It acts at once on the molecules found, "
            "without localizing again.\nAuto: the threshold with the highest expected Jaccard index.\n" + EXPECTED_TIP
        )
        self.auto = QCheckBox("auto")
        self.auto.setChecked(True)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, _STEPS)
        self.spin = DecimalBox()
        self.spin.setRange(0.0, 1.0)
        self.spin.setDecimals(2)
        self.spin.setSingleStep(0.05)
        self.spin.setButtonSymbols(DecimalBox.ButtonSymbols.NoButtons)
        self.spin.setFixedWidth(52)
        for widget in (self.auto, self.slider, self.spin):
            widget.setToolTip(tip)
            widget.setAccessibleName("Threshold")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.auto)
        layout.addWidget(self.slider, 1)
        layout.addWidget(self.spin)
        self._show(self._best)
        self.auto.toggled.connect(self._on_auto)
        self.slider.valueChanged.connect(lambda step: self._on_moved(step / _STEPS))
        self.spin.valueChanged.connect(self._on_moved)

    @property
    def threshold(self) -> float | None:
        """The chosen threshold; None for the automatic one."""
        return None if self.auto.isChecked() else self.spin.value()

    @property
    def in_force(self) -> float:
        """The threshold that is applied, chosen or automatic."""
        return self._best if self.auto.isChecked() else self.spin.value()

    def set_best(self, threshold: float) -> None:
        """Take over the automatic threshold of a result."""
        self._best = threshold
        if self.auto.isChecked():
            self._show(threshold)

    def set_threshold(self, threshold: float | None) -> None:
        """Set a threshold, or None for the automatic one."""
        if threshold is None:
            self.auto.setChecked(True)
        else:
            self._on_moved(threshold)

    def _on_auto(self, automatic: bool) -> None:
        if automatic:
            self._show(self._best)
        self.threshold_changed.emit(self.threshold)

    def _on_moved(self, threshold: float) -> None:
        self._show(threshold)
        self.auto.blockSignals(True)
        self.auto.setChecked(False)
        self.auto.blockSignals(False)
        self.threshold_changed.emit(self.threshold)

    def _show(self, threshold: float) -> None:
        for widget in (self.slider, self.spin):
            widget.blockSignals(True)
        self.slider.setValue(round(threshold * _STEPS))
        self.spin.setValue(threshold)
        for widget in (self.slider, self.spin):
            widget.blockSignals(False)


class SearchSection(QGroupBox):
    """Rows for the search itself.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    changed = Signal()
    #: A rectangle is to be drawn on the movie.
    draw_requested = Signal()

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__("Search", parent)
        from napari.layers import Shapes

        self._viewer = viewer
        self._shapes: Any = None
        self.psf_sigma_px = OptionalNumber(viewer, 0.3, 20, "measured").explain(
            "Width of the point-spread function: σ of a Gaussian spot, in camera pixels."
        )
        self.first_frame = OptionalNumber(viewer, 0, 1e9, "first", whole=True).explain(
            "First frame that is localized, counted from 0."
        )
        self.last_frame = OptionalNumber(viewer, 0, 1e9, "last", whole=True).explain(
            "Last frame that is localized, counted from 0."
        )
        self.region = LayerChooser(viewer, lambda layer: isinstance(layer, Shapes), "whole frame")
        self.region.setToolTip(
            "Localize only inside the last rectangle of a Shapes layer. Draw creates such a layer, ready to draw."
        )
        self.draw_button = QPushButton()
        self.draw_button.setText("Draw")
        self.draw_button.setToolTip("Add a Shapes layer and draw a rectangle on the movie")
        self.refine = QComboBox()
        for mode, label in (("off", "off"), ("auto", "where it helps"), ("on", "everywhere")):
            self.refine.addItem(label, mode)
        self.refine.setCurrentIndex(max(0, self.refine.findData(remembered("localization", "refine"))))
        self.refine.currentIndexChanged.connect(
            lambda _index: remember("localization", "refine", str(self.refine.currentData()))
        )
        self.refine.setToolTip(
            "At the end of a run, fit the molecules to the pixels: more precise for lone molecules and small groups. "
            "The movie is read a second time; a run takes two to three times as long."
        )
        self.threshold = ThresholdControl()
        self.live_preview = QCheckBox("Live preview of the frame on the screen")
        self.live_preview.setToolTip(
            "Localize the present frame at once while you step through the movie or change a value. "
            "Computed beside napari: stepping stays smooth."
        )
        self.preview_note = Note(viewer)
        self.preview_note.setToolTip(EXPECTED_TIP)
        self._build()

    def fault(self) -> str | None:
        """The first impossible entry, as a sentence; None where all are possible."""
        for label, field in (
            ("PSF width", self.psf_sigma_px),
            ("First frame", self.first_frame),
            ("Last frame", self.last_frame),
        ):
            if field.fault():
                return f"{label}: {field.fault()}"
        return None

    def frames(self, n_frames: int) -> tuple[int, int] | None:
        """First frame and the one after the last; None for the whole movie.

        Raises
        ------
        ConfigurationError
            When the range holds no frame of the movie.
        """
        from smlm_pb.errors import ConfigurationError

        first, last = self.first_frame.value(), self.last_frame.value()
        if first is None and last is None:
            return None
        start = 0 if first is None else int(first)
        stop = n_frames if last is None else int(last) + 1
        if not 0 <= start < stop <= n_frames:
            raise ConfigurationError(
                f"Frames {start} to {stop - 1} were asked for, but the movie has frames 0 to {n_frames - 1}; "
                "correct the range or empty its fields."
            )
        return start, stop

    def _build(self) -> None:
        frames = QHBoxLayout()
        frames.addWidget(self.first_frame)
        frames.addWidget(QLabel("to"))
        frames.addWidget(self.last_frame)
        region = QHBoxLayout()
        region.addWidget(self.region, 1)
        region.addWidget(self.draw_button)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(4)
        form.addRow("PSF width σ [px]", self.psf_sigma_px)
        form.addRow("Frames", frames)
        form.addRow("Region", region)
        form.addRow("Threshold", self.threshold)
        form.addRow("Refinement", self.refine)
        layout = QVBoxLayout(self)
        layout.setSizeConstraint(QLayout.SizeConstraint.SetMinimumSize)  # notes below must not squeeze the rows
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(4)
        layout.addLayout(form)
        layout.addWidget(self.live_preview)
        layout.addWidget(self.preview_note)
        layout.addStretch(1)
        self.psf_sigma_px.setAccessibleName("PSF width in pixels")
        self.first_frame.setAccessibleName("First frame")
        self.last_frame.setAccessibleName("Last frame")
        for field in (self.psf_sigma_px, self.first_frame, self.last_frame):
            field.number_changed.connect(self.changed)
        self.region.layer_changed.connect(self._on_region)
        self.draw_button.clicked.connect(self.draw_requested)

    def _on_region(self, layer: Any) -> None:
        if self._shapes is not None:
            self._shapes.events.data.disconnect(self._on_drawn)
        self._shapes = layer
        if layer is not None:
            layer.events.data.connect(self._on_drawn)
        self.changed.emit()

    def _on_drawn(self, event: Any = None) -> None:
        if isalive(self):
            self.changed.emit()

    def draw_on(self, place: Place, size_px: tuple[int, int]) -> None:
        """Let a rectangle be drawn, in the chosen layer or a new one.

        Parameters
        ----------
        place : Place
            Where the movie lies: units other than its own would make napari do without any.
        size_px : tuple of int
            Height and width of its frames.
        """
        layer = self.region.layer
        if layer is None:
            layer = self._viewer.add_shapes(
                name="region",
                ndim=2,
                face_color="transparent",
                edge_color="#ffb000",
                edge_width=_EDGE * max(size_px),
                **{name: values[-2:] for name, values in place.as_arguments().items()},
            )
            self.region.choose(layer)
        self._viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"
