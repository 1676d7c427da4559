"""Localizing while the movie is recorded: nothing half, nothing twice, the same table as that of the finished movie."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hand_made_model import make_model, make_movie

from smlm_pb.cli import main as cli
from smlm_pb.errors import Cancelled, ConfigurationError, MovieError, OutputError
from smlm_pb.formats import read_table
from smlm_pb.localization import JobSettings, load_model, localize_to_file
from smlm_pb.localization import pipeline as pipelines
from smlm_pb.localization.watching import WatchOptions, watch
from smlm_pb.movies import open_movie
from smlm_pb.movies.growing import GrowingMovie

#: Movies of a few frames are warned of.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": 1.1}
#: On a busy machine a writer may pause for long: tests end a watch when the writer is done, not by the clock.
OPTIONS = WatchOptions(idle_s=60, update_s=0.05, poll_s=0.01)
N_FRAMES = 21


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(make_model(tmp_path_factory.mktemp("models") / "hand-made"), "cpu")


@pytest.fixture(scope="module")
def frames():
    return make_movie(N_FRAMES)[0]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(pipelines, "_CPU_BLOCK_PX", 24 * 32 * 4)


def write_stack(path, frames, **options):
    with tifffile.TiffWriter(path, **options) as writer:
        for frame in frames:
            writer.write(frame, photometric="minisblack", contiguous=False, metadata=None)
    return path


@pytest.fixture(scope="module")
def finished(frames, tmp_path_factory):
    return write_stack(tmp_path_factory.mktemp("movies") / "beads.tif", frames)


@pytest.fixture
def background():
    """Run a function in a thread, which is over at the end of the test."""
    threads = []

    def start(work):
        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def follow(path, out, model, **options):
    settings = JobSettings(**{**CAMERA, **options.pop("asked", {})})
    return watch(path, out, settings=settings, model=model, **{"options": OPTIONS, "should_stop": over, **options})


def over():
    """Nothing more will come."""
    return True


def assert_equal_tables(ours, theirs, atol=0.0):
    ours, theirs = read_table(ours), read_table(theirs)
    assert len(ours) == len(theirs) > 0
    for name in theirs.column_names:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=atol, atol=atol, err_msg=name)
    assert ours.info == theirs.info


# -- which frames are whole ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_at_every_byte_only_whole_frames_are_seen(tmp_path, options):
    frames = np.arange(5 * 72, dtype=np.uint16).reshape(5, 8, 9)
    content = write_stack(tmp_path / "whole.tif", frames, **options).read_bytes()
    path, seen = tmp_path / "growing.tif", []
    growing = GrowingMovie(path)
    for size in (*range(0, len(content), 13), len(content)):
        path.write_bytes(content[:size])
        os.utime(path, ns=(size, size))
        movie = growing.look()
        seen.append(0 if movie is None else movie.n_frames)
        if movie is not None:
            np.testing.assert_array_equal(movie.read(0, movie.n_frames), frames[: movie.n_frames])
            assert movie.n_frames <= size // frames[0].nbytes
    assert seen == sorted(seen)
    assert seen[-1] == 4  # the last page is held back
    path.write_bytes(content)
    assert growing.finish()[0].n_frames == 5


def test_appended_pages_are_seen_one_by_one(tmp_path, frames):
    path = tmp_path / "growing.tif"
    growing, seen = GrowingMovie(path), []
    for frame in frames[:5]:
        tifffile.imwrite(path, frame, append=True, metadata=None, contiguous=False)
        movie = growing.look()
        seen.append(0 if movie is None else movie.n_frames)
    assert seen == [0, 1, 2, 3, 4]


def test_compressed_pages_are_followed(tmp_path, frames):
    path = tmp_path / "growing.tif"
    growing = GrowingMovie(path)
    for frame in frames[:4]:
        tifffile.imwrite(path, frame, append=True, metadata=None, compression="zlib")
    np.testing.assert_array_equal(growing.look().read(0, 3), frames[:3])


def test_a_folder_of_frames_is_seen_up_to_the_last_file(tmp_path, frames):
    growing, seen = GrowingMovie(tmp_path), []
    assert growing.look() is None
    for number, frame in enumerate(frames[:4]):
        path = tmp_path / f"img_{number}.tif"
        tifffile.imwrite(path, frame)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        movie = growing.look()
        seen.append(0 if movie is None else movie.n_frames)
        path.write_bytes(content)
    assert seen == [0, 1, 2, 3]
    assert growing.finish()[0].n_frames == 4


def test_an_ome_series_goes_on_in_the_next_file(tmp_path, frames):
    growing = GrowingMovie(tmp_path / "run.ome.tif")
    write_stack(tmp_path / "run.ome.tif", frames[:8])
    assert growing.look().n_frames == 7
    write_stack(tmp_path / "run_1.ome.tif", frames[8:12])
    assert growing.look().n_frames == 11
    write_stack(tmp_path / "other_1.tif", frames)
    assert growing.look().n_frames == 11
    assert growing.name == "run"


def test_what_cannot_grow_is_refused(tmp_path, frames):
    with pytest.raises(MovieError, match="cannot be followed"):
        GrowingMovie(tmp_path / "movie.npy")
    for name in "ab":
        write_stack(tmp_path / f"{name}.tif", frames[:3])
    with pytest.raises(MovieError, match="several stacks"):
        GrowingMovie(tmp_path).look()


# -- the table -----------------------------------------------------------------------------------------------


def grow(path, content, gate):
    """Write half of a file, in pieces that end anywhere, and the rest when the gate is open."""
    edges = np.linspace(0, len(content), 12).astype(int)
    with path.open("ab") as stream:
        for number, (first, last) in enumerate(pairwise(edges)):
            if number == 6:
                assert gate.wait(60)
            stream.write(content[first:last])
            stream.flush()
            time.sleep(0.01)


def test_a_growing_file_gives_the_table_of_the_finished_one(tmp_path, finished, model, background):
    path, parts, gate = tmp_path / "beads.tif", [], threading.Event()

    def on_update(table, frames):
        whole = read_table(table)  # whole at any moment
        step = whole.provenance[-1]
        parts.append((frames, step["watch"]["complete"], int(whole["frame"].max())))
        gate.set()

    writer = background(lambda: grow(path, finished.read_bytes(), gate))
    result = follow(path, tmp_path / "out", model, on_update=on_update, should_stop=lambda: not writer.is_alive())
    reference = localize_to_file(path, tmp_path / "reference", model=model, **CAMERA)
    assert_equal_tables(result.path, reference)
    ours, theirs = (read_table(table).provenance[-1] for table in (result.path, reference))
    assert ours["asked"] == theirs["asked"]
    assert ours["threshold"] == theirs["threshold"]
    assert ours["watch"] == {"frames": N_FRAMES, "complete": True}
    assert parts
    assert all(not complete and last < frames <= N_FRAMES for frames, complete, last in parts)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["beads_locs.hdf5", "beads_locs.yaml"]
    assert result.frames_done == N_FRAMES


def test_a_folder_gives_the_table_of_the_finished_one(tmp_path, frames, model, background):
    folder = tmp_path / "frames"

    def record():
        folder.mkdir()
        for number, frame in enumerate(frames):
            tifffile.imwrite(folder / f"img_{number}.tif", frame)
            time.sleep(0.01)

    writer = background(record)
    result = follow(folder, tmp_path / "out", model, should_stop=lambda: not writer.is_alive())
    assert_equal_tables(result.path, localize_to_file(folder, tmp_path / "reference", model=model, **CAMERA))


def test_localize_with_resume_takes_the_table_as_its_own(tmp_path, finished, model):
    path = Path(shutil.copy(finished, tmp_path / "beads.tif"))
    table = follow(path, tmp_path, model).path
    before = table.stat().st_mtime_ns
    localize_to_file(path, tmp_path, model=model, resume=True, **CAMERA)
    assert table.stat().st_mtime_ns == before


@pytest.mark.parametrize("second_pass", [True, False])
def test_estimates_of_the_first_frames_are_replaced_by_those_of_the_movie(tmp_path, model, background, second_pass,
                                                                          monkeypatch):  # fmt: skip
    """The PSF is estimated twice; the finished movie decides."""
    from smlm_pb.localization import watching

    monkeypatch.setattr(watching, "_FIRST_FRAMES", 40)
    frames = make_movie(80)[0]
    content = write_stack(tmp_path / "whole.tif", frames).read_bytes()
    path, gate = tmp_path / "beads.tif", threading.Event()
    path.write_bytes(content[: len(content) * 6 // 10])

    def record():
        gate.wait(60)
        with path.open("ab") as stream:
            stream.write(content[len(content) * 6 // 10 :])

    writer = background(record)
    asked = {"psf_sigma_px": None}
    options = WatchOptions(idle_s=60, update_s=0.05, poll_s=0.01, second_pass=second_pass)
    result = follow(path, tmp_path, model, asked=asked, options=options, on_start=lambda _job: gate.set(),
                    should_stop=lambda: not writer.is_alive())  # fmt: skip
    reference = localize_to_file(path, tmp_path / "reference", model=model, **{**CAMERA, **asked})
    ours, theirs = (read_table(table).provenance[-1]["conditions"] for table in (result.path, reference))
    assert (ours["psf_sigma_px"] == theirs["psf_sigma_px"]) == second_pass
    if second_pass:
        assert_equal_tables(result.path, reference)


def test_a_recording_that_was_cut_off_keeps_its_whole_frames(tmp_path, finished, model):
    path = tmp_path / "beads.tif"
    path.write_bytes(finished.read_bytes()[:-700])
    with pytest.warns(UserWarning, match="cut off"):
        result = follow(path, tmp_path, model)
    assert read_table(result.path).info.n_frames == N_FRAMES - 1


def test_nothing_comes(tmp_path, model):
    with pytest.raises(MovieError, match=r"Nothing was recorded.*within 0\.6 s"):
        follow(tmp_path / "beads.tif", tmp_path / "out", model, options=WatchOptions(idle_s=0.6), should_stop=None)
    assert list((tmp_path / "out").iterdir()) == []


def test_refinement_is_done_at_the_end(tmp_path, finished, model):
    path, columns = Path(shutil.copy(finished, tmp_path / "beads.tif")), []
    finished_is_due = threading.Event()

    def on_update(table, _frames):
        columns.append(read_table(table).column_names)
        finished_is_due.set()

    result = follow(path, tmp_path, model, asked={"refine": "on"}, on_update=on_update,
                    should_stop=finished_is_due.is_set)  # fmt: skip
    assert columns
    assert all("chi2" not in names for names in columns)
    assert "chi2" in read_table(result.path).column_names


def test_frames_and_existing_results_are_refused(tmp_path, finished, model):
    with pytest.raises(ConfigurationError, match="frames cannot be chosen"):
        follow(finished, tmp_path, model, asked={"frames": (0, 3)})
    (tmp_path / "beads_locs.hdf5").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        follow(finished, tmp_path, model)


# -- interruptions -------------------------------------------------------------------------------------------


def test_told_to_stop_it_does_the_frames_that_are_there(tmp_path, finished, model):
    path = Path(shutil.copy(finished, tmp_path / "beads.tif"))
    endless = WatchOptions(idle_s=1000, update_s=1000, poll_s=0.01)
    began = time.monotonic()
    result = follow(path, tmp_path, model, options=endless, should_stop=lambda: time.monotonic() - began > 0.3)
    assert read_table(result.path).provenance[-1]["watch"] == {"frames": N_FRAMES, "complete": True}


def test_an_interrupted_watch_leaves_a_table_and_goes_on(tmp_path, finished, model):
    path = Path(shutil.copy(finished, tmp_path / "beads.tif"))

    def interrupt(done, _total):
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(Cancelled, match="holds the first 8 frames"):
        follow(path, tmp_path / "out", model, on_progress=interrupt)
    table = tmp_path / "out" / "beads_locs.hdf5"
    assert read_table(table).info.n_frames >= 8
    with pytest.raises(OutputError, match="unfinished run"):
        follow(path, tmp_path / "out", model)
    with pytest.raises(ConfigurationError, match=r"psf_sigma_px is 1\.1 there and 1\.2 here"):
        follow(path, tmp_path / "out", model, resume=True, asked={"psf_sigma_px": 1.2})
    with pytest.raises(ConfigurationError, match="another movie"):  # not mistaken for a finished table
        localize_to_file(path, tmp_path / "out", model=model, resume=True, **CAMERA)
    starts = []
    result = follow(path, tmp_path / "out", model, resume=True, on_progress=lambda done, _: starts.append(done))
    assert starts[0] > 8
    assert_equal_tables(result.path, localize_to_file(path, tmp_path / "reference", model=model, **CAMERA))


def test_killed_while_the_movie_grows(tmp_path, model):
    """The table that is there after kill -9 can be read, and the end is the same."""
    folder, n_frames = make_model(tmp_path / "model"), 120
    content = write_stack(tmp_path / "whole.tif", make_movie(n_frames)[0]).read_bytes()
    path, out = tmp_path / "beads.tif", tmp_path / "out"
    path.write_bytes(content[: len(content) // 2])
    command = [sys.executable, "-m", "smlm_pb", "watch", str(path), "--out", str(out), "--model", str(folder)]
    command += ["--offset-adu", "100", "--e-per-adu", "0.5", "--psf-sigma-px", "1.1", "--update-every", "0.01"]
    command += ["--poll", "0.01", "--idle", "60", "--resume", "--quiet", "--refine", "off"]
    table = out / "beads_locs.hdf5"
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 120
        while not table.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        assert table.exists()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
    assert read_table(table).provenance[-1]["watch"] == {"frames": 42, "complete": False}
    path.write_bytes(content)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            if read_table(table).provenance[-1]["watch"]["frames"] > 42:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # Ctrl-C: do what is there, and end
        assert process.wait(120) == 0
    finally:
        if process.poll() is None:
            process.kill()
    reference = localize_to_file(path, tmp_path / "reference", model=model, refine="off", **CAMERA)
    assert_equal_tables(table, reference, atol=1e-5)  # the blocks are others here


def test_command(tmp_path, finished, capsys):
    folder = make_model(tmp_path / "model")
    path = Path(shutil.copy(finished, tmp_path / "beads.tif"))
    code = cli.main(["watch", str(path), "--out", str(tmp_path / "out"), "--model", str(folder), "--idle", "0.3",
                     "--offset-adu", "100", "--e-per-adu", "0.5", "--psf-sigma-px", "1.1"])  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0, err
    rows = len(read_table(tmp_path / "out" / "beads_locs.hdf5"))
    assert out.splitlines()[0] == f"{N_FRAMES} frames, {rows} molecules"
    assert "waiting for frames" in err
    assert open_movie(path).n_frames == N_FRAMES
