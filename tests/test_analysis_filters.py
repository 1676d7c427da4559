"""Conditions, regions and neighbours: what is kept, what is refused, what is remembered."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlm_pb.analysis import filter_by, filter_neighbours, filter_region
from smlm_pb.cli.main import main
from smlm_pb.errors import ConfigurationError, SmlmPbError, TableError
from smlm_pb.localizations import Localizations, MovieInfo

INFO = MovieInfo(n_frames=50, height=64, width=64, pixel_size_nm=100.0)


@pytest.fixture(scope="module")
def locs():
    rng = np.random.default_rng(0)
    n = 400
    columns = {
        "frame": rng.integers(0, 50, n),
        "x": rng.uniform(0, 63, n),
        "y": rng.uniform(0, 63, n),
        "photons": rng.uniform(50, 2000, n),
        "sigma_x": rng.uniform(0.05, 0.4, n),
        "sigma_y": rng.uniform(0.05, 0.4, n),
        "label": np.where(rng.random(n) < 0.5, "good", "bad"),
    }
    return Localizations(columns, INFO)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("photons > 500", lambda t: t.photons > 500),
        ("photons > 500 and sigma_nm < 20", lambda t: (t.photons > 500) & (t.derived("sigma_nm") < 20)),
        (
            "(photons > 500) & (sigma_x < .2) | (frame == 3)",
            lambda t: (t.photons > 500) & (t.sigma_x < 0.2) | (t.frame == 3),
        ),
        ("5 < sigma_x_nm <= 20", lambda t: (t.sigma_x * 100 > 5) & (t.sigma_x.astype(float) * 100 <= 20)),
        ("not (x < 10 or y < 10)", lambda t: (t.x >= 10) & (t.y >= 10)),
        ("frame % 2 == 1", lambda t: t.frame % 2 == 1),
        ("frame - 25 < -5", lambda t: t.frame < 20),
        ("hypot(x - 32, y - 32) < 15", lambda t: np.hypot(t.x - 32.0, t.y - 32.0) < 15),
        ("photons > percentile(photons, 90)", lambda t: t.photons > np.percentile(t.photons, 90)),
        ("sigma_x / sigma_y > 1", lambda t: t.sigma_x > t.sigma_y),
        ("label == 'good'", lambda t: t["label"] == "good"),
        ("-x > -20 and +y > 1e1", lambda t: (t.x < 20) & (t.y > 10)),
        ("photons**0.5 > 30", lambda t: t.photons > 900),
    ],
)
def test_conditions_keep_the_right_rows(locs, expression, expected):
    kept = filter_by(locs, expression)

    assert np.array_equal(kept.x, locs.x[expected(locs)])
    assert 0 < len(kept) < len(locs)


def test_a_constant_condition_applies_to_all(locs):
    assert len(filter_by(locs, "1 < 2")) == len(locs)
    assert len(filter_by(locs, "True and 2 < 1")) == 0


def test_unknown_values_fulfil_no_comparison(locs):
    odd = locs.select(slice(0, 3)).with_columns(chi2=[1.0, np.nan, 3.0])

    assert len(filter_by(odd, "chi2 < 2 or chi2 >= 2")) == 2
    assert len(filter_by(odd, "isfinite(chi2)")) == 2


def test_the_history_tells_every_step(locs):
    kept = filter_by(filter_by(locs, "photons > 500"), "sigma_nm < 30")

    first, second = kept.provenance[-2:]
    assert first["condition"] == "photons > 500"
    assert first["rows_before"] == len(locs)
    assert second["rows_after"] == len(kept)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("photons >", "Cannot read the condition"),
        ("", "Cannot read the condition"),
        ("photons = 5", "Cannot read the condition"),
        ("photon > 5", "did you mean 'photons'"),
        ("photons", "is no condition but a number"),
        ("photons and x > 5", "is a number, not a condition"),
        ("__import__('os').system('true')", "Unknown function"),
        ("photons.max() > 3", "Unknown function"),
        ("[p for p in photons]", "not allowed"),
        ("(lambda: 1)() > 0", "Unknown function"),
        ("photons.__class__ == 3", "not allowed"),
        ("x[0] > 3", "not allowed"),
        ("photons in x", "not allowed"),
        ("f'{x}' == 'a'", "not allowed"),
        ("eval('1') > 0", "Unknown function"),
        ("sqrt(photons, photons, photons, photons) > 1", "cannot be computed"),
        ("label > 5", "cannot be computed"),
        ("x << 2 > 1", "not allowed"),
        ("9**9**9**9 > 1", "cannot be computed|."),
        ("(" * 500 + "x" + ")" * 500 + " > 1", "nested too deeply|Cannot read"),
    ],
)
def test_everything_else_is_refused_in_one_line(locs, expression, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        filter_by(locs, expression)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_gives_a_table_or_one_of_our_errors(text):
    small = Localizations({"frame": [0, 1], "x": [1, 2], "y": [1, 2], "photons": [5, 6]}, INFO)
    with contextlib.suppress(SmlmPbError):
        assert len(filter_by(small, text)) <= 2


def test_derived_lengths_need_the_pixel_size(locs):
    with pytest.raises(TableError, match="pixel size"):
        filter_by(locs.with_info(MovieInfo(50, 64, 64)), "sigma_nm < 20")


def test_rectangle_and_polygon_agree(locs):
    rectangle = filter_region(locs, (10, 20, 40, 50))
    polygon = filter_region(locs, [(10, 20), (10, 50), (40, 50), (40, 20)])

    inside = (locs.y >= 10) & (locs.y < 40) & (locs.x >= 20) & (locs.x < 50)
    assert np.array_equal(rectangle.x, locs.x[inside])
    assert np.array_equal(polygon.x, locs.x[inside])
    assert len(filter_region(locs, (10, 20, 40, 50), outside=True)) == len(locs) - len(rectangle)


def test_triangle_cuts_the_corner(locs):
    kept = filter_region(locs, [(0, 0), (0, 63), (63, 0)])

    assert np.array_equal(kept.x, locs.x[locs.x + locs.y < 63])


def test_impossible_regions_are_named(locs):
    for region in ((5, 5, 5, 9), (1, 2, 3), [(0, 0), (1, 1)], (0, 0, np.inf, 1)):
        with pytest.raises(ConfigurationError, match="region"):
            filter_region(locs, region)


def test_lonely_rows_go():
    crowd = np.array([10.0, 10.1, 10.2, 10.3])
    table = Localizations({"frame": range(5), "x": [*crowd, 40.0], "y": np.full(5, 10.0)}, INFO)

    assert filter_neighbours(table, radius_nm=50, min_neighbours=2).x == pytest.approx(crowd)
    assert len(filter_neighbours(table, radius_nm=11, min_neighbours=2)) == 2
    assert len(filter_neighbours(table, radius_nm=11, min_neighbours=0)) == 5
    assert len(filter_neighbours(table.select(slice(0, 0)), radius_nm=11, min_neighbours=1)) == 0
    with pytest.raises(ConfigurationError, match="radius_nm above 0"):
        filter_neighbours(table, radius_nm=0, min_neighbours=1)
    with pytest.raises(TableError, match="give pixel_size_nm"):
        filter_neighbours(table.with_info(MovieInfo(5, 64, 64)), radius_nm=5, min_neighbours=1)


def test_command_applies_all_conditions_in_turn(locs, tmp_path, capsys):
    path, out = tmp_path / "movie_locs.hdf5", tmp_path / "kept.csv"
    locs.without_columns("label").save(path)
    conditions = ["photons > 300", "sigma_nm < 30"]

    assert main(["filter", str(path), *conditions, "--roi", "5", "5", "60", "60", "--out", str(out)]) == 0

    assert "molecules kept" in capsys.readouterr().err
    expected = filter_region(filter_by(filter_by(locs, conditions[0]), conditions[1]), (5, 5, 60, 60))
    assert len(Localizations.load(out, pixel_size_nm=100)) == len(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is no condition"),
        (["photon > 5"], "did you mean 'photons'"),
        (["--min-neighbours", "3"], "belong together"),
    ],
)
def test_command_refuses_in_one_line_and_writes_nothing(locs, tmp_path, capsys, arguments, message):
    path = tmp_path / "movie_locs.hdf5"
    locs.without_columns("label").save(path)
    before = set(tmp_path.iterdir())

    assert main(["filter", str(path), *arguments]) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert set(tmp_path.iterdir()) == before
