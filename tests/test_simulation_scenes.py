"""Training scenes: seeds, ranges, window, noise, structure, and the settings' faults."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from smlm_pb.errors import ConfigurationError
from smlm_pb.simulation import SceneSettings, draw_scene
from smlm_pb.simulation.photon_laws import draw_in_neighbouring_frames, molecules_per_frame_molecule
from smlm_pb.simulation.scenes import STRUCTURES, draw_on_overlap
from smlm_pb.training.experiment import ValidationSettings
from smlm_pb.training.validation import validation_scenes


def scenes(n, settings=None, size_px=32, first_seed=0):
    settings = settings or SceneSettings()
    return [draw_scene(np.random.default_rng(first_seed + i), settings, size_px) for i in range(n)]


def dense(structure="uniform", **changes):
    return SceneSettings(
        empty_fraction=0,
        sparse_fraction=0,
        dense_structures={structure: 1},
        dense_density_per_px2=(0.05, 0.05),
        **changes,
    )


def test_same_seed_same_scene_and_other_seed_another():
    settings = SceneSettings()
    first, second = (draw_scene(np.random.default_rng(3), settings, 40) for _ in range(2))
    other = draw_scene(np.random.default_rng(4), settings, 40)
    for one, two in zip(dataclasses.astuple(first), dataclasses.astuple(second), strict=True):
        assert np.array_equal(one, two)
    assert not np.array_equal(first.electrons, other.electrons)


@pytest.mark.parametrize("size_px", [32, (24, 40), 1])
def test_shapes_types_and_window(size_px):
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    for scene in scenes(60, size_px=size_px):
        assert scene.electrons.shape == scene.background.shape == (height, width)
        for array in (scene.electrons, scene.background, scene.x, scene.y, scene.photons):
            assert array.dtype == np.float32
            assert np.all(np.isfinite(array))
        assert scene.x.shape == scene.y.shape == scene.photons.shape
        assert np.all((scene.x >= -0.5) & (scene.x < width - 0.5))
        assert np.all((scene.y >= -0.5) & (scene.y < height - 0.5))


def test_draws_fill_the_ranges_that_were_set():
    settings = SceneSettings(em_fraction=0, gain_error=0)
    drawn = scenes(600, settings, size_px=16)
    sigma = np.array([s.psf_sigma_px for s in drawn])
    background = np.array([s.background.max() for s in drawn])
    read_noise = np.array([s.read_noise_e for s in drawn])
    assert sigma.min() >= 0.8
    assert sigma.max() <= 1.6
    assert sigma.mean() == pytest.approx(1.2, abs=0.05)
    assert background.max() <= 200
    assert background.max() > 150
    assert np.mean(background < 1) == pytest.approx(0.12, abs=0.06)
    assert read_noise.min() >= 0.3
    assert read_noise.max() <= 3.0
    names = {s.structure for s in drawn}
    assert names == {"empty", *STRUCTURES}
    empty = np.mean([s.structure == "empty" for s in drawn])
    assert empty == pytest.approx(0.03, abs=0.02)


@pytest.mark.parametrize("em_fraction", [0.0, 1.0])
def test_variance_equals_mean_for_every_camera(em_fraction):
    settings = SceneSettings(empty_fraction=1, sparse_fraction=0, em_fraction=em_fraction, gain_error=0)
    residuals = [
        (s.electrons - s.background) / np.sqrt(s.background + s.read_noise_e**2) for s in scenes(150, settings)
    ]
    assert np.mean(residuals) == pytest.approx(0, abs=0.01)
    assert np.std(residuals) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("em_fraction", [0.0, 1.0])
def test_photons_and_background_are_on_the_scale_of_the_image(em_fraction):
    """Molecules anywhere, in and out of the frame: the light that enters equals the light that leaves."""
    settings = dense(em_fraction=em_fraction, min_photons=0)
    drawn = scenes(60, settings, size_px=48)
    signal = sum(float((s.electrons - s.background).sum()) for s in drawn)
    assert signal / sum(float(s.photons.sum()) for s in drawn) == pytest.approx(1, abs=0.03)


def test_gain_error_scales_image_and_truth_alike():
    right, wrong = (
        draw_scene(np.random.default_rng(2), dense(em_fraction=0, gain_error=g, background_e=(9, 9)), 32)
        for g in (0.0, 0.2)
    )
    scale = wrong.background[0, 0] / right.background[0, 0]
    assert scale != pytest.approx(1, abs=1e-3)
    assert abs(scale - 1) <= 0.2
    assert wrong.electrons / right.electrons == pytest.approx(np.full((32, 32), scale), rel=1e-4)


def test_dim_molecules_stay_in_the_image_but_not_in_the_truth():
    bright, all_of_them = (
        draw_scene(
            np.random.default_rng(8), dense(min_photons=m, photons=(200, 200), photon_spreads={"exponential": 1}), 48
        )
        for m in (150.0, 0.0)
    )
    assert np.array_equal(bright.electrons, all_of_them.electrons)
    assert 0 < bright.x.size < all_of_them.x.size
    assert bright.photons.min() >= 150


def test_light_of_molecules_outside_enters_the_frame():
    settings = dense(background_e=(0, 0), em_fraction=0, photons=(10_000, 10_000), partial_on_fraction=0)
    with_margin, without = (
        np.mean([s.electrons for s in scenes(120, dataclasses.replace(settings, margin_px=m))], axis=0) for m in (8, 0)
    )
    inner = slice(8, -8)
    edge = [
        np.mean([image[0].mean(), image[:, 0].mean()]) / image[inner, inner].mean() for image in (with_margin, without)
    ]
    assert edge[0] == pytest.approx(1, abs=0.2)
    assert edge[1] < 0.75


@pytest.mark.parametrize("structure", STRUCTURES)
def test_density_is_met_or_capped(structure):
    counts = np.array([s.x.size for s in scenes(60, dense(structure, min_photons=0), size_px=48)])
    wanted = 0.05 * 48 * 48
    if structure == "uniform":
        assert counts.mean() == pytest.approx(wanted, rel=0.06)
    assert 0.4 * wanted < counts.mean() < 1.4 * wanted


def test_structures_make_molecules_share_pixels():
    def sharing(structure):
        shares = []
        for scene in scenes(30, dense(structure, min_photons=0), size_px=48):
            pixel = np.rint(scene.y).astype(int) * 48 + np.rint(scene.x).astype(int)
            _, inverse, count = np.unique(pixel, return_inverse=True, return_counts=True)
            shares.append(np.mean(count[inverse] > 1))
        return np.mean(shares)

    assert sharing("uniform") < 0.1
    assert sharing("filaments") > 0.2


def test_overlap_of_on_time_and_frame():
    rng = np.random.default_rng(0)
    for mean_on in (0.2, 1.0, 5.0):
        overlap = draw_on_overlap(rng, mean_on, 200_000)
        assert overlap.min() > 0
        assert overlap.max() <= 1
        # Rate r of switching on: on average r·mean are on at any moment, r·(1 + mean) are seen per frame.
        assert overlap.mean() == pytest.approx(mean_on / (1 + mean_on), rel=0.01)


def test_settings_survive_json():
    settings = SceneSettings(psf_sigma_px=(1.0, 1.2), dense_structures={"rings": 2})
    assert SceneSettings(**json.loads(json.dumps(settings.as_dict()))) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"psf_sigma_px": (1.6, 0.8)}, "psf_sigma_px = .* low ≤ high"),
        ({"photons": 1000}, r"photons = 1000 must be two numbers"),
        ({"photons": (0, 10)}, "photons"),
        ({"background_e": (0, np.inf)}, "background_e"),
        ({"em_fraction": 1.5}, r"em_fraction = 1.5 must lie in \[0, 1\]"),
        ({"empty_fraction": 0.7, "sparse_fraction": 0.7}, "must not exceed 1"),
        ({"dense_structures": {"squares": 1}}, "names 'squares'; known are uniform"),
        ({"photon_spreads": {"constant": -1}}, "weights ≥ 0"),
        ({"sparse_structures": ["uniform"]}, "must map names to weights"),
        ({"margin_px": -3}, "margin_px = -3 must be ≥ 0"),
    ],
)
def test_impossible_settings_are_named(values, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        SceneSettings(**values)
    assert "\n" not in str(error.value)


def test_neighbouring_frames_hold_what_blinks_and_the_same_number_of_molecules():
    """Molecules that stay on are seen thrice; those that are on for one frame only in one of them."""
    on = SceneSettings(
        context_frames=1, partial_on_fraction=1.0, empty_fraction=0.0, sparse_fraction=0.0, background_e=(0, 0)
    )
    single = SceneSettings(context_frames=0, partial_on_fraction=1.0, empty_fraction=0.0, sparse_fraction=0.0)
    counts, alone = [], []
    for k in range(60):
        scene = draw_scene(np.random.default_rng(k), on, 32)
        assert scene.context.shape == (2, 32, 32)
        counts.append(len(scene.x))
        alone.append(len(draw_scene(np.random.default_rng(1000 + k), single, 32).x))
        assert draw_scene(np.random.default_rng(k), single, 32).context is None
    assert np.mean(counts) == pytest.approx(np.mean(alone), rel=0.25)


@pytest.mark.parametrize("mean_on", [None, 0.5, 6.0])
def test_overlap_with_neighbouring_frames(mean_on):
    rng = np.random.default_rng(0)
    share = draw_in_neighbouring_frames(rng, mean_on, 40_000, 1)
    assert share.shape == (40_000, 3)
    assert share.min() >= 0
    assert share.max() <= 1
    assert (share.sum(1) > 0).all()
    in_middle = (share[:, 1] > 0).mean()
    assert 1 / in_middle == pytest.approx(molecules_per_frame_molecule(mean_on, 1), rel=0.03)
    together = np.corrcoef(share[:, 0] > 0, share[:, 1] > 0)[0, 1]
    assert together > 0.3 if mean_on == 6.0 else together < 0.1
    if mean_on is not None:  # as in single frames
        seen = share[share[:, 1] > 0, 1]
        assert seen.mean() == pytest.approx(draw_on_overlap(rng, mean_on, 40_000).mean(), rel=0.03)


def test_close_pairs_are_added_where_brightness_tells_them_apart_and_nowhere_else():
    def shares(**changes):
        settings = SceneSettings(empty_fraction=0, em_fraction=0, min_photons=0, psf_spread=0, **changes)
        drawn = scenes(150, settings, size_px=48)
        near = [(cdist(np.c_[s.x, s.y], np.c_[s.x, s.y]) < 1.5).sum() - len(s.x) for s in drawn]
        return sum(near) / sum(len(s.x) for s in drawn)

    sparse = {"sparse_fraction": 1.0, "sparse_structures": {"uniform": 1}, "partial_on_fraction": 0.0}
    constant, broad = {"photon_spreads": {"constant": 1}}, {"photon_spreads": {"lognormal": 1}}
    without = shares(**sparse, **constant)
    # One more for every fifth, and each of a pair is near the other.
    assert shares(**sparse, **constant, close_pair_fraction=0.2) == pytest.approx(without + 2 * 0.2 / 1.2, abs=0.06)
    assert shares(**sparse, **broad, close_pair_fraction=0.2) == pytest.approx(shares(**sparse, **broad))
    crowded = {"sparse_fraction": 0.0, "dense_structures": {"uniform": 1}, "partial_on_fraction": 0.0, **constant}
    crowded["dense_density_per_px2"] = (0.05, 0.05)
    assert shares(**crowded, close_pair_fraction=0.2) == pytest.approx(shares(**crowded))


def test_judging_scenes_have_close_pairs_as_often_as_movies_have():
    plain = SceneSettings()
    paired = dataclasses.replace(plain, close_pair_fraction=0.5)
    settings = ValidationSettings(scenes=30)
    for one, two in zip(validation_scenes(settings, plain, 32), validation_scenes(settings, paired, 32), strict=True):
        assert np.array_equal(one.x, two.x)
