"""What the detector learns from: crops of the movie with the molecules that explain them, and crops drawn anew.

A crop drawn anew has the molecules, the background and the PSF that were learned, at shifted places and with fresh
noise. Its molecules are exactly known, while those of the movie's own crops were fitted to the very noise that the
detector sees: from these alone it would learn to state too small an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smlm_pb.localization.movie_population import measured_density_around
from smlm_pb.population import Population
from smlm_pb.training.batches import Batch
from smlm_pb.training.label_free.molecules import Molecules, Reconstruction
from smlm_pb.training.label_free.reconstruct import Chunk

#: Share of the crops drawn anew that hold the molecules of two places: crowds teach what the movie seldom has.
_DOUBLED = 0.5


class Crops:
    """Draws batches from an explained movie; batch ``k`` is the same whenever it is drawn.

    Parameters
    ----------
    chunks : sequence of (Frames, Reconstruction)
        The movie with its explanation.
    psf_sigma_px : float
        PSF width that the network is told.
    seed, batch_size, crop_px : int
        As in :class:`smlm_pb.training.label_free.settings.LabelFreeSettings`.
    renoised : float
        Share of the crops that are drawn anew.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk],
        *,
        psf_sigma_px: float,
        seed: int,
        batch_size: int,
        crop_px: int,
        renoised: float,
    ) -> None:
        self._electrons = torch.cat([frames.electrons for frames, _ in chunks]).cpu()
        self._noise = chunks[0][0].read_variance.cpu()
        self._level = torch.cat([state.level for _, state in chunks]).cpu()
        self._shape = chunks[0][1].shape.cpu()
        self._kernel = chunks[0][1].kernel
        self._molecules = all_molecules(chunks)
        counts = self._molecules.per_frame(len(self._electrons))
        self._first = torch.cat((torch.zeros(1, dtype=torch.long), torch.cumsum(counts, 0)))
        self._told, self._seed, self._renoised = psf_sigma_px, seed, renoised
        self._batch, self._side = batch_size, crop_px
        self._population = population_of(self._molecules, tuple(self._electrons.shape))

    def draw(self, step: int) -> Batch:
        """The crops of one detector step."""
        rng = np.random.default_rng([self._seed, step, 5])
        n_new = int(np.floor(self._batch * self._renoised + rng.random()))
        new = self._drawn_anew(rng, min(n_new, self._batch))
        own = self._cut(rng, self._batch - min(n_new, self._batch))
        joined = [part for part in (own, new) if part is not None]
        electrons, background = torch.cat([part[0] for part in joined]), torch.cat([part[1] for part in joined])
        offset, molecules = 0, []
        for image, _, found in joined:
            molecules.append(found._replace(frame=found.frame + offset))
            offset += len(image)
        truth = Molecules(*(torch.cat(columns) for columns in zip(*molecules, strict=True)))
        return Batch(
            electrons=electrons[:, None],
            background=background,
            psf_sigma_px=torch.full((self._batch,), self._told),
            position=truth.position,
            photons=truth.photons,
            item=truth.frame,
            population=None if self._population is None else self._population.expand(self._batch, -1),
        )

    def _place(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """A random crop: frame, first row, first column."""
        n, height, width = self._electrons.shape
        frame, row, column = (int(rng.integers(k)) for k in (n, height - self._side + 1, width - self._side + 1))
        return frame, row, column

    def _near(self, place: tuple[int, int, int], margin_px: float) -> tuple[Tensor, Tensor]:
        """Positions relative to a crop, and photons, of the molecules in it and up to a margin around it."""
        frame, row, column = place
        part = slice(int(self._first[frame]), int(self._first[frame + 1]))
        position = self._molecules.position[part] - torch.tensor([row, column])
        inside = ((position >= -0.5 - margin_px) & (position < self._side - 0.5 + margin_px)).all(1)
        return position[inside], self._molecules.photons[part][inside]

    def _window(self, place: tuple[int, int, int]) -> tuple[slice, slice]:
        _, row, column = place
        return slice(row, row + self._side), slice(column, column + self._side)

    def _cut(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Molecules] | None:
        """Crops of the movie, and the molecules that explain them."""
        if count == 0:
            return None
        places = [self._place(rng) for _ in range(count)]
        images = torch.stack([self._electrons[(place[0], *self._window(place))] for place in places])
        return images, self._backgrounds(places), _joined([self._near(place, 0.0) for place in places])

    def _backgrounds(self, places: list[tuple[int, int, int]]) -> Tensor:
        return torch.stack([self._level[place[0]] * self._shape[self._window(place)] for place in places])

    def _drawn_anew(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Molecules] | None:
        """Crops made of what was learned."""
        if count == 0:
            return None
        places = [self._place(rng) for _ in range(count)]
        margin = float(self._kernel.radius_px)
        held = []
        for place in places:
            parts = [self._near(place, margin)]
            if rng.random() < _DOUBLED:
                parts.append(self._near(self._place(rng), margin))
            position, photons = (torch.cat(columns) for columns in zip(*parts, strict=True))
            shift = torch.from_numpy(rng.uniform(-0.5, 0.5, 2).astype(np.float32))
            held.append((position + shift, photons))
        background = self._backgrounds(places)
        flat = torch.ones(self._side, self._side)
        scene = Reconstruction(self._kernel, _joined(held), torch.zeros(count), flat)
        expected = scene.expected() + background
        noise = torch.stack([self._noise[self._window(place)] for place in places]).sqrt()
        image = rng.poisson(expected.clamp_min(0.0).numpy()) + rng.normal(size=expected.shape) * noise.numpy()
        inside = ((scene.molecules.position >= -0.5) & (scene.molecules.position < self._side - 0.5)).all(1)
        return torch.from_numpy(image.astype(np.float32)), background, scene.molecules.select(inside)


def all_molecules(chunks: Sequence[Chunk]) -> Molecules:
    """The molecules of the whole movie, frames counted through, on the processor."""
    offset, parts = 0, []
    for frames, state in chunks:
        found = Molecules(*(column.cpu() for column in state.molecules))
        parts.append(found._replace(frame=found.frame + offset))
        offset += len(frames.electrons)
    return Molecules(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def population_of(molecules: Molecules, shape: tuple[int, ...]) -> Tensor | None:
    """What a network may be told of the molecules in frames of that shape as a whole (1, 5); None without any."""
    n = len(molecules.frame)
    if n == 0:
        return None
    low, middle, high = torch.quantile(molecules.photons[: 1 << 20], torch.tensor([0.16, 0.5, 0.84])).tolist()
    around = measured_density_around(molecules.rows(), np.ones(n), shape)
    return torch.tensor([Population(middle, low, high, n / math.prod(shape), around).values()])


def _joined(held: list[tuple[Tensor, Tensor]]) -> Molecules:
    item = torch.repeat_interleave(torch.arange(len(held)), torch.tensor([len(photons) for _, photons in held]))
    return Molecules(item, torch.cat([p for p, _ in held]).float(), torch.cat([n for _, n in held]).float())
