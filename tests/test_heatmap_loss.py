"""Continuous heatmap matching: closed form against integrals, grids against point sets, laws of the published loss."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from marks import NEEDS_CARD

from smlm_pb.losses import (
    count_negative_log_likelihood,
    grid_pairs,
    grid_truth,
    heatmap_matching_grid,
    heatmap_matching_points,
    heatmap_points,
    stencil_radius,
)
from smlm_pb.losses.grid_pairs import GridPairSum
from smlm_pb.losses.grid_truth import truth_pair_sum
from smlm_pb.losses.heatmap_active import ActivePairSum

LABELS = ((0.0, 0.0), (0.8, -0.3))
POINTS = ((0.3, 0.1), (0.75, -0.35), (-0.5, 0.6))
PROBABILITIES = (0.7, 0.9, 0.2)


def double(values):
    return torch.as_tensor(np.asarray(values, dtype=np.float64))


def total(points, probabilities, labels, bandwidth, **options):
    """The loss of one image."""
    terms = heatmap_matching_points(
        double(points)[None], double(probabilities)[None], double(labels)[None], bandwidth=bandwidth, **options
    )
    return terms.total.item()


def published(bandwidth):
    """What the published 2-D loss charges for one isolated missed molecule; ours charges 1."""
    return math.pi * bandwidth**2 / 2


def blurred_heatmap(axis, points, weights, bandwidth, sigma=None):
    """Heatmap on a square grid; each point's Gaussian is averaged over its uncertain position by quadrature."""
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(60)
    node_weights = node_weights / node_weights.sum()
    heatmap = np.zeros((len(axis), len(axis)))
    for index, (point, weight) in enumerate(zip(points, weights, strict=True)):
        profiles = []
        for d in range(2):
            spread = 0.0 if sigma is None else sigma[index][d]
            at = point[d] + spread * nodes
            profiles.append(np.exp(-((axis[:, None] - at) ** 2) / bandwidth**2) @ node_weights)
        heatmap += weight * np.outer(*profiles)
    return heatmap


def integrated(points, probabilities, labels, bandwidth, sigma=None):
    """Eq. 6.3 by summing over a fine grid, divided by the value of one molecule."""
    axis = np.arange(-7, 7, 0.02)
    difference = blurred_heatmap(axis, points, probabilities, bandwidth, sigma)
    difference -= blurred_heatmap(axis, labels, np.ones(len(labels)), bandwidth)
    return (difference**2).sum() * 0.02**2 / published(bandwidth)


# ---- free point sets: the published form


@pytest.mark.parametrize(
    ("bandwidth", "expected"), [(0.2, 0.078369112334), (0.5, 0.114557033825), (0.8, 0.118537243998)]
)
def test_closed_form_equals_the_integral(bandwidth, expected):
    loss = total(POINTS, PROBABILITIES, LABELS, bandwidth)
    assert loss * published(bandwidth) == pytest.approx(expected, abs=1e-12)
    assert loss == pytest.approx(integrated(POINTS, PROBABILITIES, LABELS, bandwidth), abs=1e-11)


