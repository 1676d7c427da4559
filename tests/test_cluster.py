"""The same blocks on several processes: the same table, whatever becomes of the workers."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import tifffile
from hand_made_model import make_model, make_movie

from smlm_pb.cli import main as cli
from smlm_pb.errors import Cancelled, ClusterError, ConfigurationError, MovieError
from smlm_pb.formats import read_table
from smlm_pb.localization import load_model, localize_to_file

pytest.importorskip("distributed")

from smlm_pb.localization import cluster as clusters
from smlm_pb.localization.cluster import Cluster
from smlm_pb.localization.cluster_worker import choose_worker_device

#: Dask's own threads and sockets end later than a test; movies of a few frames are warned of.
pytestmark = [
    pytest.mark.filterwarnings("default::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CAMERA = {"offset_adu": 100.0, "e_per_adu": 0.5, "psf_sigma_px": 1.1}
BLOCK = 42  # frames of 24×32 px in a block of a processor
N_FRAMES = 20 * BLOCK + 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "hand-made")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, "cpu")


@pytest.fixture(scope="module")
def movie_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("movies") / "beads.tif"
    frames = np.tile(make_movie(BLOCK)[0], (21, 1, 1))[:N_FRAMES]
    tifffile.imwrite(path, frames, photometric="minisblack", metadata={"axes": "TYX"})
    return path


@pytest.fixture(scope="module")
def reference(movie_path, model, tmp_path_factory):
    return rows(localize_to_file(movie_path, tmp_path_factory.mktemp("reference"), model=model, **CAMERA))


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=2) as cluster:
        yield cluster


def rows(path):
    with h5py.File(path) as file:
        return file["locs"][()]


def test_two_processes_find_what_one_finds(movie_path, model, cluster, reference, tmp_path):
    seen = []
    table = localize_to_file(movie_path, tmp_path, model=model, cluster=cluster,
                             on_progress=lambda done, total: seen.append((done, total)), **CAMERA)  # fmt: skip
    np.testing.assert_array_equal(rows(table), reference)
    assert seen == sorted(seen)
    assert seen[-1] == (N_FRAMES, N_FRAMES)
    step = read_table(table).provenance[-1]
    assert step["cluster"] == {"scheduler": "local", "devices": {"cpu": 2}}
    assert not cluster.client.run(lambda dask_worker: [n for n in dask_worker.plugins if n.startswith("smlm-pb")])[
        next(iter(cluster.client.nthreads()))
    ]


def test_a_killed_worker_costs_only_its_blocks(movie_path, model, cluster, reference, tmp_path):
    pids = cluster.client.run(os.getpid)
    killed = []

    def kill(done, _total):
        if done >= 3 * BLOCK and not killed:
            killed.append(done)
            os.kill(next(iter(pids.values())), signal.SIGKILL)

    table = localize_to_file(movie_path, tmp_path, model=model, cluster=cluster, on_progress=kill, **CAMERA)
    np.testing.assert_array_equal(rows(table), reference)
    assert killed[0] < N_FRAMES // 2
    assert set(cluster.client.run(os.getpid).values()) != set(pids.values())


def test_a_run_is_continued_by_other_workers(movie_path, model, cluster, reference, tmp_path):
    with pytest.raises(Cancelled, match="continue with resume=True"):
        localize_to_file(movie_path, tmp_path, model=model, cluster=cluster, should_stop=lambda: True, **CAMERA)
    table = localize_to_file(movie_path, tmp_path, model=model, resume=True, **CAMERA)
    np.testing.assert_array_equal(rows(table), reference)


def test_workers_that_cannot_read_the_movie_say_so(movie_path, model, cluster, tmp_path, monkeypatch):
    from smlm_pb.movies.tiff import TiffMovie

    monkeypatch.setattr(TiffMovie, "fingerprint", lambda self: "of another movie")
    with pytest.raises(MovieError, match="finds another movie at beads"):
        localize_to_file(movie_path, tmp_path, model=model, cluster=cluster, **CAMERA)


def test_arrays_travel_too(model, cluster, tmp_path):
    movie = make_movie(12)[0]
    ours = localize_to_file(movie, tmp_path / "a", model=model, cluster=cluster, **CAMERA)
    theirs = localize_to_file(movie, tmp_path / "b", model=model, **CAMERA)
    np.testing.assert_array_equal(rows(ours), rows(theirs))


def test_an_address(movie_path, folder, cluster, reference, tmp_path, capsys):
    address = cluster.client.scheduler.address
    camera = ("--offset-adu", "100", "--e-per-adu", "0.5", "--psf-sigma-px", "1.1")
    command = ["localize", str(movie_path), "--out", str(tmp_path), "--model", str(folder), "--scheduler", address]
    code = cli.main([*command, *camera])
    assert code == 0, capsys.readouterr().err
    np.testing.assert_array_equal(rows(tmp_path / "beads_locs.hdf5"), reference)


def test_nobody_answers():
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        Cluster(scheduler="tcp://127.0.0.1:9", wait_s=0.5)
    assert time.monotonic() - began < 20


def test_a_scheduler_without_workers(monkeypatch):
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0", silence_logs=50) as empty, \
            pytest.raises(ClusterError, match=r"has no workers after 2 s"):  # fmt: skip
        Cluster(scheduler=empty.scheduler_address, wait_s=2)


def test_who_waits_is_told_what_for(monkeypatch):
    monkeypatch.setattr(clusters, "_TELL_AFTER_S", 0.1)
    with pytest.warns(UserWarning, match=r"scheduler answers at tcp://127\.0\.0\.1:9 yet; waiting for up to 0\.4 s"), \
            pytest.raises(ClusterError, match=r"scheduler answers at tcp://127\.0\.0\.1:9 after 0\.5 s"):  # fmt: skip
        Cluster(scheduler="tcp://127.0.0.1:9", wait_s=0.5)


def test_who_waits_for_workers_is_told_too(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(clusters, "_TELL_AFTER_S", 0.1)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0", silence_logs=50) as empty, \
            pytest.warns(UserWarning, match="has no workers yet; waiting for up to"), \
            pytest.raises(ClusterError, match=r"has no workers after 2 s"):  # fmt: skip
        Cluster(scheduler=empty.scheduler_address, wait_s=2)


def test_a_farewell_that_is_not_answered_hides_nothing(monkeypatch):
    from distributed import Client, LocalCluster

    asked = []
    real = Client.close

    def unanswered(client, *args, **kwargs):
        real(client, *args, **kwargs)
        asked.append(kwargs)
        raise TimeoutError("timed out after 1 s.")

    monkeypatch.setattr(Client, "close", unanswered)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0", silence_logs=50) as empty, \
            pytest.raises(ClusterError, match=r"has no workers after 2 s"):  # fmt: skip
        Cluster(scheduler=empty.scheduler_address, wait_s=2)
    # However briefly workers are waited for, there is time to say farewell.
    assert [one["timeout"] >= 5 for one in asked if one] == [True]


@pytest.fixture
def mute():
    """The address of something that listens and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(20)
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"


