"""Convolutions in 8-bit integers, of which processors multiply four times as many as of float32.

Weights are rounded once, what goes in is rounded by steps that an example sets. Where light is brighter than in the
example, what is left over is a second digit, of four times the step, and so on: of a bright bead no larger part is lost
than of a molecule, and what one pixel holds changes nothing at others. Sums are exact, so that results do not depend on
how frames are cut.

References
----------
B. Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR
2018, for integer arithmetic with steps and zero points; G. Xiao et al., "SmoothQuant", ICML 2023, for steps of each
channel, half of whose differences the weights take over.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.compiled import compiled_with_fused_sums

#: What stands for zero; below it is room for the negative part of SiLU, which ends at -0.2785.
_ZERO, _LOWEST = 8, 0.2785
_TOP = 255
#: How much coarser each further digit is, and how many there are at most: light may exceed the example 5000-fold.
_COARSER, _MOST_DIGITS = 4, 7
#: Room above the example.
_HEADROOM = 1.25
#: Where the fraction that stands for the hyperbolic tangent is 1.
_TANH_IS_1 = 3.6467386
#: Channels whose range is smaller than this part of the widest one's are given as much.
_LEAST_SHARE = 0.02


@cache
def has_integer_operations() -> bool:
    """Whether torch has the operations that these convolutions are made of, and they compute here what they should."""
    channels, side = 16, 5
    # As large as sums can be: processors without the instructions may cut them off.
    kernel, bias = torch.ones(channels, channels, 3, 3), torch.zeros(channels)
    features = torch.full((1, channels, side, side), 6.0)
    try:
        with torch.inference_mode():
            wanted = functional.conv2d(functional.silu(features), kernel, padding=1)
            found = IntegerConvolution(kernel, bias, 1, features, wanted)(2 * features)
            return torch.allclose(found, functional.conv2d(functional.silu(2 * features), kernel, padding=1), rtol=0.02)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):  # other versions, systems and processors
        return False


class IntegerConvolution:
    """SiLU and a convolution, on the CPU.

    Parameters
    ----------
    kernel : Tensor (channels, channels, height, width)
        Weights.
    bias : Tensor (channels,)
        What is added.
    dilation : int
        Distance of the kernel's pixels.
    example : Tensor (batch, channels, height, width)
        What may come in, before SiLU.
    wanted : Tensor (batch, channels, height, width)
        What float32 makes of it; the mean of the integers' result is the same.
    """

    def __init__(self, kernel: Tensor, bias: Tensor, dilation: int, example: Tensor, wanted: Tensor) -> None:
        steps = _steps(functional.silu(example).amax((0, 2, 3)))
        scaled = kernel.float() * steps[:, None, None]
        self._weight_steps = scaled.abs().amax((1, 2, 3)).clamp_min(1e-30) / 127
        rounded = (scaled / self._weight_steps[:, None, None, None]).round().to(torch.int8)
        self._bias, self._dilation, self._reach = bias.float(), dilation, dilation * (kernel.shape[-1] // 2)
        self._weight_zeros = torch.zeros(len(kernel), dtype=torch.long)
        self._rounding = [_rounding(steps, level) for level in range(_MOST_DIGITS)]
        self._first, self._further = (self._packed(rounded, zero) for zero in (_ZERO, 0))
        self._bias = self._bias + (wanted - self(example)).mean((0, 2, 3))

    def __call__(self, features: Tensor, *, padded: bool = True) -> Tensor:
        """The convolution of SiLU of features (batch, channels, height, width): float32, channels last in memory.

        Parameters
        ----------
        features : Tensor (batch, channels, height, width)
            Before SiLU, float32.
        padded : bool
            Whether zeros surround the features, so that the result is as large; otherwise it is smaller by what the
            kernel reaches.
        """
        batch, channels, height, width = features.shape
        rows = features.permute(0, 2, 3, 1).contiguous().view(batch, height, width * channels).numpy()
        result, chosen = features, np.arange(batch)
        for level, (per_step, offset) in enumerate(self._rounding):
            digits = np.empty((len(chosen), *rows.shape[1:]), np.uint8)
            exceeded = np.empty(len(chosen), np.bool_)
            _round(rows, chosen, np.tile(per_step, width), offset, digits, exceeded)
            images = torch.from_numpy(digits).view(-1, height, width, channels).permute(0, 3, 1, 2)
            convolved = self._convolved(images, level, padded)
            if level == 0:
                result = convolved
            else:
                for image, further in zip(chosen, convolved, strict=True):  # index_add_ takes ten times as long
                    result[image] += further
            chosen = chosen[exceeded]
            if not len(chosen):
                break
        return result

    def _convolved(self, images: Tensor, level: int, padded: bool) -> Tensor:
        is_first = level == 0
        reach = [self._reach if padded else 0] * 2
        convolved: Tensor = torch.ops.onednn.qconv2d_pointwise(
            images,
            float(_COARSER**level),
            _ZERO if is_first else 0,
            self._first if is_first else self._further,
            self._weight_steps,
            self._weight_zeros,
            self._bias if is_first else None,
            [1, 1],
            reach,
            [self._dilation] * 2,
            1,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return convolved

    def _packed(self, weight: Tensor, zero: int) -> Tensor:
        """Weights in the order in which the processor takes them."""
        sides = [1, 1], [self._reach] * 2, [self._dilation] * 2
        packed: Tensor = torch.ops.onednn.qconv_prepack(weight, self._weight_steps, 1.0, zero, *sides, 1, None)
        return packed


def _steps(largest: Tensor) -> Tensor:
    """Steps (channels,) for channels whose largest values are given."""
    widest = largest.max().clamp_min(1e-3)
    shared = (largest.clamp_min(_LEAST_SHARE * widest) * widest).sqrt()
    return (_HEADROOM * shared / (_TOP - _ZERO)).clamp_min(_LOWEST / _ZERO)


def _rounding(steps: Tensor, level: int) -> tuple[npt.NDArray[np.float32], np.float32]:
    """By what a channel is multiplied and what is added for a digit, before the fraction is dropped."""
    before = sum(_TOP * _COARSER**lower for lower in range(level))
    offset = (_ZERO - before) / _COARSER**level + 0.5
    return (1 / (steps * _COARSER**level)).numpy(), np.float32(offset)


@compiled_with_fused_sums
def _round(
    rows: npt.NDArray[np.float32],
    chosen: npt.NDArray[np.int64],
    per_step: npt.NDArray[np.float32],
    offset: np.float32,
    digits: npt.NDArray[np.uint8],
    exceeded: npt.NDArray[np.bool_],
) -> None:
    """One digit of SiLU of chosen images (batch, height, width * channels), and which of them need more.

    x / (1 + exp(-x)) is (1 + tanh(x/2)) x/2, and the hyperbolic tangent is cut from its continued fraction (Lambert,
    1761) where that reaches 1; the error is a small part of a step.
    """
    _, height, width = rows.shape
    top = np.float32(_TOP)
    for number, image in enumerate(chosen):
        over = False
        for y in range(height):
            for x in range(width):
                half = rows[image, y, x] * np.float32(0.5)
                bounded = min(max(half, np.float32(-_TANH_IS_1)), np.float32(_TANH_IS_1))
                square = bounded * bounded
                above = bounded * (np.float32(945) + square * (np.float32(105) + square))
                below = np.float32(945) + square * (np.float32(420) + square * np.float32(15))
                step = half * per_step[x] * (np.float32(1) + above / below) + offset
                over |= step >= top + np.float32(1)
                digits[number, y, x] = np.uint8(np.int32(min(max(step, np.float32(0)), top)))
        exceeded[number] = over
