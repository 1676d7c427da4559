"""Loops over candidates and pairs of candidates, compiled for the processor by Numba.

What each candidate has to do with the few around it is a loop; as operations on whole arrays it costs as much as the
network that found the candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Have a function of arrays and numbers compiled when it is first called, and kept for later processes.

    Other threads go on while it runs.

    Parameters
    ----------
    function : callable
        In the part of Python that Numba knows. Of other functions it may call those of its own file that are
        compiled too: what is kept is made anew when that file changes, and for no other reason.

    Returns
    -------
    callable
    """
    return _made(function, frozenset())


def compiled_with_fused_sums(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The same, with a product and a sum in one operation, which rounds once: faster, but the last digit may differ.

    Not where numbers are compared with each other: what is equal on paper may then not be.
    """
    return _made(function, frozenset({"contract"}))


def _made(function: Callable[Arguments, Result], liberties: frozenset[str]) -> Callable[Arguments, Result]:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(liberties)}
    made: Callable[Arguments, Result]
    try:
        made = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside the program nor in the user's cache folder may anything be written
        made = numba.njit(**options)(function)
    return made
