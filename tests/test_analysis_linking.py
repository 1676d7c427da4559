"""Joining blinks: what belongs together, what the merged row says, and the command."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlm_pb.analysis import link, merge_groups
from smlm_pb.cli.main import main
from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.simulation.tables import simulate_localizations

INFO = MovieInfo(n_frames=100, height=32, width=32, pixel_size_nm=100.0)


def table(frame, x, y=None, **more):
    return Localizations({"frame": frame, "x": x, "y": np.full(len(x), 5.0) if y is None else y, **more}, INFO)


def groups(locs, **options):
    return link(locs, merge=False, **options)["group"].tolist()


def test_consecutive_frames_within_the_radius_are_one_blink():
    locs = table([0, 1, 2, 3], [5.0, 5.1, 5.2, 9.0])

    assert groups(locs, radius_nm=15, max_dark_frames=0) == [0, 0, 0, 1]
    assert groups(locs, radius_nm=5, max_dark_frames=0) == [0, 1, 2, 3]


def test_dark_frames_are_bridged_up_to_the_limit():
    locs = table([0, 2, 5], [5.0, 5.0, 5.0])

    assert groups(locs, radius_nm=15, max_dark_frames=0) == [0, 1, 2]
    assert groups(locs, radius_nm=15, max_dark_frames=1) == [0, 0, 1]
    assert groups(locs, radius_nm=15, max_dark_frames=2) == [0, 0, 0]


def test_any_number_of_dark_frames_ends_with_the_movie():
    locs = table([0, 30, 99], [5.0, 5.0, 9.0])

    assert groups(locs, radius_nm=15, max_dark_frames=100_000) == [0, 0, 1]


def test_two_of_one_frame_never_join():
    locs = table([0, 0, 1], [5.0, 5.01, 5.02])

    found = groups(locs, radius_nm=50)

    assert found[0] != found[1]
    assert found[2] in found[:2]


def test_crossing_neighbours_go_the_shortest_way_together():
    locs = table([0, 0, 1, 1], [5.0, 5.2, 5.1, 5.3])

    assert groups(locs, radius_nm=35) == [0, 1, 0, 1]


def test_the_direct_successor_comes_before_a_closer_one_later():
    locs = table([0, 1, 2], [5.0, 5.1, 5.0])

    assert groups(locs, radius_nm=15, max_dark_frames=3) == [0, 0, 0]


def test_radius_in_units_of_the_precision_follows_each_pair():
    sharp = table([0, 1], [5.0, 5.3], sigma_x=[0.05, 0.05], sigma_y=[0.05, 0.05])
    dull = table([0, 1], [5.0, 5.3], sigma_x=[0.2, 0.05], sigma_y=[0.2, 0.05])

    assert groups(sharp) == [0, 1]
    assert groups(dull) == [0, 0]
    assert groups(dull, radius_sigma=3.5, radius_nm=20) == [0, 1]


def test_merged_row_is_the_weighted_mean_with_the_right_precision():
    locs = table(
        [3, 4],
        [5.0, 6.0],
        [1.0, 2.0],
        sigma_x=[0.1, 0.2],
        sigma_y=[0.1, 0.1],
        photons=[100.0, 300.0],
        background=[10.0, 20.0],
        probability=[0.5, 0.8],
        sigma_photons=[3.0, 4.0],
        channel=[2, 2],
        weird=[1.0, 3.0],
    )

    merged = link(locs, radius_nm=500)

    assert len(merged) == 1
    assert merged.x[0] == pytest.approx((5 * 100 + 6 * 25) / 125)
    assert merged.y[0] == pytest.approx(1.5)
    assert merged.sigma_x[0] == pytest.approx(1 / np.sqrt(125))
    assert merged.photons[0] == 400
    assert merged.background[0] == 15
    assert merged.probability[0] == pytest.approx(0.9)
    assert merged.sigma_photons[0] == pytest.approx(5)
    assert (merged.frame[0], merged.on_frames[0], merged.n_localizations[0]) == (3, 2, 2)
    assert merged.channel[0] == 2
    assert merged["weird"][0] == 2
    assert merged.provenance[-1]["step"] == "link"
    assert merged.provenance[-1]["rows_before"] == 2


def test_single_rows_pass_unchanged():
    locs = simulate_localizations(n_localizations=200, on_frames=1.0, blinks=1.0, n_frames=5000).locs

    merged = link(locs, radius_nm=1)

    assert len(merged) == len(locs)
    for name in locs.column_names:
        assert np.allclose(merged[name], locs[name], rtol=1e-6)


def test_blinks_are_recovered_and_positions_improve():
    simulated = simulate_localizations("uniform", n_localizations=20_000, on_frames=4.0, n_frames=10_000, seed=1)
    locs = simulated.locs

    group = link(locs, merge=False)["group"]
    order = np.lexsort((locs.frame, group))
    together = np.diff(group[order]) == 0
    assert (np.diff(simulated.molecule[order]) == 0)[together].mean() > 0.999

    order = np.lexsort((locs.frame, simulated.molecule))
    gap = np.diff(locs.frame[order].astype(int))
    same = (np.diff(simulated.molecule[order]) == 0) & (gap > 0) & (gap <= 2)
    assert (np.diff(group[order]) == 0)[same].mean() > 0.99

    merged = link(locs.with_columns(true_x=simulated.true_x))
    pull = (merged.x - merged["true_x"]) / merged.sigma_x
    assert pull.std() == pytest.approx(1, abs=0.05)
    assert merged.sigma_x.mean() < 0.75 * locs.sigma_x.mean()
    assert merged.photons.sum() == pytest.approx(locs.photons.sum(), rel=1e-5)
    assert merged.n_localizations.sum() == len(locs)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_every_row_is_in_one_blink_and_no_blink_has_two_rows_of_a_frame(seed, max_dark_frames):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 60))
    locs = table(rng.integers(0, 15, n), rng.uniform(0, 3, n), rng.uniform(0, 3, n))

    group = link(locs, radius_nm=60, max_dark_frames=max_dark_frames, merge=False)["group"]

    assert sorted(set(group.tolist())) == list(range(len(set(group.tolist()))))
    pairs = list(zip(group.tolist(), locs.frame.tolist(), strict=True))
    assert len(set(pairs)) == n
    for number in set(group.tolist()):
        frames = np.sort(locs.frame[group == number].astype(int))
        assert (np.diff(frames) <= max_dark_frames + 1).all()


@given(st.integers(0, 2**32 - 1))
def test_order_of_rows_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    n = 40
    locs = table(rng.integers(0, 10, n), rng.uniform(0, 4, n), rng.uniform(0, 4, n))
    shuffle = rng.permutation(n)

    straight = link(locs, radius_nm=50)
    shuffled = link(locs.select(shuffle), radius_nm=50)

    assert np.allclose(np.sort(straight.x), np.sort(shuffled.x))


def test_linking_twice_keeps_the_counts():
    locs = table([0, 1, 5, 6], [5.0, 5.0, 5.0, 5.0], photons=[1.0, 2.0, 3.0, 4.0])

    once = link(locs, radius_nm=10, max_dark_frames=0)
    twice = merge_groups(once, np.zeros(2, int))

    assert once.n_localizations.tolist() == [2, 2]
    assert twice.n_localizations.tolist() == [4]
    assert twice.photons.tolist() == [10]


def test_dark_times_run_to_the_next_blink_at_the_place():
    locs = table([0, 1, 10, 30, 12], [5.0, 5.0, 5.0, 5.0, 20.0])

    merged = link(locs, radius_nm=20, dark_times=True)

    assert merged.frame.tolist() == [0, 10, 12, 30]
    assert merged["dark_frames"].tolist() == [8, 19, -1, -1]


def test_empty_table_stays_empty():
    empty = Localizations.empty(INFO)

    assert len(link(empty)) == 0
    assert len(link(empty, dark_times=True)) == 0
    assert groups(empty) == []


def test_impossible_options_and_missing_columns_are_named():
    bare = table([0, 1], [5.0, 5.0])
    with pytest.raises(TableError, match="give radius_nm"):
        link(bare)
    with pytest.raises(TableError, match="give pixel_size_nm"):
        link(bare.with_info(MovieInfo(100, 32, 32)), radius_nm=20)
    with pytest.raises(ConfigurationError, match="radius_nm"):
        link(bare, radius_nm=0)
    with pytest.raises(ConfigurationError, match="max_dark_frames"):
        link(bare, radius_nm=10, max_dark_frames=-1)
    with pytest.raises(ConfigurationError, match="rows of each blink be joined"):
        link(bare, radius_nm=10, merge=False, dark_times=True)


def test_command_writes_the_linked_table(tmp_path, capsys):
    path = tmp_path / "movie_locs.hdf5"
    simulate_localizations(n_localizations=500, n_frames=500).locs.save(path)

    assert main(["link", str(path), "--max-dark-frames", "2"]) == 0

    captured = capsys.readouterr()
    linked = Localizations.load(tmp_path / "movie_locs_linked.hdf5")
    assert "movie_locs_linked.hdf5" in captured.out
    assert f"are {len(linked)} blinks" in captured.err
    assert linked.n_localizations.sum() == len(Localizations.load(path))
    assert any(step.get("step") == "link" for step in linked.provenance)

    assert main(["link", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
    out = tmp_path / "grouped.hdf5"
    assert main(["link", str(path), "--radius-nm", "30", "--keep-rows", "--out", str(out), "--quiet"]) == 0
    assert "group" in Localizations.load(out)


def test_codes_of_the_first_row_are_kept():
    columns = {
        "frame": [0, 1, 2],
        "x": [3.0, 3.0, 3.0],
        "y": [4.0, 4.0, 4.0],
        "sigma_x": [0.1] * 3,
        "sigma_y": [0.1] * 3,
    }
    locs = Localizations({**columns, "refinement": [1, 0, 2], "channel": [2, 2, 2]}, MovieInfo(3, 8, 8, 100.0))
    linked = link(locs)
    assert len(linked) == 1
    assert (linked["refinement"][0], linked["channel"][0]) == (1, 2)
