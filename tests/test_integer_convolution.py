"""Convolutions in 8-bit integers: as exact as their steps, bright or dim, and independent of how frames are cut."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from smlm_pb.networks import integer_convolution
from smlm_pb.networks.example import example_image
from smlm_pb.networks.integer_convolution import IntegerConvolution, has_integer_operations
from smlm_pb.population import Population

pytestmark = pytest.mark.skipif(not has_integer_operations(), reason="torch has no integer convolutions here")

CHANNELS = 16


def draw(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(features, kernel, bias, dilation=1, *, padded=True):
    hidden = functional.silu(features.double())
    padding = dilation if padded else 0
    return functional.conv2d(hidden, kernel.double(), bias.double(), padding=padding, dilation=dilation)


def convolution(dilation=1, *, kernel=None, scale=3.0):
    kernel = draw(CHANNELS, CHANNELS, 3, 3, scale=0.1) if kernel is None else kernel
    bias, example = draw(CHANNELS, seed=1), draw(2, CHANNELS, 40, 40, seed=2, scale=scale)
    made = IntegerConvolution(kernel, bias, dilation, example, exact(example, kernel, bias, dilation).float())
    return made, kernel, bias


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padded", [True, False])
def test_it_is_the_convolution_to_a_percent(dilation, padded):
    made, kernel, bias = convolution(dilation)
    features = draw(3, CHANNELS, 21, 33, seed=5, scale=3.0)
    ours, theirs = made(features, padded=padded), exact(features, kernel, bias, dilation, padded=padded)
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    assert (ours - theirs).square().mean() < (0.02 * theirs.std()) ** 2
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_on_the_example_the_mean_is_exact():
    kernel, bias = draw(CHANNELS, CHANNELS, 3, 3, scale=0.1), draw(CHANNELS, seed=1)
    example = draw(2, CHANNELS, 40, 40, seed=2, scale=3.0)
    wanted = exact(example, kernel, bias).float() + 0.25
    made = IntegerConvolution(kernel, bias, 1, example, wanted)
    torch.testing.assert_close(made(example).mean((0, 2, 3)), wanted.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("times", [2, 10, 100, 1000])
def test_what_is_brighter_than_the_example_keeps_its_digits(times):
    made, kernel, bias = convolution()
    features = draw(4, CHANNELS, 24, 24, seed=6, scale=3.0)
    features[1, :, 10:13, 10:13] = times * features[1, :, 10:13, 10:13].abs()
    ours, theirs = made(features), exact(features, kernel, bias)
    near = (1, slice(None), slice(9, 14), slice(9, 14))
    assert (ours - theirs)[near].square().mean().sqrt() < 0.01 * theirs[near].std()
    # Elsewhere it changes nothing, not even the last bit.
    features[1, :, 10:13, 10:13] = 0.0
    dark = made(features)
    far = torch.ones(24, 24, dtype=torch.bool)
    far[9:14, 9:14] = False
    assert torch.equal(ours[1][:, far], dark[1][:, far])
    assert torch.equal(ours[[0, 2, 3]], dark[[0, 2, 3]])


def test_cuts_change_not_even_the_last_bit():
    made, *_ = convolution(2)
    features = draw(5, CHANNELS, 40, 36, seed=7, scale=3.0)
    features[3, :, 20, 20] += 200.0
    whole = made(features)
    assert torch.equal(made(features[3:4]), whole[3:4])
    assert torch.equal(made(features[2:, :, 3:30, 5:30])[..., 2:-2, 2:-2], whole[2:, :, 5:28, 7:28])
    assert torch.equal(made(features[..., 4:25, 4:25], padded=False), whole[..., 6:23, 6:23])


def test_nothing_stays_nothing():
    """Padding and dark places are zero, not a step beside it."""
    made, kernel, _ = convolution()
    features = torch.zeros(1, CHANNELS, 12, 12)
    assert torch.equal(made(features), made._bias[None, :, None, None].expand(1, -1, 12, 12))
    assert made._bias.shape == (len(kernel),)


@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=40), st.floats(0.04, 1.0))
def test_rounding_is_to_the_nearest_step(values, step):
    rows = np.array(values, np.float32).reshape(1, 1, -1)
    steps = torch.full((rows.shape[2],), step)
    total, chosen = np.zeros(rows.shape[2]), np.array([0])
    for level in range(7):
        per_step, offset = integer_convolution._rounding(steps, level)
        digits, exceeded = np.empty(rows.shape, np.uint8), np.empty(1, np.bool_)
        integer_convolution._round(rows, chosen, per_step, offset, digits, exceeded)
        total += (digits[0, 0].astype(float) - (8 if level == 0 else 0)) * 4**level * step
        if not exceeded[0]:
            break
    theirs = functional.silu(torch.from_numpy(rows[0, 0]).double()).numpy().clip(-8 * step)
    coarsest = 4 ** (np.searchsorted(np.cumsum([247.0, 1020.0, 4080.0]), theirs / step))
    assert np.all(np.abs(total - theirs) <= 0.52 * step * coarsest + 0.006)


def test_light_beyond_all_digits_saturates():
    made, *_ = convolution()
    features = torch.full((1, CHANNELS, 5, 5), 1e9)
    assert made(features).isfinite().all()


@pytest.mark.parametrize("population", [None, Population(300, 200, 400, 0.001), Population(9000, 8000, 9900, 0.06)])
def test_the_example_is_as_bright_as_the_movie(population):
    image = example_image(1.2, population)
    assert image.shape == (1, 1, 64, 64)
    assert image.dtype == torch.float32
    assert torch.equal(image, example_image(1.2, population))
    brightest = 5000.0 if population is None else min(20000.0, max(1000.0, 2.5 * population.photons_high))
    peak = brightest / (2 * np.pi * 1.2**2)
    assert 0.5 * peak < float(image.max()) < 200 + 4 * peak
    assert float(image.min()) >= 0
    crowded = example_image(1.2, Population(1000, 900, 1100, 0.06)).mean()
    assert crowded > 1.5 * example_image(1.2, Population(1000, 900, 1100, 0.001)).mean()


def test_operations_that_fail_or_err_are_not_used(monkeypatch):
    probe = has_integer_operations.__wrapped__
    assert probe()
    right = IntegerConvolution._convolved

    def refuse(*args):
        raise NotImplementedError("no such kernel")

    for wrong in (refuse, lambda *args: right(*args).clamp(max=500.0)):
        monkeypatch.setattr(IntegerConvolution, "_convolved", wrong)
        assert not probe()
