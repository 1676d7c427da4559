"""How the napari panel feels: does the window stay alive, how soon does Cancel act, are previews and sliders smooth.

Everything is measured in the real window on the sample movie, and on three million molecules made up for it. It needs
a screen, or a virtual one::

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/panel.py

Times are those of the clock; where other programs keep the processor busy they are longer. Therefore the longest
interruption of the window is also stated as processor time of its thread, and that of the window alone beside it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# The settings of whoever measures stay as they are.
os.environ["NAPARI_CONFIG"] = str(Path(tempfile.mkdtemp(prefix="smlm-pb-panel-")) / "napari.yaml")

import numpy as np
from _report import COLOURS, Table, make_parser, new_figure, number, parse, publish, run_as_program

from smlm_pb.errors import SmlmPbError
from smlm_pb.localizations import Localizations, MovieInfo

SIZE = (1280, 800)
LIMIT_S = 600.0
BEAT_MS = 5
MANY, MANY_FRAMES, MANY_PX = 3_000_000, 10_000, 256
#: What the panel is to reach, ms.
GOALS = {
    "window blocked from Run to the image, longest": 100,
    "window blocked from Run to the image, longest (processor time)": 100,
    "the same with 3 million molecules": 100,
    "the same with 3 million molecules (processor time)": 100,
    "Cancel, slowest": 500,
    "step with live preview, median": 50,
    "3 million molecules: step, median": 60,
    "3 million molecules: threshold, median": 150,
    "sample: from Run to molecules and image": 60_000,
}


@dataclass
class Heartbeat:
    """Notes when the window gets round to its own events, by the clock and by its thread's processor time."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    _timer: Any = None

    def start(self) -> None:
        """Begin anew; the first beat is now."""
        from qtpy.QtCore import QTimer

        self.clock, self.processor = [], []
        self._beat()
        self._timer = QTimer()
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def stop(self) -> dict[str, float]:
        """Intervals between two beats, ms; the last beat is now, so that a window blocked to the end counts too."""
        self._timer.stop()
        self._beat()
        clock, processor = 1e3 * np.diff(self.clock), 1e3 * np.diff(self.processor)
        return {
            "longest_ms": float(clock.max()),
            "percentile_99_ms": float(np.percentile(clock, 99)),
            "longest_processor_ms": float(processor.max()),
            "beats": len(self.clock),
        }

    def _beat(self) -> None:
        self.clock.append(time.perf_counter())
        self.processor.append(time.thread_time())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=8, metavar="N", help="cancelled runs (default: 8)")
    args = parse(parser, argv)
    sizes = (20_000, 100, 12) if args.quick else (MANY, MANY_FRAMES, 60)
    viewer, panel = open_window(args)
    results: dict[str, Any] = {}
    results["idle"] = measure_idle(0.3 if args.quick else 3.0)
    results["runs"] = [measure_run(panel) for _ in range(1 if args.quick else 3)]
    results["cancel"] = measure_cancel(panel, 1 if args.quick else args.repeats)
    results["preview"] = measure_preview(viewer, panel, sizes[2])
    show_long_movie(viewer, panel, sizes[1])
    results["runs_of_many"] = [measure_run_of_many(panel, sizes[0]) for _ in range(1 if args.quick else 2)]
    results["many"] = measure_many(viewer, panel, n=sizes[0], n_frames=sizes[1], steps=sizes[2])
    viewer.close()
    figures = summarize(results)
    publish(
        "panel",
        args,
        tables=[_table(figures)],
        results={"figures_ms": figures, **results},
        settings={"model": Path(args.model).name, "repeats": args.repeats, "molecules": sizes[0], "steps": sizes[2]},
        figure=_figure(results),
    )
    return 0


