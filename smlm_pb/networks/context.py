"""The frames before and after: whoever is on in them too is easier to tell from a neighbour that is not."""

from __future__ import annotations

import torch
from torch import Tensor

#: Channels that one frame becomes, and one more that tells whether a neighbouring frame is there.
_PER_FRAME, _FLAG = 2, 1


def image_channels(context_frames: int) -> int:
    """Channels of the network's input."""
    return _PER_FRAME + 2 * context_frames * (_PER_FRAME + _FLAG)


def scale_image(electrons: Tensor) -> Tensor:
    """Photo-electrons to network input: a variance-stabilised and a linear channel, both with fixed scaling.

    Parameters
    ----------
    electrons : Tensor (batch, 1, height, width)
        Photo-electrons (divided by the excess-noise factor for EMCCD cameras).

    Returns
    -------
    Tensor (batch, 2, height, width)
        The square root, in which photon noise has the same size everywhere (Anscombe, 1948), and the light itself,
        in which overlapping molecules add up. Nothing depends on the content of the image.
    """
    root = (electrons + 4.0).clamp_min(0.0).sqrt() - 2.0
    return torch.cat((0.5 * root, 0.01 * electrons), dim=1)


def scale_frames(electrons: Tensor, context_frames: int) -> Tensor:
    """A frame and its neighbours in time to network input.

    Parameters
    ----------
    electrons : Tensor (batch, 1 or 2 * context_frames + 1, height, width)
        Photo-electrons, frames in the order of time with the one that is looked at in the middle; a frame of NaN is
        not there (beyond the movie's end). A single frame has no neighbours.
    context_frames : int
        Frames before and after that the network makes use of.

    Returns
    -------
    Tensor (batch, image_channels(context_frames), height, width)
        The middle frame first; of each neighbour also whether it is there.
    """
    if context_frames == 0:
        return scale_image(electrons)
    given = electrons.shape[1]
    middle = given // 2
    parts = [scale_image(electrons[:, middle : middle + 1])]
    absent = parts[0].new_zeros(len(electrons), _PER_FRAME + _FLAG, *electrons.shape[2:])
    for step in (*range(-context_frames, 0), *range(1, context_frames + 1)):
        if given == 1:
            parts.append(absent)
            continue
        frame = electrons[:, middle + step, None]
        there = frame[:, :, :1, :1].isfinite()
        scaled = scale_image(torch.where(there, frame, torch.zeros_like(frame)))
        parts.append(torch.cat((scaled, torch.ones_like(frame)), dim=1) * there)
    return torch.cat(parts, dim=1)
