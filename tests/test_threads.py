"""The number of processor threads: measured once, never more than helps, and never against the user's word."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hand_made_model import make_model, make_movie

from smlm_pb.camera import Camera
from smlm_pb.errors import ConfigurationError
from smlm_pb.localization import load_model, threads
from smlm_pb.localization.pipeline import plan_work
from smlm_pb.localization.sample_look import look_at


@pytest.fixture
def model(tmp_path):
    return load_model(make_model(tmp_path / "model"), "cpu")


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """A process in which nothing was said or measured, and torch as it was at the end."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("given", "limit", "measured"):
        monkeypatch.setattr(threads._Choice, name, None)
    monkeypatch.setattr(threads, "available_processors", lambda: 8)
    yield
    torch.set_num_threads(before)


def gets(monkeypatch, processors):
    """Let this process get so many processors, one measurement after the other."""
    calls = []

    def measure(model, pool, count):
        calls.append(count)
        return processors[(len(calls) - 1) % len(processors)]

    monkeypatch.setattr(threads, "_processors_had", measure)
    torch.set_num_threads(8)
    return calls


@pytest.mark.parametrize(
    ("processors", "best"),
    [
        ((7.8, 7.9), 8),
        ((9.0, 9.0), 8),
        ((1.5, 3.6), 4),  # the first time everything takes longer
        ((1.0, 1.0, 1.1, 8.0), 8),  # all on one processor, while others idle
        ((3.1, 3.0), 3),
        ((0.4, 0.3), 1),  # a busy machine
    ],
)
def test_as_many_threads_as_there_are_processors_for(model, monkeypatch, processors, best):
    calls = gets(monkeypatch, processors)
    assert threads.fit_threads(model) == torch.get_num_threads() == best
    assert set(calls) == {8}
    measured = len(calls)
    assert (measured == 1) == (processors[0] > 7)  # all there are: no more is to be found out
    assert threads.fit_threads(model) == best
    assert len(calls) == measured  # once per process


def test_other_processes_keep_their_share(model, monkeypatch):
    calls = gets(monkeypatch, (3.0,))
    threads.limit_threads(3)
    assert threads.fit_threads(model) == 3
    assert set(calls) == {3}


def test_what_is_said_is_not_measured(model, monkeypatch):
    calls = gets(monkeypatch, (1.0,))
    threads.use_threads(2)
    assert threads.fit_threads(model) == 2
    monkeypatch.setattr(threads._Choice, "given", None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    assert threads.fit_threads(model) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    graphics_card = SimpleNamespace(network=model.network, device=torch.device("cuda"))
    assert threads.fit_threads(graphics_card) == 2
    assert calls == []
    with pytest.raises(ConfigurationError, match="1 or more"):
        threads.use_threads(0)


def test_processor_time_is_held_against_the_clock(model, monkeypatch):
    """Three threads at a time, each of which has a processor half of the time."""

    def passes(_, start):
        start.wait(60.0)
        return 100.0, 100.2, 0.1

    monkeypatch.setattr(threads, "_passes", passes)
    with ThreadPoolExecutor(3) as pool:
        assert threads._processors_had(model, pool, 3) == pytest.approx(1.5)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_number_of_threads_lists_the_same_in_a_sample(model, count):
    electrons = make_movie(300)[0].astype(np.float32)
    assert -(-len(electrons) // plan_work(*electrons.shape[1:], model.device).batch_frames) > 5
    found = []
    for threads_now in (1, count):
        threads.use_threads(threads_now)
        found.append(look_at(electrons, model, camera=Camera(), psf_sigma_px=1.1))
        assert torch.get_num_threads() == threads_now
    assert len(found[0]) > 100
    np.testing.assert_array_equal(found[0]["frame"], found[1]["frame"])
    for name in ("x", "y", "probability"):
        np.testing.assert_allclose(found[0][name], found[1][name], atol=1e-4)


def test_the_measurement_names_a_number_of_threads(model):
    torch.set_num_threads(4)
    threads.use_threads(None)
    assert 1 <= threads.fit_threads(model) <= 4
