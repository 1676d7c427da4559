"""Figures as files, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from smlm_pb.errors import OutputError
from smlm_pb.formats.output import check_target, written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = (".png", ".pdf", ".svg")


def check_figure(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuse a target early, before long work.

    Raises
    ------
    OutputError
        When the ending is unknown, or the file must not or cannot be written.
    """
    if Path(path).suffix.lower() not in _KINDS:
        raise OutputError(f"{path}: unknown kind of figure {Path(path).suffix!r}; use {', '.join(_KINDS)}.")
    check_target(Path(path), overwrite)


def save_figure(figure: Figure, path: str | os.PathLike[str], *, overwrite: bool = False, dpi: float = 130) -> Path:
    """Write a figure; the ending of the name decides the format."""
    check_figure(path, overwrite)
    with written_whole(Path(path), overwrite) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lower()[1:], dpi=dpi)
    return Path(path)
