"""Explaining the frames: rounds of proposals, x-steps and τ-steps, part of the movie by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smlm_pb.training.label_free.kernel import Kernel
from smlm_pb.training.label_free.molecules import Frames, Molecules, Reconstruction, log_likelihood
from smlm_pb.training.label_free.proposals import better, merged, needed, peaks
from smlm_pb.training.label_free.steps import improve_background, improve_kernel, move_molecules, with_kernel

Chunk = tuple[Frames, Reconstruction]
Propose = Callable[[Frames], Molecules]

#: x-steps after something was added, and after something was taken away.
_STEPS, _STEPS_AFTER = 8, 4
#: Sweeps over what is left unexplained.
_SWEEPS = 2
#: Alternations of τ-step and x-step in one round.
_KERNEL_STEPS = 6
#: Over-relaxation of the τ-step; expectation maximisation converges for any exponent below 2.
_POWER = 1.7


@dataclass(frozen=True)
class Limits:
    """What keeps the lifted variables in bounds.

    Parameters
    ----------
    most : int
        K: most molecules of a frame.
    separation_px : float
        Molecules closer than this must be worth it: together they must explain the frame better than one does.
    tie_px : float
        How far x-steps may lead away from where the detector put a molecule.
    """

    most: int
    separation_px: float
    tie_px: float = 1.0


def begin(frames: Frames, kernel: Kernel) -> Reconstruction:
    """No molecules yet, and the background of each frame from its median."""
    _, height, width = frames.shape
    level = frames.electrons.flatten(1).median(dim=1).values.clamp_min(0.1)
    flat = torch.ones(height, width, dtype=level.dtype, device=level.device)
    return Reconstruction(kernel, Molecules.none(level.device), level, flat)


def explain(
    frames: Frames, start: Reconstruction, limits: Limits, *, usual_photons: float, tied: bool = False
) -> Reconstruction:
    """Fit the molecules, drop those that are not needed, and look for what is missing.

    Parameters
    ----------
    frames : Frames
        Part of the movie.
    start : Reconstruction
        Where to start from.
    limits : Limits
        Bounds.
    usual_photons : float
        Light of a typical molecule, e⁻; 0 where it is not known yet.
    tied : bool
        Whether the molecules of ``start`` are the detector's, to be left only for a reason.

    Returns
    -------
    Reconstruction
    """
    state = _fitted(frames, start, limits, usual_photons, tie=start.molecules.position if tied else None)
    for _ in range(_SWEEPS):
        more = peaks(frames, state, separation_px=limits.separation_px, most=limits.most)
        if len(more.frame) == 0:
            break
        grown = state.with_molecules(state.molecules.joined(more))
        state = better(frames, state, _fitted(frames, grown, limits, usual_photons))
    return state


def _fitted(
    frames: Frames, state: Reconstruction, limits: Limits, usual_photons: float, *, tie: Tensor | None = None
) -> Reconstruction:
    for _ in range(_STEPS):
        state = move_molecules(frames, state, tie=tie, tie_px=limits.tie_px)
    keep = needed(frames, state, usual_photons=usual_photons)
    state = state.with_molecules(state.molecules.select(keep))
    fewer = merged(state, separation_px=limits.separation_px)
    for _ in range(_STEPS_AFTER):
        state = move_molecules(frames, state)
    if len(fewer.molecules.frame) == len(state.molecules.frame):
        return state
    for _ in range(_STEPS_AFTER):
        fewer = move_molecules(frames, fewer)
    return better(frames, fewer, state)


def run_round(
    chunks: Sequence[Chunk],
    limits: Limits,
    *,
    propose: Propose | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Chunk] | None:
    """One round over the movie: x-steps from two starts, then τ-steps.

    Every part starts once from the molecules of the last round and once from the detector's; frame by frame the better
    explanation stays. Then the kernel and the shape of the background follow.

    Parameters
    ----------
    chunks : sequence of (Frames, Reconstruction)
        The movie, all parts with the same kernel.
    limits : Limits
        Bounds.
    propose : callable, optional
        The detector: molecules of a part.
    should_stop : callable, optional
        Asked after each part.

    Returns
    -------
    list of (Frames, Reconstruction), or None
        None where it was stopped: nothing has changed then.
    """
    usual = usual_photons(chunks)
    done: list[Chunk] = []
    for frames, state in chunks:
        if should_stop is not None and should_stop():
            return None
        found = explain(frames, state, limits, usual_photons=usual)
        if propose is not None:
            told = state.with_molecules(propose(frames))
            found = better(frames, found, explain(frames, told, limits, usual_photons=usual, tied=True))
        done.append((frames, found))
    return learn_kernel(done, should_stop=should_stop)


def learn_kernel(chunks: list[Chunk], *, should_stop: Callable[[], bool] | None = None) -> list[Chunk] | None:
    """Let kernel and molecules follow each other, and the background take what is left."""
    for _ in range(_KERNEL_STEPS):
        if should_stop is not None and should_stop():
            return None
        kernel = improve_kernel(chunks, power=_POWER)
        chunks = [(frames, move_molecules(frames, with_kernel(state, kernel))) for frames, state in chunks]
    shape = improve_background(chunks)
    return [(frames, replace(state, shape=shape)) for frames, state in chunks]


def usual_photons(chunks: Sequence[Chunk]) -> float:
    """Median light of the molecules, e⁻; 0 without any."""
    light = torch.cat([state.molecules.photons for _, state in chunks])
    return float(light.median()) if len(light) else 0.0


def deviance_per_px(chunks: Sequence[Chunk]) -> float:
    """How much better a perfect explanation would be, per pixel; about 1 where only noise is left."""
    total, pixels = 0.0, 0
    for frames, state in chunks:
        perfect = Frames(frames.electrons, frames.read_variance)
        best = log_likelihood(perfect, frames.electrons.clamp_min(0.0))
        total += float(2 * (best - log_likelihood(frames, state.expected())).sum())
        pixels += frames.electrons.numel()
    return total / pixels
