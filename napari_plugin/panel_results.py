"""What the panel does with molecules: threshold and ranges, the image, a close look, saving."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_plugin.background import Latest
from napari_plugin.image_layers import draw_image
from napari_plugin.inspection import nearest, neighbourhood, values_of
from napari_plugin.keyboard import order_focus
from napari_plugin.localize_job import RunResult
from napari_plugin.molecule_layers import points_arguments
from napari_plugin.molecules import Molecules, frame_on_screen
from napari_plugin.movie_layers import Place, movie_of_layer
from napari_plugin.result_image import ResultImage
from napari_plugin.save_paths import name_of_file, table_target, with_ending
from smlm_pb.errors import SmlmPbError

if TYPE_CHECKING:
    from napari_plugin.localize_panel import LocalizePanel
    from smlm_pb.localizations import Localizations

_log = logging.getLogger(__name__)
_PLAIN_COLOR = "#00d0ff"


class Results(QObject):
    """Keeps points, image, histograms and status in step with the chosen molecules.

    Parameters
    ----------
    panel : LocalizePanel
        Whose rows.
    """

    def __init__(self, panel: LocalizePanel) -> None:
        super().__init__(panel)
        self._panel = panel
        self._viewer = panel.viewer
        self._known: dict[int, Molecules] = {}
        self.current: Molecules | None = None
        self._inspected: int | None = None
        self.image = ResultImage(self._viewer, self._on_image_failed, panel, self)
        self.image.set_options(panel.image.options())
        self.image.drawn.connect(self._on_drawn)
        self._files = Latest(self._on_saved, panel.fail, self)
        panel.molecules.layer_changed.connect(self._on_chosen)
        panel.search.threshold.threshold_changed.connect(self._on_threshold)
        panel.filter.range_changed.connect(self._on_range)
        panel.filter.reset_requested.connect(self._on_reset)
        panel.filter.colour_requested.connect(self.colour_points)
        panel.inspect.step_requested.connect(self.inspect_step)
        panel.image.changed.connect(lambda: self.image.set_options(panel.image.options()))
        panel.image.save_requested.connect(self._ask_where_to_save_image)
        panel.run_bar.save_requested.connect(self._ask_where_to_save)
        panel.run_bar.view_requested.connect(self.show_view)
        self._viewer.mouse_drag_callbacks.append(self._on_mouse)
        self._viewer.layers.events.removed.connect(self._on_removed)

    # -- a run's result ------------------------------------------------------------------------------------

    def take(self, molecules: Molecules) -> None:
        """Choose what a run has found, complete or not."""
        self._known[id(molecules.layer)] = molecules
        molecules.run_note = self._panel.last_run_note
        if self.current is not None and self.current.layer is not molecules.layer:
            self.current.layer.visible = False  # of two results in one place neither could be told from the other
        self.current = None
        self._panel.molecules.refresh()
        self._panel.molecules.choose(molecules.layer)
        if self.current is not molecules:
            self._on_chosen(molecules.layer)

    def add_table(self, table: Localizations, name: str) -> Molecules:
        """Show another table made of the chosen one, where that one lies, and choose it."""
        place = Place() if self.current is None else self.current.place
        if self.current is not None:
            self.current.layer.visible = False
        layer = self._viewer.add_points(**points_arguments(table, place=place, name=name))
        self._known[id(layer)] = molecules = Molecules(table, layer, place)
        self._panel.molecules.choose(layer)
        self._panel.keep_image_active()
        return molecules

    def shown_table(self) -> Localizations | None:
        """The molecules that are shown; a table that does not tell its pixel size has that of the row."""
        if self.current is None:
            return None
        table, pixel_size_nm = self.current.shown_table(), self._panel.inputs.pixel_size_nm
        if table.info.pixel_size_nm is None and pixel_size_nm is not None:
            table = table.with_info(replace(table.info, pixel_size_nm=pixel_size_nm))
        return table

    # -- choosing ------------------------------------------------------------------------------------------

    def _on_chosen(self, layer: Any) -> None:
        panel = self._panel
        self.current = None if layer is None else self._molecules_of(layer)
        molecules, self._inspected = self.current, None
        panel.inspect.clear()
        panel.filter.set_molecules(molecules)
        order_focus(panel)  # there are other histograms now
        panel.image.set_columns(_columns(molecules))
        panel.run_bar.set_result(molecules is not None)
        panel.analysis.set_enabled(molecules is not None)
        panel.analysis.clear()
        if molecules is None:
            self.image.set_molecules(None)
            return
        if "probability" in molecules.filters.quantities:
            panel.search.threshold.set_best(molecules.best_threshold or 0.0)
            self._apply_threshold()
        self.image.set_options(panel.image.options())
        self.image.set_molecules(molecules)
        self.say_status()

    def _molecules_of(self, layer: Any) -> Molecules | None:
        known = self._known.get(id(layer))
        if known is not None and not known.is_stale:
            return known
        try:
            self._known[id(layer)] = molecules = Molecules.of_layer(layer)
        except SmlmPbError as error:
            self._panel.run_bar.status.say(str(error), "error")
            return None
        return molecules

    def _on_removed(self, event: Any) -> None:
        self._known.pop(id(event.value), None)

    # -- threshold and ranges ------------------------------------------------------------------------------

    def _on_threshold(self, _threshold: float | None) -> None:
        if self.current is not None and "probability" in self.current.filters.quantities:
            self._apply_threshold()
            self._after_filtering()

    def _apply_threshold(self) -> None:
        molecules = self.current
        assert molecules is not None
        threshold = self._panel.search.threshold.in_force
        high = molecules.filters.ranges.get("probability", (None, None))[1]
        molecules.set_range("probability", threshold if threshold > 0 else None, high)
        self._panel.filter.show_ranges(molecules.filters)

    def _on_range(self, name: str, low: float | None, high: float | None) -> None:
        if self.current is None:
            return
        self.current.set_range(name, low, high)
        if name == "probability":
            control = self._panel.search.threshold
            control.blockSignals(True)
            control.set_threshold(low or 0.0)
            control.blockSignals(False)
        self._after_filtering()

    def _on_reset(self) -> None:
        if self.current is not None:
            self.current.filters.clear(keep=("probability",))
            self.current.apply()
            self._panel.filter.show_ranges(self.current.filters)
            self._after_filtering()

    def _after_filtering(self) -> None:
        self.image.refresh()
        self.say_status()

    def say_status(self) -> None:
        """Counts, precision, expected Jaccard index of what is shown."""
        molecules = self.current
        if molecules is None:
            return
        parts = [f"{_count(molecules.n_shown)} molecule{'' if molecules.n_shown == 1 else 's'}"]
        precision = molecules.median_precision()
        if precision is not None:
            parts.append(f"median precision {precision[0]:.3g} {precision[1]}")
        low, high = molecules.filters.ranges.get("probability", (None, None))
        if set(molecules.filters.ranges) <= {"probability"} and high is None:
            expected = molecules.expected(low or 0.0)
            if expected is not None and expected.jaccard is not None:
                parts.append(f"expected Jaccard {expected.jaccard:.2f}")
        else:
            parts[0] = f"{_count(molecules.n_shown)} of {_count(len(molecules.table))} molecules shown"
        text = ", ".join(parts) + "."
        prefix = molecules.run_note
        self._panel.run_bar.status.say(f"{prefix}\n{text}" if prefix else text)

    def colour_points(self, name: str) -> None:
        """Colour the points by a quantity or any other column; an empty name gives one colour."""
        molecules = self.current
        if molecules is None or molecules.is_stale:
            return
        quantity = molecules.filters.quantities.get(name)
        if not name or not len(molecules.table):
            molecules.layer.border_color = _PLAIN_COLOR
            return
        from napari.utils.colormaps import ensure_colormap

        values = np.asarray(molecules.table[name] if quantity is None else quantity.values, np.float32)
        known = np.isfinite(values)  # what was not fitted has no value
        low, high = np.percentile(values[known], (1, 99)) if known.any() else (0.0, 1.0)
        relative = np.zeros(len(values), np.float32)
        relative[known] = np.clip((values[known] - low) / max(float(high - low), 1e-9), 0, 1)
        molecules.layer.border_color = ensure_colormap("viridis").map(relative)

    # -- views ---------------------------------------------------------------------------------------------

    def show_view(self, view: str) -> None:
        """Show the frames, the image, or both."""
        movie, image = self._panel.movie.layer, self.image.layer
        if movie is not None:
            movie.visible = view != "image"
        if self.current is not None:
            self.current.layer.visible = view != "image"
        if image is not None:
            image.visible = view != "frames"

    # -- a close look --------------------------------------------------------------------------------------

    def _on_mouse(self, _viewer: Any, event: Any) -> Iterator[None]:
        if not self._panel.is_inspecting or self.current is None:
            return
        yield
        if event.type == "mouse_move":
            return
        self.inspect_at(event.position)

    def inspect_at(self, position: Any) -> None:
        """Look closely at the molecule nearest to a place in the world."""
        molecules = self.current
        if molecules is None:
            return
        point = molecules.layer.world_to_data(np.asarray(position, float)[-molecules.layer.ndim :])
        axis = molecules.place.frame_axis
        frame = 0 if axis is None else int(np.rint(point[axis]))
        row = nearest(molecules.table, molecules.mask, frame, float(point[-2]), float(point[-1]))
        if row is not None:
            self.inspect_row(row)

    def inspect_step(self, step: int) -> None:
        """Look at the next (1) or the previous (-1) of the molecules that are shown, beginning on the frame shown."""
        molecules = self.current
        if molecules is None or not molecules.n_shown:
            return
        rows = np.flatnonzero(molecules.mask)
        if self._inspected is None:
            frame = frame_on_screen(self._viewer, molecules.layer, molecules.place)
            position = int(np.searchsorted(molecules.table.frame[rows], frame, side="left" if step > 0 else "right"))
            position -= step < 0
        else:
            position = int(np.searchsorted(rows, self._inspected, side="left"))
            position += step if position < len(rows) and rows[position] == self._inspected else min(step, 0)
        row = int(rows[position % len(rows)])
        self._go_to_frame(molecules, int(molecules.table.frame[row]))
        self.inspect_row(row)

    def _go_to_frame(self, molecules: Molecules, frame: int) -> None:
        axis = molecules.place.frame_axis
        if axis is not None:
            place, dims = molecules.place, self._viewer.dims
            world = frame * place.scale[axis] + place.translate[axis]
            dims.set_point(dims.ndim - place.ndim + axis, world)

    def inspect_row(self, row: int) -> None:
        """Show values and pixels of one molecule."""
        molecules, section = self.current, self._panel.inspect
        if molecules is None:
            return
        self._inspected = row
        section.show_values(values_of(molecules.table, row))
        layer = self._panel.movie.layer
        if layer is None:
            return
        try:
            around = neighbourhood(movie_of_layer(layer), molecules.table, molecules.mask, row)
        except SmlmPbError as error:
            section.scale_note.say(str(error), "warning")
            return
        section.show_pixels(around, float(molecules.table.y[row]), float(molecules.table.x[row]))

    # -- files ---------------------------------------------------------------------------------------------

    def save(self, path: str | Path, format_name: str | None = None, *, overwrite: bool = True) -> None:
        """Save the molecules that are shown; the writing is done beside the screen's thread."""
        table = self.shown_table()
        if table is None:
            return
        self._panel.run_bar.save_button.setEnabled(False)
        self._panel.run_bar.save_button.setText("Saving …")
        self._files.submit(lambda: table.save(path, format=format_name, overwrite=overwrite))

    def save_image(self, path: str | Path, *, overwrite: bool = True) -> None:
        """Save the super-resolved image of the whole field."""
        molecules = self.current
        if molecules is None:
            return
        options = self._panel.image.options()
        table, mask = molecules.table, molecules.mask

        def work() -> list[Path]:
            from smlm_pb.analysis import save_image

            rendering = draw_image(table.select(mask), pixel_size_nm=options.pixel_size_nm, **options.render_options())
            return [save_image(rendering, path, colormap=_matplotlib_name(options.colormap), overwrite=overwrite)]

        self._files.submit(work)

    def _on_saved(self, written: list[Path]) -> None:
        self._panel.reset_save_button()
        self._panel.run_bar.status.say(f"Saved {' and '.join(path.name for path in written)}.")

    def _ask_where_to_save(self) -> None:
        from smlm_pb.formats import FORMATS

        forms = [form for form in FORMATS.values() if form.writable]
        filters = {f"{form.title} (*{form.extensions[0]})": form for form in forms}
        path, chosen = QFileDialog.getSaveFileName(
            self._panel, "Save molecules", str(self.default_path("_locs.hdf5")), ";;".join(filters)
        )
        if path:
            target, format_name = table_target(Path(path), filters.get(chosen), forms)
            self.save(target, format_name, overwrite=target == Path(path))  # the dialog has asked about its own only

    def _ask_where_to_save_image(self) -> None:
        path, chosen = QFileDialog.getSaveFileName(
            self._panel, "Save image", str(self.default_path(".png")), "PNG (*.png);;TIFF (*.tif)"
        )
        if path:
            endings = (".tif", ".tiff", ".png") if "TIFF" in chosen else (".png", ".tif", ".tiff")
            target = with_ending(Path(path), endings)
            self.save_image(target, overwrite=target == Path(path))

    def default_path(self, ending: str) -> Path:
        """Where a file of the chosen movie would go: beside it, with its name."""
        layer = self._panel.movie.layer
        source = getattr(getattr(layer, "source", None), "path", None)
        name = "molecules" if layer is None else name_of_file(layer.name)
        return (Path(source).parent if source else Path.home()) / f"{name}{ending}"

    def _on_drawn(self, rendering: Any) -> None:
        remarks = self.image.remarks
        self._panel.image.note.say("\n".join([_about_image(rendering), *remarks]), "warning" if remarks else "plain")

    def _on_image_failed(self, error: Exception) -> None:
        if not isinstance(error, SmlmPbError):
            _log.error("The image could not be drawn", exc_info=error)
        self._panel.image.note.say(str(error), "error")

    def close(self) -> None:
        """Let go of the viewer."""
        self.image.close()
        self._files.close()
        if self._on_mouse in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_mouse)
        self._viewer.layers.events.removed.disconnect(self._on_removed)


