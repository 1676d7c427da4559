"""Localizing into files: whole or not at all, resumable after anything, in constant memory."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hand_made_model import make_model, make_movie

from smlm_pb.errors import Cancelled, ConfigurationError, MovieError, OutputError
from smlm_pb.formats import read_table
from smlm_pb.localization import from_work_file, load_model, localize, localize_to_file
from smlm_pb.localization import pipeline as pipelines
from smlm_pb.localization import to_file as files
from smlm_pb.localization.job import command_line
from smlm_pb.movies import open_movie

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": 1.1}
N_FRAMES = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "hand-made")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, "cpu")


@pytest.fixture(scope="module")
def movie_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("movies") / "beads.tif"
    tifffile.imwrite(path, make_movie(N_FRAMES)[0])
    return path


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(pipelines, "_CPU_BLOCK_PX", 24 * 32 * 4)


@pytest.fixture(scope="module")
def reference(movie_path, model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines, "_CPU_BLOCK_PX", 24 * 32 * 4)
        return localize_to_file(movie_path, tmp_path_factory.mktemp("reference"), model=model, **CAMERA)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def rows(path):
    with h5py.File(path) as file:
        return file["locs"][()]


def stop_after(blocks):
    calls = iter(range(1, 1000))
    return lambda: next(calls) == blocks


def interrupt(movie, out, blocks=2, **options):
    with pytest.raises(Cancelled) as stopped:
        localize_to_file(movie, out, should_stop=stop_after(blocks), **{**CAMERA, **options})
    return str(stopped.value)


# -- a run from start to end -------------------------------------------------------------------------------


def test_the_file_holds_what_localize_finds(movie_path, model, reference):
    table, in_memory = read_table(reference), localize(movie_path, model=model, **CAMERA)
    assert names(reference.parent) == ["beads_locs.hdf5", "beads_locs.yaml"]
    for name in in_memory.column_names:
        np.testing.assert_allclose(table[name], in_memory[name], rtol=1e-6, atol=1e-6, err_msg=name)
    ours, theirs = table.provenance[-1], in_memory.provenance[-1]
    assert ours["threshold"] == pytest.approx(theirs["threshold"])
    assert ours["result"] == pytest.approx(theirs["result"])
    assert ours["asked"] == theirs["asked"]


def test_the_folder_is_made(movie_path, model, tmp_path):
    target = localize_to_file(movie_path, tmp_path / "new" / "deep", model=model, **CAMERA)
    assert target == tmp_path / "new" / "deep" / "beads_locs.hdf5"


def test_blank_movies_give_a_table_without_rows(model, tmp_path):
    blank = np.random.default_rng(0).poisson(30, (5, 20, 20)).astype(np.uint16) + 100
    target = localize_to_file(blank, tmp_path, model=model, offset_adu=100, e_per_adu=1, psf_sigma_px=1.1)
    assert target.name == "array_locs.hdf5"
    assert len(read_table(target)) == 0


# Twelve molecules again and again tell a width that is not quite theirs, with an error that is too small.
@pytest.mark.filterwarnings("ignore:.*the PSF measures")
def test_memory_does_not_grow_with_the_movie(model, tmp_path, monkeypatch):
    """Candidates leave the memory as soon as they are on disk, and come back a portion at a time."""
    import tracemalloc

    from smlm_pb.localization import conditions
    from smlm_pb.localization.candidates import CANDIDATE_DTYPE

    monkeypatch.setattr(from_work_file, "_WRITE_ROWS", 2000)
    estimated = conditions.resolve(open_movie(make_movie(4)[0]), files.JobSettings(**CAMERA), model.card)
    frame = make_movie(4)[0]

    def peak(copies):
        movie = np.tile(frame, (copies, 1, 1))
        known = replace(estimated, frames=(0, len(movie)))
        monkeypatch.setattr(conditions, "resolve", lambda *_: known)
        tracemalloc.start()
        # At so low a floor nearly every pixel is a candidate.
        target = localize_to_file(movie, tmp_path, model=model, overwrite=True, threshold=1e-4, **CAMERA)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest, len(rows(target)) * CANDIDATE_DTYPE.itemsize

    peak(1)
    # From 64 frames on, as many are looked at for the range alarm whatever the length.
    (small, few), (large, many) = peak(20), peak(80)
    assert large - small < (many - few) / 4


def test_provenance_names_command_and_source(reference, movie_path):
    step = read_table(reference).provenance[-1]
    assert step["movie"]["source"] == str(movie_path)
    assert step["command"] == command_line()


# -- what is there already ---------------------------------------------------------------------------------


def test_an_existing_table_is_refused_before_any_work(movie_path, tmp_path):
    (tmp_path / "beads_locs.hdf5").write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        # The model does not exist: looking for it would be work.
        localize_to_file(movie_path, tmp_path, model=tmp_path / "no model", **CAMERA)
    assert (tmp_path / "beads_locs.hdf5").read_bytes() == b"precious"


def test_a_yaml_file_of_something_else_is_never_replaced(movie_path, model, tmp_path):
    (tmp_path / "beads_locs.yaml").write_text("name: my recipe\n")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"beads_locs\.yaml"):
            localize_to_file(movie_path, tmp_path, model=model, overwrite=overwrite, **CAMERA)
    assert (tmp_path / "beads_locs.yaml").read_text() == "name: my recipe\n"
    assert names(tmp_path) == ["beads_locs.yaml"]


def test_overwrite_replaces_and_keeps_the_old_one_until_then(movie_path, model, tmp_path, reference):
    old = localize_to_file(movie_path, tmp_path, model=model, threshold=0.9, **CAMERA)
    before = old.read_bytes()
    interrupt(movie_path, tmp_path, model=model, overwrite=True)
    assert old.read_bytes() == before
    localize_to_file(movie_path, tmp_path, model=model, overwrite=True, **CAMERA)
    np.testing.assert_array_equal(rows(old), rows(reference))
    assert names(tmp_path) == ["beads_locs.hdf5", "beads_locs.yaml"]


def test_overwrite_and_resume_exclude_each_other(movie_path, tmp_path):
    with pytest.raises(ConfigurationError, match="choose one"):
        localize_to_file(movie_path, tmp_path, overwrite=True, resume=True)


# -- interrupted and continued -----------------------------------------------------------------------------


def test_stopping_says_what_is_kept_and_resuming_gives_the_same_table(movie_path, model, tmp_path, reference):
    message = interrupt(movie_path, tmp_path, model=model)
    assert "8 of 24 frames" in message
    assert "resume=True" in message
    assert names(tmp_path) == ["beads_locs.work"]
    done = []
    target = localize_to_file(
        movie_path, tmp_path, model=model, resume=True, on_progress=lambda *at: done.append(at), **CAMERA
    )
    assert done == [(8, 24), (12, 24), (16, 24), (20, 24), (24, 24)]  # the first eight were not done again
    np.testing.assert_array_equal(rows(target), rows(reference))
    ours, theirs = read_table(target).provenance, read_table(reference).provenance
    assert ours == theirs
    assert names(tmp_path) == ["beads_locs.hdf5", "beads_locs.yaml"]


def test_resuming_with_estimates_uses_those_of_the_first_session(model, tmp_path, monkeypatch):
    movie = make_movie(150, (48, 48), per_frame=8, seed=3)[0]
    monkeypatch.setattr(pipelines, "_CPU_BLOCK_PX", 48 * 48 * 50)
    whole = localize_to_file(movie, tmp_path / "whole", model=model)
    with pytest.raises(Cancelled):
        localize_to_file(movie, tmp_path / "halves", model=model, should_stop=stop_after(1))
    from smlm_pb.localization import conditions

    def refuse(*_):
        raise AssertionError("estimated a second time")

    monkeypatch.setattr(conditions, "resolve", refuse)
    halves = localize_to_file(movie, tmp_path / "halves", model=model, resume=True)
    np.testing.assert_array_equal(rows(halves), rows(whole))


def test_ctrl_c_is_a_stop_that_says_how_to_go_on(movie_path, model, tmp_path, reference):
    def press(done, _total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(Cancelled, match=r"after 12 of 24 frames .* continue with resume=True"):
        localize_to_file(movie_path, tmp_path, model=model, on_progress=press, **CAMERA)
    target = localize_to_file(movie_path, tmp_path, model=model, resume=True, **CAMERA)
    np.testing.assert_array_equal(rows(target), rows(reference))


def test_ctrl_c_while_the_table_is_written_loses_nothing(movie_path, model, tmp_path, reference, monkeypatch):
    from smlm_pb.formats.native import NativeWriter

    def press(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NativeWriter, "append", press)
        with pytest.raises(Cancelled, match="after 24 of 24 frames"):
            localize_to_file(movie_path, tmp_path, model=model, **CAMERA)
    assert names(tmp_path) == ["beads_locs.work"]
    done = []
    target = localize_to_file(movie_path, tmp_path, model=model, resume=True, on_block=done.append, **CAMERA)
    assert done == []
    np.testing.assert_array_equal(rows(target), rows(reference))


def test_an_unfinished_run_is_not_thrown_away_unasked(movie_path, model, tmp_path, reference):
    interrupt(movie_path, tmp_path, model=model)
    with pytest.raises(OutputError, match=r"unfinished run .*resume=True.*overwrite=True"):
        localize_to_file(movie_path, tmp_path, model=model, **CAMERA)
    target = localize_to_file(movie_path, tmp_path, model=model, overwrite=True, **CAMERA)
    np.testing.assert_array_equal(rows(target), rows(reference))


def test_resume_without_anything_starts_and_with_everything_rests(movie_path, model, tmp_path):
    target = localize_to_file(movie_path, tmp_path, model=model, resume=True, **CAMERA)
    written = target.stat().st_mtime_ns
    seen = []
    again = localize_to_file(movie_path, tmp_path, model=model, resume=True, on_block=seen.append, **CAMERA)
    assert again == target
    assert seen == []
    assert target.stat().st_mtime_ns == written


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("psf_sigma_px", 1.2),
        ("threshold", 0.4),
        ("offset_adu", 99.0),
        ("em_gain", 50.0),
        ("frames", (0, 10)),
        ("pixel_size_nm", 100.0),
        ("floor", 0.01),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_resuming_with_other_settings_is_refused_by_name(movie_path, model, tmp_path, finished, name, value):
    if finished:
        localize_to_file(movie_path, tmp_path, model=model, **CAMERA)
    else:
        interrupt(movie_path, tmp_path, model=model)
    before = names(tmp_path)
    with pytest.raises(ConfigurationError, match=f"other settings: {name} is "):
        localize_to_file(movie_path, tmp_path, model=model, resume=True, **{**CAMERA, name: value})
    assert names(tmp_path) == before


def test_resuming_with_another_model_or_movie_is_refused(movie_path, model, tmp_path):
    interrupt(movie_path, tmp_path, model=model)
    other = make_model(tmp_path / "other", name="other")
    with pytest.raises(ConfigurationError, match=r"model is 'hand-made \(.*' there and 'other \("):
        localize_to_file(movie_path, tmp_path, model=other, resume=True, **CAMERA)
    elsewhere = tmp_path / "elsewhere" / "beads.tif"
    elsewhere.parent.mkdir()
    tifffile.imwrite(elsewhere, make_movie(N_FRAMES, seed=9)[0])
    with pytest.raises(ConfigurationError, match="belongs to another movie"):
        localize_to_file(elsewhere, tmp_path, model=model, resume=True, **CAMERA)


def test_a_table_of_another_program_is_not_taken_for_finished(movie_path, model, tmp_path):
    with h5py.File(tmp_path / "beads_locs.hdf5", "w") as file:
        file["locs"] = np.zeros(3)
    with pytest.raises(OutputError, match="no table of a finished run"):
        localize_to_file(movie_path, tmp_path, model=model, resume=True, **CAMERA)


# -- faults in the middle ----------------------------------------------------------------------------------


def test_a_full_disk_keeps_the_finished_frames(movie_path, model, tmp_path, reference):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(done, _total):
        if done == 12:
            size = (tmp_path / "beads_locs.work").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))

    try:
        with pytest.raises(OutputError, match=r"beads_locs\.work cannot be written .*resume=True") as full:
            localize_to_file(movie_path, tmp_path, model=model, on_progress=fill_the_disk, **CAMERA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(full.value)
    assert names(tmp_path) == ["beads_locs.work"]
    target = localize_to_file(movie_path, tmp_path, model=model, resume=True, **CAMERA)
    np.testing.assert_array_equal(rows(target), rows(reference))


def test_a_disk_that_is_full_for_the_table_keeps_the_work(movie_path, model, tmp_path, reference):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(done, total):
        if done == total:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))

    try:
        with pytest.raises(OutputError, match=r"beads_locs\.hdf5 cannot be written"):
            localize_to_file(movie_path, tmp_path, model=model, on_progress=fill_the_disk, **CAMERA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["beads_locs.work"]
    target = localize_to_file(movie_path, tmp_path, model=model, resume=True, **CAMERA)
    np.testing.assert_array_equal(rows(target), rows(reference))


def test_a_damaged_frame_in_the_middle_keeps_what_was_before(model, tmp_path):
    movie = make_movie(N_FRAMES)[0].astype(np.float32)
    movie[13, 2, 2] = np.nan  # none of the frames that are looked at beforehand
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smlm_pb.localization.conditions.check_movie", lambda *_: [])
        patch.setattr("smlm_pb.localization.frame_sample.check_block", lambda *_: None)
        patch.setattr("smlm_pb.localization.conditions._background", lambda *_: (20.0, []))
        patch.setattr("smlm_pb.localization.estimate.judge_camera", lambda *_, **__: ([], None))
        patch.setattr("smlm_pb.localization.significance.sample_electrons", lambda *_: np.zeros((1, 8, 8), np.float32))
        patch.setattr("smlm_pb.localization.significance.measure_least_significance", lambda *_, **__: 0.0)
        with pytest.raises(MovieError, match="frame 13"):
            localize_to_file(movie, tmp_path, model=model, **CAMERA)
    assert names(tmp_path) == ["array_locs.work"]


def test_a_run_that_finished_no_frame_leaves_nothing(model, tmp_path):
    def fail(_job):
        raise ValueError("at once")

    run = files.FileRun(files.JobSettings(**CAMERA), tmp_path, model=model)
    with pytest.raises(ValueError, match="at once"):
        run(make_movie(4)[0], on_start=fail)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_line(movie_path, model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        localize_to_file(movie_path, tmp_path / "file" / "out", model=model, **CAMERA)


# -- killed ------------------------------------------------------------------------------------------------

# Imports once, then runs in a fork of its own for every line it reads, so that only that fork is killed.
_RUNNER = """
import os, sys, time
from smlm_pb.localization import load_model, localize_to_file, pipeline
pipeline._CPU_BLOCK_PX = 24 * 32 * 4
model = load_model(sys.argv[3], "cpu")

