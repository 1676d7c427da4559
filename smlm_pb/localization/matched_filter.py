"""How significant light is in every pixel, where it peaks, and what is left without the light of some molecules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.compiled import compiled

if TYPE_CHECKING:
    from smlm_pb.camera import Camera

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]

#: Between two pixels the light is at most this much more significant than in the nearer one.
NEAR_PEAK = 0.75
#: Farther out than where the profile has fallen to this share it is left out.
_NEGLIGIBLE = 1e-3
#: A molecule lies within this distance of where the filter peaks, along each axis, px.
_LARGEST_SHIFT_PX = np.float32(0.5)
_LEAST_VARIANCE_E2, _LEAST_CURVATURE = np.float32(1e-3), np.float32(1e-3)
#: A parabola through three pixels rises at most this much above the middle one, relative.
_MOST_RISE = np.float32(0.25)


@dataclass(frozen=True)
class Places:
    """Pixels (n,) of some frames to look at."""

    frame: IndexArray
    row: IndexArray
    column: IndexArray

    def __len__(self) -> int:
        """Number of places."""
        return len(self.frame)

    @property
    def indices(self) -> tuple[IndexArray, ...]:
        """Frames, rows and columns."""
        return self.frame, self.row, self.column

    def at(self, chosen: Any) -> Places:
        """Some of the places."""
        return Places(self.frame[chosen], self.row[chosen], self.column[chosen])

    def and_also(self, others: Places) -> Places:
        """These places and others."""
        return Places(*(np.concatenate(pair) for pair in zip(self.indices, others.indices, strict=True)))


#: Places with the pixels on each side of them that are looked at.
Group = tuple[Places, int]


@dataclass(frozen=True)
class Peaks:
    """Local maxima of the significance.

    Parameters
    ----------
    places : Places
        Their pixels.
    height : array (n,)
        Significance between the pixels.
    shift : array (2, n)
        Where between the pixels, along y and x, px.
    """

    places: Places
    height: FloatArray
    shift: FloatArray

    def at(self, chosen: Any) -> Peaks:
        """Some of the peaks."""
        return Peaks(self.places.at(chosen), self.height[chosen], self.shift[:, chosen])


class MatchedFilter:
    """Amplitude of a fit of PSF and constant background at every pixel, in standard deviations.

    Parameters
    ----------
    psf_sigma_px : float
        PSF width, px.
    camera : Camera
        Where the electrons come from.
    """

    def __init__(self, psf_sigma_px: float, camera: Camera) -> None:
        from smlm_pb.localization.significance import filter_sizes, read_variance
        from smlm_pb.localization.windows import profile

        self._sigma_px, self._read_variance = psf_sigma_px, read_variance(camera)
        self._half, _ = filter_sizes(psf_sigma_px)
        one_axis = profile(np.arange(self._half + 1, dtype=np.float64)[None], psf_sigma_px)[0]
        self._profile = one_axis[one_axis >= _NEGLIGIBLE * one_axis[0]]
        both = np.concatenate((self._profile[:0:-1], self._profile))
        self._pixels = (2 * self._half + 1) ** 2
        self._mean = float(both.sum() ** 2) / self._pixels
        self._norm = float((both**2).sum() ** 2) - self._pixels * self._mean**2

    def significance(self, electrons: FloatArray) -> FloatArray:
        """Significance (frame, y, x) of the light at every pixel of frames of that shape."""
        padded = np.pad(electrons, ((0, 0), (self._half, self._half), (self._half, self._half)), mode="symmetric")
        weights = self._profile.astype(np.float32)
        parts = np.array((self._mean, 1 / self._norm, 1 / self._pixels, self._read_variance), np.float32)
        return _significance(padded, weights, self._half, parts, np.float32(np.sqrt(self._norm)))

    def without(self, electrons: FloatArray, peaks: Peaks) -> FloatArray:
        """Frames without the light of some molecules, each fitted for itself by a spot on a constant background."""
        from smlm_pb.localization.windows import profile

        height, width = electrons.shape[1:]
        frame, row, column = peaks.places.indices
        steps = np.arange(1 - len(self._profile), len(self._profile))
        at = [place[:, None] + steps for place in (row, column)]
        seen = [(a >= 0) & (a < size) for a, size in zip(at, (height, width), strict=True)]
        inside = (seen[0][:, :, None] & seen[1][:, None, :]).reshape(len(frame), -1)
        pixel = ((frame[:, None, None] * height + at[0][:, :, None].clip(0, height - 1)) * width).reshape(
            len(frame), -1, 1
        ) + at[1][:, None, :].clip(0, width - 1)
        pixel = pixel.reshape(len(frame), -1)
        off = [steps - shift[:, None].astype(np.float64) for shift in peaks.shift]
        along = [profile(distance, self._sigma_px) for distance in off]
        # By how much the profile changes where the molecule moves.
        slope = [self._density(distance - 0.5) - self._density(distance + 0.5) for distance in off]
        spot, down, across = (
            (one[:, :, None] * other[:, None, :]).reshape(len(frame), -1)
            for one, other in ((along[0], along[1]), (slope[0], along[1]), (along[0], slope[1]))
        )
        basis = np.stack((spot, down, across, np.ones_like(spot)), 1) * inside[:, None]
        values = electrons.reshape(-1).take(pixel).astype(np.float64)
        gram = basis @ basis.transpose(0, 2, 1) + 1e-9 * np.eye(4)
        fitted = np.linalg.solve(gram, basis @ values[:, :, None])[:, :3, 0]
        most = _LARGEST_SHIFT_PX * np.abs(fitted[:, :1])
        fitted[:, 1:] = fitted[:, 1:].clip(-most, most)
        light = (fitted[:, None, :] @ basis[:, :3])[:, 0]
        rest = electrons.copy()
        np.subtract.at(rest.reshape(-1), pixel[inside], light[inside].astype(np.float32))
        return rest

    def _density(self, distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        density: npt.NDArray[np.float64] = np.exp(-0.5 * (distance / self._sigma_px) ** 2)
        return density / (np.sqrt(2 * np.pi) * self._sigma_px)


def find_peaks(significance: FloatArray, least: float) -> Peaks:
    """Local maxima from some height on; between the pixels by a parabola along each axis."""
    near = np.float32(NEAR_PEAK * least)
    room = int(np.count_nonzero(significance >= near))
    at, height, shift = _peaks(significance, near, np.float32(least), room)
    return Peaks(Places(*at), height, shift)


@compiled
def _significance(
    padded: FloatArray, weights: FloatArray, half: int, parts: FloatArray, root_norm: np.float32
) -> FloatArray:
    """Amplitude over noise, from frames with a margin, and the constants of the fit."""
    frames, height, width = padded.shape[0], padded.shape[1] - 2 * half, padded.shape[2] - 2 * half
    mean, per_norm, per_pixel, read_variance = parts
    result = np.empty((frames, height, width), np.float32)
    column, light = np.empty(padded.shape[2], np.float32), np.empty(padded.shape[2], np.float32)
    total, amplitude = np.empty(width, np.float32), np.empty(width, np.float32)
    for frame in range(frames):
        for row in range(height):
            column[:], light[:] = 0.0, 0.0
            for step in range(-half, half + 1):
                _add(column, padded[frame, row + half + step], np.float32(1.0))
            for step in range(1 - len(weights), len(weights)):
                _add(light, padded[frame, row + half + step], weights[abs(step)])
            total[:], amplitude[:] = 0.0, 0.0
            for step in range(2 * half + 1):
                _add(total, column[step : step + width], np.float32(1.0))
            for step in range(1 - len(weights), len(weights)):
                _add(amplitude, light[half + step : half + step + width], weights[abs(step)])
            line = result[frame, row]
            for at in range(width):
                height_above = (amplitude[at] - mean * total[at]) * per_norm
                variance = total[at] * per_pixel - height_above * mean + read_variance
                line[at] = height_above * root_norm / np.sqrt(max(variance, _LEAST_VARIANCE_E2))
    return result


@compiled
def _add(into: FloatArray, values: FloatArray, weight: np.float32) -> None:
    for at in range(len(into)):
        into[at] += weight * values[at]


@compiled
def _peaks(
    significance: FloatArray, near: np.float32, least: np.float32, room: int
) -> tuple[IndexArray, FloatArray, FloatArray]:
    """Frames, rows and columns (3, n) of peaks, their heights and shifts; there is room for so many."""
    frames, height, width = significance.shape
    places, tops, shifts, found = (
        np.empty((3, room), np.int64),
        np.empty(room, np.float32),
        np.empty((2, room), np.float32),
        0,
    )
    for frame in range(frames):
        for row in range(height):
            line = significance[frame, row]
            # Beyond the frame it goes on as at its edge.
            above, below = significance[frame, max(row - 1, 0)], significance[frame, min(row + 1, height - 1)]
            for column in range(width):
                middle = line[column]
                if middle < near:
                    continue
                left, right = max(column - 1, 0), min(column + 1, width - 1)
                highest = max(above[left], above[column], above[right], line[left], line[right])
                if middle < max(highest, below[left], below[column], below[right]):
                    continue
                rise_y, shift_y = _between(above[column], middle, below[column])
                rise_x, shift_x = _between(line[left], middle, line[right])
                top = middle + rise_y + rise_x
                if top >= least:
                    places[0, found], places[1, found], places[2, found], tops[found] = frame, row, column, top
                    shifts[0, found] = shift_y if 0 < row < height - 1 else 0.0
                    shifts[1, found] = shift_x if 0 < column < width - 1 else 0.0
                    found += 1
    return places[:, :found], tops[:found], shifts[:, :found]


@compiled
def _between(one: np.float32, middle: np.float32, other: np.float32) -> tuple[np.float32, np.float32]:
    """By how much a parabola is higher between the pixels, and where."""
    curvature = max(2 * middle - one - other, _LEAST_CURVATURE)
    rise = min((one - other) ** 2 / (8 * curvature), _MOST_RISE * abs(middle))
    return rise, min(max((other - one) / (2 * curvature), -_LARGEST_SHIFT_PX), _LARGEST_SHIFT_PX)
