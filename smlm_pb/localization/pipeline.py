"""Movie → blocks → photo-electrons → network → candidates, each stage ahead of the next.

Reading runs in one thread, and whatever is done with the candidates in the caller's. In between, every processor core
has a thread of its own that takes a block all the way from camera values to candidates: cores that share a block wait
for each other at every layer, and all but one of them idle while candidates are put together. A graphics card has
several threads, each with a stream of its own, so that one copies while another computes. Blocks come out in the order
of time, and at most a few are in memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.candidate_finder import CandidateFinder, arithmetic
from smlm_pb.localization.candidates import Candidates
from smlm_pb.localization.prefetch import Prefetch, Workers
from smlm_pb.localization.threads import fit_threads
from smlm_pb.movies import Movie, check_block, iterate_blocks

if TYPE_CHECKING:
    import torch

    from smlm_pb.camera import Camera
    from smlm_pb.localization.model import Model
    from smlm_pb.population import Population

#: Blocks that wait between two stages.
_DEPTH = 2
# Measured on one and two threads of a processor: up to eight frames of 64×64 px at a time are equally fast, 32 take
# half as long again, because the features no longer fit in the cache. Of a frame of 512×512 px, tiles of 256 px are the
# fastest: the margins of smaller ones cost more than the cache gains.
_CPU_BATCH_PX = 1 << 15
# Small, because results come block by block; but what follows the network has a price for every block, too.
_CPU_BLOCK_PX, _CPU_LEAST_PX, _CPU_BLOCK_FRAMES = 1 << 19, 1 << 15, 32
_CPU_TILE_PX = 256
_GPU_BATCH_PX = 1 << 20
_GPU_BLOCK_PX = 1 << 22
_GPU_TILE_PX = 1024
#: A frame this much wider than a tile is still predicted whole: the margins of tiles would cost more.
_WHOLE_FRAME_FACTOR = 1.2
#: Threads that feed one graphics card: one copies, one computes, one puts candidates together.
_THREADS_PER_CARD = 3
#: Of larger frames two are in work at a time, not one for every core: they take much memory, and long to stop.
_LARGE_FRAME_PX = 1 << 17


@dataclass(frozen=True)
class Plan:
    """How the work is cut up; the result does not depend on it.

    Parameters
    ----------
    block_frames : int
        Frames that are read, and finished, at a time.
    batch_frames : int
        Frames that the network sees at a time.
    tile_px : int
        Side of the tiles that larger frames are cut into, px.
    """

    block_frames: int
    batch_frames: int
    tile_px: int


class Block(NamedTuple):
    """Candidates of the frames ``start`` to ``stop`` (exclusive)."""

    start: int
    stop: int
    candidates: Candidates


def plan_work(height: int, width: int, device: torch.device) -> Plan:
    """Choose sizes that keep the device busy and the memory small.

    Parameters
    ----------
    height, width : int
        Size of a frame, px.
    device : torch.device
        Where the network runs.

    Returns
    -------
    Plan
    """
    on_cpu = device.type == "cpu"
    pixels, longest = height * width, max(height, width)
    largest = _CPU_TILE_PX if on_cpu else _GPU_TILE_PX
    # Equal tiles: a narrow last one would be mostly margin.
    tiles = 1 if longest <= largest * _WHOLE_FRAME_FACTOR else -(-longest // largest)
    block = min(_CPU_BLOCK_PX // pixels, max(_CPU_BLOCK_FRAMES, _CPU_LEAST_PX // pixels))
    return Plan(
        block_frames=max(1, block if on_cpu else _GPU_BLOCK_PX // pixels),
        batch_frames=max(1, (_CPU_BATCH_PX if on_cpu else _GPU_BATCH_PX) // pixels),
        tile_px=-(-longest // tiles),
    )


@contextmanager
def find_candidates(
    movie: Movie,
    model: Model,
    *,
    camera: Camera,
    psf_sigma_px: float,
    frames: tuple[int, int],
    floor: float,
    least_significance: float = 0.0,
    population: Population | None = None,
    precision: str = "float32",
    plan: Plan | None = None,
) -> Iterator[Iterator[Block]]:
    """Find the candidates of a movie, block by block.

    Parameters
    ----------
    movie : Movie
        The movie.
    model : Model
        The network on its device.
    camera : Camera
        Turns camera values into photo-electrons.
    psf_sigma_px : float
        PSF width that the network is told, px.
    frames : (int, int)
        First frame and the one after the last.
    floor : float
        Smallest probability of a candidate that is listed.
    least_significance : float
        Lone candidates whose light is less significant are left out; see :mod:`smlm_pb.localization.significance`.
    population : Population, optional
        What the network is told of the movie's molecules; see :mod:`smlm_pb.localization.movie_population`.
    precision : {"float32", "bfloat16", "int8"}
        Arithmetic of the convolutions; see :mod:`smlm_pb.localization.precision`.
    plan : Plan, optional
        Sizes; chosen for the device when left out.

    Yields
    ------
    iterator of Block
        In the order of time. It must be used inside the ``with`` block, whose end stops the threads.

    Raises
    ------
    MovieError
        When frames cannot be read or hold values that are no numbers.
    """
    import torch

    plan = plan or plan_work(movie.height, movie.width, model.device)
    threads = fit_threads(model)
    n_blocks = -(-(frames[1] - frames[0]) // plan.block_frames)
    unwanted = Event()
    finders = [
        CandidateFinder(
            replica,
            psf_sigma_px=psf_sigma_px,
            floor=floor,
            plan=plan,
            camera=camera,
            least_significance=least_significance,
            population=population,
            precision=precision,
            unwanted=unwanted,
        )
        for replica in replicas(model)
    ]
    with ExitStack() as stack:
        # The threads' own changes of these settings, which hold for the whole process, must not outlast them.
        stack.enter_context(arithmetic(model.device))
        stack.callback(torch.set_num_threads, threads)
        read = stack.enter_context(Prefetch(_read(movie, frames, plan, model.network.context_frames), _DEPTH))
        if _on_processors(model.device):
            large = movie.height * movie.width > _LARGE_FRAME_PX
            several = max(1, min(2 if large else threads, threads, n_blocks))
            crew = [_member(finders[0], threads // several)] * several
        else:
            crew = [_member(finder, threads) for finder in finders for _ in range(_THREADS_PER_CARD)]
        workers = stack.enter_context(Workers(read, crew, _DEPTH))
        stack.callback(unwanted.set)  # before the threads are waited for
        yield workers


def _on_processors(device: torch.device) -> bool:
    """Whether threads compute, and not only feed a device that does."""
    return device.type == "cpu"


class _Read(NamedTuple):
    """Camera values of some frames, and of their neighbours in time where the network sees those too."""

    #: Number of the first frame, and of the one after the last, of those that are looked at.
    start: int
    stop: int
    #: Number of the first frame that was read.
    first: int
    adu: npt.NDArray[Any]


def _read(movie: Movie, frames: tuple[int, int], plan: Plan, context: int) -> Iterator[_Read]:
    if context == 0:
        for first, block in iterate_blocks(movie, *frames, plan.block_frames):
            check_block(block, first, movie.name)
            yield _Read(first, first + len(block), first, block)
        return
    for start in range(*frames, plan.block_frames):
        stop = min(start + plan.block_frames, frames[1])
        # Neighbours are those of the movie: which frames are asked for, and in what portions, changes no result.
        first, end = max(0, start - context), min(movie.n_frames, stop + context)
        block = movie.read(first, end)
        check_block(block, first, movie.name)
        yield _Read(start, stop, first, block)


def _member(finder: CandidateFinder, threads: int) -> Callable[[_Read], Block]:
    """What one thread does with the blocks that it gets."""
    import torch

    stream = torch.cuda.Stream(finder.device) if finder.device.type == "cuda" else None

    def work(read: _Read) -> Block:
        torch.set_num_threads(threads)  # holds for the thread that says it
        electrons = finder.camera.to_electrons(read.adu)
        if finder.camera.excess_noise_factor != 1:
            electrons /= np.float32(finder.camera.excess_noise_factor)
        with torch.cuda.stream(stream):  # nothing where there is no stream
            within = slice(read.start - read.first, read.stop - read.first)
            return Block(read.start, read.stop, finder(electrons, read.first, within))

    return work


def replicas(model: Model) -> list[Model]:
    """The model on every device that it may use: ``cuda`` without a number stands for all graphics cards."""
    import torch

    if model.device.type != "cuda" or model.device.index is not None:
        return [model]
    devices = [torch.device("cuda", number) for number in range(max(1, torch.cuda.device_count()))]
    return [replace(model, network=copy.deepcopy(model.network).to(device), device=device) for device in devices]
