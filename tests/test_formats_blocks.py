"""Tables read in parts: the same rows, the same values, whatever the size of the parts."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb.analysis import render
from smlm_pb.analysis.rendering import limits_of
from smlm_pb.cli import render as render_verb
from smlm_pb.cli.main import main
from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.formats import iterate_table, read_table, row_count, write_table
from smlm_pb.localizations import Localizations, MovieInfo


def table(n=100, seed=0):
    rng = np.random.default_rng(seed)
    columns = {
        "frame": np.sort(rng.integers(0, 50, n)),
        "x": rng.uniform(-0.5, 31.5, n),  # Picasso takes no negative ones: they stand elsewhere in the file
        "y": rng.uniform(-0.5, 23.5, n),
        "photons": rng.uniform(-5, 1000, n),
        "sigma_x": np.full(n, 0.1),
        "sigma_y": np.full(n, 0.2),
    }
    return Localizations(columns, MovieInfo(50, 24, 32, 100.0))


@settings(max_examples=20)
@given(st.integers(0, 60), st.integers(1, 70))
def test_parts_make_the_whole(tmp_path_factory, n, rows):
    path = tmp_path_factory.mktemp("blocks") / "t.hdf5"
    locs = table(n)
    locs.save(path)
    parts = list(iterate_table(path, rows=rows))
    assert len(parts) == max(1, -(-n // rows))
    assert row_count(path) == n
    whole = Localizations.concatenate(parts)
    assert whole.info == locs.info
    for name in locs.column_names:
        np.testing.assert_array_equal(whole[name], locs[name])


@pytest.mark.parametrize("ending", ["csv", "hdf5"])
def test_only_the_columns_that_are_wanted(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    write_table(table(), path)
    for part in iterate_table(path, rows=40, columns=["sigma_x"]):
        assert set(part.column_names) == {"frame", "x", "y", "sigma_x"}
    assert sum(map(len, iterate_table(path, rows=40))) == 100
    assert (row_count(path) is None) == (ending == "csv")


def test_rendering_parts_gives_the_same_image(tmp_path, monkeypatch, capsys):
    path = tmp_path / "movie_locs.hdf5"
    table(5000).save(path)
    whole = render(read_table(path), pixel_size_nm=20).image
    np.testing.assert_allclose(render(iterate_table(path, rows=700), pixel_size_nm=20).image, whole, atol=1e-4)
    monkeypatch.setattr(render_verb, "STREAM_ROWS", 700)
    for options in ([], ["--colour-by", "frame"]):
        assert main(["render", str(path), "--out", str(tmp_path / "a.tif"), "--overwrite", *options]) == 0
        assert "5000 molecules" in capsys.readouterr().err
    limits = limits_of(iterate_table(path, rows=700), "frame")
    assert limits == pytest.approx(np.percentile(read_table(path)["frame"], [1, 99]), abs=1)


def test_what_cannot_be_read_in_parts_is_said(tmp_path):
    path = tmp_path / "t.hdf5"
    table().save(path)
    with pytest.raises(ConfigurationError, match="rows"):
        next(iterate_table(path, rows=0))
    with h5py.File(path, "a") as file:
        del file["metadata"]
    path.with_suffix(".yaml").unlink()
    with pytest.raises(TableError, match="how large its movie is"):
        next(iterate_table(path))
