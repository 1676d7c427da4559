"""Take the screenshots of the napari panel that the documentation shows, from the real panel on the sample movie.

Run it on a screen, or on a virtual one::

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/take_screenshots.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The settings of whoever takes the pictures stay as they are, and do not show.
os.environ["NAPARI_CONFIG"] = str(Path(tempfile.mkdtemp(prefix="smlm-pb-screenshots-")) / "napari.yaml")

import napari
import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication

SIZE = (1280, 800)
LIMIT_S = 600.0
IMAGES = Path(__file__).parent / "images"


def wait_until(condition: Callable[[], bool]) -> None:
    """Let the window live until something has happened."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("The panel did not get there; look at its messages.")
        QApplication.processEvents()
        time.sleep(0.005)


def settle(seconds: float = 0.8) -> None:
    """Let everything be drawn."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end)


def take(viewer: Any, folder: Path, name: str) -> None:
    """Write a picture of the whole window, in 256 colours."""
    settle()
    picture = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
    path = folder / f"{name}.png"
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path} ({path.stat().st_size // 1024} kB)")


def main() -> None:
    """Open the sample, press Run, and take a picture of every tab."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures")
    parser.add_argument("--model", default="default", help="name or folder of the model")
    parser.add_argument("--frames", type=int, default=200, help="frames of the sample that are localized")
    parser.add_argument("--all", action="store_true", help="also those that the documentation does not show")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    from napari_plugin.settings import remember

    remember("localization", "model", str(Path(arguments.model).absolute()) if "/" in arguments.model else "default")
    movie, truth = viewer.open_sample("smlm-pb", "filaments_truth")
    _, panel = viewer.window.add_plugin_dock_widget("smlm-pb", "Localize molecules")
    panel.movie.choose(movie)
    panel.molecules.choose(None)
    if arguments.frames < len(movie.data):
        panel.search.last_frame.set_value(arguments.frames - 1)
    settle()
    viewer.reset_view()
    wait_until(lambda: panel.inputs.conditions is not None)
    if arguments.all:
        take(viewer, arguments.out, "napari-start")
        panel.search.live_preview.setChecked(True)
        wait_until(lambda: panel.inputs.preview.layer is not None)
        take(viewer, arguments.out, "napari-preview")
        panel.search.live_preview.setChecked(False)

    panel.run_bar.run_button.click()
    wait_until(lambda: not panel.is_running or panel.runs._job.progress().done >= arguments.frames // 2)
    if arguments.all:
        take(viewer, arguments.out, "napari-running")
    wait_until(lambda: not panel.is_running)
    wait_until(lambda: panel.results.image.rendering is not None)
    take(viewer, arguments.out, "napari-result")
    tabs(viewer, panel, truth, arguments.out)
    if arguments.all:
        viewer.theme = "light"
        panel.tabs.setCurrentIndex(0)
        take(viewer, arguments.out, "napari-result-light")
        for index in range(1, panel.tabs.count()):
            panel.tabs.setCurrentIndex(index)
            take(viewer, arguments.out, f"napari-light-{panel.tabs.tabText(index).lower()}")
    viewer.close()


def tabs(viewer: Any, panel: Any, truth: Any, folder: Path) -> None:
    """Take a picture of the tabs of a finished result."""
    molecules = panel.results.current
    panel.tabs.setCurrentWidget(panel._pages["Image"])
    panel.image.colour_by.setCurrentIndex(panel.image.colour_by.findData("frame"))
    wait_until(lambda: panel.results.image.rendering.colour is not None)
    panel.run_bar._view_buttons["image"].click()
    take(viewer, folder, "napari-image")
    panel.image.colour_by.setCurrentIndex(0)
    wait_until(lambda: panel.results.image.rendering.colour is None)
    panel.run_bar._view_buttons["both"].click()

    panel.tabs.setCurrentWidget(panel._pages["Filter"])
    panel.filter.histograms["precision"].set_limits(None, 15.0)
    panel.filter.range_changed.emit("precision", None, 15.0)
    panel.filter.colour.setCurrentIndex(panel.filter.colour.findData("photons"))
    take(viewer, folder, "napari-filter")
    panel.filter.reset.click()
    panel.filter.colour.setCurrentIndex(0)

    panel.tabs.setCurrentWidget(panel._pages["Inspect"])
    row = alone(molecules.table, molecules.mask)
    viewer.dims.set_current_step(0, int(molecules.table.frame[row]))
    panel.results.inspect_row(row)
    take(viewer, folder, "napari-inspect")

    panel.tabs.setCurrentWidget(panel._pages["Analyse"])
    panel.analysis.truth.choose(truth)
    panel.analysis.quality_button.click()
    panel.analysis.compare_button.click()
    wait_until(lambda: "Jaccard" in panel.analysis.compare_note.text())
    wait_until(lambda: "Computing" not in panel.analysis.quality_note.text())
    panel.run_bar._view_buttons["frames"].click()
    molecules.layer.visible = False
    settle()
    panel._pages["Analyse"].ensureWidgetVisible(panel.analysis.compare_note)
    take(viewer, folder, "napari-analyse")

    panel.analysis.checks.twin.button.click()
    wait_until(lambda: not panel.analysis.checks.twin.running)
    wait_until(lambda: panel.analysis.checks.twin_picture.isVisibleTo(panel.analysis))
    take(viewer, folder, "napari-twin")

    panel.tabs.setCurrentWidget(panel._pages["Train"])
    panel.training.folder.setText("~/smlm-pb-models")
    panel.training.measure.button.click()
    wait_until(lambda: "Simulated" in panel.training.look_note.text())
    take(viewer, folder, "napari-train")


def alone(table: Any, mask: Any, apart_px: float = 8.0) -> int:
    """A molecule of average brightness, well inside of the frames, that has no other one near it in its frame."""
    inner = np.flatnonzero(mask & (abs(table.x - 48) < 30) & (abs(table.y - 48) < 30))
    unusual = np.abs(table.photons[inner] - np.median(table.photons[inner]))
    for row in inner[np.argsort(unusual)].tolist():
        same = np.flatnonzero(mask & (table.frame == table.frame[row]))
        distance = np.hypot(table.x[same] - table.x[row], table.y[same] - table.y[row])
        if np.count_nonzero(distance < apart_px) == 1:
            return int(row)
    return int(inner[0])


if __name__ == "__main__":
    main()
