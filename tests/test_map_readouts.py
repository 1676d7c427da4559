"""Positions read from drawings: exact where the drawing is, several per pixel, the same in tiles."""

import math

import numpy as np
import pytest
import torch

from smlm_pb.networks import MapNetwork, NetworkSettings, build_network, predict_tiled
from smlm_pb.networks.gaussian_fits import GaussianFits
from smlm_pb.networks.local_maxima import LocalMaxima, by_camera_pixel, gaussian_filter
from smlm_pb.networks.watershed import Watershed

DRAWN = {
    "peaks": {"upsampling": 4},
    "blurred-peaks": {"upsampling": 4, "drawn_width_px": 0.25},
    "probability-peaks": {"upsampling": 1},
    "fits": {"n_candidates": 2},
    "watershed": {"upsampling": 4},
}


def gaussians(places, size_px, upsampling, sigma_px):
    """A drawing (1, 1, fine, fine) of Gaussians of height 1 at (y, x) in camera pixels."""
    centre = (torch.arange(size_px * upsampling) + 0.5) / upsampling - 0.5
    drawing = torch.zeros(len(centre), len(centre))
    for y, x in places:
        drawing += torch.exp(-((centre[:, None] - y) ** 2 + (centre[None] - x) ** 2) / (2 * sigma_px**2))
    return drawing[None, None]


def found(peaks):
    """Positions (y, x) of all peaks, sorted."""
    _, slot, row, column = torch.nonzero(peaks.score > 0, as_tuple=True)
    place = (0, slot, row, column)
    y, x = row + peaks.dy[place], column + peaks.dx[place]
    return sorted(zip(y.tolist(), x.tolist(), strict=True))


def assert_near(positions, places, tolerance):
    assert len(positions) == len(places)
    for position, place in zip(positions, sorted(places), strict=True):
        assert math.dist(position, place) < tolerance, (position, place)


PLACES = [(2.13, 9.4), (3.5, 3.5), (8.97, 6.02), (9.9, 11.31)]


@pytest.mark.parametrize(("upsampling", "sigma_px"), [(1, 0.8), (2, 0.6), (4, 0.25)])
def test_lone_gaussians_are_found_exactly(upsampling, sigma_px):
    peaks = LocalMaxima(upsampling)(gaussians(PLACES, 13, upsampling, sigma_px), 2)
    # 0.02: what the tails of neighbours do.
    assert_near(found(peaks), PLACES, 0.02)
    assert float(peaks.score.max()) <= 1.0


@pytest.mark.parametrize(("upsampling", "sigma_px"), [(1, 0.8), (4, 0.25)])
def test_a_gaussian_alone_has_no_error_at_all(upsampling, sigma_px):
    for y, x in np.random.default_rng(0).uniform(4, 8, (20, 2)):
        peaks = LocalMaxima(upsampling)(gaussians([(y, x)], 13, upsampling, sigma_px), 1)
        assert_near(found(peaks), [(y, x)], 1e-4)


def test_a_logistic_drawing_is_read_as_probabilities():
    height = gaussians([(5.2, 6.7)], 12, 1, 0.8).clamp(1e-6, 0.9999)
    peaks = LocalMaxima(1, values="sigmoid")(torch.logit(height), 1)
    assert_near(found(peaks), [(5.2, 6.7)], 1e-3)


def test_spikes_are_filtered_before_they_are_read():
    spikes = torch.zeros(1, 1, 40, 40)
    # Between two fine pixels: half of the molecule in each.
    spikes[0, 0, 20, 17] = spikes[0, 0, 20, 18] = 0.5
    peaks = LocalMaxima(4, values="blurred", blur_px=1.0)(spikes, 2)
    assert_near(found(peaks), [((20.5) / 4 - 0.5, 18 / 4 - 0.5)], 0.01)
    lone = torch.zeros(1, 1, 15, 15)
    lone[0, 0, 7, 7] = 1.0
    assert gaussian_filter(lone, 1.0).max() == pytest.approx(1.0)
    assert gaussian_filter(lone, 1.0)[0, 0, 7, 9] == pytest.approx(math.exp(-2))


def test_two_molecules_in_one_camera_pixel():
    places = [(4.7, 4.7), (5.3, 5.3)]
    peaks = LocalMaxima(4)(gaussians(places, 10, 4, 0.15), 2)
    assert_near(found(peaks), places, 0.02)
    assert (peaks.score[0, :, 5, 5] > 0.7).all()
    only = LocalMaxima(4)(gaussians(places, 10, 4, 0.15) * torch.linspace(1.0, 0.5, 40), 1)
    assert_near(found(only), places[:1], 0.1)  # the higher one is kept


def test_more_slots_than_fine_pixels_stay_empty():
    score = torch.ones(1, 1, 3, 3)
    peaks = by_camera_pixel(score, torch.zeros_like(score), torch.zeros_like(score), 1, 3)
    assert peaks.score.shape == (1, 3, 3, 3)
    assert (peaks.score[:, 0] == 1).all()
    assert (peaks.score[:, 1:] == 0).all()


def test_an_empty_drawing_holds_nothing():
    for finder in (LocalMaxima(4), GaussianFits(0.8, 2), LocalMaxima(4, values="blurred")):
        assert found(finder(torch.zeros(1, 1, 24, 24), 2)) == []
    assert found(Watershed(4)(torch.zeros(1, 11, 24, 24), 2)) == []


@pytest.mark.parametrize("place", [(0.0, 0.0), (-0.4, 5.2), (11.4, 11.3)])
def test_peaks_at_the_border(place):
    peaks = LocalMaxima(4)(gaussians([place], 12, 4, 0.25), 1)
    assert_near(found(peaks), [place], 0.15)


