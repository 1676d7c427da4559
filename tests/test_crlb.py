"""The Cramér–Rao bound: known constants, scaling laws, neighbours, and an estimator that reaches it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from smlm_pb.refinement.crlb import crlb, crlb_group, crlb_table, fisher_information, mortensen_mle
from smlm_pb.simulation.rendering import render_separable

SUBPIXEL = np.stack(np.meshgrid(np.linspace(-0.45, 0.45, 10), np.linspace(-0.45, 0.45, 10)))


@pytest.mark.parametrize(
    ("photons", "numeric_nm", "with_read_noise_nm", "mortensen_nm"),
    [
        (500, 11.22, 11.42, 11.21),
        (1000, 6.38, 6.48, 6.38),
        (2000, 3.80, 3.85, 3.80),
        (5000, 2.05, 2.06, 2.05),
    ],
)
def test_published_constants(photons, numeric_nm, with_read_noise_nm, mortensen_nm):
    dx, dy = SUBPIXEL
    ideal = crlb(photons, 50, 1.1, dx=dx, dy=dy)
    noisy = crlb(photons, 50, 1.1, dx=dx, dy=dy, read_variance_e2=1.6**2)
    assert 100 * ideal.sigma_x.mean() == pytest.approx(numeric_nm, abs=0.02)
    assert 100 * ideal.sigma_y.mean() == pytest.approx(numeric_nm, abs=0.02)
    assert 100 * noisy.sigma_x.mean() == pytest.approx(with_read_noise_nm, abs=0.02)
    assert 100 * mortensen_mle(photons, 50, 1.1) == pytest.approx(mortensen_nm, abs=0.02)


def test_without_background_the_bound_is_width_over_root_n():
    bound = crlb(1000, 0, 1.2)
    assert bound.sigma_photons == pytest.approx(np.sqrt(1000), rel=1e-4)
    assert mortensen_mle(1000, 0, 1.2) == pytest.approx(np.sqrt((1.2**2 + 1 / 12) / 1000), rel=1e-6)
    assert bound.sigma_x == pytest.approx(mortensen_mle(1000, 0, 1.2), rel=0.01)


@settings(max_examples=30, deadline=None)
@given(
    photons=st.floats(200, 10_000),
    background=st.floats(0.1, 200),
    sigma=st.floats(0.8, 1.6),
    dx=st.floats(-0.5, 0.5),
)
def test_electron_multiplication_doubles_every_variance(photons, background, sigma, dx):
    one = crlb(photons, background, sigma, dx=dx, estimate_sigma=True)
    two = crlb(photons, background, sigma, dx=dx, excess=2.0, estimate_sigma=True)
    for plain, multiplied in zip(one, two, strict=True):
        assert multiplied**2 == pytest.approx(2 * plain**2, rel=1e-6)


def test_maximum_likelihood_reaches_the_bound_and_scatters_twice_as_much_with_excess_noise():
    rng = np.random.default_rng(5)
    photons, background, sigma, n_trials = 1500.0, 10.0, 1.1, 160
    mean = render_separable([5.2], [4.9], [photons], [sigma], (11, 11)) + background

    def errors(images):
        found = []
        for image in images:

            def loss(p, image=image):
                mu = render_separable([p[0]], [p[1]], [p[2] * 1000], [sigma], (11, 11)) + p[3]
                return np.sum(mu - image * np.log(np.maximum(mu, 1e-9)))

            found.append(minimize(loss, (5.0, 5.0, 1.2, 12.0), method="L-BFGS-B").x[:2])
        return np.array(found) - (5.2, 4.9)

    poisson = rng.poisson(mean, (n_trials, 11, 11)).astype(float)
    plain, multiplied = errors(poisson), errors(rng.standard_gamma(np.maximum(poisson, 1e-9)))
    bound = crlb(photons, background, sigma, box=11, dx=0.2, dy=-0.1).sigma_x
    assert plain.std() / bound == pytest.approx(1.0, abs=0.13)  # 320 values: 4 % standard error
    assert multiplied.std() / bound == pytest.approx(np.sqrt(2), abs=0.18)


def test_a_close_neighbour_costs_precision_and_a_far_one_none():
    alone = crlb(1000, 20, 1.1).sigma_x
    close, far, absent = (
        crlb(1000, 20, 1.1, neighbour_dx=[d], neighbour_dy=[0.0], neighbour_photons=[n]).sigma_x
        for d, n in ((1.5, 1000), (6.5, 1000), (1.0, 0))
    )
    assert close > 1.5 * alone
    assert far == pytest.approx(alone, rel=0.02)
    assert absent == pytest.approx(alone, rel=1e-9)


def test_table_and_group_agree_where_a_group_is_small():
    x, y, photons = (
        np.array([10.0, 12.1, 30.0]),
        np.array([10.3, 9.0, 30.0]),
        np.array([900.0, 1500.0, 700.0]),
    )
    table = crlb_table([3, 3, 3], x, y, photons, 15.0, 1.2, box=21)
    pair = crlb_group(x[:2], y[:2], photons[:2], 15.0, 1.2, margin_px=9)
    assert table.sigma_x[:2] == pytest.approx(pair.sigma_x, rel=0.01)
    assert table.sigma_y[:2] == pytest.approx(pair.sigma_y, rel=0.01)
    assert table.sigma_x[2] == pytest.approx(float(crlb(700.0, 15.0, 1.2, box=21).sigma_x), rel=1e-6)


def test_molecules_of_other_frames_are_no_neighbours():
    apart = crlb_table([0, 1], [5.0, 5.5], [5.0, 5.0], [800, 800], 10.0, 1.1)
    assert apart.sigma_x[0] == pytest.approx(float(crlb(800, 10.0, 1.1).sigma_x), rel=1e-6)


def test_coincident_molecules_cannot_be_told_apart():
    bound = crlb_group([5, 5], [5, 5], [1000, 1000], 10.0, 1.1)
    assert np.all(np.isinf(bound.sigma_x))
    assert np.all(np.isinf(bound.sigma_photons))
    assert np.all(np.isfinite(bound.sigma_background))


def test_the_frame_edge_hides_light():
    inside = crlb_group([10.0], [10.0], [1000], 10.0, 1.1, shape=(21, 21))
    edge = crlb_group([0.0], [10.0], [1000], 10.0, 1.1, shape=(21, 21))
    assert edge.sigma_x[0] > 1.2 * inside.sigma_x[0]


def test_information_equals_finite_differences():
    x, y, photons, background, sigma = 5.2, 4.7, 800.0, 12.0, 1.15
    pixels = np.arange(11)

    def mean(p):
        return render_separable([p[0]], [p[1]], [p[2]], [p[4]], (11, 11)) + p[3]

    point, step = np.array([x, y, photons, background, sigma]), np.array([1e-5, 1e-5, 1e-2, 1e-3, 1e-5])
    jacobian = np.array([(mean(point + e) - mean(point - e)) / (2 * e.sum()) for e in np.diag(step)])
    expected = np.einsum("iyx,jyx->ij", jacobian, jacobian / (mean(point) + 2.0))
    one = np.ones((1, 1))
    information = fisher_information(
        x * one,
        y * one,
        photons * one,
        np.array([background]),
        np.array([sigma]),
        columns=pixels,
        rows=pixels,
        read_variance_e2=np.array([2.0]),
        estimate_sigma=True,
    )[0]
    assert information == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_many_molecules_keep_their_shape_and_order():
    photons = np.linspace(300, 9000, 6000).reshape(2, 3000)
    bound = crlb(photons, 50.0, 1.1, box=9).sigma_x
    assert bound.shape == (2, 3000)
    assert np.all(np.diff(bound.ravel()) < 0)
    assert bound[1, 7] == pytest.approx(float(crlb(photons[1, 7], 50.0, 1.1, box=9).sigma_x), rel=1e-9)


def test_empty_tables_are_allowed():
    assert crlb_table([], [], [], [], 10.0, 1.1).sigma_x.size == 0


@pytest.mark.parametrize(("photons", "sigma", "box"), [(0, 1.1, 15), (100, 0, 15), (100, 1.1, 4)])
def test_impossible_values_are_refused(photons, sigma, box):
    with pytest.raises(ValueError, match=r"must be an odd|photons > 0"):
        crlb(photons, 10, sigma, box=box)
