"""Calibration of probabilities and precisions, and the threshold sweep."""

import json

import numpy as np
import pytest

from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.evaluation import best_threshold, evaluate, expected_jaccard, pull_by_density, reliability
from smlm_pb.localizations import Localizations, MovieInfo

INFO = MovieInfo(n_frames=400, height=64, width=64, pixel_size_nm=100.0)


def candidates_and_truth(rng, n=8000, promised=None, sigma_px=0.1):
    """Candidates on a lattice with drawn probabilities; molecules exist with exactly those probabilities."""
    frame = np.arange(n) // 20
    x = 3.0 * (np.arange(n) % 20) + 2.0
    y = rng.uniform(2, 60, n)
    true_probability = rng.random(n) ** 2
    exists = rng.random(n) < true_probability
    sigma = np.full(n, sigma_px)
    pred = Localizations(
        {
            "frame": frame,
            "x": x + rng.normal(0, sigma_px, n),
            "y": y + rng.normal(0, sigma_px, n),
            "sigma_x": sigma,
            "sigma_y": sigma,
            "probability": true_probability if promised is None else promised(true_probability),
        },
        INFO,
    )
    truth = Localizations({"frame": frame[exists], "x": x[exists], "y": y[exists]}, INFO)
    return pred, truth


def test_calibrated_probabilities_have_no_calibration_error():
    pred, truth = candidates_and_truth(np.random.default_rng(0))

    curve = reliability(pred, truth, tolerance_nm=100)

    assert curve.expected_calibration_error < 0.02
    assert curve.expected_true == pytest.approx(curve.true, rel=0.03)
    assert curve.count.sum() == len(pred)
    assert np.nanmax(np.abs(curve.observed - curve.mean_probability)) < 0.08


def test_overconfidence_is_seen():
    pred, truth = candidates_and_truth(np.random.default_rng(1), promised=np.sqrt)

    curve = reliability(pred, truth, tolerance_nm=100)

    assert curve.expected_calibration_error == pytest.approx(1 / 2 - 1 / 3, abs=0.02)
    assert curve.expected_true > 1.3 * curve.true
    assert (curve.observed[1:9] < curve.mean_probability[1:9]).all()


def test_probability_one_falls_into_the_last_bin():
    pred, truth = candidates_and_truth(np.random.default_rng(2), promised=np.ones_like)

    curve = reliability(pred, truth, n_bins=4)

    assert curve.count.tolist() == [0, 0, 0, len(pred)]
    assert np.isnan(curve.observed[0])
    json.dumps(curve.as_dict(), allow_nan=False)


def test_promised_jaccard_equals_the_measured_one_when_calibrated():
    pred, truth = candidates_and_truth(np.random.default_rng(3))

    sweep = best_threshold(pred, truth, tolerance_nm=100)

    assert np.abs(sweep.expected_jaccard - sweep.jaccard).max() < 0.02
    # Rule: a candidate is worth keeping when its probability exceeds J / (1 + J).
    assert sweep.best == pytest.approx(sweep.best_jaccard / (1 + sweep.best_jaccard), abs=0.08)
    assert sweep.plateau[0] <= sweep.best <= sweep.plateau[1]


def test_sweep_measures_what_evaluate_measures():
    pred, truth = candidates_and_truth(np.random.default_rng(4), sigma_px=0.5)

    sweep = best_threshold(pred, truth, tolerance_nm=50, thresholds=(0.2, 0.5, 0.9))

    for step, jaccard, precision in zip(sweep.threshold, sweep.jaccard, sweep.precision, strict=True):
        kept = pred.select(pred.probability >= np.float32(step))
        scores = evaluate(kept, truth, tolerance_nm=50, chance=False, check=False).at(50)
        assert jaccard == pytest.approx(scores.jaccard, abs=1e-3)
        assert precision == pytest.approx(scores.precision, abs=1e-3)


def test_expected_jaccard_by_hand():
    pred = Localizations({"frame": [0] * 3, "x": [1, 2, 3], "y": [1, 2, 3], "probability": [0.5, 1.0, 0.25]}, INFO)

    assert expected_jaccard(pred, 0.75) == pytest.approx(1.0 / (1 + 1.75 - 1))
    assert expected_jaccard(pred, (0.0, 0.5, 1.01)) == pytest.approx([1.75 / 3, 1.5 / (2 + 1.75 - 1.5), 0.0])
    assert np.isnan(expected_jaccard(Localizations.empty(INFO), 0.5))


def test_pull_is_one_where_precision_is_honest_and_larger_where_not():
    rng = np.random.default_rng(5)
    n_frames, per_frame = 200, 60
    frame = np.repeat(np.arange(n_frames), per_frame)
    sparse = np.arange(len(frame)) % per_frame < 6
    x = np.where(sparse, 6.0 + 10.0 * (np.arange(len(frame)) % 6), rng.uniform(20, 40, len(frame)))
    y = np.where(sparse, 2.0, rng.uniform(30, 50, len(frame)))
    truth = Localizations({"frame": frame, "x": x, "y": y}, INFO)
    error = np.where(sparse, 0.02, 0.04)
    pred = truth.with_columns(
        x=truth.x + rng.normal(0, error), y=truth.y + rng.normal(0, error), sigma_x=0.02, sigma_y=0.02
    )

    pull = pull_by_density(pred, truth, tolerance_nm=50, radius_nm=500)

    assert pull.count.sum() == len(truth)
    assert pull.std_x[0] == pytest.approx(1, abs=0.06)
    assert pull.std_y[-1] == pytest.approx(2, abs=0.1) or pull.count[-1] == 0
    crowded = int(np.argmax(pull.count[1:])) + 1
    assert pull.std_x[crowded] == pytest.approx(2, abs=0.12)
    assert pull.rmse_nm[0] == pytest.approx(2, rel=0.1)
    assert pull.reported_nm[crowded] == pytest.approx(2, rel=0.01)
    json.dumps(pull.as_dict()["std_x"], allow_nan=False)


def test_missing_or_impossible_probabilities_are_refused():
    pred, truth = candidates_and_truth(np.random.default_rng(6), n=200)
    with pytest.raises(TableError, match="no column probability"):
        reliability(pred.without_columns("probability"), truth)
    with pytest.raises(TableError, match="must lie in 0 to 1"):
        reliability(pred.with_columns(probability=2.0), truth)
    with pytest.raises(ConfigurationError, match="0 to 1"):
        best_threshold(pred, truth, thresholds=(0.5, 1.5))
    with pytest.raises(ConfigurationError, match="ascending"):
        pull_by_density(pred, truth, density_edges_per_um2=(1, 0))
    with pytest.raises(TableError, match="sigma_x"):
        pull_by_density(pred.without_columns("sigma_x"), truth)


def test_empty_prediction_gives_an_empty_curve():
    _, truth = candidates_and_truth(np.random.default_rng(7), n=200)

    curve = reliability(Localizations.empty(INFO), truth)

    assert curve.count.sum() == 0
    assert np.isnan(curve.expected_calibration_error)
    assert best_threshold(Localizations.empty(INFO), truth).best_jaccard == 0
