"""A training from counts of molecules alone, per frame or per window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.errors import ConfigurationError
from smlm_pb.localization.model import load_model
from smlm_pb.localization.settings import JobSettings
from smlm_pb.losses import start_logit
from smlm_pb.movies import open_movie
from smlm_pb.training.count_table import CountTable, read_counts
from smlm_pb.training.experiment import Experiment
from smlm_pb.training.proposal import (
    SMALL_NETWORK,
    Proposal,
    card_ranges,
    movie_conditions,
    movie_section,
    name_of,
    optimizer_for,
)

if TYPE_CHECKING:
    import os

STEPS = 3000
_RATE, _FINE_TUNE_RATE = 2e-3, 2e-4
#: Windows smaller than this are seen with their surroundings, px.
_CROP_PX = 32
#: Windows with more molecules than this tell little about where each of them is.
_MANY = 12.0


def propose_from_counts(
    movie: str | os.PathLike[str],
    counts: str | os.PathLike[str],
    *,
    start: str | os.PathLike[str] | None = None,
    name: str | None = None,
    offset_adu: float | None = None,
    e_per_adu: float | None = None,
    em_gain: float | None = None,
    psf_sigma_px: float | None = None,
    frames: tuple[int, int | None] | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Proposal:
    """Look at a movie and counts of its molecules, and propose a training; nothing is trained or written.

    Parameters
    ----------
    movie : path
        The movie.
    counts : path
        CSV with the columns ``frame,count`` or ``frame,y0,x0,y1,x1,count``; see
        :func:`smlm_pb.training.count_table.read_counts`.
    start : path or str, optional
        Model to fine-tune; its positions within pixels are kept as they are, as far as the counts leave them alone. A
        new network, which tells the pixel of each molecule, is trained where left out.
    name, offset_adu, e_per_adu, em_gain, psf_sigma_px, frames, steps, seed, device
        As for :func:`smlm_pb.training.propose_from_labels`.

    Returns
    -------
    Proposal

    Raises
    ------
    TableError, MovieError, CameraError, ModelError, ConfigurationError
        When an input is wrong.
    """
    model = None if start is None else load_model(str(start), device)
    settings = JobSettings(
        offset_adu=offset_adu, e_per_adu=e_per_adu, em_gain=em_gain, psf_sigma_px=psf_sigma_px, frames=frames
    )
    opened = open_movie(movie)
    try:
        conditions = movie_conditions(opened, settings, model)
        shape = (opened.height, opened.width)
        table = read_counts(Path(counts), height=shape[0], width=shape[1], n_frames=opened.n_frames)
    finally:
        opened.close()
    steps = steps or STEPS
    sides = table.window[:, 2:] - table.window[:, :2]
    density = float(table.count.sum() / sides.prod(1).sum())
    crop = int(min(max(_CROP_PX, sides.max()), max(shape)))
    if crop < 16:
        raise ConfigurationError(f"Movie {opened.name} has {shape[0]}×{shape[1]} px: 16 px are needed to train.")
    network: dict[str, Any] = {**SMALL_NETWORK, "n_candidates": 1}
    network["start_logit"] = round(start_logit(float(np.clip(density, 1e-4, 0.5)), 1), 3)
    experiment = Experiment.from_dict(
        {
            "name": name or name_of(opened.name, "counts"),
            "description": f"Learned from the counts in {Path(counts).name}"
            + (f", starting from '{model.card.name}'" if model else "; tells the pixel, not photons or background"),
            "seed": seed,
            "network": model.card.network if model else network,
            "start_from": None if start is None else str(start),
            "scenes": card_ranges(conditions, np.zeros(0), density),
            "data": {**movie_section(movie, conditions), "counts": str(Path(counts).expanduser().resolve())},
            "loss": {"tile_px": min(8, crop)},
            "validation": {"every_steps": max(1, steps // 10), "scenes": 256, "calibration_scenes": 0},
            "steps": steps,
            "batch_size": 16,
            "crop_px": crop,
            "optimizer": optimizer_for(start),
            "learning_rate": _FINE_TUNE_RATE if start else _RATE,
            "ema_decay": min(0.999, 1 - 10 / max(steps, 20)),
            "workers": 0,
        }
    )
    return Proposal(experiment, _facts(table, Path(counts).name), (*conditions.warnings, *_warnings(table, counts)))


def _facts(table: CountTable, name: str) -> tuple[str, ...]:
    what = "whole frames" if table.whole_frames else "windows"
    return (
        f"{name}: {len(table)} {what} of {len(np.unique(table.frame))} frames, {table.count.mean():.3g} molecules each "
        f"(0 to {table.count.max()}).",
    )


def _warnings(table: CountTable, counts: Any) -> list[str]:
    name, warnings = Path(counts).name, []
    if table.is_constant:
        warnings.append(
            f"{name}: all counts are {table.count[0]}, which a network can say without looking at the frames, so they "
            "teach no positions: count windows that hold different numbers of molecules."
        )
    if table.whole_frames:
        warnings.append(
            f"{name}: one count per frame says little about where the molecules are: count smaller windows at random "
            "places if positions are wanted."
        )
    elif float(np.median(table.count)) > _MANY:
        warnings.append(
            f"{name}: a typical window holds {np.median(table.count):.0f} molecules: smaller windows say more about "
            "where each of them is."
        )
    return warnings
