"""Long matrices times small ones, in one thread."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", np.float32, np.float64)

#: Products of two numbers that numpy's BLAS (OpenBLAS) computes in the thread that asks for them. Larger ones it hands
#: to threads of its own, one for every core, and waits for the last: where the cores have other work, for milliseconds.
_ONE_THREAD = 1 << 18


def narrow_product(
    values: npt.NDArray[Number], weights: npt.NDArray[Number], rows: int | None = None
) -> npt.NDArray[Number]:
    """Multiply a long matrix with a small one, without disturbing what runs in other threads.

    Parameters
    ----------
    values : array (n, k)
        The long matrix.
    weights : array (k, m)
        The small one.
    rows : int, optional
        Rows of the result, from n on; what follows the product is zero.

    Returns
    -------
    array (n or rows, m)
        ``values @ weights``.
    """
    n, weights = len(values), np.ascontiguousarray(weights)  # of twice the speed, and always the same last digit
    product = np.empty((rows or n, weights.shape[1]), values.dtype)
    step = max(1, _ONE_THREAD // max(1, weights.size))
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        np.matmul(values[part], weights, out=product[part])
    product[n:] = 0
    return product
