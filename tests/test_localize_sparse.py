"""Looking only where light is: what comes out is what the network says of the whole frame."""

import numpy as np
import pytest
import torch
from marks import NEEDS_INTEGERS

from smlm_pb.camera import Camera
from smlm_pb.localization import load_model
from smlm_pb.localization.candidate_finder import CandidateFinder
from smlm_pb.localization.candidates import CANDIDATE_DTYPE
from smlm_pb.localization.crops import cut_crops, owners
from smlm_pb.localization.matched_filter import NEAR_PEAK, MatchedFilter, Places, find_peaks
from smlm_pb.localization.neighbours import places as coordinates
from smlm_pb.localization.neighbours import tree_of
from smlm_pb.localization.pipeline import plan_work
from smlm_pb.localization.significance import filter_sizes, lone_significance
from smlm_pb.localization.sparse import REACH_PX, Controls, LightFinder
from smlm_pb.localization.windows import profile
from smlm_pb.networks import NetworkSettings, build_network
from smlm_pb.networks.inference import FixedWidthNetwork
from smlm_pb.simulation import simulate
from smlm_pb.simulation.presets import density_sweep
from smlm_pb.simulation.rendering import render_separable

SIGMA_PX = 1.1
RADII = [0, 2, 3, 4]


def network_of_random_weights(precision="float32"):
    torch.manual_seed(0)
    network = build_network(NetworkSettings(channels=16, blocks=3)).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return FixedWidthNetwork(network, SIGMA_PX, precision=precision)


def spots(shape, *where, photons=2000.0, background=20.0, seed=0):
    """Frames of (frame, y, x) spots."""
    height, width = shape[1:]
    image = np.full(shape, background)
    y, x = np.arange(height)[:, None], np.arange(width)
    for frame, row, column in where:
        spot = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * SIGMA_PX**2))
        image[frame] += photons * spot / (2 * np.pi * SIGMA_PX**2)
    return np.random.default_rng(seed).poisson(image).astype(np.float32)


def looked_at(groups, frames, row, column):
    """Which frames are looked at there."""
    near = np.zeros(frames, bool)
    for places, reach in groups:
        near[places.frame[(abs(places.row - row) <= reach) & (abs(places.column - column) <= reach)]] = True
    return near


