"""Fits the small network that says by how much close candidates are stated too close to each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smlm_pb.localization.neighbour_pull import NeighbourPull, pairs_of
from smlm_pb.localization.statement_calibration import geometric_mean
from smlm_pb.localizations import Localizations
from smlm_pb.training.small_fit import fit_small

FloatArray = npt.NDArray[np.float64]

#: Fewer matched candidates with neighbours do not tell more than the network itself.
LEAST_CANDIDATES = 2000
#: More tell nothing more, and take memory.
_MOST_CANDIDATES = 400_000
#: Less likely ones are seldom in a table.
_LIKELY = 0.1
#: Errors beyond this many stated precisions come from mistaken identity; from the second number on they count less.
_LARGEST_PULL, _OUTLYING = 5.0, 2.0
_HIDDEN = (16, 8)
_EPOCHS, _BATCH = 12, 2048


def fit_pull(
    found: Localizations,
    error_px: FloatArray,
    *,
    psf_sigma_px: npt.ArrayLike,
    background_e: FloatArray,
    seed: int = 0,
) -> NeighbourPull | None:
    """Fit the pull of neighbours to the errors of candidates.

    Parameters
    ----------
    found : Localizations
        Candidates (n,) of simulated scenes, ordered by frame.
    error_px : array (n, 2)
        Their errors along x and y, px; NaN where they are not matched with a true molecule.
    psf_sigma_px : float or array (n,)
        PSF width, px.
    background_e : array (n,)
        Variance in a pixel under each without the molecule, effective e⁻.
    seed : int
        Of the first weights and of the order.

    Returns
    -------
    NeighbourPull or None
        None where fewer than :data:`LEAST_CANDIDATES` are matched and have neighbours.
    """
    judged = np.isfinite(error_px[:, 0]) & (found["probability"] >= _LIKELY)
    judged &= np.cumsum(judged) <= _MOST_CANDIDATES
    last = found["frame"].astype(np.int64)[judged].max(initial=-1)
    until = int(np.searchsorted(found["frame"], last, side="right"))
    width = np.broadcast_to(np.asarray(psf_sigma_px, np.float64), len(found))[:until]
    pairs = pairs_of(found.select(slice(until)), psf_sigma_px=width, background_e=background_e[:until])
    order = np.argsort(pairs.receiver, kind="stable")
    kept = order[judged[pairs.receiver[order]]]
    slots, receiver = np.unique(pairs.receiver[kept], return_inverse=True)
    if len(slots) < LEAST_CANDIDATES:
        return None
    sigma = geometric_mean(found["sigma_x"], found["sigma_y"], np.float32)
    pull = torch.from_numpy((error_px[slots] / sigma[slots, None]).clip(-_LARGEST_PULL, _LARGEST_PULL))
    learner = _Learner(torch.from_numpy(receiver), torch.from_numpy(pairs.direction[:, kept].T), pull.float())
    network = fit_small(
        pairs.features[kept],
        _HIDDEN,
        1,
        epochs=_EPOCHS,
        batches=learner.batches,
        loss=learner.loss,
        seed=seed,
    )
    return NeighbourPull(network)


class _Learner:
    """Sums the pulls on each candidate; ``receiver`` (m,) is sorted and every candidate (n,) is among them."""

    def __init__(self, receiver: Tensor, direction: Tensor, pull: Tensor) -> None:
        self._receiver, self._direction, self._pull = receiver, direction, pull
        self._counts = torch.bincount(receiver, minlength=len(pull))
        self._ends = torch.cumsum(self._counts, 0)

    def batches(self) -> Iterator[Tensor]:
        """All pairs of some candidates at a time."""
        for some in torch.randperm(len(self._pull)).split(_BATCH):
            counts = self._counts[some]
            until = torch.cumsum(counts, 0)
            yield torch.repeat_interleave(self._ends[some] - until, counts) + torch.arange(int(until[-1]))

    def loss(self, strength: Tensor, some: Tensor) -> Tensor:
        """What the pulls leave of the errors."""
        candidates, slot = torch.unique_consecutive(self._receiver[some], return_inverse=True)
        summed = torch.zeros(len(candidates), 2).index_add(0, slot, strength * self._direction[some])
        return nn.functional.huber_loss(summed, self._pull[candidates], delta=_OUTLYING)
