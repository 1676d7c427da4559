"""Significance of light, how high noise peaks, and how much is asked of a movie."""

import math

import numpy as np
import pytest
from hand_made_model import make_model, make_movie
from scipy import ndimage, stats

from smlm_pb.camera import Camera
from smlm_pb.localization import load_model, localize
from smlm_pb.localization.candidates import CANDIDATE_DTYPE
from smlm_pb.localization.significance import (
    FALSE_SHARE,
    LARGEST_RATE_PER_PX,
    LEAST_ASKED,
    least_significance,
    lone_significance,
    noise_peaks_per_px,
    sample_electrons,
)
from smlm_pb.movies import open_movie
from smlm_pb.simulation.rendering import render_separable

SIGMA_PX = 1.1
CAMERA = Camera(read_noise_e=1.6)


def rows(x, y, *, frame=0, photons=300.0, background=100.0, probability=0.6):
    table = np.zeros(np.size(x), CANDIDATE_DTYPE)
    table["frame"], table["x"], table["y"] = frame, x, y
    table["photons"], table["background"], table["probability"] = photons, background, probability
    return table


def frames_of(n, photons, *, background=100.0, size=31, x=15.2, y=14.7, seed=0, em=False):
    rng = np.random.default_rng(seed)
    spot = render_separable(np.array([x]), np.array([y]), np.array([photons]), np.array([SIGMA_PX]), (size, size))
    expected = np.broadcast_to(spot + background, (n, size, size))
    if em:
        return (rng.standard_gamma(np.maximum(rng.poisson(2 * expected), 1e-9)) / 2).astype(np.float32)
    return (rng.poisson(expected) + rng.normal(0, 1.6, expected.shape)).astype(np.float32)


def judge(table, electrons, camera=CAMERA):
    return lone_significance(table, electrons, first_frame=0, psf_sigma_px=SIGMA_PX, camera=camera)


def test_noise_peaks_as_often_as_predicted():
    rng = np.random.default_rng(1)
    side = 2000
    field = ndimage.gaussian_filter(rng.normal(size=(side, side)), SIGMA_PX * 2, mode="wrap")  # finely sampled
    field /= field.std()
    peaks = field[(field == ndimage.maximum_filter(field, 5, mode="wrap"))]
    for z in (3.0, 3.5, 4.0):
        expected = side**2 * noise_peaks_per_px(z, SIGMA_PX * 2)
        assert (peaks > z).sum() == pytest.approx(expected, rel=0.1, abs=4 * math.sqrt(expected))


@pytest.mark.parametrize("photons", [0.0, 300.0])
def test_light_is_measured_in_standard_deviations_of_the_noise(photons):
    n = 400
    found = judge(rows(np.full(n, 15.2), np.full(n, 14.7), frame=np.arange(n)), frames_of(n, photons))
    noise = math.sqrt(4 * math.pi * SIGMA_PX**2 * (100 + 1.6**2))
    # The constant background that is fitted beside, and the pixels, cost about a tenth.
    assert found.mean() == pytest.approx(0.9 * photons / noise, rel=0.1, abs=0.2)
    assert found.std() == pytest.approx(1.0, abs=0.2)  # the light itself is noisy, too


@pytest.mark.parametrize("background", [0.5, 10.0, 200.0])
@pytest.mark.parametrize("photons", [1500.0, 5000.0, 50_000.0])
def test_bright_molecules_are_significant_on_any_background(photons, background):
    n = 50
    electrons = frames_of(n, photons, background=background)
    table = rows(np.full(n, 15.2), np.full(n, 14.7), frame=np.arange(n), photons=photons, background=background)
    assert judge(table, electrons).min() > 8.0


@pytest.mark.parametrize(("em", "camera"), [(False, Camera(read_noise_e=1.6)), (True, Camera(em_gain=200.0))])
def test_the_heavy_tail_of_few_electrons_is_allowed_for(em, camera):
    n = 30_000
    electrons = frames_of(n, 0.0, background=3.0, size=13, em=em)
    found = judge(
        rows(np.full(n, 6.1), np.full(n, 5.8), frame=np.arange(n), background=3.0, photons=1.0), electrons, camera
    )
    assert (found > 3.0).mean() < 2.0 * stats.norm.sf(3.0)
    assert (found > 2.0).mean() == pytest.approx(stats.norm.sf(2.0), rel=0.25)


def test_next_to_a_bright_molecule_nobody_is_judged_and_a_dim_one_is_not_in_the_way():
    electrons = frames_of(1, 300.0, size=40)
    dim = rows([15.2, 22.0], [14.7, 14.0])
    assert np.isfinite(judge(dim, electrons)).all()
    bright = rows([15.2, 22.0], [14.7, 14.0], photons=[300.0, 5000.0])
    found = judge(bright, electrons)
    assert np.isinf(found[0])
    assert np.isfinite(found[1])  # itself it has no bright neighbour


def test_in_another_frame_nobody_is_in_the_way():
    electrons = frames_of(2, 300.0)
    table = rows([15.2, 15.2], [14.7, 14.7], frame=[0, 1], photons=5000.0)
    assert np.isfinite(judge(table, electrons)).all()


def test_what_the_threshold_will_not_keep_is_not_judged():
    assert np.isinf(judge(rows([15.2], [14.7], probability=0.29), frames_of(1, 300.0))).all()
    assert judge(np.empty(0, CANDIDATE_DTYPE), frames_of(1, 300.0)).shape == (0,)


