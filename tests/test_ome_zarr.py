"""OME-Zarr pyramids: the values, their place on the camera, and what is never replaced."""

import json

import numpy as np
import pytest

from smlm_pb.analysis import render, save_image
from smlm_pb.analysis.ome_zarr import halve
from smlm_pb.analysis.pipeline_file import Pipeline
from smlm_pb.analysis.pipeline_run import run_pipeline
from smlm_pb.cli.main import main
from smlm_pb.errors import OutputError
from smlm_pb.localizations import Localizations, MovieInfo

zarr = pytest.importorskip("zarr")


def table(n=500, side=120):
    rng = np.random.default_rng(0)
    columns = {
        "frame": np.sort(rng.integers(0, 50, n)),
        "x": rng.uniform(0, side - 1, n),
        "y": rng.uniform(0, side - 21, n),
        "sigma_x": np.full(n, 0.1),
        "sigma_y": np.full(n, 0.1),
    }
    return Localizations(columns, MovieInfo(50, side - 20, side, 100.0))


def levels_of(path):
    attributes = json.loads((path / ".zattrs").read_text())
    datasets = attributes["multiscales"][0]["datasets"]
    return attributes, [zarr.open_array(str(path / d["path"]), mode="r")[...] for d in datasets], datasets


@pytest.mark.parametrize("shape", [(6, 8), (7, 5), (3, 9, 4), (1, 1)])
def test_coarser_images_keep_the_mean(shape):
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    coarse = halve(image)
    assert coarse.shape == (*shape[:-2], -(-shape[-2] // 2), -(-shape[-1] // 2))
    if not shape[-1] % 2 and not shape[-2] % 2:
        assert coarse.mean() == pytest.approx(image.mean(), rel=1e-5)
    np.testing.assert_allclose(halve(np.full(shape, 2.5, np.float32)), 2.5)


def test_a_pyramid_holds_the_image_and_lies_where_it_lies(tmp_path):
    image = render(table(), pixel_size_nm=10, roi=(9.5, 19.5, 89.5, 119.5))
    path = save_image(image, tmp_path / "cell.ome.zarr")
    attributes, levels, datasets = levels_of(path)
    assert [level.shape for level in levels] == [(800, 1000), (400, 500)]
    np.testing.assert_array_equal(levels[0], image.image)
    np.testing.assert_allclose(levels[1], halve(image.image))
    scale = attributes["multiscales"][0]
    assert [axis["name"] for axis in scale["axes"]] == ["y", "x"]
    assert {axis["unit"] for axis in scale["axes"]} == {"micrometer"}
    assert scale["version"] == "0.4"
    assert scale["name"] == "cell"
    for k, dataset in enumerate(datasets):
        steps, places = (t[t["type"]] for t in dataset["coordinateTransformations"])
        assert steps == pytest.approx([0.01 * 2**k] * 2)
        # The outer edge of the first pixel is the same in all of them: 9.5 and 19.5 camera pixels of 0.1 µm.
        edges = np.array(places) - 0.5 * np.array(steps)
        assert edges == pytest.approx([0.95, 1.95], abs=1e-9)
    assert not list(tmp_path.glob(".*"))


def test_colours_are_channels(tmp_path):
    image = render(table(), pixel_size_nm=20, colour_by="frame")
    attributes, levels, _ = levels_of(save_image(image, tmp_path / "t.zarr"))
    assert levels[0].shape == (3, *image.image.shape[:2])
    np.testing.assert_array_equal(np.moveaxis(levels[0], 0, 2), image.image)
    assert [channel["color"] for channel in attributes["omero"]["channels"]] == ["FF0000", "00FF00", "0000FF"]


def test_other_programs_find_it(tmp_path):
    save_image(np.ones((30, 40), np.float32), tmp_path / "plain.ome.zarr")
    group = zarr.open_group(str(tmp_path / "plain.ome.zarr"), mode="r")
    assert group["0"].shape == (30, 40)
    assert "unit" not in group.attrs["multiscales"][0]["axes"][0]  # an array without a scale


def test_only_a_pyramid_is_replaced(tmp_path):
    image = np.ones((30, 40), np.float32)
    path = tmp_path / "a.ome.zarr"
    save_image(image, path)
    with pytest.raises(OutputError, match="exists already"):
        save_image(image, path)
    save_image(2 * image, path, overwrite=True)
    assert levels_of(path)[1][0].max() == 2
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="no OME-Zarr"):
        save_image(image, tmp_path / "mine.zarr", overwrite=True)
    assert (tmp_path / "mine.zarr" / "thesis.txt").exists()
    with pytest.raises(OutputError, match="does not exist"):
        save_image(image, tmp_path / "nowhere" / "a.zarr")


def test_the_command_and_the_pipeline(tmp_path, capsys):
    table().save(tmp_path / "movie_locs.hdf5")
    assert main(["render", str(tmp_path / "movie_locs.hdf5"), "--out", str(tmp_path / "movie.ome.zarr")]) == 0
    assert levels_of(tmp_path / "movie.ome.zarr")[1][0].shape == (1000, 1200)
    assert main(["render", str(tmp_path / "movie_locs.hdf5"), "--out", str(tmp_path / "movie.ome.zarr")]) == 2
    settings = {"locs": str(tmp_path / "movie_locs.hdf5"), "out": str(tmp_path / "out")}
    pipeline = Pipeline.from_dict({**settings, "render": {"pixel_size_nm": 50, "endings": ["ome.zarr"]}})
    for overwrite in (False, True):
        result = run_pipeline(pipeline, overwrite=overwrite)
        assert result.files["render"].name == "movie.ome.zarr"
        assert levels_of(result.files["render"])[1][0].shape == (200, 240)
    with pytest.raises(OutputError, match="exists already"):
        run_pipeline(pipeline)