def open_window(args: argparse.Namespace) -> tuple[Any, Any]:
    """Open napari with the sample movie and the panel."""
    try:
        import napari
    except ImportError as error:
        raise SmlmPbError("napari is not installed: pip install 'smlm-pb[all]'") from error
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    from napari_plugin.settings import remember

    remember("localization", "model", str(Path(args.model).absolute()) if "/" in str(args.model) else args.model)
    (movie,) = viewer.open_sample("smlm-pb", "filaments")
    if args.quick:
        movie.data = movie.data[:30, :48, :48]
    _, panel = viewer.window.add_plugin_dock_widget("smlm-pb", "Localize molecules")
    wait_until(lambda: panel.inputs.conditions is not None)
    settle(1.0)
    return viewer, panel


def measure_idle(seconds: float) -> dict[str, float]:
    """How long a window that does nothing is blocked."""
    heartbeat = Heartbeat()
    heartbeat.start()
    settle(seconds)
    return heartbeat.stop()


def measure_run(panel: Any) -> dict[str, Any]:
    """A whole run on the sample: how long the window was blocked between pressing Run and seeing the image."""
    drawn: list[Any] = []
    panel.results.image.drawn.connect(drawn.append)
    heartbeat = Heartbeat()
    heartbeat.start()
    settle(0.1)
    began = time.perf_counter()
    panel.run_bar.run_button.click()
    wait_until(lambda: panel.runs._worker is not None)
    made_ready = time.perf_counter() - began
    wait_until(lambda: not panel.is_running)
    n_drawn = len(drawn)
    wait_until(lambda: len(drawn) > n_drawn)
    seconds = time.perf_counter() - began
    settle(0.5)
    panel.results.image.drawn.disconnect(drawn.append)
    molecules = panel.results.current
    return {
        "seconds": seconds,
        "made_ready_s": made_ready,
        "frames": int(molecules.table.frame.max()) + 1,
        "molecules": molecules.n_shown,
        "heartbeat": heartbeat.stop(),
    }


