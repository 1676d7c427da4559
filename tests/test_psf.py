"""The pixel-integrated Gaussian: values against quadrature, derivatives against finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from smlm_pb.psf import pixel_integral, pixel_integral_derivatives, render_gaussians
from smlm_pb.simulation.rendering import render_separable


def double(*values):
    return [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]


@settings(max_examples=40, deadline=None)
@given(distance=st.floats(-8, 8), sigma=st.floats(0.4, 4.0))
def test_pixel_integral_equals_quadrature(distance, sigma):
    def density(u):
        return math.exp(-0.5 * (u / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))

    expected, _ = quad(density, distance - 0.5, distance + 0.5, epsabs=1e-14)
    value = float(pixel_integral(torch.tensor(distance, dtype=torch.float64), sigma))
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_float32_tails_keep_their_relative_accuracy():
    distance = torch.arange(-6, 7, dtype=torch.float64)
    exact = pixel_integral(distance, 1.0)
    single = pixel_integral(distance.float(), 1.0).double()
    assert torch.all((single / exact - 1).abs() < 1e-4)  # erf differences lose all digits at 6 σ


def test_pixel_integral_is_twice_differentiable_at_the_pixel_centre():
    distance = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64, requires_grad=True)
    (sigma,) = double([1.1, 0.9, 1.3])
    assert torch.autograd.gradcheck(pixel_integral, (distance, sigma))
    assert torch.autograd.gradgradcheck(pixel_integral, (distance, sigma))


def test_closed_derivatives_equal_autograd():
    distance = torch.linspace(-4, 4, 33, dtype=torch.float64, requires_grad=True)
    sigma = torch.full((33,), 1.2, dtype=torch.float64, requires_grad=True)
    value = pixel_integral(distance, sigma)
    by_distance, by_sigma = torch.autograd.grad(value.sum(), (distance, sigma))
    integral, d_centre, d_sigma = pixel_integral_derivatives(distance.detach(), sigma.detach())
    assert torch.allclose(integral, value, atol=1e-14)
    assert torch.allclose(d_centre, -by_distance, atol=1e-13)
    assert torch.allclose(d_sigma, by_sigma, atol=1e-13)


def test_render_is_differentiable_in_everything():
    x, y, photons = double([2.0, 3.3, 8.6], [1.5, 4.0, 0.2], [100.0, 70.0, 20.0])
    sigma, background = double([1.0, 1.2, 0.9], [[[0.5]], [[2.0]]])
    frame = torch.tensor([0, 1, 1])

    def image(*parameters):
        x, y, photons, sigma, background = parameters
        return render_gaussians(x, y, photons, sigma, frame, (2, 6, 8), background=background)

    assert torch.autograd.gradcheck(image, (x, y, photons, sigma, background))


def test_light_is_conserved_and_its_centroid_lies_at_the_molecule():
    x, y, photons = double([20.0, 24.3], [20.0, 17.8], [1000.0, 500.0])
    image = render_gaussians(x, y, photons, 1.3, None, (1, 40, 44))[0].detach().numpy()
    assert image.sum() == pytest.approx(1500, rel=2e-6)
    one = render_gaussians(x[1:], y[1:], photons[1:], 1.3, None, (1, 40, 44))[0].detach().numpy()
    rows, columns = np.indices(one.shape)
    assert (one * columns).sum() / one.sum() == pytest.approx(24.3, abs=1e-5)
    assert (one * rows).sum() / one.sum() == pytest.approx(17.8, abs=1e-5)


def test_a_molecule_at_zero_is_centred_on_the_first_pixel():
    zero = torch.zeros(1)
    image = render_gaussians(zero, zero, torch.tensor([100.0]), 1.0, None, (1, 5, 5))[0]
    assert image.argmax() == 0
    assert torch.allclose(image, image.T)
    # One third of a pixel each way: only at the pixel's centre are both sides equal.
    left, right = (
        render_gaussians(torch.tensor([v]), zero, torch.tensor([100.0]), 1.0, None, (1, 5, 5))[0, 0, 0]
        for v in (-1 / 3, 1 / 3)
    )
    assert float(left) == pytest.approx(float(right), rel=1e-6)


def test_light_of_a_molecule_outside_enters_and_frames_stay_apart():
    image = render_gaussians(
        torch.tensor([-1.5, 100.0]),
        torch.tensor([2.0, 2.0]),
        torch.tensor([1000.0, 1000.0]),
        torch.tensor([1.0, 1.0]),
        torch.tensor([1, 0]),
        (3, 5, 6),
    )
    assert image[1, 2, 0] > 20
    assert image[0].abs().max() == 0
    assert image[2].abs().max() == 0


def test_torch_and_numpy_renderings_agree():
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-4, 36, (2, 60))
    photons, sigma = rng.uniform(100, 5000, 60), rng.uniform(0.8, 1.6, 60)
    expected = render_separable(x, y, photons, sigma, (32, 33))
    tensors = [torch.tensor(v) for v in (x, y, photons, sigma)]
    image = render_gaussians(*tensors, None, (1, 32, 33))[0].numpy()
    assert np.abs(image - expected).max() < 5000 * 1e-6


def test_chunks_do_not_change_the_image(monkeypatch):
    rng = np.random.default_rng(4)
    x, y, n = (torch.tensor(rng.uniform(1, 20, 50)) for _ in range(3))
    whole = render_gaussians(x, y, n, 1.0, None, (1, 22, 22))
    monkeypatch.setattr("smlm_pb.psf._PATCH_PIXELS_AT_ONCE", 400)
    assert torch.allclose(render_gaussians(x, y, n, 1.0, None, (1, 22, 22)), whole, atol=1e-12)


def test_no_molecules_give_the_background():
    nothing = torch.empty(0)
    image = render_gaussians(nothing, nothing, nothing, 1.0, None, (2, 3, 4), background=7.0)
    assert torch.equal(image, torch.full((2, 3, 4), 7.0))


@pytest.mark.parametrize(
    ("x", "frame", "message"),
    [
        ([1.0, math.nan], [0, 0], "finite"),
        ([1.0, 2.0], [0, 3], "frames 0 to 3 of 2"),
        ([1.0, 2.0], [0], "equally long"),
    ],
)
def test_impossible_molecules_are_refused(x, frame, message):
    x = torch.tensor(x)
    with pytest.raises(ValueError, match=message):
        render_gaussians(x, torch.ones(2), torch.ones(2), 1.0, torch.tensor(frame), (2, 4, 4))
