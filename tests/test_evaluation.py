"""Scores of a prediction against truth: counting rules, errors, chance level, mistaken conventions."""

import json
import math
import tracemalloc

import numpy as np
import pytest

from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.evaluation import check_conventions, error_budget, evaluate
from smlm_pb.evaluation.chance import draw_rolls
from smlm_pb.localizations import Localizations, MovieInfo

INFO = MovieInfo(n_frames=40, height=64, width=48, pixel_size_nm=100.0)


def table(frame, x, y, info=INFO, **more):
    return Localizations({"frame": frame, "x": x, "y": y, **more}, info)


def random_truth(rng, n=400, info=INFO):
    return table(
        rng.integers(0, info.n_frames, n),
        rng.uniform(-0.5, info.width - 0.5, n),
        rng.uniform(-0.5, info.height - 0.5, n),
        info,
        photons=rng.uniform(100, 1000, n),
    )


def blurred(truth, rng, sigma_px=0.1, keep=1.0):
    kept = truth.select(rng.random(len(truth)) < keep)
    n = len(kept)
    return kept.with_columns(
        x=kept.x + rng.normal(0, sigma_px, n),
        y=kept.y + rng.normal(0, sigma_px, n),
        sigma_x=sigma_px,
        sigma_y=sigma_px,
    )


def test_counts_rates_and_errors_of_a_case_worked_by_hand():
    truth = table([0, 0, 1, 1], [10.0, 20.0, 10.0, 30.0], [10.0, 20.0, 10.0, 30.0])
    pred = table([0, 1, 1, 2], [10.3, 10.0, 30.0, 10.0], [10.0, 9.6, 35.0, 10.0])
    pred = pred.with_columns(sigma_x=0.1, sigma_y=0.2)

    scores = evaluate(pred, truth, tolerance_nm=50, chance=False).at(50)

    assert (scores.true_positives, scores.false_positives, scores.false_negatives) == (2, 2, 2)
    assert scores.jaccard == pytest.approx(2 / 6)
    assert scores.precision == scores.recall == scores.f1 == pytest.approx(0.5)
    assert scores.rmse_xy_nm == pytest.approx(math.sqrt((30**2 + 40**2) / 2), rel=1e-5)
    assert scores.rmse_x_nm == pytest.approx(30 / math.sqrt(2), rel=1e-5)
    assert scores.bias_x_nm == pytest.approx(15, rel=1e-5)
    assert scores.bias_y_nm == pytest.approx(-20, rel=1e-5)
    assert scores.mad_nm == pytest.approx(35, rel=1e-5)
    assert scores.mean_distance_nm == pytest.approx(35, rel=1e-5)
    assert scores.pull_mean_x == pytest.approx(1.5, rel=1e-4)
    assert scores.pull_std_y == pytest.approx(1.0, rel=1e-4)
    expected_efficiency = 1 - math.hypot(1 - 2 / 6, 0.01 * scores.rmse_xy_nm)
    assert scores.efficiency == pytest.approx(expected_efficiency)


def test_the_truth_against_itself_is_perfect():
    truth = random_truth(np.random.default_rng(0))

    for scores in evaluate(truth, truth, chance=False).scores:
        assert scores.jaccard == scores.efficiency == 1.0
        assert scores.rmse_xy_nm == 0.0


def test_errors_and_pulls_recover_what_was_put_in():
    rng = np.random.default_rng(1)
    truth = random_truth(rng, 6000, MovieInfo(2000, 64, 64, 100.0))
    pred = blurred(truth, rng, 0.12)
    pred = pred.with_columns(x=pred.x + 0.05, photons=pred.photons * 1.1)

    scores = evaluate(pred, truth, tolerance_nm=100, chance=False).at(100)

    assert scores.rmse_x_nm == pytest.approx(math.hypot(12, 5), rel=0.05)
    assert scores.rmse_y_nm == pytest.approx(12, rel=0.05)
    assert scores.bias_x_nm == pytest.approx(5, abs=0.6)
    assert scores.median_dx_nm == pytest.approx(5, abs=0.8)
    assert scores.pull_std_y == pytest.approx(1, abs=0.05)
    assert scores.photon_ratio == pytest.approx(1.1, rel=1e-3)
    assert scores.jaccard > 0.99


