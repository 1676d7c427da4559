"""Before a run every frame is read once, and what is told of the movie is what several readings tell."""

import numpy as np
import pytest

from smlm_pb.camera import Camera
from smlm_pb.errors import CameraError, MovieError
from smlm_pb.localization import conditions, list_models
from smlm_pb.localization.settings import JobSettings
from smlm_pb.movies import Movie, ReadOnce, check_movie, check_offset, open_movie, sample_frames

CARD = next(card for card in list_models() if card.name == "default")


class Counted:
    """A movie, and how often each of its frames was read."""

    def __init__(self, frames):
        self.movie = open_movie(frames)
        self.times = np.zeros(len(frames), int)
        read = self.movie._read

        def count(start, stop):
            self.times[start:stop] += 1
            return read(start, stop)

        self.movie._read = count


def noisy(n_frames, side_px, seed=0):
    rng = np.random.default_rng(seed)
    level = np.linspace(5, 200, side_px)  # of several brightnesses, so that the camera can be estimated
    frames = (100 + 2 * rng.poisson(level, (n_frames, side_px, side_px))).astype(np.uint16)
    frames[:, side_px // 2, side_px // 3] += 800  # a hot pixel
    frames[n_frames // 2] = 7  # a dropped frame, one of those that are looked at or not
    return frames


@pytest.mark.parametrize(("n_frames", "side_px"), [(20, 40), (300, 24), (60, 210), (40, 400)])
@pytest.mark.parametrize(
    "given", [{}, {"offset_adu": 100.0, "e_per_adu": 0.5}, {"offset_adu": 130.0, "e_per_adu": 0.5}]
)
def test_no_frame_is_read_twice_and_nothing_else_is_told(n_frames, side_px, given, monkeypatch):
    frames = noisy(n_frames, side_px)
    settings = JobSettings(psf_sigma_px=1.1, **given)
    counted = Counted(frames)
    once = conditions.resolve(counted.movie, settings, CARD)
    assert counted.times.max() == 1
    monkeypatch.setattr(conditions, "ReadOnce", lambda movie: movie)
    again = Counted(frames)
    assert conditions.resolve(again.movie, settings, CARD) == once
    assert again.times.max() > 1
    np.testing.assert_array_equal(again.times > 0, counted.times > 0)
    assert any("hot pixel" in text for text in once.warnings)


def test_frames_are_those_of_the_movie_in_whatever_order_they_are_asked_for():
    frames = noisy(30, 16)
    counted = Counted(frames)
    once = ReadOnce(counted.movie)
    assert isinstance(once, Movie)
    for start, stop in ((4, 5), (0, 30), (4, 5), (10, 20), (29, 30), (3, 3)):
        np.testing.assert_array_equal(once.read(start, stop), frames[start:stop])
    assert counted.times.tolist() == [1] * 30
    assert once.fingerprint() == open_movie(frames).fingerprint()
    np.testing.assert_array_equal(sample_frames(once, at_most=7)[1], sample_frames(open_movie(frames), at_most=7)[1])
    with pytest.raises(MovieError, match="which has 30"):
        once.read(0, 31)


def test_the_offset_is_judged_as_with_the_other_checks():
    movie = open_movie(noisy(12, 20))
    for offset in (100.0, 140.0, np.full((20, 20), 150.0)):
        camera = Camera(offset_adu=offset, e_per_adu=0.5)
        assert check_movie(movie, camera) == check_movie(movie) + check_offset(movie, camera)
    with pytest.raises(CameraError, match="offset 2000 ADU is above"):
        check_offset(movie, Camera(offset_adu=2000.0))
    with pytest.raises(CameraError, match="map offset_adu has shape"):
        check_offset(movie, Camera(offset_adu=np.full((20, 21), 100.0)))
