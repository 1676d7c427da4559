"""Calibration targets: the generator, the lattice, maps, and what the shipped network finds."""

import json
import math

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from smlm_pb.calibration.boards import KINDS, BoardSettings, draw_board
from smlm_pb.calibration.detection import find_points, load_network
from smlm_pb.calibration.grid import calibrate_grid
from smlm_pb.calibration.lattice import find_lattice
from smlm_pb.calibration.registration import register_grids
from smlm_pb.calibration.transform import Transform, exponents
from smlm_pb.calibration.transform_fit import fit_transform
from smlm_pb.cli.main import main
from smlm_pb.errors import ConfigurationError, ModelError, MovieError, TableError
from smlm_pb.localization import list_models
from smlm_pb.localizations import Localizations, MovieInfo

SIZE = 160


def holes(*, pitch=8.0, magnification=1.0, angle=0.03, shift=(0.0, 0.0), radial=0.0, seed=0, size=SIZE):
    """A picture of Gaussian holes, and their true positions in a fixed order."""
    rng = np.random.default_rng(seed)
    u, v = (a.ravel() * pitch * magnification for a in np.meshgrid(np.arange(-30, 31), np.arange(-30, 31)))
    x, y = math.cos(angle) * u - math.sin(angle) * v, math.sin(angle) * u + math.cos(angle) * v
    stretch = 1 + radial * (x**2 + y**2) / (size / 2) ** 2
    x, y = x * stretch + (size - 1) / 2 + shift[0], y * stretch + (size - 1) / 2 + shift[1]
    k = np.arange(size)
    near = (x > -6) & (x < size + 6) & (y > -6) & (y < size + 6)
    image = 60.0 + 600.0 * np.exp(-0.5 * ((k - y[near, None]) / 1.2) ** 2).T @ np.exp(
        -0.5 * ((k - x[near, None]) / 1.2) ** 2
    )
    return rng.poisson(image).astype(np.uint16), np.stack((x, y), axis=1)


# -- the generator -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_true_points_lie_where_the_picture_has_them(kind):
    # Corners and holes look the same after half a turn about their true place, and not about a place beside it.
    calm = BoardSettings(filled_fraction=1.0, noise=(1e-4, 1e-3), effects=(1, 4), hole_pitch_px=(8.0, 11.0))
    turn = np.arange(0, 2 * np.pi, np.pi / 12)
    ring = np.concatenate([r * np.stack((np.sin(turn), np.cos(turn))) for r in (1.0, 2.2, 3.4)], axis=1)
    for seed in range(4):
        board = draw_board(np.random.default_rng(seed), calm, 128, kind=kind)

        def asymmetry(y, x, image=board.image):
            there, back = (map_coordinates(image, [y + s * ring[0], x + s * ring[1]], order=3) for s in (1, -1))
            return np.abs(there - back).mean()

        better = [
            asymmetry(y, x) < min(asymmetry(y + dy, x + dx) for dy, dx in ((0.3, 0), (-0.3, 0), (0, 0.3), (0, -0.3)))
            for x, y in zip(board.x, board.y, strict=True)
            if 6 < x < 121 and 6 < y < 121
        ]
        assert np.mean(better) > 0.9


def test_the_same_seed_draws_the_same_board_and_empty_ones_have_no_points():
    boards = [draw_board(np.random.default_rng(7), BoardSettings(), 96) for _ in range(2)]
    assert np.array_equal(boards[0].image, boards[1].image)
    empty = draw_board(np.random.default_rng(0), BoardSettings(), 64, kind="empty")
    assert len(empty.x) == 0
    assert np.isfinite(empty.image).all()


# -- the lattice -------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_places_follow_perspective_gaps_and_false_points(seed):
    rng = np.random.default_rng(seed)
    board = draw_board(rng, BoardSettings(filled_fraction=1.0, hole_pitch_px=(7, 14)), SIZE, kind="holes")
    kept = rng.random(len(board.x)) > 0.05
    true = np.stack((board.x, board.y), axis=1)[kept] + rng.normal(0, 0.1, (int(kept.sum()), 2))
    positions = np.concatenate((true, rng.uniform(0, SIZE, (3, 2))))
    lattice = find_lattice(positions)
    real = lattice.point < len(true)
    assert real.sum() > 0.9 * len(true)
    places = np.column_stack((lattice.places[real], np.ones(real.sum())))
    expected = np.stack((board.column, board.row), axis=1)[kept][lattice.point[real]]
    fit = np.linalg.lstsq(places, expected, rcond=None)[0]
    assert np.abs(expected - places @ fit).max() < 1e-6  # one lattice is the other, turned and shifted


