"""The parts of the refinement: derivatives, groups, goodness of fit, PSF width."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refinement_scenes import SIGMA, crowded, isolated, network_output, table

from smlm_pb.errors import TableError
from smlm_pb.refinement import fit_psf_sigma
from smlm_pb.refinement.acceptance import combined_sigma
from smlm_pb.refinement.fisher_scoring import maximize
from smlm_pb.refinement.fitting import fit_spots
from smlm_pb.refinement.groups import find_groups, neighbour_pairs, outsiders
from smlm_pb.refinement.reference import usual_precision, weighted_median
from smlm_pb.refinement.spots import Spots, evaluate_spots, expect, predict


def make_spots(rng, n_groups=3, n_molecules=2, size=11, *, photons=800.0, background=12.0, prior=0.2):
    middle = size // 2
    theta = np.empty((n_groups, 3 * n_molecules + 1))
    theta[:, : 2 * n_molecules] = middle + rng.uniform(-1.5, 1.5, (n_groups, 2 * n_molecules))
    theta[:, 2 * n_molecules : -1] = np.log(photons * rng.uniform(0.6, 1.5, (n_groups, n_molecules)))
    theta[:, -1] = background
    precision = np.zeros_like(theta)
    precision[:, : 2 * n_molecules] = prior**-2.0 if prior else 0.0
    used = np.ones((n_groups, size, size))
    used[0, :2] = 0.0
    spots = Spots(
        left=torch.zeros(n_groups, dtype=torch.float64),
        top=torch.zeros(n_groups, dtype=torch.float64),
        data=torch.zeros((n_groups, size, size), dtype=torch.float64),
        static=torch.as_tensor(rng.uniform(0.5, 3.0, (n_groups, size, size))),
        used=torch.as_tensor(used),
        present=torch.ones((n_groups, n_molecules), dtype=torch.float64),
        prior_mean=torch.as_tensor(theta.copy()),
        prior_precision=torch.as_tensor(precision),
        psf_sigma_px=SIGMA,
    )
    truth = torch.as_tensor(theta)
    spots.data = torch.as_tensor(rng.poisson(expect(spots, truth).numpy()).astype(float)).view(spots.data.shape)
    return spots, truth


def test_gradient_of_the_likelihood_against_finite_differences():
    rng = np.random.default_rng(1)
    spots, truth = make_spots(rng)
    spots.data[1, 3, 3] = -2.5  # read noise makes pixels negative
    theta = truth + torch.as_tensor(rng.normal(0, 0.1, truth.shape))
    score = evaluate_spots(spots, theta).score
    for k in range(theta.shape[1]):
        step = torch.zeros_like(theta)
        step[:, k] = 1e-5
        up, down = (evaluate_spots(spots, theta + sign * step).objective for sign in (1, -1))
        numeric = -0.5 * (up - down) / 2e-5
        np.testing.assert_allclose(score[:, k], numeric, rtol=1e-5, atol=1e-4)


def test_information_is_the_variance_of_the_score():
    rng = np.random.default_rng(2)
    spots, truth = make_spots(rng, n_groups=1, prior=0.0)
    many = spots.take(torch.zeros(4000, dtype=torch.long))
    mean = expect(spots, truth).numpy()
    many.data = torch.as_tensor(rng.poisson(np.repeat(mean, 4000, axis=0)).astype(float)).view(many.data.shape)
    state = evaluate_spots(many, truth.expand(4000, -1))
    scale = state.information[0].diagonal().rsqrt().numpy()
    empirical = np.cov(state.score.numpy(), rowvar=False) * np.outer(scale, scale)
    np.testing.assert_allclose(empirical, state.information[0].numpy() * np.outer(scale, scale), atol=0.08)


def test_derivatives_of_second_order_against_finite_differences():
    spots, truth = make_spots(np.random.default_rng(3), n_groups=1, n_molecules=1)
    shape = predict(spots, truth, with_shape=True).shape
    step = torch.tensor([[1e-4, 0.0, 0.0, 0.0]], dtype=torch.float64)
    along_x = (expect(spots, truth + step) - 2 * expect(spots, truth) + expect(spots, truth - step)) / 1e-8
    np.testing.assert_allclose(shape[:, 0, 0], SIGMA * along_x, atol=1e-3 * float(along_x.abs().max()))
    both = step.roll(1, dims=1) + step
    across = step - step.roll(1, dims=1)
    mixed = (
        expect(spots, truth + both) + expect(spots, truth - both)
        - expect(spots, truth + across) - expect(spots, truth - across)
    ) / 4e-8  # fmt: skip
    np.testing.assert_allclose(shape[:, 2, 0], mixed, atol=1e-3 * float(mixed.abs().max()))


def test_the_maximum_is_found_and_an_empty_slot_changes_nothing():
    rng = np.random.default_rng(4)
    spots, truth = make_spots(rng, n_groups=40, prior=1.0)
    theta, arrived = maximize(spots, truth + 0.2, iterations=40)
    state = evaluate_spots(spots, theta)
    decrement = torch.linalg.solve(state.information, state.score[..., None])[..., 0].mul(state.score).sum(1)
    assert arrived.float().mean() > 0.9
    assert float(decrement[arrived].median()) < 1e-4
    assert float(decrement[arrived].max()) < 1e-2
    alone = [column for i in range(3) for column in (2 * i,)] + [6]
    single = Spots(
        spots.left, spots.top, spots.data, spots.static, spots.used, spots.present[:, :1],
        spots.prior_mean[:, alone], spots.prior_precision[:, alone], SIGMA,
    )  # fmt: skip
    half = spots.take(torch.arange(40))
    half.present = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(40, 2)
    one, _ = maximize(single, truth[:, alone], iterations=40)
    same, _ = maximize(half, truth, iterations=40)
    np.testing.assert_allclose(same[:, alone].numpy(), one.numpy(), atol=1e-3)


def test_goodness_of_fit_has_the_distribution_it_claims():
    rng = np.random.default_rng(5)
    spots, truth = make_spots(rng, n_groups=400, n_molecules=1, prior=0.0)
    fit = fit_spots(spots, truth, iterations=20, kurtosis=1.0)
    assert fit.chi2.mean() == pytest.approx(1.0, abs=0.03)
    assert fit.chi2_excess.mean() == pytest.approx(0.0, abs=0.15)
    assert fit.chi2_excess.std() == pytest.approx(1.0, abs=0.15)
    assert fit.misshape.mean() == pytest.approx(3.0, abs=0.4)
    width = fit.width_score / fit.width_information.sqrt()
    assert width.mean() == pytest.approx(0.0, abs=0.15)
    assert width.std() == pytest.approx(1.0, abs=0.12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.floats(0.3, 4.0), st.integers(1, 6), st.integers(0, 10_000))
def test_groups_are_a_partition_that_respects_distance_and_size(n, link, largest, seed):
    rng = np.random.default_rng(seed)
    frame, x, y = rng.integers(0, 3, n), rng.uniform(0, 20, n), rng.uniform(0, 20, n)
    groups = find_groups(frame, x, y, link_px=link, largest=largest)
    assert sorted(groups.rows) == list(range(n))
    assert (groups.sizes >= 1).all()
    assert (groups.sizes <= largest).all()
    of = groups.of_rows()
    assert all(
        len(set(frame[groups.rows[a:b]])) == 1 for a, b in zip(groups.starts[:-1], groups.starts[1:], strict=True)
    )
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 1e3 * (frame[:, None] != frame)
    close = (apart <= link) & (of[:, None] != of)
    whole = groups.crowd_sizes == groups.sizes
    assert not close[whole[of]].any() if n else True
    group, row = outsiders(groups, neighbour_pairs(frame, x, y, 2 * link))
    expected = {(of[i], j) for i, j in zip(*np.nonzero((apart <= 2 * link) & (of[:, None] != of)), strict=True)}
    assert set(zip(group, row, strict=True)) == expected


def test_precision_of_two_estimates_from_the_same_pixels():
    """Neither better than the more precise of both, nor worse than the less precise one."""
    rng = np.random.default_rng(6)
    fit, network = rng.uniform(0.02, 0.5, 500), rng.uniform(0.02, 0.5, 500)
    precision = (2 * network) ** -2.0
    sigma = combined_sigma(1 / (fit**-2.0 + precision), precision, network)
    assert (sigma >= np.minimum(fit, network) - 1e-9).all()
    assert (sigma <= np.maximum(fit, network) + 1e-9).all()
    errors = rng.normal(size=(2, 200_000)) * [[0.1], [np.sqrt(0.15**2 - 0.1**2)]]
    share = (1 / 0.1**2) / (1 / 0.1**2 + 1 / 0.3**2)
    estimate = share * errors[0] + (1 - share) * errors.sum(axis=0)
    told = combined_sigma(np.array(1 / (0.1**-2 + 0.3**-2)), np.array(0.3**-2.0), np.array(0.15))
    assert told == pytest.approx(estimate.std(), rel=0.01)


def test_the_usual_precision_is_found_among_hesitant_molecules():
    rng = np.random.default_rng(7)
    bound = rng.uniform(0.01, 0.1, 600)
    stated = np.hypot(1.2 * bound, 0.02) * rng.lognormal(0, 0.05, 600)
    stated[::5] *= 3.0
    factor, floor = usual_precision(stated, bound)
    assert np.hypot(factor * 0.05, floor) == pytest.approx(np.hypot(1.2 * 0.05, 0.02), rel=0.08)
    assert usual_precision(stated[:30], bound[:30])[1] == 0.0
    assert usual_precision(np.empty(0), np.empty(0)) == (1.0, 0.0)
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 5.0])) == 2.0


@pytest.mark.parametrize("start", [0.9, 1.4])
def test_the_psf_width_of_a_movie(start):
    rng = np.random.default_rng(8)
    electrons, truth = crowded(rng, 0.004, n_frames=12, size=56)
    found, _ = network_output(rng, truth, missed=0.05)
    width = fit_psf_sigma(found, electrons, psf_sigma_px=start, read_variance_e2=2.56)
    assert width.sigma_px == pytest.approx(SIGMA, abs=max(0.012, 4 * width.error_px))
    assert 1e-4 < width.error_px < 0.02
    assert width.n_molecules >= 20


def test_the_psf_width_is_refused_where_nothing_tells_it():
    rng = np.random.default_rng(9)
    electrons, frame, x, y = isolated(rng, 5)
    locs = table(frame, x, y, 1000.0, 20.0, 0.1, n_frames=5, shape=(15, 15))
    for rows in (locs, locs.select([])):
        with pytest.raises(TableError, match="psf_sigma_px"):
            fit_psf_sigma(rows, electrons, psf_sigma_px=SIGMA)