def test_jaccard_rises_with_the_tolerance_and_greedy_never_pairs_more():
    rng = np.random.default_rng(2)
    truth = random_truth(rng, 6000)
    pred = blurred(truth, rng, 0.5, keep=0.8)

    optimal = evaluate(pred, truth, chance=False)
    greedy = evaluate(pred, truth, matching="greedy", chance=False)

    jaccards = [scores.jaccard for scores in optimal.scores]
    assert jaccards == sorted(jaccards)
    for best, first_come in zip(optimal.scores, greedy.scores, strict=True):
        assert best.true_positives >= first_come.true_positives
    assert optimal.at(50).true_positives > greedy.at(50).true_positives


def test_chance_level_is_found_and_skill_removes_it():
    rng = np.random.default_rng(3)
    info = MovieInfo(60, 32, 32, 100.0)
    truth = random_truth(rng, 60 * 80, info)
    unrelated = random_truth(rng, 60 * 80, info)

    scores = evaluate(unrelated, truth, tolerance_nm=100, check=False).at(100)

    assert scores.jaccard > 0.1
    assert scores.chance_jaccard == pytest.approx(scores.jaccard, abs=0.02)
    assert scores.chance_precision == pytest.approx(scores.precision, abs=0.03)
    assert scores.skill == pytest.approx(0, abs=0.03)
    skilled = evaluate(truth, truth, tolerance_nm=100).at(100)
    assert skilled.skill == 1.0
    assert skilled.chance_jaccard < 0.4


def test_chance_level_needs_a_second_frame():
    truth = table([0, 0], [1.0, 2.0], [1.0, 2.0], MovieInfo(1, 8, 8, 100.0))

    scores = evaluate(truth, truth, tolerance_nm=50).at(50)

    assert math.isnan(scores.chance_jaccard)
    assert math.isnan(scores.skill)
    assert scores.as_dict()["skill"] is None


def test_neutral_border_forgives_a_pair_across_the_line_and_exclusion_does_not():
    # The border ends 4.5 px from the edge at −0.5 px: at x = 4.0.
    truth = table([0, 1], [3.95, 20.0], [20.0, 20.0])
    pred = table([0, 1], [4.05, 20.0], [20.0, 20.0])

    neutral = evaluate(pred, truth, tolerance_nm=50, border_nm=450, chance=False).at(50)
    excluded = evaluate(pred, truth, tolerance_nm=50, border_nm=450, border_rule="exclude", chance=False).at(50)

    assert (neutral.true_positives, neutral.false_positives, neutral.false_negatives) == (1, 0, 0)
    assert (excluded.true_positives, excluded.false_positives, excluded.false_negatives) == (1, 1, 0)


def test_border_ignores_strays_inside_it_on_all_four_sides():
    edge = 0.0
    truth = table([0] * 5, [edge, 47.0, 20, 20, 20], [20, 20, edge, 63.0, 20])
    pred = table([1] * 5, [edge, 47.0, 20, 20, 20], [20, 20, edge, 63.0, 20])

    evaluation = evaluate(pred, truth, tolerance_nm=50, border_nm=450, chance=False)

    scores = evaluation.at(50)
    assert (scores.true_positives, scores.false_positives, scores.false_negatives) == (0, 1, 1)
    assert (evaluation.n_pred, evaluation.n_truth) == (1, 1)


def test_dim_molecules_may_be_paired_but_do_not_count():
    truth = table([0, 0, 0], [10, 20, 30], [10, 10, 10], photons=[50, 500, 50])
    pred = table([0, 0], [10, 20], [10, 10])

    evaluation = evaluate(pred, truth, tolerance_nm=50, min_photons=100, chance=False)

    scores = evaluation.at(50)
    assert (scores.true_positives, scores.false_positives, scores.false_negatives) == (1, 0, 0)
    assert evaluation.n_truth == 1


