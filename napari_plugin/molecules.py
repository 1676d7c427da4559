"""The molecules on the screen: a table, the ranges that filter it, and the Points layer that shows them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_plugin.filters import FilterChain
from napari_plugin.layer_steps import first_drawing, insert_quietly
from napari_plugin.molecule_layers import (
    point_coordinates,
    points_arguments,
    table_of_layer,
)
from napari_plugin.movie_layers import HELPER_KEY, Place
from napari_plugin.turns import unpainted
from smlm_pb.localizations import Localizations

#: By then the canvas has drawn what was made visible.
_DRAWN_AFTER_MS = 300
#: A median of this many values is exact enough for a message.
_SAMPLE = 100_000
#: More molecules than this get a layer of their own at the end of a run.
_MOST_IN_PLACE = 60_000

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from smlm_pb.analysis.drift import Drift
    from smlm_pb.localization.threshold import Expectation, ProbabilityHistogram


class Molecules:
    """A table and its layer. What is filtered out is hidden, not removed: ``layer.shown`` is fast, new data are not.

    Parameters
    ----------
    table : Localizations
        All molecules, also the hidden ones.
    layer : napari.layers.Points
        The layer that shows them, in the order of the table.
    place : Place
        Where the layer lies.
    expectation : dict, optional
        Expected figures of the automatic threshold, from the run that made the table.
    """

    def __init__(
        self, table: Localizations, layer: Any, place: Place, expectation: dict[str, Any] | None = None
    ) -> None:
        self.table, self.layer, self.place = table, layer, place
        self.filters = FilterChain(table)
        self.expectation = expectation or {}
        #: What the run did that found them; empty for tables from elsewhere.
        self.run_note = ""
        #: What was removed, and the table before linking, where this table was made that way: for the report.
        self.drift: Drift | None = None
        self.unlinked: Localizations | None = None
        self.mask: npt.NDArray[np.bool_] = np.ones(len(table), bool)
        self._histogram: ProbabilityHistogram | None = None

    @classmethod
    def of_layer(cls, layer: Any) -> Molecules:
        """Take over a layer that was read from a file, or any other Points layer.

        Raises
        ------
        TableError
            When the points are no molecules.
        """
        table = table_of_layer(layer)
        molecules = cls(table, layer, Place.of_layer(layer), expectation_of(table))
        molecules.mask = np.array(layer.shown, bool)
        return molecules

    @property
    def n_shown(self) -> int:
        """Molecules that satisfy all ranges."""
        return int(np.count_nonzero(self.mask))

    @property
    def is_stale(self) -> bool:
        """Whether points were added or deleted by hand since."""
        return len(self.layer.data) != len(self.table)

    @property
    def best_threshold(self) -> float | None:
        """The automatic threshold; None for tables that do not say what was left out."""
        return self.expectation.get("threshold")

    def set_range(self, name: str, low: float | None, high: float | None) -> None:
        """Change one range and show what is left."""
        self.filters.set_range(name, low, high)
        self.apply()

    def apply(self) -> None:
        """Show the molecules that satisfy all ranges."""
        self.mask = self.filters.mask()
        if not self.is_stale:
            self.layer.shown = self.mask

    def shown_table(self) -> Localizations:
        """The molecules on the screen, with what was filtered in their history."""
        condition, best = self.filters.condition, self.best_threshold
        if best is not None and self.filters.ranges == {"probability": (best, None)}:
            # Only the automatic threshold is in force: exactly what the library returns.
            return self.table.select(self.table.probability >= np.float32(best))
        if not condition:
            return self.table.select(self.mask)
        from smlm_pb.analysis import filter_by

        return filter_by(self.table, condition)

    def expected(self, threshold: float) -> Expectation | None:
        """What is expected at another threshold; None for tables without that knowledge."""
        if not {"true", "missed"} <= set(self.expectation) or "probability" not in self.table.column_names:
            return None
        if self._histogram is None:
            from smlm_pb.localization.threshold import ProbabilityHistogram

            probability = self.table.probability
            total = float(self.expectation["true"]) + float(self.expectation["missed"])
            histogram = ProbabilityHistogram()
            histogram.add(probability, max(0.0, total - float(probability.sum(dtype=np.float64))))
            self._histogram = histogram
        return self._histogram.at(threshold)

    def median_precision(self) -> tuple[float, str] | None:
        """Median precision of what is shown, and its unit."""
        precision = self.filters.quantities.get("precision")
        if precision is None or not self.n_shown:
            return None
        step = max(1, len(self.mask) // _SAMPLE)
        shown = precision.values[::step][self.mask[::step]]
        return (float(np.median(shown)), precision.unit) if len(shown) else None


def expectation_of(table: Localizations) -> dict[str, Any] | None:
    """Expected figures of the run whose table this is, as it was, with what the threshold left out; None elsewhere."""
    steps = [step for step in table.provenance if step.get("step") != "region"]
    told = steps[-1].get("threshold") if steps and steps[-1].get("step") == "localize" else None
    if not isinstance(told, dict) or "threshold" not in told or "probability" not in table.column_names:
        return None
    return dict(told) if (table.probability < np.float32(told["threshold"])).any() else None


class GrowingPoints:
    """The Points layer of a run that goes on: the molecules of the frame on the screen, at the end all of them.

    Giving a layer a million new points takes a second, so all of them are given once, when the run is over.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    place : Place
        Where the movie lies.
    empty : Localizations
        A table without rows.
    name : str
        Name of the layer.
    """

    def __init__(self, viewer: Any, place: Place, empty: Localizations, name: str) -> None:
        self._viewer, self._place, self._name = viewer, place, name
        self.layer = make_layer(empty, place, name)
        # Until it holds all molecules, it is nothing to filter or to save.
        self.layer.metadata = {HELPER_KEY: "running"}
        self._shown: tuple[int, int] | None = None

    @property
    def is_there(self) -> bool:
        """Whether the user has left the layer in the viewer."""
        return self.layer in self._viewer.layers

    def add(self) -> None:
        """Add the layer, hidden: drawing it for the first time takes as long as adding it."""
        self.layer.visible = False
        insert_quietly(self._viewer, self.layer)

    def show(self) -> Generator[None, None, None]:
        """Let it be seen, one part of it after the other."""
        if self.is_there:
            yield from first_drawing(self._viewer, self.layer)

    def frame_on_screen(self) -> int:
        """Number of the movie's frame that is shown."""
        return frame_on_screen(self._viewer, self.layer, self._place)

    def show_frame(self, molecules: Localizations, frame: int) -> None:
        """Show the molecules of one frame, if it is not shown already."""
        if not self.is_there or self._shown == (frame, len(molecules)):
            return
        self._shown = (frame, len(molecules))
        self.layer.data = point_coordinates(molecules, self._place.ndim, self._place.frame_axis)

    def finish(self, molecules: Molecules, widget: QWidget) -> Generator[None, None, None]:
        """Show all molecules: in the growing layer, or in its place in one that was made beside the screen's thread.

        Parameters
        ----------
        molecules : Molecules
            From :func:`prepare`; they get their layer here.
        widget : QWidget
            Any of the window.

        Yields
        ------
        None
            Where the window may live for a moment.
        """
        if molecules.layer is None and self.is_there:
            yield from self._fill(molecules.table)
            molecules.layer = self.layer
            return
        full = make_layer(molecules.table, self._place, self._name) if molecules.layer is None else molecules.layer
        layers = self._viewer.layers
        visible = self.layer.visible if self.is_there else True
        full.visible = False
        metadata, full.metadata = full.metadata, {HELPER_KEY: "running"}  # whoever listens looks at it once, at the end
        with unpainted(widget):
            insert_quietly(self._viewer, full, layers.index(self.layer) + 1 if self.is_there else None)
            yield
            if self.is_there:
                remove_safely(self._viewer, self.layer)
                yield
        yield
        full.name, full.metadata = self._name, metadata
        molecules.layer = full
        if visible and full in layers:
            yield from first_drawing(self._viewer, full)

    def _fill(self, table: Localizations) -> Iterator[None]:
        arguments = points_arguments(table, place=self._place)
        for name in ("data", "features", "metadata"):
            setattr(self.layer, name, arguments[name])
            yield
        # The sizes of new points are those of the points before them, of which there may have been none.
        self.layer.size = arguments["size"]


