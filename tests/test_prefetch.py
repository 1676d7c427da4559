"""Several threads, one order: whoever is faster, results come as their items came, and everything ends."""

import threading
import time

import pytest
from hand_made_model import make_model, make_movie

from smlm_pb.camera import Camera
from smlm_pb.localization import load_model
from smlm_pb.localization.candidate_finder import CandidateFinder
from smlm_pb.localization.pipeline import Plan, find_candidates
from smlm_pb.localization.prefetch import Workers
from smlm_pb.movies import open_movie


def test_results_come_in_the_order_of_the_items():
    def work(k):
        time.sleep(0.02 if k % 3 == 0 else 0.0)
        return k * k

    with Workers(iter(range(40)), [work] * 4, ahead=3) as results:
        assert list(results) == [k * k for k in range(40)]


def test_every_thread_has_its_own_work():
    both = threading.Barrier(2, timeout=60)

    def member(name):
        return lambda k: (both.wait(), name)[1]

    with Workers(iter(range(2)), [member("a"), member("b")], ahead=0) as results:
        assert sorted(results) == ["a", "b"]


def test_no_more_is_taken_than_there_is_room_for():
    taken = []

    def items():
        for k in range(100):
            taken.append(k)
            yield k

    with Workers(items(), [str] * 2, ahead=1) as results:
        assert next(results) == "0"
        time.sleep(0.3)
        assert len(taken) <= 1 + 2 + 1


@pytest.mark.parametrize("where", ["source", "work"])
def test_a_fault_comes_in_its_turn(where):
    def items():
        for k in range(20):
            if where == "source" and k == 7:
                raise ValueError("frame 7")
            yield k

    def work(k):
        if where == "work" and k == 7:
            raise ValueError("frame 7")
        time.sleep(0.01 * (k == 5))
        return k

    with Workers(items(), [work] * 3, ahead=2) as results:
        assert [next(results) for _ in range(7)] == list(range(7))
        with pytest.raises(ValueError, match="frame 7"):
            next(results)


def test_a_wish_to_stop_is_heard_while_waiting():
    started, go = threading.Event(), threading.Event()

    def work(k):
        started.set()
        go.wait(60)
        return k

    with Workers(iter(range(9)), [work] * 2, ahead=1) as results:
        results.end_when(started.is_set)
        assert list(results) == []
        go.set()
    assert not any(thread.name.startswith("smlm-pb worker") for thread in threading.enumerate())


def test_a_run_that_nobody_waits_for_gives_up_the_block_in_work(tmp_path, monkeypatch):
    """Whoever stops a run waits for one batch of frames, not for the block."""
    model, movie, batches = load_model(make_model(tmp_path / "model"), "cpu"), open_movie(make_movie(40)[0]), []

    on_device = CandidateFinder._on_device

    def slowly(self, frames):
        batches.append(frames)
        time.sleep(0.05)
        return on_device(self, frames)

    monkeypatch.setattr(CandidateFinder, "_on_device", slowly)
    plan = Plan(block_frames=40, batch_frames=1, tile_px=64)
    how = {"camera": Camera(offset_adu=100, e_per_adu=0.5), "psf_sigma_px": 1.1, "frames": (0, 40), "floor": 0.05}
    with find_candidates(movie, model, plan=plan, **how):
        while not batches:
            time.sleep(0.01)
    assert len(batches) < 20