@pytest.mark.parametrize("which", ["pred", "truth", "both"])
def test_empty_tables_are_scored_without_a_warning(which):
    truth = random_truth(np.random.default_rng(4), 50)
    empty = Localizations.empty(INFO, ("frame", "x", "y"))
    pred, gold = {"pred": (empty, truth), "truth": (truth, empty), "both": (empty, empty)}[which]

    evaluation = evaluate(pred, gold)

    scores = evaluation.at(50)
    assert scores.true_positives == 0
    assert scores.false_positives == len(pred)
    assert scores.false_negatives == len(gold)
    assert scores.jaccard == 0 or which == "both"
    assert isinstance(str(evaluation), str)
    json.dumps(evaluation.as_dict(), allow_nan=False)


def test_density_and_neighbours_are_those_of_the_truth():
    truth = table([0, 0, 1, 1], [10.0, 10.4, 5.0, 40.0], [10.0, 10.3, 5.0, 60.0])

    evaluation = evaluate(truth, truth, tolerance_nm=[30, 60], chance=False)

    assert evaluation.density_per_um2 == pytest.approx(4 / (40 * 6.4 * 4.8))
    assert evaluation.at(30).truth_pairs_closer == 0
    assert evaluation.at(60).truth_pairs_closer == 1
    assert evaluation.neighbour_nm == pytest.approx((50 + 100 * math.hypot(35, 55)) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("swap", "frame_shift", "dx", "dy"),
    [
        (False, 0, -0.5, -0.5),
        (False, 1, 0.0, 0.0),
        (True, 0, 0.0, 0.0),
        (True, -1, 0.5, 0.5),
        (False, 0, 1.0, 1.0),
    ],
)
def test_a_mistaken_convention_is_named(swap, frame_shift, dx, dy):
    rng = np.random.default_rng(5)
    info = MovieInfo(40, 64, 64, 100.0)
    truth = random_truth(rng, 2000, info)
    truth = truth.select((truth.frame > 0) & (truth.frame < 39))
    good = blurred(truth, rng, 0.2, keep=0.7)
    x, y = good.x - dx, good.y - dy
    mistaken = good.with_columns(x=y if swap else x, y=x if swap else y, frame=good.frame.astype(int) - frame_shift)

    found = check_conventions(mistaken, truth)

    assert found.is_suspicious
    assert (found.swap_xy, found.frame_shift, found.dx_px, found.dy_px) == (swap, frame_shift, dx, dy)
    with pytest.warns(UserWarning, match="fit the truth better after"):
        evaluate(mistaken, truth, tolerance_nm=50)


def test_right_conventions_raise_no_suspicion_even_for_a_poor_prediction():
    rng = np.random.default_rng(6)
    truth = random_truth(rng, 3000)

    assert not check_conventions(blurred(truth, rng, 0.6, keep=0.4), truth).is_suspicious
    assert not check_conventions(random_truth(rng, 3000), truth).is_suspicious


