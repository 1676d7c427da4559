"""How far labels lie from where a trained model puts the same molecules: a common shift, and a scatter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from smlm_pb.localizations import Localizations

#: Pairs further apart than this are no pairs of label and molecule, px.
LARGEST_SHIFT_PX = 3.0
#: Pairs within this distance of the common shift are looked at, px.
_CORE_PX = 1.5
_BIN_PX, _SMOOTH_BINS = 0.1, 3.0
_FEWEST_PAIRS = 30
#: A shift smaller than this multiple of its error, or than this, is nothing to speak of.
_SIGNIFICANT, _LEAST_PX = 4.0, 0.03
#: The shift of a table whose origin is taken for another one is this along both axes, px.
_HALF_PIXEL, _NEAR_HALF = 0.5, 0.12


@dataclass(frozen=True)
class LabelShift:
    """Labels against a model, px.

    Parameters
    ----------
    x_px, y_px : float
        Label minus model, the same for all molecules.
    error_px : float
        Standard error of each of the two.
    scatter_px : float
        Standard deviation per axis of the labels around that, without the model's own error.
    pairs : int
        Pairs of a label and a molecule that tell it.
    """

    x_px: float
    y_px: float
    error_px: float
    scatter_px: float
    pairs: int

    @property
    def length_px(self) -> float:
        """Length of the shift."""
        return float(np.hypot(self.x_px, self.y_px))

    @property
    def is_significant(self) -> bool:
        """Whether there is a shift worth speaking of."""
        return self.length_px > max(_SIGNIFICANT * self.error_px, _LEAST_PX)

    @property
    def looks_like_half_a_pixel(self) -> bool:
        """Whether the table seems to count from the corner of a pixel where it should from the centre, or so."""
        return all(abs(abs(value) - _HALF_PIXEL) < _NEAR_HALF for value in (self.x_px, self.y_px))

    def describe(self, model: str, pixel_size_nm: float | None) -> str:
        """Say it in one sentence."""
        nm = f" ({self.length_px * pixel_size_nm:.0f} nm)" if pixel_size_nm else ""
        return (
            f"the labels lie {self.x_px:+.3f} px in x and {self.y_px:+.3f} px in y{nm} from where model '{model}' puts "
            f"the same molecules (± {self.error_px:.3f} px, {self.pairs} pairs) and scatter by {self.scatter_px:.2f} px"
        )


def label_shift(labels: Localizations, found: Localizations) -> LabelShift | None:
    """Compare labels with what a model finds in the same frames.

    All pairs in one frame are taken together: those of a label and its own molecule lie around the shift, all others
    anywhere. The shift is the mean of the pairs around the peak, and the others are subtracted by their density further
    out.

    Parameters
    ----------
    labels : Localizations
        The labels.
    found : Localizations
        What a trained model finds in the movie.

    Returns
    -------
    LabelShift or None
        None where fewer than 30 pairs tell it.
    """
    pairs = _pairs(labels, found)
    if len(pairs) < _FEWEST_PAIRS:
        return None
    centre = _peak(pairs)
    for _ in range(20):
        near = pairs[((pairs - centre) ** 2).sum(1) < _CORE_PX**2]
        if not len(near):
            return None
        moved = near.mean(0)
        done = bool(np.abs(moved - centre).max() < 1e-4)
        centre = moved
        if done:
            break
    distance2 = ((pairs - centre) ** 2).sum(1)
    inside = distance2 < _CORE_PX**2
    density = np.sum(~inside) / (np.pi * (LARGEST_SHIFT_PX**2 - _CORE_PX**2))
    others = min(float(density * np.pi * _CORE_PX**2), float(inside.sum()))
    own = inside.sum() - others
    if own < _FEWEST_PAIRS:
        return None
    # Pairs spread evenly over a circle of radius R have the variance R² / 4 along each axis.
    variance = max(0.0, (distance2[inside].sum() / 2 - others * _CORE_PX**2 / 4) / own)
    model = float(np.mean(found["sigma_x"].astype(np.float64) ** 2)) if "sigma_x" in found and len(found) else 0.0
    error = float(np.sqrt(distance2[inside].mean() / 2 * inside.sum()) / own)
    return LabelShift(float(centre[0]), float(centre[1]), error, float(np.sqrt(max(0.0, variance - model))), round(own))


def _pairs(labels: Localizations, found: Localizations) -> npt.NDArray[np.float64]:
    """Label minus molecule (pairs, 2) as (x, y), of all pairs within reach in the same frame."""
    # Frames far apart along a third axis: one search for all.
    apart = 10 * LARGEST_SHIFT_PX
    places = [
        np.column_stack((t["x"], t["y"], apart * t["frame"].astype(np.float64))).astype(np.float64)
        for t in (labels, found)
    ]
    if not (len(places[0]) and len(places[1])):
        return np.zeros((0, 2))
    hits = cKDTree(places[0]).query_ball_tree(cKDTree(places[1]), LARGEST_SHIFT_PX)
    mine = np.repeat(np.arange(len(hits)), [len(near) for near in hits])
    theirs = np.array([one for near in hits for one in near], dtype=np.int64)
    return (places[0][mine] - places[1][theirs])[:, :2]


def _peak(pairs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Where pairs are densest."""
    edges = np.arange(-LARGEST_SHIFT_PX, LARGEST_SHIFT_PX + _BIN_PX / 2, _BIN_PX)
    counts, _, _ = np.histogram2d(pairs[:, 0], pairs[:, 1], bins=(edges, edges))
    smooth = gaussian_filter(counts, _SMOOTH_BINS, mode="constant")
    row, column = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    middle = (edges[:-1] + edges[1:]) / 2
    return np.array([middle[row], middle[column]])
