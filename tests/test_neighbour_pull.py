"""Close candidates are stated too close to each other: what is taken back, its fit and its faults."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb.errors import ModelError
from smlm_pb.localization.candidates import CANDIDATE_DTYPE
from smlm_pb.localization.model import load_model
from smlm_pb.localization.model_calibration import ModelCalibration
from smlm_pb.localization.neighbour_pull import FEATURES, REACH_WIDTHS, NeighbourPull, pairs_of
from smlm_pb.localization.own_light import Pixels
from smlm_pb.localization.small_network import SmallNetwork
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.training.pull_fit import LEAST_CANDIDATES, fit_pull

PSF_PX = 1.2


def candidates(x, y, *, frame=0, sigma=0.2, photons=1000.0, probability=0.95):
    rows = np.zeros(len(x), CANDIDATE_DTYPE)
    rows["x"], rows["y"], rows["frame"], rows["photons"], rows["probability"] = x, y, frame, photons, probability
    rows["sigma_x"] = rows["sigma_y"] = sigma
    rows["background"] = 10.0
    return rows


def apart(pull, rows, **changes):
    told = {"psf_sigma_px": PSF_PX, "background_e": np.full(len(rows), 11.0), **changes}
    return np.column_stack(pull.apart(rows, **told)).astype(float)


def arbitrary_pull(seed=0):
    """Weights of no meaning: what holds for them holds for all."""
    rng = np.random.default_rng(seed)
    k = len(FEATURES)
    layers = ((rng.normal(0, 0.5, (k, 8)), rng.normal(0, 0.5, 8)), (rng.normal(0, 0.5, (8, 1)), np.zeros(1)))
    return NeighbourPull(SmallNetwork((-8.0,) * k, (8.0,) * k, layers))


def crowd(n=40, seed=1, side=12.0):
    rng = np.random.default_rng(seed)
    rows = candidates(*rng.uniform(0, side, (2, n)), probability=rng.uniform(0.06, 0.999, n))
    rows["frame"] = np.sort(rng.integers(0, 3, n))
    rows["photons"] = rng.uniform(200, 5000, n)
    rows["sigma_x"], rows["sigma_y"] = rng.uniform(0.05, 0.4, (2, n))
    return rows


def test_lone_candidates_stay_where_they_are():
    far = PSF_PX * REACH_WIDTHS * 1.01
    rows = candidates([5.0, 5.0 + far, 5.0], [5.0, 5.0, 5.0 + far])
    assert np.array_equal(apart(arbitrary_pull(), rows), np.column_stack((rows["x"], rows["y"])))
    assert np.array_equal(apart(arbitrary_pull(), rows[:1]), [[5.0, 5.0]])
    assert apart(arbitrary_pull(), rows[:0]).shape == (0, 2)


def test_other_frames_do_not_pull():
    rows = candidates([5.0, 5.5], [5.0, 5.0], frame=[0, 1])
    assert np.array_equal(apart(arbitrary_pull(), rows), np.column_stack((rows["x"], rows["y"])))


def test_candidates_at_the_same_place_have_no_direction():
    rows = candidates([5.0, 5.0], [5.0, 5.0])
    assert np.array_equal(apart(arbitrary_pull(), rows), [[5.0, 5.0]] * 2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_rows_does_not_matter(seed):
    rows, pull = crowd(seed=seed), arbitrary_pull(seed)
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    np.testing.assert_allclose(apart(pull, rows[shuffled]), apart(pull, rows)[shuffled], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), angle=st.floats(0, 2 * np.pi))
def test_no_direction_is_preferred(seed, angle):
    """A turned crowd is pulled apart in the turned directions."""
    rows, pull = crowd(seed=seed), arbitrary_pull(seed)
    rows["sigma_y"] = rows["sigma_x"]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = rows.copy()
    turned["x"], turned["y"] = turn @ [rows["x"], rows["y"]]
    np.testing.assert_allclose(apart(pull, turned), apart(pull, rows) @ turn.T, atol=2e-4)


def test_the_pull_fades_before_it_ends():
    """A neighbour that comes within reach moves nobody at once."""
    at = PSF_PX * REACH_WIDTHS
    moved = [
        np.abs(apart(arbitrary_pull(), candidates([0, at * (1 - gap)], [0, 0])) - [[0, 0], [at * (1 - gap), 0]]).max()
        for gap in (1e-3, 1e-1)
    ]
    assert moved[0] < 1e-5
    assert moved[1] > 10 * moved[0]


def test_no_shift_is_larger_than_two_stated_precisions():
    k = len(FEATURES)
    strong = NeighbourPull(SmallNetwork((-8.0,) * k, (8.0,) * k, ((np.zeros((k, 1)), np.full(1, 100.0)),)))
    rows = crowd()
    shift = apart(strong, rows) - np.column_stack((rows["x"], rows["y"]))
    length, sigma = np.hypot(*shift.T), np.sqrt(rows["sigma_x"] * rows["sigma_y"])
    assert (length <= 2 * sigma + 1e-5).all()
    assert (length > 1.9 * sigma).any()


def test_electrons_after_multiplication_are_the_same_molecules():
    rows, pull = crowd(), arbitrary_pull()
    brighter = rows.copy()
    brighter["photons"] *= 2
    np.testing.assert_allclose(apart(pull, brighter, excess_noise_factor=2.0), apart(pull, rows), atol=1e-6)


def test_pairs_are_there_both_ways_and_describe_the_neighbour():
    rows = candidates([3.0, 4.2], [5.0, 5.0], photons=[1000.0, 2000.0], probability=[0.9, 0.5])
    pairs = pairs_of(rows, psf_sigma_px=PSF_PX, background_e=np.full(2, 10.0))
    assert pairs.receiver.tolist() == [0, 1]
    of = dict(zip(FEATURES, pairs.features.T, strict=True))
    assert of["distance"] == pytest.approx([1.0, 1.0])
    assert of["probability of the neighbour"] == pytest.approx([0.5, 0.9])
    assert of["light of the neighbour"] == pytest.approx(np.log([1000 / 900, 900 / 1000]), abs=1e-5)
    assert of["overlap"] == pytest.approx(np.exp(-0.25), abs=1e-6)
    alone = [name for name in FEATURES if "others" in name]
    assert np.abs([of[name] for name in alone]).max() < 1e-6
    assert np.sign(pairs.direction[0]).tolist() == [1.0, -1.0]


@pytest.fixture(scope="module")
def pulled():
    """Pairs stated too close by .8 stated precisions each if they are equally bright, and a noise of one."""
    rng = np.random.default_rng(3)
    n, sigma = 6000, 0.2
    distance, angle = rng.uniform(0.4, 3.0, n), rng.uniform(0, 2 * np.pi, n)
    middle = rng.uniform(10, 20, (2, n))
    half = distance / 2 * np.array([np.cos(angle), np.sin(angle)])
    strength = 0.8 * (1 - (distance / PSF_PX / REACH_WIDTHS) ** 2) ** 2 * sigma
    inward = half / np.hypot(*half) * strength
    x, y = (np.stack((middle[k] - half[k], middle[k] + half[k]), 1).reshape(-1) for k in (0, 1))
    error = np.stack([np.stack((inward[k], -inward[k]), 1).reshape(-1) for k in (0, 1)], 1)
    rows = candidates(x, y, frame=np.repeat(np.arange(n), 2), sigma=sigma)
    found = Localizations({name: rows[name] for name in rows.dtype.names}, MovieInfo(n, 32, 32, pixel_size_nm=100.0))
    noisy = error + rng.normal(0, sigma, error.shape)
    return found, error, noisy


def fitted(found, error):
    return fit_pull(found, error, psf_sigma_px=PSF_PX, background_e=np.full(len(found), 11.0))


def test_the_fit_finds_the_pull(pulled):
    found, error, noisy = pulled
    left = apart(fitted(found, noisy), found.select(slice(None))) - np.column_stack((found["x"], found["y"])) + error
    assert np.sqrt((error**2).mean()) > 0.05
    assert np.sqrt((left**2).mean()) < 0.02


def test_equal_fits_are_equal_and_few_candidates_tell_nothing(pulled):
    found, _, noisy = pulled
    some, few = slice(2 * LEAST_CANDIDATES), slice(LEAST_CANDIDATES - 2)
    fits = [fitted(found.select(some), noisy[some]) for _ in range(2)]
    assert fits[0].as_dict() == fits[1].as_dict()
    assert fitted(found.select(few), noisy[few]) is None
    unmatched = np.full_like(noisy, np.nan)
    assert fitted(found, unmatched) is None


def test_a_card_keeps_the_pull_and_may_hold_none(pulled):
    found, _, noisy = pulled
    pull = fitted(found, noisy)
    again = NeighbourPull.from_dict(json.loads(json.dumps(pull.as_dict())))
    assert np.array_equal(apart(pull, crowd()), apart(again, crowd()))
    assert NeighbourPull.from_dict({}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [[[[1.0]], [0.0]]]}, "damaged"),
        ({"lowest": [0.0]}, "damaged"),
        ({"highest": ["much"] * len(FEATURES)}, "damaged"),
        ({"layers": [[[[0.0, 0.0]] * len(FEATURES), [0.0, 0.0]]]}, "damaged"),
        ({"features": ["mood"]}, "another version"),
    ],
)
def test_a_damaged_card_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        NeighbourPull.from_dict({**arbitrary_pull().as_dict(), **change})


def test_a_calibration_of_nothing_but_the_pull_moves_and_says_no_more():
    rows, pull = crowd(), arbitrary_pull()
    told = {"psf_sigma_px": PSF_PX, "background_e": np.full(len(rows), 11.0)}
    pixels = Pixels(np.zeros((3, 12, 12), np.float32))
    calibrated = ModelCalibration(pull=pull).apply(rows, pixels, limit_px=np.full(len(rows), 0.1), **told)
    assert set(calibrated.columns) == {"x", "y"}
    assert np.array_equal(np.column_stack(list(calibrated.columns.values())), apart(pull, rows))


@pytest.mark.parametrize("name", ["default", "dense", "fast"])
def test_shipped_models_state_close_molecules_too_close(name):
    """Two equal ones, half a width apart, are moved apart and not sideways."""
    pull = ModelCalibration.from_card(load_model(name, "cpu").card).pull
    rows = candidates([10.0, 10.6], [10.0, 10.0], sigma=0.22)
    moved = apart(pull, rows)
    assert 0.75 < moved[1, 0] - moved[0, 0] < 1.1
    assert moved[:, 1] == pytest.approx([10.0, 10.0], abs=1e-6)
