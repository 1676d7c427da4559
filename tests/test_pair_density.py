"""The density around molecules: the mean where they lie anywhere, more where they sit together, whatever the frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlm_pb.pair_density import FARTHEST_PX, NEAREST_PX, density_around

RING_PX2 = np.pi * (FARTHEST_PX**2 - NEAREST_PX**2)


def around(x, y, box, weight=None):
    first, second = np.triu_indices(len(x), 1)
    weight = np.ones(len(x)) if weight is None else weight
    apart = (x[first] - x[second], y[first] - y[second])
    return density_around(apart, weight[first] * weight[second], weight.sum(), np.asarray(box, float))


@pytest.mark.parametrize("box", [(60.0, 60.0), (12.0, 200.0), (9.0, 30.0)])
def test_anywhere_it_is_the_mean_density_at_every_edge(box):
    rng = np.random.default_rng(0)
    n = 600
    found = [around(*(rng.uniform(0, side, n) for side in box), box) for _ in range(20)]
    assert np.mean(found) == pytest.approx((n - 1) / np.prod(box), rel=0.02)


def test_on_lines_it_is_what_lines_hold():
    """A ring around a molecule cuts out 2 (R - r) of its own line; the other lines are far apart."""
    rng = np.random.default_rng(1)
    per_px, lines = 0.5, 20
    x = rng.uniform(0, 400, int(lines * per_px * 400))
    y = 20.0 * rng.integers(0, lines, len(x))
    expected = 2 * (FARTHEST_PX - NEAREST_PX) * per_px / RING_PX2
    assert around(x, y, (400.0, 400.0)) == pytest.approx(expected, rel=0.05)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 40),
    share=st.floats(0.1, 1.0),
    shift=st.floats(-50, 50),
)
@settings(max_examples=40, deadline=None)
def test_it_grows_with_certainty_and_not_with_the_place(seed, n, share, shift):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 20, (2, n))
    sure = around(x, y, (20.0, 20.0))
    assert around(x + shift, y - shift, (20.0, 20.0)) == pytest.approx(sure, rel=1e-6)
    assert around(x, y, (20.0, 20.0), np.full(n, share)) == pytest.approx(share * sure, rel=1e-9)
    assert around(y, x, (20.0, 20.0)) == pytest.approx(sure, rel=1e-9)


def test_one_molecule_has_nobody_around():
    assert around(np.array([3.0]), np.array([3.0]), (20.0, 20.0)) == 0.0
    assert around(np.array([3.0, 3.9]), np.array([3.0, 3.0]), (20.0, 20.0)) == 0.0  # may be one molecule
