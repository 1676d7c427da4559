"""The digital twin: like the movie, and its errors are those that the truth shows."""

import json

import numpy as np
import pytest
from hand_made_model import BACKGROUND, PHOTONS, PSF_SIGMA_PX, make_model, make_movie

from smlm_pb import Camera, Localizations, MovieInfo, localize
from smlm_pb.analysis.linking import link
from smlm_pb.analysis.twin import digital_twin
from smlm_pb.analysis.twin_movie import TwinSource, background_map
from smlm_pb.cli import main as cli
from smlm_pb.errors import Cancelled, ConfigurationError, TableError
from smlm_pb.evaluation import error_budget
from smlm_pb.simulation import simulate

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": PSF_SIGMA_PX, "pixel_size_nm": 100.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("models") / "hand-made"))


@pytest.fixture(scope="module")
def sparse(model):
    return with_light(localize(make_movie(30, (40, 48), per_frame=3)[0], model=model, threshold=0.5, **CAMERA))


def with_light(locs):
    """The hand-made model knows nothing of photons; all molecules are equally bright."""
    return locs.with_columns(photons=PHOTONS, background=BACKGROUND)


def crowded_movie(density):
    return simulate(
        {
            "frames": 24,
            "height": 40,
            "width": 48,
            "psf": {"sigma_px": PSF_SIGMA_PX},
            "molecules": {"density_per_um2": density, "photons": PHOTONS, "photon_distribution": "constant"},
            "background": {"photons_per_px": BACKGROUND},
            "camera": {"offset_adu": 100.0, "e_per_adu": 0.5},
        },
        seed=3,
    )


def some_table(n=400, **columns):
    rng = np.random.default_rng(0)
    base = {
        "frame": np.sort(rng.integers(0, 40, n)),
        "x": rng.uniform(0, 40, n),
        "y": rng.uniform(0, 30, n),
        "photons": rng.gamma(9, 100, n),
        "background": np.full(n, 12.0),
    }
    return Localizations({**base, **columns}, MovieInfo(40, 32, 44, 100.0))


# -- the movie ---------------------------------------------------------------------------------------------


def test_the_twin_has_the_light_of_the_table():
    locs = some_table()
    source = TwinSource.of(locs, (0, 40), Camera(100.0, 0.5), 1.2)
    movie, truth = source.simulate(80, 1.5, np.random.default_rng(1))
    assert movie.shape == (80, 32, 44)
    assert len(truth["x"]) == pytest.approx(1.5 * 2 * len(locs), rel=0.03)
    assert truth["photons"].mean() == pytest.approx(locs["photons"].mean(), rel=0.05)
    light = Camera(100.0, 0.5).to_electrons(movie).mean()
    expected = 12.0 + truth["photons"].sum() / movie.size
    assert light == pytest.approx(expected, rel=0.03)  # a little is lost beyond the border
    assert truth["x"].min() >= -0.5
    assert truth["x"].max() < 43.5


def test_bleaching_and_places_are_those_of_the_table():
    rng = np.random.default_rng(0)
    frame = np.minimum(rng.exponential(10, 400).astype(int), 39)
    locs = some_table(frame=np.sort(frame), x=rng.normal(10, 2, 400).clip(0, 40))
    source = TwinSource.of(locs, (0, 40), Camera(), 1.2)
    _, truth = source.simulate(40, 1.0, np.random.default_rng(1))
    first, last = (np.count_nonzero((truth["frame"] >= a) & (truth["frame"] < b)) for a, b in ((0, 10), (20, 30)))
    assert first > 3 * last
    assert truth["x"].mean() == pytest.approx(10, abs=0.5)
    assert np.std(truth["x"]) == pytest.approx(2, rel=0.15)


def test_a_movie_that_nobody_recorded_is_refused():
    with pytest.raises(TableError, match="has 1000000000 frames, but its last molecule lies in frame"):
        TwinSource.of(some_table(), (0, 10**9), Camera(), 1.2)