def test_derivatives_of_the_published_loss():
    # Thesis Eq. C.7 and C.15.
    x, p = double(POINTS)[None].requires_grad_(), double(PROBABILITIES)[None].requires_grad_()
    loss = heatmap_matching_points(x, p, double(LABELS)[None], bandwidth=0.5).total * published(0.5)
    loss.backward()
    np.testing.assert_allclose(p.grad[0], (-0.09822387, -0.02459148, 0.01773621), atol=5e-9)
    np.testing.assert_allclose(x.grad[0, :, 0], (0.39273731, -0.0024293, -0.03380808), atol=5e-9)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_gradients_equal_finite_differences(dimensions):
    generator = torch.Generator().manual_seed(dimensions)

    def random(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    x, p, v = random(2, 4, dimensions), random(2, 4), 0.1 * random(2, 4, dimensions)
    truth, weight = random(2, 3, dimensions), torch.tensor([[1.0, 1, 1], [1, 1, 0]], dtype=torch.float64)
    bandwidth = (0.3, 0.5, 0.8)[:dimensions]

    def loss(x, p, v):
        terms = heatmap_matching_points(x, p, truth, bandwidth=bandwidth, variance=v, truth_weight=weight)
        return terms.total * torch.tensor([1.0, 2.0], dtype=torch.float64)

    assert torch.autograd.gradcheck(loss, [t.requires_grad_() for t in (x, p, v)])


coordinates = st.floats(-3, 3)
measures = st.lists(st.tuples(coordinates, coordinates, st.floats(0, 1)), min_size=1, max_size=6)


@given(points=measures, labels=measures, bandwidth=st.floats(0.2, 2), angle=st.floats(0, 6.3))
def test_squared_distance_of_measures(points, labels, bandwidth, angle):
    points, labels = np.array(points), np.array(labels)
    x, p, truth = points[:, :2], points[:, 2], labels[:, :2]
    loss = total(x, p, truth, bandwidth)
    assert loss >= -1e-12
    # A point split in two of half the probability is the same measure.
    halved = total(np.repeat(x, 2, 0), np.repeat(p / 2, 2), truth, bandwidth)
    assert halved == pytest.approx(loss, abs=1e-10)
    # Rigid motions change nothing.
    shift = np.array([3, -7])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = total(x @ turn + shift, p, truth @ turn + shift, bandwidth)
    assert moved == pytest.approx(loss, abs=1e-10)


@given(labels=measures, bandwidth=st.floats(0.2, 2))
def test_zero_for_equal_measures_only(labels, bandwidth):
    truth = np.array(labels)[:, :2]
    ones = np.ones(len(truth))
    assert total(truth, ones, truth, bandwidth) == pytest.approx(0, abs=1e-10)
    assert total(truth + np.array([0.1 * bandwidth, 0]), ones, truth, bandwidth) > 1e-3
    assert total(truth, 0.9 * ones, truth, bandwidth) > 1e-3


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_an_isolated_molecule_costs_one(dimensions):
    here, elsewhere = np.zeros((1, dimensions)), np.full((1, dimensions), 50.0)
    assert total(elsewhere, [0.0], here, 0.2) == pytest.approx(1, abs=1e-15)
    assert total(elsewhere, [1.0], here, 0.2) == pytest.approx(2, abs=1e-15)
    assert published(0.2) == pytest.approx(0.0628319, abs=5e-8)


def test_two_candidates_on_one_molecule():
    # Thesis Eq. 6.6-6.7: matching alone does not care how they share; counting does.
    for first, second in itertools.product((0.0, 0.3, 0.7, 1.0), repeat=2):
        assert total([(1, 2)] * 2, (first, second), [(1, 2)], 0.2) == pytest.approx((first + second - 1) ** 2)
    shared = count_negative_log_likelihood(double([[0.0, 0.0]]), torch.tensor([1]))
    certain = count_negative_log_likelihood(double([[50.0, -50.0]]), torch.tensor([1]))
    assert certain.item() < 1e-20 < shared.item()


def _two_candidates_aside(p, distance, count_weight):
    """Label at 0, candidates at ±distance with equal probabilities; kernel width 1."""
    x = double([[[distance, 0], [-distance, 0]]]).requires_grad_()
    p = double([[p, p]]).requires_grad_()
    matching = heatmap_matching_points(x, p, double([[[0.0, 0.0]]]), bandwidth=1.0).total
    (matching + count_weight * count_negative_log_likelihood(torch.logit(p), torch.tensor([1]))).backward()
    return p.grad[0, 0].item(), x.grad[0, 0, 0].item() * published(1.0)


@pytest.mark.parametrize(("distance", "expected"), [(0.5, 0.5493), (1, 0.5342), (2, 0.1353)])
def test_best_probability_of_two_displaced_candidates(distance, expected):
    # Thesis Eq. 6.9.
    e = math.exp(-(distance**2) / 2)
    best = e / (1 + e**4)
    assert best == pytest.approx(expected, abs=5e-5)
    by_probability, _ = _two_candidates_aside(best, distance, 0.0)
    assert by_probability == pytest.approx(0, abs=1e-14)
    e = 3**-0.25
    assert e / (1 + e**4) == pytest.approx(0.5699, abs=5e-5)  # the largest it can be


@pytest.mark.parametrize(
    ("distance", "best", "pull", "pull_without"),
    [
        (0.5, 0.5329, 0.19761, 0.18650),
        (1, 0.5201, 0.76098, 0.77527),
        (2, 0.3113, 0.26429, 0.11496),
        (3, 0.2602, 0.02725, 0.00116),
    ],
)
def test_counting_keeps_the_pull_of_distant_candidates(distance, best, pull, pull_without):
    # Thesis Eq. 6.10 (sign corrected) and 6.11 with weight 0.1; a quarter of the weight of the normalised loss.
    low, high = 0.01, 0.99
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _two_candidates_aside(middle, distance, 0.4)[0] > 0 else (middle, high)
    assert middle == pytest.approx(best, abs=6e-5)
    assert _two_candidates_aside(middle, distance, 0.4)[1] == pytest.approx(pull, abs=2e-5)
    e = math.exp(-(distance**2) / 2)
    without = _two_candidates_aside(e / (1 + e**4), distance, 0.0)[1]
    assert without == pytest.approx(pull_without, abs=2e-5)


# ---- free point sets: uncertain positions


@pytest.mark.parametrize("bandwidth", [0.3, 0.8])
def test_uncertain_positions_equal_the_integral_of_blurred_heatmaps(bandwidth):
    sigma = np.array([[0.2, 0.5], [0.05, 0.1], [0.7, 0.3]])
    loss = total(POINTS, PROBABILITIES, LABELS, bandwidth, variance=double(sigma**2)[None])
    assert loss == pytest.approx(integrated(POINTS, PROBABILITIES, LABELS, bandwidth, sigma), abs=1e-9)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_no_uncertainty_is_the_published_form(dimensions):
    rng = np.random.default_rng(dimensions)
    x, truth = rng.normal(size=(5, dimensions)), rng.normal(size=(3, dimensions))
    p = rng.uniform(size=5)
    expected = sum(
        a * b * math.exp(-((u - v) ** 2).sum() / (2 * 0.5**2))
        for a, u in zip(np.append(p, -np.ones(3)), np.concatenate((x, truth)), strict=True)
        for b, v in zip(np.append(p, -np.ones(3)), np.concatenate((x, truth)), strict=True)
    )
    zero = torch.zeros(1, 5, dimensions, dtype=torch.float64)
    assert total(x, p, truth, 0.5) == pytest.approx(expected, abs=1e-12)
    assert total(x, p, truth, 0.5, variance=zero) == pytest.approx(expected, abs=1e-12)


def test_each_axis_has_its_own_width_and_variance():
    x, v = double([[[0.3, 0.4]]]), double([[[0.01, 0.09]]])
    terms = heatmap_matching_points(x, double([[0.5]]), double([[[0.0, 0.0]]]), bandwidth=(0.2, 0.6), variance=v)
    by_hand = 0.5
    for delta, width2, variance in ((0.3, 0.04, 0.01), (0.4, 0.36, 0.09)):
        by_hand *= math.sqrt(width2 / (width2 + variance)) * math.exp(-(delta**2) / (2 * (width2 + variance)))
    assert terms.prediction_truth.item() == pytest.approx(by_hand, rel=1e-12)
    self_term = 0.25 * math.sqrt(0.04 / 0.06) * math.sqrt(0.36 / 0.54)
    assert terms.prediction_prediction.item() == pytest.approx(self_term, rel=1e-12)
    assert terms.truth_truth.item() == 1


# ---- free point sets: odds and ends


def test_padding_and_empty_sets():
    x, p, truth = torch.rand(2, 3, 2), torch.tensor([[0.5, 0.2, 0.0], [0.0] * 3]), torch.rand(2, 2, 2)
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    terms = heatmap_matching_points(x, p, truth, bandwidth=0.3, truth_weight=weight)
    alone = heatmap_matching_points(x[:1, :2], p[:1, :2], truth[:1, :1], bandwidth=0.3)
    torch.testing.assert_close(terms.total[:1], alone.total)
    assert terms.total[1] == 0
    nothing = heatmap_matching_points(x[:, :0], p[:, :0], truth, bandwidth=0.3)
    torch.testing.assert_close(nothing.total, nothing.truth_truth)
    blank = heatmap_matching_points(x, p, truth[:, :0], bandwidth=0.3)
    torch.testing.assert_close(blank.total, blank.prediction_prediction)


def test_points_in_chunks(monkeypatch):
    x, p, truth = torch.rand(2, 9, 2).double(), torch.rand(2, 9).double(), torch.rand(2, 4, 2).double()

    def both():
        leaf = x.clone().requires_grad_()
        loss = heatmap_matching_points(leaf, p, truth, bandwidth=0.3).total
        loss.sum().backward()
        return loss.detach(), leaf.grad

    whole = both()
    monkeypatch.setattr(heatmap_points, "_CHUNK_PAIRS", 5)
    for a, b in zip(both(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, (0.3, 0.0)])
def test_kernel_widths_must_be_positive(bandwidth):
    with pytest.raises(ValueError, match="bandwidth must be > 0"):
        heatmap_matching_points(torch.rand(1, 2, 2), torch.rand(1, 2), torch.rand(1, 1, 2), bandwidth=bandwidth)


# ---- grids


def random_field(grid, *, batch=2, n=2, molecules=7, reach=0.5, max_sigma=0.4, seed=0):
    """Candidates on a grid and true molecules, as leaves in double precision."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    offset = reach * (2 * random(batch, n, len(grid), *grid) - 1)
    probability, variance = random(batch, n, *grid), (max_sigma * random(batch, n, len(grid), *grid)) ** 2
    truth = random(molecules, len(grid)) * double(grid) - 0.5
    # All molecules in the first and last item; those between are empty images.
    item = torch.where(torch.arange(molecules) % 3 == 0, 0, batch - 1)
    return [t.requires_grad_() for t in (offset, probability, variance)], truth, item


def as_points(leaves, truth, item):
    """The same candidates and molecules as padded point sets."""
    offset, probability, variance = leaves
    batch, _, dimensions, *grid = offset.shape
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    position = (offset + torch.stack(axes)).movedim(2, -1).reshape(batch, -1, dimensions)
    spread = variance.movedim(2, -1).reshape(batch, -1, dimensions)
    padded, weight = torch.zeros(batch, len(truth), dimensions).double(), torch.zeros(batch, len(truth)).double()
    for index, owner in enumerate(item):
        padded[owner, index], weight[owner, index] = truth[index], 1.0
    return position, probability.reshape(batch, -1), padded, weight, spread


GRIDS = [(9,), (1,), (6, 7), (1, 5), (12, 3), (4, 3, 5)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("uncertain", [True, False])
def test_grid_equals_point_set(grid, uncertain):
    leaves, truth, item = random_field(grid, batch=3)
    bandwidth = [0.3, 0.45, 0.6][: len(grid)]
    radius = stencil_radius(0.6, max_sigma=0.4, tolerance=1e-15, dimensions=len(grid))
    position, probability, padded, weight, spread = as_points(leaves, truth, item)
    dense = heatmap_matching_points(
        position,
        probability,
        padded,
        bandwidth=bandwidth,
        variance=spread if uncertain else None,
        truth_weight=weight,
    )
    local = heatmap_matching_grid(
        *leaves[:2],
        truth,
        item,
        bandwidth=bandwidth,
        variance=leaves[2] if uncertain else None,
        radius=radius,
    )
    for a, b in zip(local, dense, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    scale = double([1.0, -2.0, 0.5])
    wanted = leaves if uncertain else leaves[:2]
    expected = torch.autograd.grad((dense.total * scale).sum(), wanted)
    for a, b in zip(torch.autograd.grad((local.total * scale).sum(), wanted), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("grid", [(5,), (3, 3), (2, 1, 2)])
def test_grid_gradients_equal_finite_differences(grid):
    leaves, truth, item = random_field(grid, batch=4 - len(grid), molecules=3)

    def loss(*leaves):
        return heatmap_matching_grid(*leaves[:2], truth, item, bandwidth=0.5, variance=leaves[2], radius=2).total

    assert torch.autograd.gradcheck(loss, leaves)


def test_working_in_blocks_changes_nothing(monkeypatch):
    leaves, truth, item = random_field((9, 8), molecules=11)

    def both():
        loss = heatmap_matching_grid(*leaves[:2], truth, item, bandwidth=0.5, variance=leaves[2], radius=3).total
        return [loss.detach(), *torch.autograd.grad(loss.sum(), leaves)]

    whole = both()
    for module in (grid_pairs, grid_truth):
        monkeypatch.setattr(module, "_CPU_BLOCK", 1)
    for a, b in zip(both(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_no_molecules_and_no_probability():
    leaves, truth, item = random_field((5, 5), molecules=0)
    terms = heatmap_matching_grid(*leaves[:2], truth, item, bandwidth=0.3, radius=3)
    assert terms.prediction_truth.tolist() == terms.truth_truth.tolist() == [0, 0]
    torch.testing.assert_close(terms.total, terms.prediction_prediction)
    _, truth, item = random_field((5, 5), molecules=4)
    silent = heatmap_matching_grid(leaves[0], 0 * leaves[1], truth, item, bandwidth=0.3, radius=3)
    torch.testing.assert_close(silent.total, silent.truth_truth)
    without = heatmap_matching_grid(*leaves[:2], truth, item, bandwidth=0.3, radius=3, with_truth_term=False)
    assert without.truth_truth.tolist() == [0, 0]


def test_molecules_beyond_the_grid_keep_their_place():
    leaves, _, _ = random_field((5, 6), batch=1)
    truth, item = double([[-0.9, 2.2], [5.1, 6.0]]), torch.tensor([0, 0])
    position, probability, padded, weight, _ = as_points(leaves, truth, item)
    dense = heatmap_matching_points(position, probability, padded, bandwidth=0.4, truth_weight=weight)
    local = heatmap_matching_grid(*leaves[:2], truth, item, bandwidth=0.4, radius=5)
    torch.testing.assert_close(local.prediction_truth, dense.prediction_truth, rtol=1e-9, atol=1e-12)


def test_single_precision_and_mixed_types():
    leaves, truth, item = random_field((20, 21), molecules=30)
    single = [leaf.detach().float().requires_grad_() for leaf in leaves]
    exact = heatmap_matching_grid(*leaves[:2], truth, item, bandwidth=0.4, variance=leaves[2], radius=4)
    rough = heatmap_matching_grid(*single[:2], truth, item.int(), bandwidth=0.4, variance=single[2], radius=4)
    assert {term.dtype for term in rough} == {torch.float32}
    torch.testing.assert_close(rough.total.double(), exact.total, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(rough.total.sum(), single)
    for a, b in zip(gradients, torch.autograd.grad(exact.total.sum(), leaves), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("molecules", [0, 1, 60])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_truth_pairs_equal_brute_force(molecules, dimensions):
    rng = np.random.default_rng(molecules + dimensions)
    truth, item = rng.uniform(0, 3, (molecules, dimensions)), rng.integers(0, 4, molecules)
    item[item == 2] = 1  # an empty image
    width = np.array([0.3, 0.5, 0.8])[:dimensions]
    expected = np.zeros(5)
    for i, j in itertools.product(range(molecules), repeat=2):
        if item[i] == item[j]:
            expected[item[i]] += math.exp(-0.5 * (((truth[i] - truth[j]) / width) ** 2).sum())
    found = truth_pair_sum(double(truth), torch.from_numpy(item), 5, double(width) ** 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# ---- how far the stencil must reach


@pytest.mark.parametrize(
    ("bandwidth", "radius", "error"),
    [
        (0.2, 1, 1e-8),
        (0.2, 2, 9e-26),
        (0.4, 2, 5e-8),
        (0.4, 3, 3e-15),
        (0.8, 4, 1e-7),
        (0.8, 5, 8e-11),
        (1.2, 7, 2e-9),
        (2.0, 10, 3e-7),
    ],
)
def test_error_of_a_cut_stencil(bandwidth, radius, error):
    generator = torch.Generator().manual_seed(11)
    offset = torch.rand(1, 2, 2, 26, 26, generator=generator, dtype=torch.float64) - 0.5
    p = 0.1 * torch.rand(1, 2, 26, 26, generator=generator, dtype=torch.float64)
    squared = torch.full((2,), bandwidth**2, dtype=torch.float64)
    whole = GridPairSum.apply(offset, p, None, squared, 25)
    cut = GridPairSum.apply(offset, p, None, squared, radius)
    assert abs((cut / whole - 1).item()) < max(3 * error, 1e-14)


@given(
    bandwidth=st.floats(0.1, 1.5),
    sigma=st.floats(0, 1),
    reach=st.floats(0.5, 1.5),
    exponent=st.floats(1, 8),
    dimensions=st.integers(1, 3),
)
def test_stencil_radius_is_honest_and_no_larger_than_needed(bandwidth, sigma, reach, exponent, dimensions):
    tolerance = 10**-exponent
    radius = stencil_radius(bandwidth, max_sigma=sigma, reach=reach, tolerance=tolerance, dimensions=dimensions)

    def largest_kernel(pixels):
        distance = max(0.0, pixels - 2 * reach)
        width2 = bandwidth**2 + 2 * np.linspace(0, sigma, 200) ** 2
        return ((bandwidth**2 / width2) ** (dimensions / 2) * np.exp(-(distance**2) / (2 * width2))).max()

    assert largest_kernel(radius + 1) <= tolerance * (1 + 1e-9)
    assert radius == 0 or largest_kernel(radius) > tolerance * 0.99


def test_stencil_radius_by_hand():
    # Offsets within half a pixel: pixels two apart hold candidates at least one pixel apart.
    assert math.exp(-1 / (2 * 0.2**2)) < 1e-5
    assert stencil_radius(0.2, tolerance=1e-5) == 1
    assert stencil_radius(0.2, tolerance=1e-6) == 2
    assert stencil_radius(0.2, tolerance=1e-5, reach=0.75) == 2


# ---- pairs of vanished candidates


def test_active_pairs_are_all_pairs_when_the_others_are_zero():
    leaves, _, _ = random_field((11, 9), batch=3, n=3)
    keep = torch.rand(3, 1, 11, 9, generator=torch.Generator().manual_seed(3)) < 0.15
    keep[1] = False  # nothing there
    p = (leaves[1] * keep).detach().requires_grad_()
    inputs = (leaves[0], p, leaves[2])
    squared = double([0.25, 0.25])
    scale = double([1.0, 2.0, -0.5])
    every = GridPairSum.apply(*inputs, squared, 3)
    active = ActivePairSum.apply(*inputs, squared, 3, 1e-9)
    torch.testing.assert_close(active, every, rtol=1e-11, atol=1e-13)
    expected = torch.autograd.grad((every * scale).sum(), inputs)
    for a, b in zip(torch.autograd.grad((active * scale).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_active_pairs_miss_no_more_than_promised():
    leaves, truth, item = random_field((30, 30))
    faint = torch.where(leaves[1] > 0.95, leaves[1], 0.01 * leaves[1])
    options = {"bandwidth": 0.4, "variance": leaves[2], "radius": 3}
    every = heatmap_matching_grid(leaves[0], faint, truth, item, **options)
    active = heatmap_matching_grid(leaves[0], faint, truth, item, pair_floor=0.01, **options)
    missed = every.prediction_prediction - active.prediction_prediction
    pairs = 30 * 30 * 2 * 49 * 2
    assert (missed > 0).all()
    assert (missed < pairs * 0.01**2).all()
    torch.testing.assert_close(active.prediction_truth, every.prediction_truth)


def test_active_pairs_are_only_used_when_they_are_few():
    leaves, truth, item = random_field((12, 12))
    options = {"bandwidth": 0.4, "radius": 3}
    every = heatmap_matching_grid(*leaves[:2], truth, item, **options)
    floored = heatmap_matching_grid(*leaves[:2], truth, item, pair_floor=0.5, **options)
    assert torch.equal(every.total, floored.total)


@NEEDS_CARD
@pytest.mark.parametrize("floor", [0.0, 0.8])
def test_the_same_on_a_graphics_card(floor):
    leaves, truth, item = random_field((30, 31), molecules=40)
    copies = [leaf.detach().cuda().requires_grad_() for leaf in leaves]
    options = {"bandwidth": 0.4, "radius": 3, "pair_floor": floor}
    expected = heatmap_matching_grid(*leaves[:2], truth, item, variance=leaves[2], **options)
    found = heatmap_matching_grid(*copies[:2], truth.cuda(), item.cuda(), variance=copies[2], **options)
    torch.testing.assert_close(found.total.cpu(), expected.total)
    gradients = torch.autograd.grad(found.total.sum(), copies)
    for a, b in zip(gradients, torch.autograd.grad(expected.total.sum(), leaves), strict=True):
        torch.testing.assert_close(a.cpu(), b)


# ---- both losses on a full frame


def test_a_large_frame_has_finite_losses_and_gradients():
    generator = torch.Generator().manual_seed(12)
    size, molecules = 256, 2000
    logit = (torch.randn(1, 2, size, size, generator=generator) - 4).requires_grad_()
    offset = (torch.rand(1, 2, 2, size, size, generator=generator) - 0.5).requires_grad_()
    truth = torch.rand(molecules, 2, generator=generator) * size - 0.5
    item = torch.zeros(molecules, dtype=torch.long)
    matching = heatmap_matching_grid(offset, torch.sigmoid(logit), truth, item, bandwidth=0.3, radius=2).total.sum()
    (matching + count_negative_log_likelihood(logit.flatten(1), torch.tensor([molecules])).sum()).backward()
    assert 0 < matching.item() < 3 * molecules
    assert torch.isfinite(logit.grad).all()
    assert torch.isfinite(offset.grad).all()
