"""The network as it is used: for one movie, with what does not change folded into its weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from smlm_pb.narrow_product import narrow_product
from smlm_pb.networks.backbones import ResidualBackbone, ResidualBlock
from smlm_pb.networks.build import PointNetwork
from smlm_pb.networks.condition import condition_of
from smlm_pb.networks.context import scale_frames
from smlm_pb.networks.example import example_image
from smlm_pb.networks.field import PointField
from smlm_pb.networks.integer_convolution import IntegerConvolution, has_integer_operations
from smlm_pb.networks.offset_regression import OffsetRegressionNetwork
from smlm_pb.population import Population

_BFLOAT16, _INT8 = "bfloat16", "int8"
#: Numbers that the last layer says of a candidate; the background, which is that of its pixel, is the last.
_NUMBERS = len(PointField._fields)
#: Rows of narrow matrices that are put into one line, to be added to or compared.
_LINE = 64


def can_use_integers(network: PointNetwork) -> bool:
    """Whether a network, where it is, can be used in 8-bit integers."""
    backbone = network.backbone
    there = isinstance(backbone, ResidualBackbone) and backbone.stem.weight.device.type == "cpu"
    return there and has_integer_operations()


class FixedWidthNetwork:
    """A network whose PSF width, and what else it is told of the movie, is known beforehand.

    The modulation of every block by what is told is then a part of its first convolution, and activations need no
    memory of their own. The result is that of the network, up to rounding.

    Parameters
    ----------
    network : PointNetwork
        The network; later changes of its weights are not seen.
    psf_sigma_px : float
        Width of the PSF, px.
    population : Population, optional
        What is known of the movie's molecules.
    precision : {"float32", "bfloat16", "int8"}
        Arithmetic of the convolutions. The first one, which sees small differences on a large background, the sums of
        the residual blocks and the head are always float32. ``int8`` has steps that suit molecules as bright as the
        population's (:func:`smlm_pb.networks.example.example_image`); where :func:`can_use_integers` is not, as on a
        graphics card that a worker of a cluster has, it is float32.
    """

    def __init__(
        self,
        network: PointNetwork,
        psf_sigma_px: float,
        *,
        population: Population | None = None,
        precision: str = "float32",
    ) -> None:
        self._network, self.radius = network, network.radius
        self._dtype = torch.bfloat16 if precision == _BFLOAT16 else torch.float32
        self._precision = precision
        backbone = network.backbone
        self._blocks: Sequence[_Block] | None = None
        if isinstance(backbone, ResidualBackbone):
            width = torch.full((1,), psf_sigma_px, device=backbone.stem.weight.device)
            known = None if population is None else torch.tensor([population.values()], device=width.device)
            condition = backbone.embedding(condition_of(width, known))
            blocks = (block for block in backbone.blocks if isinstance(block, ResidualBlock))
            folded = [_FoldedBlock(block, condition, self._dtype) for block in blocks]
            self._blocks = folded
            if precision == _INT8 and can_use_integers(network):
                self._blocks = self._in_integers(folded, example_image(psf_sigma_px, population))

    def __call__(self, electrons: Tensor, psf_sigma_px: Tensor) -> PointField:
        """Candidates of every pixel; arguments as of the network, without gradients."""
        if self._blocks is None:
            with torch.autocast(electrons.device.type, self._dtype, enabled=self._precision == _BFLOAT16):
                field: PointField = self._network(electrons, psf_sigma_px)
            return field
        return self._network.read_out(self.features(electrons))

    def _in_integers(self, blocks: Sequence[_FoldedBlock], example: Tensor) -> list[_Block]:
        """The same blocks in 8-bit integers, with steps that suit an example image."""
        backbone, integers = self._network.backbone, list[_Block]()
        assert isinstance(backbone, ResidualBackbone)
        features = exact = backbone.stem(scale_frames(example, self._network.context_frames))
        for block in blocks:
            integer, exact = block.in_integers(features, exact)
            integers.append(integer)
            features = features + integer(features)
        return integers

    @property
    def is_lazy(self) -> bool:
        """Whether chosen pixels can be read out: the last layer sees one pixel at a time."""
        one_by_one = isinstance(self._network, OffsetRegressionNetwork) and self._network.head.kernel_size == (1, 1)
        return one_by_one and self._blocks is not None

    @property
    def n_candidates(self) -> int:
        """Candidates per pixel."""
        return self._regression().n_candidates

    @property
    def layer_radii(self) -> list[int]:
        """For every convolution of the blocks, how far its results reach beyond the pixels that are asked for, px."""
        radii, after = [], 0
        for block in reversed(self._blocks or []):
            radii += [after, after + block.radius - 1]
            after += block.radius
        return radii

    def features(self, electrons: Tensor) -> Tensor:
        """What the last layer sees: ``(batch, channels, height, width)``, float32, channels last in memory."""
        backbone = self._network.backbone
        assert isinstance(backbone, ResidualBackbone)
        assert self._blocks is not None
        image = scale_frames(electrons, self._network.context_frames)
        features = backbone.stem(image.contiguous(memory_format=torch.channels_last))
        for block in self._blocks:
            features += block(features)
        return functional.silu(features, inplace=True)

    def features_of_crops(self, crops: Tensor, inside: Tensor | None = None) -> Tensor:
        """The same for the middle of crops: every layer computes only what the next one needs.

        Parameters
        ----------
        crops : Tensor (m, 1, side, side)
            Photo-electrons, with a margin of :attr:`radius` around the pixels that are asked for; 0 beyond the frame.
        inside : Tensor (m, 1, side, side), optional
            1 in the frame and 0 beyond it, where crops reach beyond.

        Returns
        -------
        Tensor (m, channels, side - 2 * radius, side - 2 * radius)
            What :meth:`features` of the whole frame are there.
        """
        backbone = self._network.backbone
        assert isinstance(backbone, ResidualBackbone)
        assert self._blocks is not None
        image = scale_frames(crops, self._network.context_frames).contiguous(memory_format=torch.channels_last)
        features = functional.conv2d(image, backbone.stem.weight, backbone.stem.bias)
        inside = _shrink(inside, (backbone.stem.kernel_size[0] - 1) // 2)
        for block in self._blocks:
            # What lies beyond the frame is nothing to every layer, not what the layer before makes of nothing.
            features = features if inside is None else features * inside
            contribution = block.of_crops(features, inside).float()  # the sum is float32 in any arithmetic
            features = contribution.add_(_shrink(features, block.radius))
            inside = _shrink(inside, block.radius)
        return functional.silu(features, inplace=True)

    def logits(self, features: Tensor) -> Tensor:
        """Existence logits ``(..., n)`` of the candidates of pixels with features ``(..., channels)``."""
        return _linear(features.flatten(0, -2), *self._existence).view(*features.shape[:-1], self.n_candidates)

    def likely(self, features: Tensor, smallest: float) -> tuple[Tensor, Tensor]:
        """Candidates whose existence logit is not smaller, in order.

        Parameters
        ----------
        features : Tensor (pixels, channels)
            Features of pixels.
        smallest : float
            Smallest :meth:`logits` that is listed.

        Returns
        -------
        (Tensor (m,), Tensor (m,)) of int64
            The pixel of each, and its number within the pixel.
        """
        weight, bias = self._existence
        if features.device.type == "cpu":
            above = _lines(features, weight) >= np.tile(np.float32(smallest) - bias.numpy(), _LINE)
            listed = torch.from_numpy(np.flatnonzero(above.reshape(-1)[: len(features) * len(bias)]))
        else:
            listed = (self.logits(features) >= smallest).flatten().nonzero()[:, 0]
        pixel = listed.div(len(bias), rounding_mode="floor")
        return pixel, listed - pixel * len(bias)

    def say(self, features: Tensor, candidate: Tensor) -> PointField:
        """What the last layer says of chosen candidates (m,).

        Nine of ten pixels hold nothing, and what would be said of those need not be computed.

        Parameters
        ----------
        features : Tensor (m, channels)
            Features of their pixels.
        candidate : Tensor (m,)
            Number of each within its pixel.
        """
        said = _linear(features, *self._candidates).view(-1, _NUMBERS)
        own = said.index_select(0, torch.arange(0, len(said), self.n_candidates, device=said.device) + candidate)
        *maps, background = torch.stack(own.unbind(1))
        return self._regression().interpret(maps, background)

    @cached_property
    def _existence(self) -> tuple[Tensor, Tensor]:
        """Weights and shifts of the logits of all candidates of a pixel."""
        return self._outputs(torch.arange(self.n_candidates))

    @cached_property
    def _candidates(self) -> tuple[Tensor, Tensor]:
        """Weights and shifts of all numbers, those that belong to one candidate, the background too, in a row."""
        n = self.n_candidates
        order = torch.arange(n)[:, None] + torch.arange(0, n * _NUMBERS, n)
        order[:, -1] = n * (_NUMBERS - 1)
        return self._outputs(order.flatten())

    def _outputs(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        head = self._regression().head
        assert head.bias is not None
        chosen = chosen.to(head.weight.device)
        return head.weight.detach()[chosen, :, 0, 0].t().contiguous(), head.bias.detach()[chosen]

    def _regression(self) -> OffsetRegressionNetwork:
        assert isinstance(self._network, OffsetRegressionNetwork)
        return self._network


def _linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Features ``(m, channels)`` times a few weights ``(channels, k)``: ``(m, k)``."""
    if features.device.type != "cpu":
        return functional.linear(features, weight.t(), bias)
    product = _lines(features, weight)
    product += np.tile(bias.numpy(), _LINE)
    return torch.from_numpy(product.reshape(-1, len(bias))[: len(features)])


