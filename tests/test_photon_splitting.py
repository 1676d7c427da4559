"""Photon splitting: the halves are independent, and the precision they tell is the true one."""

import json

import hand_made_model
import numpy as np
import pytest
from hand_made_model import PSF_SIGMA_PX, make_model, make_movie
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb import Camera
from smlm_pb.analysis.photon_splitting import compare_halves, repeatability
from smlm_pb.analysis.split_movie import VIEWS, SplitMovie
from smlm_pb.analysis.thinning import split_exposure
from smlm_pb.cli import main as cli
from smlm_pb.errors import Cancelled, ConfigurationError, TableError
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.movies import open_movie

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": PSF_SIGMA_PX}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("models") / "hand-made"))


# -- the halves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.5, 5.0, 80.0])
@pytest.mark.parametrize("read_noise", [0.0, 1.6, 5.0])
def test_halves_have_half_the_light_and_nothing_in_common(mean, read_noise):
    rng = np.random.default_rng(1)
    n = 200_000
    electrons = rng.poisson(mean, n) + rng.normal(0, read_noise, n)
    first, second = split_exposure(electrons, rng, read_variance_e2=read_noise**2)
    variance = (mean + read_noise**2) / 2
    for half in (first, second):
        assert half.mean() == pytest.approx(mean / 2, abs=5 * np.sqrt(variance / n))
        assert half.var() == pytest.approx(variance, rel=0.02)
    # Five standard errors of a covariance, and what remains where read noise makes counts strongly negative.
    assert abs(np.cov(first, second)[0, 1]) < 5 * variance / np.sqrt(n) + 0.01 * variance


def test_without_the_read_noise_the_halves_share_it():
    rng = np.random.default_rng(1)
    electrons = rng.poisson(5.0, 100_000) + rng.normal(0, 4.0, 100_000)
    first, second = split_exposure(electrons, rng)
    assert np.cov(first, second)[0, 1] == pytest.approx(4.0, rel=0.05)  # 16 e⁻² / 4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1e5), st.floats(0, 50))
def test_halves_always_add_up(seed, level, read_noise):
    rng = np.random.default_rng(seed)
    electrons = rng.normal(level, 3.0 + read_noise, (7, 5))
    first, second = split_exposure(electrons, rng, read_variance_e2=read_noise**2)
    np.testing.assert_allclose(first + second, electrons, rtol=1e-5, atol=1e-2)


def test_electron_multiplication_leaves_no_correlation():
    rng = np.random.default_rng(2)
    camera = Camera(offset_adu=100, e_per_adu=5.0, em_gain=300, read_noise_e=50)
    frames = camera.digitize(np.full((100, 50, 40), 20.0), rng)
    split = SplitMovie(open_movie(frames), camera, (0, 100), 100, seed=0)
    views = split.read(0, split.n_frames)
    first, second = views[0::VIEWS].ravel(), views[1::VIEWS].ravel()
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0, abs=5 / np.sqrt(len(first)))


def test_a_frame_is_split_the_same_way_however_it_is_read():
    movie = open_movie(make_movie(5)[0])
    split = SplitMovie(movie, Camera(100.0, 0.5), (0, 5), 5, seed=3)
    whole = split.read(0, split.n_frames)
    pieces = np.concatenate([split.read(k, k + 1) for k in range(split.n_frames)])
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_array_equal(whole[2::VIEWS], Camera(100.0, 0.5).to_electrons(movie.read(0, 5)))


# -- the precision they tell -------------------------------------------------------------------------------


def centroid_fit(frames):
    """Unweighted Gaussian least squares by a few Gauss-Newton steps: an estimator of its own, one spot per frame."""
    size = frames.shape[-1]
    grid = np.arange(size)
    y = x = np.full(len(frames), (size - 1) / 2.0)
    for _ in range(8):
        gy, gx = (np.exp(-((grid - p[:, None]) ** 2) / (2 * PSF_SIGMA_PX**2)) for p in (y, x))
        spot = gy[:, :, None] * gx[:, None, :]
        dy = spot * (grid[None, :, None] - y[:, None, None]) / PSF_SIGMA_PX**2
        dx = spot * (grid[None, None, :] - x[:, None, None]) / PSF_SIGMA_PX**2
        design = np.stack([spot, np.ones_like(spot), dy, dx], axis=-1).reshape(len(frames), -1, 4)
        normal = design.transpose(0, 2, 1) @ design
        answer = np.linalg.solve(normal, design.transpose(0, 2, 1) @ frames.reshape(len(frames), -1, 1))[..., 0]
        step = np.clip(answer[:, 2:] / np.maximum(answer[:, :1], 1e-3), -0.5, 0.5)
        y, x = np.clip(y + step[:, 0], 2, size - 3), np.clip(x + step[:, 1], 2, size - 3)
    return y, x, answer[:, 0]


