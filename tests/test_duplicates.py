"""Duplicates: one row per molecule is left, neighbours are spared, nothing vanishes, and tables may be merged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb.analysis.duplicates import find_survivors, merge_tables, remove_within, suppress_duplicates
from smlm_pb.cli.main import main
from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.formats import read_table
from smlm_pb.localizations import Localizations, MovieInfo
from smlm_pb.networks.candidate_lists import CandidateLists
from smlm_pb.refinement.close_pairs import NODE_FACTS, PAIR_FACTS, REACH_SIGMA, find_close_pairs
from smlm_pb.refinement.second_stage import Stage, StageCard
from smlm_pb.simulation.duplicated_tables import draw_duplicated_table
from smlm_pb.training.duplicates import as_lists, objective, train_duplicates

INFO = MovieInfo(4, 64, 64, 100.0, "movie")


def table(x, y, *, frame=0, sigma=0.05, **more):
    n = len(x)
    columns = {"frame": np.full(n, frame) if np.isscalar(frame) else frame, "x": x, "y": y}
    return Localizations({**columns, "sigma_x": np.full(n, sigma), "sigma_y": np.full(n, sigma), **more}, INFO)


@pytest.fixture(scope="module")
def learned():
    """A network of half a minute's training would be better; this one has seen enough to know what a copy is."""
    network = train_duplicates(steps=60, tables_per_step=1, learning_rate=5e-3, hidden=12, seed=0)
    return Stage(network, StageCard(kind="duplicates", name="quick", network=network.settings))


def test_neighbours_are_described_without_units():
    x, y = np.array([1.0, 1.06, 9.0]), np.array([1.0, 1.08, 9.0])
    here = find_close_pairs(np.zeros(3), x, y, np.full(3, 0.05))
    far = find_close_pairs(np.zeros(3), 10 * x, 10 * y, np.full(3, 0.5))
    np.testing.assert_allclose(here.facts, far.facts, rtol=1e-5)
    np.testing.assert_allclose(here.nodes, far.nodes, rtol=1e-5)
    assert here.pairs.tolist() == [[0, 1], [1, 0]]
    assert here.distance_sigma == pytest.approx([0.1 / (0.05 * np.sqrt(2))] * 2)
    assert here.facts.shape == (2, PAIR_FACTS)
    assert here.nodes.shape == (3, NODE_FACTS)


