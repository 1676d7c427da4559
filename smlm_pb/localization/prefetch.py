"""Run an iterator ahead of its consumer, in a thread, by a bounded number of items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

#: Whoever waits for the queue looks this often whether the wait is still wanted, s.
_POLL_S = 0.1


class Prefetch(Iterator[T], Generic[T]):
    """The items of an iterator, produced ahead in a thread.

    Parameters
    ----------
    source : iterator
        Is used by the thread alone; an exception it raises is raised to the consumer in its place.
    depth : int
        Items that may wait; with the one in production that bounds the memory.

    Examples
    --------
    >>> with Prefetch(iter(range(3)), depth=2) as items:
    ...     list(items)
    [0, 1, 2]
    """

    def __init__(self, source: Iterator[T], depth: int) -> None:
        self._source = source
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
        self._unwanted = threading.Event()
        self._exhausted = False
        self._should_stop: Callable[[], bool] = lambda: False
        self._thread = threading.Thread(target=self._produce, name="smlm-pb prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def end_when(self, should_stop: Callable[[], bool]) -> None:
        """End before the next item, also while waiting for it, as soon as ``should_stop`` says so."""
        self._should_stop = should_stop

    def __next__(self) -> T:
        while not self._exhausted and not self._should_stop():
            try:
                # A time limit, so that Ctrl-C is heard while waiting on every system.
                item, error = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if error is None:
                return item  # type: ignore[return-value]
            self._exhausted = True
            if not isinstance(error, StopIteration):
                raise error
        raise StopIteration

    def close(self) -> None:
        """Stop producing and wait for the item in production to be done, however often Ctrl-C is pressed.

        A thread that still computes when the program ends would crash it.
        """
        self._exhausted = True
        self._unwanted.set()
        pressed: KeyboardInterrupt | None = None
        while self._thread.is_alive():
            try:
                self._thread.join()
            except KeyboardInterrupt as again:
                pressed = again
        if pressed is not None:
            raise pressed

    def _produce(self) -> None:
        item: T | None
        error: BaseException | None = None
        while error is None and not self._unwanted.is_set():
            try:
                item = next(self._source)
            except BaseException as failure:
                item, error = None, failure
            self._put(item, error)
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    def _put(self, item: T | None, error: BaseException | None) -> None:
        while not self._unwanted.is_set():
            try:
                self._queue.put((item, error), timeout=_POLL_S)
                return
            except queue.Full:
                continue
