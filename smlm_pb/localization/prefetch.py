"""Run an iterator ahead of its consumer, in one thread or several, by a bounded number of items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

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
        _join([self._thread])

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


class Workers(Iterator[R], Generic[T, R]):
    """What several threads make of the items of an iterator, in the order of the items.

    Parameters
    ----------
    source : iterator
        Is used by one thread at a time; an exception it raises is raised to the consumer in its place.
    work : sequence of callables
        What the threads do with an item, one thread for each.
    ahead : int
        Results that may wait; with those in production that bounds the memory.

    Examples
    --------
    >>> with Workers(iter(range(4)), [str, str], ahead=2) as items:
    ...     list(items)
    ['0', '1', '2', '3']
    """

    def __init__(self, source: Iterator[T], work: Sequence[Callable[[T], R]], ahead: int) -> None:
        self._source, self._taking, self._taken = source, threading.Lock(), 0
        self._room = threading.Semaphore(len(work) + ahead)
        self._changed = threading.Condition()
        self._done: dict[int, tuple[R | None, BaseException | None]] = {}
        self._next, self._exhausted = 0, False
        self._unwanted = threading.Event()
        self._should_stop: Callable[[], bool] = lambda: False
        self._threads = [
            threading.Thread(target=self._run, args=(one,), name=f"smlm-pb worker {number}", daemon=True)
            for number, one in enumerate(work)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Workers[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def end_when(self, should_stop: Callable[[], bool]) -> None:
        """End before the next item, also while waiting for it, as soon as ``should_stop`` says so."""
        self._should_stop = should_stop

    def __next__(self) -> R:
        while not self._exhausted and not self._should_stop():
            with self._changed:
                if self._next not in self._done:
                    # A time limit, so that Ctrl-C is heard while waiting on every system.
                    self._changed.wait(_POLL_S)
                if self._next not in self._done:
                    continue
                result, error = self._done.pop(self._next)
            if error is None:
                self._next += 1
                self._room.release()
                return result  # type: ignore[return-value]
            self._exhausted = True
            if not isinstance(error, StopIteration):
                raise error
        raise StopIteration

    def close(self) -> None:
        """Stop producing and wait for the items in production to be done, however often Ctrl-C is pressed."""
        self._exhausted = True
        self._unwanted.set()
        _join(self._threads)

    def _run(self, work: Callable[[T], R]) -> None:
        while self._wait_for_room():
            result: R | None = None
            error: BaseException | None = None
            with self._taking:
                number = self._taken
                try:
                    item = next(self._source)
                    self._taken += 1
                except BaseException as failure:  # also the end; every thread but the first comes to it again
                    error = failure
            if error is None:
                try:
                    result = work(item)
                except BaseException as failure:
                    error = failure
            with self._changed:
                self._done.setdefault(number, (result, error))
                self._changed.notify_all()
            if error is not None:
                self._unwanted.set()

    def _wait_for_room(self) -> bool:
        while not self._unwanted.is_set():
            if self._room.acquire(timeout=_POLL_S):
                return not self._unwanted.is_set()
        return False


def _join(threads: list[threading.Thread]) -> None:
    """Wait for threads to end; one that still computes when the program ends would crash it."""
    pressed: KeyboardInterrupt | None = None
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt as again:
                pressed = again
    if pressed is not None:
        raise pressed
