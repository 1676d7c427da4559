"""Writing so that a reader never meets half a file: a temporary name beside the target, then one rename."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from smlm_pb.errors import OutputError


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a target that exists, is a folder, or lies in a folder that does not exist.

    Raises
    ------
    OutputError
        With what to do about it.
    """
    with clear_errors(path):  # a name may be too long
        is_folder, exists, has_folder = path.is_dir(), path.exists(), path.parent.is_dir()
    if is_folder:
        raise OutputError(f"{path} is a folder; give a file name inside it.")
    if not has_folder:
        raise OutputError(f"The folder {path.parent} does not exist; create it first.")
    if exists and not overwrite:
        raise OutputError(f"{path} exists already; choose another name or allow overwriting (overwrite=True).")


def partial_path(path: Path) -> Path:
    """Name under which a file is written until it is complete."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says while writing into one clear line.

    Raises
    ------
    OutputError
        Naming the file and the reason, for example a full disk.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        if "requested and" in reason:  # numpy's words for a write that the disk cut short
            reason = "No space left on device"
        raise OutputError(f"{path} cannot be written: {reason}.") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path that becomes ``path`` when the block ends well, and vanishes when it does not.

    Raises
    ------
    OSError
        As it comes: for callers who have more to say than :func:`written_whole`.
    """
    temporary = partial_path(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files that belong together: a full disk must not leave the new one beside the old other.

    Parameters
    ----------
    folder : Path
        Where to; made if missing.
    files : mapping name -> bytes
        What.

    Raises
    ------
    OSError
        As it comes; nothing half-written is left.
    """
    parts = {name: partial_path(folder / name) for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in parts.items():
            part.write_bytes(files[name])
        for name, part in parts.items():
            part.replace(folder / name)
    except OSError:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)
        raise


@contextmanager
def written_whole(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path that becomes ``path`` when the block ends well, and vanishes when it does not.

    Parameters
    ----------
    path : Path
        The target.
    overwrite : bool
        Whether an existing target may be replaced.

    Raises
    ------
    OutputError
        When the target is refused or cannot be written.
    """
    check_target(path, overwrite)
    with clear_errors(path), whole_file(path) as temporary:
        yield temporary
