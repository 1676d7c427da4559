"""Gain, offset, PSF width and background, estimated from movies whose truth is known."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from smlm_pb.camera import Camera
from smlm_pb.errors import CameraError, MovieError
from smlm_pb.localization.estimate import (
    check_camera,
    estimate_background,
    estimate_camera,
    estimate_gain_and_offset,
    estimate_psf_sigma,
)
from smlm_pb.localization.frame_sample import draw_sample
from smlm_pb.localization.noise import leakage
from smlm_pb.localization.psf_width import gaussian_autocorrelation
from smlm_pb.movies import open_movie

Array = npt.NDArray[Any]


def _profile(centre: Array, sigma: float, size: int) -> Array:
    edges = np.arange(size + 1) - 0.5
    return np.diff(0.5 * (1 + erf((edges[None] - centre[:, None]) / (np.sqrt(2) * sigma))), axis=1)


@lru_cache(maxsize=8)
def _expected(
    seed: int,
    *,
    n_frames: int = 120,
    size: int = 64,
    density: float = 1.0,
    sigma: float | tuple[float, float] = 1.1,
    photons: float = 1000.0,
    background: float = 20.0,
    filaments: bool = False,
) -> Array:
    """Expected photo-electrons; ``density`` per µm² at 100 nm pixels, ``sigma`` along y and x."""
    rng = np.random.default_rng(seed)
    sigma_y, sigma_x = (sigma, sigma) if isinstance(sigma, (int, float)) else sigma
    along = np.linspace(-5, size + 5, 2000)
    curves = [(rng.uniform(3, 8), rng.uniform(0, 6), rng.uniform(0, size)) for _ in range(5)]
    frames = np.empty((n_frames, size, size))
    for frame in frames:
        count = rng.poisson(density * 0.01 * (size + 10) ** 2)
        y, x = rng.uniform(-5, size + 5, (2, count))
        if filaments and count:
            x = rng.choice(along, count)
            wave, phase, height = np.array(curves)[rng.integers(len(curves), size=count)].T
            y = height + wave * np.sin(x / 15 + phase) + rng.normal(0, 0.2, count)
        light = photons * np.exp(rng.normal(0, 0.3, count))
        frame[:] = _profile(y, sigma_y, size).T @ (light[:, None] * _profile(x, sigma_x, size))
    return frames + background


def _record(expected: Array, seed: int = 0, **camera: float) -> Array:
    values: dict[str, Any] = {"offset_adu": 100.0, "e_per_adu": 0.5, "read_noise_e": 1.6, **camera}
    return Camera(**values).digitize(expected, np.random.default_rng(seed))


# ------------------------------------------------------------------------------------------ PSF width


def test_autocorrelation_of_the_pixel_integrated_gaussian() -> None:
    x = np.arange(-30, 30, 0.01)
    for sigma in (0.7, 1.3):
        pixel = _profile(x - x[0], sigma, 1)[:, 0] * 0
        pixel = 0.5 * (erf((x + 0.5) / (np.sqrt(2) * sigma)) - erf((x - 0.5) / (np.sqrt(2) * sigma)))
        for lag in (0, 1, 4):
            shifted = 0.5 * (erf((x + lag + 0.5) / (np.sqrt(2) * sigma)) - erf((x + lag - 0.5) / (np.sqrt(2) * sigma)))
            assert gaussian_autocorrelation(lag, sigma) == pytest.approx((pixel * shifted).sum() * 0.01, rel=1e-6)


@pytest.mark.parametrize("sigma", [0.8, 2.0])
@pytest.mark.parametrize(
    ("density", "photons", "background"), [(0.1, 1000, 20), (0.1, 500, 100), (1, 300, 50), (6, 2000, 50)]
)
def test_psf_width_at_any_density(sigma: float, density: float, photons: float, background: float) -> None:
    frames = _record(_expected(1, sigma=sigma, density=density, photons=photons, background=background))
    estimate = estimate_psf_sigma(frames)
    assert estimate.sigma_px == pytest.approx(sigma, rel=0.05)
    assert estimate.spread_px < 0.05 * sigma
    assert estimate.n_used == 120
    assert estimate.warnings == ()


def test_psf_width_on_structure_and_static_light() -> None:
    moving = _expected(2, filaments=True, density=4, photons=2000)
    still = _expected(3, n_frames=1, sigma=1.8, density=3, photons=5000)[0]
    decay = np.exp(-np.arange(120) / 60)[:, None, None]
    assert estimate_psf_sigma(_record(moving)).sigma_px == pytest.approx(1.1, rel=0.03)
    assert estimate_psf_sigma(_record(moving + still)).sigma_px == pytest.approx(1.1, rel=0.03)
    assert estimate_psf_sigma(_record(moving * decay + 80 * decay)).sigma_px == pytest.approx(1.1, rel=0.03)


def test_psf_width_does_not_depend_on_the_camera() -> None:
    expected = _expected(4)
    as_electrons = expected + np.random.default_rng(0).normal(0, 5, expected.shape)
    reference = estimate_psf_sigma(as_electrons)
    for values in (3.7 * as_electrons + 500, as_electrons - 1000):
        assert estimate_psf_sigma(values).sigma_px == pytest.approx(reference.sigma_px, rel=1e-6)
    patterned = _record(expected) + np.random.default_rng(1).integers(0, 30, (64, 64)).astype(np.uint16)
    assert estimate_psf_sigma(patterned).sigma_px == pytest.approx(1.1, rel=0.03)


@given(seed=st.integers(0, 1000), sigma=st.floats(0.8, 1.8))
@settings(max_examples=5, deadline=None)
def test_the_error_of_the_width_is_believable(seed: int, sigma: float) -> None:
    frames = _record(_expected(seed, n_frames=60, sigma=sigma, photons=500, background=50), seed)
    estimate = estimate_psf_sigma(frames)
    assert estimate.sigma_px is not None
    assert abs(estimate.sigma_px - sigma) < 6 * estimate.spread_px + 0.005 * sigma


def test_width_is_refused_without_molecules() -> None:
    for background in (0.0, 50.0):
        estimate = estimate_psf_sigma(_record(np.full((100, 64, 64), background)))
        assert estimate.sigma_px is None
        assert "give psf_sigma_px" in estimate.warnings[-1]
    assert estimate_psf_sigma(_record(_expected(5, size=6, n_frames=3))).sigma_px is None


def test_width_warns_of_ellipses_and_single_frames() -> None:
    elliptical = estimate_psf_sigma(_record(_expected(6, sigma=(1.4, 1.0))))
    assert elliptical.sigma_px == pytest.approx(np.sqrt(1.4), rel=0.05)
    assert "elliptical" in elliptical.warnings[0]
    along_y = float(elliptical.warnings[0].split("elliptical, ")[1].split()[0])
    assert along_y == pytest.approx(1.4, rel=0.05)
    single = estimate_psf_sigma(_record(_expected(7, n_frames=1, photons=3000)))
    assert single.sigma_px == pytest.approx(1.1, rel=0.15)
    assert "single frame" in single.warnings[0]


# ------------------------------------------------------------------------------------ gain and offset


def test_leakage_is_what_a_molecule_leaves() -> None:
    rng = np.random.default_rng(0)
    left = []
    for _ in range(300):
        y, x = rng.uniform(14, 16, (2, 1))
        spot = np.outer(_profile(y, 0.8, 31)[0], _profile(x, 0.8, 31)[0])
        for _ in range(4):
            spot = np.diff(np.diff(spot, axis=0), axis=1)
        left.append((spot**2).sum() / 70**2)
    assert np.mean(left) == pytest.approx(leakage(4, 0.8), rel=0.1)
    assert leakage(4, 1.1) < leakage(4, 0.8) < leakage(2, 0.8)


@pytest.mark.parametrize("e_per_adu", [0.2, 5.0])
@pytest.mark.parametrize(
    ("sigma", "density", "photons", "background", "filaments"),
    [(1.1, 6, 1000, 20, False), (0.8, 3, 5000, 50, True), (1.6, 1, 1000, 100, False), (1.1, 1, 1000, 0, False)],
)
def test_gain_at_a_known_offset(
    e_per_adu: float, sigma: float, density: float, photons: float, background: float, filaments: bool
) -> None:
    expected = _expected(8, sigma=sigma, density=density, photons=photons, background=background, filaments=filaments)
    estimate = estimate_gain_and_offset(_record(expected, e_per_adu=e_per_adu), offset_adu=100.0)
    assert estimate.e_per_adu == pytest.approx(e_per_adu, rel=0.07)
    assert estimate.estimated == ("e_per_adu",)
    assert estimate.confidence in ("high", "medium")
    assert estimate.offset_adu == 100.0
    assert estimate.e_per_adu is not None
    assert abs(estimate.e_per_adu - e_per_adu) < 5 * estimate.e_per_adu_error


@pytest.mark.parametrize("e_per_adu", [0.25, 2.0])
def test_gain_and_offset_together(e_per_adu: float) -> None:
    frames = _record(_expected(9, density=3, photons=1500, filaments=True), e_per_adu=e_per_adu)
    estimate = estimate_camera(frames)
    assert estimate.e_per_adu == pytest.approx(e_per_adu, rel=0.07)
    assert estimate.offset_adu == pytest.approx(100, abs=max(4 * estimate.offset_error_adu, 1))
    assert estimate.offset_error_adu * e_per_adu < 10
    camera = estimate.to_camera()
    assert camera.estimated == ("offset_adu", "e_per_adu")
    assert camera.offset_adu == estimate.offset_adu


def test_offset_at_a_known_gain() -> None:
    frames = _record(_expected(10, density=0.5), e_per_adu=0.5, offset_adu=400)
    estimate = estimate_camera(frames, e_per_adu=0.5, read_noise_e=1.6)
    assert estimate.offset_adu == pytest.approx(400, abs=4)
    assert estimate.e_per_adu == 0.5
    assert estimate.estimated == ("offset_adu",)
    both = estimate_camera(frames, e_per_adu=0.4, offset_adu=390)
    assert (both.e_per_adu, both.offset_adu, both.estimated) == (0.4, 390, ())


def test_electron_multiplication() -> None:
    frames = _record(_expected(11, density=3), e_per_adu=45, em_gain=300, read_noise_e=74.4)
    estimate = estimate_camera(frames, em_gain=300, offset_adu=100, read_noise_e=74.4)
    assert estimate.e_per_adu == pytest.approx(45, rel=0.05)
    assert estimate.adu_per_e == pytest.approx(300 / 45, rel=0.05)
    assert estimate.to_camera().read_noise_e == 74.4
    unaware = estimate_camera(frames, offset_adu=100)
    assert unaware.e_per_adu == pytest.approx(45 / 600, rel=0.08)


def test_gain_from_uniform_light_needs_the_offset() -> None:
    frames = _record(np.full((100, 64, 64), 80.0), e_per_adu=0.5)
    alone = estimate_camera(frames)
    assert (alone.e_per_adu, alone.offset_adu, alone.confidence) == (None, None, "none")
    assert "give offset_adu" in alone.reason
    assert "\n" not in alone.reason
    with pytest.raises(CameraError, match="cannot be estimated"):
        alone.to_camera()
    assert estimate_camera(frames, offset_adu=100).e_per_adu == pytest.approx(0.5, rel=0.05)


def test_pattern_noise_and_long_on_times_do_not_disturb() -> None:
    rng = np.random.default_rng(0)
    expected = np.repeat(_expected(12, n_frames=40, density=2), 5, axis=0)
    pattern = rng.normal(0, 3, (64, 64)) + rng.exponential(300, (64, 64)) * (rng.random((64, 64)) < 0.002)
    frames = np.clip(_record(expected) + pattern, 0, 65535).round().astype(np.uint16)
    assert estimate_camera(frames, offset_adu=100).e_per_adu == pytest.approx(0.5, rel=0.1)


def test_offset_above_the_data_is_refused() -> None:
    estimate = estimate_camera(_record(_expected(13, n_frames=20)), offset_adu=5000)
    assert estimate.e_per_adu is None
    assert "above the mean" in estimate.reason


def test_impossible_given_values() -> None:
    with pytest.raises(CameraError, match="em_gain"):
        estimate_camera(_record(_expected(14, n_frames=5)), em_gain=0.5)
    with pytest.raises(MovieError, match="every pixel"):
        estimate_camera(np.zeros((5, 20, 20), dtype=np.uint16))
    with pytest.raises(MovieError, match="NaN"):
        estimate_psf_sigma(np.full((5, 20, 20), np.nan))


def test_filtered_frames_are_refused() -> None:
    from scipy.ndimage import gaussian_filter

    frames = _record(_expected(15))
    raw = frames.astype(float)
    for spoiled in (gaussian_filter(raw, (0, 0.6, 0.6)), (raw[:, 1:] + raw[:, :-1]) / 2):
        estimate = estimate_camera(spoiled.round().astype(np.uint16), offset_adu=100)
        assert estimate.e_per_adu is None
        assert "raw camera frames" in estimate.reason
        (warning,) = check_camera(spoiled.round().astype(np.uint16), Camera(e_per_adu=0.5))
        assert "not independent" in warning


def test_saturated_pixels_are_left_out() -> None:
    frames = _record(_expected(16, density=1, photons=2000), e_per_adu=0.25)
    assert (frames > 1023).mean() > 0.005
    estimate = estimate_camera(np.minimum(frames, 1023), offset_adu=100)
    assert estimate.e_per_adu == pytest.approx(0.25, rel=0.1)


def test_cut_off_noise_is_pointed_out() -> None:
    estimate = estimate_camera(_record(_expected(17, background=0), offset_adu=0, e_per_adu=1), offset_adu=0)
    assert any("cut off" in warning for warning in estimate.warnings)
    assert estimate.confidence != "high"


@pytest.mark.parametrize("size", [16, 32])
def test_small_frames(size: int) -> None:
    frames = _record(_expected(18, size=size, density=2, photons=2000))
    assert estimate_camera(frames, offset_adu=100).e_per_adu == pytest.approx(0.5, rel=0.2)
    assert estimate_psf_sigma(frames).sigma_px == pytest.approx(1.1, rel=0.07)


def test_tiny_or_short_movies_end_in_a_reason() -> None:
    for frames in (_record(_expected(19, size=9, n_frames=20)), _record(_expected(20, n_frames=1))):
        estimate = estimate_camera(frames)
        assert estimate.e_per_adu is None
        assert estimate.reason


def test_wrong_camera_values_are_noticed() -> None:
    frames = _record(_expected(21), e_per_adu=0.5)
    assert check_camera(frames, Camera(offset_adu=100, e_per_adu=0.5)) == []
    (warning,) = check_camera(frames, Camera(offset_adu=100, e_per_adu=1.0))
    suggested = float(warning.split("e_per_adu near ")[1].split()[0])
    assert suggested == pytest.approx(0.5, rel=0.1)
    assert check_camera(frames, Camera(offset_adu=100, e_per_adu=0.5, em_gain=1.0, read_noise_e=2.0)) == []


def _near(warning: str, name: str) -> float:
    """The value that would fit, as a warning says it."""
    return float(warning.split(f"{name} near ")[1].split()[0].rstrip(":;"))


@pytest.mark.parametrize("factor", [0.2, 0.5, 1.0, 2.0, 5.0, 60.0])
def test_a_gain_that_does_not_fit_the_noise_is_noticed_without_the_offset(factor: float) -> None:
    frames = _record(_expected(21), e_per_adu=0.5)
    estimate = estimate_camera(frames, e_per_adu=0.5 * factor)
    if factor == 1:
        assert estimate.warnings == ()
        return
    (warning,) = estimate.warnings
    assert f"e_per_adu = {0.5 * factor:g}" in warning
    assert float(warning.split("light ")[1].split()[0]) == pytest.approx(factor, rel=0.1)
    assert _near(warning, "e_per_adu") == pytest.approx(0.5, rel=0.1)
    assert ("em_gain missing" in warning) == (factor > 4)
    assert (estimate.e_per_adu, estimate.estimated) == (0.5 * factor, ("offset_adu",))  # told, not overruled


@pytest.mark.parametrize("offset", [0.0, 60.0, 100.0, 105.0])
def test_an_offset_that_does_not_fit_the_noise_is_noticed_without_the_gain(offset: float) -> None:
    warnings = estimate_camera(_record(_expected(21), e_per_adu=0.5), offset_adu=offset).warnings
    assert len(warnings) == (offset < 100)
    for warning in warnings:
        assert _near(warning, "offset_adu") == pytest.approx(100, abs=8)


def test_a_gain_without_contrast_is_judged_by_the_offset_that_it_implies() -> None:
    blank = np.full((60, 64, 64), 50.0)
    frames = _record(blank, e_per_adu=0.5)
    assert estimate_camera(frames, e_per_adu=0.5).warnings == ()
    (warning,) = estimate_camera(frames, e_per_adu=30).warnings
    assert "implies an offset of -" in warning


def test_the_value_that_is_wrong_is_named() -> None:
    frames = _record(_expected(21), e_per_adu=0.5)
    (gain,) = check_camera(frames, Camera(offset_adu=100, e_per_adu=30))
    assert _near(gain, "e_per_adu") == pytest.approx(0.5, rel=0.1)
    assert "offset_adu near" not in gain
    (offset,) = check_camera(frames, Camera(offset_adu=20, e_per_adu=0.5))
    assert _near(offset, "offset_adu") == pytest.approx(100, abs=8)
    assert "e_per_adu near" not in offset
    blank = _record(np.full((60, 64, 64), 50.0), e_per_adu=0.5)
    (either,) = check_camera(blank, Camera(offset_adu=20, e_per_adu=0.5))  # nobody can tell
    assert _near(either, "offset_adu") == pytest.approx(100, abs=8)
    assert "e_per_adu near" in either


_LIGHT = {
    "sparse": {"molecules": {"density_per_um2": 0.02, "photons": 3000.0}},
    "dense": {"molecules": {"density_per_um2": 6.0, "photons": 1500.0}},
    "structured": {"background": {"photons_per_px": 300.0, "shape": "blobs", "contrast": 1.0}},
    "decaying": {"background": {"photons_per_px": 200.0, "shape": "gradient", "decay_frames": 60.0}},
    "multiplied": {"camera": {"offset_adu": 200.0, "e_per_adu": 10.0, "em_gain": 150.0, "read_noise_e": 60.0}},
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("light", _LIGHT)
def test_cameras_that_are_told_rightly_are_not_doubted(light: str, seed: int) -> None:
    from smlm_pb.simulation import simulate
    from smlm_pb.simulation.presets import density_sweep

    recipe = density_sweep(1.0, frames=80, seed=seed, **_LIGHT[light])
    frames, _ = simulate(recipe)
    camera = recipe.camera.camera()
    assert check_camera(frames, camera) == []
    for value in ({"e_per_adu": camera.e_per_adu}, {"offset_adu": camera.offset_adu}):
        estimate = estimate_camera(frames, em_gain=camera.em_gain, **value)
        assert not any("does not fit" in warning for warning in estimate.warnings)


# ---------------------------------------------------------------------------------------- background


@pytest.mark.parametrize(
    ("sigma", "density", "photons", "background", "filaments"),
    [
        (1.1, 0.1, 1000, 20, False),
        (1.1, 1, 2000, 0, False),
        (1.1, 6, 2000, 50, False),
        (1.6, 3, 2000, 50, False),
        (1.1, 6, 500, 200, False),
        (1.1, 6, 5000, 10, True),
    ],
)
def test_background_between_molecules(
    sigma: float, density: float, photons: float, background: float, filaments: bool
) -> None:
    expected = _expected(
        22,
        n_frames=100,
        sigma=sigma,
        density=density,
        photons=photons,
        background=background,
        filaments=filaments,
    )
    frames = _record(expected)
    camera = Camera(offset_adu=100, e_per_adu=0.5)
    from_adu = estimate_background(frames, camera)
    assert from_adu.background == pytest.approx(background, rel=0.05, abs=1.0)
    assert from_adu.low <= from_adu.background <= from_adu.high
    from_electrons = estimate_background(camera.to_electrons(frames))
    assert from_electrons.background == pytest.approx(from_adu.background, abs=0.1)


def test_uneven_background_shows_in_its_range() -> None:
    slope = np.linspace(0, 30, 64)[None, None, :]
    frames = _record(_expected(23, n_frames=100) + slope)
    estimate = estimate_background(frames, Camera(offset_adu=100, e_per_adu=0.5))
    assert estimate.background == pytest.approx(35, abs=4)
    assert estimate.low == pytest.approx(24, abs=4)
    assert estimate.high == pytest.approx(46, abs=5)


def test_negative_background_warns() -> None:
    frames = _record(_expected(24, n_frames=50))
    estimate = estimate_background(frames, Camera(offset_adu=180, e_per_adu=0.5))
    assert estimate.background < -10
    assert "offset is too high" in estimate.warnings[0]


def test_a_masked_region_leaves_no_numerical_warnings() -> None:
    frames = _record(_expected(26, n_frames=40, density=0.5, photons=2000))[:, :40, :56]
    frames[:, :, :20] = 100
    assert "noise does not fit" in check_camera(frames, Camera(offset_adu=100, e_per_adu=0.5), psf_sigma_px=1.1)[0]


@pytest.mark.parametrize("value", [0, 100, 65535])
def test_dropped_frames_do_not_spoil_the_estimates(value: int) -> None:
    """A frame that the computer lost is stored as one value: it tells nothing of camera, PSF and background."""
    frames = _record(_expected(25))
    whole = np.delete(frames, [7, 60, 119], axis=0)
    frames[[7, 60, 119]] = value
    camera = Camera(offset_adu=100, e_per_adu=0.5)
    assert estimate_background(frames, camera) == estimate_background(whole, camera)
    assert estimate_camera(frames) == estimate_camera(whole)
    assert estimate_psf_sigma(frames) == estimate_psf_sigma(whole)
    frames[:] = np.arange(120)[:, None, None]
    with pytest.raises(MovieError, match="nothing can be estimated"):
        draw_sample(frames)


# --------------------------------------------------------------------------------------------- speed


def test_bounded_work_on_long_and_large_movies() -> None:
    read: list[int] = []
    expected = _expected(25, n_frames=40, size=96)
    block = _record(np.tile(expected, (1, 3, 3)))

    class Long:
        shape, dtype = (5000, 288, 288), block.dtype

        def __getitem__(self, index: tuple[Any, ...]) -> Array:
            frames = np.arange(5000)[index[0]]
            read.extend(frames)
            return block[frames % 40]

    movie = open_movie(Long())
    sample = draw_sample(movie)
    assert sample.patches.size <= 1_300_000
    assert len(read) <= 200
    assert sample.patches.shape[2:] == (64, 64)
    assert estimate_psf_sigma(movie).sigma_px == pytest.approx(1.1, rel=0.05)


def test_movie_and_array_agree() -> None:
    frames = _record(_expected(27, n_frames=30))
    assert estimate_psf_sigma(frames) == estimate_psf_sigma(open_movie(frames))
    assert estimate_camera(frames) == estimate_camera(open_movie(frames))