def measure_run_of_many(panel: Any, n: int) -> dict[str, Any]:
    """The same where a stand-in for the library finds ``n`` molecules, so that the window is what is measured."""
    import smlm_pb.localization

    real = smlm_pb.localization.localize

    def stand_in(movie: Any, *, on_block: Any, on_progress: Any, **_: Any) -> Localizations:
        tables, edges = [], np.linspace(0, movie.n_frames, 21).astype(int)
        for start, stop in itertools.pairwise(edges):
            table = made_up(n // 20, (int(start), int(stop)), movie.info)
            tables.append(table)
            on_block(SimpleNamespace(start=int(start), stop=int(stop), candidates=table, threshold=0.5))
            on_progress(int(stop), movie.n_frames)
        found = Localizations.concatenate(tables)
        found = found.select(found.probability >= np.float32(0.5))
        told = {"threshold": 0.5, "true": 0.75 * len(found), "missed": 0.1 * len(found), "jaccard": 0.7}
        return found.with_provenance({"step": "localize", "threshold": told})

    smlm_pb.localization.localize = stand_in  # type: ignore[assignment]
    try:
        return measure_run(panel)
    finally:
        smlm_pb.localization.localize = real


def made_up(n: int, frames: tuple[int, int], info: MovieInfo) -> Localizations:
    """Molecules anywhere in some frames."""
    rng = np.random.default_rng(frames[0])
    columns = {
        "frame": np.sort(rng.integers(*frames, n)),
        "x": rng.uniform(0, info.width - 1, n),
        "y": rng.uniform(0, info.height - 1, n),
        "photons": rng.gamma(2, 800, n),
        "background": rng.uniform(10, 40, n),
        "sigma_x": rng.uniform(0.05, 0.3, n),
        "sigma_y": rng.uniform(0.05, 0.3, n),
        "probability": rng.uniform(0, 1, n),
    }
    return Localizations(columns, info)


def show_long_movie(viewer: Any, panel: Any, n_frames: int) -> None:
    """Show a movie of many frames that takes no room, in the place of all other layers."""
    viewer.layers.clear()
    frame = np.random.default_rng(0).poisson(100, (1, MANY_PX, MANY_PX)).astype(np.uint16)
    movie = viewer.add_image(np.broadcast_to(frame, (n_frames, MANY_PX, MANY_PX)), name="many", projection_mode="none")
    panel.movie.choose(movie)
    panel.camera.set_values({"offset_adu": 0.0, "e_per_adu": 1.0, "pixel_size_nm": 100.0})
    viewer.layers.selection.active = movie
    settle(1.0)


def measure_cancel(panel: Any, repeats: int) -> dict[str, Any]:
    """Seconds from Cancel until the panel is free again, before the first frame and in the middle of a run."""
    early: list[float] = []
    later: list[float] = []
    for number_of_run in range(repeats):
        for waits, after_frames in ((early, 0), (later, 1 + 5 * number_of_run)):
            panel.run_bar.run_button.click()
            wait_until(lambda: panel.runs._worker is not None)
            wait_until(lambda n=after_frames: not panel.is_running or panel.runs._job.progress().done >= n)  # type: ignore[misc]
            if not panel.is_running:
                continue
            began = time.perf_counter()
            panel.run_bar.cancel_button.click()
            wait_until(lambda: not panel.is_running)
            waits.append(time.perf_counter() - began)
    return {"before_the_first_frame_s": early, "in_the_middle_s": later}


def measure_preview(viewer: Any, panel: Any, steps: int) -> dict[str, Any]:
    """Step through the movie with the live preview: what a step takes, and when its molecules are on the screen."""
    for layer in [layer for layer in viewer.layers if layer is not panel.movie.layer]:
        viewer.layers.remove(layer)
    shown: dict[int, float] = {}
    preview = panel.inputs.preview
    preview.shown.connect(lambda result: shown.setdefault(result.frame, time.perf_counter()))
    panel.search.live_preview.setChecked(True)
    wait_until(lambda: bool(shown))
    settle(1.0)
    last = len(panel.movie.layer.data) - 1
    frames = [1 + k % last for k in range(steps)]
    step_s, shown_s = [], []
    for frame in frames:
        shown.clear()
        began = time.perf_counter()
        viewer.dims.set_current_step(0, frame)
        process_events()
        step_s.append(time.perf_counter() - began)
        wait_until(lambda frame=frame: frame in shown)  # type: ignore[misc]
        shown_s.append(shown[frame] - began)
    scrub_s = []
    for frame in reversed(frames):
        began = time.perf_counter()
        viewer.dims.set_current_step(0, frame)
        process_events()
        scrub_s.append(time.perf_counter() - began)
    panel.search.live_preview.setChecked(False)
    return {"step_s": step_s, "until_shown_s": shown_s, "step_without_waiting_s": scrub_s}


def measure_many(viewer: Any, panel: Any, *, n: int, n_frames: int, steps: int) -> dict[str, Any]:
    """Step and move the threshold with many molecules on a long movie."""
    from napari_plugin.molecule_layers import points_arguments

    table = made_up(n, (0, n_frames), MovieInfo(n_frames, MANY_PX, MANY_PX, 100.0, "many"))
    show_long_movie(viewer, panel, n_frames)
    layer = viewer.add_points(**points_arguments(table, name="many molecules"))
    panel.molecules.choose(layer)
    viewer.layers.selection.active = viewer.layers["many"]
    settle(2.0)
    rng = np.random.default_rng(1)
    step_s, threshold_s, fully_s = [], [], []
    for frame in rng.integers(0, n_frames, steps):
        began = time.perf_counter()
        viewer.dims.set_current_step(0, int(frame))
        process_events()
        step_s.append(time.perf_counter() - began)
    drawn: list[Any] = []
    panel.results.image.drawn.connect(drawn.append)
    slider = panel.search.threshold.slider
    for position in np.linspace(50, 950, steps).astype(int):
        began = time.perf_counter()
        slider.setValue(int(position))
        process_events()
        threshold_s.append(time.perf_counter() - began)
    drawn.clear()
    began = time.perf_counter()
    slider.setValue(400)
    wait_until(lambda: bool(drawn))
    fully_s.append(time.perf_counter() - began)
    return {"molecules": n, "step_s": step_s, "threshold_s": threshold_s, "image_drawn_anew_s": fully_s}


def process_events() -> None:
    """Let the window work off what waits, drawing included."""
    from qtpy.QtWidgets import QApplication

    QApplication.processEvents()


def wait_until(condition: Callable[[], bool]) -> None:
    """Let the window live until something has happened."""
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise SmlmPbError("The panel did not get there in ten minutes; look at its messages in napari.")
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents)
        time.sleep(0.0005)


