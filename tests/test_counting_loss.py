"""The Poisson-binomial count: its distribution, its likelihood, its gradient, and the theorems about it."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from marks import NEEDS_CARD

from smlm_pb.errors import ImpossibleCountError
from smlm_pb.losses import (
    count_negative_log_likelihood,
    counting,
    poisson_binomial_log_pmf,
    start_logit,
    tile_counts,
)

FIVE = (0.1, 0.35, 0.6, 0.85, 0.5)
FIVE_PMF = (0.01755, 0.154725, 0.3691, 0.33635, 0.11335, 0.008925)

some_probabilities = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(0.0, 1.0))
some_logits = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-120.0, 120.0))


def double(values):
    return torch.as_tensor(np.asarray(values, dtype=np.float64))


def subset_sum(p):
    """The distribution by its definition (thesis Eq. 2.4): all 2^N outcomes."""
    pmf = np.zeros(len(p) + 1)
    for outcome in itertools.product((0, 1), repeat=len(p)):
        pmf[sum(outcome)] += math.prod(q if hit else 1 - q for q, hit in zip(p, outcome, strict=True))
    return pmf


def recursion(log_off, log_on, most):
    """Candidate by candidate (thesis Eq. 2.11), in logarithms."""
    log_pmf = np.full(most + 1, -np.inf)
    log_pmf[0] = 0.0
    for off, on in zip(log_off, log_on, strict=True):
        log_pmf[1:] = np.logaddexp(log_pmf[1:] + off, log_pmf[:-1] + on)
        log_pmf[0] += off
    return log_pmf


def recursion_from_logits(z, most):
    return recursion(-np.logaddexp(0, z), -np.logaddexp(0, -z), most)


def recursion_from_probabilities(p, most):
    with np.errstate(divide="ignore"):
        return recursion(np.log1p(-p), np.log(p), most)


def pmf_of(p):
    return poisson_binomial_log_pmf(double(p)[None])[0].exp().numpy()


def value_and_gradient(z, count):
    z = double(z)[None].requires_grad_()
    value = count_negative_log_likelihood(z, torch.tensor([count]))
    value.backward()
    return value.item(), z.grad[0].numpy()


# ---- the distribution


def test_five_candidates():
    np.testing.assert_allclose(pmf_of(FIVE), FIVE_PMF, atol=1e-15)
    np.testing.assert_allclose(pmf_of(FIVE), subset_sum(FIVE), atol=1e-15)
    values = [value_and_gradient(torch.logit(double(FIVE)), c)[0] for c in range(6)]
    np.testing.assert_allclose(values, (4.042701, 1.866106, 0.996688, 1.089603, 2.177275, 4.718899), atol=5e-7)


@given(p=some_probabilities)
def test_distribution_equals_all_outcomes(p):
    np.testing.assert_allclose(pmf_of(p), subset_sum(p), atol=1e-14)


@given(p=some_probabilities, order=st.randoms(use_true_random=False))
def test_distribution_is_one_and_does_not_know_the_order(p, order):
    pmf, k = pmf_of(p), np.arange(len(p) + 1)
    shuffled = order.sample(list(p), len(p))
    np.testing.assert_allclose(pmf_of(shuffled), pmf, atol=1e-13)
    assert pmf.sum() == pytest.approx(1, abs=1e-12)
    assert pmf @ k == pytest.approx(p.sum(), abs=1e-12)
    assert pmf @ (k - p.sum()) ** 2 == pytest.approx((p * (1 - p)).sum(), abs=1e-12)


def test_cutting_at_a_count_is_exact():
    p = np.random.default_rng(1).uniform(0, 0.5, (3, 37))
    whole = poisson_binomial_log_pmf(double(p))
    for most in (0, 1, 5, 36):
        cut = poisson_binomial_log_pmf(double(p), most)
        torch.testing.assert_close(cut, whole[:, : most + 1], rtol=1e-13, atol=1e-13)
        tail = 1 - cut.exp().sum(1)
        torch.testing.assert_close(tail, whole[:, most + 1 :].exp().sum(1), rtol=0, atol=1e-12)
    assert torch.isneginf(poisson_binomial_log_pmf(double(p), 40)[:, 38:]).all()


def test_certain_and_absent_candidates():
    p = double([[1, 1, 0.5, 0], [1, 1, 1, 0], [0, 0, 0, 0]])
    expected = double([[0, 0, 0.5, 0.5, 0], [0, 0, 0, 1, 0], [1, 0, 0, 0, 0]])
    torch.testing.assert_close(poisson_binomial_log_pmf(p).exp(), expected, rtol=0, atol=1e-15)
    assert poisson_binomial_log_pmf(torch.zeros(2, 0)).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(("candidates", "most"), [(1352, 41), (1352, 3), (8192, 225), (131072, 225)])
def test_tree_equals_recursion_also_far_from_the_mean(candidates, most):
    p = np.random.default_rng(candidates).uniform(0, 0.1, candidates)
    expected = recursion_from_probabilities(p, most)
    log_pmf = poisson_binomial_log_pmf(double(p)[None], most)[0].numpy()
    np.testing.assert_allclose(log_pmf, expected, rtol=1e-10)
    assert expected[0] < (-6000 if candidates == 131072 else -60)
    single = poisson_binomial_log_pmf(torch.from_numpy(p.astype(np.float32))[None], most)[0]
    assert single.dtype == torch.float32
    exact = recursion_from_probabilities(p.astype(np.float32).astype(np.float64), most)
    np.testing.assert_allclose(single.numpy(), exact, rtol=1.3e-7)
    loss = count_negative_log_likelihood(torch.logit(double(p))[None], torch.tensor([most]))
    assert loss.item() == pytest.approx(-expected[-1], rel=1e-10)


def test_whole_distribution_over_hundreds_of_decades():
    p = np.random.default_rng(2).uniform(0, 0.1, 700)
    log_pmf = poisson_binomial_log_pmf(double(p)[None])[0].numpy()
    assert log_pmf[-1] < -2000
    np.testing.assert_allclose(log_pmf, recursion_from_probabilities(p, 700), rtol=1e-12, atol=1e-12)


def test_distribution_is_differentiable():
    p = double([[0.0, 0.2, 0.7, 0.5], [0.9, 0.05, 0.3, 0.6]]).clamp(1e-3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: poisson_binomial_log_pmf(q, 3), (p,))


def test_probability_of_equal_counts():
    first, second = pmf_of((0.9, 0.1, 0.5)), pmf_of((0.8, 0.3))
    np.testing.assert_allclose(first, (0.045, 0.455, 0.455, 0.045), atol=1e-15)
    np.testing.assert_allclose(second, (0.14, 0.62, 0.24), atol=1e-15)
    assert math.log(first[:3] @ second) == pytest.approx(-0.922309, abs=5e-7)


def test_wrong_arguments_of_the_distribution():
    with pytest.raises(ImpossibleCountError, match="0 or more, got -1"):
        poisson_binomial_log_pmf(torch.rand(1, 3), -1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        poisson_binomial_log_pmf(torch.tensor([[0.5, 1.2]]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        poisson_binomial_log_pmf(torch.tensor([[0.5, math.nan]]))


# ---- the loss and its gradient


def test_gradient_is_probability_minus_posterior():
    _, gradient = value_and_gradient(torch.logit(double(FIVE)), 2)
    posterior = np.asarray(FIVE) - gradient
    np.testing.assert_allclose(posterior, (0.045990, 0.211934, 0.521810, 0.848618, 0.371647), atol=5e-7)
    np.testing.assert_allclose(gradient, (0.05401, 0.138066, 0.07819, 0.001382, 0.128353), atol=5e-7)
    assert posterior.sum() == pytest.approx(2, abs=1e-13)


@given(z=some_logits, data=st.data())
def test_value_and_gradient_equal_the_recursion(z, data):
    count = data.draw(st.integers(0, len(z)))
    log_pmf = recursion_from_logits(z, len(z))
    value, gradient = value_and_gradient(z, count)
    assert value == pytest.approx(-log_pmf[count], rel=1e-12, abs=1e-12)
    posterior = np.zeros(len(z))
    for i in range(len(z) if count else 0):
        rest = recursion_from_logits(np.delete(z, i), len(z) - 1)
        posterior[i] = math.exp(-np.logaddexp(0, -z[i]) + rest[count - 1] - log_pmf[count])
    np.testing.assert_allclose(gradient, 1 / (1 + np.exp(-z)) - posterior, atol=1e-12)


@pytest.mark.parametrize("count", range(6))
def test_gradient_equals_finite_differences(count):
    z = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(count)).requires_grad_()
    counts = torch.full((3,), count)
    assert torch.autograd.gradcheck(lambda x: count_negative_log_likelihood(x, counts), (z,))


def test_a_candidate_of_even_odds_among_others():
    # Where the Fourier sum met the frequency pi, the factor of this candidate was 0 and its gradient was lost.
    p = np.array([0.5, 0.3, 0.2])
    _, gradient = value_and_gradient(np.log(p / (1 - p)), 1)
    one = subset_sum(p)[1]
    posterior = np.array([0.5 * 0.7 * 0.8, 0.5 * 0.3 * 0.8, 0.5 * 0.7 * 0.2]) / one
    np.testing.assert_allclose(gradient, p - posterior, atol=1e-14)


def test_loss_is_minus_log_of_the_distribution_for_many_candidates():
    rng = np.random.default_rng(4)
    z = rng.normal(-3.5, 2.0, (2, 20_000))
    counts = np.array([600, 4000])
    value = count_negative_log_likelihood(double(z), torch.tensor(counts)).numpy()
    log_pmf = poisson_binomial_log_pmf(torch.sigmoid(double(z)), 4000).numpy()
    np.testing.assert_allclose(value, -log_pmf[[0, 1], counts], rtol=1e-10)


def test_posteriors_add_up_to_the_count_in_large_images():
    generator = torch.Generator().manual_seed(5)
    z = (torch.randn(1, 300_000, generator=generator, dtype=torch.float64) - 5).requires_grad_()
    count_negative_log_likelihood(z, torch.tensor([2500])).backward()
    assert (torch.sigmoid(z) - z.grad).sum().item() == pytest.approx(2500, rel=1e-10)


@pytest.mark.parametrize("block", [1, 64])
def test_working_in_blocks_changes_nothing(monkeypatch, block):
    z = torch.randn(5, 130, dtype=torch.float64, generator=torch.Generator().manual_seed(6)) - 1
    counts = torch.tensor([0, 3, 30, 70, 130])

    def both():
        x = z.clone().requires_grad_()
        value = count_negative_log_likelihood(x, counts)
        value.sum().backward()
        return value.detach(), x.grad

    whole = both()
    monkeypatch.setattr(counting, "_CPU_BLOCK", block)
    for a, b in zip(both(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_items_and_padding_do_not_touch_each_other():
    generator = torch.Generator().manual_seed(7)
    sizes, counts = (1, 4, 9, 9), torch.tensor([1, 0, 5, 9])
    parts = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    padded = torch.full((4, 12), -math.inf, dtype=torch.float64)
    for row, part in enumerate(parts):
        padded[row, : len(part)] = part
    padded.requires_grad_()
    value = count_negative_log_likelihood(padded, counts)
    (value * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    for row, part in enumerate(parts):
        alone, gradient = value_and_gradient(part, int(counts[row]))
        assert value[row].item() == pytest.approx(alone, rel=1e-12)
        np.testing.assert_allclose(padded.grad[row, : len(part)], (row + 1) * gradient, atol=1e-13)
        assert not padded.grad[row, len(part) :].any()


@pytest.mark.parametrize("count", [0, 1, 3, 5, 6])
def test_extreme_logits(count):
    z = np.array([100.0, 100, 100, -100, -100, -100])
    value, gradient = value_and_gradient(z, count)
    wrong = abs(count - 3)
    # Each wrong candidate costs 100; it may be any of three.
    assert value == pytest.approx(max(0, 100 * wrong - math.log(math.comb(3, wrong))), abs=1e-10)
    expected = np.zeros(6)
    if count > 3:
        expected[3:] = -wrong / 3
    else:
        expected[:3] = wrong / 3
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


def test_certain_candidates_as_infinite_logits():
    z = double([math.inf, math.inf, -math.inf, 0.0])
    value, gradient = value_and_gradient(z, 2)
    assert value == pytest.approx(math.log(2), abs=1e-12)
    np.testing.assert_allclose(gradient, (0, 0, 0, 0.5), atol=1e-14)
    value, gradient = value_and_gradient(z, 1)  # impossible, but for saturation
    assert value > 500
    assert np.isfinite(gradient).all()


def test_values_below_rounding_of_one_are_kept():
    value, _ = value_and_gradient(np.full(7, 30.0), 7)
    assert value == pytest.approx(7 * math.log1p(math.exp(-30)), rel=1e-12)
    value, _ = value_and_gradient(np.full(7, -30.0), 0)
    assert value == pytest.approx(7 * math.log1p(math.exp(-30)), rel=1e-12)


def test_single_precision():
    generator = torch.Generator().manual_seed(8)
    z = torch.randn(4, 800, generator=generator) - 4
    counts = torch.tensor([0, 4, 30, 800])
    single, exact = z.clone().requires_grad_(), z.double().requires_grad_()
    a, b = count_negative_log_likelihood(single, counts), count_negative_log_likelihood(exact, counts)
    a.sum().backward()
    b.sum().backward()
    assert a.dtype == single.grad.dtype == torch.float32
    torch.testing.assert_close(a.double(), b, rtol=1.3e-7, atol=0)
    torch.testing.assert_close(single.grad.double(), exact.grad, rtol=0, atol=1e-7)


def test_no_candidates_and_no_items():
    assert count_negative_log_likelihood(torch.zeros(2, 0), torch.tensor([0, 0])).tolist() == [0, 0]
    assert count_negative_log_likelihood(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_nan_stays_with_its_item():
    z = torch.zeros(2, 4)
    z[0, 1] = math.nan
    z.requires_grad_()
    value = count_negative_log_likelihood(z, torch.tensor([2, 2]))
    value.sum().backward()
    assert torch.isnan(value).tolist() == [True, False]
    assert torch.isnan(z.grad[0]).all()
    assert torch.isfinite(z.grad[1]).all()


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (-1, r"Count -1 in item 1 cannot come from 3 candidates.*whole number.*larger tiles"),
        (4, r"Count 4 in item 1 cannot come from 3 candidates"),
        (1.5, r"Count 1\.5 in item 1"),
        (math.nan, r"Count nan in item 1"),
    ],
)
def test_impossible_counts(count, message):
    z = torch.zeros(2, 4)
    z[1, 3] = -math.inf
    with pytest.raises(ImpossibleCountError, match=message) as caught:
        count_negative_log_likelihood(z, torch.tensor([2, count]))
    assert "\n" not in str(caught.value)


def test_wrong_shapes_and_second_derivatives_are_refused():
    with pytest.raises(ValueError, match="counts"):
        count_negative_log_likelihood(torch.zeros(2, 3), torch.tensor([1]))
    z = torch.zeros(1, 3, requires_grad=True)
    loss = count_negative_log_likelihood(z, torch.tensor([1])).sum()
    (first,) = torch.autograd.grad(loss, z, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()


@NEEDS_CARD
def test_the_same_on_a_graphics_card():
    z = torch.randn(3, 5000, generator=torch.Generator().manual_seed(13)) - 4
    counts = torch.tensor([0, 90, 2000])
    here, there = z.clone().requires_grad_(), z.cuda().requires_grad_()
    expected = count_negative_log_likelihood(here, counts)
    found = count_negative_log_likelihood(there, counts.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-6)
    expected.sum().backward()
    found.sum().backward()
    torch.testing.assert_close(there.grad.cpu(), here.grad, rtol=0, atol=1e-6)


# ---- theorems


@pytest.mark.parametrize("candidates", [1, 4, 10])
def test_loss_is_zero_only_for_certain_candidates_of_the_right_number(candidates):
    # Theorem 3.1: the corners of the cube.
    corner = np.array(list(itertools.product((-100.0, 100.0), repeat=candidates)))
    present = (corner > 0).sum(1)
    for count in range(candidates + 1):
        loss = count_negative_log_likelihood(double(corner), torch.full((len(corner),), count)).numpy()
        assert (loss[present == count] < 1e-12).all()
        assert (loss[present != count] > 90).all()


@given(z=hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(-20, 20)))
def test_loss_is_positive_away_from_the_corners(z):
    assert value_and_gradient(z, len(z) // 2)[0] > 0


def test_probability_of_a_count_is_affine_in_each_candidate():
    # Its Laplacian is zero, so that it has no maximum inside the cube (Theorem 3.2).
    rng = np.random.default_rng(9)
    for _ in range(5):
        p, h = rng.uniform(0.2, 0.8, 6), 0.1
        for i, c in itertools.product(range(6), range(7)):
            step = h * np.eye(6)[i]
            assert abs(pmf_of(p + step)[c] - 2 * pmf_of(p)[c] + pmf_of(p - step)[c]) < 1e-14


def test_equal_candidates_are_a_saddle():
    value, gradient = value_and_gradient(np.zeros(4), 2)
    assert value == pytest.approx(0.980829, abs=5e-7)
    np.testing.assert_allclose(gradient, 0, atol=1e-15)
    assert value_and_gradient([0.1, 0.1, -0.1, -0.1], 2)[0] < value


def test_two_candidates_for_one_molecule():
    # Thesis Eq. 3.3-3.5.
    p = double([0.3, 0.6]).requires_grad_()

    def loss(q):
        return -poisson_binomial_log_pmf(q[None], 1)[0, 1]

    value = loss(p)
    value.backward()
    assert value.item() == pytest.approx(0.616186, abs=5e-7)
    np.testing.assert_allclose(p.grad, (0.370370, -0.740741), atol=5e-7)
    hessian = torch.autograd.functional.hessian(loss, double([0.5, 0.5]))
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian), (-4, 4), atol=1e-10)


def test_one_more_candidate_flattens_and_delays():
    # Proposition 3.1 and Proposition 4.1 (mass shift is irreversible); Lemma 3.1 bounds the mode.
    rng = np.random.default_rng(10)
    for _ in range(150):
        p = rng.uniform(0, 1, rng.integers(2, 9)) ** rng.choice([0.3, 1, 3])
        fewer, more = np.append(pmf_of(p[:-1]), 0), pmf_of(p)
        k = np.arange(len(more))
        assert more.max() <= fewer.max() + 1e-15
        assert more.argmax() >= fewer.argmax()
        variances = [d @ (k - d @ k) ** 2 for d in (fewer, more)]
        assert variances[1] - variances[0] == pytest.approx(p[-1] * (1 - p[-1]), abs=1e-12)
        assert (np.cumsum(more) <= np.cumsum(fewer) + 1e-14).all()
        bound = 0.5 + np.abs(0.5 - p).min()
        assert more.max() <= bound + 1e-15
        assert value_and_gradient(np.log(p / (1 - p)), len(p) // 2)[0] >= -math.log(bound) - 1e-12


def test_many_faint_candidates_are_nearly_poisson():
    # Le Cam's bound (thesis Eq. 3.17).
    mode = pmf_of(np.full(100, 0.01)).max()
    assert mode == pytest.approx(0.369730, abs=5e-7)
    assert mode <= math.exp(-1) + 2 * 100 * 0.01**2


# ---- the start of a training


def test_bias_for_a_wanted_probability_of_nothing():
    bias = math.log(0.8 ** (-1 / 1352) - 1)  # thesis Eq. 2.14, corrected
    assert bias == pytest.approx(-8.7092, abs=5e-5)
    value, _ = value_and_gradient(np.full(1352, bias), 0)
    assert math.exp(-value) == pytest.approx(0.8, rel=1e-12)


@pytest.mark.parametrize(
    ("candidates", "count", "log10"),
    [(1352, 41, -3.4), (1352, 20, -10.4), (1352, 10, -16.8), (1352, 5, -21.5), (8192, 41, -115)],
)
def test_rare_counts_keep_their_gradient(candidates, count, log10):
    # An epsilon inside the logarithm would cut these off.
    value, gradient = value_and_gradient(np.full(candidates, -3.0), count)
    assert -value / math.log(10) == pytest.approx(log10, rel=0.02)
    assert gradient.sum() == pytest.approx(candidates / (1 + math.exp(3)) - count, rel=1e-9)


def test_start_logit_expects_the_mean_count():
    z = start_logit(41, 1352)
    assert z == pytest.approx(-3.465, abs=5e-4)
    assert 1352 / (1 + math.exp(-z)) == pytest.approx(41)
    assert value_and_gradient(np.full(1352, z), 41)[0] / math.log(10) == pytest.approx(1.2, abs=0.05)
    for mean in (0, -1, 10, 11):
        with pytest.raises(ImpossibleCountError, match="cannot come from 10 candidates"):
            start_logit(mean, 10)


# ---- tiles


@pytest.mark.parametrize(("height", "width", "tile"), [(7, 11, 4), (8, 8, 8), (5, 3, 16), (9, 13, 1), (12, 6, 3)])
def test_tiles_hold_their_own_candidates_and_molecules(height, width, tile):
    rng = np.random.default_rng(height * width)
    z = torch.from_numpy(rng.normal(size=(3, 2, height, width)))
    item = np.sort(rng.choice([0, 2], 90))
    y, x = rng.uniform(-0.5, height - 0.5, 90), rng.uniform(-0.5, width - 0.5, 90)
    logits, counts = tile_counts(z, double(y), double(x), torch.from_numpy(item), tile)
    rows, columns = math.ceil(height / tile), math.ceil(width / tile)
    assert logits.shape == (3 * rows * columns, 2 * tile * tile)
    for index, (b, r, c) in enumerate(itertools.product(range(3), range(rows), range(columns))):
        inside = z[b, :, r * tile : (r + 1) * tile, c * tile : (c + 1) * tile].flatten()
        there = logits[index][torch.isfinite(logits[index])]
        assert sorted(there.tolist()) == sorted(inside.tolist())
        owned = (item == b) & (y >= r * tile - 0.5) & (y < (r + 1) * tile - 0.5)
        owned &= (x >= c * tile - 0.5) & (x < (c + 1) * tile - 0.5)
        assert counts[index] == owned.sum()
    assert counts.sum() == 90


def test_tile_borders_are_half_open_and_outsiders_go_to_the_nearest_pixel():
    y = torch.tensor([3.499, 3.5, -2.0, 9.0])
    _, counts = tile_counts(torch.zeros(1, 1, 8, 4), y, torch.zeros(4), torch.zeros(4, dtype=torch.long), 4)
    assert counts.tolist() == [2, 2]


def test_tiles_of_an_image_without_molecules():
    nothing = torch.zeros(0)
    logits, counts = tile_counts(torch.zeros(2, 2, 5, 5), nothing, nothing, nothing.long(), 3)
    assert counts.tolist() == [0] * 8
    assert torch.isfinite(count_negative_log_likelihood(logits, counts)).all()
