"""The dock panel: from a movie layer to molecules, their image and a saved table.

The panel collects parameters, starts a worker and shows results; everything it knows of physics it asks the library.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import QFormLayout, QFrame, QHBoxLayout, QScrollArea, QTabWidget, QToolButton, QVBoxLayout, QWidget

from napari_plugin.analysis_section import AnalysisSection
from napari_plugin.background import warm_up
from napari_plugin.camera_section import CameraSection
from napari_plugin.choosers import LayerChooser
from napari_plugin.figure_picture import FigurePicture
from napari_plugin.filter_section import FilterSection
from napari_plugin.help import show_help
from napari_plugin.image_section import ImageSection
from napari_plugin.inspect_section import InspectSection
from napari_plugin.keyboard import add_shortcuts, explain_rows, order_focus
from napari_plugin.localize_job import LocalizeJob
from napari_plugin.model_section import ModelSection
from napari_plugin.molecule_layers import METADATA_KEY
from napari_plugin.molecules import Molecules
from napari_plugin.movie_layers import Place, is_helper
from napari_plugin.panel_analysis import Analysis
from napari_plugin.panel_checks import Checks
from napari_plugin.panel_inputs import Inputs
from napari_plugin.panel_results import Results, describe_run
from napari_plugin.panel_training import Training
from napari_plugin.run_bar import RunBar
from napari_plugin.run_controller import RunController
from napari_plugin.search_section import SearchSection
from napari_plugin.theme import Note
from napari_plugin.training_section import TrainingSection
from napari_plugin.words import in_panel_words
from smlm_pb.errors import SmlmPbError

if TYPE_CHECKING:
    import napari

_log = logging.getLogger(__name__)

_NO_MOVIE = "Open a movie: drop a TIFF onto napari, or take File ▸ Open Sample ▸ smlm-pb."
_WIDTH_PX = 390
#: By then a text that has changed has its new height.
_LAID_OUT_AFTER_MS = 100


class LocalizePanel(QWidget):
    """Localize molecules, look at them, filter them, save them.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer, given by napari.
    """

    def __init__(self, napari_viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        self._let_go: Callable[[], None] | None = None
        super().__init__(parent)
        # napari hands plugins a proxy, in which a layer is never the same object twice.
        self.viewer: Any = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.last_run_note = ""
        self._place, self._name = Place(), ""
        self._make_widgets()
        self._build()
        self.inputs = Inputs(self)
        self.results = Results(self)
        self.analyses, self.checks, self.trainings = Analysis(self), Checks(self), Training(self)
        self.runs = RunController(self.viewer, self.results.image, self)
        self._connect()
        self.inputs.measure()
        self.show_movie_fault(None)
        self._choose_first_movie()
        self._choose_molecules_in_sight()
        warm_up()

    # -- asked by the parts --------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether a run goes on."""
        return hasattr(self, "runs") and self.runs.running

    @property
    def is_inspecting(self) -> bool:
        """Whether a click on a frame looks closely at a molecule."""
        return bool(self.tabs.currentWidget() is self._pages["Inspect"])

    def show_movie_fault(self, why: str | None) -> None:
        """Say why the chosen layer cannot be localized; None when it can."""
        if self.movie.layer is None:
            self.movie_note.say(_NO_MOVIE)
        else:
            self.movie_note.say(why or "", "error")
        self.run_bar.run_button.setEnabled(self.movie.layer is not None and why is None)

    def fail(self, error: Exception) -> None:
        """Tell an error once: a notification with the remedy, and a note in the panel."""
        from napari.utils.notifications import show_error

        self.reset_save_button()
        if isinstance(error, SmlmPbError):
            message = in_panel_words(str(error))
        else:
            message = f"Unexpected error ({type(error).__name__}: {error}); please report it with napari's log."
        self.run_bar.status.say(message, "error")
        show_error(message)

    def reveal(self, widget: QWidget) -> None:
        """Scroll its tab so that a widget that has just grown can be seen."""
        for area in self._pages.values():
            if area.isAncestorOf(widget):
                QTimer.singleShot(_LAID_OUT_AFTER_MS, partial(_scroll_to, area, widget))

    def reset_save_button(self) -> None:
        """Make saving possible again."""
        self.run_bar.save_button.setEnabled(True)
        self.run_bar.save_button.setText("Save molecules…")

    # -- running -------------------------------------------------------------------------------------------

    def run(self, job: LocalizeJob | None = None) -> None:
        """Localize the chosen movie.

        Parameters
        ----------
        job : LocalizeJob, optional
            Another job than what the rows say.
        """
        if self.runs.running:
            return
        try:
            request = self.inputs.run_request()
        except SmlmPbError as error:
            self.fail(error)
            return
        layer = self.movie.layer
        self._place, self._name = Place.of_layer(layer), f"molecules of {layer.name}"
        self.camera.remember_last()
        self.inputs.preview.end()
        self.last_run_note = ""
        self.run_bar.status.say("")
        self.run_bar.set_running(True)
        self.keep_image_active()
        self.runs.start(request, self._place, self._name, job)

    def _on_cancel(self) -> None:
        self.run_bar.set_cancelling()
        self.runs.cancel()

    def _on_finished(self, job: LocalizeJob, molecules: Molecules | None) -> None:
        self.run_bar.set_running(False)
        if job.failure is not None and job.result is None:
            self.fail(job.failure)
            return
        assert job.result is not None
        self.last_run_note = describe_run(job.result)
        self.inputs.request_preview()
        if molecules is None:
            self.run_bar.status.say(self.last_run_note)
            return
        self.results.take(molecules)
        self.run_bar.show_view("both")
        self.keep_image_active()
        if not len(molecules.table):
            self.run_bar.status.say(f"{self.last_run_note} No molecule was found.", "warning")

    def keep_image_active(self) -> None:
        """The movie stays the active layer: napari's status bar reads the active layer from another thread."""
        if self.movie.layer is not None:
            self.viewer.layers.selection.active = self.movie.layer

    # -- making --------------------------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        from napari.layers import Image, Points

        viewer = self.viewer
        self.movie = LayerChooser(
            viewer, lambda layer: isinstance(layer, Image) and not is_helper(layer), "no movie", takes_first=True
        )
        self.movie.setToolTip("Image layer with the axes time, y, x: numpy, dask or zarr")
        self.movie.setAccessibleName("Movie")
        self.molecules = LayerChooser(
            viewer, lambda layer: isinstance(layer, Points) and not is_helper(layer), "none yet", takes_first=True
        )
        self.molecules.setToolTip("Points layer that Image, Filter, Inspect, the threshold and Save work on")
        self.molecules.setAccessibleName("Molecules")
        self.movie_note = Note(viewer)
        self.camera, self.model, self.search = CameraSection(viewer), ModelSection(viewer), SearchSection(viewer)
        self.image, self.filter, self.inspect = ImageSection(viewer), FilterSection(viewer), InspectSection(viewer)
        self.analysis, self.training = AnalysisSection(viewer), TrainingSection(viewer)
        self.run_bar = RunBar(viewer)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.tabBar().setDrawBase(False)
        self.tabs.setUsesScrollButtons(False)
        self.help_button = QToolButton()
        self.help_button.setText("?")
        self.help_button.setToolTip("What the steps are, and the documentation")
        self.help_button.setAccessibleName("Help")
        self.help_button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def _build(self) -> None:
        head = QFormLayout()
        head.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        head.setVerticalSpacing(4)
        row = QHBoxLayout()
        row.addWidget(self.movie, 1)
        row.addWidget(self.help_button)
        head.addRow("Movie", row)
        head.addRow("Molecules", self.molecules)
        localize = QWidget()
        sections = QVBoxLayout(localize)
        sections.setContentsMargins(0, 4, 0, 0)
        sections.setSpacing(6)
        for section in (self.camera, self.model, self.search):
            sections.addWidget(section)
        sections.addStretch(1)
        self._pages: dict[str, QScrollArea] = {}
        for title, page in (
            ("Localize", localize),
            ("Image", self.image),
            ("Filter", self.filter),
            ("Inspect", self.inspect),
            ("Analyse", self.analysis),
            ("Train", self.training),
        ):
            self._pages[title] = scrolled = _scrolling(page)
            self.tabs.addTab(scrolled, title)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(6)
        layout.addLayout(head)
        layout.addWidget(self.movie_note)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.run_bar)
        self.setMinimumWidth(_WIDTH_PX)
        explain_rows(self)
        order_focus(self)
        add_shortcuts(self, self.tabs, self.run_bar.run_button.click, self.run_bar.cancel_button.click)

    def _connect(self) -> None:
        self.run_bar.run_requested.connect(self.run)
        self.run_bar.cancel_requested.connect(self._on_cancel)
        self.runs.progressed.connect(self.run_bar.show_progress)
        self.runs.finished.connect(self._on_finished)
        self.help_button.clicked.connect(lambda: show_help(self))
        self.viewer.events.theme.connect(self._on_theme)
        workers = (self.runs, self.inputs, self.results, self.analyses, self.checks, self.trainings)
        parts = (*workers, *self.findChildren(LayerChooser))
        viewer, on_theme = self.viewer, self._on_theme
        self._let_go = partial(_let_go, parts, viewer, on_theme)
        self.destroyed.connect(self._let_go)

    def sizeHint(self) -> QSize:
        """Ask for no more width than needed: the picture should have the rest."""
        return QSize(_WIDTH_PX, super().sizeHint().height())

    def event(self, event: QEvent) -> bool:
        """Let go of the viewer when the dock is removed: napari then takes the panel out of it."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None and self._let_go is not None:
            self._let_go()
            self._let_go = None
        return bool(super().event(event))

    def _choose_first_movie(self) -> None:
        if self.movie.layer is None:
            active = self.viewer.layers.selection.active
            self.movie.choose(active)
            if self.movie.layer is None and self.movie.count() > 1:
                self.movie.setCurrentIndex(1)

    def _choose_molecules_in_sight(self) -> None:
        """A table that was opened before the panel, or what it found before it was closed."""
        there = (layer for layer in reversed(self.viewer.layers) if METADATA_KEY in layer.metadata and layer.visible)
        self.molecules.choose(next(there, None))

    def _on_theme(self, event: Any = None) -> None:
        for note in self.findChildren(Note):
            note.recolor()
        for picture in self.findChildren(FigurePicture):
            picture.recolor()
        self.filter.redraw()


def _scrolling(page: QWidget) -> QScrollArea:
    area = QScrollArea()
    area.setWidget(page)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # it follows the control that has the keyboard
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return area


def _scroll_to(area: QScrollArea, widget: QWidget) -> None:
    with contextlib.suppress(RuntimeError):  # the panel may be gone by now
        area.ensureWidgetVisible(widget)


def _let_go(parts: tuple[Any, ...], viewer: Any, on_theme: Any, *_: Any) -> None:
    """The panel is gone: stop what runs, and leave the viewer alone."""
    for part in parts:
        end = getattr(part, "stop_listening", None) or part.close
        with contextlib.suppress(RuntimeError, ValueError):
            end()
    with contextlib.suppress(RuntimeError, ValueError):
        viewer.events.theme.disconnect(on_theme)
