"""All formats together: what is written comes back, nothing is lost or half-written, the page is current."""

import csv
import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from smlm_pb.columns import COLUMNS
from smlm_pb.errors import ConfigurationError, OutputError, TableError
from smlm_pb.formats import FORMATS, describe_writing, read_table, sniff, write_table
from smlm_pb.formats.documentation import formats_page
from smlm_pb.formats.registry import DEFAULT_BY_EXTENSION
from smlm_pb.formats.units import unit_factor
from smlm_pb.localizations import CORE_COLUMNS, Localizations, MovieInfo

ROOT = Path(__file__).parents[1]
INFO = MovieInfo(n_frames=100, height=48, width=64, pixel_size_nm=107.3, name="movie.tif")
#: Formats whose files tell the pixel size.
TELL_PIXEL_SIZE = {
    "native",
    "picasso",
    "thunderstorm",
    "smap",
    "smap-v73",
    "smappy",
    "decode",
    "decode-csv",
    "elyra",
    "smlm",
    "csv",
    "parquet",
}
writable = pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.writable])


def needs_pyarrow(name):
    if name == "parquet":
        pytest.importorskip("pyarrow")


def table(n=60, seed=0):
    rng = np.random.default_rng(seed)
    columns = {
        "frame": np.sort(rng.integers(0, 100, n)),
        "x": rng.uniform(-0.5, 63.5, n),
        "y": rng.uniform(-0.5, 47.5, n),
        "photons": rng.uniform(100, 5000, n),
        "background": rng.uniform(0.5, 90, n),
        "sigma_x": rng.uniform(0.05, 0.2, n),
        "sigma_y": rng.uniform(0.05, 0.2, n),
        "probability": rng.uniform(0, 1, n),
        "sigma_photons": rng.uniform(5, 9, n),
        "z": rng.normal(0, 200, n),
        "sigma_z": rng.uniform(20, 40, n),
        "psf_sigma_x": rng.uniform(0.9, 1.2, n),
        "psf_sigma_y": rng.uniform(0.9, 1.2, n),
        "chi2": rng.uniform(0, 2, n),
        "log_likelihood_ratio": rng.normal(0, 9, n),
        "group": rng.integers(0, 9, n),
        "on_frames": rng.integers(1, 5, n),
        "n_localizations": rng.integers(1, 5, n),
        "channel": rng.integers(0, 3, n),
        "score": rng.normal(0, 1, n),
        "flag": rng.random(n) > 0.5,
        "dye": rng.choice(np.array(["Cy5", "µ dye", "a,b"]), n),
    }
    return Localizations(columns, INFO, [{"step": "localize"}])


def round_trip(locs, name, tmp_path, **options):
    path = tmp_path / f"t_{name}{FORMATS[name].extensions[0]}"
    write_table(locs, path, name, overwrite=True)
    assert sniff(path) == ("native" if name == "picasso" else name)
    if name not in TELL_PIXEL_SIZE:
        options["pixel_size_nm"] = locs.info.pixel_size_nm
    return read_table(path, **options)


@writable
def test_round_trip(tmp_path, name):
    needs_pyarrow(name)
    locs = table()
    again = round_trip(locs, name, tmp_path)
    assert len(again) == len(locs)
    assert np.abs(again.x - locs.x).max() < 1e-4
    assert np.abs(again.y - locs.y).max() < 1e-4
    assert np.array_equal(again.frame, locs.frame)
    assert again.info.pixel_size_nm == pytest.approx(107.3)
    for column in locs.column_names:
        if column not in again:
            continue
        if locs[column].dtype.kind == "U":
            assert again[column].tolist() == locs[column].tolist()
        elif not (column in ("sigma_x", "sigma_y") and "sigma" in " ".join(describe_writing(locs, FORMATS[name]))):
            np.testing.assert_allclose(again[column], locs[column], rtol=1e-5, atol=1e-4, err_msg=column)


@writable
def test_what_is_lost_is_announced(tmp_path, name):
    needs_pyarrow(name)
    locs = table()
    announced = " ".join(describe_writing(locs, FORMATS[name]))
    again = round_trip(locs, name, tmp_path)
    lost = set(locs.column_names) - set(again.column_names)
    assert ", ".join(sorted(lost)) == ", ".join(sorted(announced.partition("no place for them: ")[2].split(", ")))
    if "root mean square" in announced:
        expected = np.sqrt((locs.sigma_x.astype(float) ** 2 + locs.sigma_y.astype(float) ** 2) / 2)
        np.testing.assert_allclose(again.sigma_x, expected, rtol=1e-3)
        np.testing.assert_array_equal(again.sigma_x, again.sigma_y)