@pytest.mark.parametrize(("x", "y"), [(-0.5, -0.5), (30.4, 0.0), (0.0, 30.4), (30.49, 30.49)])
def test_at_the_edge_of_the_frame(x, y):
    n = 300
    electrons = frames_of(n, 600.0, x=x, y=y)
    found = judge(rows(np.full(n, x), np.full(n, y), frame=np.arange(n), photons=600.0), electrons)
    assert np.isfinite(found).all()
    assert 3.0 < found.mean() < 15.0
    assert found.std() == pytest.approx(1.1, abs=0.3)


# -- how much is asked -------------------------------------------------------------------------------------------------


def test_of_a_blank_movie_more_is_asked_than_noise_reaches():
    least = least_significance(np.array([3.2, 4.0, 4.9]), judged_px=16 * 4096, psf_sigma_px=SIGMA_PX)
    assert noise_peaks_per_px(least, SIGMA_PX) <= LARGEST_RATE_PER_PX
    assert noise_peaks_per_px(least - 0.1, SIGMA_PX) > LARGEST_RATE_PER_PX


def test_blank_movies_hardly_ever_pass_for_sparse_ones():
    """The noise of a sample peaks above its own limit in one of a thousand blank movies, not in one of twenty."""
    rng, area = np.random.default_rng(0), 16 * 4096
    grid = np.linspace(3, 8, 2000)
    cumulative = noise_peaks_per_px(grid, SIGMA_PX) * area
    asked = []
    for _ in range(1500):
        noise = np.interp(rng.random(rng.poisson(cumulative[0])) * cumulative[0], cumulative[::-1], grid[::-1])
        asked.append(least_significance(noise, judged_px=area, psf_sigma_px=SIGMA_PX))
    assert np.mean(np.array(asked) < max(asked)) < 0.005


def test_where_much_is_on_little_is_asked():
    strong = np.full(100_000, 12.0)
    assert least_significance(strong, judged_px=16 * 4096, psf_sigma_px=SIGMA_PX) == LEAST_ASKED


@pytest.mark.parametrize("n_true", [20, 200, 2000])
def test_of_what_stays_one_in_twenty_is_noise(n_true):
    """Noise as it peaks, and molecules of a significance spread around 6."""
    rng = np.random.default_rng(n_true)
    area, shares = 16 * 4096, []
    grid = np.linspace(3, 8, 2000)
    cumulative = noise_peaks_per_px(grid, SIGMA_PX) * area
    for _ in range(200):
        n_noise = rng.poisson(cumulative[0])
        noise = np.interp(rng.random(n_noise) * cumulative[0], cumulative[::-1], grid[::-1])
        true = rng.normal(6.0, 1.5, n_true)
        least = least_significance(np.r_[noise, true], judged_px=area, psf_sigma_px=SIGMA_PX)
        kept_noise, kept_true = (noise >= least).sum(), (true >= least).sum()
        shares.append(kept_noise / max(1, kept_noise + kept_true))
    assert np.mean(shares) < 1.3 * FALSE_SHARE


# -- in a run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(make_model(tmp_path_factory.mktemp("model")), "cpu")


def test_a_run_records_what_it_asked(model):
    movie, *_ = make_movie()
    how = {"model": model, "offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": 1.1}
    automatic = localize(movie, **how)
    asked = automatic.provenance[-1]["conditions"]["least_significance"]
    assert LEAST_ASKED <= asked < 6
    given = localize(movie, **how, threshold=automatic.provenance[-1]["threshold"]["threshold"])
    assert given.provenance[-1]["conditions"]["least_significance"] == 0
    assert len(automatic) == len(given)  # bright molecules are significant


def test_light_that_is_no_more_than_noise_is_left_out(model, monkeypatch):
    movie, *_ = make_movie()
    how = {"model": model, "offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": 1.1}
    monkeypatch.setattr("smlm_pb.localization.significance.measure_least_significance", lambda *_, **__: 1e6)
    found = localize(movie, **how)
    threshold = found.provenance[-1]["threshold"]["threshold"]
    candidates = localize(movie, **how, threshold=0.3)
    lone = lone_significance(
        _as_rows(candidates),
        Camera(offset_adu=100, e_per_adu=0.5).to_electrons(movie),
        first_frame=0,
        psf_sigma_px=1.1,
        camera=Camera(offset_adu=100, e_per_adu=0.5),
    )
    assert np.isfinite(lone).any()
    kept = candidates.select(np.isinf(lone) & (candidates["probability"] >= np.float32(threshold)))
    np.testing.assert_array_equal(found["x"], kept["x"])


def _as_rows(table):
    out = np.empty(len(table), CANDIDATE_DTYPE)
    for name in CANDIDATE_DTYPE.names:
        out[name] = table[name]
    return out


@pytest.mark.parametrize("value", [0, 65535])
def test_dropped_frames_are_no_part_of_the_sample(value):
    """Saturated or empty frames would tell the network of other molecules, and of another noise, than there are."""
    whole = np.random.default_rng(0).poisson(100, (12, 16, 20)).astype(np.uint16)
    broken = np.insert(whole, [3, 7, 7], value, axis=0)
    expected = sample_electrons(open_movie(whole), CAMERA, (0, 12))
    np.testing.assert_array_equal(sample_electrons(open_movie(broken), CAMERA, (0, 15)), expected)
    nothing = sample_electrons(open_movie(np.full((4, 16, 20), value, np.uint16)), CAMERA, (0, 4))
    assert nothing.shape == (4, 16, 20)
