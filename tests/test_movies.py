"""Every kind of movie gives the same frames, block by block."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb.errors import MovieError
from smlm_pb.movies import (
    Movie,
    even_frames,
    frames_per_block,
    iterate_blocks,
    natural_key,
    open_movie,
    sample_frames,
)

SHAPE = (13, 24, 33)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(1).integers(90, 3000, SHAPE).astype(np.uint16)


def _assert_same(movie: Movie, frames: np.ndarray) -> None:
    assert (movie.n_frames, movie.height, movie.width) == frames.shape
    assert movie.dtype == frames.dtype.newbyteorder("=")
    last = len(frames)
    for start, stop in ((0, 1), (last // 3, last - last // 4), (0, last), (last - 1, last), (1, 1)):
        block = movie.read(start, stop)
        assert block.dtype == movie.dtype
        assert block.flags.c_contiguous
        np.testing.assert_array_equal(block, frames[start:stop])


WRITERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "imagej": {"imagej": True},
    "imagej_time": {"imagej": True, "metadata": {"axes": "TYX"}},
    "no_metadata": {"metadata": None},
    "bigtiff": {"bigtiff": True},
    "bigendian": {"byteorder": ">"},
    "deflate": {"compression": "zlib"},
    "lzw_predictor": {"compression": "lzw", "predictor": True},
    "zstd": {"compression": "zstd"},
    "strips": {"rowsperstrip": 5},
    "strips_deflate": {"rowsperstrip": 5, "compression": "zlib", "metadata": None},
    "tiles": {"tile": (16, 16)},
    "tiles_jpeg2000": {"tile": (16, 16), "compression": "jpeg2000", "compressionargs": {"level": 0}},
    "ome": {"ome": True, "metadata": {"axes": "TYX"}},
    "ome_deflate": {"ome": True, "metadata": {"axes": "TYX"}, "compression": "zlib"},
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_tiff_gives_its_frames(tmp_path: Path, frames: np.ndarray, kind: str) -> None:
    path = tmp_path / ("cell.ome.tif" if "ome" in kind else "cell.tif")
    tifffile.imwrite(path, frames, photometric="minisblack", **WRITERS[kind])
    movie = open_movie(path)
    _assert_same(movie, frames)
    assert movie.name == "cell"
    movie.close()
    np.testing.assert_array_equal(movie.read(4, 6), frames[4:6])
    movie.close()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32"])
def test_every_number_type(tmp_path: Path, frames: np.ndarray, dtype: str) -> None:
    converted = frames.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", converted, photometric="minisblack")
    _assert_same(open_movie(tmp_path / "a.tif"), converted)


def test_pages_with_gaps_between_them(tmp_path: Path, frames: np.ndarray) -> None:
    """MicroManager writes header, frame, metadata, header, frame, …"""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, contiguous=False, metadata=None, description=f"frame {index}" * (index + 1))
    _assert_same(open_movie(tmp_path / "a.tif"), frames)


def test_single_frame_and_odd_sizes(tmp_path: Path, frames: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "one.tif", frames[0])
    _assert_same(open_movie(tmp_path / "one.tif"), frames[:1])
    tifffile.imwrite(tmp_path / "odd.tif", frames[:, :23, :7], photometric="minisblack")
    _assert_same(open_movie(tmp_path / "odd.tif"), frames[:, :23, :7])
    _assert_same(open_movie(frames[0]), frames[:1])


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("TZCYX", (13, 1, 1, 24, 33)), ("TCZYX", (13, 1, 1, 24, 33)), ("ZYX", (13, 24, 33))],
)
def test_axes_of_length_one_are_dropped_and_lone_z_is_time(
    tmp_path: Path, frames: np.ndarray, axes: str, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, frames.reshape(shape), photometric="minisblack", metadata={"axes": axes})
    movie = open_movie(path)
    _assert_same(movie, frames)
    assert bool(movie.metadata["notes"]) == (axes == "ZYX")


def test_imagej_stack_beyond_four_gigabytes(tmp_path: Path) -> None:
    """ImageJ writes one header, and then all frames without further headers."""
    if sys.platform == "win32":
        pytest.skip("needs sparse files")
    side, n_frames = 1024, 2100
    head = np.zeros((2, side, side), dtype=">u2")
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, head, imagej=True, metadata={"axes": "TYX", "room": "for longer numbers"})
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[0]
        next_header = tif.pages[0].offset + 2 + 12 * len(tif.pages[0].tags)
        description = tif.pages[0].tags["ImageDescription"]
        text, position = description.value, description.valueoffset
    longer = text.replace("images=2", f"images={n_frames}").replace("frames=2", f"frames={n_frames}")
    longer = longer.replace("room=for longer numbers", "")
    assert len(longer) <= len(text)
    with path.open("r+b") as stream:
        stream.seek(position)
        stream.write(longer.ljust(len(text), "\0").encode())
        stream.seek(next_header)
        stream.write(bytes(4))
        stream.truncate(offset + 2 * side * side * n_frames)
        marked = np.full((side, side), 4321, dtype=">u2")
        stream.seek(offset + 2 * side * side * (n_frames - 1))
        stream.write(marked.tobytes())
    assert path.stat().st_size > 2**32
    movie = open_movie(path)
    assert (movie.n_frames, movie.height, movie.width) == (n_frames, side, side)
    last = movie.read(n_frames - 2, n_frames)
    assert last[0].max() == 0
    assert last[1].min() == last[1].max() == 4321
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in iterate_blocks(movie, 0, 400, 20):
        pass
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    grown_kib = grown / 1024 if sys.platform == "darwin" else grown
    assert grown_kib < 150_000  # 400 frames are 819 200 KiB


def test_folder_is_read_in_natural_order(tmp_path: Path, frames: np.ndarray) -> None:
    folder = tmp_path / "cell 3"
    folder.mkdir()
    for index, frame in enumerate(frames):
        tifffile.imwrite(folder / f"img_{index}.tif", frame)
    (folder / "metadata.txt").write_text("{}")
    (folder / "._img_0.tif").write_bytes(b"resource fork")
    movie = open_movie(folder)
    _assert_same(movie, frames)
    assert movie.name == "cell 3"
    movie.close()
    _assert_same(movie, frames)


@pytest.mark.parametrize(
    ("numbers", "jump"),
    [
        ([1, 2, 3, 5, 6, 7, 8, 12, 13, 14], "jump 2 times, first from t003_ch1.tif to t005_ch1.tif"),
        ([0, 2, 4, 6, 8, 10, 14, 16, 18, 20], "jump 1 times, first from t010_ch1.tif to t014_ch1.tif"),
        ([7, 8, 9, 10], None),
        ([0, 5, 10, 15, 20], None),
        ([0, 31, 64, 93, 127, 160], None),  # time stamps
    ],
)
def test_frames_missing_from_a_folder_are_told(
    tmp_path: Path, frames: np.ndarray, numbers: list[int], jump: str | None
) -> None:
    for number, frame in zip(numbers, frames, strict=False):
        tifffile.imwrite(tmp_path / f"t{number:03d}_ch1.tif", frame)
    notes = open_movie(tmp_path).metadata["notes"]
    assert [note for note in notes if jump and jump in note] == notes
    assert len(notes) == (jump is not None)


def test_folder_of_compressed_frames(tmp_path: Path, frames: np.ndarray) -> None:
    for index, frame in enumerate(frames):
        tifffile.imwrite(tmp_path / f"img_{index}.tif", frame, compression="zlib")
    _assert_same(open_movie(str(tmp_path)), frames)


def test_list_of_files_keeps_its_order(tmp_path: Path, frames: np.ndarray) -> None:
    """The parts of a stack that a camera program cut."""
    paths = [tmp_path / "cell.ome.tif", tmp_path / "cell_1.ome.tif", tmp_path / "cell_2.ome.tif"]
    for path, part in zip(paths, (frames[:5], frames[5:10], frames[10:]), strict=True):
        tifffile.imwrite(path, part, photometric="minisblack", metadata={"axes": "TYX"})
    _assert_same(open_movie([str(path) for path in paths]), frames)
    _assert_same(open_movie(tmp_path), frames)
    _assert_same(open_movie([paths[1]]), frames[5:10])
    backwards = np.concatenate([frames[10:], frames[5:10], frames[:5]])
    _assert_same(open_movie(paths[::-1]), backwards)


def _write_ome_series(folder: Path, frames: np.ndarray, compression: str | None) -> list[Path]:
    """Two files that name each other in their OME-XML, as MicroManager and OME writers do."""
    names, parts = ["s.ome.tif", "s_1.ome.tif"], [frames[:8], frames[8:]]
    planes = "".join(
        f'<TiffData IFD="{i}" FirstT="{i + 8 * part}" FirstC="0" FirstZ="0" PlaneCount="1">'
        f'<UUID FileName="{names[part]}">urn:uuid:{part}</UUID></TiffData>'
        for part in (0, 1)
        for i in range(len(parts[part]))
    )
    for part in (0, 1):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{part}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
            f'SizeX="{frames.shape[2]}" SizeY="{frames.shape[1]}" SizeC="1" SizeZ="1" SizeT="{len(frames)}" '
            f'PhysicalSizeX="0.117" PhysicalSizeY="0.117"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}'
            "</Pixels></Image></OME>"
        )
        with tifffile.TiffWriter(folder / names[part]) as writer:
            for frame in parts[part]:
                writer.write(frame, contiguous=False, metadata=None, description=xml, compression=compression)
                xml = None
    return [folder / name for name in names]


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_series_over_two_files(tmp_path: Path, frames: np.ndarray, compression: str | None) -> None:
    paths = _write_ome_series(tmp_path, frames, compression)
    for source in (paths[0], paths[1], paths, tmp_path):
        movie = open_movie(source)
        _assert_same(movie, frames)
        assert movie.pixel_size_nm == pytest.approx(117)
    paths[1].unlink()
    with pytest.raises(MovieError, match=r"s_1\.ome\.tif is missing") as caught:
        open_movie(paths[0])
    assert "\n" not in str(caught.value)
    _assert_same(open_movie([paths[0]]), frames[:8])


def test_arrays(tmp_path: Path, frames: np.ndarray) -> None:
    dask_array = pytest.importorskip("dask.array")
    zarr = pytest.importorskip("zarr")
    _assert_same(open_movie(frames), frames)
    _assert_same(open_movie(frames[:, np.newaxis]), frames)
    _assert_same(open_movie(frames[np.newaxis, :, np.newaxis]), frames)
    _assert_same(open_movie(frames.astype(">u2")), frames)
    _assert_same(open_movie(np.asfortranarray(frames)), frames)
    _assert_same(open_movie(dask_array.from_array(frames, chunks=(4, 24, 33))), frames)
    store = zarr.open_array(str(tmp_path / "a.zarr"), mode="w", shape=frames.shape, chunks=(4, 24, 33), dtype="u2")
    store[:] = frames
    _assert_same(open_movie(store), frames)
    _assert_same(open_movie(tmp_path / "a.zarr"), frames)
    np.save(tmp_path / "a.npy", frames)
    _assert_same(open_movie(tmp_path / "a.npy"), frames)
    movie = open_movie(frames)
    assert open_movie(movie) is movie
    assert isinstance(movie, Movie)


def test_lazy_arrays_are_read_block_by_block(frames: np.ndarray) -> None:
    asked: list[tuple[Any, ...]] = []

    class Lazy:
        shape, dtype = frames.shape, frames.dtype

        def __getitem__(self, index: tuple[Any, ...]) -> np.ndarray:
            asked.append(index)
            return frames[index]

    blocks = list(iterate_blocks(open_movie(Lazy()), 1, 12, 5))
    assert [first for first, _ in blocks] == [1, 6, 11]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), frames[1:12])
    assert [index[0] for index in asked] == [slice(1, 6), slice(6, 11), slice(11, 12)]


@pytest.mark.parametrize("kind", ["raw", "compressed", "folder", "array"])
def test_travels_to_another_process_and_thread(tmp_path: Path, frames: np.ndarray, kind: str) -> None:
    source: Any = tmp_path / "a.tif"
    if kind == "array":
        source = frames
    elif kind == "folder":
        source = tmp_path
        for index, frame in enumerate(frames):
            tifffile.imwrite(tmp_path / f"{index}.tif", frame)
    else:
        compression = "zlib" if kind == "compressed" else None
        tifffile.imwrite(source, frames, photometric="minisblack", compression=compression)
    movie = open_movie(source)
    packed = pickle.dumps(movie)
    if kind != "array":
        assert len(packed) < 200 + 13 * 200
    there = pickle.loads(packed)
    _assert_same(there, frames)
    assert there.info == movie.info
    _assert_same(movie.reopen(), frames)  # type: ignore[attr-defined]
    assert movie.reopen().name == movie.name  # type: ignore[attr-defined]
    wrong: list[int] = []

    def read_all() -> None:
        for start in range(len(frames)):
            if not np.array_equal(movie.read(start, start + 1)[0], frames[start]):
                wrong.append(start)

    threads = [threading.Thread(target=read_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    movie.close()


def test_path_stays_valid_when_the_working_folder_changes(
    tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack")
    monkeypatch.chdir(tmp_path)
    movie = open_movie("a.tif")
    monkeypatch.chdir(os.sep)
    _assert_same(pickle.loads(pickle.dumps(movie)), frames)


def test_fingerprint_follows_the_content(tmp_path: Path, frames: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", frames, photometric="minisblack", compression="zlib", byteorder=">")
    prints = {open_movie(source).fingerprint() for source in (tmp_path / "a.tif", tmp_path / "b.tif", frames)}
    assert len(prints) == 1
    changed = frames.copy()
    changed[0, 0, 0] += 1
    assert open_movie(changed).fingerprint() not in prints
    assert open_movie(frames[:-1]).fingerprint() not in prints
    assert open_movie(frames.astype(np.int32)).fingerprint() not in prints


def test_info_carries_what_tables_need(tmp_path: Path, frames: np.ndarray) -> None:
    path = tmp_path / "cell.tif"
    tifffile.imwrite(path, frames, imagej=True, resolution=(10.0, 10.0), metadata={"unit": "um"})
    info = open_movie(path).info
    assert (info.n_frames, info.height, info.width, info.name) == (13, 24, 33, "cell")
    assert info.pixel_size_nm == pytest.approx(100)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"imagej": True, "resolution": (1 / 0.107, 1 / 0.107), "metadata": {"unit": "um"}}, 107.0),
        ({"imagej": True, "resolution": (1 / 0.107, 1 / 0.107), "metadata": {"unit": "\\u00B5m"}}, 107.0),
        ({"imagej": True, "resolution": (1 / 65, 1 / 65), "metadata": {"unit": "nm"}}, 65.0),
        ({"imagej": True, "resolution": (1 / 0.1, 1 / 0.2), "metadata": {"unit": "um"}}, None),
        ({"imagej": True, "resolution": (1, 1), "metadata": {"unit": "pixel"}}, None),
        ({"imagej": True, "resolution": (1, 1), "metadata": {"unit": "um"}}, 1000.0),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (1e5, 1e5), "resolutionunit": "CENTIMETER"}, 100.0),
        ({"ome": True, "metadata": {"axes": "TYX", "PhysicalSizeX": 0.16, "PhysicalSizeY": 0.16}}, 160.0),
        (
            {"ome": True, "metadata": {"axes": "TYX", "PhysicalSizeX": 98, "PhysicalSizeXUnit": "nm"}},
            98.0,
        ),
        ({"ome": True, "metadata": {"axes": "TYX", "PhysicalSizeX": 25.4}}, None),
    ],
)
def test_pixel_size(tmp_path: Path, frames: np.ndarray, options: dict[str, Any], expected: float | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, frames, photometric="minisblack", **options)
    assert open_movie(path).pixel_size_nm == (expected if expected is None else pytest.approx(expected, rel=1e-4))


def test_micromanager_metadata(tmp_path: Path, frames: np.ndarray) -> None:
    told = {
        "PixelSizeUm": 0.13,
        "Exposure-ms": 30.5,
        "Camera": "Andor",
        "Andor-Gain": "3",
        "Andor-ReadoutMode": "17 MHz",
    }
    tag = (51123, "s", 0, json.dumps(told), True)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", extratags=[tag], metadata=None)
    movie = open_movie(tmp_path / "a.tif")
    _assert_same(movie, frames)
    assert movie.pixel_size_nm == pytest.approx(130)
    assert movie.metadata["exposure_ms"] == 30.5
    assert movie.metadata["camera"] == {"name": "Andor", "Gain": "3", "ReadoutMode": "17 MHz"}
    assert movie.metadata["pixel_size_source"] == "MicroManager"


def test_ome_exposure_and_detector(tmp_path: Path, frames: np.ndarray) -> None:
    planes = {"ExposureTime": [0.05] * 13, "ExposureTimeUnit": ["s"] * 13}
    metadata = {"axes": "TYX", "TimeIncrement": 0.06, "TimeIncrementUnit": "s", "Plane": planes}
    tifffile.imwrite(tmp_path / "a.ome.tif", frames, photometric="minisblack", metadata=metadata)
    movie = open_movie(tmp_path / "a.ome.tif")
    assert movie.metadata["exposure_ms"] == pytest.approx(50)
    assert movie.metadata["frame_interval_ms"] == pytest.approx(60)


def test_blocks_cover_the_movie_once(frames: np.ndarray) -> None:
    movie = open_movie(frames)
    blocks = list(iterate_blocks(movie, block_frames=4))
    assert [first for first, _ in blocks] == [0, 4, 8, 12]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), frames)
    assert list(iterate_blocks(movie, 5, 5)) == []
    assert frames_per_block(movie, max_bytes=1) == 1
    assert frames_per_block(movie, max_bytes=10 * 24 * 33 * 2) == 10


@given(n_frames=st.integers(1, 3000), at_most=st.integers(1, 64), run_length=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_samples_are_bounded_and_in_order(n_frames: int, at_most: int, run_length: int) -> None:
    movie = open_movie(np.broadcast_to(np.arange(n_frames, dtype=np.uint16)[:, None, None], (n_frames, 5, 5)))
    indices, sample = sample_frames(movie, at_most=at_most, run_length=run_length)
    assert 1 <= len(indices) <= max(at_most, run_length)
    assert (np.diff(indices) > 0).all()
    np.testing.assert_array_equal(sample[:, 0, 0], indices)
    if len(indices) >= 2 * run_length:
        runs = indices[: len(indices) // run_length * run_length].reshape(-1, run_length)
        assert (np.diff(runs, axis=1) == 1).all()


def test_even_frames_include_both_ends() -> None:
    assert even_frames(100, 3) == [0, 50, 99]
    assert even_frames(2, 8) == [0, 1]
    assert even_frames(0, 8) == []


def test_natural_key() -> None:
    names = ["img_10.tif", "img_2.tif", "IMG_1.tif", "a_1.ome.tif", "a.ome.tif", "a_11.ome.tif", "a_2.ome.tif"]
    assert sorted(names, key=natural_key) == [
        "a.ome.tif",
        "a_1.ome.tif",
        "a_2.ome.tif",
        "a_11.ome.tif",
        "IMG_1.tif",
        "img_2.tif",
        "img_10.tif",
    ]