def test_background_map_follows_a_slope():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 63, 4000), rng.uniform(0, 63, 4000)
    columns = {"frame": np.zeros(4000, int), "x": x, "y": y, "background": 10 + x / 3 + rng.normal(0, 2, 4000)}
    found = background_map(Localizations(columns, MovieInfo(1, 64, 64, 100.0)))
    assert found[:, 16:48].mean(axis=0) == pytest.approx(10 + np.arange(16, 48) / 3, rel=0.1)


# -- the errors --------------------------------------------------------------------------------------------


def test_a_sparse_movie_and_its_twin_are_alike(sparse, model):
    twin = digital_twin(sparse, model=model, n_frames=40)
    ours, other = twin.likeness["per_frame"]
    assert other == pytest.approx(ours, rel=0.15)
    assert any(
        "photons" in note and "not quite like" in note for note in twin.notes
    )  # of which the model knows nothing
    assert twin.settings["threshold"] == 0.5  # as for the table
    assert twin.settings["camera"]["e_per_adu"] == 0.5
    assert twin.truth.provenance[-1]["step"] == "twin"
    assert twin.movie.shape == (40, 40, 48)


def test_errors_of_the_twin_are_those_that_the_truth_shows():
    movie, truth = crowded_movie(2.5)
    found = localize(movie, model="default", **CAMERA)  # only a network that knows photons makes a twin
    budget = error_budget(found, truth, tolerance_nm=50)
    twin = digital_twin(found, n_frames=24)
    assert twin.settings["model"] == "default"
    assert twin.budget.jaccard == pytest.approx(budget.jaccard, abs=0.08)
    assert len(twin.truth) / 24 == pytest.approx(len(truth) / 24, rel=0.15)
    for kind in ("merged", "missed", "false"):
        assert twin.budget.delta_jaccard[kind] == pytest.approx(budget.delta_jaccard[kind], abs=0.04)
    assert twin.advice().endswith(".")
    assert twin.notes == ()


def test_the_same_seed_gives_the_same_twin(sparse, model):
    first, second, other = (digital_twin(sparse, model=model, n_frames=6, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.movie, second.movie)
    assert not np.array_equal(first.movie, other.movie)


def test_what_the_table_does_not_tell_is_said(model):
    twin = digital_twin(some_table(), model=model, psf_sigma_px=PSF_SIGMA_PX, n_frames=4)
    assert any("does not tell its camera" in note for note in twin.notes)


def test_what_cannot_be_done_is_said(sparse, model):
    with pytest.raises(TableError, match="linked"):
        digital_twin(link(sparse), model=model)
    with pytest.raises(TableError, match="background"):
        digital_twin(some_table().without_columns("background"), model=model, psf_sigma_px=1.1)
    with pytest.raises(TableError, match="width of the point-spread function"):
        digital_twin(some_table(), model=model)
    with pytest.raises(TableError, match="at least 50"):
        digital_twin(some_table(20), model=model, psf_sigma_px=1.1)
    with pytest.raises(ConfigurationError, match="n_frames"):
        digital_twin(sparse, model=model, n_frames=0)
    with pytest.raises(Cancelled):
        digital_twin(sparse, model=model, n_frames=4, should_stop=lambda: True)


def test_the_command(sparse, model, tmp_path, capsys):
    sparse.save(tmp_path / "locs.hdf5")
    command = ["twin", str(tmp_path / "locs.hdf5"), "--model", model, "--n-frames", "10"]
    assert cli.main([*command, "--json", "--figure", str(tmp_path / "errors.png")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["settings"]["psf_sigma_px"] == PSF_SIGMA_PX
    assert set(report["likeness"]) == {"per_frame", "photons", "background", "sigma_px"}
    assert report["advice"]
    assert (tmp_path / "errors.png").stat().st_size > 1000
    assert cli.main(command) == 0
    assert "its twin" in capsys.readouterr().out
