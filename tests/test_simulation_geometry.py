"""Structures: where their molecules lie."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from smlm_pb.simulation.geometry import (
    Box,
    Mixture,
    Uniform,
    random_clusters,
    random_filaments,
    random_rings,
)
from smlm_pb.simulation.rendering import render_separable, render_tiled, smooth_background
from smlm_pb.simulation.structures import Grid, Star

BOX = Box.around_frame((64, 80), 8.0)


@pytest.fixture
def rng():
    return np.random.default_rng(12)


def test_box_counts_from_the_outer_edge_of_the_first_pixel():
    box = Box.around_frame((3, 5), 0)
    assert (box.x_min, box.x_max, box.y_min, box.y_max) == (-0.5, 4.5, -0.5, 2.5)
    inside = box.contains(np.array([-0.5, 4.5, 4.49, 2.0]), np.array([0.0, 0.0, 2.49, 2.5]))
    assert inside.tolist() == [True, False, True, False]


def test_filament_molecules_lie_within_its_width(rng):
    filaments = random_filaments(rng, BOX, 6, width_px=0.4, bend_per_sqrt_px=0.05)
    x, y = filaments.sample(rng, 4000)
    t = np.linspace(0, 1, 41)[:, None]
    axis = np.column_stack([(filaments.x + t * filaments.dx).ravel(), (filaments.y + t * filaments.dy).ravel()])
    distance, _ = cKDTree(axis).query(np.column_stack([x, y]))
    assert distance.max() < 0.2 + 0.02
    assert distance.mean() == pytest.approx(0.1, abs=0.01)  # flat profile: a quarter of the width


def test_filament_bending_follows_the_persistence_length(rng):
    """A worm-like chain in the plane: ⟨cos Δθ⟩ = exp(−s / 2P) with P = 1 / bend²."""
    bend, s = 0.2, 20
    everywhere = Box(-1e4, 1e4, -1e4, 1e4)
    cosines = []
    for _ in range(400):
        one = random_filaments(rng, everywhere, 1, bend_per_sqrt_px=bend, curvature_per_px=0, length_px=60)
        heading = np.arctan2(one.dy, one.dx)
        cosines.append(np.cos(heading[s:] - heading[:-s]).mean())
    assert np.mean(cosines) == pytest.approx(np.exp(-(bend**2) * s / 2), abs=0.04)


def test_rings_have_their_radius_and_corners(rng):
    rings = random_rings(rng, BOX, 1, radius_px=(3.0, 3.0), corners=8, width_px=0.01)
    x, y = rings.sample(rng, 3000)
    radius = np.hypot(x - rings.x[0], y - rings.y[0])
    assert radius == pytest.approx(np.full(3000, 3.0), abs=0.06)
    turn = (np.arctan2(y - rings.y[0], x - rings.x[0]) - rings.phase[0]) / (2 * np.pi) * 8
    assert np.abs(turn - np.rint(turn)).max() < 0.05


def test_clusters_have_their_width(rng):
    clusters = random_clusters(rng, BOX, 1, sigma_px=(1.5, 1.5))
    x, y = clusters.sample(rng, 5000)
    assert np.std(x) == pytest.approx(1.5, rel=0.05)
    assert np.mean(y) == pytest.approx(clusters.y[0], abs=0.1)


def test_mixture_shares_out_its_molecules(rng):
    left, right = Uniform(Box(0, 1, 0, 1)), Uniform(Box(10, 11, 0, 1))
    x, _ = Mixture((left, right), (1.0, 3.0)).sample(rng, 8000)
    assert np.mean(x > 5) == pytest.approx(0.75, abs=0.02)


def test_grid_uses_every_node_once_before_any_twice(rng):
    grid = Grid(np.arange(6.0) * 10, np.zeros(6), 0.5)
    x, y = grid.sample(rng, 6)
    assert sorted(np.rint(x / 10)) == list(range(6))
    assert np.abs(y).max() <= 0.5
    assert grid.sample(rng, 15)[0].size == 15
    assert grid.sample(rng, 0)[0].size == 0


def test_star_fills_half_the_circle(rng):
    x, y = Star(10.0, 20.0, 5.0, 6).sample(rng, 4000)
    assert np.hypot(x - 10, y - 20).max() <= 5
    turn = np.arctan2(y - 20, x - 10) / (2 * np.pi) * 6 % 1
    assert turn.max() <= 0.5 + 1e-9


@pytest.mark.parametrize("make", [random_filaments, random_rings, random_clusters])
def test_structures_can_be_sampled_for_nothing(rng, make):
    x, y = make(rng, BOX, 3).sample(rng, 0)
    assert x.size == y.size == 0


def test_tiles_do_not_change_the_image(rng):
    x, y = BOX.uniform(rng, 300)
    photons, sigma = rng.uniform(100, 5000, 300), rng.uniform(0.8, 1.6, 300)
    whole = render_separable(x, y, photons, sigma, (64, 80))
    tiled = render_tiled(x, y, photons, sigma, (64, 80), tile_px=24)
    assert np.abs(whole - tiled).max() < 1e-4


@pytest.mark.parametrize("kind", ["gradient", "blobs", "haze", None])
def test_backgrounds_are_positive_smooth_and_of_mean_one(rng, kind):
    for _ in range(10):
        field = smooth_background(rng, (40, 56), Uniform(BOX), kind=kind)
        assert field.shape == (40, 56)
        assert field.min() >= 0
        assert field.mean() == pytest.approx(1)
        steps = max(np.abs(np.diff(field, axis=0)).max(), np.abs(np.diff(field, axis=1)).max())
        assert steps < 0.25 * field.max()
