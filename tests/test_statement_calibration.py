"""From what candidates state to what is true of them: surroundings, the small network, its fit and its faults."""

import json
from itertools import chain

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from smlm_pb.errors import ModelError
from smlm_pb.evaluation.calibration import reliability
from smlm_pb.localization.crowding import NEAR_PX, REACH_WIDTHS, Surroundings, crowding, surroundings
from smlm_pb.localization.model import load_model
from smlm_pb.localization.model_calibration import ModelCalibration
from smlm_pb.localization.own_light import Pixels
from smlm_pb.localization.small_network import limits, scaled
from smlm_pb.localization.statement_calibration import (
    FEATURES,
    LEAST_FEATURES,
    MISSED_WITHIN_PX,
    StatementCalibration,
    Statements,
)
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.training import calibration as fitted_after_training
from smlm_pb.training.calibration import _compared
from smlm_pb.training.experiment import Experiment
from smlm_pb.training.statement_fit import LEAST_CANDIDATES, fit_statements
from smlm_pb.training.validation import validation_scenes


def statements(probability, *, light=1.0, population=(1000.0, 900.0, 1100.0, 0.01, 0.01), **changes):
    """Candidates of 1000 photons that differ in what they state and in the light around them."""
    n = len(probability)
    near = np.broadcast_to(1000.0 * light, n).astype(float)
    alone = np.zeros(n), np.zeros(n), np.full(n, REACH_WIDTHS)
    around = Surroundings(np.zeros(n), probability.astype(float), near, *alone)
    plain = {
        "sigma_px": np.full(n, 0.1),
        "limit_px": np.full(n, 0.08),
        "photons": np.full(n, 1000.0),
        "background_e": np.full(n, 20.0),
        "own_light": np.ones((n, 2)),
        "psf_sigma_px": 1.2,
    }
    return Statements(probability=probability, around=around, population=population, **{**plain, **changes})


@pytest.fixture(scope="module")
def doubted():
    """Candidates stated too timidly wherever there is light for another molecule, and twice too precise."""
    rng = np.random.default_rng(0)
    n = 30_000
    stated, light = rng.uniform(0.05, 0.99, n), rng.choice([1.0, 2.0], n)
    true = np.where(light > 1.5, 1 - 0.3 * (1 - stated), stated**2)
    exists = rng.random(n) < true
    pull = np.where(exists[:, None], rng.normal(0, 2.0, (n, 2)), np.nan)
    missed = (rng.random(n) < np.where(light > 1.5, 0.4, 0.02)).astype(float)
    calibration = fit_statements(statements(stated, light=light), exists, pull, missed, np.ones(n))
    return calibration, stated, light, true


def test_the_fit_finds_what_is_true_given_the_surroundings(doubted):
    calibration, stated, light, true = doubted
    found = calibration.apply(statements(stated, light=light)).probability
    assert np.abs(found - true).mean() < 0.03
    assert np.abs(stated - true).mean() > 0.15


def test_the_fit_finds_by_how_much_precision_is_overstated(doubted):
    calibration, stated, light, _ = doubted
    factor = calibration.apply(statements(stated, light=light)).factor
    # Pulls of 2 cut at 4 have a standard deviation of 1.76, and half of all is far from certain.
    assert np.median(factor[stated > 0.5]) == pytest.approx(1.76, abs=0.15)


def test_the_fit_finds_how_many_molecules_nobody_stands_for(doubted):
    calibration, stated, light, _ = doubted
    missed = calibration.apply(statements(stated, light=light)).missed
    assert missed[light > 1.5].mean() == pytest.approx(0.4, abs=0.03)
    assert missed[light < 1.5].mean() == pytest.approx(0.02, abs=0.01)


def test_beyond_the_scenes_of_the_fit_the_nearest_counts(doubted):
    calibration, *_ = doubted
    p = np.full(3, 0.5)
    odd = statements(p, photons=np.array([1e3, 1e6, 1e9]))
    found, factor, _ = calibration.apply(odd)
    assert found[1] == found[2]
    assert factor[1] == factor[2]
    certain = calibration.apply(statements(np.array([1.0, 1 - 1e-12, 1e-30])))
    assert np.isfinite(certain).all()


