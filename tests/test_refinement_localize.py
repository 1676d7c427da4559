"""Refinement as the last stage of a run: in memory, on disk, after an interruption, at the command line."""

import warnings

import numpy as np
import pytest
from hand_made_model import BACKGROUND, PSF_SIGMA_PX, make_model, make_movie

import smlm_pb
from smlm_pb.cli.main import main
from smlm_pb.errors import Cancelled, ConfigurationError
from smlm_pb.evaluation import match
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.refinement import ADDED_COLUMNS

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "pixel_size_nm": 100.0, "threshold": 0.5}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return smlm_pb.load_model(make_model(tmp_path_factory.mktemp("model") / "hand-made"), "cpu")


@pytest.fixture(scope="module")
def scene():
    movie, frame, x, y = make_movie(60, (32, 40))
    truth = Localizations({"frame": frame, "x": x, "y": y}, MovieInfo(60, 32, 40, 100.0))
    return movie, truth


def error_nm(locs, truth):
    return float(np.sqrt(np.mean(match(locs, truth, 100.0).distance_nm ** 2)))


def test_a_refined_run_is_more_precise_and_says_what_it_did(model, scene):
    movie, truth = scene
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        plain = smlm_pb.localize(movie, model=model, psf_sigma_px=PSF_SIGMA_PX, **CAMERA)
        refined = smlm_pb.localize(movie, model=model, psf_sigma_px=PSF_SIGMA_PX, refine="on", **CAMERA)
    assert not set(ADDED_COLUMNS) & set(plain.column_names)
    assert plain.provenance[-1]["refinement"] == {"mode": "off"}
    assert set(ADDED_COLUMNS) <= set(refined.column_names)
    assert len(refined) == len(plain)
    assert error_nm(refined, truth) < 0.7 * error_nm(plain, truth)
    assert np.median(refined.background) == pytest.approx(BACKGROUND, rel=0.1)
    told = refined.provenance[-1]["refinement"]
    assert told["refined"] == (refined["refinement"] == 1).sum() > 0.9 * len(refined)
    assert told["psf_sigma_px"] == PSF_SIGMA_PX


def test_an_estimated_width_is_replaced_by_the_fitted_one(model, scene, monkeypatch):
    from smlm_pb.localization import estimate

    real = estimate.estimate_psf_sigma

    def wrong(movie, *args, **kwargs):
        return real(movie, *args, **kwargs)._replace(sigma_px=1.2, warnings=())

    monkeypatch.setattr(estimate, "estimate_psf_sigma", wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        refined = smlm_pb.localize(scene[0], model=model, refine="auto", **CAMERA)
    assert refined.provenance[-1]["conditions"]["psf_sigma_px"] == 1.2
    assert refined.provenance[-1]["refinement"]["psf_sigma_px"] == pytest.approx(PSF_SIGMA_PX, abs=0.02)


def test_the_file_holds_the_same_as_the_table_also_after_an_interruption(model, scene, tmp_path):
    movie, _ = scene
    options = {"model": model, "psf_sigma_px": PSF_SIGMA_PX, "refine": "auto", **CAMERA}
    np.save(tmp_path / "movie.npy", movie)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table = smlm_pb.localize(tmp_path / "movie.npy", **options)
        with pytest.raises(Cancelled):
            smlm_pb.localize_to_file(tmp_path / "movie.npy", tmp_path, should_stop=lambda: True, **options)
        with pytest.raises(ConfigurationError, match="refine is 'auto' there and 'off' here"):
            smlm_pb.localize_to_file(tmp_path / "movie.npy", tmp_path, resume=True, **{**options, "refine": "off"})
        path = smlm_pb.localize_to_file(tmp_path / "movie.npy", tmp_path, resume=True, **options)
    written = Localizations.load(path)
    assert written.provenance[-1]["refinement"] == table.provenance[-1]["refinement"]
    for name in table.column_names:
        np.testing.assert_allclose(written[name], table[name], rtol=1e-5, atol=1e-6)


def test_a_movie_without_molecules_gives_an_empty_refined_table(model):
    blank = np.random.default_rng(1).poisson(BACKGROUND, (4, 24, 24)) * 2 + 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        refined = smlm_pb.localize(blank.astype(np.uint16), model=model, psf_sigma_px=1.1, refine="auto", **CAMERA)
    assert len(refined) == 0
    assert set(ADDED_COLUMNS) <= set(refined.column_names)


def test_an_unknown_mode_is_refused_before_any_work(model, scene):
    with pytest.raises(ConfigurationError, match="auto, on, off"):
        smlm_pb.localize(scene[0], model=model, refine="sometimes", **CAMERA)


def test_the_command_line(scene, tmp_path, capsys):
    np.save(tmp_path / "movie.npy", scene[0])
    folder = make_model(tmp_path / "model")
    options = ["--offset-adu", "100", "--e-per-adu", "0.5", "--psf-sigma-px", "1.1", "--threshold", "0.5"]
    arguments = ["localize", str(tmp_path / "movie.npy"), "--out", str(tmp_path), "--model", str(folder)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert main([*arguments, *options, "--device", "cpu", "--refine", "auto"]) == 0
    table = Localizations.load(tmp_path / "movie_locs.hdf5")
    assert (table["refinement"] == 1).any()
    assert main([*arguments, "--refine", "perhaps"]) == 2
    assert "--refine" in capsys.readouterr().err
