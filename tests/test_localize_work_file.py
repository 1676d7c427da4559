"""The work file and the threads ahead of it: nothing finished is lost, nothing unfinished is believed."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from smlm_pb.errors import MovieError, OutputError
from smlm_pb.localization.candidates import CANDIDATE_DTYPE, Candidates
from smlm_pb.localization.pipeline import Block
from smlm_pb.localization.prefetch import Prefetch
from smlm_pb.localization.work_file import WorkFile

HEADER = {"asked": {"threshold": "auto"}, "conditions": {"psf_sigma_px": 1.1}}


def block(start, n_rows=5):
    rows = np.zeros(n_rows, CANDIDATE_DTYPE)
    rows["frame"] = start
    rows["x"] = np.linspace(0, 1, n_rows) + start
    return Block(start, start + 10, Candidates(rows, start / 7))


def same(a, b):
    return a[:2] == b[:2] and a.candidates.expected_unlisted == b.candidates.expected_unlisted and (
        a.candidates.rows.tobytes() == b.candidates.rows.tobytes()
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "movie_locs.work"


def write(path, n_blocks):
    with WorkFile.create(path, HEADER) as work:
        for number in range(n_blocks):
            work.append(block(10 * number, n_rows=3 * number))


def test_what_was_appended_is_read_again(path):
    write(path, 4)
    with WorkFile.resume(path) as work:
        assert work.header == HEADER
        assert work.done_until == 40
        assert all(same(found, block(10 * k, 3 * k)) for k, found in enumerate(work.blocks()))
        assert len(list(work.blocks())) == 4


def test_a_new_work_file_has_nothing_done(path):
    write(path, 0)
    with WorkFile.resume(path) as work:
        assert work.done_until is None
        assert list(work.blocks()) == []


def test_cut_off_anywhere_the_whole_blocks_remain_and_the_run_goes_on(path):
    write(path, 3)
    whole = path.read_bytes()
    ends = []
    with WorkFile.resume(path) as work:
        for _ in work.blocks():
            ends.append(work._handle.tell())
    header_end = ends[0] - (ends[1] - ends[0]) + 3 * CANDIDATE_DTYPE.itemsize
    for length in range(header_end, len(whole), 7):
        path.write_bytes(whole[:length])
        with WorkFile.resume(path) as work:
            n_whole = sum(end <= length for end in ends)
            assert work.done_until == (10 * n_whole or None)
            for k in range(n_whole, 3):
                work.append(block(10 * k, 3 * k))
        assert path.read_bytes() == whole


def test_a_changed_byte_is_not_believed(path):
    write(path, 3)
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    with WorkFile.resume(path) as work:
        assert work.done_until == 20


def test_a_huge_length_is_not_believed(path):
    write(path, 1)
    with path.open("ab") as stream:
        stream.write(b"SPW1" + (2**60).to_bytes(8, "little") + bytes(4) + b"rest")
    with WorkFile.resume(path) as work:
        assert work.done_until == 10


@pytest.mark.parametrize("content", [b"", b"hello", b"SPW1" + bytes(40)])
def test_something_else_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(OutputError, match="not a work file, or damaged"):
        WorkFile.resume(path)


def test_two_runs_cannot_share_a_work_file(path):
    pytest.importorskip("fcntl")
    with WorkFile.create(path, HEADER), pytest.raises(OutputError, match="in use"):
        WorkFile.resume(path)
    WorkFile.resume(path).close()


def test_a_full_disk_keeps_what_was_there_and_says_how_to_go_on(path):
    resource = pytest.importorskip("resource")
    with WorkFile.create(path, HEADER) as work:
        work.append(block(0))
        size = path.stat().st_size
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
        try:
            with pytest.raises(OutputError, match="resume=True"):
                work.append(block(10, n_rows=50))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert work.done_until == 10
    with WorkFile.resume(path) as work:
        assert work.done_until == 10
        assert path.stat().st_size == size
        work.append(block(10, n_rows=50))
        assert len(list(work.blocks())) == 2


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        WorkFile.create(tmp_path / "gone" / "movie.work", HEADER)


def test_removed_when_complete(path):
    work = WorkFile.create(path, HEADER)
    work.remove()
    assert not path.exists()


# -- ahead in a thread -------------------------------------------------------------------------------------


def test_prefetch_gives_the_same_items_in_the_same_order():
    with Prefetch(iter(range(100)), depth=3) as items:
        assert list(items) == list(range(100))


def test_prefetch_runs_ahead_but_not_far():
    produced = []

    def source():
        for number in range(100):
            produced.append(number)
            yield number

    with Prefetch(source(), depth=2) as items:
        next(items)
        time.sleep(0.3)
        assert 2 <= len(produced) <= 5


def test_prefetch_hands_errors_over_after_the_items_before():
    def source():
        yield 1
        raise MovieError("frame 7 is damaged")

    with Prefetch(source(), depth=2) as items:
        assert next(items) == 1
        with pytest.raises(MovieError, match="frame 7"):
            next(items)
        assert list(items) == []


def test_closing_prefetch_ends_its_thread_and_its_source():
    closed = threading.Event()

    def source():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    with Prefetch(source(), depth=1) as items:
        next(items)
    assert closed.is_set()
    assert not items._thread.is_alive()


def test_pressing_ctrl_c_again_does_not_leave_the_thread_behind():
    pressed = threading.Event()

    def source():
        yield 0
        pressed.wait(60)
        time.sleep(0.2)  # the item is still in production when the key is pressed
        yield 1

    items = Prefetch(source(), depth=1)
    assert next(items) == 0

    def press():
        items._unwanted.wait(60)
        time.sleep(0.1)  # closing has begun; now it waits
        os.kill(os.getpid(), signal.SIGINT)
        pressed.set()

    impatient = threading.Thread(target=press)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background are started deaf to it
    try:
        impatient.start()
        with pytest.raises(KeyboardInterrupt):
            items.close()
    finally:
        signal.signal(signal.SIGINT, before)
    assert not items._thread.is_alive()
    impatient.join()
