"""The blocks of a run on many processes or machines: Dask distributed.

Ranges of frames go to the workers, a bounded number at a time, and come back in the order of time, so that the work
file grows as in a run of one process. What a lost worker had in hand is done by another one.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from smlm_pb.errors import ClusterError, ConfigurationError
from smlm_pb.localization.prefetch import Prefetch
from smlm_pb.localization.threads import available_processors

if TYPE_CHECKING:
    from types import TracebackType

    from smlm_pb.localization.cluster_worker import WorkerReport
    from smlm_pb.localization.job import Job
    from smlm_pb.localization.pipeline import Block

T = TypeVar("T")

#: Blocks per task: enough that passing them on costs little, few enough that a lost worker loses little.
_BLOCKS_PER_TASK = 8
#: Every worker gets so many tasks at least, where the movie is short.
_TASKS_PER_WORKER = 4
#: Tasks in flight per thread of a worker: one in work, the next ones waiting there.
_IN_FLIGHT = 3
_POLL_S = 0.2
#: Who waits for longer is told what for.
_TELL_AFTER_S = 3.0
#: So much later than was asked for is given up what does not give up itself.
_GRACE_S = 2.0
#: A scheduler that does not take note of a farewell in this time is left without.
_LEAVE_WITHIN_S = 10.0


class Cluster:
    """Workers of Dask distributed, for one or many movies.

    Parameters
    ----------
    workers : int, optional
        Processes to start on this machine.
    scheduler : str, optional
        Address of a scheduler that runs already, or the file that it wrote (``--scheduler-file``).
    device : str
        Device of the workers; ``auto`` is decided on each of them.
    wait_s : float
        How long to wait for the scheduler, and then for the first worker, s. After a few seconds a warning tells what
        is waited for.

    Raises
    ------
    ConfigurationError
        When neither or both are given, or ``distributed`` is not installed.
    ClusterError
        When the scheduler does not answer or has no workers.

    Examples
    --------
    >>> with Cluster(workers=2) as cluster:  # doctest: +SKIP
    ...     smlm_pb.localize_to_file("movie.tif", "results", cluster=cluster)
    """

    def __init__(
        self, *, workers: int | None = None, scheduler: str | None = None, device: str = "auto", wait_s: float = 60.0
    ) -> None:
        if (workers is None) == (scheduler is None):
            raise ConfigurationError(
                "Give either the number of workers on this machine, or the address of a scheduler."
            )
        if workers is not None and workers < 1:
            raise ConfigurationError(f"workers = {workers} must be 1 or more.")
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise ConfigurationError(
                "Several processes need the package distributed: pip install 'smlm-pb[distributed]'."
            ) from None
        self._device, self._scheduler, self._wait_s = device, scheduler, wait_s
        self._threads: int | None = None
        self._devices: Counter[str] = Counter()
        self._stack = ExitStack()
        try:
            self.client = self._connect_local(workers) if workers is not None else self._connect(str(scheduler))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the scheduler; workers that were started here end."""
        self._stack.close()

    def describe(self) -> dict[str, Any]:
        """Where the blocks were computed, for the history of the table."""
        return {"scheduler": self._scheduler or "local", "devices": dict(sorted(self._devices.items()))}

    def _connect_local(self, workers: int) -> Any:
        from distributed import Client, LocalCluster

        self._stack.enter_context(_quiet())
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )
        self._stack.enter_context(cluster)
        self._threads = _threads_per_worker(workers)
        client = Client(cluster)
        self._stack.callback(_leave, client)
        return client

    def _connect(self, scheduler: str) -> Any:
        from distributed import Client

        place = {"scheduler_file": scheduler} if os.path.isfile(scheduler) else {"address": scheduler}  # noqa: PTH113
        try:
            client = _patiently(
                lambda: Client(**place, timeout=self._wait_s),
                self._wait_s,
                f"No Dask scheduler answers at {scheduler} yet",
                forget=_leave,
            )
        except (OSError, TimeoutError, ValueError) as error:
            waited = "" if isinstance(error, ValueError) else f" after {self._wait_s:g} s"
            raise ClusterError(
                f"No Dask scheduler answers at {scheduler}{waited} ({type(error).__name__}): check the address, which "
                "'dask scheduler' prints when it starts, or the path of its file."
            ) from error
        self._stack.callback(_leave, client)
        self._wait_for_workers(client)
        return client

    def _wait_for_workers(self, client: Any) -> None:
        where = self._scheduler or "this machine"
        try:
            _patiently(
                lambda: client.wait_for_workers(1, timeout=self._wait_s),
                self._wait_s,
                f"The scheduler at {where} has no workers yet",
            )
        except TimeoutError:
            raise ClusterError(
                f"The scheduler at {where} has no workers after {self._wait_s:g} s: start some with "
                f"'dask worker {where}', or wait for the batch system to do so."
            ) from None
        except OSError as error:
            raise ClusterError(
                f"The scheduler at {where} has gone while its workers were waited for ({type(error).__name__}): start "
                "it again."
            ) from error

    @contextmanager
    def find_candidates(self, job: Job, frames: tuple[int, int]) -> Iterator[Prefetch[Block]]:
        """Find the candidates of a movie, as :func:`smlm_pb.localization.pipeline.find_candidates` does.

        Parameters
        ----------
        job : Job
            The run.
        frames : (int, int)
            First frame and the one after the last.

        Yields
        ------
        iterator of Block
            In the order of time.

        Raises
        ------
        ClusterError
            When the same frames end one worker after the other.
        MovieError, ConfigurationError
            When a worker cannot open the movie or lacks the device.
        """
        from smlm_pb.localization.cluster_worker import JobPlugin

        name = f"smlm-pb-{uuid.uuid4().hex[:8]}"
        unwanted = threading.Event()
        self._wait_for_workers(self.client)
        self.client.register_plugin(JobPlugin(name, job, device=self._device, threads=self._threads), name=name)
        with ExitStack() as stack:
            stack.callback(self._forget, name)
            blocks = stack.enter_context(Prefetch(self._gather(name, job, frames, unwanted), 2))
            stack.callback(unwanted.set)
            yield blocks

    def _forget(self, name: str) -> None:
        try:
            self.client.unregister_worker_plugin(name)
        except Exception as error:  # workers that are gone have nothing to forget
            logging.getLogger(__name__).debug("plugin %s: %s", name, error)

    def _gather(self, name: str, job: Job, frames: tuple[int, int], unwanted: threading.Event) -> Iterator[Block]:
        from smlm_pb.localization.cluster_worker import find_on_worker

        step = self._frames_per_task(name, frames)
        ranges = ((start, min(start + step, frames[1])) for start in range(*frames, step))
        flying: deque[tuple[tuple[int, int], Any]] = deque()
        try:
            while True:
                for start, stop in itertools.islice(ranges, max(0, self._room() - len(flying))):
                    future = self.client.submit(
                        find_on_worker, name, start, stop, key=f"{name}-{start}", pure=False, retries=2
                    )
                    flying.append(((start, stop), future))
                if not flying:
                    return
                part, future = flying[0]
                blocks = self._result(future, part, job, unwanted)
                if blocks is None:
                    return
                flying.popleft()
                yield from blocks
        finally:
            self.client.cancel([future for _, future in flying])

    def _frames_per_task(self, name: str, frames: tuple[int, int]) -> int:
        """Whole blocks, so that the frames are put into the same batches as in one process."""
        from smlm_pb.localization.cluster_worker import report_of_worker

        futures = [
            self.client.submit(report_of_worker, name, workers=[address], allow_other_workers=True, pure=False)
            for address in self.client.nthreads()
        ]
        reports: list[WorkerReport] = self.client.gather(futures)
        self._devices = Counter(report.device for report in reports)
        block = max((report.frames_per_block for report in reports), default=1)
        fair = (frames[1] - frames[0]) // (max(1, len(reports)) * _TASKS_PER_WORKER * block)
        return block * max(1, min(_BLOCKS_PER_TASK, fair))

    def _room(self) -> int:
        return int(_IN_FLIGHT * max(1, sum(self.client.nthreads().values())))

    def _result(self, future: Any, frames: tuple[int, int], job: Job, unwanted: threading.Event) -> list[Block] | None:
        """Wait for a task; None when nobody wants it any more."""
        from distributed import KilledWorker

        lonely_since: float | None = None
        while not unwanted.is_set():
            try:
                found: list[Block] = future.result(timeout=_POLL_S)
                return found
            except TimeoutError:
                lonely_since = self._warn_if_lonely(lonely_since)
            except KilledWorker:
                raise ClusterError(
                    f"Frames {frames[0]} to {frames[1]} of movie {job.movie.name} ended one worker after the other, "
                    "most likely for want of memory: give the workers more, then continue with resume=True."
                ) from None
        return None

    def _warn_if_lonely(self, since: float | None) -> float | None:
        """Tell once when all workers are gone; new ones would go on with the work."""
        if self.client.nthreads():
            return None
        now = time.monotonic()
        if since is None:
            return now
        if since < float("inf") and now - since > self._wait_s:
            warnings.warn(
                f"All workers are gone since {self._wait_s:g} s; the run goes on when new ones come, or stop it and "
                "continue later with resume=True.",
                UserWarning,
                stacklevel=2,
            )
            return float("inf")
        return since


