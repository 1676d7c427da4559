"""Positions by fitting Gaussians of known width to a drawing, one round of peaks after the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.networks.local_maxima import local_maxima
from smlm_pb.networks.map_network import Peaks

_TINY = 1e-6
#: Parts of a Gaussian further from its centre than this many standard deviations are not subtracted.
_REACH_SIGMA = 3.0


class GaussianFits:
    """In every round fit all local maxima with a Gaussian of known width, and subtract them to uncover the next.

    The fit of the position compares the two neighbours on either side of the highest pixel, which is exact for a lone
    Gaussian. The peaks of round ``k`` fill slot ``k`` of their camera pixels.

    Parameters
    ----------
    sigma_px : float
        Standard deviation of a molecule in the drawing, camera pixels.
    rounds : int
        How often peaks are subtracted; the receptive field grows with it.

    References
    ----------
    The refinement of J. Schroeter, PhD thesis (2021), section 6.4: greedy maxima, a Gaussian fit, subtraction.
    """

    levels, upsampling, reach_px, start_bias = 1, 1, 0.6, 0.0

    def __init__(self, sigma_px: float, rounds: int) -> None:
        self.sigma_px, self.rounds = sigma_px, rounds
        self.window_px = max(1, round(_REACH_SIGMA * sigma_px))
        self.margin_px = rounds * (1 + self.window_px)

    def __call__(self, drawing: Tensor, n: int, /) -> Peaks:
        """Find the peaks of ``min(n, rounds)`` rounds."""
        left = drawing.clamp_min(0.0)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(min(n, self.rounds)):
            score, dy, dx = self._fit(left)
            parts.append((score, dy, dx))
            left = (left - self._draw(score, dy, dx)).clamp_min(0.0)
        maps = [torch.cat(group, dim=1) for group in zip(*parts, strict=True)]
        return Peaks(*(functional.pad(values, (0, 0, 0, 0, 0, n - values.shape[1])) for values in maps))

    def _fit(self, heights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Height and offset of the Gaussian at every local maximum; zeros elsewhere."""
        log = heights.clamp_min(_TINY).log()
        half, most = 0.5 * self.sigma_px**2, self.reach_px
        # At the border only one neighbour is there: no offset.
        dy = functional.pad(half * (log[..., 2:, :] - log[..., :-2, :]), (0, 0, 1, 1)).clamp(-most, most)
        dx = functional.pad(half * (log[..., 2:] - log[..., :-2]), (1, 1)).clamp(-most, most)
        height = heights * torch.exp((dy.square() + dx.square()) / (2 * self.sigma_px**2))
        is_peak, zero = local_maxima(heights), torch.zeros_like(heights)
        return tuple(torch.where(is_peak, part, zero) for part in (height, dy, dx))  # type: ignore[return-value]

    def _draw(self, height: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
        """The Gaussians as they stand in the drawing."""
        reach, precision = self.window_px, -0.5 / self.sigma_px**2
        steps = range(-reach, reach + 1)
        columns = [torch.exp(precision * (step - dx).square()) for step in steps]
        rows, columns_px = height.shape[-2:]
        total = height.new_zeros(*height.shape[:-2], rows + 2 * reach, columns_px + 2 * reach)
        for i in steps:
            row = height * torch.exp(precision * (i - dy).square())
            for j in steps:
                total[..., reach + i : reach + i + rows, reach + j : reach + j + columns_px] += row * columns[j + reach]
        return total[..., reach : reach + rows, reach : reach + columns_px]
