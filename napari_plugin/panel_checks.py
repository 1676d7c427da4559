"""Judges the molecules on the screen without a truth: residuals, a digital twin, added frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_plugin.long_task import OnProgress, ShouldStop
from napari_plugin.molecule_layers import points_arguments
from napari_plugin.molecules import remove_safely
from napari_plugin.movie_layers import HELPER_KEY, Place, fitting_movie
from smlm_pb.errors import SmlmPbError

if TYPE_CHECKING:
    from napari_plugin.localize_panel import LocalizePanel
    from smlm_pb.analysis import DigitalTwin, ResidualMap, Superposition
    from smlm_pb.localizations import Localizations

#: Colours that people with colour-blindness can tell apart (Okabe and Ito, 2008), on dark images.
_COLORS = {"missed": "#f0a000", "false": "#e06fb0", "merged": "#56b4e9"}
_CHI2 = "χ² of the pixels"
#: Larger than the molecules, around which they lie.
_SIZE_PX = 2.4


class Checks(QObject):
    """The three analyses at work.

    Parameters
    ----------
    panel : LocalizePanel
        Whose rows.
    """

    def __init__(self, panel: LocalizePanel) -> None:
        super().__init__(panel)
        self._panel = panel
        self._viewer = panel.viewer
        self._layers: dict[str, Any] = {}
        section = panel.analysis.checks
        section.residuals.requested.connect(self.look_at_residuals)
        section.twin.requested.connect(self.make_twin)
        section.density.requested.connect(self.add_frames)
        for picture in (section.twin_picture, section.density_picture):
            picture.appeared.connect(partial(panel.reveal, picture))
        panel.movie.layer_changed.connect(lambda _layer: section.clear_density())

    def close(self) -> None:
        """Take no more requests."""
        section = self._panel.analysis.checks
        parts = (section.residuals, section.twin, section.density, section.twin_picture, section.density_picture)
        for part in parts:
            part.close_task()

    # -- what is left over ---------------------------------------------------------------------------------

    def look_at_residuals(self) -> None:
        """Take the molecules that are shown out of their movie."""
        task, molecules = self._panel.analysis.checks.residuals, self._panel.results.current
        table = self._panel.results.shown_table()
        if molecules is None or table is None:
            return
        place = molecules.place
        movie = fitting_movie(self._panel.movie.layer, table)
        if movie is None:
            task.note.say("Choose the movie that the molecules were found in, in the first row.", "error")
            return
        untold = self._untold(table)

        def work(on_progress: OnProgress, should_stop: ShouldStop) -> ResidualMap:
            from smlm_pb.analysis import residual_map

            return residual_map(table, movie, **untold(), on_progress=on_progress, should_stop=should_stop)

        task.run(work, partial(self._show_residuals, place))

    def _show_residuals(self, place: Place, found: ResidualMap) -> None:
        task = self._panel.analysis.checks.residuals
        task.note.say(describe_residuals(found))
        self._panel.reveal(task.note)
        self._show_chi2(place, found)
        for kind, color in _COLORS.items():
            suspects = suspects_of(found, kind)
            arguments = points_arguments(suspects, place=place, name=f"suspected {kind}")
            arguments |= {"border_color": color, "size": _SIZE_PX, "metadata": {HELPER_KEY: "residuals"}}
            old = self._layers.pop(kind, None)
            if old is not None and old in self._viewer.layers:
                remove_safely(self._viewer, old)
            self._layers[kind] = self._viewer.add_points(**arguments)
        self._panel.keep_image_active()

    def _show_chi2(self, place: Place, found: ResidualMap) -> None:
        """The map as an image over the movie, a pixel per tile, hidden until it is wanted."""
        scale, translate = np.array(place.scale[-2:]), np.array(place.translate[-2:])
        placement: dict[str, Any] = {
            "scale": tuple(scale * found.tile_px),
            "translate": tuple(translate + scale * (found.tile_px - 1) / 2),
            "units": place.units[-2:],
            "axis_labels": place.axis_labels[-2:],
        }
        limits = (0.5, max(1.5, float(np.nanmax(found.chi2))))
        layer = self._layers.get(_CHI2)
        if layer is not None and layer in self._viewer.layers:
            # Not taken away: napari's canvas can crash when a hidden layer is.
            for name, value in {"data": found.chi2, "contrast_limits": limits, **placement}.items():
                setattr(layer, name, value)
            return
        self._layers[_CHI2] = self._viewer.add_image(
            found.chi2,
            name=_CHI2,
            visible=False,
            opacity=0.6,
            colormap="magma",
            contrast_limits=limits,
            metadata={HELPER_KEY: "residuals"},
            **placement,
        )

    # -- a twin --------------------------------------------------------------------------------------------

    def make_twin(self) -> None:
        """Measure on a simulated movie like this one what errors cost."""
        task, table = self._panel.analysis.checks.twin, self._panel.results.shown_table()
        if table is None:
            return
        model, tolerance_nm = self._model_of(table), self._panel.analysis.tolerance_nm.value()
        untold = self._untold(table)

        def work(on_progress: OnProgress, should_stop: ShouldStop) -> DigitalTwin:
            from smlm_pb.analysis import digital_twin

            return digital_twin(
                table,
                model=model,
                tolerance_nm=tolerance_nm,
                **untold(),
                on_progress=on_progress,
                should_stop=should_stop,
            )

        self._panel.analysis.checks.twin_picture.show_figure(None)
        task.run(work, self._show_twin)

    def _untold(self, table: Localizations) -> Callable[[], dict[str, Any]]:
        """Camera and PSF width of the rows, typed or measured, for tables of the movie that do not tell them."""
        measured = self._panel.inputs.conditions
        is_its_movie = fitting_movie(self._panel.movie.layer, table) is not None

        def untold() -> dict[str, Any]:
            from smlm_pb.analysis.table_conditions import conditions_of

            if measured is None or not is_its_movie:
                return {}
            known = conditions_of(table)
            there = {
                "camera": (known.camera, measured.camera),
                "psf_sigma_px": (known.psf_sigma_px, measured.psf_sigma_px),
            }
            return {name: ours for name, (its, ours) in there.items() if its is None}

        return untold

    def _model_of(self, table: Localizations) -> str | None:
        """Where the table's model is, if it is the chosen one: a folder cannot be told by its name."""
        step = table.last_step("localize")
        card = self._panel.model.card
        known = (step.get("model") or {}).get("name")
        return self._panel.model.model if card is not None and card.name == known else None

    def _show_twin(self, twin: DigitalTwin) -> None:
        from smlm_pb.evaluation.error_table import budget_figure

        section = self._panel.analysis.checks
        section.twin.note.say(_finding(twin.advice(), twin.notes))
        section.twin_picture.show_figure(lambda: budget_figure([twin.budget]))

    # -- added frames --------------------------------------------------------------------------------------

    def add_frames(self) -> None:
        """Find the density up to which the chosen model works on the chosen movie."""
        section = self._panel.analysis.checks
        try:
            request = self._panel.inputs.run_request()
        except SmlmPbError as error:
            section.density.note.say(str(error), "error")
            return
        options = {name: value for name, value in request.options.items() if name != "refine"}

        def work(on_progress: OnProgress, should_stop: ShouldStop) -> Superposition:
            from smlm_pb.analysis import superposition

            return superposition(request.movie, **options, on_progress=on_progress, should_stop=should_stop)

        section.density_picture.show_figure(None)
        section.density.run(work, self._show_density)

    def _show_density(self, found: Superposition) -> None:
        from smlm_pb.analysis.superposition_figure import superposition_figure

        section = self._panel.analysis.checks
        section.density.note.say(_finding(found.advice(), found.notes))
        section.density_picture.show_figure(lambda: superposition_figure(found))


def suspects_of(found: ResidualMap, kind: str) -> Localizations:
    """The suspicions of one kind: missed, false or merged."""
    from smlm_pb.analysis.residuals import SUSPICIONS

    return found.suspects.select(found.suspects["suspicion"] == SUSPICIONS[kind])


def describe_residuals(found: ResidualMap) -> str:
    """The finding and the counts in a few lines of HTML, with the colours of the layers."""
    counts = ", ".join(
        f'<span style="color: {color}">●</span> {found.count(kind)} {kind}' for kind, color in _COLORS.items()
    )
    lines = [
        escape(found.advice()),
        f"Suspected in {found.n_frames} frames with {found.n_molecules} molecules: {counts}.",
        f"χ² per pixel {found.chi2_total:.2f}, far from molecules {found.chi2_background:.2f}; 1 is noise alone.",
    ]
    return "<br>".join([*lines, *(escape(note) for note in found.notes)])


def _finding(advice: str, notes: tuple[str, ...]) -> str:
    return "\n".join([advice, *notes])
