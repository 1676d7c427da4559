"""Synthetic calibration targets: checkerboards and grids of holes as a microscope sees them, with the true points.

A target is a pattern on a plane. It is seen under a perspective and through a lens with radial distortion, blurred,
unevenly lit, and recorded with noise. The pattern is sampled where the pixels look, so that the true points are known
to rounding (after Schroeter, PhD thesis, 2021, section 6.4.2 and appendix C.2: synthetic boards with one to eight of
blur, light, sharpening, contrast, scale, distortion, perspective and rotation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

KINDS = ("checkerboard", "holes")
#: Samples per pixel and axis.
_OVERSAMPLING = 2
#: Points nearer to the edge of the frame than this are not asked for, px: half of what marks them is not seen.
BORDER_PX = 3.0


@dataclass(frozen=True)
class BoardSettings:
    """The range of targets.

    Parameters
    ----------
    squares : (int, int)
        Fewest and most squares (or holes) along a side of a target that lies within the frame.
    pitch_px : (float, float)
        Side of a square in px; log-uniform.
    hole_pitch_px : (float, float)
        Distance of holes in px; log-uniform.
    filled_fraction : float
        Share of targets that reach beyond the frame on all sides.
    empty_fraction : float
        Share of images without a target: background and clutter only.
    perspective, distortion : float
        Largest change of scale across the target, and largest relative displacement at its edge.
    blur_px : (float, float)
        Width (sigma) of the blur in px; for holes at least 0.7.
    noise : (float, float)
        Noise in units of the pattern's contrast; log-uniform.
    unevenness : float
        Largest relative change of the light over the frame.
    missing_fraction : float
        Largest share of holes that are closed.
    effects : (int, int)
        How many of the effects befall a target, fewest and most.
    """

    squares: tuple[int, int] = (3, 8)
    pitch_px: tuple[float, float] = (8.0, 48.0)
    hole_pitch_px: tuple[float, float] = (4.5, 32.0)
    filled_fraction: float = 0.4
    empty_fraction: float = 0.25
    perspective: float = 0.25
    distortion: float = 0.06
    blur_px: tuple[float, float] = (0.3, 2.0)
    noise: tuple[float, float] = (0.01, 0.15)
    unevenness: float = 0.7
    missing_fraction: float = 0.05
    effects: tuple[int, int] = (1, 8)


@dataclass(frozen=True)
class Board:
    """One picture of a target.

    Parameters
    ----------
    image : array (height, width), float32
        Brightness in arbitrary units.
    x, y : array (points,), float64
        True corners or holes within the frame, px.
    row, column : array (points,), int
        Their place on the target.
    kind : str
        One of :data:`KINDS`, or ``empty``.
    pitch_px : float
        Distance of neighbouring points in the middle of the target, px.
    shape : (int, int)
        Points along the columns and the rows of the whole target; for OpenCV, which must be told.
    """

    image: npt.NDArray[np.float32]
    x: FloatArray
    y: FloatArray
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    kind: str
    pitch_px: float
    shape: tuple[int, int]


@dataclass(frozen=True)
class View:
    """From the plane of the target (in pitches, its middle at 0) to the frame and back."""

    homography: FloatArray
    centre: FloatArray
    radial: float
    reach_px: float

    def to_frame(self, points: FloatArray) -> FloatArray:
        """Positions (n, 2) as (x, y) in px of points (n, 2) on the target."""
        flat = _project(self.homography, points) - self.centre
        seen = flat.copy()
        for _ in range(20):  # the lens is given as frame → plane; its inverse is a fixed point
            seen = flat / (1 + self.radial * (seen**2).sum(1, keepdims=True) / self.reach_px**2)
        return np.asarray(seen + self.centre)

    def to_target(self, positions: FloatArray) -> FloatArray:
        """Points (n, 2) on the target that are seen at positions (n, 2) in px."""
        seen = positions - self.centre
        flat = seen * (1 + self.radial * (seen**2).sum(1, keepdims=True) / self.reach_px**2)
        return _project(np.asarray(np.linalg.inv(self.homography), np.float64), flat + self.centre)


def draw_board(
    rng: np.random.Generator, settings: BoardSettings, size_px: int | tuple[int, int], *, kind: str | None = None
) -> Board:
    """Draw one target and the picture of it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    settings : BoardSettings
        Range of targets.
    size_px : int or (int, int)
        Side of a square frame, or (height, width).
    kind : str, optional
        ``checkerboard``, ``holes`` or ``empty``; drawn when not given.

    Returns
    -------
    Board
    """
    shape = (size_px, size_px) if isinstance(size_px, (int, np.integer)) else (int(size_px[0]), int(size_px[1]))
    if kind is None:
        kind = "empty" if rng.random() < settings.empty_fraction else str(rng.choice(KINDS))
    effects = _draw_effects(rng, settings)
    if kind == "empty":
        pattern, points, pitch, count = _clutter(rng, shape), _no_points(), 0.0, (0, 0)
    else:
        pattern, points, pitch, count = _target(rng, settings, shape, kind, effects)
    image = _photograph(rng, settings, pattern, shape, kind, pitch, effects)
    x, y, row, column = points
    inside = (x > BORDER_PX - 0.5) & (x < shape[1] - 0.5 - BORDER_PX)
    inside &= (y > BORDER_PX - 0.5) & (y < shape[0] - 0.5 - BORDER_PX)
    return Board(image, x[inside], y[inside], row[inside], column[inside], kind, pitch, count)


_EFFECTS = ("blur", "light", "sharpen", "contrast", "scale", "distort", "perspective", "rotate")


def _draw_effects(rng: np.random.Generator, settings: BoardSettings) -> set[str]:
    n = int(rng.integers(settings.effects[0], settings.effects[1] + 1))
    return set(rng.choice(_EFFECTS, min(n, len(_EFFECTS)), replace=False).tolist())


def _no_points() -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.empty(0), np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)


def _target(
    rng: np.random.Generator, settings: BoardSettings, shape: tuple[int, int], kind: str, effects: set[str]
) -> tuple[FloatArray, Any, float, tuple[int, int]]:
    """Pattern sampled at the sub-pixels, true points, pitch in px, and points along both sides of the target."""
    low, high = settings.pitch_px if kind == "checkerboard" else settings.hole_pitch_px
    filled = bool(rng.random() < settings.filled_fraction)
    cells = rng.integers(settings.squares[0], settings.squares[1] + 1, 2)
    if not filled:  # the whole target must fit into the frame, also when it is turned
        high = min(high, 0.62 * min(shape) / max(cells))
        low = min(low, high)
    pitch = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if filled:
        cells = np.full(2, 2 * int(np.ceil(np.hypot(*shape) / pitch)) + 4)
    view = _draw_view(rng, settings, shape, pitch, cells, filled, effects)
    first = 1 if kind == "checkerboard" else 0
    n_x, n_y = (int(c) + 1 - 2 * first for c in cells)
    column, row = (a.ravel() for a in np.meshgrid(np.arange(n_x), np.arange(n_y)))
    on_target = np.stack((column + first, row + first), axis=1) - cells / 2.0
    seen = view.to_frame(on_target.astype(np.float64))
    # Far outside the frame the lens folds the plane over: what does not come back is not seen.
    visible = np.hypot(*(view.to_target(seen) - on_target).T) < 1e-6
    sampled = view.to_target(_sub_pixels(shape)) + cells / 2.0
    if kind == "checkerboard":
        pattern = _checkers(sampled, cells, pitch, filled, rng)
        there = visible
    else:
        pattern, present = _holes(sampled, cells, pitch, settings, rng)
        there = visible & present[row, column]
    side = (shape[0] * _OVERSAMPLING, shape[1] * _OVERSAMPLING)
    points = (seen[there, 0], seen[there, 1], row[there].astype(np.int64), column[there].astype(np.int64))
    return pattern.reshape(side), points, pitch, (n_x, n_y)


def _draw_view(
    rng: np.random.Generator,
    settings: BoardSettings,
    shape: tuple[int, int],
    pitch: float,
    cells: npt.NDArray[Any],
    filled: bool,
    effects: set[str],
) -> View:
    """How the target lies in the frame; what no effect changes is straight."""
    angle = rng.uniform(-np.pi, np.pi) if "rotate" in effects else rng.uniform(-0.05, 0.05)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag(1 + rng.uniform(-0.15, 0.15, 2)) if "scale" in effects else np.eye(2)
    linear = pitch * turn @ stretch
    half = np.array([shape[1], shape[0]]) / 2.0
    extent = np.hypot(*half) if filled else 0.5 * pitch * float(np.hypot(*cells))
    slack = np.maximum(half - extent - BORDER_PX - 1, 0.0)
    centre = half - 0.5 + (rng.uniform(-pitch, pitch, 2) if filled else rng.uniform(-1, 1, 2) * slack)
    tilt = rng.uniform(-1, 1, 2) * settings.perspective / 2 if "perspective" in effects else np.zeros(2)
    homography = np.eye(3)
    homography[:2, :2], homography[:2, 2] = linear, centre
    # The last row tells how the scale changes along the target; the whole of it over the target's extent.
    homography[2, :2] = tilt * pitch / extent @ turn
    homography[:2, :2] += np.outer(centre, homography[2, :2])
    radial = rng.uniform(-1, 1) * settings.distortion if "distort" in effects else 0.0
    return View(homography, half - 0.5, radial, float(np.hypot(*half)))


def _project(homography: FloatArray, points: FloatArray) -> FloatArray:
    w = points @ homography[2, :2] + homography[2, 2]
    return np.asarray((points @ homography[:2, :2].T + homography[:2, 2]) / w[:, None])


def _sub_pixels(shape: tuple[int, int]) -> FloatArray:
    """Positions (x, y) of all samples, row by row, px."""
    y, x = ((np.arange(n * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - 0.5 for n in shape)
    return np.stack([a.ravel() for a in np.meshgrid(x, y)], axis=1)


def _soft(distance: FloatArray, pitch: float) -> FloatArray:
    """An edge as wide as a sample: 0 on one side, 1 on the other, from the signed distance in pitches."""
    return np.clip(0.5 + distance * pitch * _OVERSAMPLING, 0.0, 1.0)


def _checkers(
    at: FloatArray, cells: npt.NDArray[Any], pitch: float, filled: bool, rng: np.random.Generator
) -> FloatArray:
    """Light squares 1, dark squares 0, around the target the light of its border."""
    signs = [2 * _soft(0.5 - np.abs(np.mod(at[:, axis], 2.0) - 0.5), pitch) - 1 for axis in (0, 1)]
    # The triangle wave above is positive on squares 0, 2, 4 ...; near 1.5 it must rise again.
    for axis in (0, 1):
        phase = np.mod(at[:, axis], 2.0)
        signs[axis] = np.where(phase > 1.5, 2 * _soft(phase - 2.0, pitch) - 1, signs[axis])
    squares = 0.5 + 0.5 * signs[0] * signs[1]
    if filled:
        return squares
    border = rng.choice((1.0, 1.0, 0.5)) if rng.random() < 0.8 else 0.0
    within = np.ones(len(at))
    for axis in (0, 1):
        within *= _soft(at[:, axis], pitch) * _soft(cells[axis] - at[:, axis], pitch)
    paper = np.ones(len(at))
    margin = rng.uniform(0.2, 1.5)
    for axis in (0, 1):
        paper *= _soft(at[:, axis] + margin, pitch) * _soft(cells[axis] + margin - at[:, axis], pitch)
    table = rng.uniform(0.0, 1.0)
    around = table + (border - table) * paper
    return np.asarray(around + (squares - around) * within)


def _holes(
    at: FloatArray, cells: npt.NDArray[Any], pitch: float, settings: BoardSettings, rng: np.random.Generator
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Discs of differing brightness, and which of them are open: an array (rows, columns)."""
    n_x, n_y = (int(c) + 1 for c in cells)
    present = rng.random((n_y, n_x)) >= rng.uniform(0, settings.missing_fraction)
    spread = rng.uniform(0.0, 0.25)
    brightness = present * np.clip(1 + spread * rng.normal(size=(n_y, n_x)), 0.4, 1.6)
    radius = max(rng.uniform(0.08, 0.32), 0.5 / pitch)
    nearest = np.rint(at).astype(np.int64)
    inside = (nearest >= 0).all(1) & (nearest[:, 0] < n_x) & (nearest[:, 1] < n_y)
    column, row = nearest[:, 0].clip(0, n_x - 1), nearest[:, 1].clip(0, n_y - 1)
    distance = np.hypot(*(at - nearest).T)
    return _soft(radius - distance, pitch) * brightness[row, column] * inside, present


