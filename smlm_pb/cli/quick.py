"""What a command that does one thing and ends need not wait for."""

from __future__ import annotations

import gc
import os
import sys


def keep_numpy_to_one_thread() -> None:
    """Let the BLAS of numpy and scipy start no threads of their own, unless the user has said how many.

    Each of them starts one for every processor as soon as it is imported, and they keep the processors busy for a while
    before they sleep. The network has threads of its own. Nothing is done where numpy was imported before: then the
    process is not the command's alone.
    """
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def import_torch() -> None:
    """Import torch, looking for garbage neither meanwhile nor later in what it holds.

    Python looks for cycles of objects that nobody needs any more whenever many objects were made: while a large library
    is imported, when that has ended, and once more at the end of the process. What a library holds is needed until
    then, so that all of this finds nothing; for torch it takes half as long as the import itself. Nothing is done where
    torch was imported before: then the process is not the command's alone.
    """
    if "torch" in sys.modules:
        return
    looks = gc.isenabled()
    gc.disable()
    try:
        import torch  # noqa: F401

        gc.freeze()
    finally:
        if looks:
            gc.enable()
