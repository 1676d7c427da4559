"""The curve from stated to true precision."""

import json

import numpy as np
import pytest

from smlm_pb.errors import ModelError
from smlm_pb.localization.crowding import crowding
from smlm_pb.localization.sigma_calibration import Curve, SigmaCalibration, Stated


def what(stated, limit=None, crowding=None):
    n = len(stated)
    return Stated(stated, np.full(n, 0.02) if limit is None else limit, np.zeros(n) if crowding is None else crowding)


def _factor(calibration, stated, ratio=5.0, crowding=0.0):
    at = np.array([stated])
    return (calibration.apply(what(at, at / ratio, np.array([crowding]))) / at)[0]


def stated_and_errors(n=40_000, seed=0):
    """Bright molecules state twice their error, dim ones three quarters of it."""
    rng = np.random.default_rng(seed)
    true = np.where(rng.random(n) < 0.5, rng.uniform(0.02, 0.05, n), rng.uniform(0.16, 0.3, n))
    factor = np.where(true < 0.1, 2.0, 0.75)
    return true * factor, rng.normal(0, true), true


def test_the_curve_makes_stated_precisions_true():
    stated, error, _ = stated_and_errors()
    calibration = SigmaCalibration.fit(what(stated), error)
    new_stated, new_error, new_true = stated_and_errors(seed=1)
    pull = new_error / calibration.apply(what(new_stated))
    for part in (new_true < 0.04, new_true > 0.2):
        assert np.std(pull[part]) == pytest.approx(1.0, abs=0.05)


def test_what_lies_near_the_limit_and_what_lies_far_from_it_are_told_apart():
    """Two kinds of molecules state the same precision: lone dim ones too little, crowded bright ones too much."""
    rng = np.random.default_rng(4)
    n = 20_000
    stated, lone = rng.uniform(0.05, 0.15, n), rng.random(n) < 0.5
    limit = np.where(lone, stated / 1.1, stated / 5)
    error = rng.normal(0, stated * np.where(lone, 1.2, 0.7))
    calibration = SigmaCalibration.fit(what(stated, limit), error)
    assert _factor(calibration, 0.1, 1.1) == pytest.approx(1.2, rel=0.05)
    assert _factor(calibration, 0.1, 5) == pytest.approx(0.7, rel=0.05)


def test_lone_and_crowded_molecules_are_told_apart():
    rng = np.random.default_rng(5)
    n = 20_000
    stated, neighbours = rng.uniform(0.05, 0.15, n), np.where(rng.random(n) < 0.5, 0.0, rng.uniform(0.3, 1.5, n))
    error = rng.normal(0, stated * np.where(neighbours > 0, 1.1, 0.7))
    calibration = SigmaCalibration.fit(what(stated, stated / 2, neighbours), error)
    assert _factor(calibration, 0.1, 2.0) == pytest.approx(0.7, rel=0.05)
    assert _factor(calibration, 0.1, 2.0, crowding=0.8) == pytest.approx(1.1, rel=0.05)


def test_light_of_neighbours():
    rows = {
        "frame": np.array([0, 0, 0, 1]),
        "x": np.array([5.0, 5.0, 20.0, 5.0]),
        "y": np.array([5.0, 7.0, 5.0, 5.0]),
        "photons": np.array([1000.0, 500.0, 900.0, 800.0]),
        "probability": np.array([1.0, 0.6, 0.9, 1.0]),
    }
    overlap = np.exp(-4 / (4 * 1.1**2))
    assert crowding(rows, 1.1) == pytest.approx([0.6 * 0.5 * overlap, 2 * overlap, 0, 0])
    assert crowding({name: values[:0] for name, values in rows.items()}, 1.1).shape == (0,)


def test_cards_with_one_curve_are_read():
    old = SigmaCalibration.from_dict({"stated_px": [0.1, 0.2], "factor": [0.5, 1.5]})
    assert _factor(old, 0.2, 7.0) == pytest.approx(1.5)


def test_mistaken_identities_do_not_count():
    rng = np.random.default_rng(2)
    stated = np.full(5000, 0.1)
    error = rng.normal(0, 0.1, 5000)
    error[::20] = 0.9
    assert _factor(SigmaCalibration.fit(what(stated), error), 0.1) == pytest.approx(1.0, abs=0.05)


def test_weights_decide_between_crowds_and_lone_molecules():
    rng = np.random.default_rng(3)
    error = np.concatenate((rng.normal(0, 0.2, 9000), rng.normal(0, 0.1, 1000)))
    weight = np.repeat([1 / 9000, 1.0], [9000, 1000])
    stated = np.full(10_000, 0.1)
    assert _factor(SigmaCalibration.fit(what(stated), error, weight), 0.1) == pytest.approx(1.0, abs=0.15)


def test_too_few_molecules_change_nothing():
    calibration = SigmaCalibration.fit(what(np.array([0.1])), np.array([0.5]))
    assert calibration.apply(what(np.array([0.1, 0.4]))) == pytest.approx([0.1, 0.4])


def test_the_curve_goes_through_a_card():
    calibration = SigmaCalibration(
        Curve((0.1, 0.2), (0.5, 1.5)), Curve((1.0, 3.0), (1.1, 0.8)), Curve((0.001, 1.0), (0.7, 1.2))
    )
    assert SigmaCalibration.from_dict(json.loads(json.dumps(calibration.as_dict()))) == calibration
    assert SigmaCalibration.from_dict({}) is None


@pytest.mark.parametrize(
    "content",
    [
        {"stated_px": [0.1]},
        {"stated_px": [0.2, 0.1], "factor": [1, 1]},
        {"stated_px": [0.1], "factor": [-1]},
        {"stated_px": "x", "factor": 1},
        {"stated_px": [0.1], "factor": [1], "ratio": [1]},
    ],
)
def test_a_damaged_curve_is_refused(content):
    with pytest.raises(ModelError, match="damaged"):
        SigmaCalibration.from_dict(content)