def _clutter(rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Things that are no target: stripes, rectangles, discs, a lone edge, or nothing."""
    at = _sub_pixels(shape)
    pattern = np.zeros(len(at))
    for _ in range(int(rng.integers(0, 6))):
        centre = rng.uniform(0, 1, 2) * (shape[1], shape[0])
        angle, size = rng.uniform(0, np.pi), rng.uniform(3, max(shape) / 2, 2)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        local = (at - centre) @ turn
        kind = rng.integers(4)
        if kind == 0:
            thing = (_soft(size[0] - np.abs(local[:, 0]), 1.0)) * _soft(size[1] - np.abs(local[:, 1]), 1.0)
        elif kind == 1:
            thing = _soft(size[0] / 2 - np.hypot(*local.T), 1.0)
        elif kind == 2:
            thing = _soft(local[:, 0], 1.0)
        else:
            thing = 0.5 + 0.5 * np.sin(2 * np.pi * local[:, 0] / size[0])
        pattern = pattern + (rng.uniform(-1, 1) - pattern * rng.integers(0, 2)) * thing
    return pattern.reshape(shape[0] * _OVERSAMPLING, shape[1] * _OVERSAMPLING)


def _photograph(
    rng: np.random.Generator,
    settings: BoardSettings,
    pattern: FloatArray,
    shape: tuple[int, int],
    kind: str,
    pitch: float,
    effects: set[str],
) -> npt.NDArray[np.float32]:
    """Blur, light, contrast and noise."""
    from scipy.ndimage import gaussian_filter

    low, high = settings.blur_px
    blur = rng.uniform(low, high) if "blur" in effects else rng.uniform(low, 0.5 * (low + high))
    if kind == "holes":
        blur = max(blur, 0.7)
    if kind != "empty":
        blur = min(blur, 0.25 * pitch)  # more would leave no pattern
    blurred = gaussian_filter(pattern, blur * _OVERSAMPLING, mode="nearest", truncate=3.0)
    binned = blurred.reshape(shape[0], _OVERSAMPLING, shape[1], _OVERSAMPLING).mean((1, 3))
    if "sharpen" in effects:
        binned = binned + rng.uniform(0.2, 1.0) * (binned - gaussian_filter(binned, 1.5, mode="nearest"))
    if kind != "empty":
        binned = binned / max(float(np.percentile(binned, 99.5) - np.percentile(binned, 0.5)), 0.1)
    if rng.random() < (0.2 if kind == "holes" else 0.5 if kind == "checkerboard" else 0.0):
        binned = binned.max() - binned  # dark holes, or the other colour first
    floor = rng.uniform(0.05, 1.0) if "contrast" in effects else rng.uniform(0.05, 0.3)
    lit = (binned + floor) * (_light(rng, settings.unevenness, shape) if "light" in effects else 1.0)
    noise = np.exp(rng.uniform(*np.log(settings.noise)))
    # Part of the noise grows with the light, as that of photons does.
    photon_share = rng.uniform(0, 1)
    variance = noise**2 * (
        1 - photon_share + photon_share * np.clip(lit, 0, None) / max(float(np.abs(lit).mean()), 0.3)
    )
    noisy = lit + np.sqrt(variance) * rng.normal(size=shape)
    gain = np.exp(rng.uniform(0, 7))
    return (gain * noisy + rng.uniform(0, 2) * gain).astype(np.float32)


def _light(rng: np.random.Generator, unevenness: float, shape: tuple[int, int]) -> FloatArray:
    """Light that falls off towards an edge or from a bright middle; 1 on average."""
    v, u = (np.linspace(-1, 1, n) for n in shape)
    tilt, middle = rng.uniform(-1, 1, 2), rng.uniform(-0.5, 0.5, 2)
    slope = tilt[0] * u[None, :] + tilt[1] * v[:, None]
    bowl = (u[None, :] - middle[0]) ** 2 + (v[:, None] - middle[1]) ** 2
    light = np.exp(rng.uniform(0, unevenness) * slope - rng.uniform(0, unevenness) * bowl)
    return np.asarray(light / light.mean())
