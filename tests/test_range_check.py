"""The alarm: quiet inside the model's range, and outside it names the quantity, the place and the remedy."""

import json
import warnings

import numpy as np
import pytest
from hand_made_model import PSF_SIGMA_PX, make_model, make_movie

from smlm_pb import Localizations, MovieInfo, localize, localize_to_file
from smlm_pb.analysis.report import build_report
from smlm_pb.camera import Camera
from smlm_pb.cli.localize import _outside
from smlm_pb.localization.range_check import FAR, INSIDE, NEAR, _levels
from smlm_pb.localization.range_tiles import MoleculesByTile, TileGrid, measure_tiles
from smlm_pb.localization.to_file import FileResult
from smlm_pb.movies import open_movie
from smlm_pb.simulation.rendering import render_separable

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def plain():
    return make_movie(40, (64, 64), per_frame=8, seed=3)[0]


def field(n_frames=40, size=64, *, sigma=lambda x: PSF_SIGMA_PX + 0 * x, background=20.0, seed=0):
    """Molecules of 2500 e⁻ whose width depends on x, on any background (a number or an image)."""
    rng = np.random.default_rng(seed)
    movie = []
    for _ in range(n_frames):
        x, y = rng.uniform(2, size - 3, (2, 12))
        expected = background + render_separable(x, y, np.full(12, 2500.0), sigma(x), (size, size))
        movie.append(rng.poisson(expected) + rng.normal(0, 1.6, (size, size)))
    return np.clip(np.rint(np.stack(movie) / 0.5 + 100), 0, 65535).astype(np.uint16)


def run(movie, model, **options):
    """Localize; returns the record of the alarm and its warnings."""
    options = {"psf_sigma_px": PSF_SIGMA_PX, **CAMERA, **options}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        table = localize(movie, model=model, **options)
    return table, table.provenance[-1]["range"], [str(one.message) for one in heard]


def test_inside_the_range_it_is_quiet(plain, model):
    _, record, heard = run(plain, model)
    assert record["level"] == INSIDE
    assert not np.any(record["tile_level"])
    assert heard == []
    assert np.array(record["quantities"]["background_e"]["tiles"]) == pytest.approx(20, rel=0.12)
    assert np.array(record["quantities"]["psf_sigma_px"]["tiles"]) == pytest.approx(PSF_SIGMA_PX, rel=0.1)


def test_a_bright_corner_is_found_named_and_stored(model):
    background = np.full((64, 64), 20.0)
    background[:32, 32:] = 700.0
    table, record, heard = run(field(background=background), model)
    assert record["quantities"]["background_e"]["tile_level"] == [[0, FAR], [0, 0]]
    assert record["tile_level"][0][1] == FAR
    (warning,) = [text for text in heard if "background" in text]
    assert "in 1 of 4 tiles (worst: x 32 to 63, y 0 to 31)" in warning
    assert "propose_like" in warning
    assert table.provenance[-1]["warnings"][-1] == heard[-1]
    json.dumps(record, allow_nan=False)


def test_a_tilted_sample_is_found_by_its_width(model):
    movie = field(60, sigma=lambda x: np.where(x > 32, 1.45, PSF_SIGMA_PX), seed=2)
    _, record, heard = run(movie, model)
    level = np.array(record["quantities"]["psf_sigma_px"]["tile_level"])
    assert (level[:, 1] > 0).all()
    assert (level[:, 0] == 0).all()
    assert any("the PSF of 1.4" in text and "tilt of the sample" in text for text in heard)


def test_too_wide_a_psf_lies_outside_as_a_whole(tmp_path, plain):
    narrow = make_model(tmp_path, psf_sigma_px=(0.6, 0.8))
    _, record, heard = run(plain, narrow)
    assert record["level"] == FAR
    assert record["quantities"]["psf_sigma_px"]["level"] == FAR
    assert sum("PSF" in text for text in heard) == 1, "said once, for the movie, not again for its tiles"


