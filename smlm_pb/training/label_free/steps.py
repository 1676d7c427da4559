"""The steps that raise the likelihood of a reconstruction: molecules (x-steps), background, and the kernel (τ-step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.training.label_free.kernel import Kernel
from smlm_pb.training.label_free.molecules import Frames, Molecules, Patches, Reconstruction

#: Largest move of a molecule in one step, px, and largest change of its photons, relative.
_LARGEST_MOVE_PX, _LARGEST_CHANGE = 0.35, 0.5
#: Molecules may lie this far outside of the frame: some of their light falls into it.
OUTSIDE_PX = 2.0
_LEAST_PHOTONS = 1.0
#: A background below this is none, e⁻ per pixel: the likelihood needs light in every pixel.
_LEAST_BACKGROUND = 0.02
#: Steps are shortened by at most this factor where neighbours overlap.
_LARGEST_CROWD = 4.0
#: Over how many pixels (standard deviation) the shape of the background is smooth.
_SMOOTH_PX = 6.0


def move_molecules(
    frames: Frames, reconstruction: Reconstruction, *, tie: Tensor | None = None, tie_px: float = 1.0
) -> Reconstruction:
    """One Fisher-scoring step of every molecule's position and photons, and of every frame's background.

    Neighbours move at the same time; a step is therefore shortened by the light that neighbours put where the
    molecule's own light is, so that together they do not overshoot.

    Parameters
    ----------
    frames : Frames
        What was recorded.
    reconstruction : Reconstruction
        The present state.
    tie : Tensor (molecule, 2), optional
        Positions (y, x) that the detector stated: the term λ‖x − E_K(H)‖² of MIST; NaN where it stated none.
    tie_px : float
        Its width: λ = 1/2 tie_px².

    Returns
    -------
    Reconstruction
    """
    molecules = reconstruction.molecules
    patches = Patches.of(reconstruction, slopes=True)
    assert patches.slope_y is not None
    assert patches.slope_x is not None
    mean = reconstruction.expected(patches) + frames.read_variance
    residual = (frames.electrons + frames.read_variance) / mean - 1.0
    level = _moved_level(reconstruction, residual, mean)
    if len(molecules.frame) == 0:
        return replace(reconstruction, level=level)
    near, weight = patches.gather(residual), patches.gather(1.0 / mean)
    photons = molecules.photons[:, None, None]
    slopes = torch.stack((photons * patches.slope_y, photons * patches.slope_x, patches.share), dim=1)
    gradient = (slopes * near[:, None]).sum((2, 3))
    information = torch.einsum("nahw,nbhw,nhw->nab", slopes, slopes, weight)
    if tie is not None:
        told = torch.isfinite(tie)
        pull = torch.where(told, (tie - molecules.position) / tie_px**2, 0.0)
        gradient = gradient + functional.pad(pull, (0, 1))
        information = information + torch.diag_embed(functional.pad(told / tie_px**2, (0, 1)).to(information))
    diagonal = information.diagonal(dim1=1, dim2=2)
    information = information + torch.diag_embed(1e-3 * diagonal + 1e-9)
    step = torch.linalg.solve(information, gradient) / _crowd(reconstruction, patches, mean, weight)[:, None]
    return replace(reconstruction, molecules=_within(frames, molecules, step), level=level)


def _crowd(reconstruction: Reconstruction, patches: Patches, mean: Tensor, weight: Tensor) -> Tensor:
    """Light of all molecules where a molecule's own light is, relative to its own (n,), >= 1."""
    light = patches.gather(mean - reconstruction.background()) - 0.0
    own = reconstruction.molecules.photons * (weight * patches.share.square() * patches.inside).sum((1, 2))
    return ((weight * patches.share * light).sum((1, 2)) / own.clamp_min(1e-12)).clamp(1.0, _LARGEST_CROWD)


def _within(frames: Frames, molecules: Molecules, step: Tensor) -> Molecules:
    _, height, width = frames.shape
    position = molecules.position + step[:, :2].clamp(-_LARGEST_MOVE_PX, _LARGEST_MOVE_PX)
    limit = torch.tensor([height, width], device=position.device) - 1 + OUTSIDE_PX
    position = torch.minimum(position.clamp_min(-OUTSIDE_PX), limit)
    change = step[:, 2].clamp(-_LARGEST_CHANGE * molecules.photons, molecules.photons)
    return Molecules(molecules.frame, position, (molecules.photons + change).clamp_min(_LEAST_PHOTONS))


