"""The native file: nothing lost, every row kept by Picasso, never half-written."""

import contextlib
import json

import h5py
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from smlm_pb.errors import OutputError, TableError
from smlm_pb.formats import NativeWriter, read_table, sniff, write_table
from smlm_pb.localizations import CORE_COLUMNS, Localizations, MovieInfo

INFO = MovieInfo(n_frames=50, height=48, width=64, pixel_size_nm=107.3, name="movie.tif")
HISTORY = [{"step": "localize", "model": "default", "threshold": 0.37}, {"step": "filter", "expression": "photons > 9"}]


def table(n=200, seed=0, **extra):
    rng = np.random.default_rng(seed)
    columns = {
        "frame": np.sort(rng.integers(0, 50, n)),
        "x": rng.uniform(-0.5, 63.5, n),
        "y": rng.uniform(-0.5, 47.5, n),
        "photons": rng.uniform(100, 5000, n),
        "background": rng.uniform(0, 90, n),
        "sigma_x": rng.uniform(0.05, 0.3, n),
        "sigma_y": rng.uniform(0.05, 0.3, n),
        "probability": rng.uniform(0, 1, n),
    }
    return Localizations({**columns, **extra}, INFO, HISTORY)


def assert_same(a, b):
    assert set(a.column_names) == set(b.column_names)
    for name in a.column_names:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert a.info == b.info
    assert a.provenance == b.provenance


def kept_by_picasso(path):
    """Rows that Picasso's sanity check leaves, by its rules: finite, inside, not negative."""
    documents = list(yaml.safe_load_all(path.with_suffix(".yaml").read_text(encoding="utf-8")))
    with h5py.File(path) as file:
        rows = file["locs"][()]
    good = np.ones(len(rows), bool)
    for name in rows.dtype.names:
        if rows.dtype[name].kind == "f":
            good &= np.isfinite(rows[name])
    good &= (rows["x"] < documents[0]["Width"]) & (rows["y"] < documents[0]["Height"])
    for name in ("x", "y", "lpx", "lpy", "lpz", "photons", "ellipticity", "sx", "sy"):
        if name in rows.dtype.names:
            good &= rows[name] >= 0
    return rows[good]


def test_round_trip_is_exact(tmp_path):
    n = 200
    rng = np.random.default_rng(1)
    locs = table(
        n,
        z=rng.normal(0, 200, n),
        sigma_z=rng.uniform(20, 40, n),
        psf_sigma_x=rng.uniform(0.9, 1.3, n),
        psf_sigma_y=rng.uniform(0.9, 1.3, n),
        sigma_photons=rng.uniform(1, 9, n),
        chi2=rng.uniform(0, 2, n),
        log_likelihood_ratio=rng.normal(0, 9, n),
        group=rng.integers(-1, 9, n),
        on_frames=rng.integers(1, 5, n),
        score=rng.normal(0, 1, n),
        flag=rng.random(n) > 0.5,
        dye=rng.choice(np.array(["Cy5", "µ-dye", ""]), n),
    )
    written = write_table(locs, tmp_path / "movie_locs.hdf5")
    assert [path.name for path in written] == ["movie_locs.hdf5", "movie_locs.yaml"]
    assert sniff(written[0]) == "native"
    assert_same(read_table(written[0]), locs)
    assert_same(Localizations.load(written[0]), locs)


def test_a_very_wide_float_column_keeps_its_digits(tmp_path):
    locs = table(3, time_s=np.array([1 / 3, 1e-300, 1e300]))
    locs.save(tmp_path / "a.hdf5")
    assert_same(read_table(tmp_path / "a.hdf5"), locs)


