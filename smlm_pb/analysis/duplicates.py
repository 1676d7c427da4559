"""Rows that stand for the same molecule of the same frame: found, and all but one of them removed.

Duplicates come from merging the tables of several programs, models or channels, from overlapping tiles, and from
programs that fit a spot twice. A radius in nm cannot know how precise each row is, how far apart the copies of *this*
table lie, or that one program rarely lists a molecule twice; a small network, trained by counting on simulated tables,
does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError, TableError

if TYPE_CHECKING:
    from pathlib import Path

    from smlm_pb.localizations import Localizations
    from smlm_pb.refinement.close_pairs import ClosePairs
    from smlm_pb.refinement.second_stage import Stage

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
#: Column that says which table a row comes from.
SOURCE_COLUMN = "source"
#: Every row that is removed has a kept one this near, in units of the precision of their difference.
_STAND_IN_SIGMA = 4.5
#: Worst precision that is believed, px: beyond, a row would be the neighbour of half the image.
_LARGEST_SIGMA_PX = 1.0


def suppress_duplicates(
    locs: Localizations | Sequence[Localizations],
    *,
    stage: str | Path | Stage = "duplicates",
    sigma_nm: float | None = None,
    pixel_size_nm: float | None = None,
) -> Localizations:
    """Keep one row per molecule and frame.

    Parameters
    ----------
    locs : Localizations, or several of the same movie
        One table, or the tables of several programs or models, which are merged first. A column ``source`` is used
        where there is one, and made where several tables are given.
    stage : str, path or Stage
        ``duplicates`` is the shipped network; or the folder that training made.
    sigma_nm : float, optional
        Precision of all rows, where the table has none.
    pixel_size_nm : float, optional
        Edge of a camera pixel, for ``sigma_nm`` where the table does not know it.

    Returns
    -------
    Localizations
        Rows that are kept, unchanged and in the order of frames, with ``copies``: the number of rows each stands for.

    Raises
    ------
    TableError
        When precisions are missing, or tables belong to different movies.
    ConfigurationError
        When an option is impossible.
    ModelError
        When there is no such network.
    """
    from smlm_pb.refinement.second_stage import Stage, load_stage

    table = merge_tables([locs] if not isinstance(locs, Sequence) else list(locs))
    loaded = stage if isinstance(stage, Stage) else load_stage(stage, "duplicates")
    sigma = _precision(table, sigma_nm, pixel_size_nm)
    keep, stands_for = find_survivors(table, sigma, loaded)
    copies = np.bincount(stands_for, minlength=len(table))[keep]
    step = {"step": "duplicates", "stage": loaded.as_dict(), "rows_before": len(table), "rows_after": int(keep.sum())}
    return table.select(keep).with_columns(copies=copies.astype(np.int32)).with_provenance(step)


def merge_tables(tables: Sequence[Localizations]) -> Localizations:
    """Put tables of one movie together, ordered by frame, with the columns they share and where each row comes from.

    Parameters
    ----------
    tables : sequence of Localizations
        At least one.

    Returns
    -------
    Localizations
        With the history of the first table; a single table keeps its order and columns.

    Raises
    ------
    TableError
        When there is none, or frames or pixels differ in size.
    """
    from smlm_pb.localizations import Localizations

    if not tables:
        raise TableError("There is no table to merge.")
    if len(tables) == 1:
        return tables[0]
    first = tables[0].info
    for number, table in enumerate(tables[1:], start=2):
        info = table.info
        other_pixel = (
            first.pixel_size_nm and info.pixel_size_nm and not math.isclose(first.pixel_size_nm, info.pixel_size_nm)
        )
        if (info.height, info.width) != (first.height, first.width) or other_pixel:
            raise TableError(
                f"Table {number} is of frames of {info.height}×{info.width} px ({info.pixel_size_nm} nm), the first of "
                f"{first.height}×{first.width} px ({first.pixel_size_nm} nm): merge tables of the same movie."
            )
    shared = [name for name in tables[0].column_names if all(name in table for table in tables)]
    parts = [
        Localizations({name: table[name] for name in shared}, first).with_columns(
            **{SOURCE_COLUMN: np.full(len(table), number, np.int32)}
        )
        for number, table in enumerate(tables)
    ]
    merged = Localizations.concatenate(parts)
    merged = merged.select(np.argsort(merged["frame"], kind="stable"))
    step = {"step": "merge", "rows": [len(table) for table in tables], "names": [table.info.name for table in tables]}
    history = [*tables[0].provenance, step]
    return Localizations(merged.columns, first, history)


def find_survivors(locs: Localizations, sigma_px: FloatArray, stage: Stage) -> tuple[npt.NDArray[np.bool_], IntArray]:
    """Decide which rows are kept.

    Parameters
    ----------
    locs : Localizations
        The table; ``probability``, ``photons`` and ``source`` are used where it has them.
    sigma_px : array (rows,)
        Precision of each row, px.
    stage : Stage
        The network.

    Returns
    -------
    keep : bool array (rows,)
        Which rows stay.
    stands_for : int array (rows,)
        The row that stands for each row; a kept row stands for itself.
    """
    import torch

    from smlm_pb.refinement.close_pairs import find_close_pairs

    def column(name: str) -> FloatArray | None:
        return locs[name].astype(np.float64) if name in locs else None

    close = find_close_pairs(
        locs["frame"],
        locs["x"].astype(np.float64),
        locs["y"].astype(np.float64),
        sigma_px,
        probability=column("probability"),
        photons=column("photons"),
        source=locs[SOURCE_COLUMN] if SOURCE_COLUMN in locs else None,  # noqa: SIM401
    )
    with torch.inference_mode():
        logit = stage.network(
            torch.from_numpy(close.nodes), torch.from_numpy(close.pairs), torch.from_numpy(close.facts)
        )
    score = logit.numpy().astype(np.float64)
    keep = score > 0
    keep[np.bincount(close.pairs[0], minlength=len(keep)) == 0] = True
    return _with_stand_ins(keep, score, close)


def _with_stand_ins(
    keep: npt.NDArray[np.bool_], score: FloatArray, close: ClosePairs
) -> tuple[npt.NDArray[np.bool_], IntArray]:
    """Make sure that nothing vanishes: what has no kept row near it is kept, the most likely first."""
    keep = keep.copy()
    near = close.distance_sigma <= _STAND_IN_SIGMA
    order = np.argsort(close.pairs[0][near], kind="stable")
    receiver, sender = close.pairs[0][near][order], close.pairs[1][near][order]
    distance = close.distance_sigma[near][order]
    gone = np.flatnonzero(~keep)
    for row in gone[np.argsort(-score[gone], kind="stable")]:
        start, stop = np.searchsorted(receiver, (row, row + 1))
        if not keep[sender[start:stop]].any():
            keep[row] = True
    stands_for = np.arange(len(keep))
    to_kept = keep[sender] & ~keep[receiver]
    receiver, sender, distance = receiver[to_kept], sender[to_kept], distance[to_kept]
    order = np.lexsort((distance, receiver))
    rows, first = np.unique(receiver[order], return_index=True)
    stands_for[rows] = sender[order][first]
    return keep, stands_for


def _precision(locs: Localizations, sigma_nm: float | None, pixel_size_nm: float | None) -> FloatArray:
    if sigma_nm is not None:
        pixel = pixel_size_nm or locs.info.pixel_size_nm
        if pixel is None:
            raise TableError("sigma_nm needs the pixel size, which this table does not know; give pixel_size_nm.")
        if not (math.isfinite(sigma_nm) and sigma_nm > 0):
            raise ConfigurationError(f"sigma_nm = {sigma_nm} is impossible; give a number above 0, e.g. 10.")
        return np.full(len(locs), sigma_nm / pixel)
    if "sigma_x" not in locs or "sigma_y" not in locs:
        raise TableError(
            "The table has no sigma_x and sigma_y, so nobody knows how near is the same; give sigma_nm, the typical "
            "precision of a row."
        )
    squared = (locs["sigma_x"].astype(np.float64) ** 2 + locs["sigma_y"].astype(np.float64) ** 2) / 2
    sigma = np.sqrt(squared)
    usable = np.isfinite(sigma) & (sigma > 0)
    if len(locs) and not usable.any():
        raise TableError(
            "Columns sigma_x and sigma_y hold no usable precisions, so nobody knows how near is the same; give "
            "sigma_nm, the typical precision of a row."
        )
    typical = float(np.median(sigma[usable])) if usable.any() else _LARGEST_SIGMA_PX
    return np.where(usable, sigma, typical).clip(max=_LARGEST_SIGMA_PX)


def remove_within(locs: Localizations, radius_px: float | FloatArray, *, better: FloatArray) -> Any:
    """Greedy removal within a radius, the usual rule, to compare with: the better of two rows that are too near stays.

    Parameters
    ----------
    locs : Localizations
        The table.
    radius_px : float or array (rows,)
        Radius, px; of two rows the larger counts.
    better : array (rows,)
        What decides who stays.

    Returns
    -------
    bool array (rows,)
        Which rows stay.
    """
    from smlm_pb.refinement.groups import neighbour_pairs

    n = len(locs)
    radius = np.broadcast_to(np.asarray(radius_px, np.float64), n)
    x, y = locs["x"].astype(np.float64), locs["y"].astype(np.float64)
    pairs = neighbour_pairs(locs["frame"], x, y, float(radius.max(initial=1e-9)))
    a, b = pairs[:, 0], pairs[:, 1]
    near = np.hypot(x[a] - x[b], y[a] - y[b]) <= np.maximum(radius[a], radius[b])
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for i, j in pairs[near].tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    keep = np.zeros(n, bool)
    gone = np.zeros(n, bool)
    for row in np.argsort(-better, kind="stable"):
        if not gone[row]:
            keep[row] = True
            gone[neighbours[row]] = True
    return keep
