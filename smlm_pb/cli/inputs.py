"""Which movies are meant: files, folders and patterns on the command line become one list."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smlm_pb.errors import MovieError, SmlmPbError

_PATTERN_SIGNS = "*?["


@dataclass(frozen=True)
class Found:
    """One movie to work on, or what is wrong with an argument.

    Parameters
    ----------
    path : Path
        The movie, or the argument that led to none.
    problem : SmlmPbError, optional
        Why there is no movie.
    """

    path: Path
    problem: SmlmPbError | None = None


def find_movies(arguments: Sequence[str]) -> list[Found]:
    """Turn arguments into movies.

    A folder of single frames, or of the parts of one stack, is one movie; any other folder stands for the movies in
    it. A pattern with ``*``, ``?`` or ``[...]`` (also ``**``) stands for everything that matches. What is named twice
    is done once.

    Parameters
    ----------
    arguments : sequence of str
        Paths and patterns.

    Returns
    -------
    list of Found
        In the order of the arguments, within folders and patterns in natural order.
    """
    found: list[Found] = []
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.exists() or not any(sign in argument for sign in _PATTERN_SIGNS):
            found += _expand(path)
        else:
            matches = _match(str(path))
            problem = MovieError(f"No file matches {argument}: check the pattern, and put it in quotation marks.")
            found += [hit for match in matches for hit in _expand(match)] or [Found(path, problem)]
    once: dict[Path, Found] = {}
    for entry in found:
        once.setdefault(entry.path.resolve(), entry)
    return list(once.values())


def _match(pattern: str) -> list[Path]:
    from smlm_pb.movies import natural_key

    # Path.glob takes no absolute pattern.
    matches = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207
    # Tables and metadata that lie beside the movies also match "*".
    return sorted(filter(_may_be_movie, matches), key=lambda path: (str(path.parent), natural_key(path)))


def _may_be_movie(path: Path) -> bool:
    from smlm_pb.movies.series import TIFF_ENDINGS

    return path.is_dir() or path.suffix.lower() in (*TIFF_ENDINGS, ".npy", ".stk", ".lsm")


def _expand(path: Path) -> list[Found]:
    """A folder that is not one movie, as the movies in it."""
    from smlm_pb.movies import natural_key, open_movie
    from smlm_pb.movies.series import TIFF_ENDINGS

    if not path.exists():
        return [Found(path, MovieError(f"There is no movie at {path}: check the path."))]
    if not path.is_dir() or path.suffix.lower() == ".zarr":
        return [Found(path)]
    stacks = sorted(
        (p for p in path.iterdir() if p.suffix.lower() in TIFF_ENDINGS and not p.name.startswith(".")),
        key=natural_key,
    )
    arrays = sorted((p for p in path.iterdir() if p.suffix.lower() in (".zarr", ".npy")), key=natural_key)
    if len(stacks) <= 1 and (stacks or arrays):
        return [Found(p) for p in (*stacks, *arrays)]
    try:
        open_movie(path).close()
    except MovieError as error:
        return [Found(p) for p in (*stacks, *arrays)] or [Found(path, error)]
    return [Found(path)]
