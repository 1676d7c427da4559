"""The error budget: planted errors are recovered exactly, gains equal recomputation, identities hold everywhere."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb.cli.main import main
from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.evaluation import error_budget, evaluate
from smlm_pb.evaluation.error_kinds import ERRORS
from smlm_pb.evaluation.error_table import budget_figure
from smlm_pb.localizations import Localizations, MovieInfo

INFO = MovieInfo(n_frames=20, height=100, width=100, pixel_size_nm=100.0)
PLANTED = {"mislocalized": 40, "missed": 60, "duplicate": 30, "satellite": 20, "false": 25, "merged": 15}


def table(rows, **more):
    rows = np.asarray(rows, dtype=float).reshape(-1, 3)
    columns = {"frame": rows[:, 0].astype(int), "x": rows[:, 1], "y": rows[:, 2]}
    return Localizations({**columns, **more}, INFO)


@pytest.fixture(scope="module")
def planted():
    """Molecules on a lattice of 10 px with every error put in by hand; tolerance 50 nm, FWHM 250 nm."""
    rng = np.random.default_rng(0)
    sites = [(f, 5.0 + 10 * i, 5.0 + 10 * j) for f in range(5) for i in range(10) for j in range(10)]
    sites = [sites[k] for k in rng.permutation(len(sites))]
    truth, pred = [], []
    use = iter(sites)

    def near(site, distance_px):
        angle = rng.uniform(0, 2 * np.pi)
        return (site[0], site[1] + distance_px * math.cos(angle), site[2] + distance_px * math.sin(angle))

    for _ in range(PLANTED["mislocalized"]):
        site = next(use)
        truth.append(site)
        pred.append(near(site, rng.uniform(0.8, 2.3)))
    for _ in range(PLANTED["missed"]):
        truth.append(next(use))
    for _ in range(PLANTED["duplicate"]):
        site = next(use)
        truth.append(site)
        pred += [near(site, 0.05), near(site, 0.3)]
    for _ in range(PLANTED["satellite"]):
        site = next(use)
        truth.append(site)
        pred += [near(site, 0.05), near(site, rng.uniform(0.8, 2.3))]
    for _ in range(PLANTED["false"]):
        pred.append(near(next(use), 0.1))
    for _ in range(PLANTED["merged"]):
        site = next(use)
        truth += [site, near(site, rng.uniform(1.2, 1.8))]
        pred.append(near(site, 0.2))
    for site in list(use)[:100]:
        truth.append(site)
        pred.append(near(site, rng.uniform(0, 0.4)))
    return table(pred), table(truth)


def test_planted_errors_are_recovered_exactly(planted):
    budget = error_budget(*planted, tolerance_nm=50, fwhm_nm=250)

    assert budget.counts == PLANTED
    scores = evaluate(*planted, tolerance_nm=50, chance=False).at(50)
    assert budget.jaccard == pytest.approx(scores.jaccard)
    assert budget.efficiency == pytest.approx(scores.efficiency)
    assert (budget.true_positives, budget.false_positives, budget.false_negatives) == (
        scores.true_positives,
        scores.false_positives,
        scores.false_negatives,
    )


@pytest.mark.parametrize("error", ERRORS)
def test_gains_equal_recomputation_after_editing_the_tables(planted, error):
    pred, truth = planted
    budget = error_budget(pred, truth, tolerance_nm=50, fwhm_nm=250)
    kinds = budget.kinds

    if error == "mislocalized":
        wrong = np.flatnonzero(kinds.pred == error)
        x, y = pred.x.copy(), pred.y.copy()
        x[wrong] = truth.x[kinds.partner_of_pred[wrong]]
        y[wrong] = truth.y[kinds.partner_of_pred[wrong]]
        pred = pred.with_columns(x=x, y=y)
    elif error in ("missed", "merged"):
        pred = Localizations.concatenate([pred, truth.select(kinds.truth == error)])
    else:
        pred = pred.select(kinds.pred != error)

    mended = evaluate(pred, truth, tolerance_nm=50, chance=False, check=False).at(50).jaccard
    assert budget.delta_jaccard[error] == pytest.approx(mended - budget.jaccard, abs=1e-12)


def test_mending_everything_gives_a_perfect_jaccard(planted):
    pred, truth = planted
    budget = error_budget(pred, truth, tolerance_nm=50, fwhm_nm=250)
    kinds = budget.kinds

    right = pred.select(kinds.pred == "found")
    found = Localizations.concatenate([right, truth.select(kinds.truth != "found")])

    assert evaluate(found, truth, tolerance_nm=50, chance=False, check=False).at(50).jaccard == 1
    # With all errors gone only the errors of position are left.
    assert budget.efficiency + budget.delta_efficiency["all"] == pytest.approx(1 - budget.rmse_xy_nm / 100)


def scene(rng, size_px=12.0):
    def some(n):
        return np.column_stack([rng.integers(0, 3, n), rng.uniform(0, size_px, (n, 2))])

    return table(some(rng.integers(0, 50))), table(some(rng.integers(0, 50)))


scenes = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(max_examples=80)
@given(scenes, st.sampled_from([30.0, 100.0, 250.0]), st.sampled_from([0.0, 150.0]))
def test_identities_hold_in_crowded_scenes(rng, tolerance_nm, border_nm):
    pred, truth = scene(rng)

    budget = error_budget(pred, truth, tolerance_nm=tolerance_nm, fwhm_nm=200, border_nm=border_nm)

    counts = budget.counts
    surplus = counts["duplicate"] + counts["mislocalized"] + counts["satellite"] + counts["false"]
    assert budget.false_positives == surplus
    assert budget.false_negatives == counts["mislocalized"] + counts["merged"] + counts["missed"]
    kinds = budget.kinds
    assert "" not in kinds.pred
    assert np.count_nonzero(kinds.pred == "mislocalized") == np.count_nonzero(kinds.truth == "mislocalized")
    scores = evaluate(pred, truth, tolerance_nm=tolerance_nm, border_nm=border_nm, chance=False, check=False).at(
        tolerance_nm
    )
    assert budget.true_positives == scores.true_positives
    assert budget.false_negatives == scores.false_negatives
    if not math.isnan(budget.jaccard):
        assert all(budget.delta_jaccard[error] >= 0 for error in ERRORS)
        assert budget.jaccard + budget.delta_jaccard["all misses"] <= 1


@settings(max_examples=30)
@given(scenes)
def test_order_of_rows_does_not_matter(rng):
    pred, truth = scene(rng)

    straight = error_budget(pred, truth, tolerance_nm=100, fwhm_nm=200)
    shuffled = error_budget(
        pred.select(rng.permutation(len(pred))),
        truth.select(rng.permutation(len(truth))),
        tolerance_nm=100,
        fwhm_nm=200,
    )

    assert shuffled.counts == straight.counts


def test_neutral_molecules_and_what_is_near_them_do_not_count():
    truth = table([(0, 10, 10), (0, 50, 50)], photons=[10.0, 1000.0])
    pred = table([(0, 10.1, 10), (0, 10.2, 10.1), (0, 50, 50), (0, 80, 80)])

    budget = error_budget(pred, truth, tolerance_nm=50, fwhm_nm=250, min_photons=100)

    assert budget.kinds.pred.tolist() == ["neutral", "neutral", "found", "false"]
    assert budget.kinds.truth.tolist() == ["neutral", "found"]
    assert (budget.true_positives, budget.false_positives, budget.false_negatives) == (1, 1, 0)


def test_false_ones_at_the_border_are_told_apart():
    truth = table([(0, 50, 50)])
    pred = table([(0, 50, 50), (0, 0, 20), (0, 20, 99), (0, 30, 30)])

    assert error_budget(pred, truth, fwhm_nm=250).false_in_border == 2


def test_errors_are_broken_down_by_the_molecules_they_happen_to():
    rng = np.random.default_rng(1)
    n = 400
    rows = np.column_stack([np.arange(n) // 20, 4.0 + 5 * (np.arange(n) % 20), rng.uniform(4, 96, n)])
    photons = np.linspace(100, 1000, n)[rng.permutation(n)]
    truth = table(rows, photons=photons)
    dim = photons < np.quantile(photons, 0.25)
    pred = truth.select(~dim)

    budget = error_budget(pred, truth, by=("photons", "neighbour", "border", "frame"), n_bins=4)

    by_photons = [row for row in budget.attributes if row.attribute == "photons"]
    assert [row.counts["missed"] for row in by_photons] == [100, 0, 0, 0]
    assert [row.n_truth for row in by_photons] == [100, 100, 100, 100]
    assert by_photons[0].delta_jaccard["missed"] == pytest.approx(0.25)
    for attribute in ("neighbour", "border", "frame"):
        rows = [row for row in budget.attributes if row.attribute == attribute]
        assert sum(row.counts["missed"] for row in rows) == 100
        assert sum(row.n_truth for row in rows) == n


def test_crowding_shows_up_as_merging_of_close_neighbours():
    rng = np.random.default_rng(2)
    pairs, lone = [], []
    for f in range(20):
        for k in range(5):
            x, y = 10 + 18 * k, rng.uniform(10, 40)
            pairs.append([(f, x, y), (f, x + 1.0, y)])
            lone += [(f, x, rng.uniform(55, 65)), (f, x, rng.uniform(80, 90))]
    truth = table([row for pair in pairs for row in pair] + lone)
    pred = table([pair[0] for pair in pairs] + lone)

    budget = error_budget(pred, truth, fwhm_nm=250, by=("neighbour",), n_bins=2)

    assert budget.counts["merged"] == 100
    assert budget.counts["missed"] == 0
    near, far = budget.attributes
    assert near.counts["merged"] == 100
    assert far.counts["merged"] == 0
    assert budget.advice()[0].startswith("Merging costs")


def test_imprecision_and_bias_are_weighed_against_what_is_possible():
    rng = np.random.default_rng(3)
    n = 2000
    rows = np.column_stack([np.arange(n) // 100, rng.uniform(5, 95, n), rng.uniform(5, 95, n)])
    truth = table(rows, photons=np.full(n, 1000.0), background=np.full(n, 20.0), psf_sigma_x=np.full(n, 1.1))
    noisy = truth.with_columns(x=truth.x + rng.normal(0, 0.2, n), y=truth.y + rng.normal(0, 0.2, n))
    drawn_in = truth.with_columns(x=truth.x - 0.4 * (truth.x - np.rint(truth.x)))

    precise = error_budget(noisy, truth, tolerance_nm=100)
    biased = error_budget(drawn_in, truth, tolerance_nm=100)

    assert precise.fwhm_nm == pytest.approx(2.3548 * 110, rel=1e-4)
    assert precise.delta_efficiency["imprecise"] > 0.1
    assert precise.delta_efficiency["biased"] < 0.01
    assert biased.delta_efficiency["biased"] > 0.05


def test_empty_tables_give_a_budget():
    truth, empty = table([(0, 10, 10)]), Localizations.empty(INFO, ("frame", "x", "y"))

    nothing_found = error_budget(empty, truth, by=("frame",))
    nothing_there = error_budget(truth, empty, by=("frame",))

    assert nothing_found.counts["missed"] == 1
    assert nothing_there.counts["false"] == 1
    assert nothing_there.delta_jaccard["false"] == 1  # nothing there, nothing claimed: perfect
    assert math.isnan(error_budget(empty, empty).jaccard)
    for budget in (nothing_found, nothing_there):
        json.dumps(budget.as_dict(), allow_nan=False)
        assert "J 0.000" in str(budget)


def test_impossible_options_are_named(planted):
    with pytest.raises(ConfigurationError, match="choose from photons"):
        error_budget(*planted, by=("colour",))
    assert {row.attribute for row in error_budget(*planted, by="frame").attributes} == {"frame"}
    with pytest.raises(ConfigurationError, match="fwhm_nm"):
        error_budget(*planted, fwhm_nm=-1)
    with pytest.raises(ConfigurationError, match="n_bins"):
        error_budget(*planted, n_bins=0)
    with pytest.raises(TableError, match="no column photons"):
        error_budget(*planted, by=("photons",))


def test_command_prints_draws_and_writes_json(planted, tmp_path, capsys):
    paths = [str(tmp_path / name) for name in ("pred.hdf5", "truth.hdf5")]
    for locs, path in zip(planted, paths, strict=True):
        locs.save(path)
    figure = tmp_path / "errors.png"

    options = ["--tolerance-nm", "50", "100", "--by", "neighbour", "--figure", str(figure)]
    assert main(["errors", *paths, *options]) == 0
    printed = capsys.readouterr().out
    assert "missed" in printed
    assert "by neighbour" in printed
    assert figure.read_bytes().startswith(b"\x89PNG")

    assert main(["errors", *paths, "--json", "--fwhm-nm", "250"]) == 0
    budget = json.loads(capsys.readouterr().out)["budgets"][0]
    assert budget["counts"] == PLANTED
    assert main(["errors", *paths, "--by", "colour"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_figure_has_a_bar_for_every_error(planted):
    figure = budget_figure([error_budget(*planted, tolerance_nm=t) for t in (50, 100)])

    assert len(figure.axes[0].patches) == 2 * len(ERRORS)
