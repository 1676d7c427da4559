"""The napari door without a window: manifest, readers, writers, layers, filters, the job behind Run."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hand_made_model import make_model

from smlm_pb.analysis import filter_by
from smlm_pb.errors import MovieError, OutputError, TableError
from smlm_pb.localizations import Localizations, MovieInfo

pytest.importorskip("napari", reason="napari is not installed: pip install 'smlm-pb[napari]'")

from napari.layers import Image, Points, Shapes

from napari_plugin import (
    filters,
    image_layers,
    inspection,
    localize_job,
    molecule_layers,
    movie_layers,
    training_run,
)
from napari_plugin.reader import get_reader
from napari_plugin.words import in_panel_words
from napari_plugin.writer import write_points

INFO = MovieInfo(n_frames=20, height=32, width=48, pixel_size_nm=100.0, name="movie")


def some_molecules(n=50, seed=0, info=INFO):
    rng = np.random.default_rng(seed)
    return Localizations(
        {
            "frame": np.sort(rng.integers(0, info.n_frames, n)),
            "x": rng.uniform(0, info.width - 1, n),
            "y": rng.uniform(0, info.height - 1, n),
            "photons": rng.uniform(300, 5000, n),
            "background": rng.uniform(5, 30, n),
            "sigma_x": rng.uniform(0.05, 0.3, n),
            "sigma_y": rng.uniform(0.05, 0.3, n),
            "probability": rng.uniform(0.05, 1, n),
        },
        info,
        [{"step": "made up"}],
    )


def noisy_movie(n_frames=12, height=32, width=48, seed=1):
    """Frames with a few bright spots, offset 100, 0.5 e⁻/ADU."""
    from smlm_pb.camera import Camera

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    expected = np.full((n_frames, height, width), 20.0)
    for frame in expected:
        for _ in range(3):
            at_y, at_x = rng.uniform(5, height - 6), rng.uniform(5, width - 6)
            spot = np.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / (2 * 1.1**2)) / (2 * np.pi * 1.1**2)
            frame += 3000 * spot
    return Camera(offset_adu=100, e_per_adu=0.5).digitize(expected, rng)


# -- manifest ----------------------------------------------------------------------------------------------------------


def test_manifest_is_valid_and_everything_in_it_can_be_imported():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("smlm-pb")
    manifest.validate_imports()
    assert manifest.name == "smlm-pb"  # the name of the distribution, or all commands are refused
    assert manifest.contributions.configurations["localization"].properties["model"].default == "default"
    extensions = [ending for writer in manifest.contributions.writers for ending in writer.filename_extensions]
    assert extensions == [".hdf5"]  # a .csv writer would take over every Points layer


def test_importing_the_readers_loads_neither_qt_nor_torch():
    import subprocess
    import sys

    code = (
        "import sys, napari_plugin.reader, napari_plugin.writer, napari_plugin.samples, napari_plugin.molecule_layers;"
        "print([m for m in ('torch', 'qtpy', 'napari', 'pandas') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_samples_show_the_movie_with_its_units_and_the_truth_on_top():
    from napari_plugin.samples import filaments, filaments_with_truth

    ((frames, attributes, kind),) = filaments()
    layer = Image(frames, **attributes)
    assert kind == "image"
    assert frames.ndim == 3
    assert movie_layers.pixel_size_of_layer(layer) == pytest.approx(100)
    movie, (points, truth, truth_kind) = filaments_with_truth()
    assert truth_kind == "points"
    assert truth["scale"] == movie[1]["scale"]
    assert points[:, 0].max() < len(frames)
    # Were axes exchanged or the origin shifted, the pixels under the molecules would not be bright.
    bright = points[np.asarray(truth["features"]["photons"]) > 1000]
    row, column = (np.clip(np.rint(bright[:, axis]).astype(int), 0, frames.shape[axis] - 1) for axis in (1, 2))
    assert np.median(frames[bright[:, 0].astype(int), row, column]) > 1.5 * np.median(frames)


# -- reader and writer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.hdf5", "native"),
        ("a.hdf5", "picasso"),
        ("a.csv", "thunderstorm"),
        ("a.h5", "decode"),
        ("a.txt", "rapidstorm"),
        ("a.txt", "elyra"),
        ("a.txt", "nstorm"),
        ("a.mat", "smap"),
        ("a.smlm", "smlm"),
        ("a.parquet", "parquet"),
    ],
)
def test_reads_what_we_wrote(tmp_path, name, form):
    from npe2 import PluginManifest

    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'smlm-pb[parquet]'")
    (declared,) = PluginManifest.from_distribution("smlm-pb").contributions.readers
    assert f"*{Path(name).suffix}" in declared.filename_patterns  # or napari would not ask
    table = some_molecules()
    path = table.save(tmp_path / name, format=form)[0]
    reader = get_reader(str(path))
    ((data, attributes, kind),) = reader(str(path))
    assert kind == "points"
    order = np.lexsort((table.x, table.frame))
    read = np.lexsort((data[:, 2], data[:, 0]))
    np.testing.assert_allclose(data[read, 2], table.x[order], atol=1e-3)
    np.testing.assert_allclose(data[read, 1], table.y[order], atol=1e-3)
    assert np.array_equal(data[read, 0], table.frame[order])
    Points(data, **attributes)


def test_a_table_in_nm_without_pixel_size_takes_the_one_from_preferences(tmp_path, monkeypatch):
    import napari.utils.notifications

    monkeypatch.setattr("napari_plugin.settings.remembered", lambda section, key: 50.0)
    told = []
    monkeypatch.setattr(napari.utils.notifications, "show_info", told.append)
    path = tmp_path / "bare.csv"
    path.write_text('"frame","x [nm]","y [nm]"\n1,525.0,1025.0\n')
    ((data, _, _),) = get_reader(str(path))(str(path))
    assert data.tolist() == [[0.0, 20.0, 10.0]]
    assert "50 nm" in told[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("other.csv", b"index,axis-0,axis-1,axis-2\n0,1,2,3\n"),
        ("xy.csv", b"x,y,label\n1,2,a\n"),
        ("binary.csv", bytes(range(256))),
        ("no.hdf5", b"not hdf5"),
        ("notes.txt", b"Dear diary, frame 12 was sharp.\nx and y were not.\n"),
        ("xy.txt", b"x y label\n1 2 a\n"),
        ("no.mat", b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90)),
        ("no.smlm", b"PK\x05\x06" + bytes(18)),
        ("no.parquet", b"PAR1" + bytes(8)),
        ("cut.h5", b"\x89HDF\r\n\x1a\n" + bytes(40)),
    ],
)
def test_foreign_files_are_declined_without_raising(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert get_reader(str(path)) is None


def test_foreign_hdf5_folders_and_missing_files_are_declined(tmp_path):
    import h5py

    with h5py.File(tmp_path / "movie.h5", "w") as file:
        file["data"] = np.zeros((3, 4, 5))
    assert get_reader(str(tmp_path / "movie.h5")) is None
    assert get_reader(str(tmp_path)) is None
    assert get_reader(str(tmp_path / "nothing.csv")) is None
    assert get_reader([]) is None


def test_reader_looks_only_at_the_beginning(tmp_path, monkeypatch):
    path = some_molecules().save(tmp_path / "a.hdf5")[0]
    monkeypatch.setattr("smlm_pb.formats.read_table", lambda *a, **k: pytest.fail("parsed the whole file"))
    assert get_reader([str(path)]) is not None


def test_points_survive_layer_file_and_layer(tmp_path):
    table = some_molecules()
    layer = Points(**molecule_layers.points_arguments(table))
    data, attributes, _ = layer.as_layer_data_tuple()
    written = write_points(str(tmp_path / "out.hdf5"), data, attributes)
    back = Localizations.load(written[0])
    for name in table.column_names:
        np.testing.assert_array_equal(back[name], table[name])
    assert back.info == table.info
    assert back.provenance[0] == {"step": "made up"}


def test_points_of_other_plugins_can_be_saved_and_nonsense_is_refused(tmp_path):
    points = Points(np.array([[0, 3.0, 4.0], [2, 5.0, 6.0]]), features={"score": [0.1, 0.2]})
    data, attributes, _ = points.as_layer_data_tuple()
    back = Localizations.load(write_points(str(tmp_path / "p.hdf5"), data, attributes)[0])
    assert back.x.tolist() == [4.0, 6.0]
    assert back["score"].tolist() == pytest.approx([0.1, 0.2])
    with pytest.raises(TableError, match="before the first frame"):
        write_points(str(tmp_path / "q.hdf5"), data - 5, {"name": "odd"})
    with pytest.raises(OutputError):
        write_points(str(tmp_path / "no" / "folder.hdf5"), data, attributes)


# -- layers ------------------------------------------------------------------------------------------------------------


def test_points_are_float32_in_fortran_order_also_inside_the_layer():
    layer = Points(**molecule_layers.points_arguments(some_molecules()))
    assert layer.data.dtype == np.float32
    assert layer.data.flags.f_contiguous  # C order makes every step through the movie ten times slower
    assert tuple(layer.features.columns) == some_molecules().column_names


def test_points_lie_where_the_movie_lies():
    movie = Image(
        np.zeros((5, 32, 48), np.uint16), scale=(0.02, 0.1, 0.1), translate=(0, 3, 4), units=("s", "um", "um")
    )
    place = movie_layers.Place.of_layer(movie)
    layer = Points(**molecule_layers.points_arguments(some_molecules(), place=place))
    assert tuple(layer.units) == tuple(movie.units)
    np.testing.assert_allclose(layer.data_to_world((2, 10, 20)), movie.data_to_world((2, 10, 20)))


def test_movies_with_leading_axes_and_single_frames_have_their_place():
    stacked = Image(np.zeros((1, 7, 32, 48), np.uint16))
    place = movie_layers.Place.of_layer(stacked)
    assert (place.ndim, place.frame_axis) == (4, 1)
    data = molecule_layers.point_coordinates(some_molecules(), place.ndim, place.frame_axis)
    assert data.shape[1] == 4
    assert np.array_equal(data[:, 1], some_molecules().frame)
    single = movie_layers.Place.of_layer(Image(np.zeros((32, 48), np.uint16)))
    assert (single.ndim, single.frame_axis) == (2, None)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Image(np.zeros((8, 32, 48, 3), np.uint8), rgb=True), "colour image"),
        (lambda: Image(np.zeros((2, 5, 32, 48), np.uint16)), "several channels or z planes"),
        (lambda: Image(np.zeros((5, 3, 3), np.uint16)), "smaller than"),
    ],
)
def test_layers_that_are_no_movies_are_explained(make, says):
    with pytest.raises(MovieError, match=says):
        movie_layers.movie_of_layer(make())
    assert says in movie_layers.why_no_movie(make())


def test_lazy_arrays_are_read_frame_by_frame(tmp_path):
    import dask.array
    import zarr

    frames = noisy_movie()
    stored = zarr.create_array(tmp_path / "m.zarr", shape=frames.shape, chunks=(1, 32, 48), dtype=frames.dtype)
    stored[:] = frames
    for lazy in (dask.array.from_array(frames, chunks=(1, 32, 48)), stored):
        movie = movie_layers.movie_of_layer(Image(lazy))
        np.testing.assert_array_equal(movie.read(3, 5), frames[3:5])
        region = movie_layers.Region(4, 20, 10, 30)
        cut = movie_layers.movie_of_layer(Image(lazy), region)
        np.testing.assert_array_equal(cut.read(3, 5), frames[3:5, 4:20, 10:30])


@pytest.mark.parametrize(
    ("units", "scale", "expected"),
    [
        (("pixel", "um", "um"), (1, 0.1, 0.1), 100.0),
        (("s", "nm", "nm"), (0.02, 130, 130), 130.0),
        (("pixel", "pixel", "pixel"), (1, 0.1, 0.1), None),  # a number without a unit is no size
        (("pixel", "um", "um"), (1, 0.1, 0.2), None),  # not square
        (("pixel", "mm", "mm"), (1, 1, 1), None),  # impossible
    ],
)
def test_pixel_size_comes_from_scale_and_units(units, scale, expected):
    layer = Image(np.zeros((3, 8, 8)), scale=scale, units=units)
    assert movie_layers.pixel_size_of_layer(layer) == (expected if expected is None else pytest.approx(expected))


def test_pixel_size_comes_from_the_file_where_the_layer_is_silent():
    from importlib.resources import files
    from types import SimpleNamespace

    path = files("smlm_pb.sample_data") / "filaments.tif"
    assert movie_layers.pixel_size_of_source(SimpleNamespace(source=SimpleNamespace(path=str(path))))[0] == 100.0
    assert movie_layers.pixel_size_of_source(SimpleNamespace(source=SimpleNamespace(path=None))) == (None, "")
    assert movie_layers.pixel_size_of_source(SimpleNamespace(source=SimpleNamespace(path=__file__)))[0] is None


def test_region_is_the_rectangle_in_pixels_of_the_movie():
    movie = Image(np.zeros((5, 32, 48), np.uint16), scale=(1, 0.1, 0.1), units=("pixel", "um", "um"))
    rectangle = np.array([[0.38, 0.98], [0.38, 2.02], [1.52, 2.02], [1.52, 0.98]])  # µm
    shapes = Shapes([rectangle], shape_type="rectangle", units=("um", "um"))
    region = movie_layers.region_of_shapes(shapes, movie)
    assert region == movie_layers.Region(top=4, bottom=15, left=10, right=20)
    outside = Shapes([rectangle + 50], shape_type="rectangle")
    assert movie_layers.region_of_shapes(outside, movie) is None
    assert movie_layers.region_of_shapes(Shapes(ndim=2), movie) is None


def test_a_table_is_placed_on_the_movie_it_fits():
    um = {"scale": (1, 0.1, 0.1), "units": ("pixel", "um", "um")}
    movie = Image(np.zeros((20, 32, 48), np.uint16), **um)
    larger = Image(np.zeros((30, 64, 64), np.uint16))
    too_short = Image(np.zeros((5, 64, 64), np.uint16))
    colour = Image(np.zeros((20, 32, 48, 3), np.uint8), rgb=True)
    place = movie_layers.Place.of_layer(movie)
    assert movie_layers.place_for(INFO, [colour, too_short, larger, movie]) == place
    assert movie_layers.place_for(INFO, [larger, too_short]) == movie_layers.Place.of_layer(larger)
    assert movie_layers.place_for(INFO, [movie, movie]) == place
    assert movie_layers.place_for(INFO, [too_short, colour]) is None
    other = Image(np.zeros((20, 32, 48), np.uint16), translate=(0, 5, 5))
    assert movie_layers.place_for(INFO, [movie, other]) is None


def test_image_lies_on_the_movie_to_a_fraction_of_a_pixel():
    # One molecule in the middle of pixel (10, 20): its brightest image pixel must lie there in the world.
    table = Localizations({"frame": [0], "x": [20.0], "y": [10.0], "sigma_x": [0.1], "sigma_y": [0.1]}, INFO)
    rendering = image_layers.draw_image(table, pixel_size_nm=12.5)
    movie = Image(np.zeros((3, 32, 48)), scale=(1, 0.1, 0.1), translate=(0, 7, 9), units=("pixel", "um", "um"))
    layer = Image(rendering.image, **image_layers.image_placement(movie_layers.Place.of_layer(movie), rendering.grid))
    weight = rendering.image / rendering.image.sum()
    centre = [(weight.sum(axis=1 - axis) * np.arange(weight.shape[axis])).sum() for axis in (0, 1)]
    np.testing.assert_allclose(layer.data_to_world(centre), movie.data_to_world((0, 10, 20))[1:], atol=1e-4)
    assert tuple(layer.units) == tuple(movie.units)[1:]


def test_image_is_drawn_also_without_a_pixel_size():
    table = some_molecules(info=MovieInfo(20, 32, 48))
    rendering = image_layers.draw_image(table, pixel_size_nm=10)
    assert rendering.scale_px == (0.1, 0.1)


def test_growing_image_has_a_bounded_size():
    info = MovieInfo(10, 2048, 2048, 100.0)
    pixel_size_nm = image_layers.growing_pixel_size_nm(info, 10.0, 2.0)
    assert (2048 * 100 / pixel_size_nm) ** 2 == pytest.approx(2e6)
    assert image_layers.growing_pixel_size_nm(INFO, 10.0, 2.0) == 10.0


# -- filters -----------------------------------------------------------------------------------------------------------


def test_all_ranges_must_be_satisfied_and_are_recorded():
    table = some_molecules(200)
    chain = filters.FilterChain(table)
    chain.set_range("photons", 1000, None)
    chain.set_range("precision", None, 20)
    precision_nm = 100 * np.sqrt((table.sigma_x**2 + table.sigma_y**2) / 2)
    expected = (table.photons >= 1000) & (precision_nm <= 20)
    np.testing.assert_array_equal(chain.mask(), expected)
    assert chain.condition == "photons >= 1000 and sigma_nm <= 20"
    np.testing.assert_array_equal(filter_by(table, chain.condition).x, table.x[expected])
    chain.set_range("photons", None, None)
    np.testing.assert_array_equal(chain.mask(), precision_nm <= 20)
    chain.clear()
    assert chain.mask().all()
    assert chain.condition == ""


@pytest.mark.parametrize("pixel_size_nm", [100.0, None])
def test_ranges_select_what_the_recorded_condition_selects(pixel_size_nm):
    table = some_molecules(500, info=MovieInfo(20, 32, 48, pixel_size_nm))
    rng = np.random.default_rng(3)
    for name, quantity in filters.quantities(table).items():
        for limit in rng.choice(quantity.values, 5):
            chain = filters.FilterChain(table)
            chain.set_range(name, float(limit), None)
            np.testing.assert_array_equal(filter_by(table, chain.condition).x, table.x[chain.mask()])


def test_unknown_quantities_are_refused():
    chain = filters.FilterChain(some_molecules(3))
    with pytest.raises(TableError, match="no wavelength"):
        chain.set_range("wavelength", 1, 2)


# -- the job -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model(tmp_path_factory.mktemp("models") / "hand-made"))


CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": 1.1, "pixel_size_nm": 100.0}


def request_for(layer, model, region=None, **options):
    movie = movie_layers.movie_of_layer(layer, region)
    whole = None if region is None else movie_layers.movie_of_layer(layer).info
    return localize_job.RunRequest(movie, {"model": model, **CAMERA, **options}, region, whole)


@pytest.mark.parametrize("threshold", ["auto", 0.8])
def test_job_finds_what_the_library_finds(model, threshold):
    import smlm_pb

    frames = noisy_movie()
    job = localize_job.LocalizeJob(request_for(Image(frames), model, threshold=threshold))
    job()
    assert job.failure is None
    result = job.result
    expected = smlm_pb.localize(frames, model=model, threshold=threshold, **CAMERA)
    assert result.threshold == expected.provenance[-1]["threshold"]["threshold"]
    kept = result.candidates.select(result.candidates.probability >= np.float32(result.threshold))
    for name in expected.column_names:
        np.testing.assert_array_equal(kept[name], expected[name])
    if threshold != "auto":
        assert len(result.candidates) > len(kept)  # so that the threshold can be lowered
    assert not result.stopped
    assert result.n_frames == len(frames)
    assert job.image().sum() == pytest.approx(len(kept), rel=0.1)


def test_refined_values_take_the_place_of_the_networks():
    candidates = some_molecules(20)
    kept = candidates.probability >= np.float32(0.5)
    final = candidates.select(kept)
    final = final.with_columns(x=final.x + np.float32(0.25), chi2=np.ones(len(final), np.float32))
    merged = localize_job.with_refined(candidates, final, 0.5)
    np.testing.assert_array_equal(merged.x[kept], final.x)
    np.testing.assert_array_equal(merged.x[~kept], candidates.x[~kept])
    np.testing.assert_array_equal(np.isnan(merged["chi2"]), ~kept)
    assert localize_job.with_refined(candidates, candidates.select(kept), 0.5) is candidates


def test_job_in_a_region_gives_positions_in_the_whole_frame(model):
    layer = Image(noisy_movie())
    region = movie_layers.Region(6, 30, 12, 40)
    whole, cut = (localize_job.LocalizeJob(request_for(layer, model, where)) for where in (None, region))
    whole()
    cut()
    table, all_ = cut.result.candidates, whole.result.candidates
    assert table.info.width == 48
    assert {"step": "region", "top": 6, "bottom": 30, "left": 12, "right": 40} in table.provenance
    sure = table.select(table.probability > 0.9)
    inner = sure.select((sure.x > 16) & (sure.x < 36) & (sure.y > 10) & (sure.y < 26))
    assert len(inner) > 5
    for frame, x, y in zip(inner.frame, inner.x, inner.y, strict=True):
        there = all_.frame == frame
        assert np.hypot(all_.x[there] - x, all_.y[there] - y).min() < 0.1


def test_stopped_job_keeps_what_it_has(model, monkeypatch):
    monkeypatch.setattr("smlm_pb.localization.pipeline._CPU_BLOCK_PX", 32 * 48)
    job = localize_job.LocalizeJob(request_for(Image(noisy_movie(40)), model))
    job.also_stop_if(lambda: job.progress().done >= 3)
    job()
    assert job.failure is None
    assert job.result.stopped
    assert 3 <= job.result.n_frames < 40
    assert job.result.candidates.frame.max() < job.result.n_frames
    assert job.result.candidates.provenance[-1]["step"] == "localize"


def test_errors_do_not_leave_the_job(model, caplog):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("no science today")

    job = localize_job.LocalizeJob(request_for(Image(noisy_movie()), model), localize=broken)
    job()
    assert isinstance(job.failure, ZeroDivisionError)
    assert "no science today" in caplog.text  # the traceback goes to the log
    caplog.clear()
    unknown = localize_job.LocalizeJob(request_for(Image(noisy_movie()), "no-such-model"))
    unknown()
    assert "no-such-model" in str(unknown.failure)
    assert not caplog.records


def test_job_can_be_watched_from_another_thread(model):
    job = localize_job.LocalizeJob(request_for(Image(noisy_movie()), model))
    thread = threading.Thread(target=job)
    thread.start()
    seen = []
    while thread.is_alive():
        seen.append(job.progress().done)
    thread.join()
    assert seen == sorted(seen)
    assert job.progress().done == job.progress().total == 12
    assert len(job.molecules_of_frame(3)) > 0
    assert job.molecules_of_frame(99) is None


# -- a close look ------------------------------------------------------------------------------------------------------


def test_neighbourhood_shows_data_model_and_a_small_residual(model):
    frames = noisy_movie()
    job = localize_job.LocalizeJob(request_for(Image(frames), model))
    job()
    table = job.result.candidates
    mask = table.probability > 0.5
    row = int(np.flatnonzero(mask & (table.x > 12) & (table.x < 36) & (table.y > 12) & (table.y < 20))[0])
    movie = movie_layers.movie_of_layer(Image(frames))
    around = inspection.neighbourhood(movie, table, mask, row)
    assert around.unit == "e⁻"
    assert around.data.shape == (13, 13)
    peak = np.unravel_index(np.argmax(around.model), around.model.shape)
    assert abs(peak[0] + around.top - table.y[row]) < 1
    assert abs(peak[1] + around.left - table.x[row]) < 1
    without = inspection.neighbourhood(movie, Localizations(table.columns, table.info), mask, row)
    assert without.model is None
    assert without.residual is None
    assert without.unit == "ADU"
    values = dict(inspection.values_of(table, row))
    assert values["frame"] == str(table.frame[row])
    assert "nm)" in values["x"]


def test_hot_pixels_are_filled_in_where_they_are_in_the_whole_movie(model):
    """Found in a region, told in the history of the table, and not seen in a close look."""
    import smlm_pb

    frames = noisy_movie()
    hot = frames.copy()
    hot[:, 20, 17] += 900
    region = movie_layers.Region(4, 32, 8, 44)
    part = np.ascontiguousarray(hot[:, region.top : region.bottom, region.left : region.right])
    with pytest.warns(UserWarning, match="hot pixels"):
        table = smlm_pb.localize(
            part, model=model, pixel_size_nm=100.0, offset_adu=100, e_per_adu=0.5, psf_sigma_px=1.1
        )
    placed = movie_layers.placed_in_whole(table, region, MovieInfo(*frames.shape, 100.0))
    camera, _ = inspection.conditions_of(placed)
    assert camera.bad_pixels == ((20, 17),)
    assert table.provenance[-1]["conditions"]["camera"]["bad_pixels"] != [(20, 17)]
    at = Localizations({**{name: [0] for name in placed}, "x": [17], "y": [20]}, placed.info, placed.provenance)
    movie = movie_layers.movie_of_layer(Image(hot))
    around = inspection.neighbourhood(movie, at, np.ones(1, bool), 0)
    clean = camera.to_electrons(frames[0])[around.top : around.top + 13, around.left : around.left + 13]
    assert around.data == pytest.approx(clean, abs=60)


def test_nearest_molecule_is_of_the_same_frame_and_not_hidden():
    table = Localizations({"frame": [0, 0, 1], "x": [5, 9, 5.5], "y": [5, 9, 5.5]}, INFO)
    everything = np.ones(3, bool)
    assert inspection.nearest(table, everything, 0, 5.4, 5.4) == 0
    assert inspection.nearest(table, np.array([False, True, True]), 0, 5.4, 5.4) is None
    assert inspection.nearest(table, everything, 7, 5, 5) is None


def test_messages_speak_of_rows_not_of_options():
    assert in_panel_words("give --psf-sigma-px, e.g. 1.2") == "give PSF width, e.g. 1.2"
    assert in_panel_words("check offset_adu, e_per_adu and em_gain") == "check Offset, e⁻ per ADU and EM gain"
    assert in_panel_words("all frames") == "all frames"


# -- training ----------------------------------------------------------------------------------------------------------


def tiny_experiment(**changes):
    from smlm_pb.training import Experiment

    return Experiment.from_dict(
        {
            "name": "tiny",
            "steps": 6,
            "batch_size": 1,
            "crop_px": 16,
            "workers": 0,
            "network": {"channels": 4, "blocks": 1},
            "validation": {"every_steps": 3, "scenes": 2},
            **changes,
        }
    )


def wait_for_training(run, limit_s=600.0):
    end = time.monotonic() + limit_s
    while run.state().running:
        assert time.monotonic() < end
        time.sleep(0.05)
    return run.state()


def test_training_runs_in_a_process_of_its_own(tmp_path):
    run = training_run.TrainingRun(tiny_experiment(), tmp_path / "tiny")
    assert not run.state().running
    run.start()
    assert run.state().running
    state = wait_for_training(run)
    assert state.failure == ""
    assert (state.done, state.total) == (6, 6)
    assert [entry["step"] for entry in state.history] == [3, 6]
    assert (state.model / "weights.safetensors").exists()
    with pytest.raises(OutputError, match="already holds a training"):
        training_run.TrainingRun(tiny_experiment(), tmp_path / "tiny").start()


def test_a_failed_training_says_why_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(
        training_run.sys, "executable", str(_script(tmp_path / "python", "smlm-pb: error: The graphics card is gone."))
    )
    run = training_run.TrainingRun(tiny_experiment(), tmp_path / "tiny")
    run.start()
    assert wait_for_training(run).failure == "The graphics card is gone."
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        training_run.TrainingRun(tiny_experiment(), tmp_path / "file" / "tiny").start()


def _script(path, says):
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 2\n")
    path.chmod(0o755)
    return path


def test_the_plugin_has_no_science():
    """What computes belongs into the library: no solver, no transform, no network in here."""
    for path in Path(movie_layers.__file__).parent.glob("*.py"):
        text = path.read_text()
        for forbidden in ("scipy", "torch.nn", "fft", "curve_fit"):
            assert forbidden not in text, f"{path.name} uses {forbidden}"