def test_equal_fits_are_equal_and_few_candidates_tell_nothing():
    rng = np.random.default_rng(1)
    n = LEAST_CANDIDATES
    stated, exists = rng.random(n), rng.random(n) < 0.5
    pull = np.where(exists[:, None], 1.0, np.nan) * np.ones((n, 2))
    none = np.zeros(n)
    fits = [fit_statements(statements(stated), exists, pull, none, np.ones(n)) for _ in range(2)]
    assert fits[0].as_dict() == fits[1].as_dict()
    assert fit_statements(statements(stated[1:]), exists[1:], pull[1:], none[1:], np.ones(n - 1)) is None


def test_unknown_population_needs_no_numbers():
    known, unknown = (
        statements(np.full(2, 0.5), population=p).features() for p in ((1e3, 9e2, 1.1e3, 0.1, 0.2), [np.nan] * 5)
    )
    assert np.isfinite(unknown).all()
    at = FEATURES.index("whether the movie's molecules are known")
    assert (known[:, at] == 1).all()
    assert (unknown[:, at] == 0).all()


def test_a_card_keeps_the_calibration(doubted):
    calibration, stated, light, _ = doubted
    again = StatementCalibration.from_dict(json.loads(json.dumps(calibration.as_dict())))
    for one, two in zip(
        calibration.apply(statements(stated, light=light)), again.apply(statements(stated, light=light)), strict=True
    ):
        assert np.array_equal(one, two)
    assert StatementCalibration.from_dict({}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [[[[1.0]], [0.0]]]}, "damaged"),
        ({"lowest": [0.0]}, "damaged"),
        ({"highest": ["much"] * len(FEATURES)}, "damaged"),
        ({"features": ["mood"]}, "another version"),
    ],
)
def test_a_damaged_card_is_refused(doubted, change, message):
    with pytest.raises(ModelError, match=message):
        StatementCalibration.from_dict({**doubted[0].as_dict(), **change})


def test_a_model_made_before_crowding_was_told_goes_by_what_it_knows(doubted):
    """Its card lists the first features alone."""
    content = doubted[0].as_dict()
    weight, shift = content["layers"][0]
    content |= {name: content[name][:LEAST_FEATURES] for name in ("features", "lowest", "highest")}
    content["layers"] = [[weight[:LEAST_FEATURES], shift], *content["layers"][1:]]
    older = StatementCalibration.from_dict(content)
    crowded, even = (
        older.apply(statements(np.full(3, 0.5), population=(1e3, 9e2, 1.1e3, 0.01, around))) for around in (0.01, 0.1)
    )
    assert np.array_equal(crowded.probability, even.probability)
    assert older.as_dict() == content


def test_limits_leave_out_the_odd_ones_and_scale_to_two():
    values = np.tile(np.linspace(0, 1, 1001)[:, None], (1, len(FEATURES)))
    values[0] = 1e6
    low, high = (np.asarray(v) for v in limits(values))
    assert (high < 1.1).all()
    assert scaled(values, low, high).min() == -2
    assert scaled(values, low, high).max() == 2


