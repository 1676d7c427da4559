"""A network that sees the frames before and after: right at the ends of the movie and at the borders of blocks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_made_model import SETTINGS, make_model, make_movie

from smlm_pb import localize
from smlm_pb.camera import Camera
from smlm_pb.localization.candidate_finder import CandidateFinder, with_neighbours
from smlm_pb.localization.model import load_model
from smlm_pb.localization.pipeline import find_candidates, plan_work
from smlm_pb.movies import open_movie
from smlm_pb.networks import build_network

CAMERA = Camera(offset_adu=100.0, e_per_adu=0.5, read_noise_e=1.6)
N_FRAMES = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The hand-made model, whose molecules are the more probable the more light the frames around hold there."""
    single = load_model(make_model(tmp_path_factory.mktemp("model")), "cpu")
    network = build_network(SETTINGS.model_copy(update={"context_frames": 1}))
    state = single.network.state_dict()
    stem = torch.zeros_like(network.backbone.stem.weight)
    stem[:, :2] = state["backbone.stem.weight"]
    blur = torch.zeros(5, 5)
    blur[1:4, 1:4] = 1 / 9
    stem[0, 2] = 0.3 * blur  # square root of the frame before
    stem[0, 5] = 0.2 * blur  # and of the frame after
    network.load_state_dict({**state, "backbone.stem.weight": stem})
    return replace(single, network=network.eval().requires_grad_(False))


@pytest.fixture(scope="module")
def movie():
    return make_movie(N_FRAMES, (24, 32))[0]


def found(movie, model, frames=(0, N_FRAMES), **plan):
    opened = open_movie(movie)
    plan = replace(plan_work(opened.height, opened.width, model.device), **plan)
    with find_candidates(
        opened, model, camera=CAMERA, psf_sigma_px=1.1, frames=frames, floor=0.01, plan=plan
    ) as blocks:
        parts = [block.candidates.rows for block in blocks]
    return np.concatenate(parts)


def assert_same(one, other):
    assert len(one) == len(other)
    for name in one.dtype.names:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_neighbours_are_stacked_in_the_order_of_time():
    frames = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    stacked = with_neighbours(frames, 0, 5, 1)
    assert stacked.shape == (5, 3, 2, 2)
    np.testing.assert_array_equal(stacked[2, :, 0, 0], [1, 2, 3])
    np.testing.assert_array_equal(stacked[0, :, 0, 0], [np.nan, 0, 1])
    np.testing.assert_array_equal(stacked[4, :, 0, 0], [3, 4, np.nan])
    np.testing.assert_array_equal(with_neighbours(frames, 1, 3, 0)[:, 0, 0, 0], [1, 2])


@pytest.mark.parametrize("plan", [{"block_frames": 1}, {"block_frames": 5, "batch_frames": 2}, {"tile_px": 16}])
def test_blocks_batches_and_tiles_change_nothing(movie, model, plan):
    whole = found(movie, model, block_frames=N_FRAMES, batch_frames=N_FRAMES)
    assert len(whole) > N_FRAMES
    assert_same(found(movie, model, **plan), whole)


def test_frames_that_were_not_asked_for_are_neighbours_all_the_same(movie, model):
    whole = found(movie, model)
    part = found(movie, model, frames=(3, 7))
    assert_same(part, whole[(whole["frame"] >= 3) & (whole["frame"] < 7)])


def test_neighbours_matter_and_only_those(movie, model):
    dark = movie.copy()
    dark[6] = 100
    before, after = found(movie, model), found(dark, model)
    for frame in range(N_FRAMES):
        one, other = (rows[rows["frame"] == frame] for rows in (before, after))
        same = len(one) == len(other) and np.allclose(one["probability"], other["probability"], atol=1e-6)
        assert same == (frame not in (5, 6, 7)), frame


def test_the_ends_of_the_movie_have_one_neighbour(movie, model):
    """A movie that is cut is another movie: its last frame has nothing after it."""
    whole, cut = found(movie, model), found(movie[:6], model, frames=(0, 6))
    last = [rows[rows["frame"] == 5]["probability"].sum() for rows in (whole, cut)]
    assert last[0] != pytest.approx(last[1], abs=1e-4)
    assert_same(cut[cut["frame"] < 5], whole[whole["frame"] < 5])


def test_sampled_frames_are_looked_at_alone(movie, model):
    electrons = CAMERA.to_electrons(movie[::4])
    plan = plan_work(*electrons.shape[1:], model.device)
    finder = CandidateFinder(model, psf_sigma_px=1.1, floor=0.01, plan=plan, camera=CAMERA)
    together = finder(electrons, consecutive=False).rows
    alone = [finder(frame[None], number).rows for number, frame in enumerate(electrons)]
    assert_same(together, np.concatenate(alone))


def test_a_movie_of_one_frame_has_no_neighbours(movie, model):
    assert len(localize(movie[:1], model=model, camera=CAMERA, psf_sigma_px=1.1, threshold=0.3)) > 0