def _leave(client: Any) -> None:
    """Say farewell to the scheduler: what went before counts, whether it answers or not."""
    with suppress(TimeoutError):
        client.close(timeout=_LEAVE_WITHIN_S)


def _patiently(act: Callable[[], T], wait_s: float, why: str, forget: Callable[[T], object] | None = None) -> T:
    """Do what may take long, tell after a while why, and give up where nothing comes.

    In a thread of its own, because what listens at an address without speaking holds up distributed for ever.

    Parameters
    ----------
    act : callable
        What to do.
    wait_s : float
        How long it may take, s.
    why : str
        What is told.
    forget : callable, optional
        Takes a result that comes when nobody waits any more.

    Raises
    ------
    TimeoutError
        When nothing has come.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(act())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="smlm-pb waits for Dask", daemon=True).start()
    try:
        if not wait([outcome], _TELL_AFTER_S).done and wait_s > _TELL_AFTER_S:
            left = wait_s - _TELL_AFTER_S
            warnings.warn(f"{why}; waiting for up to {left:.3g} s more.", UserWarning, stacklevel=4)
            wait([outcome], left)
        # distributed itself says more clearly what is wrong, where it gives up.
        return outcome.result(_GRACE_S)
    except BaseException:
        if forget is not None and not outcome.done():
            outcome.add_done_callback(lambda late: None if late.exception() else forget(late.result()))
        raise


def _threads_per_worker(workers: int) -> int:
    """What the user allows one process, or an equal share of the processors."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else max(1, available_processors() // workers)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the scheduler's log, in which every end of a worker looks like a fault."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
