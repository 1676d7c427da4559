"""How many processor threads the network gets: measured once per process, instead of guessed.

Every thread has frames of its own, so that none waits for another one whose processor is busy. Still, where other work
is going on, or where processors share what computes, more threads gain nothing. A few passes over a small image, as
many at a time as there are threads, tell what helps here and now.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from smlm_pb.localization.model import Model

#: Variables by which a user, or a batch system, says how many threads there are.
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_PROBE_PX = 32
_REPEATS = 2
#: More threads must save this share of the time.
_WORTH = 0.05
#: The measurement ends after this time, s.
_BUDGET_S = 0.25


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
    """The number of threads with which a pass takes the least time, or the smallest that is nearly as good."""
    if most == 1:
        return 1
    began = time.perf_counter()
    best, best_s = 1, float("inf")
    with ThreadPoolExecutor(most) as pool:
        _time(model, pool, 1)  # what is slow for the first time only
        # The doubled number may look no better for a moment only: the next one is tried, too.
        for threads in [*(2**k for k in range(most.bit_length()) if 2**k < most), most]:
            seconds = min(_time(model, pool, threads) for _ in range(_REPEATS))
            if seconds < best_s * (1 - _WORTH):
                best, best_s = threads, seconds
            if time.perf_counter() - began > _BUDGET_S:
                break
    return best


def _time(model: Model, pool: ThreadPoolExecutor, threads: int) -> float:
    """Wall time of a pass, s: what several take that run at a time, by their number."""
    began = time.perf_counter()
    for done in [pool.submit(_pass, model) for _ in range(threads)]:
        done.result()
    return (time.perf_counter() - began) / threads


def _pass(model: Model) -> None:
    import torch

    torch.set_num_threads(1)  # holds for the thread that says it
    with torch.inference_mode():
        model.network(torch.full((1, 1, _PROBE_PX, _PROBE_PX), 20.0), torch.ones(1))
