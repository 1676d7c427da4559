"""The molecules on the screen: a table, the ranges that filter it, and the Points layer that shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_plugin.filters import FilterChain
from napari_plugin.molecule_layers import (
    METADATA_KEY,
    features_of,
    metadata_of,
    point_coordinates,
    points_arguments,
    table_of_layer,
)
from napari_plugin.movie_layers import HELPER_KEY, Place
from smlm_pb.localizations import Localizations

if TYPE_CHECKING:
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
        molecules = cls(table_of_layer(layer), layer, Place.of_layer(layer))
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
        step = self.filters.step(self.n_shown)
        shown = self.table.select(self.mask)
        return shown if step is None or self._is_as_localized() else shown.with_provenance(step)

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
        return float(np.median(precision.values[self.mask])), precision.unit

    def _is_as_localized(self) -> bool:
        """Whether only the automatic threshold is in force: the table is then what the library returns."""
        best = self.best_threshold
        return best is not None and self.filters.ranges == {"probability": (best, None)}


class GrowingPoints:
    """The Points layer of a run that goes on: the molecules of the frame on the screen, at the end all of them.

    Giving a layer a million new points takes half a second, so all of them are given once, when the run is over.

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
        arguments = points_arguments(empty, place=place, name=name)
        # Until it holds all molecules, it is nothing to filter or to save.
        arguments["metadata"] = {HELPER_KEY: "running"}
        self.layer = viewer.add_points(**arguments)
        self._shown: tuple[int, int] | None = None

    @property
    def is_there(self) -> bool:
        """Whether the user has left the layer in the viewer."""
        return self.layer in self._viewer.layers

    def frame_on_screen(self) -> int:
        """Number of the movie's frame that is shown."""
        return frame_on_screen(self._viewer, self.layer, self._place)

    def show_frame(self, molecules: Localizations, frame: int) -> None:
        """Show the molecules of one frame, if it is not shown already."""
        if not self.is_there or self._shown == (frame, len(molecules)):
            return
        self._shown = (frame, len(molecules))
        self.layer.data = point_coordinates(molecules, self._place.ndim, self._place.frame_axis)

    def finish(self, table: Localizations, expectation: dict[str, Any]) -> Molecules:
        """Give the layer all molecules; make a new one if the user has deleted it."""
        if not self.is_there:
            self.layer = self._viewer.add_points(**points_arguments(table, place=self._place, name=self._name))
        else:
            self.layer.data = point_coordinates(table, self._place.ndim, self._place.frame_axis)
            self.layer.features = features_of(table)
            self.layer.metadata = {METADATA_KEY: metadata_of(table)}
        return Molecules(table, self.layer, self._place, expectation)


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
