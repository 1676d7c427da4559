"""What the losses do when something learns from them: few certain points, calibrated probabilities, no bias."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from smlm_pb.losses import count_negative_log_likelihood, heatmap_matching_points

LAMBDA = 0.2
COUNT_WEIGHT = 0.1 / (math.pi * LAMBDA**2 / 2)  # 0.1 beside the published, not normalised, matching loss


def double(values):
    return torch.as_tensor(np.asarray(values, dtype=np.float64))


# ---- counting alone


def _descend_on_counts(starts, steps):
    """Gradient descent with rate 1 in the logits; 10 starts for each (N, c)."""
    torch.manual_seed(0)
    cases = ((5, 2), (12, 4), (12, 0), (12, 12))
    z = torch.full((starts * len(cases), 12), -math.inf, dtype=torch.float64)
    for case, (size, _) in enumerate(cases):
        z[case * starts : (case + 1) * starts, :size] = torch.randn(starts, size, dtype=torch.float64)
    z.requires_grad_()
    counts = torch.tensor([count for _, count in cases]).repeat_interleave(starts)
    optimizer = torch.optim.SGD([z], lr=1.0)
    for _ in range(steps):
        optimizer.zero_grad()
        count_negative_log_likelihood(z, counts).sum().backward()
        optimizer.step()
    p = torch.sigmoid(z.detach())
    undecided = torch.minimum(p, 1 - p).amax(1)
    return (p > 0.5).sum(1) - counts, undecided, count_negative_log_likelihood(z.detach(), counts)


def test_descent_on_counts_always_ends_at_the_right_number():
    wrong, undecided, loss = _descend_on_counts(starts=10, steps=600)
    assert not wrong.any()
    assert undecided.max() < 0.05
    assert loss.max() < 0.03


@pytest.mark.slow
def test_descent_on_counts_in_full():
    wrong, undecided, loss = _descend_on_counts(starts=10, steps=4000)
    assert not wrong.any()
    assert undecided.max() < 0.02
    assert loss.max() <= 3.1e-3


def test_existence_is_calibrated_by_counting():
    # One candidate, a molecule in 30 % of the images.
    counts = (torch.arange(100) < 30).long()
    z = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([z], lr=4.0)
    for _ in range(60):
        optimizer.zero_grad()
        count_negative_log_likelihood(z.expand(100, 1), counts).mean().backward()
        optimizer.step()
    assert torch.sigmoid(z).item() == pytest.approx(0.3, abs=1e-6)


def test_two_candidates_on_one_molecule_decide():
    # Matching is content with any p1 + p2 = 1; counting makes it (1, 0) or (0, 1).
    z = double([[0.02, -0.02], [-0.5, 0.3]]).requires_grad_()
    here = torch.zeros(2, 2, 2, dtype=torch.float64)
    optimizer = torch.optim.Adam([z], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        matching = heatmap_matching_points(here, torch.sigmoid(z), here[:, :1], bandwidth=LAMBDA).total
        counting = count_negative_log_likelihood(z, torch.tensor([1, 1]))
        (matching + 0.2 * counting).sum().backward()
        optimizer.step()
    torch.testing.assert_close(torch.sigmoid(z), double([[1, 0], [0, 1]]), rtol=0, atol=0.01)


# ---- uncertain positions


def _learn_one_candidate(jitter, bandwidth, *, learn_sigma):
    """Best probability (and precision) of one candidate whose molecule is jittered around it."""
    nodes, weight = np.polynomial.hermite_e.hermegauss(30)
    labels = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 1, 2) * jitter
    weight = double(np.outer(weight, weight).ravel() / weight.sum() ** 2)
    p = torch.full((1, 1), 0.5, dtype=torch.float64, requires_grad=True)
    log_sigma = torch.full((1, 1, 1), math.log(0.1), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([p, log_sigma], lr=0.1)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.1 if step < 300 else 0.01
        optimizer.zero_grad()
        variance = torch.exp(2 * log_sigma).expand(900, 1, 2) if learn_sigma else None
        terms = heatmap_matching_points(
            torch.zeros(900, 1, 2, dtype=torch.float64),
            p.expand(900, 1),
            double(labels),
            bandwidth=bandwidth,
            variance=variance,
        )
        (weight * terms.total).sum().backward()
        optimizer.step()
    return p.item(), torch.exp(log_sigma).item()


def test_the_published_form_punishes_uncertain_molecules():
    # p* = lambda² / (lambda² + sigma²) although the molecule is always there.
    probability, _ = _learn_one_candidate(0.5, 0.5, learn_sigma=False)
    assert probability == pytest.approx(0.5, abs=1e-3)


def test_the_uncertainty_aware_form_separates_existence_from_precision():
    probability, sigma = _learn_one_candidate(0.5, 0.5, learn_sigma=True)
    assert probability == pytest.approx(1, abs=0.005)
    assert sigma == pytest.approx(0.5, rel=0.01)


# ---- labels that are off (thesis appendix B)


def _learn_filter(loss):
    """A filter of 7 taps that sees a spike, trained on labels shifted by -1, 0, 1 with odds 1 : 2 : 1."""
    torch.manual_seed(1)
    z = (-2 + 0.1 * torch.randn(7, dtype=torch.float64)).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1)
    for step in range(700):
        optimizer.param_groups[0]["lr"] = 0.1 if step < 500 else 0.01
        optimizer.zero_grad()
        (loss(z.expand(3, 7), step / 700) @ double([0.25, 0.5, 0.25])).backward()
        optimizer.step()
    return torch.sigmoid(z).detach().numpy()


SMOOTH = np.array([0.2, 0.6, 0.2])


SHIFTS = (-1, 0, 1)


def _cross_entropy(z, smooth):
    labels = double([np.convolve(np.eye(7)[3 + shift], smooth, mode="same") for shift in SHIFTS])
    return functional.binary_cross_entropy_with_logits(z, labels, reduction="none").sum(1)


def test_cross_entropy_learns_the_label_noise():
    taps = _learn_filter(lambda z, _: _cross_entropy(z, [1.0]))
    np.testing.assert_allclose(taps, (0, 0, 0.25, 0.5, 0.25, 0, 0), atol=0.01)


def test_label_smoothing_learns_noise_and_smoothing():
    taps = _learn_filter(lambda z, _: _cross_entropy(z, SMOOTH))
    expected = np.convolve((0, 0, 0.25, 0.5, 0.25, 0, 0), SMOOTH, mode="same")
    np.testing.assert_allclose(taps, expected, atol=0.01)


def _soft_location(z, progress, *, counting):
    place = torch.arange(-3, 4, dtype=torch.float64)[None, :, None].expand(3, 7, 1)
    matching = heatmap_matching_points(place, z.sigmoid(), double(SHIFTS)[:, None, None], bandwidth=1.5).total
    count = count_negative_log_likelihood(z, torch.ones(3))
    return matching + counting * min(1.0, 2 * progress) * count


def test_matching_with_counting_learns_the_true_location():
    taps = _learn_filter(lambda z, t: _soft_location(z, t, counting=1.0))
    np.testing.assert_allclose(taps, (0, 0, 0, 1, 0, 0, 0), atol=0.03)
    alone = _learn_filter(lambda z, t: _soft_location(z, t, counting=0.0))
    assert alone.max() < 0.7


# ---- three molecules, fifty points (ACCV 2020, "Improved convergence")


def _start(seeds):
    """Labels and logits of (y, x, p), as published: labels uniform in [.05, .95], points sigmoid of normal."""
    labels, logits = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        labels.append(rng.uniform(0.05, 0.95, (3, 2)))
        logits.append(rng.normal(size=(50, 3)))
    return double(labels), double(logits).requires_grad_()


def _objective(logits, labels, counting):
    place, z = torch.sigmoid(logits[..., :2]), logits[..., 2]
    loss = heatmap_matching_points(place, torch.sigmoid(z), labels, bandwidth=LAMBDA).total
    if counting:
        loss = loss + COUNT_WEIGHT * count_negative_log_likelihood(z, torch.full((len(z),), 3))
    return loss.sum()


def _outcome(logits, labels):
    """Per run: points with p > 0.5, undecided points, largest distance of a label from a sure point."""
    p = torch.sigmoid(logits.detach()[..., 2])
    distance = torch.cdist(labels, torch.sigmoid(logits.detach()[..., :2]))
    farthest = distance.masked_fill(p[:, None] <= 0.5, math.inf).amin(2).amax(1)
    return (p > 0.5).sum(1).tolist(), ((p > 0.05) & (p < 0.95)).sum(1).tolist(), farthest


def _descend(optimizer, labels, logits, most_steps, *, counting):
    """Descend until every run is settled, or to the end."""
    for step in range(1, most_steps + 1):
        optimizer.zero_grad()
        _objective(logits, labels, counting).backward()
        optimizer.step()
        if step % 100 == 0:
            sure, undecided, farthest = _outcome(logits, labels)
            if not any(undecided) and farthest.max() < 0.005:
                break
    return sure, undecided, farthest


def _adam(seeds, most_steps, *, counting):
    labels, logits = _start(seeds)
    return _descend(torch.optim.Adam([logits], lr=0.05), labels, logits, most_steps, counting=counting)


def _plain(seeds, most_steps, *, counting):
    """Rate 0.2 on the published loss, i.e. with its factor pi lambda²/2."""
    labels, logits = _start(seeds)
    optimizer = torch.optim.SGD([logits], lr=0.2 * math.pi * LAMBDA**2 / 2)
    return _descend(optimizer, labels, logits, most_steps, counting=counting)


def test_three_points_remain_of_fifty():
    sure, undecided, farthest = _adam(range(4), 3000, counting=True)
    assert sure == [3] * 4
    assert undecided == [0] * 4
    assert farthest.max() < 0.02


def test_without_counting_the_points_share_the_molecules():
    sure, undecided, _ = _adam(range(3), 1000, counting=False)
    assert max(sure) < 3
    assert min(undecided) > 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_points_remain_of_fifty_by_plain_descent():
    sure, undecided, farthest = _plain((41, 42), 50_000, counting=True)
    assert sure == [3, 3]
    assert undecided == [0, 0]
    assert farthest.max() < 0.02


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_without_counting_plain_descent_is_not_done_after_50_000_steps():
    sure, undecided, _ = _plain((41, 42), 50_000, counting=False)
    assert max(sure) == 0
    assert min(undecided) > 10
