"""A measured PSF in the simulator: rendered where the light's centre is, refused where it is no PSF."""

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb.errors import ConfigurationError
from smlm_pb.simulation import Recipe, SceneSettings, draw_scene, simulate
from smlm_pb.simulation.aberrations import PupilPsf
from smlm_pb.simulation.files import simulate_to_file
from smlm_pb.simulation.rendering import pixel_integrals, render_separable
from smlm_pb.simulation.sampled_psf import SampledPsf, read_psf, write_psf

MOVIE = {
    "frames": 12,
    "height": 24,
    "width": 24,
    "molecules": {"per_frame": 1, "photons": 1e6, "photon_distribution": "constant"},
    "background": {"photons_per_px": 0},
    "camera": {"offset_adu": 0, "e_per_adu": 100, "read_noise_e": 0},
}


def gaussian(sigma_x, sigma_y, per_px, radius_px=7, shift=(0.0, 0.0)):
    """Samples of a pixel-integrated Gaussian, ``per_px`` to a pixel."""
    axis = np.arange(-radius_px * per_px, radius_px * per_px + 1) / per_px
    x, y = (
        np.array([pixel_integrals([s - u], [w], 1)[0, 0] for u in axis])
        for w, s in ((sigma_x, shift[0]), (sigma_y, shift[1]))
    )
    return np.outer(y, x)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(10, 14), y=st.floats(10, 14), light=st.floats(1, 1e5), per_px=st.sampled_from([2, 3, 4]))
def test_samples_of_a_gaussian_render_as_the_gaussian(x, y, light, per_px):
    psf = SampledPsf(gaussian(1.2, 1.2, per_px), per_px)
    image = psf.render(np.array([x]), np.array([y]), np.array([light]), (24, 24))
    expected = render_separable([x], [y], [light], [1.2], (24, 24))
    assert np.abs(image - expected).max() < 2e-3 * expected.max()


def test_a_molecule_is_where_the_centre_of_its_light_is():
    off_centre = SampledPsf(gaussian(1.2, 1.2, 2, shift=(0.8, -0.6)), 2)
    centred = SampledPsf(gaussian(1.2, 1.2, 2), 2)
    at = (np.array([11.3]), np.array([12.1]), np.array([1.0]), (24, 24))
    assert np.abs(off_centre.render(*at) - centred.render(*at)).max() < 1e-3


def test_widths_are_those_of_the_gaussian():
    assert SampledPsf(gaussian(1.1, 1.7, 2), 2).gaussian_widths() == pytest.approx((1.1, 1.7), abs=0.01)


def test_file_keeps_its_samples_per_pixel_and_scale_does_not_matter(tmp_path):
    samples = gaussian(1.0, 1.4, 3)
    write_psf(tmp_path / "psf.tif", samples, 3)
    np.save(tmp_path / "psf.npy", 70 * samples)
    told, given_ = read_psf(tmp_path / "psf.tif"), read_psf(tmp_path / "psf.npy", samples_per_px=3)
    assert told.samples_per_px == 3
    assert told.samples.sum() / 9 == pytest.approx(1)
    np.testing.assert_allclose(told.samples, given_.samples, atol=1e-6)
    write_psf(tmp_path / "psf.tif", gaussian(1.5, 1.5, 2), 2)
    assert read_psf(tmp_path / "psf.tif").samples_per_px == 2, "the file has changed and was not read again"


def test_recipe_with_a_measured_psf(tmp_path):
    write_psf(tmp_path / "bead.tif", gaussian(1.0, 2.0, 2), 2)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**MOVIE, "psf": {"file": "bead.tif"}}), encoding="utf-8")
    movie, truth = simulate(tmp_path / "r.yaml", seed=2)
    assert truth["psf_sigma_x"] == pytest.approx(1.0, abs=0.01)
    assert truth["psf_sigma_y"] == pytest.approx(2.0, abs=0.01)
    inner = (abs(truth["x"] - 12) < 5) & (abs(truth["y"] - 12) < 5)
    assert inner.any()
    grid = np.arange(24)
    for frame in truth["frame"][inner]:
        light = movie[frame].astype(float)
        here = truth["frame"] == frame
        assert light.sum(0) @ grid / light.sum() == pytest.approx(truth["x"][here][0], abs=0.05)
        assert light.sum(1) @ grid / light.sum() == pytest.approx(truth["y"][here][0], abs=0.05)


def test_copy_of_the_recipe_still_finds_its_psf(tmp_path):
    write_psf(tmp_path / "bead.tif", gaussian(1.0, 1.0, 1), 1)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**MOVIE, "psf": {"file": "bead.tif"}}), encoding="utf-8")
    simulate_to_file(tmp_path / "r.yaml", tmp_path / "out")
    again, _ = simulate(tmp_path / "out" / "r.yaml")
    np.testing.assert_array_equal(again, tifffile.imread(tmp_path / "out" / "r.tif"))


def test_training_scenes_with_a_measured_psf(tmp_path):
    write_psf(tmp_path / "psf.tif", PupilPsf({"astigmatism": 60, "defocus": 60}).samples, 5)
    common = {"sparse_fraction": 0, "empty_fraction": 0, "dense_density_per_px2": (0.02, 0.02), "background_e": (0, 0)}
    common |= {"em_fraction": 0, "gain_error": 0}
    measured = SceneSettings(**common, psf_file=str(tmp_path / "psf.tif"))
    ours, theirs = (draw_scene(np.random.default_rng(3), s, 32) for s in (measured, SceneSettings(**common)))
    np.testing.assert_array_equal(ours.x, theirs.x)
    assert not np.allclose(ours.electrons, theirs.electrons)
    assert ours.electrons.sum() == pytest.approx(theirs.electrons.sum(), rel=0.2)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.ones((3, 9)), "3 × 9 samples.* 5 to 2049"),
        (np.zeros((9, 9)), "holds no light"),
        (np.ones((9, 9)), "at its border are still 100 % of the peak: subtract the background"),
        (np.full((9, 9), np.nan), "no numbers"),
        (gaussian(1, 1, 1) - 0.004, "reaches down to -3 %.*not negative"),
        (np.ones((2, 9, 9)), r"shape \(2, 9, 9\): give one picture"),
    ],
)
def test_what_is_no_psf_is_refused(tmp_path, samples, message):
    np.save(tmp_path / "psf.npy", samples)
    with pytest.raises(ConfigurationError, match=message):
        read_psf(tmp_path / "psf.npy")


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no\.tif cannot be read .*check the path"):
        read_psf(tmp_path / "no.tif")
    (tmp_path / "text.tif").write_text("no picture", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="give a TIFF or"):
        read_psf(tmp_path / "text.tif")


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        ({"file": "a.tif", "sigma_px": 2.0}, "leave out sigma_px and spread"),
        ({"file": "a.tif", "spread": 0.1}, "leave out sigma_px and spread"),
        ({"samples_per_px": 2}, "samples_per_px goes with file"),
    ],
)
def test_contradicting_psf_in_a_recipe(psf, message):
    with pytest.raises(ConfigurationError, match=message):
        Recipe.from_dict({**MOVIE, "psf": psf})