def test_surroundings_against_brute_force():
    rng = np.random.default_rng(2)
    n, sigma = 150, 1.1
    rows = {
        "frame": np.sort(rng.integers(0, 3, n)),
        "x": rng.uniform(0, 12, n),
        "y": rng.uniform(0, 12, n),
        "photons": rng.uniform(200, 2000, n),
        "probability": rng.random(n),
    }
    around = surroundings(rows, sigma)
    square = (rows["x"][:, None] - rows["x"]) ** 2 + (rows["y"][:, None] - rows["y"]) ** 2
    same = rows["frame"][:, None] == rows["frame"]
    near = same & (square <= NEAR_PX**2)
    assert around.probability == pytest.approx((near * rows["probability"]).sum(axis=1))
    assert around.light_e == pytest.approx((near * rows["probability"] * rows["photons"]).sum(axis=1))
    other = same & ~np.eye(n, dtype=bool) & (square <= (5 * sigma) ** 2)
    light = (other * np.exp(-square / (4 * sigma**2)) * rows["probability"] * rows["photons"]).sum(axis=1)
    assert around.crowding == pytest.approx(light / rows["photons"])
    assert crowding(rows, sigma) == pytest.approx(around.crowding)
    likelier = other & (rows["probability"] > rows["probability"][:, None])
    near_by = likelier * np.exp(-square / (4 * sigma**2)) * rows["probability"]
    assert around.likelier == pytest.approx(near_by.sum(axis=1))
    assert around.likelier_light == pytest.approx((near_by * rows["photons"]).sum(axis=1) / rows["photons"])
    nearest = np.sqrt(np.where(likelier, square, np.inf).min(axis=1)) / sigma
    assert around.likelier_widths == pytest.approx(nearest.clip(max=REACH_WIDTHS))
    assert (around.likelier_widths == REACH_WIDTHS).any()


def test_of_equally_likely_candidates_the_earlier_one_leads():
    same = {"frame": np.zeros(2, int), "x": np.zeros(2), "y": np.array([0.0, 1.0]), "photons": np.full(2, 500.0)}
    around = surroundings({**same, "probability": np.full(2, 0.5)}, 1.0)
    assert around.likelier.tolist() == [0.0, pytest.approx(0.5 * np.exp(-0.25))]
    assert around.likelier_widths.tolist() == [REACH_WIDTHS, 1.0]


@pytest.mark.parametrize("seed", range(8))
def test_a_candidate_is_right_if_it_adds_a_hit_to_the_likelier_ones(seed):
    from scipy.sparse.csgraph import maximum_bipartite_matching

    rng = np.random.default_rng(seed)
    info = MovieInfo(1, 6, 6, pixel_size_nm=100.0)
    found, truth = (
        Localizations({"frame": np.zeros(n, int), "x": rng.uniform(0, 4, n), "y": rng.uniform(0, 4, n), **more}, info)
        for n, more in ((14, {"probability": rng.permutation(14) / 20 + 0.1}), (9, {}))
    )
    error, missed = _compared(found, truth)
    apart = np.hypot(found["x"][:, None] - truth["x"], found["y"][:, None] - truth["y"])
    order = np.argsort(-found["probability"])
    hits = [(maximum_bipartite_matching(csr_array(apart[order[:k]] <= 1.0)) >= 0).sum() for k in range(15)]
    assert np.array_equal(np.isfinite(error[order, 0]), np.diff(hits) > 0)
    assert np.hypot(*error[np.isfinite(error[:, 0])].T).max() <= 1.0
    assert missed.sum() == (apart.min(axis=0) <= MISSED_WITHIN_PX).sum() - hits[-1]


def test_a_missed_molecule_belongs_to_the_nearest_candidate():
    info = MovieInfo(1, 20, 20, pixel_size_nm=100.0)
    place = {"frame": np.zeros(2, int), "y": np.array([5.0, 5.0])}
    found = Localizations({**place, "x": np.array([5.0, 10.0]), "probability": np.array([0.9, 0.8])}, info)
    four = np.array([5.2, 5.4, 8.5, 15.0])  # a hit, its twin, one nearer to the second candidate, one far from both
    truth = Localizations({"frame": np.zeros(4, int), "x": four, "y": np.full(4, 5.0)}, info)
    error, missed = _compared(found, truth)
    assert error[0, 0] == pytest.approx(-0.2, abs=1e-6)
    assert np.isnan(error[1]).all()
    assert missed.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("model", "density", "frames", "largest_error"),
    [
        ("default", 0.5, 24, 0.03),
        ("default", 3.0, 8, 0.03),
        ("default", 6.0, 6, 0.03),
        ("fast", 0.5, 24, 0.03),
        ("fast", 3.0, 8, 0.04),
    ],
)
def test_the_shipped_models_are_honest_on_scenes_that_they_were_not_calibrated_on(
    model, density, frames, largest_error
):
    """Of molecules stated with p, a share p is there: in even crowds of equal brightness, sparse and dense."""
    from smlm_pb import localize
    from smlm_pb.simulation import simulate
    from smlm_pb.simulation.presets import density_sweep

    recipe = density_sweep(density, frames=frames, size_px=64)
    movie, truth = simulate(recipe, seed=11)
    found = localize(
        movie, model=model, camera=recipe.camera.camera(), pixel_size_nm=100, psf_sigma_px=1.1, threshold=0.05
    )
    curve = reliability(found, truth, tolerance_nm=100)
    assert curve.expected_calibration_error < largest_error
    assert curve.expected_true == pytest.approx(curve.true, rel=0.03)


