"""How many processor threads the network gets: measured once per process, instead of guessed.

Every thread has frames of its own, so that none waits for another one whose processor is busy. More threads than this
process gets processors for gain nothing. How many that are, here and now, tell passes over a small image, in as many
threads as there are processors: by the processor time that they get while the clock runs. Threads that wake up together
may share a processor for some milliseconds while another one idles, so a measurement that finds few is repeated.
"""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import numpy as np

from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from smlm_pb.localization.model import Model

#: Variables by which a user, or a batch system, says how many threads there are.
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_PROBE_PX = 48
#: A thread goes on for so long, s; measurements are repeated so often until all processors were had.
_LEAST_S, _MOST_REPEATS = 0.02, 6
#: By so much more than a whole number of processors there is none more.
_SPARE = 0.15


class _Choice:
    """What holds in this process."""

    given: int | None = None
    limit: int | None = None
    measured: int | None = None


def use_threads(count: int | None) -> None:
    """Say how many threads the network gets in this process, instead of measuring.

    Parameters
    ----------
    count : int or None
        Number of threads; None measures again.

    Raises
    ------
    ConfigurationError
        When it is below 1.
    """
    if count is not None and count < 1:
        raise ConfigurationError(f"threads = {count} must be 1 or more.")
    _Choice.given, _Choice.measured = count, None


def limit_threads(count: int) -> None:
    """Let the measurement try no more than ``count`` threads: the others belong to other processes."""
    if count != _Choice.limit:
        _Choice.limit, _Choice.measured = count, None


def fit_threads(model: Model) -> int:
    """Set torch to the number of threads with which a network is fastest.

    What is given by :func:`use_threads`, or by ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS``, is not measured; nor is
    anything for a network on a graphics card.

    Parameters
    ----------
    model : Model
        The network on its device.

    Returns
    -------
    int
        The number of threads.
    """
    import torch

    if _Choice.given is not None:
        torch.set_num_threads(_Choice.given)
    elif model.device.type == "cpu" and not any(os.environ.get(name) for name in _VARIABLES):
        if _Choice.measured is None:
            most = min(torch.get_num_threads(), available_processors())
            _Choice.measured = _measure(model, min(most, _Choice.limit or most))
        torch.set_num_threads(_Choice.measured)
    return torch.get_num_threads()


def available_processors() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux knows
        return os.cpu_count() or 1


def _measure(model: Model, most: int) -> int:
    """As many threads as there are processors for."""
    if most == 1:
        return 1
    best = 1
    with ThreadPoolExecutor(most) as pool:
        for _ in range(_MOST_REPEATS):
            best = max(best, min(most, math.ceil(_processors_had(model, pool, most) - _SPARE)))
            if best == most:
                break
    return best


def _processors_had(model: Model, pool: ThreadPoolExecutor, threads: int) -> float:
    """How many processors' time so many threads get."""
    start = Barrier(threads)
    done = [one.result() for one in [pool.submit(_passes, model, start) for _ in range(threads)]]
    began, ended, used = (np.array(values) for values in zip(*done, strict=True))
    return float(used.sum() / (ended.max() - began.min()))


def _passes(model: Model, start: Barrier) -> tuple[float, float, float]:
    """Beginning and end of some passes by the clock, and the processor time that they took, s."""
    import torch

    torch.set_num_threads(1)  # holds for the thread that says it
    image, sigma_px = torch.full((1, 1, _PROBE_PX, _PROBE_PX), 20.0), torch.ones(1)
    start.wait()
    began, used = time.perf_counter(), time.thread_time()
    with torch.inference_mode():
        while time.perf_counter() - began < _LEAST_S:
            model.network(image, sigma_px)
    return began, time.perf_counter(), time.thread_time() - used
