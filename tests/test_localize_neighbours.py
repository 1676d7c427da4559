"""Who is near whom: the same pairs as by looking at all of them, whatever the order and the frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlm_pb.localization.crowding import reach_px, surroundings
from smlm_pb.localization.neighbour_pull import pairs_of
from smlm_pb.localization.neighbours import count_within, offsets_between, pairs_within, tree_of
from smlm_pb.localization.own_light import Pixels, own_light

scattered = st.lists(st.tuples(st.integers(0, 3), st.floats(-0.5, 9.5), st.floats(-0.5, 6.5)), max_size=40)


@given(scattered, st.floats(0.2, 12))
def test_all_pairs_of_a_frame_each_once(places, reach):
    frame, x, y = (np.array(values) for values in zip(*places, strict=True)) if places else (np.empty(0),) * 3
    first, second, square = pairs_within({"frame": frame, "x": x, "y": y}, reach)
    found = [tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    true = {
        (i, j)
        for j in range(len(x))
        for i in range(j)
        if frame[i] == frame[j] and (x[i] - x[j]) ** 2 + (y[i] - y[j]) ** 2 <= reach**2
    }
    assert len(found) == len(set(found))
    assert set(found) == true
    assert square == pytest.approx((x[first] - x[second]) ** 2 + (y[first] - y[second]) ** 2)


@pytest.mark.parametrize("reach", [0.9, 5.0])
def test_as_a_search_tree_finds_them(reach):
    rng = np.random.default_rng(0)
    rows = {"frame": 1000 + rng.integers(0, 9, 3000), "x": rng.uniform(0, 64, 3000), "y": rng.uniform(0, 40, 3000)}
    found = np.sort(np.column_stack(pairs_within(rows, reach)[:2]), axis=1)
    true = tree_of(rows).query_pairs(reach, output_type="ndarray")
    assert len(true) > 100
    assert set(map(tuple, found.tolist())) == set(map(tuple, true.tolist()))


@given(scattered, scattered, st.floats(0.2, 12))
def test_how_many_others_are_near(places, others, reach):
    ours, theirs = (
        dict(zip(("frame", "x", "y"), map(np.array, zip(*one, strict=True)), strict=True))
        if one
        else {name: np.empty(0) for name in ("frame", "x", "y")}
        for one in (places, others)
    )
    near = [sum(f == frame and (x - a) ** 2 + (y - b) ** 2 <= reach**2 for f, a, b in others) for frame, x, y in places]
    assert count_within(ours, theirs, reach).tolist() == near


@pytest.mark.parametrize("kind", ["structured", "columns"])
def test_offsets_are_those_of_the_first_from_the_second_in_double_precision(kind):
    rng = np.random.default_rng(3)
    rows = np.zeros(500, [("frame", "u4"), ("x", "f4"), ("y", "f4")])
    rows["x"], rows["y"] = rng.uniform(1000, 1040, (2, 500))
    given_rows = rows if kind == "structured" else {name: rows[name] for name in rows.dtype.names}
    first, second, square = pairs_within(given_rows, 5.0)
    dx, dy = offsets_between(given_rows, first, second)
    assert dx.dtype == dy.dtype == np.float64
    for apart, axis in ((dx, "x"), (dy, "y")):
        exact = [float(value) for value in rows[axis]]
        assert apart.tolist() == [exact[i] - exact[k] for i, k in zip(first, second, strict=True)]
    np.testing.assert_array_equal(dx**2 + dy**2, square)


def test_pairs_that_are_known_already_change_nothing():
    rng = np.random.default_rng(5)
    n, sigma = 120, 1.1
    rows = {
        "frame": np.sort(rng.integers(0, 3, n)),
        **{axis: rng.uniform(0, 14, n).astype(np.float32) for axis in "xy"},
        "photons": rng.uniform(200, 2000, n).astype(np.float32),
        "background": np.full(n, 10, np.float32),
        **{name: np.full(n, 0.1, np.float32) for name in ("sigma_x", "sigma_y")},
        "probability": rng.random(n).astype(np.float32),
    }
    near = pairs_within(rows, reach_px(sigma))
    for ours, theirs in zip(surroundings(rows, sigma, near), surroundings(rows, sigma), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    told = {"psf_sigma_px": sigma, "background_e": np.full(n, 10.0)}
    pixels = Pixels(rng.poisson(50, (3, 15, 15)).astype(np.float32))
    np.testing.assert_allclose(own_light(rows, pixels, near=near, **told), own_light(rows, pixels, **told), rtol=1e-4)
    ours, theirs = pairs_of(rows, near=near, **told), pairs_of(rows, **told)
    assert len(ours.receiver) == len(theirs.receiver) > n
    assert ours.features.sum(0) == pytest.approx(theirs.features.sum(0), rel=1e-4, abs=1e-3)
    shifted = {**rows, "x": rows["x"] + np.float32(0.1) * rng.random(n).astype(np.float32)}
    found = pairs_within(shifted, 1.0)
    moved = pairs_within(rows, 2.0).moved(shifted).within(1.0)
    assert {frozenset(pair) for pair in zip(found.first, found.second, strict=True)} == {
        frozenset(pair) for pair in zip(moved.first, moved.second, strict=True)
    }


@pytest.mark.parametrize("n", [0, 1])
def test_no_or_one_candidate_has_no_surroundings(n):
    rows = {name: np.ones(n, np.float32) for name in ("frame", "x", "y", "photons", "probability")}
    width = np.full(n, 1.1)
    near = pairs_within(rows, reach_px(width))
    assert len(near.first) == len(near.moved(rows).within(1.0).first) == 0
    assert len(surroundings(rows, width, near).crowding) == n
