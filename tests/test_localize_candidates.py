"""From the network's maps to candidates, and from probabilities to the best threshold."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smlm_pb.errors import ConfigurationError
from smlm_pb.localization.candidates import Candidates, as_columns, join_candidates, select_candidates
from smlm_pb.localization.crowding import crowding
from smlm_pb.localization.summary import MedianOfMany
from smlm_pb.localization.threshold import BINS, LOWEST_AUTOMATIC, ProbabilityHistogram, check_threshold
from smlm_pb.networks import PointField


def empty_field(n_frames=2, n=2, height=5, width=7):
    maps = {name: torch.zeros(n_frames, n, height, width) for name in PointField._fields}
    maps["logit"] = torch.full_like(maps["logit"], -20.0)
    maps["background"] = torch.arange(n_frames * height * width, dtype=torch.float32).reshape(n_frames, height, width)
    return PointField(**maps)


def put(field, frame, candidate, row, column, *, p, dy=0.0, dx=0.0, sy=0.1, sx=0.2, photons=1000.0):
    at = frame, candidate, row, column
    values = {"logit": math.log(p / (1 - p)), "dy": dy, "dx": dx}
    values |= {"log_sigma_y": math.log(sy), "log_sigma_x": math.log(sx), "log_photons": math.log(photons)}
    for name, value in values.items():
        getattr(field, name)[at] = value


# -- candidates --------------------------------------------------------------------------------------------


def test_a_candidate_lies_at_its_pixel_plus_its_offset():
    field = empty_field()
    put(field, 1, 0, 3, 4, p=0.8, dy=-0.25, dx=0.5, sy=0.11, sx=0.22, photons=1234)
    row = select_candidates(field, first_frame=100).rows
    assert len(row) == 1
    expected = {"frame": 101, "y": 2.75, "x": 4.5, "sigma_y": 0.11, "sigma_x": 0.22, "photons": 1234}
    for name, value in {**expected, "probability": 0.8, "background": 35 + 3 * 7 + 4}.items():
        assert row[name][0] == pytest.approx(value, rel=1e-5), name


def test_photons_and_background_are_multiplied_back_for_electron_multiplication():
    field = empty_field()
    put(field, 0, 0, 2, 2, p=0.9, photons=700)
    row = select_candidates(field, first_frame=0, excess_noise_factor=2.0).rows
    assert row["photons"][0] == pytest.approx(1400)
    assert row["background"][0] == pytest.approx(2 * (2 * 7 + 2))


def test_wild_photons_of_what_is_hardly_believed_in_stay_numbers():
    """Infinite ones would make the light that falls on the neighbours no number, and with it their probability."""
    field = empty_field()
    put(field, 0, 0, 2, 2, p=0.06)
    field.log_photons[0, 0, 2, 2] = 300.0
    put(field, 0, 1, 2, 4, p=0.9)
    rows = select_candidates(field, first_frame=0, floor=0.05).rows
    assert np.isfinite(rows["photons"]).all()
    assert np.isfinite(crowding(rows, 1.2)).all()


@pytest.mark.parametrize(
    ("row", "column", "dy", "dx", "inside"),
    [
        (0, 3, -0.5, 0.0, True),
        (0, 3, -0.51, 0.0, False),
        (4, 3, 0.49, 0.0, True),
        (4, 3, 0.5, 0.0, False),
        (2, 0, 0.0, -0.55, False),
        (2, 6, 0.0, 0.5, False),
        (2, 6, 0.0, 0.45, True),
        (2, 3, 0.6, -0.6, True),  # beyond its own pixel, but in the frame
    ],
)
def test_only_candidates_inside_the_frame_are_listed(row, column, dy, dx, inside):
    field = empty_field()
    put(field, 0, 1, row, column, p=0.9, dy=dy, dx=dx)
    assert len(select_candidates(field, first_frame=0).rows) == inside


def test_the_floor_decides_what_is_listed_and_what_is_only_summed():
    field = empty_field()
    for place, p in (((0, 0, 1, 1), 0.3), ((0, 1, 1, 1), 0.1), ((1, 0, 2, 2), 0.06), ((1, 1, 2, 2), 0.04)):
        put(field, *place, p=p)
    found = select_candidates(field, first_frame=0, floor=0.2)
    assert found.rows["probability"] == pytest.approx([0.3])
    assert found.expected_unlisted == pytest.approx(0.16, abs=1e-6)  # of the negligible one nothing is expected
    lower = select_candidates(field, first_frame=0, floor=0.01)
    assert sorted(lower.rows["probability"]) == pytest.approx([0.04, 0.06, 0.1, 0.3])
    assert lower.expected_unlisted == 0


def test_candidates_are_ordered_by_frame_then_row_then_column():
    field = empty_field()
    for place in ((1, 0, 0, 0), (0, 1, 4, 0), (0, 0, 1, 6), (0, 1, 1, 2), (0, 0, 1, 2)):
        put(field, *place, p=0.5 + 0.05 * place[1])
    rows = select_candidates(field, first_frame=7).rows
    assert list(zip(rows["frame"], rows["y"], rows["x"], strict=True)) == [
        (7, 1, 2), (7, 1, 2), (7, 1, 6), (7, 4, 0), (8, 0, 0),
    ]  # fmt: skip
    assert rows["probability"][:2] == pytest.approx([0.5, 0.55])


def test_nothing_found_gives_empty_columns_of_the_right_types():
    columns = as_columns(join_candidates([select_candidates(empty_field(), first_frame=0)]).rows)
    assert columns["frame"].dtype == np.uint32
    assert all(len(values) == 0 for values in columns.values())
    assert len(join_candidates([]).rows) == 0


def test_rows_are_joined_in_order_and_unchanged():
    field = empty_field()
    put(field, 0, 0, 3, 4, p=0.8)
    put(field, 1, 1, 2, 2, p=0.6)
    parts = [select_candidates(field, first_frame=frame) for frame in (0, 4)]
    joined = join_candidates([*parts, Candidates(parts[0].rows[:0], 0.5)])
    np.testing.assert_array_equal(joined.rows, np.concatenate([part.rows for part in parts]))
    assert list(joined.rows["frame"]) == [0, 1, 4, 5]
    assert joined.expected_unlisted == pytest.approx(0.5)


# -- threshold ---------------------------------------------------------------------------------------------


def histogram_of(*portions, below=0.0):
    histogram = ProbabilityHistogram()
    for portion in portions:
        histogram.add(np.asarray(portion, np.float32))
    histogram.expected_unlisted += below
    return histogram


def test_expected_counts_at_a_threshold():
    expectation = histogram_of([0.9, 0.8, 0.3], below=0.5).at(0.5)
    assert expectation.molecules == 2
    assert expectation.true == pytest.approx(1.7)
    assert expectation.false == pytest.approx(0.3)
    assert expectation.missed == pytest.approx(0.8)
    assert expectation.jaccard == pytest.approx(1.7 / (1.7 + 0.3 + 0.8))
    assert expectation.precision == pytest.approx(1.7 / 2)
    assert expectation.recall == pytest.approx(1.7 / 2.5)
    assert not expectation.automatic


@given(
    st.lists(st.floats(0.0625, 1.0, width=32), min_size=1, max_size=60),
    st.floats(0, 5),
)
def test_the_automatic_threshold_has_the_best_expected_jaccard_of_all(probabilities, below):
    p = np.sort(np.array(probabilities, np.float32).astype(float))[::-1]
    total = p.sum() + below
    kept = np.arange(1, len(p) + 1)
    jaccard = np.cumsum(p) / (total + kept - np.cumsum(p))
    best = jaccard[p >= LOWEST_AUTOMATIC].max(initial=0.0)
    found = histogram_of(probabilities, below=below).best(floor=0.05)
    assert found.automatic
    # Candidates less than one step apart cannot be told from each other.
    assert best - len(p) * 2 / BINS / total <= found.jaccard <= best + 1e-9


def test_improbable_candidates_alone_are_never_kept_automatically():
    found = histogram_of([0.1] * 30 + [0.25] * 5).best(floor=0.05)
    assert found.threshold >= LOWEST_AUTOMATIC
    assert found.molecules == 0


def test_the_automatic_threshold_is_the_fixed_point_of_the_rule():
    rng = np.random.default_rng(1)
    p = rng.beta(0.6, 0.6, 20_000)
    listed = p[p >= 0.05]
    found = histogram_of(listed, below=float(p[p < 0.05].sum())).best(floor=0.05)
    assert found.threshold == pytest.approx(found.jaccard / (1 + found.jaccard), abs=2 / BINS)


def test_calibrated_probabilities_keep_their_promise():
    rng = np.random.default_rng(2)
    p = rng.beta(0.5, 0.7, 50_000)
    real = rng.random(len(p)) < p
    histogram = histogram_of(p[p >= 0.05], below=float(p[p < 0.05].sum()))
    found = histogram.best(floor=0.05)
    kept = p >= found.threshold
    assert found.jaccard == pytest.approx(real[kept].sum() / (kept | real).sum(), abs=0.01)
    assert found.precision == pytest.approx(real[kept].mean(), abs=0.01)
    assert found.recall == pytest.approx(real[kept].sum() / real.sum(), abs=0.01)


def test_what_is_counted_at_a_threshold_is_what_is_kept():
    rng = np.random.default_rng(3)
    p = rng.random(5000).astype(np.float32)
    steps = (np.arange(BINS + 1) / BINS).astype(np.float32)  # exactly on the steps, and beside them
    beside = [np.nextafter(steps, np.float32(side)).clip(0, 1) for side in (-1, 2)]
    p = np.concatenate((p, steps, *beside))
    histogram = histogram_of(p)
    for k in range(BINS + 1):
        assert histogram.at(k / BINS).molecules == (p >= np.float32(k / BINS)).sum()


def test_blocks_may_come_in_any_portions():
    p = np.random.default_rng(4).random(300)
    once, often = histogram_of(p), histogram_of(*np.array_split(p, 7))
    assert once.best(floor=0.05).as_dict() == pytest.approx(often.best(floor=0.05).as_dict())


def test_certain_molecules_are_kept_at_threshold_one():
    assert histogram_of([1.0, 0.9999]).at(1.0).molecules == 1


def test_without_candidates_nothing_is_expected():
    expectation = ProbabilityHistogram().best(floor=0.05)
    assert (expectation.molecules, expectation.jaccard, expectation.precision, expectation.recall) == (0,) + (None,) * 3


def test_a_gap_between_sure_and_unsure_puts_the_threshold_in_its_middle():
    found = histogram_of([0.95] * 50 + [0.06] * 50).best(floor=0.05)
    assert 0.4 < found.threshold < 0.6


@pytest.mark.parametrize("wrong", [-0.1, 1.01, float("nan"), "high", None])
def test_wrong_thresholds_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        check_threshold(wrong)


# -- medians without keeping the values --------------------------------------------------------------------


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=50))
def test_median_of_many_agrees_with_the_median(values):
    many = MedianOfMany()
    for value in values:
        many.add(np.array([value]))
    ordered = sorted(values)
    low, high = ordered[(len(values) - 1) // 2], ordered[len(values) // 2]
    assert low * 0.99 <= many.median() <= high * 1.01


def test_median_of_nothing_is_none():
    assert MedianOfMany().median() is None
