"""Compiled loops: the same numbers as in Python, kept where something may be written, made anew where not."""

import numba
import numpy as np
import pytest

from smlm_pb.compiled import compiled, compiled_with_fused_sums


def triangle(values):
    total = 0.0
    for value in values:
        total += value
    return total


def test_a_compiled_loop_gives_the_same():
    values = np.arange(10.0)
    assert compiled(triangle)(values) == triangle(values) == 45.0


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch):
    kept = numba.njit

    def nowhere_to_keep(*args, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return kept(*args, **options)

    monkeypatch.setattr(numba, "njit", nowhere_to_keep)
    assert compiled(triangle)(np.arange(4.0)) == 6.0


def test_division_by_zero_is_that_of_numpy():
    def share(one, other):
        return one / other

    assert np.isinf(compiled(share)(1.0, 0.0))
    with pytest.raises(ZeroDivisionError):
        share(1.0, 0.0)


def test_what_is_equal_on_paper_stays_equal_but_where_sums_may_be_fused():
    def beyond(one, other, less):
        return one * other - less

    x = np.float64(1 + 2**-30)
    assert compiled(beyond)(x, x, x * x) == 0.0
    assert abs(compiled_with_fused_sums(beyond)(x, x, x * x)) < 1e-17
