"""Where next to nothing is on, the network looks only at the places that hold light.

The automatic threshold comes with a rule: a candidate that stands alone is dropped unless its light is significant
(:mod:`smlm_pb.localization.significance`). So of places without significant light, far from everything bright, nothing
would be kept, and the network need not look at them. A matched filter finds the light in a small part of the time that
the network takes. A place is looked at

* where the filter of the significance has a peak, from somewhat below the least significance on;
* near something bright, where candidates are not held to that rule: all around it where its own light hides dim
  neighbours, and further away, where it spoils the wide filter, also where a narrow filter has a peak.

Around each place a crop with the receptive field of the network is cut out, and every layer computes only what the next
one needs of it: what comes out is what the network would say of the whole frame, up to rounding. Frames in which this
would not be less work are looked at as a whole.

Of candidates too improbable to be kept there are some in the dark, too, and the automatic threshold counts them as
molecules that may be missed. So now and then a frame is looked at as a whole, and stands for the others in this.

On simulated movies of 0.02 to 1 molecules per µm² and 300 to 5000 photons, 1 of 118 000 molecules was missed
(``benchmarks/sparse.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from smlm_pb.camera import Camera

FloatArray = npt.NDArray[np.float32]

#: Pixels on each side of a place that are looked at: candidates lie this close to the light that they stand for.
_REACH_PX = 3
#: The same of bright places, whose light hides dim neighbours.
_BRIGHT_REACH_PX = 5
#: The filter looks at whole pixels only, and its noise is not exactly that of a fit: so much below is looked at, too.
_BELOW = 0.5
#: From this significance on, light is bright: somewhat less than what the significance rule calls bright.
_BRIGHT = 6.0
#: Peaks of the narrow filter near something bright.
_NARROW = 3.0
#: Between two pixels the light is at most this much more significant than in the nearer one.
_NEAR_PEAK = 0.75
#: A frame with more bright, or significant, pixels than this for every place that it may have is crowded: the filters
#: would be in vain.
_BRIGHT_PX, _LIT_PX = 8, 15
#: Share of the work of the whole frame above which crops do not pay.
_WORTH = 0.6
#: One frame in so many is looked at as a whole although its places are known.
_CONTROL = 16


@dataclass(frozen=True)
class Places:
    """Pixels (n,) of some frames to look at."""

    frame: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Number of places."""
        return len(self.frame)

    @property
    def indices(self) -> tuple[npt.NDArray[np.int64], ...]:
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