@pytest.mark.parametrize("precision", ["float32", "bfloat16", pytest.param("int8", marks=NEEDS_INTEGERS)])
@pytest.mark.parametrize("reach", [0, 3])
def test_a_crop_tells_what_the_whole_frame_tells(precision, reach):
    network = network_of_random_weights(precision)
    batch = torch.from_numpy(spots((2, 30, 41), (0, 5, 5), (1, 20, 30)))[:, None]
    places = Places(np.array([0, 1, 1, 0, 0]), np.array([0, 20, 29, 15, 4]), np.array([0, 30, 40, 20, 39]))
    with torch.inference_mode():
        whole = network.features(batch)
        crops, inside = cut_crops(batch, places, reach + network.radius)
        ours = network.features_of_crops(crops, inside)
    assert inside is not None
    assert ours.shape[2:] == (2 * reach + 1, 2 * reach + 1)
    padded = torch.nn.functional.pad(whole, (reach,) * 4)
    for k, (frame, row, column) in enumerate(zip(*places.indices, strict=True)):
        theirs = padded[frame, :, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
        there = (theirs != 0).any(0)
        torch.testing.assert_close(ours[k][:, there], theirs[:, there], rtol=1e-4, atol=1e-4)


def test_crops_in_the_middle_need_no_mask():
    batch = torch.zeros(1, 1, 40, 40)
    crops, inside = cut_crops(batch, Places(np.array([0]), np.array([20]), np.array([20])), 8)
    assert crops.shape == (1, 1, 17, 17)
    assert inside is None


def test_radii_of_the_layers():
    network = network_of_random_weights()
    assert network.layer_radii == [0, 1, 2, 4, 5, 6]
    assert network.radius == network.layer_radii[-1] + 1 + 2


def test_every_pixel_near_a_place_has_one_owner():
    rng = np.random.default_rng(0)
    groups = [
        (Places(rng.integers(0, 2, 30), rng.integers(0, 20, 30), rng.integers(0, 25, 30)), reach) for reach in (1, 3)
    ]
    seen, wanted = np.zeros((2, 20, 25), int), np.zeros((2, 20, 25), bool)
    for (places, reach), own in zip(groups, owners(groups, seen.shape), strict=True):
        for k, (frame, row, column) in enumerate(zip(*places.indices, strict=True)):
            top, left = max(0, row - reach), max(0, column - reach)
            wanted[frame, top : row + reach + 1, left : column + reach + 1] = True
            for down, right in np.argwhere(own[k]) - reach:
                seen[frame, row + down, column + right] += 1
    np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize("sigma_px", [0.8, 1.1, 2.0])
def test_the_filter_measures_in_standard_deviations(sigma_px):
    noise = np.random.default_rng(3).poisson(40.0, (20, 64, 64)).astype(np.float32)
    found = MatchedFilter(sigma_px, Camera()).significance(noise)
    assert found.shape == noise.shape
    assert found[:, 12:-12, 12:-12].mean() == pytest.approx(0.0, abs=0.05)
    assert found[:, 12:-12, 12:-12].std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("sigma_px", [0.8, 1.7])
def test_the_filter_is_a_fit_at_every_pixel(sigma_px):
    """Of a spot that ends where the filter does and a constant, by least squares."""
    camera = Camera(read_noise_e=2.0)
    frame = np.random.default_rng(2).poisson(30.0, (25, 31)).astype(np.float32)
    filtered, half = MatchedFilter(sigma_px, camera).significance(frame[None])[0], filter_sizes(sigma_px)[0]
    along = profile(np.arange(-half, half + 1.0)[None], sigma_px)[0]
    along[along < 1e-3 * along.max()] = 0.0
    spot = np.outer(along, along).ravel()
    around = np.pad(frame, half, mode="symmetric").astype(float)
    for row, column in ((0, 0), (3, 30), (12, 15), (24, 8)):
        window = around[row : row + 2 * half + 1, column : column + 2 * half + 1].ravel()
        (light, background), *_ = np.linalg.lstsq(np.column_stack((spot, np.ones_like(spot))), window)
        error = np.sqrt((background + 4.0 + 1 / 12) / np.square(spot - spot.mean()).sum())
        assert filtered[row, column] == pytest.approx(light / error, abs=2e-3)


def test_every_peak_is_found_and_nothing_else():
    heights = np.random.default_rng(3).normal(size=(3, 12, 17)).astype(np.float32)
    around = np.pad(heights, ((0, 0), (1, 1), (1, 1)), mode="edge")
    highest = np.lib.stride_tricks.sliding_window_view(around, (3, 3), (1, 2)).max((3, 4))
    found = find_peaks(heights, 1.0)
    places = set(zip(*(index.tolist() for index in found.places.indices), strict=True))
    assert {at for at in zip(*np.nonzero(heights == highest), strict=True) if heights[at] >= 1.0} <= places
    assert all(heights[at] == highest[at] >= NEAR_PEAK for at in places)
    assert (found.height >= 1.0).all()
    assert (np.abs(found.shift) <= 0.5).all()


def test_peaks_lie_between_the_pixels():
    y, x = np.arange(20)[:, None], np.arange(30)
    hill = 9 * np.exp(-((y - 7.3) ** 2 + (x - 11.8) ** 2) / 18)
    edge = 5 * np.exp(-((y - 19) ** 2 + (x - 29) ** 2) / 18)
    peaks = find_peaks(np.stack((0 * hill, hill + edge)).astype(np.float32), 4.0)
    assert [index.tolist() for index in peaks.places.indices] == [[1, 1], [7, 19], [12, 29]]
    np.testing.assert_allclose(peaks.shift[:, 0], (0.3, -0.2), atol=0.03)
    assert peaks.height[0] == pytest.approx(9.0, rel=0.01)


@pytest.mark.parametrize("at", [(15.0, 20.0), (15.4, 20.3), (0.2, 20.0), (15.0, 38.7)])
def test_of_a_bright_molecule_nothing_is_left(at):
    where = (np.array([at[1]]), np.array([at[0]]), np.array([20_000.0]), np.array([SIGMA_PX]))
    expected = np.broadcast_to(render_separable(*where, (30, 40)) + 20.0, (40, 30, 40))
    frames = np.random.default_rng(0).poisson(expected).astype(np.float32)
    matched = MatchedFilter(SIGMA_PX, Camera())
    peaks = find_peaks(matched.significance(frames), 6.0)
    assert len(peaks.places) == 40
    rest = matched.without(frames, peaks)
    assert np.abs(rest.mean(0) - 20.0).max() < 0.15 * np.abs(frames.mean(0) - 20.0).max()
    y, x = np.ogrid[:30, :40]
    beside = np.maximum(abs(y - at[0]), abs(x - at[1])) > REACH_PX
    assert matched.significance(rest).mean(0)[beside].max() < 3.0  # less than what is looked at


@pytest.mark.parametrize("distance", [4.0, 5.5, 8.0, 11.0])
def test_a_dim_molecule_near_a_bright_one_is_looked_at(distance):
    dim = [(frame, 20.0, 15.0 + distance) for frame in range(100)]
    frames = spots((100, 64, 64), *dim, photons=350.0) + spots(
        (100, 64, 64), *((frame, 20.3, 15.0) for frame in range(100)), photons=5000.0, background=0.0, seed=1
    )
    groups, whole = LightFinder(SIGMA_PX, Camera(), 4.5, RADII)(frames)
    assert not whole.any()
    near = looked_at(groups, 100, 20, 15.0 + distance)
    assert near.sum() > 95


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.5, 0.5), (-0.3, 0.45)])
@pytest.mark.parametrize("at", [(16, 24), (0, 0), (31, 47)])
def test_light_that_is_significant_enough_is_never_passed_over(offset, at):
    """Dim molecules, about half of which are as significant as is asked for."""
    row, column = at[0] + offset[0], at[1] + offset[1]
    frames = spots((300, 32, 48), *((frame, row, column) for frame in range(300)), photons=400.0)
    rows = np.zeros(300, CANDIDATE_DTYPE)
    rows["frame"], rows["x"], rows["y"], rows["probability"] = np.arange(300), column, row, 0.9
    how = {"psf_sigma_px": SIGMA_PX, "camera": Camera()}
    significance = lone_significance(rows, frames, first_frame=0, **how)
    least = float(np.median(significance))
    groups, whole = LightFinder(SIGMA_PX, Camera(), least, RADII)(frames)
    assert not whole.any()
    near = looked_at(groups, 300, row, column)
    assert near[significance >= least].all()
    assert least > 3