@pytest.mark.parametrize(("photons", "background"), [(300, 1.0), (1000, 10.0), (5000, 50.0)])
def test_measured_precision_is_the_true_one_within_five_percent(photons, background):
    rng = np.random.default_rng(4)
    n, size = 6000, 11
    true_y, true_x = rng.uniform(4.5, 5.5, (2, n))
    grid = np.arange(size)
    from scipy.special import erf

    gy, gx = (
        np.diff(erf((np.append(grid, size)[None] - 0.5 - p[:, None]) / (np.sqrt(2) * PSF_SIGMA_PX)) / 2)
        for p in (true_y, true_x)
    )
    frames = rng.poisson(background + photons * gy[:, :, None] * gx[:, None, :]).astype(float)
    tables = []
    for image in (*split_exposure(frames, rng), frames):
        y, x, amplitude = centroid_fit(image)
        columns = {"frame": np.arange(n), "x": x, "y": y, "photons": amplitude, "background": np.ones(n)}
        tables.append(table(**columns, sigma_x=np.full(n, 0.1), sigma_y=np.full(n, 0.1)))
    found = compare_halves(*tables)
    whole = tables[2]
    for axis, truth in (("x", true_x), ("y", true_y)):
        error = np.std(whole[axis] - truth)
        assert getattr(found, f"sigma_{axis}_px") == pytest.approx(error, rel=0.05)
    assert found.repeatability > 0.99


def table(**columns):
    n = len(columns["x"])
    return Localizations(columns, MovieInfo(n, 11, 11, 100.0))


def halves(n=400, sigma_px=0.1, stated_px=0.1, lost=0.0, seed=0, spread=1.0):
    """Molecules of the whole and both halves with known precision, on a grid without neighbours."""
    rng = np.random.default_rng(seed)
    sigma = sigma_px * np.exp(rng.normal(0, np.log(spread), n) if spread > 1 else np.zeros(n))
    x, y = rng.uniform(2, 60, (2, n))
    photons = rng.uniform(500, 5000, n)
    tables = []
    for factor, light in ((np.sqrt(2), 0.5), (np.sqrt(2), 0.5), (1.0, 1.0)):
        kept = rng.uniform(size=n) >= (lost if factor > 1 else 0)
        stated = (stated_px / sigma_px * factor * sigma)[kept]
        columns = {
            "frame": np.arange(n)[kept],
            "x": (x + rng.normal(0, 1, n) * factor * sigma)[kept],
            "y": (y + rng.normal(0, 1, n) * factor * sigma)[kept],
            "photons": (photons * light)[kept],
            "background": np.ones(int(kept.sum())),
            "sigma_x": stated,
            "sigma_y": stated,
        }
        tables.append(Localizations(columns, MovieInfo(n, 64, 64, 100.0)))
    return tables


@pytest.mark.parametrize("overstated", [0.3, 1.0, 2.5])
def test_what_is_stated_does_not_change_what_is_measured(overstated):
    found = compare_halves(*halves(4000, sigma_px=0.08, stated_px=0.08 * overstated))
    for axis in "xy":
        assert getattr(found, f"sigma_{axis}_px") == pytest.approx(0.08, rel=0.04)
        assert getattr(found, f"stated_sigma_{axis}_px") == pytest.approx(0.08 * overstated, rel=0.02)
        assert getattr(found, f"pull_{axis}") == pytest.approx(1 / overstated, rel=0.04)


def test_molecules_of_different_precision():
    tables = halves(6000, sigma_px=0.06, stated_px=0.06, spread=1.6)
    found = compare_halves(*tables)
    expected = float(np.sqrt(np.mean(tables[2]["sigma_x"].astype(float) ** 2)))
    assert found.sigma_x_px == pytest.approx(expected, rel=0.05)
    assert found.pull_x == pytest.approx(1, rel=0.05)


def test_repeatability_counts_what_is_found_once():
    found = compare_halves(*halves(5000, lost=0.2))
    assert found.repeatability == pytest.approx(0.64 / (0.8 + 0.8 - 0.64), abs=0.02)
    assert found.n_pairs < min(found.n_first, found.n_second)
    for part in found.by_photons:
        assert part.repeatability == pytest.approx(2 / 3, abs=0.06)