def on_progress(done, total):
    print(done, flush=True)
    time.sleep(0.03)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        localize_to_file(
            sys.argv[1], sys.argv[2], model=model, resume=True,
            offset_adu=100.0, e_per_adu=0.5, psf_sigma_px=1.1, on_progress=on_progress,
        )
        os._exit(0)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_at_any_moment_a_run_can_be_continued(movie_path, folder, model, tmp_path, reference):
    rng = random.Random(time.time_ns())  # another moment every time
    arguments = [sys.executable, "-c", _RUNNER, str(movie_path), str(tmp_path), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1
    ) as runner:
        for frames_done, longest_wait_s in ((0, 0.2), (4, 0.1), (12, 0.05), (20, 0.05), (N_FRAMES, 0.06)):
            runner.stdin.write("run\n")
            pid = int(runner.stdout.readline())
            line = f"{frames_done}" if frames_done == 0 else runner.stdout.readline()
            while line != "gone\n" and int(line) < frames_done:
                line = runner.stdout.readline()
            time.sleep(rng.uniform(0, longest_wait_s))
            with suppress(ProcessLookupError):  # it was faster
                os.kill(pid, signal.SIGKILL)
            while line != "gone\n":
                line = runner.stdout.readline()
            if (tmp_path / "beads_locs.hdf5").exists():
                np.testing.assert_array_equal(rows(tmp_path / "beads_locs.hdf5"), rows(reference))
        runner.stdin.close()
    target = localize_to_file(movie_path, tmp_path, model=model, resume=True, **CAMERA)
    np.testing.assert_array_equal(rows(target), rows(reference))
    assert {name for name in names(tmp_path) if not name.startswith(".")} == {"beads_locs.hdf5", "beads_locs.yaml"}


def test_killed_between_the_last_two_renames_a_run_can_be_continued(movie_path, model, tmp_path, reference):
    """The YAML file gets its name before the table does."""
    interrupt(movie_path, tmp_path, model=model)
    shutil.copy(reference.with_suffix(".yaml"), tmp_path / "beads_locs.yaml")
    Path(tmp_path / ".beads_locs.hdf5.partial").write_bytes(b"half a table")
    target = localize_to_file(movie_path, tmp_path, model=model, resume=True, **CAMERA)
    np.testing.assert_array_equal(rows(target), rows(reference))
    assert names(tmp_path) == ["beads_locs.hdf5", "beads_locs.yaml"]


def test_killed_before_the_work_file_was_removed_a_run_can_be_continued(movie_path, model, tmp_path, reference):
    interrupt(movie_path, tmp_path, model=model)
    for ending in (".hdf5", ".yaml"):
        shutil.copy(reference.with_suffix(ending), tmp_path / f"beads_locs{ending}")
    target = localize_to_file(movie_path, tmp_path, model=model, resume=True, **CAMERA)
    np.testing.assert_array_equal(rows(target), rows(reference))
    assert names(tmp_path) == ["beads_locs.hdf5", "beads_locs.yaml"]
