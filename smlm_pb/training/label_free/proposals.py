"""Which molecules a frame may hold: peaks of what is unexplained, the detector's best, and what the evidence leaves."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.localization.candidates import select_candidates
from smlm_pb.localization.neighbours import places, tree_of
from smlm_pb.localization.pooling import pool_shares
from smlm_pb.networks import OffsetRegressionNetwork
from smlm_pb.training.label_free.molecules import Frames, Molecules, Patches, Reconstruction, log_likelihood

#: A peak of the residual is worth a trial from this many standard deviations on.
_PEAK = 5.0
#: Evidence (nats of log-likelihood) below which a molecule is not believed.
EVIDENCE = 12.0
#: Molecules with less light than this part of the usual are fragments: the photon floor.
_PHOTON_FLOOR = 0.12
#: Candidates of the detector below this probability are not tried.
_CANDIDATE = 0.1
_DETECT_AT_ONCE = 16
#: Distances beyond this do not matter, px.
_FAR_PX = 100.0


def peaks(frames: Frames, reconstruction: Reconstruction, *, separation_px: float, most: int) -> Molecules:
    """Where the frames hold more light than the reconstruction explains.

    The residual is matched with the kernel; local maxima beyond five standard deviations become molecules.

    Parameters
    ----------
    frames : Frames
        What was recorded.
    reconstruction : Reconstruction
        The present state.
    separation_px : float
        Smallest distance of two peaks, and of a peak from a molecule that is there.
    most : int
        Most molecules of a frame, those that are there included: the K of the lifted top-K.

    Returns
    -------
    Molecules
        New ones only.
    """
    mean = reconstruction.expected() + frames.read_variance
    weight = 1.0 / mean
    residual = frames.electrons + frames.read_variance - mean
    axis = torch.arange(-reconstruction.kernel.radius_px, reconstruction.kernel.radius_px + 1.0).to(mean)
    spot = reconstruction.kernel.image(axis, axis)[None, None]
    pad = reconstruction.kernel.radius_px
    light = functional.conv2d((residual * weight)[:, None], spot, padding=pad)[:, 0]
    noise = functional.conv2d(weight[:, None], spot.square(), padding=pad)[:, 0]
    significance = light / noise.sqrt()
    reach = max(1, round(separation_px))
    highest = functional.max_pool2d(significance[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]
    frame, row, column = torch.nonzero((significance >= highest) & (significance > _PEAK), as_tuple=True)
    found = Molecules(frame, torch.stack((row, column), dim=1).to(mean), (light / noise)[frame, row, column])
    found = found.select(_distance_to(found, reconstruction.molecules) >= separation_px)
    room = most - reconstruction.molecules.per_frame(frames.shape[0])
    return strongest(found, found.photons, room)


def strongest(molecules: Molecules, score: Tensor, room: Tensor) -> Molecules:
    """Of each frame as many molecules as it has room for, those with the highest score."""
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(molecules.frame[order], stable=True)]
    ranked = molecules.select(order)
    counts = ranked.per_frame(len(room))
    first = torch.cumsum(counts, 0) - counts
    rank = torch.arange(len(ranked.frame), device=first.device) - first[ranked.frame]
    return ranked.select(rank < room[ranked.frame])


def _distance_to(some: Molecules, others: Molecules) -> Tensor:
    """Distance of each molecule to the nearest other one of its frame, px; infinite where there is none."""
    if len(some.frame) == 0 or len(others.frame) == 0:
        return torch.full((len(some.frame),), torch.inf, device=some.position.device)
    distance, _ = tree_of(others.rows()).query(places(some.rows()), distance_upper_bound=_FAR_PX)
    return torch.from_numpy(distance).to(some.position)


@torch.inference_mode()
def detected(network: OffsetRegressionNetwork, frames: Frames, psf_sigma_px: float, *, most: int) -> Molecules:
    """The detector's best candidates of every frame: the lifted top-K.

    Parameters
    ----------
    network : OffsetRegressionNetwork
        The detector.
    frames : Frames
        What it looks at.
    psf_sigma_px : float
        Width of the PSF it is told.
    most : int
        K, an upper bound: what the frame does not need loses its light in the x-steps, and goes.

    Returns
    -------
    Molecules
    """
    n_frames = frames.shape[0]
    parts = []
    for start in range(0, n_frames, _DETECT_AT_ONCE):
        some = frames.electrons[start : start + _DETECT_AT_ONCE, None]
        field = network(some, torch.full((len(some),), psf_sigma_px, device=some.device))
        parts.append(pool_shares(select_candidates(field, first_frame=start, floor=_CANDIDATE).rows))
    rows = {
        name: torch.cat([torch.from_numpy(part[name].copy()).float() for part in parts])
        for name in ("frame", "y", "x", "photons", "probability")
    }
    rows = {name: column.to(frames.electrons.device) for name, column in rows.items()}
    found = Molecules(rows["frame"].long(), torch.stack((rows["y"], rows["x"]), dim=1), rows["photons"])
    room = torch.full((n_frames,), most, device=found.frame.device)
    return strongest(found, rows["probability"], room)


def evidence(frames: Frames, reconstruction: Reconstruction) -> Tensor:
    """Log-likelihood that is lost without each molecule, the others held fixed (n,), nats."""
    molecules = reconstruction.molecules
    patches = Patches.of(reconstruction, slopes=False)
    mean = reconstruction.expected(patches) + frames.read_variance
    electrons = (frames.electrons + frames.read_variance).clamp_min(0.0)
    light = molecules.photons[:, None, None] * patches.share
    here = patches.gather(mean)
    ratio = torch.where(patches.inside, here / (here - light).clamp_min(1e-3), 1.0)
    gain = patches.gather(electrons) * ratio.log() - light * patches.inside
    return gain.sum((1, 2))


def needed(frames: Frames, reconstruction: Reconstruction, *, usual_photons: float) -> Tensor:
    """Which molecules (n,) the frames ask for: enough evidence, and enough light to be no fragment of another."""
    bright = reconstruction.molecules.photons >= _PHOTON_FLOOR * usual_photons
    return (evidence(frames, reconstruction) >= EVIDENCE) & bright


def merged(reconstruction: Reconstruction, *, separation_px: float) -> Reconstruction:
    """The same with molecules of one frame that are closer than ``separation_px`` put together, pair by pair."""
    molecules = reconstruction.molecules
    if len(molecules.frame) < 2:
        return reconstruction
    pairs = tree_of(molecules.rows()).query_pairs(separation_px, output_type="ndarray")
    if len(pairs) == 0:
        return reconstruction
    keep = torch.ones(len(molecules.frame), dtype=torch.bool)
    place, photons = molecules.position.clone(), molecules.photons.clone()
    for first, second in pairs:
        if not (keep[first] and keep[second]):
            continue
        light = photons[first] + photons[second]
        place[first] = (photons[first] * place[first] + photons[second] * place[second]) / light
        photons[first] = light
        keep[second] = False
    joined = Molecules(molecules.frame, place, photons)
    return reconstruction.with_molecules(joined.select(keep.to(place.device)))


def score(frames: Frames, reconstruction: Reconstruction) -> Tensor:
    """Log-likelihood of each frame less what its molecules cost (frame,), nats."""
    total = log_likelihood(frames, reconstruction.expected()).sum((1, 2))
    return total - EVIDENCE * reconstruction.molecules.per_frame(frames.shape[0])


def better(frames: Frames, one: Reconstruction, other: Reconstruction) -> Reconstruction:
    """Of two reconstructions, frame by frame the one with the higher score; of equals the first."""
    take = score(frames, other) > score(frames, one)
    kept = one.molecules.select(~take[one.molecules.frame])
    joined = kept.joined(other.molecules.select(take[other.molecules.frame]))
    return replace(one, molecules=joined, level=torch.where(take, other.level, one.level))
