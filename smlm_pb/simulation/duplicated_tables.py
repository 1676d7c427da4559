"""Tables in which molecules are listed more than once: what merging programs, channels or tiles leaves behind."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.simulation.geometry import log_uniform

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


class DuplicatedTable(NamedTuple):
    """Rows and the molecules they stand for; lengths in units of the table's typical precision."""

    frame: IntArray
    x: FloatArray
    y: FloatArray
    sigma: FloatArray
    photons: FloatArray
    probability: FloatArray
    source: IntArray | None
    """Which list a row comes from; None where the table does not tell."""
    molecule: IntArray
    """(rows,): the molecule each row stands for."""
    true_x: FloatArray
    """(molecules,)."""
    true_y: FloatArray


def draw_duplicated_table(rng: np.random.Generator, *, molecules: int = 150) -> DuplicatedTable:
    """Draw a table with random density, structure, number of copies and jitter.

    The copies of a molecule come from the same photons and share part of their error. A share τ of the precision (0.03
    to 1, one draw per table) is each copy's own, √(1 − τ²) of it is common to all; together they make the precision. In
    half of the tables some copies lie three times as far off.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    molecules : int
        About how many.

    Returns
    -------
    DuplicatedTable
    """
    x, y, frame = _places(rng, molecules)
    n = len(x)
    sigma = rng.lognormal(0.0, rng.uniform(0.0, 0.4), n)
    photons = 1000.0 * rng.lognormal(0.0, rng.uniform(0.1, 0.8), n)
    copies = _copies(rng, n)
    molecule = np.repeat(np.arange(n), copies)
    known = rng.random() < 0.5
    # Each list has a molecule once; where the lists are not known, a table may repeat it at will.
    source = np.concatenate([rng.permutation(max(copies.max(), 2))[:k] for k in copies]) if known else None
    jitter = log_uniform(rng, 0.03, 1.0) if rng.random() < 0.5 else rng.uniform(0.3, 1.0)
    # Of real copies some lie further off than their precision says.
    outlying = rng.uniform(0.0, 0.15) if rng.random() < 0.5 else 0.0
    stated = np.exp(rng.normal(0.0, rng.uniform(0.0, 0.3)))
    error = rng.normal(size=(2, n)) * sigma * np.sqrt(1.0 - jitter**2)
    own = rng.normal(size=(2, len(molecule))) * sigma[molecule] * jitter
    own *= np.where(rng.random(len(molecule)) < outlying, 3.0, 1.0)
    light = photons[molecule] * rng.lognormal(0.0, rng.uniform(0.01, 0.15), len(molecule))
    return DuplicatedTable(
        frame=frame[molecule],
        x=x[molecule] + error[0][molecule] + own[0],
        y=y[molecule] + error[1][molecule] + own[1],
        sigma=sigma[molecule] * stated * rng.lognormal(0.0, rng.uniform(0.0, 0.2), len(molecule)),
        photons=light,
        probability=rng.uniform(0.3, 1.0, len(molecule)),
        source=source,
        molecule=molecule,
        true_x=x,
        true_y=y,
    )


def _places(rng: np.random.Generator, molecules: int) -> tuple[FloatArray, FloatArray, IntArray]:
    """Places in a few frames, of which some are crowded: uniform, on lines, and in pairs and clumps."""
    frames = int(rng.integers(2, 8))
    side = np.sqrt(molecules / frames / log_uniform(rng, 1e-4, 0.02))
    kind = rng.choice(("uniform", "pairs", "lines"), p=(0.35, 0.4, 0.25))
    frame = rng.integers(0, frames, molecules)
    x, y = rng.uniform(0.0, side, (2, molecules))
    if kind == "pairs":
        partner = rng.random(molecules) < rng.uniform(0.1, 0.6)
        apart, angle = rng.uniform(1.5, 9.0, partner.sum()), rng.uniform(0.0, 2.0 * np.pi, partner.sum())
        x = np.concatenate((x, x[partner] + apart * np.cos(angle)))
        y = np.concatenate((y, y[partner] + apart * np.sin(angle)))
        frame = np.concatenate((frame, frame[partner]))
    elif kind == "lines":
        lines = max(1, molecules // int(rng.integers(10, 60)))
        line, along = rng.integers(0, lines, molecules), rng.uniform(0.0, rng.uniform(3.0, 12.0) * 30.0, molecules)
        start, angle = rng.uniform(0.0, side, (2, lines)), rng.uniform(0.0, np.pi, lines)
        x, y = start[0][line] + along * np.cos(angle[line]), start[1][line] + along * np.sin(angle[line])
        frame = line % frames
    return x, y, frame.astype(np.intp)


def _copies(rng: np.random.Generator, n: int) -> IntArray:
    """How often each molecule is listed, at least once."""
    if rng.random() < 0.15:
        return np.ones(n, np.intp)
    lists, share = int(rng.integers(2, 6)), rng.uniform(0.1, 1.0)
    extra: Any = rng.binomial(lists - 1, share, n)
    return np.asarray(1 + extra, np.intp)