@pytest.mark.parametrize("photons", [500, 5000])
def test_the_model_for_sparse_movies_is_honest_about_lone_molecules(photons):
    """Errors over stated precision have a standard deviation of 1."""
    from smlm_pb import localize
    from smlm_pb.evaluation.matching import match
    from smlm_pb.simulation import Recipe, simulate
    from smlm_pb.simulation.presets import density_sweep

    lone = density_sweep(0.1, frames=150).as_dict()
    recipe = Recipe.from_dict({**lone, "molecules": {**lone["molecules"], "photons": float(photons)}})
    movie, truth = simulate(recipe, seed=5)
    found = localize(movie, model="fast", camera=recipe.camera.camera(), pixel_size_nm=100, psf_sigma_px=1.1)
    pairs = match(found, truth, 50.0)
    pull = np.concatenate(
        [(found[n][pairs.pred] - truth[n][pairs.truth]) / found[f"sigma_{n}"][pairs.pred] for n in "xy"]
    )
    assert len(pull) > 600
    assert np.sqrt(np.mean(pull[np.abs(pull) < 4] ** 2)) == pytest.approx(1.0, abs=0.1)


def test_sparse_scenes_of_a_calibration_are_sparse_and_their_portions_do_not_matter(monkeypatch):
    model = load_model("fast", "cpu")
    experiment = Experiment.from_dict(
        {
            "name": "few",
            "crop_px": 32,
            "scenes": {"psf_sigma_px": [1.2, 1.2]},
            "network": {"told": "arrangement"},
            "validation": {"calibration_scenes": 60, "sparse_calibration_scenes": 50},
        }
    )
    drawn = []

    def noted(settings, scenes, crop_px, **more):
        drawn.append(validation_scenes(settings, scenes, crop_px, **more))
        return drawn[-1]

    monkeypatch.setattr(fitted_after_training, "validation_scenes", noted)
    cards = []
    for portion in (16, 50):
        monkeypatch.setattr(fitted_after_training, "_PORTION", portion)
        cards.append(fitted_after_training.calibrate(model.network, experiment, torch.device("cpu")).as_card())
    assert [len(scenes) for scenes in drawn] == [60, 16, 16, 16, 2, 60, 50]
    further = drawn[-1]
    assert all(np.array_equal(a.electrons, b.electrons) for a, b in zip(chain(*drawn[1:5]), further, strict=True))
    assert np.mean([scene.x.size for scene in further]) < 0.3 * np.mean([scene.x.size for scene in drawn[0]])
    assert not any(np.array_equal(a.electrons, b.electrons) for a, b in zip(drawn[0], further, strict=False))
    assert cards[0] == cards[1]
    assert cards[0]["sigma_calibration"]["crowding"]


def test_models_without_calibration_state_what_they_state():
    rows = {name: np.ones(1) for name in ("frame", "x", "y", "photons", "probability", "sigma_x", "sigma_y")}
    pixels = Pixels(np.zeros((2, 8, 8), np.float32))
    nothing = ModelCalibration().apply(rows, pixels, psf_sigma_px=1.0, limit_px=np.ones(1), background_e=np.ones(1))
    assert nothing.columns == {}
    assert nothing.missed == 0
    assert ModelCalibration.from_card(load_model("default", "cpu").card).precision is not None