def test_what_listens_and_says_nothing_is_given_up(mute, monkeypatch):
    monkeypatch.setattr(clusters, "_GRACE_S", 0.2)
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"No Dask scheduler answers at .* after 0\.5 s"):
        Cluster(scheduler=mute, wait_s=0.5)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_waiting_can_be_interrupted(movie_path, mute, tmp_path, end):
    code = """
import signal, sys
from smlm_pb.cli.main import main
import smlm_pb.localization.cluster as clusters

clusters._TELL_AFTER_S = 0.1
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""
    command = ["localize", str(movie_path), "--out", str(tmp_path), "--scheduler", mute]
    with subprocess.Popen([sys.executable, "-c", code, *command], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert "waiting for up to" in process.stderr.readline()
            process.send_signal(end)
            assert process.wait(120) == 130
        finally:
            process.kill()


def test_wrong_numbers_are_refused():
    with pytest.raises(ConfigurationError, match="1 or more"):
        Cluster(workers=0)
    with pytest.raises(ConfigurationError, match="either"):
        Cluster(workers=2, scheduler="tcp://here:8786")


def test_every_worker_has_its_own_device(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(choose_worker_device("auto", name)) for name in (0, 1, 2, "SLURMCluster-3")] == [
        "cuda:0", "cuda:1", "cuda:0", "cuda:1"]  # fmt: skip
    assert str(choose_worker_device("cuda:1", 0)) == "cuda:1"
    monkeypatch.setenv("SMLM_PB_DEVICE", "cpu")
    assert str(choose_worker_device("auto", 0)) == "cpu"


def test_the_job_travels_without_the_device(movie_path, model):
    from smlm_pb.localization.cluster_worker import JobPlugin
    from smlm_pb.localization.conditions import prepare
    from smlm_pb.localization.settings import JobSettings
    from smlm_pb.movies import open_movie

    job = prepare(open_movie(movie_path), model, JobSettings(**CAMERA))
    sent = pickle.dumps(JobPlugin("run", job, device="auto", threads=None))
    assert len(sent) < 1e6
    assert pickle.loads(sent).name == "run"


def test_threads_are_shared(monkeypatch):
    monkeypatch.setattr(clusters, "available_processors", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [clusters._threads_per_worker(n) for n in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert clusters._threads_per_worker(1) == 2
