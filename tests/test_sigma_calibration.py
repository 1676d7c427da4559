"""The curve from stated to true precision."""

import json

import numpy as np
import pytest

from smlm_pb.errors import ModelError
from smlm_pb.localization.sigma_calibration import SigmaCalibration


def stated_and_errors(n=40_000, seed=0):
    """Bright molecules state twice their error, dim ones three quarters of it."""
    rng = np.random.default_rng(seed)
    true = np.where(rng.random(n) < 0.5, rng.uniform(0.02, 0.05, n), rng.uniform(0.16, 0.3, n))
    factor = np.where(true < 0.1, 2.0, 0.75)
    return true * factor, rng.normal(0, true), true


def test_the_curve_makes_stated_precisions_true():
    stated, error, _ = stated_and_errors()
    calibration = SigmaCalibration.fit(stated, error)
    new_stated, new_error, new_true = stated_and_errors(seed=1)
    pull = new_error / calibration.apply(new_stated)
    for part in (new_true < 0.04, new_true > 0.2):
        assert np.std(pull[part]) == pytest.approx(1.0, abs=0.05)


def test_mistaken_identities_do_not_count():
    rng = np.random.default_rng(2)
    stated = np.full(5000, 0.1)
    error = rng.normal(0, 0.1, 5000)
    error[::20] = 0.9
    assert SigmaCalibration.fit(stated, error).factor[0] == pytest.approx(1.0, abs=0.05)


def test_weights_decide_between_crowds_and_lone_molecules():
    rng = np.random.default_rng(3)
    error = np.concatenate((rng.normal(0, 0.2, 9000), rng.normal(0, 0.1, 1000)))
    weight = np.repeat([1 / 9000, 1.0], [9000, 1000])
    factor = SigmaCalibration.fit(np.full(10_000, 0.1), error, weight).factor
    assert factor == pytest.approx([1.0] * len(factor), abs=0.15)


def test_too_few_molecules_change_nothing():
    calibration = SigmaCalibration.fit(np.array([0.1]), np.array([0.5]))
    assert calibration.apply(np.array([0.1, 0.4])) == pytest.approx([0.1, 0.4])


def test_the_curve_goes_through_a_card():
    calibration = SigmaCalibration((0.1, 0.2), (0.5, 1.5))
    assert SigmaCalibration.from_dict(json.loads(json.dumps(calibration.as_dict()))) == calibration
    assert SigmaCalibration.from_dict({}) is None


@pytest.mark.parametrize(
    "content",
    [
        {"stated_px": [0.1]},
        {"stated_px": [0.2, 0.1], "factor": [1, 1]},
        {"stated_px": [0.1], "factor": [-1]},
        {"stated_px": "x", "factor": 1},
    ],
)
def test_a_damaged_curve_is_refused(content):
    with pytest.raises(ModelError, match="damaged"):
        SigmaCalibration.from_dict(content)
