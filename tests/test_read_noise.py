"""Cameras with much read noise: told, measured, and shown to the network as background."""

import re
import warnings

import numpy as np
import pytest

from smlm_pb import Camera, localize
from smlm_pb.cli.main import main
from smlm_pb.evaluation import evaluate
from smlm_pb.formats import read_table
from smlm_pb.localization import load_model
from smlm_pb.localization.camera_estimate import judge_camera
from smlm_pb.localization.candidate_finder import CandidateFinder
from smlm_pb.localization.noise_floor import noise_floor
from smlm_pb.localization.pipeline import Plan
from smlm_pb.simulation.corrupted_movie import simulate_corrupted
from smlm_pb.simulation.corruptions import CORRUPTIONS

SIGMA_PX = 1.3
READ_NOISE = next(c for c in CORRUPTIONS if c.name == "read_noise")
CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5}


@pytest.fixture(scope="module")
def model():
    return load_model("fast", "cpu")


@pytest.fixture(scope="module")
def noisy():
    """Molecules of 1000 e⁻ over 10 e⁻ per pixel, read noise 12 e⁻."""
    return simulate_corrupted(READ_NOISE.experiment(5), frames=8, size_px=64, seed=3)


def localized(movie, **options):
    """What was found, and what the user was told."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        found = localize(movie, **{"pixel_size_nm": 100, "psf_sigma_px": SIGMA_PX, **options})
    return found, [str(one.message) for one in told]


def jaccard(found, truth):
    return evaluate(found, truth, tolerance_nm=100, chance=False, check=False).at(100).jaccard


@pytest.mark.parametrize(
    ("camera", "floor"),
    [
        (Camera(read_noise_e=5), 0.0),
        (Camera(read_noise_e=13), 144.0),
        (Camera(e_per_adu=60, read_noise_e=0), 275.0),  # the converter's steps: 60² / 12
        (Camera(em_gain=100, read_noise_e=1300), 169 / 4 - 25),
        (Camera(em_gain=300, read_noise_e=60), 0.0),
        (Camera(read_noise_e=np.array([[13.0, 13.0], [13.0, 90.0]])), 144.0),
    ],
)
def test_what_a_network_does_not_know_is_added(camera, floor):
    assert noise_floor(camera, 5.0) == pytest.approx(floor, abs=0.1)


def test_read_noise_that_is_told_is_no_molecules(model, noisy):
    movie, truth = noisy
    found, said = localized(movie, model=model, read_noise_e=12, **CAMERA)
    assert said == []
    assert jaccard(found, truth) > 0.9
    assert np.median(found["background"]) == pytest.approx(10, abs=12), "119 e⁻ are added and taken off again"
    assert np.median(found["photons"]) == pytest.approx(1000, rel=0.08)
    conditions = found.provenance[-1]["conditions"]
    assert conditions["camera"]["read_noise_e"] == 12
    assert conditions["origin"]["read_noise_e"] == "given"


def test_read_noise_that_nobody_told_is_measured_and_said(model, noisy):
    movie, truth = noisy
    found, (said,) = localized(movie, model=model, **CAMERA)
    assert re.search("read_noise_e near 12 would.*counts as a read noise of 12 e⁻", said)
    assert jaccard(found, truth) > 0.9
    conditions = found.provenance[-1]["conditions"]
    assert conditions["camera"]["read_noise_e"] == pytest.approx(12, rel=0.05)
    assert conditions["origin"]["read_noise_e"] == "estimated"


def test_the_word_of_the_user_holds(model, noisy):
    found, said = localized(noisy[0], model=model, read_noise_e=1.6, **CAMERA)
    assert found.provenance[-1]["conditions"]["camera"]["read_noise_e"] == 1.6
    assert any("the noise does not fit" in one for one in said)
    assert not any("Until then" in one for one in said)


def test_a_map_of_the_read_noise_is_kept(model, noisy):
    camera = Camera(**CAMERA, read_noise_e=np.full((64, 64), 12.0))
    found, said = localized(noisy[0], model=model, camera=camera)
    assert said == []
    assert jaccard(found, noisy[1]) > 0.9


def test_too_much_noise_for_a_model_is_warned_of(model, noisy):
    _, said = localized(noisy[0], model=model, read_noise_e=29, **CAMERA)
    assert any(
        re.search("its read noise, which counts as 8.* more, are beyond the 500 e⁻ of model", one) for one in said
    )


def test_places_and_whole_frames_give_the_same(model, noisy):
    """Also at the edges of a frame, beyond which there is no light and no floor."""
    camera = Camera(**CAMERA, read_noise_e=12)
    electrons = camera.to_electrons(noisy[0])
    options = {
        "psf_sigma_px": SIGMA_PX,
        "floor": 0.05,
        "plan": Plan(8, 4, 64),
        "camera": camera,
        "least_significance": 6.0,
    }
    places, whole = (CandidateFinder(model, **options, pass_over_dark=dark)(electrons).rows for dark in (True, False))
    assert len(places) == len(whole) > 20
    for name in ("x", "y", "probability", "background"):
        assert places[name] == pytest.approx(whole[name], rel=1e-3, abs=1e-3)


def test_what_would_fit_is_told_by_where_the_noise_comes_from(noisy):
    (said,), read_noise_e = judge_camera(noisy[0], Camera(**CAMERA), psf_sigma_px=SIGMA_PX)
    assert read_noise_e == pytest.approx(12, rel=0.05)
    assert "offset_adu near" not in said, "no camera has an offset below zero"
    assert judge_camera(noisy[0], Camera(**CAMERA, read_noise_e=12))[1] is None
    # Too little noise is no read noise.
    told, nothing = judge_camera(noisy[0], Camera(**CAMERA, read_noise_e=40))
    assert told
    assert nothing is None


def test_the_command_takes_it(noisy, tmp_path, capsys):
    import tifffile

    tifffile.imwrite(tmp_path / "ccd.tif", noisy[0], photometric="minisblack")
    told = {**CAMERA, "psf_sigma_px": SIGMA_PX, "pixel_size_nm": 100}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in told.items()]
    command = ["localize", str(tmp_path / "ccd.tif"), "--out", str(tmp_path), "--model", "fast", *options]
    assert main([*command, "--read-noise-e", "12"]) == 0
    assert "read noise 12 e⁻ (given)" in capsys.readouterr().err
    table = read_table(tmp_path / "ccd_locs.hdf5")
    assert table.provenance[-1]["conditions"]["camera"]["read_noise_e"] == 12
    assert main([*command, "--overwrite", "--read-noise-e", "-1"]) == 2
    assert "--read-noise-e" in capsys.readouterr().err
