"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smlm_pb.errors import OutputError


def check_writable(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Refuse a target early, before long work.

    Raises
    ------
    OutputError
        When the file exists and must not be replaced, or its folder is missing.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target} is a folder; give the name of a file in it.")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; choose another name, or allow it to be replaced (--overwrite).")
    if not target.absolute().parent.is_dir():
        raise OutputError(f"The folder of {target} does not exist; make it first.")
    return target


@contextmanager
def whole_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Offer a temporary name beside the target, which becomes the target when the block ends well.

    Yields
    ------
    pathlib.Path
        Where to write; it ends like the target, so that writers which look at the ending work.
    """
    target = check_writable(path, overwrite=overwrite)
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str, *, overwrite: bool = False) -> Path:
    """Write a text file whole or not at all."""
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)
