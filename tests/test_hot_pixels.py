"""Single pixels that are always bright are told, and nothing else is taken for them."""

import numpy as np
import pytest

from smlm_pb import localize
from smlm_pb.camera import Camera
from smlm_pb.movies import check_hot_pixels, open_movie
from smlm_pb.simulation import simulate
from smlm_pb.simulation.presets import density_sweep
from smlm_pb.simulation.rendering import render_separable

CAMERA = density_sweep(0.5).camera.camera()


@pytest.fixture(scope="module")
def movie():
    return simulate(density_sweep(0.5, frames=24, size_px=40), seed=3)[0]


def with_hot(movie, places, adu=400):
    hot = movie.copy()
    for row, column in places:
        hot[:, row, column] += adu
    return hot


def said(movie, camera=CAMERA):
    return check_hot_pixels(open_movie(movie), camera)


def test_hot_pixels_are_counted_and_the_hottest_is_named(movie):
    assert said(movie) == []
    hot = with_hot(movie, [(5, 30), (20, 8)])
    hot[:, 20, 8] += 100
    (text,) = said(hot)
    assert "2 pixels are always brighter" in text
    assert "row 20, column 8" in text
    assert "one pixel is" in said(with_hot(movie, [(0, 39)]))[0]


def test_a_map_of_the_offset_mends_it(movie):
    offset = np.full((40, 40), 100.0)
    offset[5, 30] += 400
    assert said(with_hot(movie, [(5, 30)]), Camera(offset_adu=offset, e_per_adu=CAMERA.e_per_adu)) == []


@pytest.mark.parametrize("sigma_px", [0.8, 1.1])
@pytest.mark.parametrize("at", [(20.0, 20.0), (20.3, 20.4), (0.0, 20.0)])
def test_beads_and_crowds_are_no_hot_pixels(movie, at, sigma_px):
    bead = render_separable(np.array([at[0]]), np.array([at[1]]), np.array([2e4]), np.array([sigma_px]), (40, 40))
    bright = movie + np.random.default_rng(0).poisson(bead / CAMERA.e_per_adu, movie.shape).astype(movie.dtype)
    assert said(bright) == []
    assert said(simulate(density_sweep(6.0, frames=12, size_px=40), seed=3)[0]) == []


def test_few_frames_and_patterns_of_many_pixels_tell_nothing(movie):
    assert said(with_hot(movie, [(5, 30)])[:4]) == []
    pattern = np.zeros((40, 40), movie.dtype)
    pattern[::4, ::4] = 400
    assert said(movie + pattern) == []


def test_the_user_is_told(movie):
    with pytest.warns(UserWarning, match="hot pixels"):
        localize(with_hot(movie, [(5, 30)]), model="fast", camera=CAMERA, pixel_size_nm=100)
