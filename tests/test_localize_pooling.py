"""One candidate per molecule: shares are summed up, molecules side by side are left alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlm_pb.camera import Camera
from smlm_pb.localization.candidate_finder import _one_per_molecule, background_variance, precision_limit
from smlm_pb.localization.candidates import CANDIDATE_DTYPE, Candidates
from smlm_pb.localization.model_calibration import ModelCalibration
from smlm_pb.localization.own_light import Pixels
from smlm_pb.localization.pooling import MOST_PROBABILITY, REACH_PX, pool_shares
from smlm_pb.population import UNKNOWN_POPULATION


def candidates(*rows, sigma=0.1):
    """Rows of (frame, x, y, probability)."""
    table = np.zeros(len(rows), CANDIDATE_DTYPE)
    for name, values in zip(("frame", "x", "y", "probability"), zip(*rows, strict=True), strict=True):
        table[name] = values
    table["sigma_x"] = table["sigma_y"] = sigma
    table["photons"], table["background"] = 1000, 20
    return table


def test_two_halves_on_either_side_of_a_border_are_one_molecule():
    (row,) = pool_shares(candidates((3, 10.45, 7.0, 0.6), (3, 10.55, 7.0, 0.3)))
    assert row["frame"] == 3
    assert row["probability"] == pytest.approx(0.9)
    assert row["x"] == pytest.approx((2 * 10.45 + 10.55) / 3)
    assert row["y"] == 7.0
    assert row["photons"] == 1000


def test_the_precision_is_that_of_the_mixture():
    first, second = (0, 5.0, 5.0, 0.3), (0, 5.4, 5.2, 0.6)
    (row,) = pool_shares(candidates(first, second, sigma=0.15))
    rng = np.random.default_rng(0)
    which = rng.random(400_000) < 1 / 3
    for axis, name in ((1, "sigma_x"), (2, "sigma_y")):
        drawn = np.where(which, first[axis], second[axis]) + 0.15 * rng.normal(size=len(which))
        assert row[name] == pytest.approx(drawn.std(), rel=0.01)


@pytest.mark.parametrize(
    "rows",
    [
        ((0, 5.0, 5.0, 0.7), (0, 5.2, 5.0, 0.6)),  # too probable for one molecule
        ((0, 5.0, 5.0, 0.4), (0, 5.0 + REACH_PX + 0.01, 5.0, 0.4)),  # too far apart
        ((0, 5.0, 5.0, 0.4), (1, 5.0, 5.0, 0.4)),  # not in the same frame
        ((0, 5.0, 5.0, 0.9),),
        (),
    ],
)
def test_other_candidates_stay_as_they_are(rows):
    before = candidates(*rows) if rows else np.empty(0, CANDIDATE_DTYPE)
    np.testing.assert_array_equal(pool_shares(before), before)


def test_a_doubtful_candidate_beside_a_certain_one_may_be_a_molecule_of_its_own():
    """Whether it is, the pixels tell: calibration asks them."""
    assert len(pool_shares(candidates((0, 5.0, 5.0, 0.95), (0, 5.08, 5.05, 0.4)))) == 2


def test_a_molecule_on_the_corner_of_four_pixels_has_four_shares():
    corners = [(0, 5 + dx, 5 + dy, 0.25) for dx in (0.45, 0.55) for dy in (0.45, 0.55)]
    (row,) = pool_shares(candidates(*corners))
    assert (row["x"], row["y"]) == (pytest.approx(5.5), pytest.approx(5.5))
    assert row["probability"] == pytest.approx(0.999)


def test_the_input_is_not_changed():
    before = candidates((0, 5.0, 5.0, 0.5), (0, 5.1, 5.0, 0.5))
    kept = before.copy()
    assert len(pool_shares(before)) == 1
    np.testing.assert_array_equal(before, kept)


scattered = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 4), st.floats(0, 4), st.floats(0.05, 0.999)),
    max_size=25,
)


@given(scattered)
def test_expected_molecules_are_kept_and_every_result_is_one_molecule(rows):
    rows = sorted(rows)
    before = candidates(*rows) if rows else np.empty(0, CANDIDATE_DTYPE)
    after = pool_shares(before)
    assert (np.diff(after["frame"].astype(int)) >= 0).all()
    for frame in range(3):
        expected = before["probability"][before["frame"] == frame].sum()
        found = after["probability"][after["frame"] == frame]
        # Sums between .999 and the largest allowed are cut to .999, once in each of the four rounds at most.
        assert found.sum() <= expected + 1e-4
        assert found.sum() >= expected - 4 * (MOST_PROBABILITY - 0.998) * len(found)
    assert (after["probability"] <= 0.9991).all()


@given(scattered, st.randoms(use_true_random=False))
def test_one_frame_does_not_depend_on_what_else_is_in_the_table(rows, random):
    alone = [row for row in sorted(rows) if row[0] == 1]
    others = [row for row in rows if row[0] != 1]
    random.shuffle(others)
    if not alone:
        return
    table = candidates(*sorted(alone + others, key=lambda row: row[0]))
    ours = table[table["frame"] == 1]
    together = pool_shares(table)
    np.testing.assert_array_equal(together[together["frame"] == 1], pool_shares(ours))


#: Places on a grid, where many are equally far apart, and elsewhere.
crowded = st.lists(
    st.tuples(
        st.just(0),
        st.integers(0, 12).map(lambda k: k / 4) | st.floats(0, 3, width=32),
        st.integers(0, 12).map(lambda k: k / 4) | st.floats(0, 3, width=32),
        st.sampled_from((0.06, 0.1, 0.2, 0.4, 0.8, 0.95)),
    ),
    max_size=30,
)


@given(crowded)
def test_the_same_as_one_pair_after_the_other(rows):
    before = candidates(*rows) if rows else np.empty(0, CANDIDATE_DTYPE)
    after, expected = pool_shares(before), pool_slowly(before)
    assert len(after) == len(expected)
    for name in CANDIDATE_DTYPE.names:
        np.testing.assert_allclose(after[name], [row[name] for row in expected], rtol=1e-6, atol=1e-7, err_msg=name)


def pool_slowly(table):
    """What pooling is, candidate by candidate, in the words of its documentation."""
    rows = {number: {name: row[name] for name in table.dtype.names} for number, row in enumerate(table)}

    def square(a, b):
        return sum((float(rows[a][axis]) - float(rows[b][axis])) ** 2 for axis in "xy")

    pairs = {(a, b) for a in rows for b in rows if a < b and square(a, b) <= (1.5 * REACH_PX) ** 2}
    for _ in range(4):
        total = {(a, b): float(rows[a]["probability"]) + float(rows[b]["probability"]) for a, b in pairs}
        pairs = {pair for pair in pairs if total[pair] <= MOST_PROBABILITY}
        near = {pair: square(*pair) for pair in pairs if square(*pair) <= REACH_PX**2}
        partner = {
            one: min((apart, sum(pair) - one) for pair, apart in near.items() if one in pair)[1]
            for one in {candidate for pair in near for candidate in pair}
        }
        chosen = [pair for pair in near if partner[pair[0]] == pair[1] and partner[pair[1]] == pair[0]]
        for first, second in chosen:
            rows[first] = mixture(rows[first], rows.pop(second))
        successor = {second: first for first, second in chosen}
        pairs = {tuple(sorted(successor.get(c, c) for c in pair)) for pair in pairs}
        pairs = {(a, b) for a, b in pairs if a != b}
    return [rows[number] for number in sorted(rows)]


def mixture(one, other):
    a, b = float(one["probability"]), float(other["probability"])
    share = a / (a + b)
    mixed = dict(one)
    for name in ("x", "y", "photons", "background"):
        mixed[name] = np.float32(share * float(one[name]) + (1 - share) * float(other[name]))
    for axis in "xy":
        sigma, apart = f"sigma_{axis}", float(one[axis]) - float(other[axis])
        within = share * float(one[sigma]) ** 2 + (1 - share) * float(other[sigma]) ** 2
        mixed[sigma] = np.float32((within + share * (1 - share) * apart**2) ** 0.5)
    mixed["probability"] = np.float32(min(a + b, 0.999))
    return mixed


def test_shares_below_the_floor_still_count():
    listed = Candidates(candidates((0, 5.0, 5.0, 0.35), (0, 5.1, 5.0, 0.35), (0, 9.0, 9.0, 0.2)), 0.5)
    done = _one_per_molecule(
        listed, Pixels(np.zeros((1, 8, 8), np.float32)), 0.6, ModelCalibration(), 1.1, Camera(), UNKNOWN_POPULATION
    )
    assert done.rows["probability"] == pytest.approx([0.7])
    assert done.expected_unlisted == pytest.approx(0.7)


def test_the_limit_of_a_candidate_without_light_is_a_number():
    rows = candidates((0, 5.0, 5.0, 0.5), (0, 9.0, 9.0, 0.5))
    rows["photons"] = 0.0, 1000.0
    rows["background"] = -1.0, 20.0
    dark, bright = precision_limit(rows, background_variance(rows, Camera()), 1.1, Camera())
    assert dark > 10 * bright > 0
