"""Convolutions whose kernels depend on the imaging conditions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class MixedConvolution(nn.Conv2d):
    """A 3×3 convolution of as many channels as it sees; the conditions add a mixture of further kernels to its own.

    For one movie the mixture is fixed, so that it costs nothing: see :meth:`kernel`.

    Parameters
    ----------
    channels : int
        Channels before and after.
    n_conditions : int
        Features that describe the conditions.
    kernels : int
        Number of further kernels; they start at zero. 0 makes it an ordinary convolution.
    dilation : int
        Distance of the kernel's pixels.

    References
    ----------
    B. Yang, G. Bender, Q. V. Le, J. Ngiam, "CondConv: Conditionally parameterized convolutions for efficient
    inference", NeurIPS 2019; here the mixture follows from the movie, not from each image.
    """

    def __init__(self, channels: int, n_conditions: int, kernels: int = 0, *, dilation: int = 1) -> None:
        super().__init__(channels, channels, 3, padding=dilation, dilation=dilation)
        self.mixing: nn.Linear | None = None
        if kernels:
            self.further = nn.Parameter(torch.zeros(kernels, self.weight.numel()))
            self.mixing = nn.Linear(n_conditions, kernels)

    def kernel(self, condition: Tensor) -> Tensor:
        """Kernels (batch, channels, channels, 3, 3) under conditions (batch, n_conditions)."""
        if self.mixing is None:
            return self.weight.expand(len(condition), *self.weight.shape)
        return self.weight + (self.mixing(condition) @ self.further).view(-1, *self.weight.shape)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        """The convolution of features (batch, channels, height, width), each under its conditions."""
        if self.mixing is None:
            return super().forward(features)
        batch, channels, height, width = features.shape
        assert self.bias is not None
        mixed = functional.conv2d(
            features.reshape(1, batch * channels, height, width),
            self.kernel(condition).flatten(0, 1),
            self.bias.repeat(batch),
            padding=self.padding,
            dilation=self.dilation,
            groups=batch,
        )
        return mixed.view(batch, channels, height, width)