def describe_run(result: RunResult) -> str:
    """What a run did, in a sentence."""
    speed = f", {result.n_frames / result.seconds:.3g} frames/s" if result.seconds > 0 and result.n_frames else ""
    if result.stopped and not result.n_frames:
        return "Cancelled before the first frame was done."
    if result.stopped:
        return f"Cancelled after {_frames(result.n_frames)}; what was found until then is kept."
    return f"{_frames(result.n_frames)} in {result.seconds:.1f} s{speed}."


def _frames(number: int) -> str:
    return f"{number} frame{'' if number == 1 else 's'}"


def _columns(molecules: Molecules | None) -> tuple[str, ...]:
    if molecules is None:
        return ()
    names = tuple(name for name, values in molecules.table.columns.items() if values.dtype.kind in "biuf")
    knows_nm = molecules.table.info.pixel_size_nm is not None and {"sigma_x", "sigma_y"} <= set(names)
    return (*names, "sigma_nm") if knows_nm else names


def _about_image(rendering: Any) -> str:
    height, width = rendering.image.shape[:2]
    return f"{width} × {height} pixels of {rendering.pixel_size_nm:.3g} nm, {_count(rendering.n_molecules)} molecules."


def _matplotlib_name(colormap: str) -> str:
    """Napari's name of a colormap as matplotlib calls it."""
    return {"cyan": "gray", "green": "Greens_r", "magenta": "gray"}.get(colormap, colormap)


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")