def test_little_of_an_empty_frame_and_all_of_a_crowded_one():
    finder = LightFinder(SIGMA_PX, Camera(), 4.0, RADII)
    rng = np.random.default_rng(1)
    crowd = [(3, *place) for place in rng.uniform(0, 64, (250, 2))]
    groups, whole = finder(spots((4, 64, 64), *crowd))
    assert whole.tolist() == [False, False, False, True]
    assert sum(len(places) for places, _ in groups) < 15
    assert all((places.frame < 3).all() for places, _ in groups)


@pytest.mark.parametrize("density", [0.05, 0.3])
def test_no_molecule_is_missed(density):
    model = load_model("fast", "cpu")
    recipe = density_sweep(density, frames=30, size_px=80)
    movie, _ = simulate(recipe, seed=2)
    camera = recipe.camera.camera()
    electrons = camera.to_electrons(movie)
    how = {"psf_sigma_px": SIGMA_PX, "floor": 0.05, "camera": camera, "least_significance": 3.9}
    plan = plan_work(80, 80, model.device)
    ours, theirs = (CandidateFinder(model, plan=plan, pass_over_dark=p, **how)(electrons).rows for p in (True, False))
    ours, theirs = (rows[rows["probability"] >= 0.3] for rows in (ours, theirs))
    assert len(ours) == len(theirs) > 50
    distance, partner = tree_of(ours).query(coordinates(theirs))
    assert distance.max() < 1e-4
    np.testing.assert_allclose(ours["probability"][partner], theirs["probability"], atol=1e-4)
    assert (np.diff(ours["frame"].astype(int)) >= 0).all()


