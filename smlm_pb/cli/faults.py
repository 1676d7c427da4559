"""What went wrong, in one line and one exit code."""

from __future__ import annotations

import errno
from typing import NamedTuple

from smlm_pb.cli.wording import as_options
from smlm_pb.errors import Cancelled, SmlmPbError

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_BAD_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}


class Fault(NamedTuple):
    """The line for the user and the exit code for the shell."""

    line: str
    exit_code: int


def one_line(text: str) -> str:
    """Return the text on one line, with single blanks and without its final full stop."""
    return " ".join(text.split()).rstrip(".")


def describe_fault(error: BaseException) -> Fault:
    """Say what an exception means to the user.

    Parameters
    ----------
    error : BaseException
        Whatever ended the command.

    Returns
    -------
    Fault
        One line starting with ``smlm-pb:``, and the exit code.
    """
    text = as_options(" ".join(str(error).split()))
    if isinstance(error, Cancelled):
        return Fault(f"smlm-pb: {text or 'cancelled.'}", EXIT_INTERRUPTED)
    if isinstance(error, KeyboardInterrupt):
        return Fault("smlm-pb: interrupted; files that were finished are kept.", EXIT_INTERRUPTED)
    if isinstance(error, SmlmPbError):
        return Fault(f"smlm-pb: error: {text}", EXIT_USAGE)
    known = _known_failure_of_the_machine(error, text)
    if known is not None:
        return Fault(f"smlm-pb: error: {known}", EXIT_USAGE)
    return Fault(
        f"smlm-pb: error: unexpected {type(error).__name__}: {text or 'no message'} -- this is a bug in"
        " smlm-pb; run the command again with --debug and report the traceback.",
        EXIT_BUG,
    )


def _known_failure_of_the_machine(error: BaseException, text: str) -> str | None:
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs, or process fewer or smaller frames at a time."
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for this
        return "the graphics card ran out of memory; close other programs that use it, or add --device cpu."
    if not isinstance(error, OSError):
        return None
    where = f" ({error.filename})" if error.filename else ""
    # HDF5 buries the system's error number in its own text.
    if error.errno in _DISK_FULL or "No space left on device" in text:
        return f"the disk is full{where}; free some space or write elsewhere."
    if error.errno in _PERMISSION:
        return f"no permission to read or write{where}; check the owner and mode, or choose another place."
    if error.errno in _BAD_PATH and error.filename:
        return f"{error.strerror}: {error.filename}; check the path."
    return None
