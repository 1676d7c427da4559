"""The lifted variables: the molecules of every frame, with their photons, and each frame's background."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor

from smlm_pb.training.label_free.kernel import Kernel


class Molecules(NamedTuple):
    """Molecules of all frames, one entry each, ordered by frame."""

    #: Frame of each molecule.
    frame: Tensor
    #: Position (n, 2) as (y, x), px.
    position: Tensor
    #: Photo-electrons.
    photons: Tensor

    @classmethod
    def none(cls, device: torch.device) -> Molecules:
        """No molecules."""
        return cls(
            torch.zeros(0, dtype=torch.long, device=device),
            torch.zeros(0, 2, device=device),
            torch.zeros(0, device=device),
        )

    def select(self, keep: Tensor) -> Molecules:
        """The molecules that a mask or an index names."""
        return Molecules(*(column[keep] for column in self))

    def joined(self, other: Molecules) -> Molecules:
        """These and others, ordered by frame."""
        both = Molecules(*(torch.cat(pair) for pair in zip(self, other, strict=True)))
        return both.select(torch.argsort(both.frame, stable=True))

    def rows(self) -> dict[str, npt.NDArray[Any]]:
        """Columns ``frame``, ``x``, ``y`` as arrays, for whoever looks for neighbours."""
        position = self.position.detach().cpu().numpy()
        return {"frame": self.frame.cpu().numpy(), "x": position[:, 1], "y": position[:, 0]}

    def per_frame(self, n_frames: int) -> Tensor:
        """Number of molecules in each frame."""
        return torch.bincount(self.frame, minlength=n_frames)


@dataclass(frozen=True)
class Frames:
    """What was recorded.

    Parameters
    ----------
    electrons : Tensor (frame, height, width)
        Effective photo-electrons: variance equals mean but for the read noise.
    read_variance : Tensor (height, width)
        Variance of the read noise, e⁻².
    """

    electrons: Tensor
    read_variance: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height, width."""
        n, height, width = self.electrons.shape
        return n, height, width


@dataclass(frozen=True)
class Reconstruction:
    """Everything that explains the frames.

    Parameters
    ----------
    kernel : Kernel
        The PSF.
    molecules : Molecules
        The molecules.
    level : Tensor (frame,)
        Mean background of each frame, e⁻ per pixel.
    shape : Tensor (height, width)
        How the background is spread over the field; its mean is 1.
    """

    kernel: Kernel
    molecules: Molecules
    level: Tensor
    shape: Tensor

    def background(self) -> Tensor:
        """Background of every pixel (frame, height, width), e⁻."""
        return self.level[:, None, None] * self.shape

    def expected(self, patches: Patches | None = None) -> Tensor:
        """Expected photo-electrons of every pixel (frame, height, width)."""
        patches = patches or Patches.of(self, slopes=False)
        return patches.add_to(self.background(), self.molecules.photons[:, None, None] * patches.share)

    def with_molecules(self, molecules: Molecules) -> Reconstruction:
        """The same with other molecules."""
        return replace(self, molecules=molecules)


class Patches(NamedTuple):
    """The light of each molecule in the pixels around it; all maps are (molecule, side, side)."""

    #: Share of the light.
    share: Tensor
    #: Its derivatives with respect to the molecule's y and x, 1/px; None where not asked for.
    slope_y: Tensor | None
    slope_x: Tensor | None
    #: Whether the pixel lies in the frame.
    inside: Tensor
    #: Its place in the flattened frames; 0 outside.
    place: Tensor
    #: Bases along y and x (molecule, side, nodes).
    basis_y: Tensor
    basis_x: Tensor

    @classmethod
    def of(cls, reconstruction: Reconstruction, *, slopes: bool) -> Patches:
        """Render the molecules of a reconstruction."""
        kernel, molecules = reconstruction.kernel, reconstruction.molecules
        height, width = reconstruction.shape.shape
        offsets = torch.arange(-kernel.radius_px, kernel.radius_px + 1, device=molecules.position.device)
        rows, columns = (torch.round(molecules.position[:, axis]).long()[:, None] + offsets for axis in (0, 1))
        y, x = rows - molecules.position[:, :1], columns - molecules.position[:, 1:]
        coefficients = kernel.coefficients.to(y)
        basis_y, basis_x = kernel.basis(y, 0), kernel.basis(x, 1)
        along_x = coefficients @ basis_x.mT
        slope_y = slope_x = None
        if slopes:
            slope_y = -(kernel.basis_slope(y, 0) @ along_x)
            slope_x = -(basis_y @ (coefficients @ kernel.basis_slope(x, 1).mT))
        in_rows, in_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        inside = in_rows[:, :, None] & in_columns[:, None, :]
        index = ((molecules.frame[:, None] * height + rows) * width)[:, :, None] + columns[:, None, :]
        return cls(basis_y @ along_x, slope_y, slope_x, inside, index.where(inside, 0), basis_y, basis_x)

    def gather(self, image: Tensor) -> Tensor:
        """Values of an image (frame, height, width) in the patches; 0 outside of the frame."""
        return image.reshape(-1)[self.place] * self.inside

    def add_to(self, image: Tensor, light: Tensor) -> Tensor:
        """Image with the patches' light added."""
        flat = image.reshape(-1).index_add(0, self.place.reshape(-1), (light * self.inside).reshape(-1))
        return flat.view(image.shape)


def log_likelihood(frames: Frames, expected: Tensor) -> Tensor:
    """Log-likelihood of each pixel, without the term that no parameter changes.

    Read noise of variance v makes the pixel nearly Poisson in n + v with mean μ + v (Huang et al., 2013).

    Parameters
    ----------
    frames : Frames
        What was recorded.
    expected : Tensor (frame, height, width)
        Expected photo-electrons.

    Returns
    -------
    Tensor (frame, height, width)
    """
    mean = expected + frames.read_variance
    return (frames.electrons + frames.read_variance).clamp_min(0.0) * mean.clamp_min(1e-3).log() - mean
