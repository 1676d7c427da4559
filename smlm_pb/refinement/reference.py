"""What is usual in a movie: by it, single fits are judged.

A network that suspects a hidden neighbour, or two molecules where one was found, states a larger σ than it does for a
lone molecule of the same brightness. The likelihood of the pixels knows nothing of such alternatives. So the ratio of
both tells where the fit must not be believed, once it is known what is usual.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
#: Fewer molecules give one ratio instead of a line.
_ENOUGH_FOR_A_LINE = 100
_BINS = 6
#: Fewer molecules cannot say that the PSF width is wrong, or how far fits move.
_ENOUGH = 20


class Reference(NamedTuple):
    """What is usual in a movie.

    The σ that the network states for a molecule without complications is σ² = (``factor`` · bound)² + ``floor_px``².
    """

    factor: float = 1.0
    floor_px: float = 0.0
    width_error_px: float = 0.0
    """By how much the molecules are wider than the PSF width of the fit, px."""
    disagreement: float = 0.5
    """Standard deviation of fitted minus network position, in units of the σ that the network states."""

    def usual_sigma(self, bound_px: npt.ArrayLike) -> FloatArray:
        """The usual σ, px, of molecules whose bound is ``bound_px``."""
        return np.hypot(self.factor * np.asarray(bound_px, dtype=np.float64), self.floor_px)


def usual_width_error(score: FloatArray, information: FloatArray) -> float:
    """Median over molecules of the step of the PSF width, px, that Fisher scoring would make; 0 for too few."""
    if score.size < _ENOUGH:
        return 0.0
    return weighted_median(score / information.clip(min=1e-9), information)


def usual_disagreement(deviations: FloatArray) -> float:
    """Robust standard deviation of fitted minus network position, in stated σ; 0.5 for too few."""
    if deviations.size < _ENOUGH:
        return Reference().disagreement
    return 1.4826 * float(np.median(np.abs(deviations)))


def weighted_median(values: FloatArray, weights: FloatArray) -> float:
    """The value that halves the weights."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, 0.5 * below[-1])])


def usual_precision(stated_px: FloatArray, bound_px: FloatArray) -> tuple[float, float]:
    """Measure what a network usually states, by medians.

    Parameters
    ----------
    stated_px : array (molecules,)
        σ of the network, px, of molecules that the model fits well.
    bound_px : array (molecules,)
        σ of the fit, px.

    Returns
    -------
    factor, floor_px : float
        See :class:`Reference`; 1 and 0 without any molecule.
    """
    from scipy.optimize import nnls

    sound = np.isfinite(stated_px) & np.isfinite(bound_px) & (bound_px > 0) & (stated_px > 0)
    stated, bound = stated_px[sound], bound_px[sound]
    if stated.size == 0:
        return 1.0, 0.0
    if stated.size < _ENOUGH_FOR_A_LINE:
        return float(np.median(stated / bound)), 0.0
    parts = np.array_split(np.argsort(bound), _BINS)
    centres = np.array([[np.median(bound[part]) ** 2, np.median(stated[part]) ** 2] for part in parts])
    design = np.column_stack([centres[:, 0], np.ones(len(centres))]) / centres[:, 1:]
    (factor2, floor2), _ = nnls(design, np.ones(len(centres)))
    return float(np.sqrt(factor2)), float(np.sqrt(floor2))