def test_a_width_that_was_given_wrongly_is_told(plain, model):
    _, _, heard = run(plain, model, psf_sigma_px=1.5)
    (warning,) = [text for text in heard if "PSF measures 1.1" in text or "PSF measures 1.0" in text]
    assert "but 1.5 px were given" in warning


def test_brightness_and_density_by_tile(tmp_path):
    """Half of the field is crowded for this model."""
    rng = np.random.default_rng(1)
    info = MovieInfo(30, 64, 64, 100.0)
    left = {"x": rng.uniform(0, 31, 600), "y": rng.uniform(0, 63, 600), "photons": np.full(600, 900.0)}
    tiles = MoleculesByTile(TileGrid.of_frame(64, 64))
    columns = {"frame": rng.integers(0, 30, 600), "background": np.full(600, 7.0), **left}
    tiles.add(Localizations(columns, info))
    assert tiles.count.sum() == 600
    assert (tiles.count[:, 1] == 0).all()
    assert tiles.typical_photons(20)[:, 0] == pytest.approx(900, rel=1e-5)
    assert np.isnan(tiles.typical_photons(20)[:, 1]).all()
    assert tiles.mean_background(20)[:, 0] == pytest.approx(7)


@pytest.mark.parametrize(
    ("value", "trained", "level"),
    [
        (50, (10, 100), INSIDE), (120, (10, 100), INSIDE), (130, (10, 100), NEAR), (300, (10, 100), FAR),
        (9, (10, 100), INSIDE), (7, (10, 100), NEAR), (4, (10, 100), FAR),
        (0, (0, 100), INSIDE), (np.nan, (10, 100), INSIDE),
    ],
)  # fmt: skip
def test_levels(value, trained, level):
    assert _levels(np.array([value], dtype=float), trained, 1.25, 2.0)[0] == level


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (100, 70), (512, 512), (2048, 1000), (1, 5000)])
def test_tiles_cover_the_frame_once(size):
    grid = TileGrid.of_frame(*size)
    assert grid.area_px2.sum() == size[0] * size[1]
    assert max(grid.rows, grid.columns) <= 9
    y, x = np.meshgrid(np.linspace(-0.5, size[0] - 0.51, 40), np.linspace(-0.5, size[1] - 0.51, 40))
    index = grid.index(y.ravel(), x.ravel())
    assert set(index) <= set(range(grid.rows * grid.columns))


def test_a_short_movie_tells_no_widths(plain):
    movie = open_movie(plain[:5])
    measured = measure_tiles(movie, Camera(100, 0.5), TileGrid.of_frame(64, 64), (0, 5))
    assert np.isnan(measured.psf_sigma_px).all()


def test_electron_multiplication_does_not_shift_the_range(tmp_path, model):
    """The card is in effective electrons, half of the photo-electrons that a multiplying camera detects."""
    movie = field(40, background=300.0)
    plain_camera = run(movie, model)[1]["quantities"]["background_e"]
    multiplying = run(movie, model, em_gain=2.0, e_per_adu=1.0)[1]["quantities"]["background_e"]
    assert plain_camera["trained"] == [0.0, 200.0]
    assert multiplying["trained"] == [0.0, 400.0]
    assert plain_camera["level"] == NEAR
    assert multiplying["level"] == INSIDE


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_file_the_command_and_the_report_show_it(tmp_path, model):
    background = np.full((64, 64), 20.0)
    background[:32, 32:] = 700.0
    path = localize_to_file(field(background=background), tmp_path, model=model, psf_sigma_px=PSF_SIGMA_PX, **CAMERA)
    table = Localizations.load(path)
    step = table.provenance[-1]
    assert step["range"]["tile_level"][0][1] == FAR
    line = _outside(FileResult(path, step, 1.0, 1))
    assert "in 1 of 4 tiles (background" in line
    page = build_report(table)
    assert "Inside the model’s range?" in page or "Inside the model&#x27;s range?" in page
    assert "1 of 4 parts of the field lie outside" in page
    assert "map of the parts outside" in page


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_report_says_so_when_all_is_inside(plain, model):
    page = build_report(run(plain, model)[0])
    assert "all its parts lie inside what the model was trained for" in page
    assert "map of the parts outside" not in page
