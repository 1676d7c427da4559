"""The benchmarks of second stages: their lists hold what they say, and their figures mean what they say."""

import json

import numpy as np
import pytest


@pytest.mark.parametrize("told", ["positions", "photons", "lists"])
def test_lists_hold_copies_with_the_stated_precision(script, told):
    drawn = script("duplicates").draw_lists(0.5, 3, told, seed=1, n=400)
    table, molecule, partner = drawn
    assert (np.bincount(molecule) == 3).all()
    assert ("source" in table, "photons" in table) == (told == "lists", told != "positions")
    mean = [np.bincount(molecule, table[a]) / 3 for a in "xy"]
    first = np.flatnonzero((partner >= 0) & (np.arange(len(partner)) < partner))
    apart = np.hypot(*(m[first] - m[partner[first]] for m in mean))
    assert np.median(apart) == pytest.approx(0.3, abs=0.02)
    spread = np.concatenate([table[a] - m[molecule] for a, m in zip("xy", mean, strict=True)])
    assert spread.std() == pytest.approx(0.5 * 0.05 * np.sqrt(2 / 3), rel=0.05)


def test_duplicates_run(script, tmp_path):
    assert script("duplicates").main(["--quick", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "duplicates.json").read_text())
    assert record["results"]["lists"][0]["learned"]["one_left"][0] > 0.9
    assert record["results"]["movies"][0]["jaccard"]["merged, as they are"][0] < 0.5


def test_honest_errors_score_one(script):
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.05, 0.3, (40_000, 2))
    figures = script("readouts")._figures(sigma * rng.normal(size=sigma.shape), sigma)
    assert figures["pull"] == pytest.approx(1, abs=0.02)
    assert figures["within_68"] == pytest.approx(0.683, abs=0.01)
    assert figures["within_95"] == pytest.approx(0.95, abs=0.01)
    assert figures["rank_correlation"] > 0.3


def test_precision_at_a_recall(script):
    precision = script("verifier")._precision
    exists = np.array([True, True, False, True, False])
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert precision(score, exists, 3) == pytest.approx(0.75)
    assert np.isnan(precision(score, exists, 10))
