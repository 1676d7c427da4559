"""What runs on a worker of Dask distributed: the same blocks, found in the same way, on the worker's own device.

The job travels as a plugin, which the scheduler gives to every worker, also to those that come later or come back.
"""

from __future__ import annotations

import os
import pickle
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from distributed import WorkerPlugin, get_worker

from smlm_pb._version import __version__
from smlm_pb.errors import ConfigurationError, MovieError
from smlm_pb.localization.threads import limit_threads

if TYPE_CHECKING:
    import torch

    from smlm_pb.localization.job import Job
    from smlm_pb.localization.pipeline import Block

#: Names the device of one worker, in the worker's environment.
DEVICE_VARIABLE = "SMLM_PB_DEVICE"


class WorkerReport(NamedTuple):
    """What a worker computes with."""

    device: str
    frames_per_block: int


class JobPlugin(WorkerPlugin):
    """One job, opened on a worker when its first block is asked for.

    Parameters
    ----------
    name : str
        Name of the run.
    job : Job
        Travels as the path of its movie, the weights of its network, settings and conditions.
    device : str
        As for :func:`smlm_pb.localize`; ``auto`` is decided on each worker.
    threads : int, optional
        Processor threads that the network may have; as the worker's environment says when left out.
    """

    def __init__(self, name: str, job: Job, *, device: str, threads: int | None) -> None:
        self.name, self._device, self._threads, self._version = name, device, threads, __version__
        import torch

        cpu = torch.device("cpu")
        network = pickle.loads(pickle.dumps(job.model.network)).to(cpu)
        # Opened on the worker, where a file that is not there is an error of the run, not of the worker.
        self._payload = pickle.dumps(replace(job, model=replace(job.model, network=network, device=cpu)))
        self._lock = threading.Lock()
        self._job: Job | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_job")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock, self._job = threading.Lock(), None

    def teardown(self, worker: Any) -> None:
        """Release the movie."""
        if self._job is not None:
            self._job.movie.close()
            self._job = None

    def report(self) -> WorkerReport:
        """What this worker computes with."""
        from smlm_pb.localization.pipeline import plan_work

        job = self._opened()
        plan = plan_work(job.movie.height, job.movie.width, job.model.device)
        return WorkerReport(str(job.model.device), plan.block_frames)

    def find(self, start: int, stop: int) -> list[Block]:
        """Candidates of the frames ``start`` to ``stop`` (exclusive)."""
        job = self._opened()
        with job.find_candidates((start, stop)) as blocks:
            return list(blocks)

    def _opened(self) -> Job:
        with self._lock:
            if self._job is None:
                self._job = self._open()
            return self._job

    def _open(self) -> Job:
        import torch

        if self._version != __version__:
            raise ConfigurationError(
                f"Worker {get_worker().address} has smlm-pb {__version__}, not {self._version}: install the same "
                "version on all machines."
            )
        if self._threads is not None:  # Dask starts its workers with OMP_NUM_THREADS=1
            for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
                os.environ.pop(variable, None)
            torch.set_num_threads(self._threads)
            limit_threads(self._threads)
        device = choose_worker_device(self._device, get_worker().name)
        job: Job = pickle.loads(self._payload)
        if job.movie.fingerprint() != job.fingerprint:
            raise MovieError(
                f"Worker {get_worker().address} finds another movie at {job.movie.name} than this machine: put the "
                "movie where all machines see it under the same path."
            )
        network = job.model.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return replace(job, model=replace(job.model, network=network, device=device))


def choose_worker_device(asked: str, worker_name: object) -> torch.device:
    """The device of one worker.

    Parameters
    ----------
    asked : str
        What the run asks for. The environment variable ``SMLM_PB_DEVICE`` of the worker takes precedence.
    worker_name : object
        Name of the worker: where it ends in a number, workers that see several graphics cards take turns.

    Returns
    -------
    torch.device

    Raises
    ------
    ConfigurationError
        When the device is not there.
    """
    import torch

    from smlm_pb.devices import choose_device

    device = choose_device(os.environ.get(DEVICE_VARIABLE) or asked)
    number = re.search(r"\d+$", str(worker_name))
    if device.type == "cuda" and device.index is None and number and torch.cuda.device_count() > 1:
        return torch.device("cuda", int(number[0]) % torch.cuda.device_count())
    return device


def find_on_worker(name: str, start: int, stop: int) -> list[Block]:
    """The task: candidates of some frames, by the plugin of the run."""
    return _plugin(name).find(start, stop)


def report_of_worker(name: str) -> WorkerReport:
    """What the worker that runs this computes with, by the plugin of the run."""
    return _plugin(name).report()


def _plugin(name: str) -> JobPlugin:
    plugin = get_worker().plugins[name]
    assert isinstance(plugin, JobPlugin)
    return plugin