@writable
@given(
    rows=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.just(3)),
        elements=st.floats(-30, 2000, width=32),
    ),
    pixel_size_nm=st.floats(20, 400),
)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_positions_come_back_wherever_they_are(tmp_path, name, rows, pixel_size_nm):
    needs_pyarrow(name)
    info = MovieInfo(2050, 2000, 2000, pixel_size_nm)
    locs = Localizations({"frame": np.abs(np.rint(rows[:, 2])), "x": rows[:, 0], "y": rows[:, 1]}, info)
    again = round_trip(locs, name, tmp_path, pixel_size_nm=pixel_size_nm)
    assert len(again) == len(locs)
    assert np.abs(again.x.astype(float) - locs.x).max() < 1e-3
    assert np.abs(again.y.astype(float) - locs.y).max() < 1e-3


@writable
def test_empty_tables(tmp_path, name):
    needs_pyarrow(name)
    path = tmp_path / f"empty{FORMATS[name].extensions[0]}"
    write_table(Localizations.empty(INFO), path, name)
    if name == "challenge":  # no header, no rows: nothing at all
        with pytest.raises(TableError, match="empty"):
            read_table(path, name)
        return
    assert len(read_table(path, name, pixel_size_nm=107.3)) == 0


@writable
def test_missing_values_come_back_as_missing(tmp_path, name):
    needs_pyarrow(name)
    locs = table(6).select(slice(None))
    photons = locs.photons.copy()
    photons[2] = np.nan
    again = round_trip(locs.with_columns(photons=photons), name, tmp_path)
    assert len(again) == 6
    assert np.isnan(again.photons[2]) or (name in ("challenge", "challenge-truth", "nstorm") and again.photons[2] == 0)
    assert np.isfinite(again.photons[[0, 1, 3, 4, 5]]).all()


def test_the_centre_of_the_first_pixel_and_the_first_frame(tmp_path):
    """What each program must find in its file, without using our reader."""
    info = MovieInfo(10, 48, 64, 100.0)
    locs = Localizations({"frame": [0], "x": [0.0], "y": [2.0], "photons": [700.0]}, info)
    expected = {
        "thunderstorm": {"frame": 1, "x [nm]": 50, "y [nm]": 250},
        "smap-csv": {"frame": 1, "xnm": 100, "ynm": 300},
        "challenge-truth": {"frame": 1, "xnano": 50, "ynano": 250},
        "nanoimager": {"Frame": 0, "X (nm)": 50, "Y (nm)": 250},
        "napari": {"axis-0": 0, "axis-1": 2, "axis-2": 0},
        "csv": {"frame": 0, "x": 0, "y": 2},
    }
    for name, cells in expected.items():
        write_table(locs, tmp_path / f"{name}.csv", name)
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            row = next(csv.DictReader(stream))
        assert {key: float(row[key]) for key in cells} == cells, name
    write_table(locs, tmp_path / "c.csv", "challenge")
    assert (tmp_path / "c.csv").read_text(encoding="utf-8") == "1,50.0,250.0,0.0,700.0\n"
    h5py = importlib.import_module("h5py")
    write_table(locs, tmp_path / "d.h5", "decode")
    with h5py.File(tmp_path / "d.h5") as file:
        assert file["data/xyz"][0].tolist() == [2, 0, 0]
        assert file["data/frame_ix"][0] == 0
    write_table(locs, tmp_path / "s.h5", "smappy")
    with h5py.File(tmp_path / "s.h5") as file:
        assert (file["locs/x_nm"][0], file["locs/y_nm"][0], file["locs/frame"][0]) == (0, 200, 0)
    write_table(locs, tmp_path / "r.txt", "rapidstorm")
    assert (tmp_path / "r.txt").read_text(encoding="utf-8").splitlines()[1] == "0 0.0 200.0 700.0"


def test_thunderstorm_has_the_columns_that_readers_want(tmp_path):
    locs = table(5).without_columns("z", "sigma_z", "psf_sigma_x", "psf_sigma_y")
    locs = locs.with_provenance({"step": "localize", "conditions": {"psf_sigma_px": 1.25}})
    paths = write_table(locs, tmp_path / "a.csv", "thunderstorm")
    assert [path.name for path in paths] == ["a.csv", "a-protocol.txt"]
    header = paths[0].read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith(
        '"id","frame","x [nm]","y [nm]","sigma [nm]","intensity [photon]","offset [photon]","bkgstd [photon]","chi2",'
        '"uncertainty_xy [nm]","detections"'
    )
    again = read_table(paths[0])
    assert np.allclose(again.psf_sigma_x, 1.25)
    assert np.allclose(again["bkgstd [photon]"], np.sqrt(again.background), rtol=1e-5)
    # a second journey adds nothing
    write_table(again, tmp_path / "b.csv", "thunderstorm")
    assert (tmp_path / "b.csv").read_text(encoding="utf-8").splitlines()[0] == header


def test_nm_needs_a_pixel_size(tmp_path):
    locs = table(5).with_info(MovieInfo(100, 48, 64))
    for name in ("thunderstorm", "smap", "smlm", "smappy", "elyra"):
        with pytest.raises(TableError, match=r"does not know its pixel size; give pixel_size_nm, e\.g\."):
            write_table(locs, tmp_path / "a.x", name)
    assert list(tmp_path.iterdir()) == []
    write_table(locs, tmp_path / "a.csv", "thunderstorm", pixel_size_nm=107.3)
    assert np.abs(read_table(tmp_path / "a.csv").x - locs.x).max() < 1e-4


