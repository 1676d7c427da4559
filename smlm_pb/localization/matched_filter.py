"""How significant light is in every pixel, where it peaks, and what is left without the light of some molecules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from smlm_pb.camera import Camera

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]

#: Between two pixels the light is at most this much more significant than in the nearer one.
NEAR_PEAK = 0.75
#: Farther out than where the profile has fallen to this share it is left out.
_NEGLIGIBLE = 1e-3
#: A molecule lies within this distance of where the filter peaks, along each axis, px.
_LARGEST_SHIFT_PX = 0.5


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
        half, reach = self._half, len(self._profile) - 1
        padded = np.pad(electrons, ((0, 0), (half, half), (half, half)), mode="symmetric")
        total = _window_sum(_window_sum(padded, 2 * half + 1, 1), 2 * half + 1, 2)
        inner = slice(half - reach, -(half - reach) or None)
        weights = self._profile.astype(np.float32)
        amplitude = _weighted_sum(_weighted_sum(padded[:, inner, inner], weights, 1), weights, 2)
        amplitude -= np.float32(self._mean) * total
        amplitude *= np.float32(1 / self._norm)
        variance = total
        variance *= np.float32(1 / self._pixels)
        variance -= amplitude * np.float32(self._mean)
        variance += np.float32(self._read_variance)
        np.maximum(variance, np.float32(1e-3), out=variance)
        np.sqrt(variance, out=variance)
        amplitude *= np.float32(np.sqrt(self._norm))
        amplitude /= variance
        return amplitude

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
    height, width = significance.shape[1:]
    flat = significance.reshape(-1)
    pixel = np.flatnonzero(flat >= np.float32(NEAR_PEAK * least))
    line, column = np.divmod(pixel, width)
    row = line % height
    middle = flat.take(pixel)
    # Beyond the frame it goes on as at its edge.
    up, down = np.where(row > 0, -width, 0), np.where(row < height - 1, width, 0)
    left, right = np.where(column > 0, -1, 0), np.where(column < width - 1, 1, 0)
    beside = [[flat.take(pixel + dy + dx) for dx in (left, 0, right)] for dy in (up, 0, down)]
    top = middle.copy()
    shift = np.empty((2, len(pixel)), np.float32)
    within = (up != 0) & (down != 0), (left != 0) & (right != 0)
    for axis, (one, other) in enumerate(((beside[0][1], beside[2][1]), (beside[1][0], beside[1][2]))):
        curvature = np.maximum(2 * middle - one - other, 1e-3)
        top += np.minimum((one - other) ** 2 / (8 * curvature), 0.25 * np.abs(middle))
        shift[axis] = within[axis] * ((other - one) / (2 * curvature)).clip(-_LARGEST_SHIFT_PX, _LARGEST_SHIFT_PX)
    highest = np.maximum.reduce([value for line_of in beside for value in line_of])
    chosen = np.flatnonzero((middle >= highest) & (top >= least))
    places = Places((line // height).take(chosen), row.take(chosen), column.take(chosen))
    return Peaks(places, top.take(chosen), shift.take(chosen, axis=1))


def _moved(values: FloatArray, start: int, length: int, axis: int) -> FloatArray:
    return values[:, start : start + length] if axis == 1 else values[:, :, start : start + length]


def _window_sum(values: FloatArray, window: int, axis: int) -> FloatArray:
    """Sum of so many neighbours along an axis, which loses the others: doubled again and again."""
    length = values.shape[axis] - window + 1
    total, start, summed, size = None, 0, values, 1
    while True:
        if window & size:
            part = _moved(summed, start, length, axis)
            total = part.copy() if total is None else np.add(total, part, out=total)
            start += size
        if 2 * size > window:
            break
        longest = summed.shape[axis] - size
        summed = _moved(summed, 0, longest, axis) + _moved(summed, size, longest, axis)
        size *= 2
    assert total is not None
    return total


def _weighted_sum(values: FloatArray, weights: FloatArray, axis: int) -> FloatArray:
    """Sum over a symmetric window along an axis, weighted by the distance from its middle."""
    margin = len(weights) - 1
    length = values.shape[axis] - 2 * margin
    total: FloatArray = _moved(values, margin, length, axis) * weights[0]
    for step in range(1, len(weights)):
        pair = _moved(values, margin - step, length, axis) + _moved(values, margin + step, length, axis)
        pair *= weights[step]
        total += pair
    return total
