"""Tables of localizations drawn directly, without a movie: to test what comes after localizing.

Molecules on a structure blink; every frame of a blink is one localization with a Gaussian error. A stage may drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError
from smlm_pb.simulation.geometry import (
    Box,
    Float64Array,
    Structure,
    Uniform,
    random_clusters,
    random_filaments,
    random_rings,
)

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

StructureName = Literal["filaments", "rings", "clusters", "uniform"]
DriftKind = Literal["none", "linear", "sine", "random_walk", "jump"]
STRUCTURES: tuple[StructureName, ...] = ("filaments", "rings", "clusters", "uniform")
DRIFTS: tuple[DriftKind, ...] = ("none", "linear", "sine", "random_walk", "jump")


class SimulatedTable(NamedTuple):
    """Localizations with what is known of them."""

    locs: Localizations
    """What a localizer would report: positions with errors and drift, and honest precisions."""
    molecule: npt.NDArray[np.int64]
    """Molecule of every row; −1 for a false localization."""
    true_x: Float64Array
    """Position in px without error and drift."""
    true_y: Float64Array
    """Position in px without error and drift."""


def draw_structure(rng: np.random.Generator, name: StructureName, size_px: int) -> Structure:
    """Draw a structure that fills a square field."""
    box = Box.around_frame((size_px, size_px), -3.0)
    if name == "filaments":
        return random_filaments(rng, box, max(3, round(size_px / 6)), width_px=0.25)
    if name == "rings":
        return random_rings(rng, box, max(5, size_px**2 // 100), radius_px=(0.5, 2.0), corners=8, width_px=0.05)
    if name == "clusters":
        return random_clusters(rng, box, max(5, size_px**2 // 60), sigma_px=(0.2, 1.0))
    if name == "uniform":
        return Uniform(box)
    raise ConfigurationError(f"Unknown structure {name!r}; choose from {', '.join(STRUCTURES)}.")


def draw_drift(rng: np.random.Generator, kind: DriftKind, n_frames: int, range_nm: float) -> Float64Array:
    """Draw the path of a drifting stage.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    kind : {"none", "linear", "sine", "random_walk", "jump"}
        ``"jump"`` is a slow line with one sudden step in the middle third.
    n_frames : int
        Length of the movie.
    range_nm : float
        Distance between the extreme positions along either axis.

    Returns
    -------
    array (n_frames, 2)
        Displacement along x and y in nm, with mean zero.
    """
    time = np.linspace(0, 1, n_frames)[:, None]
    direction = rng.choice([-1.0, 1.0], 2) * rng.uniform(0.7, 1, 2)
    if kind == "none":
        return np.zeros((n_frames, 2))
    if kind == "linear":
        path = time * direction
    elif kind == "sine":
        path = np.sin(2 * np.pi * (rng.uniform(0.7, 1.5, 2) * time + rng.random(2)))
    elif kind == "random_walk":
        path = np.cumsum(rng.normal(size=(n_frames, 2)), axis=0)
    elif kind == "jump":
        path = 0.3 * time * direction + (time > rng.uniform(0.35, 0.65)) * rng.choice([-1.0, 1.0], 2)
    else:
        raise ConfigurationError(f"Unknown drift {kind!r}; choose from {', '.join(DRIFTS)}.")
    path = path - path.mean(axis=0)
    return np.asarray(path * range_nm / np.maximum(np.ptp(path, axis=0), 1e-12))


def simulate_localizations(
    structure: StructureName | Structure = "filaments",
    *,
    n_localizations: int = 10_000,
    n_frames: int = 5_000,
    size_px: int = 64,
    pixel_size_nm: float = 100.0,
    sigma_nm: float = 10.0,
    sigma_spread: float = 0.0,
    on_frames: float = 2.0,
    blinks: float = 3.0,
    false_fraction: float = 0.0,
    drift_nm: npt.NDArray[np.float64] | None = None,
    seed: int = 0,
) -> SimulatedTable:
    """Draw the table that a good localizer would make of a blinking structure.

    Parameters
    ----------
    structure : str or Structure
        ``"filaments"``, ``"rings"``, ``"clusters"``, ``"uniform"``, or anything molecules can sit on.
    n_localizations : int
        Expected number of rows.
    n_frames, size_px : int
        Length of the movie and edge of its square frames.
    pixel_size_nm : float
        Edge of a camera pixel.
    sigma_nm : float
        Median precision per axis.
    sigma_spread : float
        Standard deviation of the logarithm of the precision.
    on_frames : float
        Mean number of frames of a blink (geometric, at least 1).
    blinks : float
        Mean number of blinks per molecule.
    false_fraction : float
        Share of rows that belong to no molecule, anywhere in the field.
    drift_nm : array (n_frames, 2), optional
        Displacement along x and y; see :func:`draw_drift`.
    seed : int
        Seed.

    Returns
    -------
    SimulatedTable
    """
    from smlm_pb.localizations import Localizations, MovieInfo

    rng = np.random.default_rng(seed)
    shape = draw_structure(rng, structure, size_px) if isinstance(structure, str) else structure
    n_true = round(n_localizations * (1 - false_fraction))
    n_molecules = max(1, round(n_true / (on_frames * blinks)))
    site_x, site_y = shape.sample(rng, n_molecules)
    n_blinks = rng.poisson(blinks, len(site_x))
    blinking = np.repeat(np.arange(len(site_x)), n_blinks)
    length = rng.geometric(1 / on_frames, len(blinking))
    start = rng.integers(0, n_frames, len(blinking))
    molecule = np.repeat(blinking, length)
    frame = np.repeat(start - np.cumsum(length) + length, length) + np.arange(length.sum())
    molecule, frame = molecule[frame < n_frames], frame[frame < n_frames]

    n_false = round(len(molecule) * false_fraction / (1 - false_fraction)) if false_fraction else 0
    stray_x, stray_y = rng.uniform(-0.5, size_px - 0.5, (2, n_false))
    true_x = np.concatenate([site_x[molecule], stray_x])
    true_y = np.concatenate([site_y[molecule], stray_y])
    molecule = np.concatenate([molecule, np.full(n_false, -1)])
    frame = np.concatenate([frame, rng.integers(0, n_frames, n_false)])

    order = np.argsort(frame, kind="stable")
    molecule, frame, true_x, true_y = molecule[order], frame[order], true_x[order], true_y[order]
    n = len(frame)
    sigma = sigma_nm / pixel_size_nm * np.exp(rng.normal(0, sigma_spread, n))
    x, y = true_x + sigma * rng.normal(size=n), true_y + sigma * rng.normal(size=n)
    if drift_nm is not None:
        x, y = x + drift_nm[frame, 0] / pixel_size_nm, y + drift_nm[frame, 1] / pixel_size_nm
    photons = 1000 * (sigma_nm / pixel_size_nm / sigma) ** 2
    columns = {
        "frame": frame,
        "x": x,
        "y": y,
        "photons": photons,
        "background": np.full(n, 20.0),
        "sigma_x": sigma,
        "sigma_y": sigma,
        "probability": np.full(n, 1 - false_fraction),
    }
    info = MovieInfo(n_frames, size_px, size_px, pixel_size_nm, "simulated")
    return SimulatedTable(Localizations(columns, info), molecule, true_x, true_y)