def test_rows_of_other_frames_are_no_neighbours():
    pairs = find_close_pairs(np.array([0, 1]), np.ones(2), np.ones(2), np.full(2, 0.05)).pairs
    assert pairs.shape == (2, 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_simulated_tables_have_the_precision_they_state(seed):
    drawn = draw_duplicated_table(np.random.default_rng(seed), molecules=400)
    assert (np.bincount(drawn.molecule, minlength=len(drawn.true_x)) >= 1).all()
    ratio = (drawn.x - drawn.true_x[drawn.molecule]) / drawn.sigma
    assert 0.4 < 1.4826 * np.median(np.abs(ratio)) < 2.5


def test_the_objective_prefers_one_row_of_each_molecule():
    import torch

    rng = np.random.default_rng(4)
    drawn = draw_duplicated_table(rng)
    lists = as_lists(drawn, rng)
    first = np.zeros(len(drawn.x), bool)
    first[np.unique(drawn.molecule, return_index=True)[1]] = True
    one = torch.from_numpy(np.where(first, 8.0, -8.0).astype(np.float32))
    everything, nothing = torch.full_like(one, 8.0), torch.full_like(one, -8.0)
    assert objective(one, lists) < objective(everything, lists)
    assert objective(one, lists) < objective(nothing, lists)


def test_lone_rows_stay_and_nothing_vanishes(learned):
    rng = np.random.default_rng(1)
    lone = table(rng.permutation(50) * 1.2, rng.permutation(50) * 1.2, frame=rng.integers(0, 4, 50))
    assert len(suppress_duplicates(lone, stage=learned)) == 50
    x = np.repeat(np.arange(1, 21) * 3.0, 3)
    copies = table(x + rng.normal(0, 0.005, 60), np.full(60, 5.0) + rng.normal(0, 0.005, 60))
    left = suppress_duplicates(copies, stage=learned)
    assert set(np.rint(left["x"] / 3).astype(int)) == set(range(1, 21))
    assert left["copies"].sum() == 60
    step = left.provenance[-1]
    assert (step["step"], step["rows_before"], step["rows_after"]) == ("duplicates", 60, len(left))


@pytest.mark.parametrize("kept", [False, True])
def test_a_network_that_wants_nothing_still_leaves_one_of_each(kept):
    import torch

    network = CandidateLists(node_facts=NODE_FACTS, pair_facts=PAIR_FACTS, hidden=4)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.fill_(5.0 if kept else -5.0)
    stage = Stage(network, StageCard(kind="duplicates", name="by hand", network=network.settings))
    rows = table(np.array([1.0, 1.01, 1.02, 8.0]), np.ones(4))
    keep, stands_for = find_survivors(rows, np.full(4, 0.05), stage)
    assert keep.tolist() == ([True] * 4 if kept else [True, False, False, True])
    assert stands_for.tolist() == ([0, 1, 2, 3] if kept else [0, 0, 0, 3])


def test_tables_of_one_movie_are_merged():
    one = table(np.array([1.0, 2.0]), np.ones(2), frame=np.array([0, 2]), photons=np.ones(2))
    two = table(np.array([3.0]), np.ones(1), frame=np.array([1]), chi2=np.ones(1))
    merged = merge_tables([one, two])
    assert merged["frame"].tolist() == [0, 1, 2]
    assert merged["source"].tolist() == [0, 1, 0]
    assert "photons" not in merged
    assert merged.provenance[-1]["rows"] == [2, 1]
    other = Localizations({"frame": [0], "x": [1], "y": [1]}, MovieInfo(4, 32, 64, 100.0))
    with pytest.raises(TableError, match="same movie"):
        merge_tables([one, other])
    with pytest.raises(TableError, match="no table"):
        merge_tables([])


def test_precision_must_be_known(learned):
    bare = Localizations({"frame": [0, 0], "x": [1.0, 1.01], "y": [1.0, 1.0]}, INFO)
    with pytest.raises(TableError, match="give sigma_nm"):
        suppress_duplicates(bare, stage=learned)
    with pytest.raises(ConfigurationError, match="sigma_nm = -1"):
        suppress_duplicates(bare, stage=learned, sigma_nm=-1)
    with pytest.raises(TableError, match="pixel size"):
        suppress_duplicates(bare.with_info(MovieInfo(4, 64, 64)), stage=learned, sigma_nm=10)
    assert 1 <= len(suppress_duplicates(bare, stage=learned, sigma_nm=10)) <= 2
    with pytest.raises(TableError, match=r"no usable precisions.*give sigma_nm"):
        suppress_duplicates(bare.with_columns(sigma_x=[np.nan, 0.0], sigma_y=[np.nan, 0.0]), stage=learned)


def test_rows_without_photons_are_no_duplicates(learned):
    """Tables of programs that leave cells empty: what is not known of a row must not remove it."""
    x = np.array([1.0, 1.25, 9.0, 9.3])
    known = suppress_duplicates(table(x, np.ones(4), photons=np.full(4, 900.0)), stage=learned)
    unknown = suppress_duplicates(table(x, np.ones(4), photons=np.full(4, np.nan)), stage=learned)
    assert unknown["x"].tolist() == known["x"].tolist()
    assert unknown["copies"].tolist() == known["copies"].tolist()


def test_the_usual_rule_keeps_the_better_one():
    rows = table(np.array([1.0, 1.1, 1.2, 5.0]), np.ones(4))
    assert remove_within(rows, 0.15, better=np.array([0.1, 0.9, 0.2, 0.3])).tolist() == [False, True, False, True]
    assert remove_within(rows, 0.15, better=np.array([0.9, 0.1, 0.2, 0.3])).tolist() == [True, False, True, True]


def shipped_case(copies, jitter, seed=0, n=300):
    """Lone molecules and pairs 30 nm apart, σ 5 nm; returns what is left of each."""
    rng = np.random.default_rng(seed)
    lone = np.column_stack((rng.permutation(n) % 20 * 3.0 + 2, np.zeros(n), np.arange(n) // 20))
    lone[:, 1] = np.arange(n) % 20 * 3.0 + 2
    lone[:, 0] = 2.0
    second = lone + np.array((0.0, 1.5, 0.0))
    partner = second + np.array((0.3, 0.0, 0.0))
    places = np.concatenate((lone, second, partner))
    molecule = np.repeat(np.arange(3 * n), copies)
    common = rng.normal(size=(3 * n, 2)) * 0.05 * np.sqrt(1 - jitter**2)
    xy = places[molecule, :2] + common[molecule] + rng.normal(size=(len(molecule), 2)) * 0.05 * jitter
    info = MovieInfo(int(places[:, 2].max()) + 1, 64, 64, 100.0)
    columns = {"frame": places[molecule, 2], "x": xy[:, 0], "y": xy[:, 1]}
    rows = Localizations({**columns, **{f"sigma_{a}": np.full(len(xy), 0.05) for a in "xy"}}, info)
    keep, _ = find_survivors(rows, rows["sigma_x"].astype(float), load())
    left = np.bincount(molecule[keep], minlength=3 * n)
    return left[:n], left[n : 2 * n], left[2 * n :]


def load():
    from smlm_pb.refinement.second_stage import load_stage

    return load_stage("duplicates", "duplicates")


@pytest.mark.parametrize(("copies", "jitter"), [(2, 0.25), (3, 0.25), (3, 0.5)])
def test_the_shipped_network_leaves_one_and_spares_neighbours(copies, jitter):
    lone, one, other = shipped_case(copies, jitter)
    assert np.mean(lone == 1) >= 0.98
    assert np.mean((one > 0) & (other > 0)) >= 0.95


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(2, 60, (2, 30))
    frame = np.arange(30) % 4
    for name in ("one", "two"):
        table(x + rng.normal(0, 0.01, 30), y + rng.normal(0, 0.01, 30), frame=frame).save(f"{name}.hdf5")
    assert main(["duplicates", "one.hdf5", "--with", "two.hdf5"]) == 0
    assert "60 rows are 30 molecules; 30 were listed more than once" in capsys.readouterr().err
    assert len(read_table("one_unique.hdf5")) == 30


def test_reach_is_wider_than_any_copy():
    assert REACH_SIGMA > 4.5