def settle(seconds: float) -> None:
    """Let everything be drawn."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end)


def summarize(results: dict[str, Any]) -> dict[str, float]:
    """The figures that count, ms."""
    preview, many = results["preview"], results["many"]
    cancel = results["cancel"]["before_the_first_frame_s"] + results["cancel"]["in_the_middle_s"]
    thousand = f"{many['molecules'] / 1e6:g} million molecules"

    def longest(runs: list[dict[str, Any]], name: str) -> float:
        return max(float(run["heartbeat"][name]) for run in runs)

    runs, of_many = results["runs"], results["runs_of_many"]
    return {
        "window blocked from Run to the image, longest": longest(runs, "longest_ms"),
        "window blocked from Run to the image, longest (processor time)": longest(runs, "longest_processor_ms"),
        "window blocked from Run to the image, 99th percentile": longest(runs, "percentile_99_ms"),
        f"the same with {thousand}": longest(of_many, "longest_ms"),
        f"the same with {thousand} (processor time)": longest(of_many, "longest_processor_ms"),
        "idle window blocked, longest": results["idle"]["longest_ms"],
        "Cancel, median": 1e3 * statistics.median(cancel),
        "Cancel, slowest": 1e3 * max(cancel),
        "step with live preview, median": 1e3 * statistics.median(preview["step_without_waiting_s"]),
        "live preview on the screen after a step, median": 1e3 * statistics.median(preview["until_shown_s"]),
        f"{thousand}: step, median": 1e3 * statistics.median(many["step_s"]),
        f"{thousand}: threshold, median": 1e3 * statistics.median(many["threshold_s"]),
        f"{thousand}: image drawn anew": 1e3 * statistics.median(many["image_drawn_anew_s"]),
        "sample: from Run to molecules and image": 1e3 * runs[0]["seconds"],
    }


def _table(figures: dict[str, float]) -> Table:
    rows = [[name, number(value, 0), f"≤ {GOALS[name]}" if name in GOALS else ""] for name, value in figures.items()]
    return Table("The window", ("what", "ms", "goal (ms)"), rows)


def _figure(results: dict[str, Any]) -> Any:
    figure, axes = new_figure(1, width=6.4, height=3.2)
    ax = axes[0, 0]
    preview, many, cancel = results["preview"], results["many"], results["cancel"]
    series = {
        "Cancel": (cancel["before_the_first_frame_s"] + cancel["in_the_middle_s"], 500),
        "step with live preview": (preview["step_without_waiting_s"], 50),
        "live preview on the screen": (preview["until_shown_s"], None),
        "many molecules: step": (many["step_s"], 60),
        "many molecules: threshold": (many["threshold_s"], 150),
    }
    for place, (seconds, goal) in enumerate(reversed(series.values())):
        values = 1e3 * np.array(seconds)
        ax.plot(values, np.full(len(values), place), "|", color=COLOURS["ours"], alpha=0.5, ms=9)
        ax.plot(np.median(values), place, "o", color=COLOURS["ours"])
        if goal is not None:
            ax.plot([goal] * 2, [place - 0.35, place + 0.35], color=COLOURS["goal"], lw=2)
    ax.set_yticks(range(len(series)), list(reversed(series)))
    ax.set_xscale("log")
    ticks = [10, 20, 50, 100, 200, 500, 1000]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="ms (dot: median; green: goal)", title="The window of the panel")
    return figure


if __name__ == "__main__":
    run_as_program(main)
