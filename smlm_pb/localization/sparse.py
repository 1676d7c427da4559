"""Where next to nothing is on, the network looks only at the places that hold light.

The automatic threshold comes with a rule: a candidate that stands alone is dropped unless its light is significant
(:mod:`smlm_pb.localization.significance`). So of places without significant light, far from everything bright, nothing
would be kept, and the network need not look at them. A matched filter finds the light in a small part of the time that
the network takes. A place is looked at

* where the filter of the significance has a peak, from somewhat below the least significance on;
* near something bright, where candidates are not held to that rule, where a less significant peak is left without the
  light of what is bright.

Around each place a crop with the receptive field of the network is cut out, and every layer computes only what the next
one needs of it: what comes out is what the network would say of the whole frame, up to rounding. Frames in which this
would not be less work are looked at as a whole.

Of candidates too improbable to be kept there are some in the dark, too, and the automatic threshold counts them as
molecules that may be missed. So now and then a frame, or a part of a large one, is looked at wherever light is or not,
and stands for the others in this.

``benchmarks/sparse.py`` counts the molecules that are missed on simulated movies of 0.02 to 1 molecules per µm² and 300
to 5000 photons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.matched_filter import NEAR_PEAK, FloatArray, Group, MatchedFilter, Places, find_peaks

if TYPE_CHECKING:
    from smlm_pb.camera import Camera

#: Pixels on each side of a place that are looked at: candidates lie this close to the light that they stand for.
REACH_PX = 3
#: The same of bright places, whose light hides dim neighbours.
_BRIGHT_REACH_PX = 4
#: The filter looks at whole pixels only, and its noise is not exactly that of a fit: so much below is looked at, too.
_BELOW = 0.5
#: From this significance on, light is bright: somewhat less than what the significance rule calls bright.
_BRIGHT = 6.0
#: Peaks of what is left near something bright: less significant ones the network does not take for molecules.
_HIDDEN = 3.5
#: A frame with more bright, or significant, pixels than this for every place that it may have is crowded: the filters
#: would be in vain.
_BRIGHT_PX, _LIT_PX = 8, 15
#: Share of the work of the whole frame above which crops do not pay.
_WORTH = 0.5
#: Pixels of frames that are filtered at a time: what belongs to them fits in the cache.
_FILTERED_PX = 1 << 16
#: Of one frame in so many the dark is looked at although its places are known; of more of the first ones, which may be
#: all.
_CONTROL_FIRST, _CONTROL, _FIRST_FRAMES = 16, 64, 512
#: How far around its middle the dark of a large frame is looked at: as much as a small frame has.
_CONTROL_REACH_PX = 32
#: Frames up to so many times as large are looked at as a whole.
_SMALL = 2.0
#: Steps from one middle to the next, in shares of what there is to choose from: any number of them spreads evenly.
_STEPS = (0.7548776662466927, 0.5698402909980532)


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
        from smlm_pb.localization.significance import filter_sizes, read_variance

        self._filter = MatchedFilter(psf_sigma_px, camera)
        _, self._shadow = filter_sizes(psf_sigma_px)
        self._read_variance, self._least = read_variance(camera), min(least_significance - _BELOW, _BRIGHT)
        self._layers = len(layer_radii)
        self._work, self._bright_work = (
            sum((2 * (reach + radius) + 1) ** 2 for radius in layer_radii) for reach in (REACH_PX, _BRIGHT_REACH_PX)
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
        whole = np.zeros(len(electrons), bool)
        found = []
        step = max(1, _FILTERED_PX // electrons[0].size)
        for start in range(0, len(electrons), step):
            some, whole[start : start + step] = self._in_some(electrons[start : start + step])
            found.append([Places(places.frame + start, places.row, places.column) for places in some])
        dim, bright = (_join(places) for places in zip(*found, strict=True))
        return [(dim, REACH_PX), (bright, _BRIGHT_REACH_PX)], whole

    def _in_some(self, electrons: FloatArray) -> tuple[list[Places], npt.NDArray[np.bool_]]:
        most = _WORTH * electrons[0].size * self._layers
        whole: npt.NDArray[np.bool_] = self._bright_pixels(electrons) * self._work > most * _BRIGHT_PX
        significance = self._filter.significance(electrons[~whole])
        lit = np.count_nonzero(significance >= np.float32(NEAR_PEAK * self._least), axis=(1, 2))
        crowded = lit * self._work > most * _LIT_PX
        whole[~whole] = crowded
        few = np.flatnonzero(~whole)
        both = self._places(electrons[few], significance[~crowded])
        n_dim, n_bright = (np.bincount(places.frame, minlength=len(few)) for places in both)
        paying = self._work * n_dim + self._bright_work * n_bright <= most
        whole[few[~paying]] = True
        return [Places(few[p.frame], p.row, p.column).at(paying[p.frame]) for p in both], whole

    def _places(self, electrons: FloatArray, significance: FloatArray) -> tuple[Places, Places]:
        """Dim and bright places: peaks of the significance, also of what is left without the bright ones."""
        peaks = find_peaks(significance, self._least)
        bright = peaks.at(np.flatnonzero(peaks.height >= _BRIGHT))
        if len(bright.places) == 0:
            return peaks.places, bright.places
        rest = self._filter.significance(self._filter.without(electrons, bright))
        left = find_peaks(rest, min(self._least, _HIDDEN))
        hidden = _near(left.places, bright.places, self._shadow) & (left.height >= _HIDDEN)
        dim = (hidden | (left.height >= self._least)) & ~_near(left.places, bright.places, _BRIGHT_REACH_PX - 1)
        return left.places.at(dim), bright.places

    def _bright_pixels(self, electrons: FloatArray) -> npt.NDArray[np.int64]:
        """Pixels of each frame that are brighter than noise, also that of the molecules, would make them."""
        mean = electrons.mean((1, 2))
        limit = mean + 4 * np.sqrt(np.maximum(mean, 0) + self._read_variance).astype(np.float32)
        count: npt.NDArray[np.int64] = np.count_nonzero(electrons > limit[:, None, None], axis=(1, 2))
        return count


def _near(places: Places, others: Places, reach: float) -> npt.NDArray[np.bool_]:
    """Which places have one of the others in their frame within reach along both axes."""
    later, down, across = (np.abs(a[:, None] - b) for a, b in zip(places.indices, others.indices, strict=True))
    result: npt.NDArray[np.bool_] = ((later == 0) & (down <= reach) & (across <= reach)).any(1)
    return result


def _join(some: Sequence[Places]) -> Places:
    return Places(*(np.concatenate(index) for index in zip(*(places.indices for places in some), strict=True)))


class Controls:
    """Parts of frames that are looked at wherever light is or not, to tell what the dark of the others would have told.

    Parameters
    ----------
    height, width : int
        Of the frames, px.
    """

    def __init__(self, height: int, width: int) -> None:
        self._shape = (height, width)
        side = 2 * _CONTROL_REACH_PX + 1
        larger = height * width / side**2
        self._in_parts = min(height, width) >= side and larger > _SMALL
        self._frames_per_control = larger if self._in_parts else 1.0
        self._groups: list[Group] = []
        self._middles = Places(*(np.empty(0, np.int64) for _ in range(3)))

    def take(
        self, groups: Sequence[Group], whole: npt.NDArray[np.bool_], first_frame: int
    ) -> tuple[list[Group], npt.NDArray[np.bool_]]:
        """Add what is looked at of every so many of the frames with places.

        Arguments and result are as :class:`LightFinder` gives them. Small frames are taken out of those with places, of
        large ones a part is added to the places.
        """
        number = first_frame + np.arange(len(whole))
        control = ~whole & (number % _stands_for(number) == 0)
        if not control.any():
            return list(groups), whole
        middles = self._middles_of(number[control])
        self._middles = self._middles.and_also(middles)
        for places, reach in groups:
            taken = places.at(control[places.frame])
            self._groups.append((Places(taken.frame + first_frame, taken.row, taken.column), reach))
        if self._in_parts:
            parts = Places(middles.frame - first_frame, middles.row, middles.column)
            # First: every pixel belongs to the last place that claims it, and those around light have smaller crops.
            return [(parts, _CONTROL_REACH_PX), *groups], whole
        return [(places.at(~control[places.frame]), reach) for places, reach in groups], whole | control

    def dark_mass(self, rows: npt.NDArray[Any]) -> float:
        """Summed probability of what the frames that these stand for would list far from all places.

        Parameters
        ----------
        rows : structured array (n,)
            What was found, also in the controls.
        """
        if not len(self._middles):
            return 0.0
        here = rows[np.isin(rows["frame"], self._middles.frame)]
        candidates = Places(*(np.rint(here[axis]).astype(np.int64) for axis in ("frame", "y", "x")))
        dark = _near(candidates, self._middles, _CONTROL_REACH_PX) if self._in_parts else np.ones(len(here), bool)
        for places, reach in self._groups:
            dark &= ~_near(candidates, places, reach)
        others = _stands_for(candidates.frame) * self._frames_per_control - 1
        return float((others * here["probability"])[dark].sum(dtype=np.float64))

    def _middles_of(self, frames: npt.NDArray[np.int64]) -> Places:
        """Of the parts that are looked at: those of one frame are always the same."""
        at = [
            _CONTROL_REACH_PX + np.floor(frames // _CONTROL_FIRST * step % 1 * (size - 2 * _CONTROL_REACH_PX))
            for step, size in zip(_STEPS, self._shape, strict=True)
        ]
        return Places(frames, *(place.astype(np.int64) for place in at))


def _stands_for(frame: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One frame in so many is a control, by their number."""
    return np.where(frame < _FIRST_FRAMES, _CONTROL_FIRST, _CONTROL)