def test_points_without_order_make_no_lattice():
    rng = np.random.default_rng(0)
    with pytest.raises(MovieError, match="No lattice: only 4 points"):
        find_lattice(rng.uniform(0, 100, (4, 2)))
    line = np.stack((np.arange(20) * 5.0, np.zeros(20)), axis=1)
    with pytest.raises(MovieError, match="No lattice: 20 points"):
        find_lattice(line)


# -- maps --------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(order=st.integers(1, 4), seed=st.integers(0, 1000))
def test_a_polynomial_is_found_again_in_spite_of_outliers(order, seed):
    rng = np.random.default_rng(seed)
    source = rng.uniform(0, 200, (200, 2))
    coefficients = rng.normal(0, 1, (2, len(exponents(order)))) * 5
    true = Transform("register", order, coefficients, np.array([100.0, 100.0]), 100.0, (0, 0, 200, 200))
    target = true(source) + rng.normal(0, 0.01, source.shape)
    target[:6] += 20
    fit = fit_transform(source, target, purpose="register", order=order)
    assert not fit.used[:6].any()
    assert np.abs(fit.transform(source[6:]) - true(source[6:])).max() < 0.05
    step = 1e-4 * np.eye(2)
    numeric = np.stack([(true(source + s) - true(source - s)) / 2e-4 for s in step], axis=2)
    assert np.allclose(true.jacobian(source), numeric, atol=1e-6)


def test_no_higher_order_than_the_points_call_for():
    rng = np.random.default_rng(1)
    source = rng.uniform(0, 200, (300, 2))
    affine = source @ np.array([[1.01, 0.02], [-0.02, 0.99]]) + (3, -2) + rng.normal(0, 0.05, source.shape)
    assert fit_transform(source, affine, purpose="register").transform.order == 1
    bent = affine + 1e-6 * (source - 100) ** 3
    assert fit_transform(source, bent, purpose="register").transform.order == 3
    with pytest.raises(TableError, match="too few"):
        fit_transform(source[:5], affine[:5], purpose="register")


def test_a_map_moves_a_table_and_survives_its_file(tmp_path):
    shift = Transform(
        "register", 1, np.array([[5.0, 2.0, 0.0], [7.0, 0.0, 1.0]]), np.zeros(2), 1.0, (0, 0, 50, 50), 90.0, 64, 60
    )
    again = Transform.load(shift.save(tmp_path / "t.json"))
    locs = Localizations(
        {"frame": [0, 1], "x": [10.0, 60.0], "y": [20.0, 1.0], "sigma_x": [0.1, 0.1], "sigma_y": [0.2, 0.2]},
        MovieInfo(2, 64, 64, 100.0),
    )
    moved, outside = again.apply(locs)
    assert moved["x"].tolist() == [25.0, 125.0]
    assert moved["y"].tolist() == [27.0, 8.0]
    assert moved["sigma_x"] == pytest.approx([0.2, 0.2])
    assert moved["sigma_y"] == pytest.approx([0.2, 0.2])
    assert (outside, moved.info.pixel_size_nm, moved.info.width) == (1, 90.0, 60)
    assert len(again.apply(locs, drop_outside=True)[0]) == 1
    (tmp_path / "bad.json").write_text('{"format": "other"}')
    with pytest.raises(ConfigurationError, match="no transform"):
        Transform.load(tmp_path / "bad.json")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Transform.load(tmp_path / "none.json")


# -- what the shipped network finds ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_points_of_unseen_targets_are_found_precisely(kind):
    error, missed, n = [], 0, 0
    for seed in range(8):
        rng = np.random.default_rng([123, seed])
        board = draw_board(rng, BoardSettings(filled_fraction=0.0, noise=(0.01, 0.05)), SIZE, kind=kind)
        found = find_points(board.image, kind=kind)
        distance = np.hypot(board.x[:, None] - found.x, board.y[:, None] - found.y).min(1, initial=9.0)
        error += distance[distance < 2].tolist()
        missed, n = missed + int((distance >= 2).sum()), n + len(distance)
    assert missed <= 0.05 * n
    assert np.mean(error) < 0.2


def test_pixel_size_and_distortion_are_measured():
    image, _ = holes(pitch=8.0, radial=0.01)
    found = calibrate_grid(image, pitch_nm=800.0)
    assert found.pixel_size_nm == pytest.approx(100.0, abs=max(0.1, 4 * found.pixel_size_error_nm))
    assert found.axes_angle_deg == pytest.approx(90.0, abs=0.1)
    assert found.rotation_deg == pytest.approx(math.degrees(0.03), abs=0.1)
    assert found.residual_px < 0.1
    assert found.warnings == []
    # Undistorted, the holes lie on a square lattice.
    positions, places = found.undistort(found.found.positions), found.found.lattice.places
    square = np.column_stack((places, np.ones(len(places))))
    fit = np.linalg.lstsq(square, positions, rcond=None)[0]
    assert np.sqrt(np.mean((positions - square @ fit) ** 2)) < 0.1
    assert np.hypot(*fit[0]) == pytest.approx(8.0, rel=2e-3)