class LightFinder:
    """Finds the places that hold light.

    Parameters
    ----------
    psf_sigma_px : float
        PSF width, px.
    camera : Camera
        Where the electrons come from.
    least_significance : float
        How significant a lone candidate must be.
    layer_radii : list of int
        For every convolution of the network, how far what it computes reaches beyond the pixels that are asked for, px.
    """

    def __init__(
        self, psf_sigma_px: float, camera: Camera, least_significance: float, layer_radii: Sequence[int]
    ) -> None:
        from smlm_pb.localization.significance import filter_sizes, profile, read_variance

        self._wide, self._narrow, self._shadow = filter_sizes(psf_sigma_px)
        steps = np.arange(self._narrow + 1, dtype=np.float64)
        self._profile = profile(steps[None], psf_sigma_px)[0]
        self._read_variance, self._least = read_variance(camera), min(least_significance - _BELOW, _BRIGHT)
        self._layers = len(layer_radii)
        self._work, self._bright_work = (
            sum((2 * (reach + radius) + 1) ** 2 for radius in layer_radii) for reach in (_REACH_PX, _BRIGHT_REACH_PX)
        )

    def __call__(self, electrons: FloatArray) -> tuple[list[Group], npt.NDArray[np.bool_]]:
        """Places to look at.

        Parameters
        ----------
        electrons : array (frame, y, x), float32
            Electrons whose noise has variance = mean.

        Returns
        -------
        groups : list of (Places, int)
            With frames numbered from 0, and how far around these places to look.
        whole : array (frame,) of bool
            Frames without places, which are to be looked at as a whole: that is less work.
        """
        most = _WORTH * electrons[0].size * self._layers
        whole: npt.NDArray[np.bool_] = self._bright_pixels(electrons) * self._work > most * _BRIGHT_PX
        few = np.flatnonzero(~whole)
        if len(few) == 0:
            return [], whole
        wide, padded, light = self._wide_significance(electrons[few])
        uncrowded = (wide >= np.float32(_NEAR_PEAK * self._least)).sum((1, 2)) * self._work <= most * _LIT_PX
        whole[few[~uncrowded]] = True
        few, wide, padded, light = (array[uncrowded] for array in (few, wide, padded, light))
        if len(few) == 0:
            return [], whole
        places, height = _peaks(wide, self._least)
        bright, dim = places.at(height >= _BRIGHT), places.at(height < _BRIGHT)
        if len(bright):
            hidden, _ = _peaks(self._narrow_significance(padded, light), _NARROW)
            hidden = hidden.at(_near(hidden, bright, self._shadow))
            dim = dim.and_also(hidden.at(~_near(hidden, bright, _BRIGHT_REACH_PX - 1) & ~_near(hidden, dim, 1)))
        n_dim, n_bright = (np.bincount(group.frame, minlength=len(few)) for group in (dim, bright))
        paying = self._work * n_dim + self._bright_work * n_bright <= most
        whole[few[~paying]] = True
        groups = [
            (Places(few[group.frame], group.row, group.column).at(paying[group.frame]), reach)
            for group, reach in ((dim, _REACH_PX), (bright, _BRIGHT_REACH_PX))
        ]
        return groups, whole

    def _bright_pixels(self, electrons: FloatArray) -> npt.NDArray[np.int64]:
        """Pixels of each frame that are brighter than noise, also that of the molecules, would make them."""
        mean = electrons.mean((1, 2))
        limit = mean + 4 * np.sqrt(np.maximum(mean, 0) + self._read_variance).astype(np.float32)
        count: npt.NDArray[np.int64] = (electrons > limit[:, None, None]).sum((1, 2))
        return count

    def _wide_significance(self, electrons: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Amplitude of a fit of PSF and background at every pixel in standard deviations; and what it is made of."""
        wide = self._wide
        padded = np.pad(electrons, ((0, 0), (wide, wide), (wide, wide)), mode="symmetric")
        light = self._sum_both_ways(padded, self._profile.astype(np.float32))
        total = self._sum_both_ways(padded, np.ones(wide + 1, np.float32))
        return self._in_deviations(light, total, (2 * wide + 1) ** 2), padded, light

    def _narrow_significance(self, padded: FloatArray, light: FloatArray) -> FloatArray:
        """The same in a window that ends where the molecule ends."""
        total = self._sum_both_ways(padded, np.ones(self._narrow + 1, np.float32))
        return self._in_deviations(light, total, (2 * self._narrow + 1) ** 2)

    def _sum_both_ways(self, padded: FloatArray, weights: FloatArray) -> FloatArray:
        """Sum over a window around every pixel, weighted along both axes by the distance."""
        return _sum(_sum(padded, weights, self._wide, 1), weights, self._wide, 2)

    def _in_deviations(self, light: FloatArray, total: FloatArray, pixels: int) -> FloatArray:
        one_axis = np.concatenate((self._profile[:0:-1], self._profile))
        shape = np.outer(one_axis, one_axis)
        mean = shape.sum() / pixels
        norm = float((shape**2).sum() - pixels * mean**2)
        amplitude: FloatArray = (light - np.float32(mean) * total) * np.float32(1 / norm)
        variance = total * np.float32(1 / pixels) - amplitude * np.float32(mean)
        variance += np.float32(self._read_variance)
        np.maximum(variance, np.float32(1e-3), out=variance)
        np.sqrt(variance, out=variance)
        amplitude *= np.float32(np.sqrt(norm))
        amplitude /= variance
        return amplitude


def _sum(padded: FloatArray, weights: FloatArray, margin: int, axis: int) -> FloatArray:
    """Along an axis, whose margin goes."""
    length = padded.shape[axis] - 2 * margin

    def moved(step: int) -> FloatArray:
        part = slice(margin + step, margin + step + length)
        return padded[:, part] if axis == 1 else padded[:, :, part]

    total: FloatArray = moved(0) * weights[0]
    for step in range(1, len(weights)):
        pair = moved(-step) + moved(step)
        if weights[step] != 1:
            pair *= weights[step]
        total += pair
    return total


def _peaks(significance: FloatArray, least: float) -> tuple[Places, FloatArray]:
    """Local maxima and their heights between the pixels, by a parabola along each axis."""
    frame, row, column = np.nonzero(significance >= np.float32(_NEAR_PEAK * least))
    around = np.pad(significance, ((0, 0), (1, 1), (1, 1)), mode="edge")
    middle = significance[frame, row, column]
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    beside = {(dy, dx): around[frame, row + 1 + dy, column + 1 + dx] for dy, dx in steps}
    height = middle.copy()
    for one, other in ((beside[-1, 0], beside[1, 0]), (beside[0, -1], beside[0, 1])):
        curvature = np.maximum(2 * middle - one - other, 1e-3)
        height += np.minimum((one - other) ** 2 / (8 * curvature), 0.25 * np.abs(middle))
    peak = np.logical_and.reduce([middle >= value for value in beside.values()]) & (height >= least)
    return Places(frame[peak], row[peak], column[peak]), height[peak]


def _near(places: Places, others: Places, reach: float) -> npt.NDArray[np.bool_]:
    """Which places have one of the others in their frame within reach along both axes."""
    later, down, across = (np.abs(a[:, None] - b) for a, b in zip(places.indices, others.indices, strict=True))
    result: npt.NDArray[np.bool_] = ((later == 0) & (down <= reach) & (across <= reach)).any(1)
    return result


class Controls:
    """Frames that are looked at as a whole to tell what the others would have told."""

    def __init__(self) -> None:
        self._groups: list[Group] = []
        self._frames: list[int] = []

    def take(
        self, groups: Sequence[Group], whole: npt.NDArray[np.bool_], first_frame: int
    ) -> tuple[list[Group], npt.NDArray[np.bool_]]:
        """Take out every so many of the frames with places; arguments and result as :class:`LightFinder` gives them."""
        number = first_frame + np.arange(len(whole))
        control = ~whole & (number % _CONTROL == 0)
        if not control.any():
            return list(groups), whole
        self._frames += number[control].tolist()
        for places, reach in groups:
            taken = places.at(control[places.frame])
            self._groups.append((Places(taken.frame + first_frame, taken.row, taken.column), reach))
        return [(places.at(~control[places.frame]), reach) for places, reach in groups], whole | control

    def dark_mass(self, rows: npt.NDArray[Any]) -> float:
        """Summed probability of what the frames that these stand for would list far from all places.

        Parameters
        ----------
        rows : structured array (n,)
            What was found, also in the controls.
        """
        here = rows[np.isin(rows["frame"], self._frames)]
        row, column = (np.rint(here[axis]).astype(np.int64) for axis in "yx")
        dark = np.ones(len(here), bool)
        for places, reach in self._groups:
            dark &= ~_near(Places(here["frame"].astype(np.int64), row, column), places, reach)
        return (_CONTROL - 1) * float(here["probability"][dark].sum(dtype=np.float64))


def owners(groups: Sequence[Group], shape: tuple[int, int, int]) -> list[npt.NDArray[np.bool_]]:
    """Which pixels (m, side, side) around the places of each group are theirs: every pixel has one owner at most.

    Parameters
    ----------
    groups : sequence of (Places, int)
        As :class:`LightFinder` gives them.
    shape : (int, int, int)
        Number, height and width of the frames.
    """
    frames, height, width = shape
    owner = np.full(frames * height * width, -1, np.int64)
    first, claims = 0, []
    for places, reach in groups:
        side = np.arange(-reach, reach + 1)
        row, column = places.row[:, None, None] + side[:, None], places.column[:, None, None] + side
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        pixel = ((places.frame[:, None, None] * height + row) * width + column)[inside]
        number = np.broadcast_to(np.arange(first, first + len(places))[:, None, None], inside.shape)[inside]
        owner[pixel] = number
        claims.append((inside, pixel, number))
        first += len(places)
    for inside, pixel, number in claims:
        inside[inside] = owner[pixel] == number
    return [inside for inside, _, _ in claims]


def cut_crops(batch: Tensor, places: Places, reach: int) -> tuple[Tensor, Tensor | None]:
    """Crops (m, channels, side, side) around places, zero beyond the frame.

    And where they are inside the frame (m, 1, side, side); None if all of them are.
    """
    import torch
    from torch.nn import functional

    side = 2 * reach + 1
    frame, row, column = (torch.from_numpy(index).to(batch.device) for index in places.indices)
    padded = functional.pad(batch, (reach,) * 4)
    crops = padded.unfold(2, side, 1).unfold(3, side, 1)[frame, :, row, column]
    height, width = batch.shape[-2:]
    if bool(((row >= reach) & (row < height - reach) & (column >= reach) & (column < width - reach)).all()):
        return crops, None
    steps = torch.arange(-reach, reach + 1, device=batch.device)
    rows, columns = row[:, None] + steps, column[:, None] + steps
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return crops, inside[:, None].to(batch.dtype)
