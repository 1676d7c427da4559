"""Long matrices times small ones: what numpy says, and without numpy's own threads."""

import subprocess
import sys

import numpy as np
import pytest

from smlm_pb.narrow_product import narrow_product

#: Processor time over wall time of a product; only Linux counts threads that spin as they do.
_LOAD = """
import time, numpy as np
from smlm_pb.narrow_product import narrow_product
values, weights = np.ones((50000, 32), np.float32), np.ones((32, 14), np.float32)
narrow_product(values, weights)
time.sleep(0.5)  # threads that were begun on import wait actively for a while
began, used = time.perf_counter(), time.process_time()
mine = time.thread_time()
for _ in range(60):
    narrow_product(values, weights)
print((time.process_time() - used) / (time.thread_time() - mine))
"""


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 1, 1), (5000, 32, 2), (30_000, 16, 14), (7, 600, 600)])
def test_the_same_as_a_product(kind, shape):
    rng = np.random.default_rng(0)
    n, k, m = shape
    values, weights = rng.normal(size=(n, k)).astype(kind), rng.normal(size=(k, m)).astype(kind)
    product = narrow_product(values, weights)
    assert product.dtype == kind
    np.testing.assert_allclose(product, values @ weights, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(product, narrow_product(values, np.asfortranarray(weights)))
    longer = narrow_product(values, weights, n + 3)
    np.testing.assert_array_equal(longer[:n], product)
    assert not longer[n:].any()


def test_other_threads_have_nothing_to_do_with_it(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.3