def _lines(features: Tensor, weight: Tensor) -> npt.NDArray[np.float32]:
    """The same without shifts, many rows in a line, the last one filled up; rows of a few numbers are slow to work on.

    By numpy, which is five times as fast as torch with matrices as narrow as these.
    """
    rows = -(-len(features) // _LINE) * _LINE
    return narrow_product(features.numpy(), weight.numpy(), rows).reshape(-1, _LINE * weight.shape[1])


class _Block(Protocol):
    """The contribution of a residual block to what goes in."""

    #: How far it looks, px.
    radius: int

    def __call__(self, features: Tensor) -> Tensor: ...

    def of_crops(self, features: Tensor, inside: Tensor | None) -> Tensor: ...


class _FoldedBlock:
    """The contribution of a residual block, its modulation folded in."""

    def __init__(self, block: ResidualBlock, condition: Tensor, dtype: torch.dtype) -> None:
        scale, shift = block.modulation(condition)[0].chunk(2)
        first, second = block.first, block.second
        assert first.bias is not None
        assert second.bias is not None
        layout = torch.channels_last
        modulated = first.kernel(condition)[0] * (1 + scale)[:, None, None, None]
        self._first = modulated.to(dtype=dtype, memory_format=layout)
        self._first_bias = (first.bias * (1 + scale) + shift).to(dtype)
        self._second = second.kernel(condition)[0].to(dtype=dtype, memory_format=layout)
        self._second_bias = second.bias.to(dtype)
        self._dilation = second.dilation
        self._dtype = dtype
        self.radius = 1 + int(second.dilation[0])

    def __call__(self, features: Tensor) -> Tensor:
        return self._outer(self._inner(features))

    def _inner(self, features: Tensor) -> Tensor:
        hidden = functional.silu(features).to(self._dtype)
        return functional.conv2d(hidden, self._first, self._first_bias, padding=1)

    def _outer(self, hidden: Tensor) -> Tensor:
        hidden = functional.silu(hidden, inplace=True)
        return functional.conv2d(
            hidden, self._second, self._second_bias, padding=self._dilation, dilation=self._dilation
        )

    def of_crops(self, features: Tensor, inside: Tensor | None) -> Tensor:
        """The same without what depends on the edges of the features."""
        hidden = functional.silu(features).to(self._dtype)
        hidden = functional.silu(functional.conv2d(hidden, self._first, self._first_bias), inplace=True)
        if inside is not None:
            hidden = hidden * _shrink(inside, 1).to(self._dtype)
        return functional.conv2d(hidden, self._second, self._second_bias, dilation=self._dilation)

    def in_integers(self, example: Tensor, exact: Tensor) -> tuple[_IntegerBlock, Tensor]:
        """The same in 8-bit integers, and what this makes of ``exact``, its own contribution added.

        Parameters
        ----------
        example : Tensor (batch, channels, height, width)
            What comes in where the blocks before compute in integers.
        exact : Tensor (batch, channels, height, width)
            What should come in.
        """
        hidden = self._inner(exact)
        inner = IntegerConvolution(self._first, self._first_bias, 1, example, hidden)
        afterwards = exact + self._outer(hidden)
        dilation = int(self._dilation[0])
        outer = IntegerConvolution(self._second, self._second_bias, dilation, inner(example), afterwards - example)
        return _IntegerBlock(inner, outer, self.radius), afterwards


class _IntegerBlock:
    """The same in 8-bit integers."""

    def __init__(self, inner: IntegerConvolution, outer: IntegerConvolution, radius: int) -> None:
        self._inner, self._outer, self.radius = inner, outer, radius

    def __call__(self, features: Tensor) -> Tensor:
        return self._outer(self._inner(features))

    def of_crops(self, features: Tensor, inside: Tensor | None) -> Tensor:
        """The same without what depends on the edges of the features."""
        hidden = self._inner(features, padded=False)
        # SiLU of nothing is nothing.
        hidden = hidden if inside is None else hidden * _shrink(inside, 1)
        return self._outer(hidden, padded=False)


@overload
def _shrink(maps: Tensor, by: int) -> Tensor: ...
@overload
def _shrink(maps: None, by: int) -> None: ...
def _shrink(maps: Tensor | None, by: int) -> Tensor | None:
    """Maps without their outermost pixels."""
    return None if maps is None else maps[..., by:-by, by:-by]
