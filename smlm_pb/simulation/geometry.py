"""Where molecules sit: uniform fields, filaments, rings, clusters, test patterns.

A structure is drawn once and then sampled as often as needed: a training scene samples the molecules that
shine in one frame, a movie samples its binding sites once and lets them blink. Lengths are in camera pixels,
the centre of the first pixel is 0.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
Points = tuple[Float64Array, Float64Array]


@dataclass(frozen=True)
class Box:
    """The rectangle ``[x_min, x_max) × [y_min, y_max)`` in pixels that a structure fills."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float

    @classmethod
    def around_frame(cls, shape: tuple[int, int], margin_px: float) -> Box:
        """Return the frame of ``shape`` = (height, width), widened by ``margin_px`` on every side."""
        height, width = shape
        return cls(-0.5 - margin_px, width - 0.5 + margin_px, -0.5 - margin_px, height - 0.5 + margin_px)

    @property
    def width(self) -> float:
        """Extent along x in px."""
        return self.x_max - self.x_min

    @property
    def height(self) -> float:
        """Extent along y in px."""
        return self.y_max - self.y_min

    @property
    def area_px2(self) -> float:
        """Area in px²."""
        return self.width * self.height

    def contains(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Tell which points lie in the half-open box."""
        return (x >= self.x_min) & (x < self.x_max) & (y >= self.y_min) & (y < self.y_max)

    def uniform(self, rng: np.random.Generator, n: int) -> Points:
        """Draw ``n`` points uniformly in the box."""
        return rng.uniform(self.x_min, self.x_max, n), rng.uniform(self.y_min, self.y_max, n)


class Structure(Protocol):
    """Anything molecules can sit on."""

    @property
    def extent(self) -> float:
        """Number of molecules it holds at one molecule per px (lines) or px² (areas)."""
        ...

    def sample(self, rng: np.random.Generator, n: int) -> Points:
        """Draw the positions (x, y) of ``n`` molecules in px."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Complete spatial randomness in a box."""

    box: Box

    @property
    def extent(self) -> float:
        """Area in px²."""
        return self.box.area_px2

    def sample(self, rng: np.random.Generator, n: int) -> Points:
        """Draw the positions (x, y) of ``n`` molecules in px."""
        return self.box.uniform(rng, n)


@dataclass(frozen=True)
class Filaments:
    """Thin curves made of short straight segments, labelled evenly along their length.

    Parameters
    ----------
    x, y, dx, dy : array (segments,)
        Start and displacement of each segment in px.
    weight : array (segments,)
        Labels per segment, relative.
    width_px : float
        Full lateral width over which labels spread (a microtubule with antibodies: 25-60 nm).
    """

    x: Float64Array
    y: Float64Array
    dx: Float64Array
    dy: Float64Array
    weight: Float64Array
    width_px: float

    @property
    def extent(self) -> float:
        """Total length in px."""
        return float(np.hypot(self.dx, self.dy).sum())

    def sample(self, rng: np.random.Generator, n: int) -> Points:
        """Draw the positions (x, y) of ``n`` molecules in px."""
        if self.x.size == 0 or n == 0:
            return np.empty(0), np.empty(0)
        cumulative = np.cumsum(self.weight)
        segment = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right")
        segment = np.minimum(segment, self.x.size - 1)
        along = rng.random(n)
        # A hollow tube seen from the side is brightest at its rims; a flat profile lies between tube and rod.
        across = (rng.random(n) - 0.5) * self.width_px / np.hypot(self.dx, self.dy)[segment]
        x = self.x[segment] + along * self.dx[segment] - across * self.dy[segment]
        y = self.y[segment] + along * self.dy[segment] + across * self.dx[segment]
        return x, y


@dataclass(frozen=True)
class Rings:
    """Circles (vesicles) or regular polygons' corners (nuclear pores) around given centres.

    Parameters
    ----------
    x, y, radius_px, phase : array (rings,)
        Centre, radius in px and rotation in radians of each ring.
    corners : int
        Number of corners that carry labels; 0 labels the whole circle.
    width_px : float
        Standard deviation of the label position around the ring in px.
    """

    x: Float64Array
    y: Float64Array
    radius_px: Float64Array
    phase: Float64Array
    corners: int
    width_px: float

    @property
    def extent(self) -> float:
        """Total circumference in px."""
        return float(2 * np.pi * self.radius_px.sum())

    def sample(self, rng: np.random.Generator, n: int) -> Points:
        """Draw the positions (x, y) of ``n`` molecules in px."""
        if self.x.size == 0 or n == 0:
            return np.empty(0), np.empty(0)
        cumulative = np.cumsum(self.radius_px)
        ring = np.minimum(np.searchsorted(cumulative, rng.random(n) * cumulative[-1]), self.x.size - 1)
        turn = rng.random(n)
        if self.corners:
            turn = np.floor(turn * self.corners) / self.corners
        angle = self.phase[ring] + 2 * np.pi * turn
        jitter_x, jitter_y = rng.normal(0.0, self.width_px, (2, n))
        x = self.x[ring] + self.radius_px[ring] * np.cos(angle) + jitter_x
        y = self.y[ring] + self.radius_px[ring] * np.sin(angle) + jitter_y
        return x, y


@dataclass(frozen=True)
class Clusters:
    """Gaussian clouds around given centres.

    Parameters
    ----------
    x, y, sigma_px : array (clusters,)
        Centre and standard deviation of each cloud in px.
    """

    x: Float64Array
    y: Float64Array
    sigma_px: Float64Array

    @property
    def extent(self) -> float:
        """Total effective area 4πσ² in px²."""
        return float(4 * np.pi * np.sum(self.sigma_px**2))

    def sample(self, rng: np.random.Generator, n: int) -> Points:
        """Draw the positions (x, y) of ``n`` molecules in px."""
        if self.x.size == 0 or n == 0:
            return np.empty(0), np.empty(0)
        cloud = rng.integers(0, self.x.size, n)
        x, y = rng.normal(size=(2, n)) * self.sigma_px[cloud]
        return self.x[cloud] + x, self.y[cloud] + y


@dataclass(frozen=True)
class Mixture:
    """Several structures, each with its share of the molecules."""

    parts: tuple[Structure, ...]
    shares: tuple[float, ...]

    @property
    def extent(self) -> float:
        """Extents of all parts together."""
        return float(sum(part.extent for part in self.parts))

    def sample(self, rng: np.random.Generator, n: int) -> Points:
        """Draw the positions (x, y) of ``n`` molecules in px."""
        shares = np.asarray(self.shares) / np.sum(self.shares)
        counts = rng.multinomial(n, shares)
        points = [part.sample(rng, int(count)) for part, count in zip(self.parts, counts, strict=True)]
        return np.concatenate([p[0] for p in points]), np.concatenate([p[1] for p in points])


def random_filaments(
    rng: np.random.Generator,
    box: Box,
    n_filaments: int,
    *,
    width_px: float = 0.3,
    curvature_per_px: float = 0.01,
    bend_per_sqrt_px: float = 0.03,
    bundle_size: int = 1,
    bundle_gap_px: float = 1.0,
    length_px: float | None = None,
    step_px: float = 1.0,
) -> Filaments:
    """Draw smooth random curves through a box.

    The heading of each curve is a line plus a Brownian walk (a worm-like chain in the plane) around a pivot
    that lies uniformly in the box, so that curves cross the box at all angles.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    box : Box
        Segments outside it are dropped.
    n_filaments : int
        Number of curves.
    width_px : float
        Full lateral width of a filament in px.
    curvature_per_px : float
        Standard deviation of the constant curvature in rad/px.
    bend_per_sqrt_px : float
        Random bending in rad/√px; the persistence length is 1 / value² px.
    bundle_size : int
        Curves per bundle: they share a course and run ``bundle_gap_px`` apart.
    bundle_gap_px : float
        Typical distance of neighbours in a bundle in px.
    length_px : float, optional
        Length of a curve; by default long enough to leave the box.
    step_px : float
        Length of a segment in px.

    Returns
    -------
    Filaments
    """
    n_courses = max(1, -(-n_filaments // bundle_size))
    half = max(2, int(np.ceil((length_px / 2 if length_px else np.hypot(box.width, box.height) * 0.8) / step_px)))
    x, y, heading = _courses(rng, box, n_courses, half, step_px, curvature_per_px, bend_per_sqrt_px)
    if bundle_size > 1:
        x, y = (np.repeat(v, bundle_size, axis=0)[:n_filaments] for v in (x, y))
        heading = np.repeat(heading, bundle_size, axis=0)[:n_filaments]
        s = (np.arange(x.shape[1]) - half) * step_px
        shift = rng.normal(0.0, bundle_gap_px * np.sqrt(bundle_size) / 1.5, (x.shape[0], 1))
        shift = shift + rng.normal(0.0, 0.02, (x.shape[0], 1)) * s
        x, y = x - shift * np.sin(heading), y + shift * np.cos(heading)
    dx, dy = np.diff(x, axis=1), np.diff(y, axis=1)
    weight = np.hypot(dx, dy) * rng.lognormal(0.0, 0.25, (x.shape[0], 1))
    x, y = x[:, :-1], y[:, :-1]
    inside = box.contains(x + dx / 2, y + dy / 2)
    return Filaments(x[inside], y[inside], dx[inside], dy[inside], weight[inside], width_px)


def _courses(
    rng: np.random.Generator,
    box: Box,
    n: int,
    half: int,
    step_px: float,
    curvature_per_px: float,
    bend_per_sqrt_px: float,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Integrate ``n`` headings both ways from their pivots; returns x, y, heading (n, 2·half + 1)."""
    s = np.arange(-half, half + 1) * step_px
    walk = np.cumsum(rng.normal(0.0, bend_per_sqrt_px * np.sqrt(step_px), (n, s.size)), axis=1)
    heading = (
        rng.uniform(0.0, 2 * np.pi, (n, 1))
        + rng.normal(0.0, curvature_per_px, (n, 1)) * s
        + walk
        - walk[:, half : half + 1]
    )
    pivot_x, pivot_y = box.uniform(rng, n)
    x, y = np.cumsum(np.cos(heading), axis=1) * step_px, np.cumsum(np.sin(heading), axis=1) * step_px
    x += pivot_x[:, None] - x[:, half : half + 1]
    y += pivot_y[:, None] - y[:, half : half + 1]
    return x, y, heading


def random_rings(
    rng: np.random.Generator,
    box: Box,
    n_rings: int,
    *,
    radius_px: tuple[float, float] = (0.5, 4.0),
    corners: int = 0,
    width_px: float = 0.1,
) -> Rings:
    """Scatter rings of log-uniform radius over a box; ``corners`` = 8 makes nuclear pores."""
    x, y = box.uniform(rng, n_rings)
    radius = log_uniform(rng, *radius_px, size=n_rings)
    return Rings(x, y, radius, rng.uniform(0.0, 2 * np.pi, n_rings), corners, width_px)


def random_clusters(
    rng: np.random.Generator, box: Box, n_clusters: int, *, sigma_px: tuple[float, float] = (0.3, 3.0)
) -> Clusters:
    """Scatter Gaussian clouds of log-uniform width over a box."""
    x, y = box.uniform(rng, n_clusters)
    return Clusters(x, y, log_uniform(rng, *sigma_px, size=n_clusters))


def log_uniform(rng: np.random.Generator, low: float, high: float, size: int | None = None) -> Any:
    """Draw values whose logarithm is uniform between ``low`` and ``high`` (both > 0)."""
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def choose(rng: np.random.Generator, names: Sequence[str], weights: Sequence[float]) -> str:
    """Draw one name with probability proportional to its weight."""
    cumulative = np.cumsum(weights)
    index = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return names[min(index, len(names) - 1)]
