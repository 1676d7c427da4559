"""How molecules lie to each other within a frame: anywhere, along lines, or in spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from smlm_pb.localization.neighbours import offsets_between, pairs_within
from smlm_pb.pair_density import pairs_between, ring_px2

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

Arrangement = Literal["uniform", "filaments", "spots", "unknown"]

#: Distances between which pairs are counted, px. Closer ones may have been taken for one molecule.
_NEAR_PX, _FAR_PX = (2.0, 4.0), (4.0, 8.0)
_MOST_FRAMES = 200
#: Near pairs that there must be on average before their number tells anything.
_FEWEST_PAIRS = 50
#: Excess of near pairs that is more than chance and uneven light make.
_EXCESS = 1.12
#: On a line pairs per area fall as 1/distance, on small spots much faster beyond their size.
_STEEP = 1.8


def arrangement_of(molecules: Localizations) -> Arrangement:
    """Tell by the pair correlation on what kind of structure molecules lie.

    Pairs are counted within single frames, where a molecule that blinks at one place again and again is one molecule,
    and held against how many there would be if as many molecules lay anywhere in the same frames.

    Parameters
    ----------
    molecules : Localizations
        Frame by frame.

    Returns
    -------
    {"uniform", "filaments", "spots", "unknown"}
        ``spots`` are clusters and small rings; ``unknown`` where there are too few pairs.
    """
    frames, count = np.unique(molecules["frame"], return_counts=True)
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(_MOST_FRAMES, len(frames))).round().astype(int))
    counted = molecules.select(np.isin(molecules["frame"], frames[chosen]))
    box = np.array((molecules.info.width, molecules.info.height), np.float64)
    pairs_anywhere = float((count[chosen] * (count[chosen] - 1.0)).sum()) / 2 / float(np.prod(box))
    if pairs_anywhere * ring_px2(*_NEAR_PX) < _FEWEST_PAIRS:
        return "unknown"
    first, second, _ = pairs_within(counted, _FAR_PX[1])
    apart = offsets_between(counted, first, second)
    near, far = (
        pairs_between(*ring, apart, np.ones(len(first)), box) / (pairs_anywhere * ring_px2(*ring))
        for ring in (_NEAR_PX, _FAR_PX)
    )
    if near < _EXCESS and far < _EXCESS:
        return "uniform"
    return "filaments" if near >= _EXCESS and near / far < _STEEP else "spots"