def test_two_channels_come_together():
    reference, at_reference = holes()
    moving, at_moving = holes(magnification=1.008, angle=0.034, shift=(1.4, -0.8), seed=1)
    found = register_grids(reference, moving, pixel_size_nm=100.0)
    inside = ((at_moving > 5) & (at_moving < SIZE - 6) & (at_reference > 5) & (at_reference < SIZE - 6)).all(1)
    error = found.transform(at_moving[inside]) - at_reference[inside]
    assert np.sqrt((error**2).sum(1).mean()) < 0.05
    assert found.held_out_px < 0.15
    assert found.warnings == []


def test_a_shift_of_nearly_half_a_pitch_is_called_ambiguous_unless_told():
    reference, at_reference = holes()
    moving, at_moving = holes(shift=(11.4, 0.0), seed=2)
    wrong = register_grids(reference, moving)
    assert any("shift_px" in text for text in wrong.warnings)
    right = register_grids(reference, moving, shift_px=(-11.0, 0.0))
    inside = ((at_moving > 5) & (at_moving < SIZE - 6) & (at_reference > 5) & (at_reference < SIZE - 6)).all(1)
    assert np.abs(right.transform(at_moving[inside]) - at_reference[inside]).max() < 0.2
    assert right.warnings == []


def test_pictures_that_show_no_target_are_refused_in_one_line():
    rng = np.random.default_rng(0)
    with pytest.raises(MovieError, match="No lattice"):
        calibrate_grid(rng.normal(100, 5, (96, 96)), pitch_nm=500)
    with pytest.raises(MovieError, match="same value everywhere"):
        calibrate_grid(np.ones((96, 96)), pitch_nm=500)
    with pytest.raises(MovieError, match="too small"):
        find_points(np.eye(8), kind="holes")
    with pytest.raises(MovieError, match="one frame"):
        find_points(np.zeros((3, 64, 64)), kind="holes")
    with pytest.raises(ConfigurationError, match="kind of target"):
        find_points(np.eye(64), kind="dots")
    with pytest.raises(ConfigurationError, match="pitch_nm"):
        calibrate_grid(np.eye(64), pitch_nm=0)


def test_the_model_for_targets_is_no_model_for_molecules(tmp_path):
    assert "grid" not in [card.name for card in list_models()]
    assert sum(p.numel() for p in load_network().parameters()) < 200_000
    with pytest.raises(ModelError, match="no model for calibration targets"):
        load_network(tmp_path)


# -- the command -------------------------------------------------------------------------------------------


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, options in (("red", {}), ("green", {"shift": (1.0, 0.5), "seed": 1})):
        tifffile.imwrite(f"{name}.tif", np.stack([holes(**options)[0]] * 2))
    assert main(["calibrate", "grid", "red.tif", "--pitch-nm", "800", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pixel_size_nm"] == pytest.approx(100, abs=0.2)
    assert {p.name for p in (tmp_path / "red_grid").iterdir()} == {
        "grid.json",
        "points.csv",
        "undistort.json",
        "grid.png",
    }
    assert main(["calibrate", "register", "red.tif", "green.tif", "--pixel-size-nm", "100"]) == 0
    locs = Localizations({"frame": [0], "x": [80.0], "y": [80.0]}, MovieInfo(1, SIZE, SIZE, 100.0))
    locs.save("locs.csv")
    assert main(["calibrate", "apply", "green_register/transform.json", "locs.csv", "--out", "moved.csv"]) == 0
    moved = Localizations.load("moved.csv")
    assert moved["x"][0] == pytest.approx(79.0, abs=0.1)
    assert moved["y"][0] == pytest.approx(79.5, abs=0.1)
    capsys.readouterr()
    assert main(["calibrate", "grid", "red.tif", "--pitch-nm", "800"]) == 2
    assert "already holds" in capsys.readouterr().err


def test_a_target_can_be_drawn_and_the_network_trained(tmp_path, capsys):
    assert main(["calibrate", "simulate", "--out", str(tmp_path / "t.tif"), "--size-px", "64"]) == 0
    assert tifffile.imread(tmp_path / "t.tif").shape == (64, 64)
    train = ["-q", "calibrate", "train", "--steps", "2", "--out"]
    assert main([*train, str(tmp_path / "whole")]) == 0
    assert main([*train, str(tmp_path / "parts"), "--max-minutes", "0.00001"]) == 0
    assert not (tmp_path / "parts" / "grid.json").exists()
    assert main([*train, str(tmp_path / "parts"), "--resume"]) == 0
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    assert main(["calibrate", "train", "--steps", "2", "--out", str(tmp_path / "whole")]) == 2
