"""Crops of a movie without labels: whatever is done to a crop, the number of molecules in it stays the same.

Two views of each crop are made: as it is, and turned, with part of its light taken away at random. The network must
count alike in both. That alone has the trivial answer "never anything", so crops with labels are always learned from
beside them.

The published loss, the probability that both counts are equal, is not a proper score: it is smallest where the counts
are certain, whichever they are, and of dim molecules "none" is what is soonest certain. Where the view with all its
light teaches the other one by the cross-entropy of the counts, the best answer is what the teacher states.

References
----------
J. Schroeter, PhD thesis, Cardiff University (2021), section 7.1 (Eq. 7.1-7.4; a proposal without experiments).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smlm_pb.errors import ConfigurationError
from smlm_pb.losses import poisson_binomial_log_pmf
from smlm_pb.networks import PointNetwork
from smlm_pb.training.data_settings import ConsistencySettings
from smlm_pb.training.movie_crops import draw_window, load_frames, turned

if TYPE_CHECKING:
    from smlm_pb.training.batches import Views
    from smlm_pb.training.experiment import Experiment

#: Standard deviations above the mean up to which counts are compared.
_SPAN = 6.0
_LARGEST_PROBABILITY = 1 - 1e-6
#: Logarithm of the probability of a count below which it is taken for impossible.
_NEGLIGIBLE = -60.0


class UnlabelledMovie:
    """Draws two views of random crops of a movie.

    Parameters
    ----------
    experiment : Experiment
        With a ``consistency`` section.

    Raises
    ------
    MovieError, ConfigurationError
        When the movie cannot be used.
    """

    def __init__(self, experiment: Experiment) -> None:
        assert experiment.consistency is not None
        self.settings, self.crop_px = experiment.consistency, experiment.crop_px
        self.frames = load_frames(self.settings)
        side = min(self.frames.electrons.shape[1:])
        if self.crop_px > side:
            raise ConfigurationError(
                f"crop_px = {self.crop_px} is larger than the {side} px of movie {self.settings.movie}: lower crop_px."
            )

    def draw(self, rng: np.random.Generator) -> Views:
        """Two views of ``crops`` crops; the second ones are turned alike and dimmed each by its own share."""
        from smlm_pb.training.batches import Views

        turn = int(rng.integers(8)) if self.settings.flips else 0
        first, second = [], []
        for _ in range(self.settings.crops):
            window = draw_window(rng, self.frames, self.crop_px)
            crop = window.cut(self.frames.electrons[window.frame])
            first.append(crop)
            second.append(turned(thinned(rng, crop, rng.uniform(self.settings.keep_light, 1.0)), turn))
        width = torch.full((self.settings.crops,), self.frames.psf_sigma_px, dtype=torch.float32)
        return Views(
            torch.from_numpy(np.stack(first)[:, None]), torch.from_numpy(np.stack(second)[:, None]), width, turn
        )


def thinned(rng: np.random.Generator, electrons: npt.NDArray[np.float32], keep: float) -> npt.NDArray[np.float32]:
    """A frame as it would be with the share ``keep`` of its light.

    Photo-electrons that are each kept with probability ``keep`` have mean and variance ``keep`` times as large, so
    noise of variance ``keep (1 - keep)`` per electron is added to the scaled frame.
    """
    spread = np.sqrt(keep * (1 - keep) * electrons.clip(0))
    return (keep * electrons + spread * rng.normal(size=electrons.shape)).astype(np.float32)


def consistency_loss(
    network: PointNetwork, views: Views, settings: ConsistencySettings, *, progress: float
) -> dict[str, Tensor]:
    """How unlike the counts of the two views are, tile by tile.

    Parameters
    ----------
    network : PointNetwork
        In training.
    views : Views
        From :meth:`UnlabelledMovie.draw`.
    settings : ConsistencySettings
        Tiles and weight.
    progress : float
        Share of the run that is done.

    Returns
    -------
    dict of str to Tensor
        ``consistency``: mean over crops of the tiles' summed loss, :func:`taught_count_loss` or
        :func:`equal_count_loss`, and ``weighted``: the same with its present weight.
    """
    both = network(torch.cat((views.first, views.second)), torch.cat((views.psf_sigma_px, views.psf_sigma_px))).logit
    first, second = both.chunk(2)
    compare = taught_count_loss if settings.form == "taught" else equal_count_loss
    loss = compare(_tiles(first, settings.tile_px), _tiles(_turned_back(second, views.turn), settings.tile_px))
    loss = loss.sum() / len(first)
    weight = settings.weight * (min(1.0, progress / settings.ramp) if settings.ramp else 1.0)
    return {"consistency": loss, "weighted": weight * loss}


def equal_count_loss(first: Tensor, second: Tensor) -> Tensor:
    """``-log Pr(C1 = C2)`` of two independent Poisson-binomial counts.

    Parameters
    ----------
    first, second : Tensor (items, candidates)
        Existence logits; ``-inf`` for padding.

    Returns
    -------
    Tensor (items,)
        The loss (Eq. 7.4 with its sign turned), from the part of the distributions within six standard deviations.
    """
    p, q = _log_count_distributions(first, second)
    return -torch.logsumexp(p + q, 1).to(first)


def taught_count_loss(teacher: Tensor, pupil: Tensor) -> Tensor:
    """How far the pupil's count distribution lies from the teacher's, ``Σ Pr(Ct = c) log(Pr(Ct = c)/Pr(Cp = c))``.

    Zero where both are the same, however uncertain; the teacher is not moved.

    Parameters
    ----------
    teacher, pupil : Tensor (items, candidates)
        Existence logits; ``-inf`` for padding.

    Returns
    -------
    Tensor (items,)
        The loss, from the part of the distributions within six standard deviations.
    """
    taught, learned = _log_count_distributions(teacher.detach(), pupil)
    # What the teacher holds impossible adds nothing, and has no gradient.
    gap = torch.where(taught > _NEGLIGIBLE, taught - learned.clamp_min(_NEGLIGIBLE), 0.0)
    return (taught.exp() * gap).sum(1).to(pupil)


def _log_count_distributions(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of both count distributions, up to the counts that matter."""
    # A probability that rounds to 1 would make counts impossible.
    p, q = (torch.sigmoid(logits.double()).clamp_max(_LARGEST_PROBABILITY) for logits in (first, second))
    mean = torch.maximum(p.detach().sum(1), q.detach().sum(1))
    highest = int(torch.ceil(mean + _SPAN * mean.clamp_min(1).sqrt()).max())
    highest = min(highest, max(first.shape[1], second.shape[1]))
    return poisson_binomial_log_pmf(p, highest), poisson_binomial_log_pmf(q, highest)


def _tiles(logits: Tensor, tile_px: int) -> Tensor:
    """Logits ``(batch, n, height, width)`` by whole tiles: ``(batch * tiles, candidates)``."""
    batch, n, height, width = logits.shape
    rows, columns = height // tile_px, width // tile_px
    inner = logits[:, :, : rows * tile_px, : columns * tile_px]
    tiles = inner.reshape(batch, n, rows, tile_px, columns, tile_px).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(batch * rows * columns, -1)


def _turned_back(maps: Tensor, turn: int) -> Tensor:
    """Undo :func:`smlm_pb.training.movie_crops.turned`."""
    maps = torch.rot90(maps, -(turn % 4), (2, 3))
    return maps.transpose(2, 3) if turn >= 4 else maps