# ---- fits


def test_a_lone_gaussian_is_fitted_exactly_and_leaves_nothing():
    fits = GaussianFits(0.8, 3)
    for y, x in np.random.default_rng(1).uniform(4, 9, (20, 2)):
        peaks = fits(gaussians([(y, x)], 14, 1, 0.8), 3)
        assert_near(found(peaks), [(y, x)], 1e-3)
        assert peaks.score.max() == pytest.approx(1.0, abs=1e-3)


def test_subtraction_uncovers_a_neighbour():
    """The weaker of two molecules is a shoulder without a maximum of its own."""
    drawing = gaussians([(6.0, 5.1)], 13, 1, 0.8) + 0.5 * gaussians([(6.2, 7.1)], 13, 1, 0.8)
    assert_near(found(GaussianFits(0.8, 1)(drawing, 1)), [(6.0, 5.1)], 0.15)
    peaks = GaussianFits(0.8, 3)(drawing, 3)
    second = torch.nonzero(peaks.score[:, 1] > 0.3)
    assert second.tolist() == [[0, 6, 7]]
    assert math.dist((6 + peaks.dy[0, 1, 6, 7], 7 + peaks.dx[0, 1, 6, 7]), (6.2, 7.1)) < 0.3
    assert peaks.score[0, 1, 6, 7] == pytest.approx(0.5, abs=0.1)
    assert peaks.score.shape == (1, 3, 13, 13)


# ---- watershed


def cones(places, size_px, upsampling, radius_px, highest=10):
    """One-hot logits of the quantised landscape."""
    centre = (torch.arange(size_px * upsampling) + 0.5) / upsampling - 0.5
    height = torch.zeros(len(centre), len(centre))
    for y, x in places:
        distance = torch.hypot((centre[:, None] - y).expand_as(height), (centre[None] - x).expand_as(height))
        height = torch.maximum(height, (1 - (distance - 0.5 / upsampling).clamp_min(0) / radius_px).clamp_min(0))
    level = (highest * height).floor().long()
    return 30.0 * torch.nn.functional.one_hot(level, highest + 1).movedim(-1, 0)[None].float()


def test_islands_are_as_many_as_molecules_that_stand_apart():
    # Theory: they part beyond 2 · 1.5 px · (1 − 8/10) = 0.6 px, and the tip's width.
    for distance, islands in ((0.4, 1), (1.3, 2)):
        places = [(6.0, 5.0), (6.0, 5.0 + distance)]
        peaks = Watershed(4)(cones(places, 13, 4, 1.5), 2)
        assert len(found(peaks)) == islands
        if islands == 2:
            assert_near(found(peaks), places, 0.08)
        assert peaks.score.max() == pytest.approx(1.0, abs=1e-3)


def test_islands_of_different_scenes_do_not_touch():
    drawing = torch.cat((cones([(3.1, 4.2)], 9, 4, 1.5), cones([(3.1, 4.2), (6.8, 2.0)], 9, 4, 1.5)))
    peaks = Watershed(4)(drawing, 2)
    assert [(peaks.score[k] > 0).sum().item() for k in (0, 1)] == [1, 2]


def test_two_islands_of_one_camera_pixel_are_ranked():
    places = [(4.62, 4.62), (5.45, 5.45), (4.6, 5.42)]
    peaks = Watershed(8)(cones(places, 10, 8, 0.8), 2)
    assert (peaks.score > 0).sum() == 2 or (peaks.score > 0).sum() == 3
    assert ((peaks.score[0, 1] > 0) <= (peaks.score[0, 0] > 0)).all()


# ---- networks that draw


def a_network(read_out, **changes):
    torch.manual_seed(3)
    settings = NetworkSettings(channels=8, blocks=1, read_out=read_out, **{**DRAWN[read_out], **changes})
    network = build_network(settings).eval()
    with torch.no_grad():  # a lively drawing
        network.head.weight *= 60
    return network


@pytest.mark.parametrize("read_out", list(DRAWN))
def test_a_drawing_network_says_where_molecules_are(read_out):
    network = a_network(read_out)
    assert isinstance(network, MapNetwork)
    torch.manual_seed(4)
    field = network(50 + 10 * torch.randn(2, 1, 20, 24), torch.tensor([1.1, 1.3]))
    n = network.n_candidates
    assert field.logit.shape == field.dx.shape == field.log_sigma_x.shape == (2, n, 20, 24)
    assert field.background.shape == (2, 20, 24)
    assert all(torch.isfinite(part).all() for part in field)
    assert (field.dx.abs() <= network.reach_px + 1e-6).all()
    present = field.logit > -29
    assert present.any() or read_out == "watershed"


@pytest.mark.parametrize("read_out", list(DRAWN))
@torch.no_grad()
def test_tiles_equal_the_whole_frame(read_out):
    network = a_network(read_out)
    torch.manual_seed(5)
    image, width = 50 + 30 * torch.rand(1, 1, 70, 64), torch.tensor([1.1])
    whole, tiled = network(image, width), predict_tiled(network, image, width, tile_px=29)
    # Rounds of subtraction chain in a random drawing, and islands of noise have any size: most must agree.
    same = (whole.logit - tiled.logit).abs() < 1e-3
    share = 0.97 if read_out in ("fits", "watershed") else 1.0
    assert same.float().mean() >= share
    if share == 1.0:
        assert torch.allclose(whole.dx, tiled.dx, atol=1e-4)


def test_fits_are_drawn_in_camera_pixels():
    with pytest.raises(ValueError, match="upsampling = 4 does not go with read_out = 'fits'"):
        NetworkSettings(read_out="fits", upsampling=4)