def test_too_few_molecules_are_refused():
    with pytest.raises(TableError, match="at least 30"):
        compare_halves(*halves(20))


def test_plain_values_hold_nm_too():
    plain = compare_halves(*halves()).as_dict()
    assert plain["sigma_x_nm"] == pytest.approx(100 * plain["sigma_x_px"])
    json.dumps(plain, allow_nan=False)


# -- the whole thing on a movie ----------------------------------------------------------------------------


@pytest.fixture
def bright(monkeypatch):
    """Movies whose half-exposures are as bright as what the hand-made model was made for."""
    monkeypatch.setattr(hand_made_model, "PHOTONS", 2 * hand_made_model.PHOTONS)
    monkeypatch.setattr(hand_made_model, "BACKGROUND", 2 * hand_made_model.BACKGROUND)

    def movie(n_frames, **options):
        return make_movie(n_frames, size=(40, 40), per_frame=4, **options)

    return movie


def test_on_a_movie(model, bright):
    movie = bright(150, seed=5)[0]
    progress = []
    found = repeatability(
        movie, model=model, **CAMERA, pixel_size_nm=100, threshold=0.5, on_progress=lambda *p: progress.append(p)
    )
    assert found.n_frames == 150
    assert found.n_pairs > 100
    assert progress[-1] == (150, 150)
    # The hand-made network does not get more precise with more light, so the figure itself is only plausible.
    assert 0.01 < found.sigma_x_px < 0.08
    assert 0.01 < found.sigma_y_px < 0.08
    again = repeatability(movie, model=model, **CAMERA, pixel_size_nm=100, threshold=0.5)
    assert again.as_dict() == found.as_dict()
    assert "repeatability" in found.table()


@pytest.mark.slow
@pytest.mark.parametrize("photons", [1000, 2500, 6000])
def test_shipped_model_against_a_second_exposure(photons):
    """What noise does to positions, from two exposures of the same molecules; errors both share are in neither."""
    import smlm_pb
    from smlm_pb.evaluation import match

    rng = np.random.default_rng(1)
    expected = []
    for _ in range(200):
        xs, ys = hand_made_model._apart(rng, 4, 40, 40)
        spots = hand_made_model.render_separable(xs, ys, np.full(4, float(photons)), PSF_SIGMA_PX, (40, 40))
        expected.append(photons / 100 + spots)
    options = {"camera": Camera(100.0, 0.5, read_noise_e=0.0), "pixel_size_nm": 100, "psf_sigma_px": PSF_SIGMA_PX}
    one, two = (np.rint(rng.poisson(expected) / 0.5 + 100).astype(np.uint16) for _ in range(2))
    found = repeatability(one, **options)
    first, second = (smlm_pb.localize(movie, **options) for movie in (one, two))
    pairs = match(first, second, 60)
    for axis in "xy":
        difference = first[axis][pairs.pred].astype(float) - second[axis][pairs.truth]
        assert getattr(found, f"sigma_{axis}_px") == pytest.approx(np.std(difference) / np.sqrt(2), rel=0.1)


def test_at_most_so_many_frames(model, bright):
    found = repeatability(bright(60)[0], model=model, **CAMERA, threshold=0.3, max_frames=40)
    assert found.n_frames == 40
    assert found.pixel_size_nm is None
    assert "px" in found.table()


def test_impossible_wishes(model):
    movie = make_movie(4)[0]
    with pytest.raises(ConfigurationError, match="max_frames"):
        repeatability(movie, model=model, **CAMERA, max_frames=0)
    with pytest.raises(ConfigurationError, match="pixel size"):
        repeatability(movie, model=model, **CAMERA, tolerance_nm=50)
    with pytest.raises(Cancelled):
        repeatability(movie, model=model, **CAMERA, should_stop=lambda: True)


def test_command(tmp_path, model, bright, monkeypatch, capsys):
    import tifffile

    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("beads.tif", bright(40)[0], photometric="minisblack", metadata={"axes": "TYX"})
    command = ["repeatability", "beads.tif", "--model", model, "--offset-adu", "100", "--e-per-adu", "0.5"]
    command += ["--psf-sigma-px", "1.1", "--pixel-size-nm", "100", "--threshold", "0.3", "--quiet"]
    assert cli.main([*command, "--json", "--figure", "splitting.svg", "--tolerance-nm", "80"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["n_frames"] == 40
    assert 0 < report["repeatability"] <= 1
    assert "<svg" in (tmp_path / "splitting.svg").read_text()
    assert cli.main([*command, "--figure", "splitting.svg"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(command) == 0
    assert "precision x" in capsys.readouterr().out
