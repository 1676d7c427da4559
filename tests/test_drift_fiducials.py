"""Drift by fiducials, found, followed, told from what moves on its own and checked on the others; and by COMET."""

import sys
import types

import numpy as np
import pytest

from smlm_pb.analysis import apply_drift, estimate_drift
from smlm_pb.analysis.drift_fiducials import fiducial_path, find_fiducials
from smlm_pb.cli.main import main
from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation.tables import draw_drift, simulate_localizations

N_FRAMES = 1500
PIXEL_NM = 100.0


def beads(path, *, places=((5.0, 6.0), (22.0, 9.0), (12.0, 25.0)), sigma_nm=3.0, visible=0.9, seed=0, own=None):
    """Localizations of beads that drift along a path (n, 2) in nm; ``own`` moves the first one besides."""
    rng = np.random.default_rng(seed)
    parts = []
    for k, place in enumerate(places):
        frame = np.flatnonzero(rng.random(N_FRAMES) < visible)
        xy = np.array(place) + path[frame] / PIXEL_NM + rng.normal(0, sigma_nm / PIXEL_NM, (len(frame), 2))
        if own is not None and k == 0:
            xy += own[frame] / PIXEL_NM
        parts.append((frame, xy))
    frame = np.concatenate([f for f, _ in parts])
    xy = np.concatenate([p for _, p in parts])
    order = np.argsort(frame, kind="stable")
    sigma = np.full(len(frame), sigma_nm / PIXEL_NM)
    columns = {"frame": frame[order], "x": xy[order, 0], "y": xy[order, 1], "sigma_x": sigma, "sigma_y": sigma}
    return Localizations(columns, MovieInfo(N_FRAMES, 32, 32, PIXEL_NM))


def residual_nm(drift, path):
    error = np.stack([drift.dx_nm, drift.dy_nm], axis=1) - path
    return float(np.sqrt(np.mean((error - error.mean(axis=0)) ** 2)))


def with_molecules(table, path, n=4000):
    others = simulate_localizations(
        "filaments", n_localizations=n, n_frames=N_FRAMES, size_px=32, drift_nm=path, seed=1
    ).locs
    columns = {name: np.concatenate([table[name], others[name]]) for name in table.column_names}
    order = np.argsort(columns["frame"], kind="stable")
    return Localizations({name: values[order] for name, values in columns.items()}, table.info)


@pytest.mark.parametrize(("kind", "range_nm"), [("linear", 800), ("sine", 200), ("random_walk", 200), ("jump", 300)])
def test_beads_tell_the_path(kind, range_nm):
    path = draw_drift(np.random.default_rng(3), kind, N_FRAMES, range_nm)
    table = beads(path)
    drift = estimate_drift(table, method="fiducials")
    assert drift.accepted, drift.reason
    assert drift.settings["n_fiducials"] == 3
    # Three beads of 3 nm: 1.7 nm without any smoothing.
    assert residual_nm(drift, path) < 1.9
    assert 0.4 * residual_nm(drift, path) < drift.error_nm < 3
    corrected = apply_drift(table, drift)
    bead = corrected.select((corrected["x"] > 15) & (corrected["y"] < 17))  # the second one, alone in its corner
    assert bead["x"].std() * PIXEL_NM < 4


def test_molecules_that_are_no_beads_check_it():
    path = draw_drift(np.random.default_rng(3), "sine", N_FRAMES, 200)
    drift = estimate_drift(with_molecules(beads(path), path), method="fiducials")
    assert drift.accepted
    assert drift.gain > 3 * drift.gain_error
    assert residual_nm(drift, path) < 1.5


def test_beads_that_move_on_their_own_are_refused():
    path = draw_drift(np.random.default_rng(3), "linear", N_FRAMES, 300)
    table = with_molecules(beads(path, places=((5.0, 6.0),)), np.zeros_like(path))
    drift = estimate_drift(table, method="fiducials")
    assert not drift.accepted
    assert "no fiducials are not brought together" in drift.reason
    assert not drift.dx_nm.any()


