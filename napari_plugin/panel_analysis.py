"""Starts the analyses of the panel beside the screen's thread, and shows their answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_plugin.background import Latest
from napari_plugin.molecule_layers import points_arguments, table_of_layer
from napari_plugin.molecules import remove_safely
from napari_plugin.movie_layers import HELPER_KEY, fitting_movie
from napari_plugin.plot import Curve
from napari_plugin.save_paths import with_ending
from napari_plugin.theme import Note
from smlm_pb.errors import SmlmPbError

if TYPE_CHECKING:
    from napari_plugin.localize_panel import LocalizePanel
    from smlm_pb.analysis import Quality
    from smlm_pb.analysis.drift import Drift
    from smlm_pb.evaluation import Evaluation
    from smlm_pb.localizations import Localizations

_log = logging.getLogger(__name__)
#: Colours that people with colour-blindness can tell apart (Okabe and Ito, 2008), on dark images.
_COLORS = {"matched": "#00b98a", "missed": "#f0a000", "false": "#e06fb0"}


@dataclass(frozen=True)
class Comparison:
    """Scores, and the molecules by their fate."""

    evaluation: Evaluation
    tables: dict[str, Localizations]


def compare(found: Localizations, truth: Localizations, tolerance_nm: float) -> Comparison:
    """Pair two tables with the library, and sort the molecules by what became of them.

    Parameters
    ----------
    found, truth : Localizations
        What was found and what was there.
    tolerance_nm : float
        Largest distance of a pair.
    """
    from smlm_pb.evaluation import evaluate, match

    pixel_size_nm = found.info.pixel_size_nm or truth.info.pixel_size_nm
    pairs = match(found, truth, tolerance_nm, pixel_size_nm=pixel_size_nm)
    false, missed = np.ones(len(found), bool), np.ones(len(truth), bool)
    false[pairs.pred] = False
    missed[pairs.truth] = False
    evaluation = evaluate(found, truth, tolerance_nm=tolerance_nm, pixel_size_nm=pixel_size_nm)
    tables = {"matched": found.select(~false), "missed": truth.select(missed), "false": found.select(false)}
    return Comparison(evaluation, tables)


class Analysis(QObject):
    """Quality, linking and comparison of the chosen molecules.

    Parameters
    ----------
    panel : LocalizePanel
        Whose rows.
    """

    def __init__(self, panel: LocalizePanel) -> None:
        super().__init__(panel)
        self._panel = panel
        self._viewer = panel.viewer
        self._compared: dict[str, Any] = {}
        section = panel.analysis
        self._quality = self._worker(self._on_quality, section.quality_note)
        self._drift = self._worker(self._on_drift, section.drift_note)
        self._link = self._worker(self._on_linked, section.link_note)
        self._compare = self._worker(self._on_compared, section.compare_note)
        self._report = self._worker(self._on_reported, section.report_note)
        panel.molecules.layer_changed.connect(self._forget)
        section.quality_requested.connect(self.judge)
        section.drift_requested.connect(self.correct_drift)
        section.link_requested.connect(self.link)
        section.compare_requested.connect(self.compare)
        section.report_requested.connect(self._ask_where_to_report)

    def judge(self) -> None:
        """Judge the molecules that are shown, without a truth."""
        from smlm_pb.analysis import quality

        table = self._shown_table()
        if table is not None:
            self._panel.analysis.quality_note.say("Computing …")
            self._quality.submit(lambda: quality(table))

    def correct_drift(self) -> None:
        """Find and remove the drift of the molecules that are shown."""
        from smlm_pb.analysis import correct_drift

        table, section, worker = self._shown_table(), self._panel.analysis, self._drift
        if table is not None:
            max_drift_nm = section.max_drift_nm.value()
            section.drift_note.say("Computing …")
            worker.submit(lambda: correct_drift(table, max_drift_nm=max_drift_nm, should_stop=lambda: worker.overtaken))

    def link(self) -> None:
        """Join the blinks of the molecules that are shown."""
        from smlm_pb.analysis import link

        table, section = self._shown_table(), self._panel.analysis
        if table is not None:
            radius_sigma, dark = section.radius_sigma.value(), section.max_dark_frames.value()
            section.link_note.say("Computing …")
            self._link.submit(lambda: (table, link(table, radius_sigma=radius_sigma, max_dark_frames=dark)))

    def compare(self) -> None:
        """Compare the molecules that are shown with the chosen truth."""
        table, section = self._shown_table(), self._panel.analysis
        if table is None:
            return
        if section.truth.layer is None:
            section.compare_note.say("Choose the layer of the truth first: drop its table onto napari.", "error")
            return
        try:
            truth = self._truth(table)
        except SmlmPbError as error:
            section.compare_note.say(str(error), "error")
            return
        assert truth is not None
        tolerance_nm = section.tolerance_nm.value()
        section.compare_note.say("Computing …")
        self._compare.submit(lambda: compare(table, truth, tolerance_nm))

    def report(self, path: str | Path, *, overwrite: bool = True) -> None:
        """Write a report about the molecules that are shown."""
        from smlm_pb.analysis.report import write_report

        table, section, molecules = self._shown_table(), self._panel.analysis, self._panel.results.current
        if table is None or molecules is None:
            return
        try:
            truth, movie = self._truth(table), fitting_movie(self._panel.movie.layer, table)
        except SmlmPbError as error:
            section.report_note.say(str(error), "error")
            return
        section.report_note.say("Writing …")
        options: dict[str, Any] = {"drift": molecules.drift, "unlinked": molecules.unlinked, "overwrite": overwrite}
        self._report.submit(lambda: write_report(table, path, movie=movie, truth=truth, **options))

    def _truth(self, table: Localizations) -> Localizations | None:
        layer = self._panel.analysis.truth.layer
        return None if layer is None else table_of_layer(layer, table.info)

    def _ask_where_to_report(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self._panel, "Write a report", str(self._panel.results.default_path("_report.html")), "HTML (*.html)"
        )
        if path:
            target = with_ending(Path(path), (".html", ".htm"))
            self.report(target, overwrite=target == Path(path))

    def _on_reported(self, path: Path) -> None:
        note = self._panel.analysis.report_note
        note.say(f'Written: <a href="{escape(path.absolute().as_uri())}">{escape(path.name)}</a>')
        self._panel.reveal(note)

    def _forget(self, _layer: Any = None) -> None:
        """Answers that are still computed are about other molecules; a report says whose it is."""
        for worker in (self._quality, self._drift, self._link, self._compare):
            worker.forget()

    def close(self) -> None:
        """Take no more requests."""
        for worker in (self._quality, self._drift, self._link, self._compare, self._report):
            worker.close()

    def _worker(self, on_result: Callable[[Any], None], note: Note) -> Latest:
        def on_error(error: Exception) -> None:
            if not isinstance(error, SmlmPbError):
                _log.error("The analysis failed", exc_info=error)
            note.say(str(error), "error")

        return Latest(on_result, on_error, self)

    def _shown_table(self) -> Localizations | None:
        return self._panel.results.shown_table()

    def _on_quality(self, found: Quality) -> None:
        note = self._panel.analysis.quality_note
        note.say(describe_quality(found))
        self._panel.reveal(note)

    def _on_drift(self, answer: tuple[Localizations, Drift]) -> None:
        corrected, drift = answer
        section = self._panel.analysis
        if drift.accepted:
            self._panel.results.add_table(corrected, "molecules without drift").drift = drift
        frames = np.arange(len(drift.proposed_nm))
        section.drift_note.say(describe_drift(drift))
        self._panel.reveal(section.drift_plot)
        section.drift_plot.show_curves([Curve(axis, frames, drift.proposed_nm[:, k]) for k, axis in enumerate("xy")])

    def _on_linked(self, answer: tuple[Localizations, Localizations]) -> None:
        before, linked = answer
        old = self._panel.results.current
        new = self._panel.results.add_table(linked, "linked molecules")
        new.unlinked, new.drift = before, None if old is None else old.drift
        self._panel.analysis.link_note.say(f"{len(before)} localizations were joined into {len(linked)} molecules.")

    def _on_compared(self, comparison: Comparison) -> None:
        note = self._panel.analysis.compare_note
        note.say(describe_comparison(comparison.evaluation))
        self._panel.reveal(note)
        molecules = self._panel.results.current
        for kind, color in _COLORS.items():
            old = self._compared.pop(kind, None)
            if old is not None and old in self._viewer.layers:
                remove_safely(self._viewer, old)
            place = None if molecules is None else molecules.place
            arguments = points_arguments(comparison.tables[kind], place=place, name=kind)
            arguments |= {"border_color": color, "metadata": {HELPER_KEY: "comparison"}}
            self._compared[kind] = self._viewer.add_points(**arguments)
        if molecules is not None:
            molecules.layer.visible = False
        self._panel.keep_image_active()


def describe_quality(found: Quality) -> str:
    """The figures of a quality judgement in a few lines."""
    lines = []
    if found.nena is not None:
        line = f"Precision (NeNA): {found.nena.sigma_nm:.1f} ± {found.nena.standard_error_nm:.1f} nm per axis"
        if found.nena.pull is not None:
            line += f", {found.nena.pull:.2f} × what is reported"
        lines.append(f"{line}.")
    if found.frc is not None and np.isfinite(found.frc.resolution_nm):
        spread = f" ± {found.frc.spread_nm:.0f}" if np.isfinite(found.frc.spread_nm) else ""
        lines.append(f"Resolution (FRC): {found.frc.resolution_nm:.0f}{spread} nm.")
    elif found.frc is not None:
        lines.append(f"Resolution (FRC): {found.frc.note or 'none could be found'}")
    lines.append(f"{found.per_frame:.3g} molecules per frame.")
    lines += [f"{name}: {reason}" for name, reason in found.reasons.items()]
    return "\n".join([*lines, *found.notes])


def describe_drift(drift: Drift) -> str:
    """What was found and done, in a sentence."""
    if not drift.accepted:
        return f"The positions were left as they are: {drift.reason}."
    x_nm, y_nm = drift.range_nm
    error = f", remaining error {drift.error_nm:.1f} nm" if np.isfinite(drift.error_nm) else ""
    return f"Removed a drift of {x_nm:.0f} nm along x and {y_nm:.0f} nm along y{error}."


def describe_comparison(evaluation: Evaluation) -> str:
    """The figures of a comparison in a few lines of HTML, with the colours of the layers."""
    score = evaluation.scores[0]
    counts = {"matched": score.true_positives, "missed": score.false_negatives, "false": score.false_positives}
    dots = {kind: f'<span style="color: {color}">●</span>' for kind, color in _COLORS.items()}
    legend = ", ".join(f"{dots[kind]} {count} {kind}" for kind, count in counts.items())
    lines = [
        f"Jaccard {score.jaccard:.2f} within {score.tolerance_nm:g} nm (by chance {score.chance_jaccard:.2f}):",
        f"{legend}.",
        f"Precision {score.precision:.2f}, recall {score.recall:.2f}, position error {score.rmse_xy_nm:.1f} nm (RMSE).",
    ]
    return "<br>".join([*lines, *(escape(note) for note in evaluation.notes)])
