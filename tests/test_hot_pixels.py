"""Single pixels that are always bright are told and filled in, and nothing else is taken for them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlm_pb import localize
from smlm_pb.bad_pixels import fill_in
from smlm_pb.camera import Camera
from smlm_pb.errors import CameraError
from smlm_pb.localization import load_model
from smlm_pb.localization.conditions import resolve
from smlm_pb.localization.settings import Conditions, JobSettings
from smlm_pb.movies import find_hot_pixels, open_movie, tell_hot_pixels
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
    return tell_hot_pixels("x", find_hot_pixels(open_movie(movie), camera))


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


def test_they_are_no_molecules(movie):
    """What is found without the hot pixels is found with them, and nothing more."""
    hot = with_hot(movie, places := [(5, 30), (12, 31), (20, 8), (0, 0), (39, 17)])
    with pytest.warns(UserWarning, match="5 pixels are always brighter.*filled in") as told:
        found = localize(hot, model="fast", camera=CAMERA, pixel_size_nm=100)
    assert sum("hot pixels" in str(one.message) for one in told) == 1
    clean = localize(movie, model="fast", camera=CAMERA, pixel_size_nm=100)
    assert abs(len(found) - len(clean)) <= 0.03 * len(clean)
    near = [np.hypot(found["y"] - row, found["x"] - column) < 1.5 for row, column in places]
    assert np.any(near, axis=0).sum() <= 10, "molecules of the movie may lie there"
    stored = found.provenance[-1]["conditions"]["camera"]
    assert sorted(map(tuple, stored["bad_pixels"])) == sorted(places)
    again = Camera.from_dict(stored)
    assert sorted(again.bad_pixels) == sorted(places)
    assert find_hot_pixels(open_movie(hot), again).size == 0


def test_filled_in_they_follow_a_spot():
    spot = render_separable(*(np.array([v]) for v in (20.3, 19.8, 1000.0, 1.1)), (41, 41))
    for places in ([(20, 20)], [(19, 21)], [(23, 18)], [(20, 20), (20, 21)]):
        image = spot.astype(np.float32)
        image[tuple(np.array(places).T)] = 1e6
        fill_in(image, np.array(places))
        error = np.abs(image - spot).max()
        assert error < (0.15 if len(places) == 1 else 0.4) * spot.max()


@given(
    places=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=42, unique=True),
    slope=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
)
def test_a_level_stays_level_and_good_pixels_stay(places, slope):
    y, x = np.mgrid[:6, :7]
    plane = (10 + slope[0] * y + slope[1] * x).astype(np.float32)
    for image in (np.full((2, 6, 7), 7.0, np.float32), np.stack([plane, plane])):
        changed = image.copy()
        changed[:, [p[0] for p in places], [p[1] for p in places]] = np.nan
        fill_in(changed, np.array(places))
        bad = np.zeros((6, 7), bool)
        bad[tuple(np.array(places).T)] = True
        assert np.array_equal(changed[:, ~bad], image[:, ~bad])
        if image[0, 0, 0] == 7.0 and not bad.all():
            assert changed == pytest.approx(image)
        one_inside = len(places) == 1 and 0 < places[0][0] < 5 and 0 < places[0][1] < 6
        if one_inside:
            assert changed == pytest.approx(image, abs=1e-4)


@pytest.mark.parametrize("places", [[(1, -2)], [(1.5, 2)], [3], "12", [("a", "b")]])
def test_places_that_are_none_are_refused(places):
    with pytest.raises(CameraError, match=r"pairs of row and column.*e\.g\. \[\(12, 200\)\]"):
        Camera(bad_pixels=places)


def test_places_beyond_the_frame_are_refused():
    with pytest.raises(CameraError, match="beyond the frames of 40×40 pixels"):
        Camera(bad_pixels=[(3, 40)]).to_electrons(np.zeros((2, 40, 40)))


def test_a_run_that_is_continued_knows_them(movie):
    settings = JobSettings(camera=CAMERA, pixel_size_nm=100)
    conditions = resolve(open_movie(with_hot(movie, [(5, 30), (20, 8)])), settings, load_model("fast", "cpu").card)
    assert sorted(conditions.camera.bad_pixels) == [(5, 30), (20, 8)]
    stored = json.loads(json.dumps(conditions.as_dict()))
    assert Conditions.restore(stored, settings).camera == conditions.camera
