"""One-to-one pairs: against brute force, and the rules both matchings must obey."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from smlm_pb.errors import ConfigurationError
from smlm_pb.evaluation import match, match_likeliest, matching
from smlm_pb.localizations import Localizations, MovieInfo


def table(fyx, pixel_size_nm=100.0):
    fyx = np.asarray(fyx, dtype=float).reshape(-1, 3)
    columns = {"frame": fyx[:, 0].astype(int), "y": fyx[:, 1], "x": fyx[:, 2]}
    return Localizations(columns, MovieInfo(100, 64, 64, pixel_size_nm))


def distances_nm(pred, truth):
    gap = 100 * np.hypot(
        pred.x.astype(float)[:, None] - truth.x.astype(float),
        pred.y.astype(float)[:, None] - truth.y.astype(float),
    )
    return np.where(pred.frame[:, None] == truth.frame, gap, np.inf)


def brute_force_optimum(pred, truth, tolerance_nm):
    """Number of pairs and total distance of the best assignment over the whole table at once."""
    gap = distances_nm(pred, truth)
    rows, columns = linear_sum_assignment(np.where(gap <= tolerance_nm, gap, 1e7))
    good = gap[rows, columns] <= tolerance_nm
    return int(good.sum()), float(gap[rows, columns][good].sum())


def brute_force_greedy(pred, truth, tolerance_nm):
    gap, pairs = distances_nm(pred, truth), set()
    while gap.size and gap.min() <= tolerance_nm:
        p, t = np.unravel_index(np.argmin(gap), gap.shape)
        pairs.add((int(p), int(t)))
        gap[p, :] = gap[:, t] = np.inf
    return pairs


scenes = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def draw_scene(rng, n_frames=3, size_px=6.0):
    def some(n):
        return np.column_stack([rng.integers(0, n_frames, n), rng.uniform(0, size_px, (n, 2))])

    return table(some(rng.integers(0, 40))), table(some(rng.integers(0, 40)))


@settings(max_examples=60, deadline=None)
@given(scenes, st.sampled_from([30.0, 80.0, 200.0]))
def test_hungarian_equals_brute_force(rng, tolerance_nm):
    pred, truth = draw_scene(rng)

    pairs = match(pred, truth, tolerance_nm)

    n_pairs, total = brute_force_optimum(pred, truth, tolerance_nm)
    assert len(pairs.pred) == n_pairs
    assert pairs.distance_nm.sum() == pytest.approx(total, rel=1e-5, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(scenes, st.sampled_from([30.0, 80.0, 200.0]))
def test_greedy_equals_taking_the_closest_pair_again_and_again(rng, tolerance_nm):
    pred, truth = draw_scene(rng)

    pairs = match(pred, truth, tolerance_nm, "greedy")

    found = set(zip(pairs.pred.tolist(), pairs.truth.tolist(), strict=True))
    assert found == brute_force_greedy(pred, truth, tolerance_nm)


@settings(max_examples=40, deadline=None)
@given(scenes, st.sampled_from(["hungarian", "greedy"]))
def test_pairs_are_one_to_one_within_frame_and_tolerance(rng, rule):
    pred, truth = draw_scene(rng)

    pairs = match(pred, truth, 120, rule)

    assert len(set(pairs.pred)) == len(set(pairs.truth)) == len(pairs.pred)
    assert (pred.frame[pairs.pred] == truth.frame[pairs.truth]).all()
    assert (pairs.distance_nm <= 120).all()
    assert pairs.distance_nm == pytest.approx(distances_nm(pred, truth)[pairs.pred, pairs.truth], abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(scenes)
def test_order_of_the_rows_does_not_matter(rng):
    pred, truth = draw_scene(rng)
    shuffle_pred, shuffle_truth = rng.permutation(len(pred)), rng.permutation(len(truth))

    straight = match(pred, truth, 100)
    shuffled = match(pred.select(shuffle_pred), truth.select(shuffle_truth), 100)

    assert shuffled.distance_nm.sum() == pytest.approx(straight.distance_nm.sum(), rel=1e-9, abs=1e-9)
    assert len(shuffled.pred) == len(straight.pred)


def test_sparse_and_dense_solver_agree(monkeypatch):
    rng = np.random.default_rng(0)
    truth = table(np.column_stack([np.zeros(300), rng.uniform(0, 12, (300, 2))]))
    pred = table(np.column_stack([np.zeros(200), rng.uniform(0, 12, (200, 2))]))
    dense = match(pred, truth, 150)

    monkeypatch.setattr(matching, "_DENSE_CELLS", 0)
    sparse = match(pred, truth, 150)

    assert len(sparse.pred) == len(dense.pred)
    assert sparse.distance_nm.sum() == pytest.approx(dense.distance_nm.sum())


def test_more_pairs_come_before_shorter_ones():
    truth = table([(0, 10.0, 10.0), (0, 10.0, 10.9)])
    pred = table([(0, 10.0, 10.8), (0, 10.0, 11.8)])

    optimal = match(pred, truth, 100)
    greedy = match(pred, truth, 100, "greedy")

    assert list(optimal.truth) == [0, 1]
    assert list(greedy.pred) == [0]
    assert list(greedy.truth) == [1]


def test_exactly_coincident_points_are_paired():
    truth = table([(0, 5.0, 5.0), (0, 5.0, 5.0)])

    assert len(match(truth, truth, 10).pred) == 2
    assert len(match(truth, truth, 10, "greedy").pred) == 2


def test_frames_never_mix_even_at_huge_tolerance():
    truth = table([(0, 5.0, 5.0), (2, 5.0, 5.0)])
    pred = table([(1, 5.0, 5.0), (2, 60.0, 60.0)])

    pairs = match(pred, truth, 1e5)

    assert list(pairs.pred) == [1]
    assert list(pairs.truth) == [1]


def test_unknown_rule_is_refused_with_the_choices():
    truth = table([(0, 5.0, 5.0)])
    with pytest.raises(ConfigurationError, match="hungarian, greedy"):
        match(truth, truth, 50, "stable")


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_from_the_likeliest_down_every_threshold_has_as_many_pairs_as_it_can(seed):
    rng = np.random.default_rng(seed)
    pred = table(np.column_stack((rng.integers(0, 2, 12), rng.uniform(0, 4, (12, 2)))))
    pred = pred.with_columns(probability=rng.permutation(12) / 20 + 0.1)
    truth = table(np.column_stack((rng.integers(0, 2, 8), rng.uniform(0, 4, (8, 2)))))
    pairs = match_likeliest(pred, truth, 100.0)
    assert len(set(pairs.pred)) == len(set(pairs.truth)) == len(pairs.pred)
    assert pairs.distance_nm == pytest.approx(distances_nm(pred, truth)[pairs.pred, pairs.truth], rel=1e-5)
    for threshold in np.unique(pred["probability"]):
        kept = pred["probability"] >= threshold
        most, _ = brute_force_optimum(pred.select(kept), truth, 100.0)
        assert kept[pairs.pred].sum() == most


def test_of_a_molecule_found_twice_the_likelier_one_is_right():
    pred = table([[0, 5, 5.4], [0, 5, 5.1]]).with_columns(probability=np.array([0.9, 0.2]))
    truth = table([[0, 5, 5]])
    assert match(pred, truth, 100).pred.tolist() == [1]
    assert match_likeliest(pred, truth, 100).pred.tolist() == [0]
    assert match_likeliest(pred, truth, 30).pred.tolist() == [1]
    with pytest.raises(ConfigurationError, match="tolerance"):
        match_likeliest(pred, truth, 0)
