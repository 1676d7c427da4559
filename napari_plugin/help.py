"""The help button of the panel."""

from __future__ import annotations

from html import escape
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox, QWidget

_TEXT = """
<h3>From a movie to molecules</h3>
<ol>
<li><b>Movie</b>: drop a TIFF onto napari, or take <i>File ▸ Open Sample ▸ smlm-pb</i>. Axes are time, y, x.</li>
<li><b>Camera</b>: give pixel size, offset, e⁻/ADU and EM gain from the data sheet. What stays empty is measured from
the movie; the measured value appears in grey.</li>
<li><b>Run</b>. Molecules appear on their frames, the super-resolved image grows. <b>Cancel</b> keeps what was
found.</li>
<li><b>Threshold</b>: the smallest probability that is shown. It acts at once, nothing is computed again.</li>
<li><b>Image</b>, <b>Filter</b>, <b>Inspect</b>: draw anew, keep ranges of photons or precision, click a molecule.</li>
<li><b>Analyse</b>: quality without a truth, drift, blinks, comparison with a truth; what is left over in the movie,
errors measured on a twin of it, the density that the model can bear; and a report on one page.</li>
<li><b>Train</b>: adapt a model to movies that lie outside of what the shipped ones know. <b>Fill from the movie</b>
measures what is needed, real and simulated frames are shown side by side, <b>Stop</b> keeps the best model.</li>
<li><b>Save molecules</b> writes what is shown, with its whole history. Picasso opens the HDF5.</li>
</ol>
<p>Keys: Tab goes through the rows, Alt+1 to Alt+6 open the tabs, Ctrl+Return runs, Esc cancels.</p>
<p>Positions count from the centre of the first pixel; photons are photo-electrons; precision is one standard deviation
of the position's error.</p>
"""


def show_help(parent: QWidget) -> None:
    """Show the steps, with a link to the documentation where the package knows one."""
    box = QMessageBox(parent)
    box.setWindowTitle("smlm-pb: help")
    box.setTextFormat(Qt.TextFormat.RichText)
    box.setText(_TEXT + _link())
    box.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.open()


def _link() -> str:
    """The documentation: on the web where the package states an address, beside an installed checkout, or built in."""
    try:
        urls = metadata("smlm-pb").get_all("Project-URL") or []
    except PackageNotFoundError:
        urls = []
    for entry in urls:
        label, _, url = entry.partition(", ")
        if label.casefold() in ("documentation", "homepage"):
            return f'<p><a href="{escape(url)}">Documentation</a></p>'
    page = Path(__file__).resolve().parents[1] / "docs" / "napari.md"
    if page.exists():
        return f'<p><a href="{escape(page.as_uri())}">Documentation: {escape(str(page))}</a></p>'
    return _BUILT_IN


#: A package that was installed without its documentation explains itself.
_BUILT_IN = """
<p>Every row explains itself when the mouse rests on it. The same steps without napari: <code>smlm-pb --help</code>,
and <code>help(smlm_pb)</code> in Python; the folder <code>docs</code> of the source explains the methods.</p>
"""
