"""Drift by COMET, for those who have it: the package comet-smlm, which is not installed with this one.

It maximises the overlap of the Gaussians of all molecules as the method ``kernel`` does, with one displacement per
stretch of the movie and a spline in between (Reinkensmeier et al., 2026).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.drift_kernel import Trajectory
from smlm_pb.errors import ConfigurationError, TableError

FloatArray = npt.NDArray[Any]


def require_comet() -> Any:
    """The package.

    Raises
    ------
    ConfigurationError
        When it is not installed.
    """
    try:
        import comet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ConfigurationError(
            "The method comet needs the package comet-smlm: install it with 'pip install comet-smlm', or use kernel."
        ) from None
    return comet


def run_comet(
    xy_nm: FloatArray,
    time: FloatArray,
    n_frames: int,
    *,
    sigma_nm: float,
    max_drift_nm: float,
    n_stretches: int,
    seed: int,
    on_step: Callable[[float], None],
) -> Trajectory:
    """Find the path of the drift.

    Parameters
    ----------
    xy_nm : array (n, 2)
        Positions.
    time : array (n,)
        Moments in frames.
    n_frames : int
        Length of the movie.
    sigma_nm : float
        Precision of the molecules, to which the kernel is narrowed.
    max_drift_nm : float
        Largest displacement that is looked for.
    n_stretches : int
        Stretches of the movie that get a displacement each.
    seed : int
        Seed of the choice of molecules where there are very many.
    on_step : callable
        Called with the share of the work that is done.

    Returns
    -------
    Trajectory

    Raises
    ------
    ConfigurationError
        When the package is not installed.
    TableError
        When it finds nothing.
    """
    comet = require_comet()
    frame = np.minimum(time.astype(np.intp), n_frames - 1)
    # It changes the table it is given.
    table = np.column_stack([xy_nm, np.zeros(len(frame)), frame]).astype(np.float64)

    def progress(_stage: str, _info: Any) -> None:
        on_step(0.5)

    try:
        found = comet.comet_run_kd(
            table,
            segmentation_mode=0,
            segmentation_var=n_stretches,
            max_drift_nm=max_drift_nm,
            target_sigma_nm=sigma_nm,
            min_max_frames=(0, n_frames - 1),
            random_state=seed,
            progress=progress,
        )
    except (ValueError, RuntimeError, IndexError) as error:
        raise TableError(f"COMET finds no drift ({' '.join(str(error).split())}); use the method kernel.") from error
    path = np.asarray(found, np.float64)
    on_step(1.0)
    return Trajectory(path[:, 3] + 0.5, path[:, :2])
