"""How far the work is: a bar on a terminal, lines in a log file, JSON for scripts, nothing under ``--quiet``.

Everything goes to stderr, so that stdout stays free for results. In JSON mode every line that starts with
``{`` is one report: ``{"event": "progress", "label": "movie.tif", "unit": "frame", "done": 512,
"total": 5000, "per_second": 87.1, "seconds_left": 51.5}``. The last report of a piece of work has the event
``finished`` or ``stopped``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smlm_pb.localization.model import Model

OnProgress = Callable[[int, int], None]

_RATE_WINDOW_S = 20.0
_JSON_INTERVAL_S = 0.5
_LINE_INTERVAL_S = 10.0


@contextmanager
def show_progress(args: argparse.Namespace, label: str, *, unit: str = "frame") -> Iterator[OnProgress]:
    """Report the progress of one piece of work.

    Parameters
    ----------
    args : argparse.Namespace
        The parsed command line; ``quiet`` and ``progress`` are read.
    label : str
        What is being worked on, e.g. the name of the movie.
    unit : str
        What is counted, in the singular.

    Yields
    ------
    callable
        ``on_progress(done, total)`` for the library.
    """
    mode = _mode(args)
    if mode == "none":
        yield lambda _done, _total: None
        return
    reporter = _Bar(label, unit) if mode == "bar" else _Lines(label, unit, as_json=mode == "json")
    try:
        yield reporter.update
    except BaseException:
        reporter.close(finished=False)
        raise
    reporter.close(finished=True)


def warn(message: str) -> None:
    """Print a warning as those of the library are printed, in the words of the command line."""
    warnings.showwarning(message, UserWarning, __name__, 0)


def say(message: str) -> None:
    """Print one line to stderr without tearing a progress bar apart."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)
    else:
        print(message, file=sys.stderr)


def note(args: argparse.Namespace, message: str) -> None:
    """Tell the user something worth knowing, unless they asked for quiet."""
    if not getattr(args, "quiet", False):
        say(message)


def tell_of_first_use(args: argparse.Namespace, model: Model) -> None:
    """Say why the first use of a network on a machine takes longer."""
    from smlm_pb.localization.precision import is_settled

    if not is_settled(model, getattr(args, "precision", "auto")):
        note(args, f"first use of network '{model.card.name}' on this machine: finding out how it is fastest …")


def _mode(args: argparse.Namespace) -> str:
    if getattr(args, "quiet", False):
        return "none"
    mode: str = getattr(args, "progress", "auto")
    if mode == "auto":
        return "bar" if sys.stderr.isatty() else "lines"
    return mode


class _Bar:
    """A tqdm bar that is told totals instead of steps."""

    def __init__(self, label: str, unit: str) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(
            desc=label,
            unit=f" {unit}s",
            total=None,
            file=sys.stderr,
            dynamic_ncols=True,
            unit_scale=False,
            mininterval=0.1,
        )

    def update(self, done: int, total: int) -> None:
        if self._bar.total != total:
            self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self, *, finished: bool) -> None:
        self._bar.close()


class _Lines:
    """Lines now and then: for people in a log file, or as JSON for scripts."""

    def __init__(self, label: str, unit: str, *, as_json: bool) -> None:
        self._label, self._unit, self._as_json = label, unit, as_json
        self._interval_s = _JSON_INTERVAL_S if as_json else _LINE_INTERVAL_S
        self._start_s = self._last_s = time.monotonic()
        # Only recent work tells the speed: after a resume the first report jumps far ahead.
        self._recent: deque[tuple[float, int]] = deque([(self._start_s, 0)])
        self._done = self._total = 0

    def update(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        self._done, self._total = done, total
        self._recent.append((now_s, done))
        while len(self._recent) > 2 and now_s - self._recent[0][0] > _RATE_WINDOW_S:
            self._recent.popleft()
        if now_s - self._last_s >= self._interval_s:
            self._last_s = now_s
            self._print("progress")

    def close(self, *, finished: bool) -> None:
        # Work that was refused before it began has no progress to tell of; scripts wait for the end of every one.
        if finished or self._total or self._as_json:
            self._print("finished" if finished else "stopped")

    def _print(self, event: str) -> None:
        if event == "progress":
            (then_s, before), (now_s, _) = self._recent[0], self._recent[-1]
        else:
            (then_s, before), now_s = (self._start_s, 0), time.monotonic()
        per_second = (self._done - before) / max(now_s - then_s, 1e-9)
        left_s = (self._total - self._done) / per_second if per_second > 0 else None
        if self._as_json:
            report = {
                "event": event,
                "label": self._label,
                "unit": self._unit,
                "done": self._done,
                "total": self._total,
                "per_second": round(per_second, 3),
                "seconds_left": None if left_s is None else round(left_s, 1),
            }
            print(json.dumps(report), file=sys.stderr, flush=True)
            return
        state = "at" if event == "progress" else event
        unit = f"{self._unit}s"
        text = f"{self._label}: {state} {self._done}/{self._total} {unit}, {per_second:.3g} {unit}/s"
        if event == "progress" and left_s is not None:
            text += f", {_duration(left_s)} left"
        print(text, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
