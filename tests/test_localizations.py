"""The table: what it accepts, refuses, and gives back."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from smlm_pb.errors import TableError
from smlm_pb.localizations import COLUMN_BY_NAME, COLUMNS, CORE_COLUMNS, Localizations, MovieInfo

INFO = MovieInfo(n_frames=10, height=48, width=64, pixel_size_nm=120.0, name="movie.tif")


def make(n=4, **extra):
    rng = np.random.default_rng(n)
    columns = {
        "frame": np.arange(n) % 10,
        "x": rng.uniform(0, 63, n),
        "y": rng.uniform(0, 47, n),
        "photons": rng.uniform(200, 9000, n),
        "sigma_x": rng.uniform(0.05, 0.2, n),
        "sigma_y": rng.uniform(0.05, 0.2, n),
    }
    return Localizations({**columns, **extra}, INFO, [{"step": "test"}])


def test_columns_are_declared_once_with_unit_and_meaning():
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    assert {column.name for column in COLUMNS if column.required} == {"frame", "x", "y"}
    assert all(column.meaning for column in COLUMNS)
    assert all(np.dtype(column.dtype).kind in "iuf" for column in COLUMNS)
    assert set(CORE_COLUMNS) <= set(names)


def test_foreign_names_carry_their_unit():
    first, second = COLUMN_BY_NAME["sigma_x"].foreign_names("thunderstorm")
    assert (first.name, first.unit, str(first)) == ("uncertainty_xy", "nm", "uncertainty_xy [nm]")
    assert (second.name, second.unit) == ("uncertainty", "nm")
    assert COLUMN_BY_NAME["sigma_x"].foreign_names("picasso")[0].unit == "px"
    assert COLUMN_BY_NAME["sigma_x"].foreign_names("unheard-of") == ()


def test_a_column_survives_pickling():
    assert pickle.loads(pickle.dumps(COLUMNS)) == COLUMNS


def test_types_are_those_of_the_declaration():
    locs = make(3, tag=np.array(["a", "b", "c"]), score=np.arange(3, dtype="i2"))
    assert locs["frame"].dtype == np.uint32
    assert locs.x.dtype == np.float32
    assert locs.score.dtype == np.int16
    assert list(locs.tag) == ["a", "b", "c"]
    assert "tag" in locs
    assert "x" in dir(locs)


def test_right_types_are_not_copied():
    x = np.zeros(2, np.float32)
    assert Localizations({"frame": [0, 1], "x": x, "y": [0, 0]}, INFO).x is x


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"frame": [0], "x": [1.0]}, "required column y"),
        ({"x": [1.0]}, "required columns frame, y"),
        ({"frame": [0, 1], "x": [1.0, 2.0], "y": [1.0]}, r"x has 2 rows, but y \(1\)"),
        ({"frame": [0, 1], "x": [1.0, np.nan], "y": [1.0, 2.0]}, "x has 1 values that are not finite"),
        ({"frame": [0, 1], "x": [1.0, 2.0], "y": [-np.inf, 2.0]}, "y has 1 values that are not finite"),
        ({"frame": [0, -1], "x": [1.0, 2.0], "y": [1.0, 2.0]}, "frame must hold whole numbers.*row 1 has -1"),
        ({"frame": [0, 0.5], "x": [1.0, 2.0], "y": [1.0, 2.0]}, "row 1 has 0.5"),
        ({"frame": [0, np.nan], "x": [1.0, 2.0], "y": [1.0, 2.0]}, "row 1 has nan"),
        ({"frame": [0], "x": [[1.0]], "y": [1.0]}, r"x has shape \(1, 1\)"),
        ({"frame": [0], "x": ["left"], "y": [1.0]}, "must hold numbers"),
        ({"frame": [0], "x": [1.0], "y": [1.0], "odd": [1j]}, "odd has type complex"),
    ],
)
def test_impossible_columns_are_named(columns, message):
    with pytest.raises(TableError, match=message) as caught:
        Localizations(columns, INFO)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [{"n_frames": -1}, {"height": 1.5}, {"pixel_size_nm": 0.0}, {"pixel_size_nm": float("nan")}],
)
def test_impossible_movies_are_refused(arguments):
    with pytest.raises(TableError):
        MovieInfo(**{"n_frames": 1, "height": 1, "width": 1, **arguments})


def test_unknown_names_list_the_known_ones():
    with pytest.raises(TableError, match="no column 'sigma'; it has frame, x"):
        make()["sigma"]
    with pytest.raises(AttributeError, match="no attribute or column 'sigma'"):
        _ = make().sigma


def test_select_by_mask_indices_and_slice():
    locs = make(6)
    mask = locs.x > np.median(locs.x)
    assert len(locs.select(mask)) == 3
    assert np.array_equal(locs.select([4, 0]).x, locs.x[[4, 0]])
    assert len(locs.select(slice(None, 2))) == 2
    assert len(locs.select([])) == 0
    assert locs.select(mask).provenance == locs.provenance
    with pytest.raises(TableError, match="mask has shape"):
        locs.select(mask[:-1])
    with pytest.raises(TableError, match="outside the table"):
        locs.select([6])
    with pytest.raises(TableError, match="whole numbers"):
        locs.select([0.5])


def test_columns_come_and_go_without_touching_the_original():
    locs = make(3)
    more = locs.with_columns(group=2, x=locs.x + 1)
    assert list(more.group) == [2, 2, 2]
    assert np.allclose(more.x, locs.x + 1)
    assert "group" not in locs
    assert "group" not in more.without_columns("group", "never-there")
    with pytest.raises(TableError, match="required column x"):
        locs.without_columns("x")


def test_provenance_is_kept_and_cannot_be_changed_from_outside():
    locs = make().with_provenance({"step": "filter", "expression": "photons > 500"})
    assert [step["step"] for step in locs.provenance] == ["test", "filter"]
    locs.provenance.clear()
    locs.provenance[0]["step"] = "forged"
    assert [step["step"] for step in locs.provenance] == ["test", "filter"]


def test_concatenate():
    a, b = make(3), make(2)
    both = Localizations.concatenate([a, Localizations.empty(INFO), b])
    assert np.array_equal(both.x, np.concatenate([a.x, b.x]))
    assert both.provenance == a.provenance
    assert len(Localizations.concatenate([Localizations.empty(INFO)])) == 0
    with pytest.raises(TableError, match="differs in probability"):
        Localizations.concatenate([a, b.with_columns(probability=1.0)])
    with pytest.raises(TableError, match="those of table 1 are 160 nm, those of the first 120 nm"):
        Localizations.concatenate([a, b.with_info(MovieInfo(10, 48, 64, 160.0))])
    with pytest.raises(TableError, match="no table"):
        Localizations.concatenate([])


def test_the_end_of_a_table_is_behind_its_last_molecule():
    table = Localizations({"frame": [4, 7, 2], "x": [0.0] * 3, "y": [0.0] * 3}, MovieInfo(100, 5, 5))
    assert table.end_frame() == 8
    assert table.select(slice(0)).end_frame() == 0


def test_derived_quantities_are_nm():
    locs = make()
    assert np.allclose(locs.derived("x_nm"), locs.x.astype(float) * 120)
    expected = 120 * np.sqrt((locs.sigma_x.astype(float) ** 2 + locs.sigma_y.astype(float) ** 2) / 2)
    assert np.allclose(locs.derived("sigma_nm"), expected)
    with pytest.raises(TableError, match="Unknown derived quantity 'photons_nm'"):
        locs.derived("photons_nm")
    with pytest.raises(TableError, match="Unknown derived quantity 'x'"):
        locs.derived("x")
    with pytest.raises(TableError, match="give pixel_size_nm"):
        locs.with_info(MovieInfo(10, 48, 64)).derived("x_nm")


def test_empty_and_dataframe():
    empty = Localizations.empty(INFO)
    assert empty.column_names == CORE_COLUMNS
    assert len(empty) == 0
    frame = make(3).to_dataframe()
    assert list(frame.columns) == list(make(3).column_names)
    assert frame.attrs["info"]["pixel_size_nm"] == 120.0


def test_copies_and_pickles():
    locs = make()
    for other in (copy.deepcopy(locs), pickle.loads(pickle.dumps(locs))):
        assert np.array_equal(other.x, locs.x)
        assert other.info == locs.info
        assert other.provenance == locs.provenance


@given(
    x=hnp.arrays(np.float32, st.shared(st.integers(0, 30), key="n"), elements=st.floats(-10, 100, width=32)),
    mask=hnp.arrays(bool, st.shared(st.integers(0, 30), key="n")),
)
def test_selecting_a_mask_and_its_complement_loses_nothing(x, mask):
    locs = Localizations({"frame": np.zeros(len(x)), "x": x, "y": x}, INFO)
    joined = Localizations.concatenate([locs.select(mask), locs.select(~mask)])
    assert np.array_equal(np.sort(joined.x), np.sort(x))