# -- choosing a format -------------------------------------------------------------------------------------


def test_the_ending_chooses_the_format_to_write(tmp_path):
    for ending, name in DEFAULT_BY_EXTENSION.items():
        if name == "parquet":
            continue
        path = tmp_path / f"a{ending}"
        table(3).save(path, overwrite=True)
        assert sniff(path) == name
    with pytest.raises(ConfigurationError, match=r"ending of a\.txt .*save\(path, format=NAME\).*thunderstorm"):
        table(3).save(tmp_path / "a.txt")
    with pytest.raises(ConfigurationError, match="Unknown table format 'excel'; choose from native"):
        table(3).save(tmp_path / "a.csv", "excel")
    with pytest.raises(ConfigurationError, match="Unknown table format 'excel'"):
        read_table(tmp_path / "a.csv", "excel")


def test_content_counts_not_the_ending(tmp_path):
    write_table(table(3), tmp_path / "table.dat", "thunderstorm")
    assert len(Localizations.load(tmp_path / "table.dat")) == 3


def test_declarations_are_consistent():
    keys = {form.names_key for form in FORMATS.values()}
    for column in COLUMNS:
        assert set(column.foreign) <= keys, column.name
    for form in FORMATS.values():
        for column in COLUMNS:
            for name in column.foreign_names(form.names_key):
                assert unit_factor(name.unit, column.unit, 100.0) is not None, (form.name, column.name)
        for axis in ("frame", "x", "y"):
            column = next(column for column in COLUMNS if column.name == axis)
            assert column.foreign_names(form.names_key), (form.name, axis)
        if form.convention.x_axis == "row":
            x, y = (next(c for c in COLUMNS if c.name == axis).foreign_names(form.names_key)[0].name for axis in "xy")
            assert (x, y) == ("y", "x")
    assert set(DEFAULT_BY_EXTENSION.values()) <= set(FORMATS)


def test_unit_factors():
    assert unit_factor("nm", "px", 80) == 1 / 80
    assert unit_factor("um", "px", 80) == 12.5
    assert unit_factor("m", "nm", None) == 1e9
    assert unit_factor("px", "nm", 80) == 80
    assert unit_factor("pixel", "px", None) == 1
    assert unit_factor("nm FWHM", "px", 1) == pytest.approx(0.4246609)
    assert unit_factor("photon", "e⁻/px", None) == 1
    assert unit_factor("A/D count", "e⁻", None) is None
    assert unit_factor("nm", "e⁻", 80) is None
    assert unit_factor("photon", "px", 80) is None


# -- writing safely ----------------------------------------------------------------------------------------


@writable
def test_nothing_is_replaced_unasked_or_left_half_written(tmp_path, name, monkeypatch):
    needs_pyarrow(name)
    path = tmp_path / f"a{FORMATS[name].extensions[0]}"
    written = write_table(table(5), path, name)
    assert sorted(tmp_path.iterdir()) == sorted(written)
    before = {path: path.read_bytes() for path in written}
    with pytest.raises(OutputError, match="exists already"):
        write_table(table(9), path, name)
    if FORMATS[name].write is not None:

        def fail(table, target):
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        object.__setattr__(FORMATS[name], "write", fail_once := fail)
        try:
            with pytest.raises(OutputError, match="cannot be written: No space left on device"):
                write_table(table(9), path, name, overwrite=True)
        finally:
            object.__setattr__(FORMATS[name], "write", WRITERS[name])
        assert fail_once is not WRITERS[name]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


WRITERS = {name: form.write for name, form in FORMATS.items()}


def test_tables_of_both_kinds_live_side_by_side(tmp_path):
    locs = table(5)
    locs.save(tmp_path / "a.hdf5")
    locs.save(tmp_path / "a.csv")
    write_table(locs, tmp_path / "a_ts.csv", "thunderstorm")
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.hdf5",
        "a.yaml",
        "a.csv",
        "a.csv.yaml",
        "a_ts.csv",
        "a_ts-protocol.txt",
    }
    assert read_table(tmp_path / "a.csv").provenance == locs.provenance


def test_parquet_says_what_is_missing(tmp_path, monkeypatch):
    def refuse(name, package=None):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, package)

    original = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(OutputError, match="pip install pyarrow"):
        write_table(table(3), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(TableError, match="pip install pyarrow"):
        read_table(tmp_path / "b.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["b.parquet"]


def test_damaged_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    table(3).save(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TableError, match="damaged Parquet file"):
        read_table(tmp_path / "a.parquet")


# -- the page ----------------------------------------------------------------------------------------------


def test_the_page_about_formats_is_current():
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert page == formats_page(), "renew it: python -m smlm_pb.formats.documentation > docs/formats.md"
    assert all(f"`{name}`" in page for name in (*FORMATS, *CORE_COLUMNS))
