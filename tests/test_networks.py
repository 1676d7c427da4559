"""The networks: exact tiling, honest receptive field, conventions of the candidates, start of a training."""

import math

import pytest
import torch
from marks import NEEDS_CARD
from pydantic import ValidationError

from smlm_pb.devices import choose_device
from smlm_pb.errors import ConfigurationError
from smlm_pb.networks import NetworkSettings, PointField, build_network, predict_tiled
from smlm_pb.networks.context import scale_image
from smlm_pb.networks.inference import FixedWidthNetwork
from smlm_pb.networks.offset_regression import SIGMA_RANGE_PX

SMALL = {"channels": 8, "blocks": 3}


def a_network(seed=0, *, spread=True, **settings):
    """A small network; with ``spread`` nothing in it is zero any more, as after training."""
    torch.manual_seed(seed)
    network = build_network(NetworkSettings(**{**SMALL, **settings})).eval()
    if spread:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    return network


def an_image(height, width, *, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(80 * torch.rand(batch, 1, height, width, generator=generator) + 5, generator=generator)


def assert_same(first, second, tolerance=1e-5):
    for name, a, b in zip(PointField._fields, first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


@pytest.fixture(params=["residual", "paper"])
def network(request):
    return a_network(backbone=request.param)


# ---- what comes out


@pytest.mark.parametrize("n", [1, 2, 3])
def test_shapes_types_and_ranges(n):
    network = a_network(n_candidates=n, reach_px=0.75)
    field = network(1000 * an_image(11, 14, batch=2), torch.tensor([0.8, 1.6]))
    for name, values in field._asdict().items():
        assert values.dtype == torch.float32
        assert values.shape == ((2, 11, 14) if name == "background" else (2, n, 11, 14))
        assert torch.isfinite(values).all()
    assert field.dy.abs().max() <= 0.75
    assert field.dx.abs().max() <= 0.75
    for log_sigma in (field.log_sigma_y, field.log_sigma_x):
        assert log_sigma.min() >= math.log(SIGMA_RANGE_PX[0]) - 1e-6
        assert log_sigma.max() <= math.log(SIGMA_RANGE_PX[1]) + 1e-6
    assert field.background.min() >= 0


def test_float32_also_in_mixed_precision(network):
    image, sigma = an_image(20, 20), torch.tensor([1.2])
    exact = network(image, sigma)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(image, sigma)
    assert {values.dtype for values in rough} == {torch.float32}
    torch.testing.assert_close(rough.dx, exact.dx, rtol=0, atol=0.05)


def test_every_weight_learns(network):
    field = network(an_image(16, 16), torch.tensor([1.0]))
    sum(values.square().sum() for values in field).backward()
    for name, parameter in network.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_the_start_of_a_training():
    network = a_network(spread=False, channels=48, blocks=2, start_logit=-4.0)
    with torch.inference_mode():
        field = network(an_image(32, 32), torch.tensor([1.2]))
    # Few molecules, near the middle of their pixels, at a typical precision; and candidates that differ.
    assert field.logit.mean().item() == pytest.approx(-4, abs=1)
    assert field.dy.abs().mean() < 0.2
    assert math.exp(field.log_sigma_x.mean()) == pytest.approx(0.25, rel=0.3)
    assert (field.logit[:, 0] - field.logit[:, 1]).abs().min() > 1e-4
    assert math.exp(field.log_photons.mean()) == pytest.approx(1500, rel=0.5)


def test_input_scaling_depends_on_nothing_but_the_pixel():
    image = an_image(8, 8)
    brighter = image.clone()
    brighter[..., 3, 3] = 1e5
    a, b = scale_image(image), scale_image(brighter)
    assert a.shape == (1, 2, 8, 8)
    same = torch.ones(8, 8, dtype=torch.bool)
    same[3, 3] = False
    assert torch.equal(a[..., same], b[..., same])
    assert torch.isfinite(scale_image(torch.tensor([[[[-50.0, 0.0, 1e6]]]]))).all()


def test_photon_noise_has_one_size_after_scaling():
    torch.manual_seed(0)
    sizes = [
        scale_image(torch.poisson(torch.full((1, 1, 300, 300), mean)))[:, 0].std() for mean in (20.0, 200.0, 5000.0)
    ]
    assert max(sizes) / min(sizes) < 1.1


def test_the_psf_width_is_seen():
    image, network = an_image(12, 12), a_network()
    narrow, wide = (network(image, torch.tensor([sigma])) for sigma in (0.8, 1.6))
    assert (narrow.logit - wide.logit).abs().max() > 1e-3


# ---- neighbourhood and symmetry


@pytest.mark.parametrize(("size", "tile"), [((41, 57), 16), ((41, 57), 23), ((30, 9), 8), ((17, 64), 64), ((9, 9), 1)])
def test_tiles_equal_the_whole_frame(network, size, tile):
    image, sigma = an_image(*size, batch=2), torch.tensor([0.9, 1.4])
    with torch.inference_mode():
        assert_same(predict_tiled(network, image, sigma, tile_px=tile), network(image, sigma))


def test_the_radius_is_the_reach_of_a_pixel(network):
    radius, sigma = network.radius, torch.tensor([1.2])
    middle = radius + 3
    image = an_image(2 * middle + 1, 2 * middle + 1)

    def change(row, column):
        """How much the output in the middle changes with one pixel."""
        other = image.clone()
        other[..., middle + row, middle + column] += 1e4
        with torch.inference_mode():
            pairs = zip(network(image, sigma), network(other, sigma), strict=True)
            return max((a[..., middle, middle] - b[..., middle, middle]).abs().max().item() for a, b in pairs)

    for row, column in ((0, radius), (-radius, 0), (radius, -radius)):
        assert change(row, column) > 0
    for row, column in ((0, radius + 1), (-radius - 1, 0), (radius + 1, -radius - 1)):
        assert change(row, column) == 0


def test_a_shifted_image_has_shifted_candidates(network):
    image, sigma, radius = an_image(50, 50), torch.tensor([1.1]), network.radius
    with torch.inference_mode():
        here, there = network(image, sigma), network(image[..., 1:, 2:], sigma)
    inner = slice(radius, 50 - radius - 2)
    moved = [values[..., radius + 1 : 50 - radius - 1, radius + 2 : 50 - radius] for values in here]
    assert_same(PointField(*moved), [values[..., inner, inner] for values in there])


def test_a_mirrored_network_sees_the_mirrored_image(network):
    # x is the column: with all kernels mirrored, and the sign of dx, molecules mirror about the middle of the image.
    image, sigma = an_image(24, 31), torch.tensor([1.1])
    field = network(image, sigma)
    n = network.n_candidates
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.copy_(parameter.flip(3))
        for parameter in (network.head.weight, network.head.bias):
            parameter[2 * n : 3 * n] *= -1
    mirrored = network(image.flip(3), sigma)
    expected = [values.flip(-1) for values in field]
    expected[PointField._fields.index("dx")] *= -1
    assert_same(mirrored, expected)


# ---- settings


def test_the_published_network():
    network = build_network(NetworkSettings(backbone="paper"))
    layers = [*network.backbone.layers, network.head]
    assert [layer.kernel_size for layer in layers] == [(7, 7), (5, 5), (5, 5), (3, 3)]
    assert [layer.out_channels for layer in layers] == [32, 32, 32, 13]
    assert 2 * network.radius + 1 == 17
    # Two input channels instead of one; precision, photons and background beside position and existence.
    assert sum(p.numel() for p in network.parameters()) == 3168 + 25632 + 25632 + 3757


def test_size_of_the_residual_network():
    network = build_network(NetworkSettings(channels=48, blocks=6))
    assert network.radius == 2 + 3 * 2 + 3 * 3
    block = 2 * (48 * 48 * 9 + 48) + 2 * 96 + 96
    assert sum(p.numel() for p in network.parameters()) == (2 * 25 * 48 + 48) + 6 * block + (48 * 13 + 13)


def test_names_of_the_weights_stay():
    # Shipped models are read by these names.
    block = [
        f"backbone.blocks.0.{part}.{kind}" for part in ("first", "second", "modulation") for kind in ("weight", "bias")
    ]
    expected = {"backbone.stem.weight", "backbone.stem.bias", *block, "head.weight", "head.bias"}
    assert set(a_network(blocks=1).state_dict()) == expected
    layers = {f"backbone.layers.{k}.{kind}" for k in range(3) for kind in ("weight", "bias")}
    assert set(a_network(backbone="paper").state_dict()) == layers | {"head.weight", "head.bias"}


POPULATIONS = torch.tensor([[900.0, 700, 1200, 0.01, 0.02], [4000.0, 1000, 9000, 0.05, 0.05], [torch.nan] * 5])


@torch.inference_mode()
def test_every_image_of_a_batch_has_the_kernels_of_its_own_conditions():
    network = a_network(told="arrangement", mixed_kernels=3)
    image, width = an_image(20, 16, batch=3), torch.tensor([0.9, 1.1, 1.6])
    together = network(image, width, POPULATIONS)
    for k in range(3):
        alone = network(image[k : k + 1], width[k : k + 1], POPULATIONS[k : k + 1])
        assert_same([values[k : k + 1] for values in together], alone)
    other = network(image, width.flip(0), POPULATIONS.flip(0))
    assert (together.logit - other.logit).abs().max() > 1e-2


def test_further_kernels_begin_as_nothing_and_learn():
    network = a_network(mixed_kernels=3, spread=False)
    convolution = network.backbone.blocks[0].first
    features, condition = torch.rand(2, SMALL["channels"], 9, 9), torch.rand(2, network.backbone.embedding.out_features)
    found = convolution(features, condition)
    torch.testing.assert_close(found, torch.nn.Conv2d.forward(convolution, features))
    found.square().sum().backward()
    assert (convolution.further.grad.abs().amax(dim=1) > 0).all()


def test_same_seed_same_network():
    first, second, other = (a_network(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": "unet"},
        {"channels": 2},
        {"blocks": 0},
        {"n_candidates": 9},
        {"reach_px": 0.4},
        {"mixed_kernels": -1},
        {"start_logit": math.nan},
        {"width": 8},
    ],
)
def test_impossible_settings(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        NetworkSettings(**settings)


# ---- devices


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device().type in ("cpu", "cuda", "mps")
    for name in ("gpu", "cuda:x", "meta", ""):
        with pytest.raises(ConfigurationError, match=r"is unknown: use auto, cpu, cuda, cuda:N or mps\."):
            choose_device(name)
    with pytest.raises(ConfigurationError, match="'cuda:99' is not there"):
        choose_device("cuda:99")


@NEEDS_CARD
def test_the_same_on_a_graphics_card(network):
    image, sigma = an_image(33, 40, batch=2), torch.tensor([0.9, 1.4])
    with torch.inference_mode():
        expected = network(image, sigma)
        found = network.cuda()(image.cuda(), sigma.cuda())
    assert_same([values.cpu() for values in found], expected, tolerance=2e-2)


@pytest.fixture
def seeing_neighbours():
    torch.manual_seed(3)
    network = build_network(NetworkSettings(channels=16, blocks=2, context_frames=1)).eval()
    for block in network.backbone.blocks:
        block.second.weight.data = 0.2 * torch.randn(block.second.weight.shape)
    return network


@torch.inference_mode()
def test_neighbouring_frames_matter_and_their_absence_is_known(seeing_neighbours):
    frames = 50 * torch.rand(2, 3, 16, 16)
    width = torch.full((2,), 1.2)
    both = seeing_neighbours(frames, width).logit
    alone = seeing_neighbours(frames[:, 1:2], width).logit
    missing = frames.clone()
    missing[:, [0, 2]] = torch.nan
    torch.testing.assert_close(seeing_neighbours(missing, width).logit, alone)
    assert (both - alone).abs().max() > 1e-3
    dark = frames.clone()
    dark[:, [0, 2]] = 0  # a dark frame is not a missing one
    assert (seeing_neighbours(dark, width).logit - alone).abs().max() > 1e-3
    swapped = seeing_neighbours(frames.flip(1), width).logit
    assert (both - swapped).abs().max() > 1e-4


@torch.inference_mode()
def test_folded_weights_see_neighbouring_frames(seeing_neighbours):
    frames = 50 * torch.rand(2, 3, 16, 16)
    width = torch.full((2,), 1.2)
    folded = FixedWidthNetwork(seeing_neighbours, 1.2)(frames, width)
    torch.testing.assert_close(folded.logit, seeing_neighbours(frames, width).logit, rtol=1e-4, atol=1e-4)


def test_frames_around_need_offsets():
    with pytest.raises(ValidationError, match="context_frames = 1"):
        NetworkSettings(context_frames=1, read_out="peaks", upsampling=4)