def _moved_level(reconstruction: Reconstruction, residual: Tensor, mean: Tensor) -> Tensor:
    shape = reconstruction.shape
    slope = (shape * residual).sum((1, 2))
    information = (shape.square() / mean).sum((1, 2))
    return (reconstruction.level + slope / information).clamp_min(_LEAST_BACKGROUND)


def improve_kernel(chunks: Sequence[tuple[Frames, Reconstruction]], *, power: float = 1.0) -> Kernel:
    """One expectation-maximisation step of the kernel, given all molecules (Richardson, 1972; Lucy, 1974).

    It cannot lower the likelihood, keeps the coefficients non-negative, and their sum is set to 1: the photons carry
    the scale.

    Parameters
    ----------
    chunks : sequence of (Frames, Reconstruction)
        Parts of the movie with the molecules in them; all with the same kernel.
    power : float
        Exponent of the factor; above 1 the kernel moves faster.

    Returns
    -------
    Kernel
    """
    kernel = chunks[0][1].kernel
    gained = torch.zeros_like(kernel.coefficients)
    possible = torch.zeros_like(kernel.coefficients)
    for frames, reconstruction in chunks:
        if len(reconstruction.molecules.frame) == 0:
            continue
        patches = Patches.of(reconstruction, slopes=False)
        mean = reconstruction.expected(patches) + frames.read_variance
        ratio = patches.gather((frames.electrons + frames.read_variance).clamp_min(0.0) / mean)
        weighted = reconstruction.molecules.photons[:, None, None] * patches.basis_y.mT
        gained += (weighted @ ratio @ patches.basis_x).sum(0).to(gained)
        possible += (weighted @ patches.inside.to(ratio) @ patches.basis_x).sum(0).to(possible)
    factor = torch.where(possible > 0, gained / possible.clamp_min(1e-30), 1.0)
    return Kernel(kernel.coefficients * factor**power, kernel.samples_per_px)


def with_kernel(reconstruction: Reconstruction, kernel: Kernel) -> Reconstruction:
    """The reconstruction with another kernel; positions follow its centre of mass, so that the images stay in place."""
    before, after = reconstruction.kernel.centre_px(), kernel.centre_px()
    molecules = reconstruction.molecules
    shift = torch.tensor([a - b for a, b in zip(after, before, strict=True)]).to(molecules.position)
    moved = molecules._replace(position=molecules.position + shift)
    return replace(reconstruction, kernel=kernel, molecules=moved)


def improve_background(chunks: Sequence[tuple[Frames, Reconstruction]]) -> Tensor:
    """How the background is spread over the field: what the molecules leave, on average over the frames, smoothed.

    Parameters
    ----------
    chunks : sequence of (Frames, Reconstruction)
        Parts of the movie.

    Returns
    -------
    Tensor (height, width)
        Of mean 1.
    """
    left = torch.zeros_like(chunks[0][1].shape)
    level = 0.0
    for frames, reconstruction in chunks:
        signal = reconstruction.expected() - reconstruction.background()
        left += (frames.electrons - signal).sum(0)
        level += float(reconstruction.level.sum())
    smooth = _smoothed(left).clamp_min(0.02 * left.mean().clamp_min(1e-6))
    return smooth / smooth.mean()


def _smoothed(image: Tensor) -> Tensor:
    """Gaussian mean of the pixels there are: at the border of those inside."""
    half = int(3 * _SMOOTH_PX)
    axis = torch.arange(-half, half + 1, dtype=image.dtype, device=image.device)
    bell = torch.exp(-0.5 * (axis / _SMOOTH_PX).square())
    both = torch.stack((image, torch.ones_like(image)))[:, None]
    both = functional.conv2d(both, bell[None, None, :, None], padding=(half, 0))
    both = functional.conv2d(both, bell[None, None, None, :], padding=(0, half))
    return both[0, 0] / both[1, 0]