def test_columns_are_named_as_picasso_names_them(tmp_path):
    write_table(table(psf_sigma_x=np.ones(200), psf_sigma_y=np.ones(200), z=np.zeros(200)), tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5") as file:
        names = file["locs"].dtype.names
        assert file["locs"].dtype["frame"] == np.uint32
        embedded = json.loads(file["metadata"][()])
    assert {"frame", "x", "y", "photons", "bg", "lpx", "lpy", "sx", "sy", "z", "probability"} == set(names)
    documents = list(yaml.safe_load_all((tmp_path / "a.yaml").read_text(encoding="ascii")))
    assert documents == embedded
    assert documents[0]["Width"] == 64
    assert documents[0]["Height"] == 48
    assert documents[0]["Frames"] == 50
    assert documents[0]["Pixelsize"] == 107.3
    assert documents[0]["Origin"] == "pixel-center"
    # Picasso searches from the last document to the first: no step may answer for the movie.
    assert not any({"Width", "Height", "Frames", "Pixelsize"} & set(step) for step in documents[1:])
    assert [step["smlm-pb step"] for step in documents[1:]] == HISTORY


def test_picasso_keeps_every_row_and_we_get_the_true_values_back(tmp_path):
    locs = table(300)
    x, y, sigma_x, photons = locs.x.copy(), locs.y.copy(), locs.sigma_x.copy(), locs.photons.copy()
    x[:3] = -0.5, 64.0, 71.25
    y[3:6] = -7.5, 47.99999, 48.0
    sigma_x[6:9] = np.nan, np.inf, -0.1
    photons[9] = -3.5
    locs = locs.with_columns(x=x, y=y, sigma_x=sigma_x, photons=photons, z=np.nan, group=np.arange(300) - 1)
    write_table(locs, tmp_path / "a.hdf5")
    rows = kept_by_picasso(tmp_path / "a.hdf5")
    assert len(rows) == 300
    assert "z" not in rows.dtype.names
    assert rows["x"][0] == 0
    assert 63.99 < rows["x"][2] < 64
    assert rows["group"].min() == -1
    assert_same(read_table(tmp_path / "a.hdf5"), locs)


@given(
    values=hnp.arrays(np.float32, (9, 6), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
    xy=hnp.arrays(np.float32, (9, 2), elements=st.floats(-100, 100, width=32)),
    split=st.integers(0, 9),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_come_back_and_no_row_is_lost(tmp_path, values, xy, split):
    names = ("photons", "sigma_x", "sigma_y", "z", "psf_sigma_x", "anything")
    columns = dict(zip(names, values.T, strict=True))
    locs = Localizations({"frame": np.arange(9), "x": xy[:, 0], "y": xy[:, 1], **columns}, INFO)
    with NativeWriter(tmp_path / "a.hdf5", INFO, overwrite=True) as writer:
        writer.append(locs.select(slice(0, split)))
        writer.append(locs.select(slice(split, None)))
    assert len(kept_by_picasso(tmp_path / "a.hdf5")) == 9
    assert_same(read_table(tmp_path / "a.hdf5"), locs)


def test_empty_table(tmp_path):
    write_table(Localizations.empty(INFO), tmp_path / "a.hdf5")
    locs = read_table(tmp_path / "a.hdf5")
    assert len(locs) == 0
    assert locs.info == INFO
    assert set(locs.column_names) == set(CORE_COLUMNS)
    with NativeWriter(tmp_path / "b.hdf5", MovieInfo(0, 0, 0)) as writer:
        writer.append(Localizations.empty(MovieInfo(0, 0, 0)))
    assert read_table(tmp_path / "b.hdf5").info == MovieInfo(0, 0, 0)
    with h5py.File(tmp_path / "b.hdf5") as file:  # Picasso takes a zero for a missing entry
        assert json.loads(file["metadata"][()])[0]["Width"] == 1


# -- the writer --------------------------------------------------------------------------------------------


def test_writing_in_pieces_gives_the_same_table(tmp_path):
    locs = table(1000)
    with NativeWriter(tmp_path / "a.hdf5", INFO) as writer:
        for start in range(0, 1000, 137):
            assert not (tmp_path / "a.hdf5").exists()
            writer.append(locs.select(slice(start, start + 137)))
            writer.append(Localizations.empty(INFO, locs.column_names))
        assert writer.n_rows == 1000
        writer.provenance = HISTORY  # known only at the end
    assert_same(read_table(tmp_path / "a.hdf5"), locs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdf5", "a.yaml"]


def test_columns_must_stay_the_same(tmp_path):
    writer = NativeWriter(tmp_path / "a.hdf5", INFO)
    writer.append(table())
    with pytest.raises(TableError, match="differ in probability"):
        writer.append(table().without_columns("probability"))
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_two_columns_with_one_name_in_the_file_are_refused(tmp_path):
    with pytest.raises(TableError, match="sigma_x and lpx would both be lpx"):
        write_table(table(5, lpx=np.zeros(5)), tmp_path / "a.hdf5")
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_nothing_and_does_not_touch_what_was_there(tmp_path):
    write_table(table(5), tmp_path / "a.hdf5")
    before = (tmp_path / "a.hdf5").read_bytes(), (tmp_path / "a.yaml").read_bytes()
    with contextlib.suppress(KeyboardInterrupt), NativeWriter(tmp_path / "a.hdf5", INFO, overwrite=True) as writer:
        writer.append(table(7))
        raise KeyboardInterrupt
    assert ((tmp_path / "a.hdf5").read_bytes(), (tmp_path / "a.yaml").read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdf5", "a.yaml"]


def test_closing_early_keeps_what_is_finished(tmp_path):
    writer = NativeWriter(tmp_path / "a.hdf5", INFO)
    writer.append(table(7))
    assert writer.close() == tmp_path / "a.hdf5"
    assert writer.close() == tmp_path / "a.hdf5"
    assert len(read_table(tmp_path / "a.hdf5")) == 7
    with pytest.raises(OutputError, match="closed"):
        writer.append(table(7))


def test_existing_files_are_not_replaced_unasked(tmp_path):
    write_table(table(5), tmp_path / "a.hdf5")
    with pytest.raises(OutputError, match=r"a\.hdf5 exists already.*overwrite=True"):
        write_table(table(6), tmp_path / "a.hdf5")
    assert len(read_table(tmp_path / "a.hdf5")) == 5
    write_table(table(6), tmp_path / "a.hdf5", overwrite=True)
    assert len(read_table(tmp_path / "a.hdf5")) == 6


def test_a_yaml_file_that_is_no_metadata_is_never_replaced(tmp_path):
    recipe = tmp_path / "sample.yaml"
    recipe.write_text("frames: 300\nheight: 64\n", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"sample\.yaml"):
            write_table(table(5), tmp_path / "sample.hdf5", overwrite=overwrite)
    assert recipe.read_text(encoding="utf-8") == "frames: 300\nheight: 64\n"
    assert list(tmp_path.iterdir()) == [recipe]


def test_impossible_targets(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        write_table(table(5), tmp_path / "nowhere" / "a.hdf5")
    (tmp_path / "b.hdf5").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_table(table(5), tmp_path / "b.hdf5")


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"a\.hdf5 cannot be written"):
            write_table(table(100_000), tmp_path / "a.hdf5")
        with pytest.raises(OutputError, match=r"a\.csv cannot be written: File too large"):
            write_table(table(100_000), tmp_path / "a.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


# -- files of Picasso --------------------------------------------------------------------------------------


def picasso_file(path, n=5, embed=True, sidecar=True, documents=None, **columns):
    dtype = [("frame", "u4"), *((name, "f4") for name in ("x", "y", "photons", "sx", "sy", "bg", "lpx", "lpy"))]
    rows = np.zeros(n, [*dtype, ("net_gradient", "f4"), ("iterations", "i4")])
    rows["frame"], rows["x"], rows["y"] = np.arange(n), 5.25, 3.75
    rows["lpx"], rows["lpy"], rows["sx"] = 0.01, 0.02, 0.9
    for name, values in columns.items():
        rows[name] = values
    if documents is None:
        documents = [
            {"Byte Order": "<", "Data Type": "uint16", "File": "m.ome.tif", "Frames": 100, "Height": 32, "Width": 40},
            {"Generated by": "Picasso: v0.11.3 Localize", "Pixelsize": 130, "Box Size": 7},
        ]
    with h5py.File(path, "w") as file:
        file.create_dataset("locs", data=rows)
        if embed:
            file.create_dataset("metadata", data=json.dumps(documents))
    if sidecar:
        path.with_suffix(".yaml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")


@pytest.mark.parametrize(("embed", "sidecar"), [(True, True), (True, False), (False, True)])
def test_reads_picasso(tmp_path, embed, sidecar):
    picasso_file(tmp_path / "a.hdf5", embed=embed, sidecar=sidecar)
    assert sniff(tmp_path / "a.hdf5") == "picasso"
    locs = read_table(tmp_path / "a.hdf5")
    assert locs.info == MovieInfo(100, 32, 40, 130.0, "m.ome.tif")
    assert locs.x[0] == 5.25
    assert locs.frame[0] == 0
    assert locs.sigma_x[0] == np.float32(0.01)
    assert locs.psf_sigma_x[0] == np.float32(0.9)
    assert locs.iterations.dtype == np.int32
    assert locs.provenance[1]["document"]["Box Size"] == 7
    assert locs.provenance[-1]["format"] == "picasso"


def test_picasso_without_metadata_says_so(tmp_path):
    picasso_file(tmp_path / "a.hdf5", embed=False, sidecar=False)
    locs = read_table(tmp_path / "a.hdf5", pixel_size_nm=130)
    assert (locs.info.width, locs.info.height, locs.info.n_frames) == (6, 5, 5)
    assert any("how large the movie is" in note for note in locs.provenance[-1]["notes"])


def test_a_table_that_went_through_picasso_keeps_both_histories(tmp_path):
    locs = table(20)
    write_table(locs, tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5") as file:
        rows, documents = file["locs"][()][:12], json.loads(file["metadata"][()])
    documents.append({"Generated by": "Picasso: v0.11.3 Filter", "Width": 32})
    with h5py.File(tmp_path / "b.hdf5", "w") as file:  # as Picasso saves: only these two
        file["locs"] = rows
        file["metadata"] = json.dumps(documents)
    again = read_table(tmp_path / "b.hdf5")
    assert len(again) == 12
    assert again.provenance == [*HISTORY, {"step": "picasso", "document": documents[-1]}]
    assert (again.info.width, again.info.height) == (32, 48)
    assert np.array_equal(again.probability, locs.probability[:12])


def test_yaml_never_builds_objects(tmp_path):
    picasso_file(tmp_path / "a.hdf5", embed=False)
    marker = tmp_path / "executed"
    (tmp_path / "a.yaml").write_text(
        f"Width: 40\nHeight: 32\nFrames: 100\nROI: !!python/tuple [1, 2]\n"
        f"Evil: !!python/object/apply:os.mkdir ['{marker}']\n",
        encoding="utf-8",
    )
    locs = read_table(tmp_path / "a.hdf5")
    assert not marker.exists()
    assert locs.info.width == 40
    assert locs.provenance[0]["document"]["ROI"] == [1, 2]


def test_nonsense_in_the_metadata_is_passed_over(tmp_path):
    documents = [{"Width": "wide", "Height": 32, "Frames": None, "smlm-pb": 3, "smlm-pb step": []}]
    picasso_file(tmp_path / "a.hdf5", documents=documents)
    assert read_table(tmp_path / "a.hdf5").info == MovieInfo(5, 32, 6, None, "a")


# -- damaged files -----------------------------------------------------------------------------------------


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "a.hdf5"
    write_table(table(5000), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TableError, match=r"a\.hdf5 (is cut short|is damaged)"):
        read_table(path)
    path.write_bytes(whole[:8] + bytes(1000))
    with pytest.raises(TableError, match="damaged"):
        read_table(path)
    path.write_bytes(b"")
    with pytest.raises(TableError, match="empty"):
        read_table(path)
    with pytest.raises(TableError, match="no file"):
        read_table(tmp_path / "b.hdf5")
    with pytest.raises(TableError, match="is a folder"):
        read_table(tmp_path)


def test_an_hdf5_file_of_something_else_names_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["volume"] = np.zeros(3)
    with pytest.raises(TableError, match="HDF5 file with volume inside"):
        read_table(tmp_path / "a.hdf5")
    with pytest.raises(TableError, match="no dataset /locs; it holds volume"):
        read_table(tmp_path / "a.hdf5", format="native")


def test_bad_metadata_name_the_place(tmp_path):
    picasso_file(tmp_path / "a.hdf5", sidecar=False)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["metadata"]
        file["metadata"] = "{not json"
    with pytest.raises(TableError, match="/metadata is no JSON"):
        read_table(tmp_path / "a.hdf5")
    picasso_file(tmp_path / "b.hdf5", embed=False)
    (tmp_path / "b.yaml").write_text("Width: 3\n\tHeight: [", encoding="utf-8")
    with pytest.raises(TableError, match=r"b\.yaml, line 2 is no YAML"):
        read_table(tmp_path / "b.hdf5")


def test_a_table_without_positions_is_named(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["locs"] = np.zeros(3, [("frame", "u4"), ("x", "f4")])
    with pytest.raises(TableError, match=r"needs the column y \[px\]; the file has frame, x"):
        read_table(tmp_path / "a.hdf5")
