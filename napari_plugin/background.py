"""Small work off the screen's thread: one job at a time, only the newest request counts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import QObject, Signal

_log = logging.getLogger(__name__)


def warm_up() -> None:
    """Import, in a thread, what a run will need: one or two seconds that would otherwise stop the window."""

    def work() -> None:
        try:
            import pandas  # noqa: F401
            import torch  # noqa: F401

            import smlm_pb.analysis.rendering
            import smlm_pb.localization  # noqa: F401
        except Exception:
            _log.debug("Warming up failed; whoever needs it will say why", exc_info=True)

    threading.Thread(target=work, name="smlm-pb warm-up").start()


class Latest(QObject):
    """Runs a function in a thread; a request that comes meanwhile replaces the one that waits.

    While someone moves a slider, requests come faster than results: the ones in between are dropped, and the last
    result shown is the one of the last request.

    Parameters
    ----------
    on_result : callable
        Called in the screen's thread with what the function returned.
    on_error : callable
        Called in the screen's thread with the exception it raised.
    parent : QObject
        Ends with it.
    """

    _finished = Signal(int, object, object)

    def __init__(
        self,
        on_result: Callable[[Any], None],
        on_error: Callable[[Exception], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._on_result, self._on_error = on_result, on_error
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="smlm-pb")
        self._lock = threading.Lock()
        self._waiting: tuple[int, Callable[[], Any]] | None = None
        self._number = 0
        self._running = False
        self._closed = False
        self._finished.connect(self._deliver)

    @property
    def overtaken(self) -> bool:
        """Whether a newer request waits, or nobody any more; work for later should end then."""
        return self._closed or self._waiting is not None

    @property
    def closed(self) -> bool:
        """Whether nobody waits for results any more; long work should ask for it now and then."""
        return self._closed

    def submit(self, function: Callable[[], Any]) -> None:
        """Ask for a result; earlier requests that have not begun are dropped, their results too."""
        with self._lock:
            if self._closed:
                return
            self._number += 1
            self._waiting = (self._number, function)
            if self._running:
                return
            self._running = True
        self._pool.submit(self._work)

    def forget(self) -> None:
        """Drop what waits, and the result of what runs."""
        with self._lock:
            self._number += 1
            self._waiting = None

    def close(self) -> None:
        """Take no more requests; what runs ends unheard."""
        with self._lock:
            self._closed = True
            self._waiting = None
        self._pool.shutdown(wait=False, cancel_futures=True)

    def wait(self) -> None:
        """Close, and wait for what runs."""
        self.close()
        self._pool.shutdown(wait=True)

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._waiting is None:
                    self._running = False
                    return
                (number, function), self._waiting = self._waiting, None
            result: Any = None
            failure: Exception | None = None
            try:
                result = function()
            except Exception as error:
                failure = error
            try:
                self._finished.emit(number, result, failure)
            except RuntimeError:  # the window is gone
                self._running = False
                return

    def _deliver(self, number: int, result: Any, failure: Exception | None) -> None:
        if self._closed or number != self._number:
            return
        if failure is not None:
            self._on_error(failure)
        else:
            self._on_result(result)
