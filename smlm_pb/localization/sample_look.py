"""What the network lists in a sample of frames, before a run begins: every core takes frames of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.candidates import join_rows

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.localization.model import Model
    from smlm_pb.population import Population

#: Smallest probability that is listed: those from here on add up to the number of molecules.
_FLOOR = 0.05


def look_at(
    electrons: npt.NDArray[np.float32],
    model: Model,
    *,
    camera: Camera,
    psf_sigma_px: float,
    population: Population | None = None,
    precision: str = "float32",
) -> npt.NDArray[Any]:
    """Candidates of a sample, one per molecule.

    Parameters
    ----------
    electrons : array (frame, y, x), float32
        Sampled frames in electrons whose noise has variance = mean; they need not follow each other.
    model : Model
        The network on its device.
    camera : Camera
        Where the electrons come from.
    psf_sigma_px : float
        PSF width that the network is told, px.
    population : Population, optional
        What the network is told of the movie's molecules.
    precision : {"float32", "bfloat16", "int8"}
        Arithmetic of the convolutions.

    Returns
    -------
    structured array (n,)
        From a probability of 0.05 on, ordered by frame, which counts from 0.
    """
    import torch

    from smlm_pb.localization.candidate_finder import CandidateFinder
    from smlm_pb.localization.pipeline import plan_work
    from smlm_pb.localization.threads import fit_threads

    plan = plan_work(electrons.shape[1], electrons.shape[2], model.device)
    finder = CandidateFinder(
        model,
        psf_sigma_px=psf_sigma_px,
        floor=_FLOOR,
        plan=plan,
        camera=camera,
        population=population,
        precision=precision,
    )
    threads = fit_threads(model)
    n_batches = -(-len(electrons) // plan.batch_frames)
    several = min(threads, n_batches) if model.device.type == "cpu" else 1
    if several == 1:
        return finder(electrons, consecutive=False).rows
    step = -(-n_batches // several) * plan.batch_frames

    def part(start: int) -> npt.NDArray[Any]:
        torch.set_num_threads(threads // several)  # holds for the thread that says it
        return finder(electrons[start : start + step], start, consecutive=False).rows

    try:
        with ThreadPoolExecutor(several) as pool:
            return join_rows(list(pool.map(part, range(0, len(electrons), step))))
    finally:
        torch.set_num_threads(threads)