def test_nothing_is_passed_over_where_everything_is_asked_for():
    model = load_model("fast", "cpu")
    plan = plan_work(40, 40, model.device)
    noise = spots((2, 40, 40))
    how = {"psf_sigma_px": SIGMA_PX, "floor": 0.001, "plan": plan}
    everything = CandidateFinder(model, **how)(noise).rows
    some = CandidateFinder(model, least_significance=5.0, **how)(noise).rows
    assert len(some) < len(everything)


@pytest.mark.parametrize(("first", "others"), [(480, 15), (1280, 63)])
def test_controls_stand_for_the_frames_that_are_not_looked_at(first, others):
    """One frame is looked at as a whole: what it lists in the dark counts for those that it stands for, too."""
    frame, row, column = np.array([0, 1, 2, 2]), np.array([10, 10, 10, 30]), np.array([20, 20, 20, 5])
    controls, whole = Controls(60, 60), np.array([False, False, False, True])
    groups, whole = controls.take([(Places(frame, row, column), 3)], whole, first - 2)
    assert whole.tolist() == [False, False, True, True]
    ((places, reach),) = groups
    assert (places.frame.tolist(), reach) == ([0, 1], 3)
    rows = np.zeros(4, CANDIDATE_DTYPE)
    rows["frame"], rows["probability"] = (first - 1, first, first, first), (0.1, 0.25, 0.2, 0.9)
    rows["x"], rows["y"] = (50, 50, 23.4, 20), (50, 50, 30, 10)
    assert controls.dark_mass(rows) == pytest.approx(others * (0.25 + 0.2))
    assert Controls(60, 60).dark_mass(rows) == 0


def test_of_a_large_frame_a_part_stands_for_the_others():
    """It is one more place to look at, and counts for all that is not looked at: of its own frame, too."""
    controls = Controls(200, 300)
    groups, whole = controls.take([(Places(*np.full((3, 1), 1)), 3)], np.zeros(20, bool), 0)
    assert not whole.any()
    (parts, reach), (_, light) = groups
    assert (parts.frame.tolist(), reach, light) == ([0, 16], 32, 3)
    assert (parts.row >= 32).all()
    assert (parts.row < 200 - 32).all()
    row, column = int(parts.row[1]), int(parts.column[1])
    rows = np.zeros(3, CANDIDATE_DTYPE)
    rows["frame"], rows["probability"] = 16, (0.25, 0.2, 0.4)
    rows["y"], rows["x"] = (row, row + 32, row), (column, column - 32, column + (40 if column < 150 else -40))
    assert controls.dark_mass(rows) == pytest.approx((16 * 200 * 300 / 65**2 - 1) * 0.45)


def test_what_the_dark_would_tell_is_the_same_from_parts_of_large_frames():
    """The probability that the network gives to the dark, all frames of a movie looked at as a whole and not."""
    movie, _ = simulate(density_sweep(0.1, frames=40, size_px=192), seed=4)
    model = load_model("fast", "cpu")
    electrons = density_sweep(0.1).camera.camera().to_electrons(movie)
    plan = plan_work(192, 192, model.device)
    how = {"psf_sigma_px": SIGMA_PX, "floor": 0.05, "plan": plan, "least_significance": 4.0}
    by_parts, as_a_whole = (
        CandidateFinder(model, pass_over_dark=pass_over, **how)(electrons) for pass_over in (True, False)
    )
    doubtful = [
        found.expected_unlisted + found.rows["probability"][found.rows["probability"] < 0.5].sum()
        for found in (by_parts, as_a_whole)
    ]
    assert doubtful[0] == pytest.approx(doubtful[1], rel=0.1)
