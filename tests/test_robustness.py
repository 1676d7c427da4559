"""The robustness suite: frozen, physical, and its scores mean what they say."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hand_made_model import make_model

from smlm_pb.errors import ConfigurationError
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation.aberrations import ABERRATIONS, PupilPsf
from smlm_pb.simulation.corrupted_movie import bead_position, simulate_corrupted
from smlm_pb.simulation.corruptions import CLEAN, CORRUPTIONS, Experiment
from smlm_pb.simulation.rendering import render_separable

BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}
ONE = (np.array([15.0]), np.array([15.0]), np.array([1000.0]), (31, 31))


def movie_of(name, severity, **options):
    options = {"frames": 3, "size_px": 48, "seed": 4, **options}
    return simulate_corrupted(BY_NAME[name].experiment(severity), **options)


# ---- the suite


def test_the_suite_is_frozen():
    """Numbers of different versions can only be compared if none of these ever changes."""
    assert {c.name: c.severities for c in CORRUPTIONS} == {
        "photons": (0.7, 0.5, 0.35, 0.25, 0.18),
        "background": (1.5, 2.5, 4.0, 7.0, 12.0),
        "density": (1.5, 2.0, 3.0, 5.0, 8.0),
        "haze": (0.1, 0.25, 0.5, 0.75, 1.0),
        "illumination": (0.8, 0.6, 0.4, 0.2, 0.1),
        "psf_width": (1.05, 1.1, 1.2, 1.35, 1.5),
        "defocus": (20, 40, 60, 90, 130),
        "astigmatism": (20, 40, 60, 90, 130),
        "coma": (20, 40, 60, 90, 130),
        "motion": (0.25, 0.5, 1.0, 1.5, 2.0),
        "read_noise": (2.0, 3.0, 5.0, 8.0, 12.0),
        "gain_error": (1.1, 1.25, 1.5, 2.0, 3.0),
        "offset_error": (10, 25, 50, 75, 100),
        "gain_map": (0.01, 0.02, 0.04, 0.08, 0.15),
        "hot_pixels": (0.0005, 0.001, 0.002, 0.005, 0.01),
        "em_noise": (2, 5, 20, 100, 300),
        "bit_depth": (2, 5, 10, 20, 40),
        "saturation": (100, 80, 60, 45, 30),
        "fiducial": (3e3, 1e4, 3e4, 1e5, 3e5),
    }
    clean = Experiment(density_per_um2=0.5, photons=1000.0, background_e=10.0, psf_sigma_px=1.3)
    assert clean == CLEAN


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: c.name)
def test_every_corruption_changes_something_and_repeats(corruption):
    mild, severe = corruption.experiment(1), corruption.experiment(5)
    assert mild != CLEAN
    assert mild != severe
    first, truth = simulate_corrupted(severe, frames=2, size_px=32, seed=7)
    again, same = simulate_corrupted(severe, frames=2, size_px=32, seed=7)
    assert np.array_equal(first, again)
    assert np.array_equal(truth["x"], same["x"])
    other, _ = simulate_corrupted(severe, frames=2, size_px=32, seed=8)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("severity", [0, 6, 2.5])
def test_other_severities_are_refused(severity):
    with pytest.raises(ConfigurationError, match="must be 1, 2, 3, 4 or 5"):
        CORRUPTIONS[0].experiment(severity)


def test_only_the_corruption_differs_between_severities():
    """The same molecules at the same places, so that differences are those of the corruption."""
    clean, truth = simulate_corrupted(CLEAN, frames=3, size_px=48, seed=4)
    for name in ("photons", "background", "psf_width", "read_noise", "coma", "saturation", "gain_map"):
        assert np.array_equal(movie_of(name, 5)[1]["x"], truth["x"]), name
    assert np.median(clean) == pytest.approx(100 + 10 / 0.5, abs=4)


# ---- the physics


def test_light_is_what_the_severity_says():
    assert np.allclose(movie_of("photons", 5)[1]["photons"], 180)
    assert np.median(movie_of("background", 5)[0]) == pytest.approx(100 + 120 / 0.5, rel=0.05)
    assert movie_of("saturation", 5)[0].max() == 160
    counts = [len(movie_of("density", s, frames=20)[1]) for s in (1, 5)]
    assert counts[1] / counts[0] == pytest.approx(8 / 1.5, rel=0.15)
    corners = movie_of("illumination", 5, frames=40)[1]
    near = np.hypot(corners["x"] - 23.5, corners["y"] - 23.5) < 4
    assert corners["photons"][near].min() > 900
    assert corners["photons"].min() < 250


def test_hot_pixels_and_bead_stay_where_they_are():
    dark = replace(BY_NAME["hot_pixels"].experiment(5), density_per_um2=0.0, background_e=0.0)
    movie, _ = simulate_corrupted(dark, frames=20, size_px=64, seed=1)
    hot = movie.mean(axis=0) > 400
    assert 10 < hot.sum() < 80
    assert (movie[:, hot] > 400).all()
    bead = replace(BY_NAME["fiducial"].experiment(3), density_per_um2=0.0)
    movie, truth = simulate_corrupted(bead, frames=2, size_px=64, seed=1)
    assert len(truth) == 0
    y, x = np.unravel_index(movie[0].argmax(), (64, 64))
    assert bead_position(bead, 64) == pytest.approx((x, y), abs=0.6)
    assert bead_position(CLEAN, 64) is None


def test_motion_smears_but_keeps_the_light():
    still = replace(CLEAN, density_per_um2=0.3, background_e=0.0)
    moving = replace(still, motion_px=2.0)
    sharp, blurred = (simulate_corrupted(e, frames=10, size_px=48, seed=2)[0] for e in (still, moving))
    assert (blurred.astype(float) - 100).sum() == pytest.approx((sharp.astype(float) - 100).sum(), rel=0.03)
    # σ² grows by L²/12 along the way: peaks fall by 9 %.
    highest = [np.sort(movie.ravel())[-50:].mean() - 100 for movie in (blurred, sharp)]
    assert highest[0] / highest[1] == pytest.approx((1 + 2.0**2 / 12 / 1.3**2) ** -0.5, abs=0.03)


def test_the_perfect_pupil_is_nearly_the_gaussian():
    spot, gaussian = PupilPsf().render(*ONE), render_separable(*ONE[:3], 1.3, ONE[3])
    middle = slice(13, 18)
    assert spot.sum() == pytest.approx(1000, rel=0.08)  # the rest is in rings farther out
    overlap = (spot[middle, middle] * gaussian[middle, middle]).sum()
    norms = np.linalg.norm(spot[middle, middle]) * np.linalg.norm(gaussian[middle, middle])
    assert overlap / norms > 0.998


@pytest.mark.parametrize("name", ABERRATIONS)
def test_aberrations_cost_what_marechal_says(name):
    """The peak falls as exp(-(2 π w)²) with the root-mean-square wavefront error w in waves (Maréchal)."""
    peak = PupilPsf().render(*ONE).max()
    aberrated = PupilPsf({name: 60}).render(*ONE)
    assert aberrated.max() / peak == pytest.approx(np.exp(-((2 * np.pi * 0.06) ** 2)), abs=0.04)
    rows, columns = np.mgrid[:31, :31]
    centre = [(axis * aberrated).sum() / aberrated.sum() for axis in (columns, rows)]
    assert centre == pytest.approx([15, 15], abs=0.1), "a molecule is where the centre of its light is"


def test_a_molecule_at_the_edge_keeps_inside_the_frame():
    image = PupilPsf().render(np.array([-3.0, 30.6]), np.array([0.0, 60.0]), np.array([500.0, 500.0]), (31, 31))
    assert image.shape == (31, 31)
    assert 0 < image.sum() < 500


# ---- the benchmark


def test_the_benchmark_runs(script, tmp_path):
    model = make_model(tmp_path / "model")
    robustness = script("robustness")
    robustness.CORRUPTIONS = tuple(BY_NAME[name] for name in ("density", "fiducial"))
    assert robustness.main(["--quick", "--model", str(model), "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "robustness.json").read_text(encoding="utf-8"))
    assert (tmp_path / "robustness.png").stat().st_size > 5000
    assert [(p["corruption"], p["severity"]) for p in record["results"]["points"]] == [
        ("density", 1), ("density", 5), ("fiducial", 1), ("fiducial", 5)
    ]  # fmt: skip
    assert record["model"]["name"] == "hand-made"
    reference = ["--reference", str(tmp_path / "robustness.json")]
    assert robustness.main(["--quick", "--model", str(model), "--out", str(tmp_path / "again"), *reference]) == 0
    again = json.loads((tmp_path / "again" / "robustness.json").read_text(encoding="utf-8"))
    assert again["results"]["summary"]["relative_error"] == pytest.approx(1.0)
    assert again["results"]["points"] == record["results"]["points"]


def test_a_shift_of_all_molecules_is_no_error(script):
    robustness = script("robustness")
    _, truth = simulate_corrupted(CLEAN, frames=8, size_px=64, seed=5)
    moved = truth.with_columns(x=truth["x"] + 1.2, y=truth["y"] - 0.4)
    back, shift = robustness.without_common_shift(moved, truth)
    assert shift == pytest.approx((1.2, -0.4), abs=1e-4)
    assert back["x"] == pytest.approx(truth["x"], abs=1e-4)
    few = moved.select(slice(0, 5))
    assert robustness.without_common_shift(few, truth) == (few, (0.0, 0.0))


def point(severity, jaccard, warned, corruption="a"):
    return {"corruption": corruption, "severity": severity, "jaccard_100": jaccard, "warned": warned}


def test_figures_of_the_suite(script):
    robustness = script("robustness")
    points = [point(1, 0.79, 1.0), point(2, 0.6, 1.0), point(3, 0.3, 0.0), point(4, 0.1, 1.0), point(5, 0.0, 1.0)]
    summary = robustness.summarise({"jaccard_100": 0.8}, points)
    assert summary["mean"] == pytest.approx(0.358)
    assert summary["kept"] == pytest.approx(0.358 / 0.8)
    assert summary["harmful"] == 4
    assert summary["warned_of_harm"] == pytest.approx(3 / 4)
    assert summary["false_alarms"] == 1.0
    assert summary["by_corruption"]["a"]["half_at"] == pytest.approx(2 + 2 / 3)
    assert robustness.half_at(0.8, points[:2]) is None
    better = [{**p, "jaccard_100": 1 - (1 - p["jaccard_100"]) / 2} for p in points]
    assert robustness.relative_error(better, points) == pytest.approx(0.5)


def test_what_lies_near_the_bead_is_not_scored(script):
    table = Localizations({"frame": [0, 0], "x": [30.0, 5.0], "y": [36.0, 5.0]}, MovieInfo(1, 64, 64, 100.0))
    assert script("robustness").without_bead(table, (30.1, 35.8))["x"].tolist() == [5.0]
    assert len(script("robustness").without_bead(table, None)) == 2


def test_the_card_takes_the_figures_of_the_suite(script):
    results = {
        "summary": {
            "clean": 0.95, "mean": 0.8, "kept": 0.84, "warned_of_harm": None, "false_alarms": 0.1, "harmful": 3,
            "by_corruption": {"coma": {"mean": 0.5, "half_at": 3.0}},
        }
    }  # fmt: skip
    figures = script("update_cards")._READERS["robustness"](results)
    assert figures == {"clean": 0.95, "mean": 0.8, "kept": 0.84, "mean_coma": 0.5}
