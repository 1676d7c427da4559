"""Every movie that cannot be used ends in one clear line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from smlm_pb.camera import Camera
from smlm_pb.errors import CameraError, MovieError, SmlmPbError
from smlm_pb.movies import check_block, check_movie, iterate_blocks, open_movie

SHAPE = (12, 20, 26)


@pytest.fixture
def frames() -> np.ndarray:
    return (100 + np.random.default_rng(2).poisson(40, SHAPE)).astype(np.uint16)


def _refused(call: Callable[[], Any], *words: str, kind: type[SmlmPbError] = MovieError) -> str:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 450
    for word in words:
        assert word in message, message
    return message


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    _refused(lambda: open_movie(tmp_path / "none.tif"), "none.tif", "check the path")
    (tmp_path / "empty.tif").write_bytes(b"")
    _refused(lambda: open_movie(tmp_path / "empty.tif"), "empty (0 bytes)")
    (tmp_path / "text.tif").write_text("frame,x,y\n1,2,3\n" * 20)
    _refused(lambda: open_movie(tmp_path / "text.tif"), "not a TIFF file", "export")
    (tmp_path / "movie.nd2").write_bytes(bytes(100))
    _refused(lambda: open_movie(tmp_path / "movie.nd2"), ".nd2", "as TIFF")
    (tmp_path / "header.tif").write_bytes(b"II*\0" + bytes(4))
    _refused(lambda: open_movie(tmp_path / "header.tif"), "header.tif")
    (tmp_path / "short.tif").write_bytes(b"II*\0\xff\xff")
    _refused(lambda: open_movie(tmp_path / "short.tif"), "short.tif")
    (tmp_path / "random.tif").write_bytes(b"II*\0\x08\0\0\0" + np.random.default_rng(0).bytes(400))
    _refused(lambda: open_movie(tmp_path / "random.tif"), "random.tif")


def test_other_things_are_no_movies(tmp_path: Path, frames: np.ndarray) -> None:
    _refused(lambda: open_movie(3.5), "float", "path")
    _refused(lambda: open_movie([]), "empty list")
    _refused(lambda: open_movie(torch.from_numpy(frames.astype(np.int32))), "Tensor", "numpy")
    _refused(lambda: open_movie([frames[0], frames[1]]), "numpy.stack")
    _refused(lambda: open_movie(tmp_path), "no TIFF files")
    _refused(lambda: open_movie(frames.astype(complex)), "complex128", "integers")
    _refused(lambda: open_movie(frames > 100), "bool")
    _refused(lambda: open_movie(np.arange(5)), "(5,)", "(frame, y, x)")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    _refused(lambda: open_movie(tmp_path / "objects.npy"), "objects.npy")


def test_masked_regions_are_told(frames: np.ndarray) -> None:
    """A polygon that was cut out and filled has an edge that looks like light, and pixels without noise."""
    movie = np.concatenate([frames, frames[::-1] + 3])
    assert not any("same value" in text for text in check_movie(open_movie(movie)))
    movie[:, :, :10] = 100
    said = [text for text in check_movie(open_movie(movie)) if "same value in all frames" in text]
    assert len(said) == 1
    assert f"{100 * 10 / movie.shape[2]:.2g} %" in said[0]
    movie[2] = 0  # a dropped frame hides nothing
    assert any("same value" in text for text in check_movie(open_movie(movie)))


LAYOUTS: dict[str, dict[str, Any]] = {
    "shaped": {"photometric": "minisblack"},
    "imagej": {"imagej": True, "metadata": {"axes": "TYX"}},
    "bare": {"metadata": None, "photometric": "minisblack"},
    "ome": {"ome": True, "metadata": {"axes": "TYX"}, "photometric": "minisblack"},
    "bigtiff": {"bigtiff": True, "photometric": "minisblack"},
    "deflate": {"compression": "zlib", "photometric": "minisblack"},
    "bare_deflate": {"compression": "zlib", "metadata": None, "photometric": "minisblack"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kept", [0.35, 0.62, 0.93])
def test_cut_off_files_tell_their_whole_frames(tmp_path: Path, frames: np.ndarray, layout: str, kept: float) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, frames, **LAYOUTS[layout])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    message = _refused(lambda: open_movie(path), "cut.tif", "truncated", "whole frame")
    told = int(message.split("truncated): ")[1].split()[0]) if "no whole frame" not in message else 0
    assert abs(told - kept * len(frames)) <= 2
    if told:
        rescued = open_movie(path, allow_truncated=True)
        assert rescued.n_frames == told
        np.testing.assert_array_equal(rescued.read(0, told), frames[:told])
        assert "cut off" in check_movie(rescued)[0]


def test_cut_off_page_by_page_file(tmp_path: Path, frames: np.ndarray) -> None:
    """Header, frame, header, frame, …: the chain of headers breaks."""
    path = tmp_path / "cut.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame in frames:
            writer.write(frame, contiguous=False, metadata=None)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 55 // 100])
    message = _refused(lambda: open_movie(path), "truncated")
    told = int(message.split("truncated): ")[1].split()[0])
    assert told in (5, 6)
    np.testing.assert_array_equal(open_movie(path, allow_truncated=True).read(0, told), frames[:told])


def test_nothing_left_of_a_cut_off_file(tmp_path: Path, frames: np.ndarray) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, frames, photometric="minisblack")
    path.write_bytes(path.read_bytes()[:900])
    _refused(lambda: open_movie(path), "no whole frame")
    _refused(lambda: open_movie(path, allow_truncated=True), "no whole frame")


def test_stopped_acquisition_is_not_cut_off(tmp_path: Path, frames: np.ndarray) -> None:
    """The header promises more frames than were recorded, but the file ends as it should."""
    path = tmp_path / "stopped.ome.tif"
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="26" SizeY="20" '
        'SizeC="1" SizeZ="1" SizeT="1000"><Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels>'
        "</Image></OME>"
    )
    with tifffile.TiffWriter(path) as writer:
        for frame in frames:
            writer.write(frame, contiguous=False, metadata=None, description=xml)
            xml = None  # type: ignore[assignment]
    movie = open_movie(path)
    assert movie.n_frames == len(frames)
    np.testing.assert_array_equal(movie.read(0, 12), frames)
    assert any("1000" in warning for warning in check_movie(movie))
    single = "ImageJ=1.53t\nimages=400\nframes=400\nhyperstack=true\n"
    tifffile.imwrite(tmp_path / "one.tif", frames[0], description=single, metadata=None)
    assert open_movie(tmp_path / "one.tif").n_frames == 1


@pytest.mark.parametrize(
    ("axes", "shape", "options", "words"),
    [
        ("TYXS", (6, 20, 26, 3), {"photometric": "rgb"}, ("colour", "(6, 1, 1, 20, 26, 3)")),
        ("TCYX", (6, 2, 20, 26), {}, ("2 channels", "TCZYX")),
        ("CYX", (3, 20, 26), {}, ("3 channels",)),
        ("TZYX", (4, 3, 20, 26), {}, ("z-stack over time", "(4, 3, 1, 20, 26, 1)")),
    ],
)
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_colour_channels_and_z_stacks(
    tmp_path: Path, axes: str, shape: tuple[int, ...], options: dict[str, Any], words: tuple[str, ...], kind: str
) -> None:
    data = np.arange(np.prod(shape), dtype=np.uint8 if "S" in axes else np.uint16).reshape(shape)
    options = {"photometric": "minisblack", **options} if kind == "ome" else {}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, **{kind: True}, metadata={"axes": axes}, **options)
    _refused(lambda: open_movie(path), words[0])
    if kind == "ome":
        _refused(lambda: open_movie(path), *words)
        if "S" not in axes:
            _refused(lambda: open_movie([path, path]), words[0])


def test_arrays_with_further_axes(frames: np.ndarray) -> None:
    _refused(lambda: open_movie(np.stack([frames, frames])), "(2, 12, 20, 26)", "channels or z planes")
    _refused(lambda: open_movie(np.stack([frames] * 3, axis=-1)), "colour")
    _refused(lambda: open_movie(np.zeros((512, 512, 3), dtype=np.uint8)), "colour")


def test_too_small_and_no_frames(tmp_path: Path, frames: np.ndarray) -> None:
    _refused(lambda: open_movie(frames[:, :1, :1]), "1×1 px", "smaller than 5×5 px")
    tifffile.imwrite(tmp_path / "tiny.tif", np.ones((1, 1), dtype=np.uint16))
    _refused(lambda: open_movie(tmp_path / "tiny.tif"), "1×1 px")
    _refused(lambda: open_movie(frames[:0]), "no frames")


def test_files_that_are_not_one_movie(tmp_path: Path, frames: np.ndarray) -> None:
    for name, part in (("cell_a", frames[:4]), ("cell_b", frames[4:9])):
        tifffile.imwrite(tmp_path / f"{name}.tif", part, photometric="minisblack")
    _refused(lambda: open_movie(tmp_path), "2 stacks", "cell_a.tif, cell_b.tif")
    tifffile.imwrite(tmp_path / "other.tif", frames[:3, :10], photometric="minisblack")
    paths = [tmp_path / "cell_a.tif", tmp_path / "other.tif"]
    _refused(lambda: open_movie(paths), "other.tif", "10×26 px", "20×26 px")
    _refused(lambda: open_movie([*paths, tmp_path / "gone.tif"]), "other.tif")
    _refused(lambda: open_movie([tmp_path / "cell_a.tif", tmp_path / "gone.tif"]), "gone.tif", "check the path")


def test_two_series_in_one_file(tmp_path: Path, frames: np.ndarray) -> None:
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as writer:
        writer.write(frames[:5], photometric="minisblack", metadata={"axes": "TYX"})
        writer.write(frames[5:10, :, :20], photometric="minisblack", metadata={"axes": "TYX"})
    _refused(lambda: open_movie(tmp_path / "two.ome.tif"), "2 image series")
    with tifffile.TiffWriter(tmp_path / "thumb.ome.tif", ome=True) as writer:
        writer.write(frames, photometric="minisblack", metadata={"axes": "TYX"})
        writer.write(frames[0, :8, :8], photometric="minisblack", metadata={"axes": "YX"})
    np.testing.assert_array_equal(open_movie(tmp_path / "thumb.ome.tif").read(0, 12), frames)


def test_file_vanishes_or_shrinks_while_reading(tmp_path: Path, frames: np.ndarray) -> None:
    for compression in (None, "zlib"):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, frames, photometric="minisblack", compression=compression)
        movie = open_movie(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        _refused(lambda movie=movie: movie.read(0, 12), "a.tif")  # type: ignore[misc]
        path.unlink()
        _refused(lambda movie=movie: movie.read(0, 12), "a.tif")  # type: ignore[misc]


def test_damaged_compressed_frame(tmp_path: Path, frames: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, frames, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as tif:
        place, count = tif.pages[7].dataoffsets[0], tif.pages[7].databytecounts[0]
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(bytes(count))
    movie = open_movie(path)
    np.testing.assert_array_equal(movie.read(0, 7), frames[:7])
    _refused(lambda: movie.read(6, 9), "a.tif", "frames 6 to 9", "cannot be decoded")


def test_frames_outside_the_movie(frames: np.ndarray) -> None:
    movie = open_movie(frames)
    for start, stop in ((-1, 3), (5, 4), (0, 13), (13, 13)):
        _refused(lambda start=start, stop=stop: movie.read(start, stop), "12")  # type: ignore[misc]
    _refused(lambda: next(iterate_blocks(movie, 0, 99)), "99", "12")
    _refused(lambda: next(iterate_blocks(movie, block_frames=0)), "at least 1 frame")


def test_failing_lazy_array(frames: np.ndarray) -> None:
    class Broken:
        shape, dtype = frames.shape, frames.dtype

        def __getitem__(self, index: object) -> np.ndarray:
            raise ConnectionError("store is gone")

    _refused(lambda: open_movie(Broken()).read(0, 2), "store is gone", "frames 0 to 2")


def test_reader_says_nothing_on_the_terminal(
    tmp_path: Path, frames: np.ndarray, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, frames, photometric="minisblack", metadata=None, compression="zlib")
    path.write_bytes(path.read_bytes()[:2500])
    with caplog.at_level(logging.DEBUG):
        _refused(lambda: open_movie(path), "truncated")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("tifffile").filters


# --------------------------------------------------------------------------------------------- contents


def test_a_good_movie_gives_no_warning(frames: np.ndarray) -> None:
    assert check_movie(open_movie(frames), Camera(offset_adu=100)) == []
    assert check_movie(open_movie(frames[:1])) == []


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_that_are_no_numbers(frames: np.ndarray, wrong: float) -> None:
    holed = frames.astype(np.float32)
    holed[7, 3, 4:6] = wrong
    _refused(lambda: check_movie(open_movie(holed)), "frame 7", "2 values")
    _refused(lambda: check_block(holed[5:9], 5, "cell"), "cell", "frame 7")
    check_block(frames, 0, "cell")


def test_dark_and_constant_movies(frames: np.ndarray) -> None:
    _refused(lambda: check_movie(open_movie(np.zeros_like(frames))), "every pixel", "is 0")
    _refused(lambda: check_movie(open_movie(np.full_like(frames, 100))), "is 100")
    frames[3:5] = 0
    (warning,) = check_movie(open_movie(frames))
    assert "2 of the 12 frames" in warning


@pytest.mark.parametrize("level", [65535, 4095, 16383])
def test_saturated_movies(frames: np.ndarray, level: int) -> None:
    frames[:, :2, :5] = level
    (warning,) = check_movie(open_movie(frames))
    assert f"1.9 % of the pixels are saturated at {level}" in warning
    frames[:, :15] = level
    _refused(lambda: check_movie(open_movie(frames)), "saturated", "less light")
    _refused(lambda: check_movie(open_movie(np.full_like(frames, level))), "100 %", "saturated", "less light")


def test_offset_above_the_data(frames: np.ndarray) -> None:
    movie = open_movie(frames)
    low = np.quantile(frames, 0.03)
    (warning,) = check_movie(movie, Camera(offset_adu=low + 4, e_per_adu=1.0, read_noise_e=1.0))
    assert "is above" in warning
    assert warning.split("is above ")[1].startswith(("2", "3", "4", "5"))
    _refused(lambda: check_movie(movie, Camera(offset_adu=400)), "offset 400 ADU", "100 %", "dark", kind=CameraError)
    # Half of a dark movie's pixels lie below the offset; that is read noise and no fault.
    dark = np.random.default_rng(0).normal(100, 3.0, SHAPE).round().astype(np.uint16)
    assert check_movie(open_movie(dark), Camera(offset_adu=100, e_per_adu=0.5, read_noise_e=1.5)) == []


def test_camera_maps_must_fit(frames: np.ndarray) -> None:
    movie = open_movie(frames)
    assert check_movie(movie, Camera(offset_adu=np.full((20, 26), 100.0))) == []
    _refused(
        lambda: check_movie(movie, Camera(offset_adu=np.full((26, 20), 100.0))),
        "offset_adu",
        "(26, 20)",
        "(20, 26)",
        kind=CameraError,
    )


def test_display_images_are_pointed_out(frames: np.ndarray) -> None:
    (warning,) = check_movie(open_movie(frames.astype(np.float32) / 1000))
    assert "between 0 and 1" in warning
    (warning,) = check_movie(open_movie((frames // 2).astype(np.uint8)))
    assert "8 bits" in warning


def test_z_planes_as_time_are_pointed_out(tmp_path: Path, frames: np.ndarray) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, frames, photometric="minisblack", metadata={"axes": "ZYX"})
    (warning,) = check_movie(open_movie(path))
    assert "12 z planes" in warning
    tifffile.imwrite(tmp_path / "b.tif", frames, imagej=True, metadata={"axes": "ZYX"})
    assert check_movie(open_movie(tmp_path / "b.tif")) == []  # ImageJ calls the frames of every stack slices