def make_layer(table: Localizations, place: Place, name: str) -> Any:
    """Make a Points layer that is not in a viewer yet."""
    from napari.layers import Points

    return Points(**points_arguments(table, place=place, name=name))


def prepare(table: Localizations, place: Place, name: str, expectation: dict[str, Any]) -> Molecules:
    """Make beside the screen's thread what would hold it up.

    napari takes 50 ms to give 40 000 points to a layer and 3 s for three million, three times as long as for a new
    layer, which can be made in any thread: where there are many, they get one.

    Parameters
    ----------
    table : Localizations
        What a run has found.
    place : Place
        Where the movie lies.
    name : str
        Name of the layer.
    expectation : dict
        Expected figures of the run.

    Returns
    -------
    Molecules
        With a layer where there are many, None where they fit into the one that is there; see
        :meth:`GrowingPoints.finish`.
    """
    layer = make_layer(table, place, name) if len(table) > _MOST_IN_PLACE else None
    molecules = Molecules(table, layer, place, expectation)
    molecules.expected(0.5)
    return molecules


def remove_safely(viewer: Any, layer: Any) -> None:
    """Remove a layer; a hidden one is first shown, empty, and drawn: otherwise napari's canvas can crash.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    layer : napari.layers.Points
        A layer of the panel's own.
    """
    if layer.visible:
        viewer.layers.remove(layer)
        return
    from qtpy.QtCore import QTimer

    layer.data = np.zeros((0, layer.ndim), np.float32)
    layer.visible = True

    def remove() -> None:
        if layer in viewer.layers:
            viewer.layers.remove(layer)

    QTimer.singleShot(_DRAWN_AFTER_MS, remove)


def frame_on_screen(viewer: Any, layer: Any, place: Place) -> int:
    """Number of the frame that the viewer shows of a layer.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    layer : napari.layers.Layer
        The movie, or the points on it.
    place : Place
        Where the layer lies.
    """
    if place.frame_axis is None:
        return 0
    point = np.asarray(viewer.dims.point, float)[-layer.ndim :]
    if len(point) < layer.ndim:
        return 0
    return int(np.rint(layer.world_to_data(point)[place.frame_axis]))