def test_predictions_beyond_the_truth_are_pointed_out():
    rng = np.random.default_rng(7)
    truth = random_truth(rng, 400).with_columns(frame=np.arange(400) // 10)
    half = truth.select(truth.frame < 20).with_info(MovieInfo(20, 64, 48, 100.0))

    with pytest.warns(UserWarning, match="200 of 400 predictions lie beyond the 20 frames"):
        evaluate(truth, half, tolerance_nm=50, check=False)


def test_truth_in_frames_that_were_never_localized_is_pointed_out():
    """After ``--frames 10:20`` the rest of the truth is not missed by the model."""
    truth = random_truth(np.random.default_rng(7), 400).with_columns(frame=np.arange(400) // 10)
    part = truth.select((truth.frame >= 10) & (truth.frame < 20))
    part = part.with_provenance({"step": "localize", "conditions": {"frames": [10, 20]}})

    with pytest.warns(UserWarning, match="Only frames 10 to 19 were localized: 300 of 400 molecules of the truth"):
        evaluate(part, truth, tolerance_nm=50, check=False)
    with pytest.warns(UserWarning, match="Only frames 10 to 19"):
        error_budget(part, truth)
    assert evaluate(part, part, tolerance_nm=50).at(50).jaccard == 1


def test_an_error_that_only_measures_the_tolerance_is_marked():
    rng = np.random.default_rng(8)
    truth = random_truth(rng, 2000)
    n = len(truth)
    radius, angle = 0.5 * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    pred = truth.with_columns(x=truth.x + radius * np.cos(angle), y=truth.y + radius * np.sin(angle))

    evaluation = evaluate(pred, truth, tolerance_nm=50, chance=False)

    assert evaluation.at(50).error_is_gate_limited
    assert "says little" in evaluation.notes[0]


def test_axial_error_is_reported_where_both_know_z():
    truth = table([0, 0], [10, 20], [10, 10], z=[0.0, 100.0])
    pred = table([0, 0], [10, 20], [10, 10], z=[30.0, 140.0])

    assert evaluate(pred, truth, tolerance_nm=50, chance=False).at(50).rmse_z_nm == pytest.approx(math.sqrt(1250))


def test_pixel_size_is_asked_for_and_contradictions_are_refused():
    unknown = MovieInfo(40, 64, 48)
    truth = table([0], [1.0], [1.0], unknown)
    with pytest.raises(TableError, match="give pixel_size_nm"):
        evaluate(truth, truth)
    assert evaluate(truth, truth, pixel_size_nm=160, tolerance_nm=50).at(50).jaccard == 1
    other = table([0], [1.0], [1.0], MovieInfo(40, 64, 48, 160.0))
    with pytest.raises(TableError, match="pixels of 100 nm and the prediction of 160 nm"):
        evaluate(other, table([0], [1.0], [1.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance_nm": []}, "at least one"),
        ({"tolerance_nm": -5}, "above 0"),
        ({"tolerance_nm": float("nan")}, "above 0"),
        ({"matching": "nearest"}, "hungarian, greedy"),
        ({"border_nm": -1}, "from 0"),
        ({"border_nm": 3000}, "leaves nothing"),
        ({"border_rule": "cut"}, "neutral or exclude"),
        ({"min_photons": float("inf")}, "photons from 0"),
        ({"n_rolls": 0}, "n_rolls"),
        ({"pixel_size_nm": 0}, "camera pixel"),
    ],
)
def test_impossible_options_are_named(options, message):
    truth = random_truth(np.random.default_rng(9), 20)
    with pytest.raises(ConfigurationError, match=message):
        evaluate(truth, truth, **options)


def test_photon_rule_without_photons_is_refused():
    truth = table([0], [1.0], [1.0])
    with pytest.raises(TableError, match="column photons"):
        evaluate(truth, truth, min_photons=100)


def test_asking_for_a_tolerance_that_was_not_computed():
    truth = random_truth(np.random.default_rng(10), 20)
    with pytest.raises(ConfigurationError, match="computed were 25, 50"):
        evaluate(truth, truth, tolerance_nm=(50, 25)).at(30)


@pytest.mark.parametrize("n_frames", [0, 1, 2, 3, 5, 8, 100, 12_345])
@pytest.mark.parametrize("n_rolls", [1, 3, 400])
def test_rolls_are_drawn_from_all_that_are_far_from_the_true_frames(n_frames, n_rolls):
    far = [k for k in range(1, n_frames) if n_frames // 4 <= k <= n_frames - n_frames // 4]
    rolls = draw_rolls(n_frames, n_rolls, seed=5)
    assert rolls == sorted(set(rolls) & set(far))
    assert len(rolls) == min(n_rolls, len(far))
    if far:
        assert rolls == sorted(np.random.default_rng(5).choice(far, len(rolls), replace=False).tolist())


def test_rolls_of_an_endless_movie_need_no_memory():
    tracemalloc.start()
    try:
        rolls = draw_rolls(10**9, 3, seed=0)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    assert all(10**9 // 4 <= k <= 3 * 10**9 // 4 for k in rolls)