def test_one_bead_that_walks_is_left_out():
    path = draw_drift(np.random.default_rng(3), "sine", N_FRAMES, 150)
    own = draw_drift(np.random.default_rng(8), "linear", N_FRAMES, 600)
    places = ((5.0, 6.0), (22.0, 9.0), (12.0, 25.0), (26.0, 24.0))
    drift = estimate_drift(beads(path, places=places, own=own), method="fiducials")
    assert drift.accepted
    assert drift.settings["n_fiducials"] == 3
    assert residual_nm(drift, path) < 1.9


def test_beads_that_are_missing_for_a_while_do_not_tear_the_path():
    path = draw_drift(np.random.default_rng(3), "linear", N_FRAMES, 400)
    table = beads(path, places=((5.0, 6.0), (22.0, 9.0)))
    table = table.select(~((table["x"] < 13) & (table["frame"] > 1000)))  # one of them goes dark
    found, used = fiducial_path(find_fiducials(table, N_FRAMES, PIXEL_NM), N_FRAMES)
    error = found.at(np.arange(N_FRAMES) + 0.5) - path
    assert used.count == 2
    assert np.abs(error - error.mean(axis=0)).max() < 8


def test_one_bead_alone_is_not_believed_unless_asked_for():
    path = draw_drift(np.random.default_rng(3), "linear", N_FRAMES, 400)
    table = beads(path, places=((5.0, 6.0),))
    drift = estimate_drift(table, method="fiducials")
    assert not drift.accepted
    assert "one fiducial alone" in drift.reason
    assert residual_nm(estimate_drift(table, method="fiducials", check=False), path) < 2


def test_without_beads_it_says_so():
    locs = simulate_localizations("filaments", n_localizations=3000, n_frames=N_FRAMES, size_px=32, seed=1).locs
    with pytest.raises(TableError, match="no fiducial"):
        estimate_drift(locs, method="fiducials")


def test_the_command(tmp_path, capsys):
    path = draw_drift(np.random.default_rng(3), "sine", N_FRAMES, 200)
    beads(path).save(tmp_path / "t.hdf5")
    assert main(["drift", str(tmp_path / "t.hdf5"), "--method", "fiducials"]) == 0
    captured = capsys.readouterr()
    assert "removed" in captured.err
    assert Localizations.load(tmp_path / "t_undrifted.hdf5").provenance[-1]["method"] == "fiducials"


# -- COMET -------------------------------------------------------------------------------------------------


def stand_in(path):
    """What the package comet offers of itself, with an answer that is known."""

    def comet_run_kd(dataset, *, segmentation_mode, segmentation_var, min_max_frames, progress, **options):
        assert dataset.shape[1] == 4
        assert segmentation_mode == 0
        assert options["max_drift_nm"] == 300
        assert dataset[:, 0].max() > 1000  # nm, not pixels
        progress("pairs_start", {})
        dataset -= 1e6  # as the real one does
        first, last = min_max_frames
        frames = np.arange(first, last + 1)
        return np.column_stack([path[frames], np.zeros(len(frames)), frames])

    return types.SimpleNamespace(comet_run_kd=comet_run_kd)


def test_comet_is_asked_in_its_own_units_and_checked_like_the_others(monkeypatch):
    path = draw_drift(np.random.default_rng(3), "sine", N_FRAMES, 200)
    locs = simulate_localizations(
        "filaments", n_localizations=5000, n_frames=N_FRAMES, size_px=32, drift_nm=path, seed=1
    ).locs
    monkeypatch.setitem(sys.modules, "comet", stand_in(path))
    drift = estimate_drift(locs, method="comet", max_drift_nm=300)
    assert drift.accepted
    assert residual_nm(drift, path) < 0.1
    monkeypatch.setitem(sys.modules, "comet", stand_in(-path))
    assert not estimate_drift(locs, method="comet", max_drift_nm=300).accepted


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "comet", None)
    locs = simulate_localizations("filaments", n_localizations=3000, n_frames=N_FRAMES, size_px=32, seed=1).locs
    with pytest.raises(ConfigurationError, match="pip install comet-smlm"):
        estimate_drift(locs, method="comet")
