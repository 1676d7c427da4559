"""Drift by redundant cross-correlation, the method most microscopists know.

The movie is cut into stretches, each is rendered, and all pairs of images are cross-correlated; the peak of each
correlation is the drift between the two. The path is the least-squares solution of all pairs, with those that
contradict the others weighted down (Wang et al., Opt. Express 22, 15982, 2014), and a cubic spline in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.drift_kernel import Trajectory

FloatArray = npt.NDArray[Any]

_PIXEL_NM = 20.0
_LARGEST_IMAGE_PX = 2048
_BLUR_PX = 1.0


def correlate_stretches(
    xy_nm: FloatArray,
    frame: npt.NDArray[np.intp],
    n_frames: int,
    *,
    n_stretches: int,
    max_drift_nm: float,
    on_step: Callable[[float], None],
) -> Trajectory:
    """Find the path of the drift by redundant cross-correlation.

    Parameters
    ----------
    xy_nm : array (n, 2)
        Positions of all localizations.
    frame : int array (n,)
        Their frames.
    n_frames : int
        Length of the movie.
    n_stretches : int
        Stretches of equally many frames.
    max_drift_nm : float
        Largest displacement between two of them that is looked for.
    on_step : callable
        Called with the finished share, 0 to 1; may raise to stop.

    Returns
    -------
    Trajectory
        One displacement per frame, mean zero over the localizations.
    """
    from scipy.interpolate import CubicSpline

    spectra, pixel_nm, shape = _spectra(xy_nm, frame, n_frames, n_stretches, max_drift_nm)
    pairs, shifts = [], []
    for a in range(n_stretches):
        for b in range(a + 1, n_stretches):
            pairs.append((a, b))
            shifts.append(_shift(spectra[a], spectra[b], shape, max_drift_nm / pixel_nm))
        on_step((a + 1) / n_stretches)
    at_nodes = _solve_redundant(np.array(pairs), np.array(shifts), n_stretches) * pixel_nm
    count = np.bincount(np.minimum(frame * n_stretches // n_frames, n_stretches - 1), minlength=n_stretches)
    times = (np.arange(n_stretches) + 0.5) * n_frames / n_stretches
    filled = count > 0
    if filled.sum() > 1:
        every = np.arange(n_frames) + 0.5
        inside = np.clip(every, times[filled][0], times[filled][-1])
        path = CubicSpline(times[filled], at_nodes[filled])(inside)
    else:
        every, path = np.array([0.5 * n_frames]), np.zeros((1, 2))
    trajectory = Trajectory(every, path)
    return Trajectory(every, path - trajectory.at(frame + 0.5).mean(axis=0))


def _spectra(
    xy_nm: FloatArray, frame: npt.NDArray[np.intp], n_frames: int, n_stretches: int, max_drift_nm: float
) -> tuple[list[npt.NDArray[np.complex64]], float, tuple[int, int]]:
    """Fourier transforms of the blurred images of the stretches, padded so that shifts do not wrap around."""
    from scipy import fft
    from scipy.ndimage import gaussian_filter

    low, extent = xy_nm.min(axis=0), np.ptp(xy_nm, axis=0)
    pixel_nm = max(_PIXEL_NM, float((extent.max() + max_drift_nm) / _LARGEST_IMAGE_PX))
    margin = math.ceil(max_drift_nm / pixel_nm) + 4
    height, width = (fft.next_fast_len(int(side / pixel_nm) + 1 + margin, real=True) for side in extent[::-1])
    cell = ((xy_nm[:, 1] - low[1]) / pixel_nm).astype(np.intp) * width
    cell += ((xy_nm[:, 0] - low[0]) / pixel_nm).astype(np.intp)
    stretch = np.minimum(frame * n_stretches // n_frames, n_stretches - 1)
    spectra = []
    for s in range(n_stretches):
        image = np.bincount(cell[stretch == s], minlength=height * width).reshape(height, width).astype(np.float32)
        spectra.append(fft.rfft2(gaussian_filter(image, _BLUR_PX, mode="constant")))
    return spectra, pixel_nm, (height, width)


def _shift(
    a: npt.NDArray[np.complex64], b: npt.NDArray[np.complex64], shape: tuple[int, int], reach_px: float
) -> tuple[float, float]:
    """Displacement (x, y) in pixels of image b against image a: a quadratic through the logarithm of the peak."""
    from scipy import fft

    correlation = fft.fftshift(fft.irfft2(a.conj() * b, s=shape, workers=2))
    cy, cx = shape[0] // 2, shape[1] // 2
    r = max(3, min(math.ceil(reach_px) + 2, cy - 3, cx - 3))
    window = correlation[cy - r : cy + r + 1, cx - r : cx + r + 1]
    inner = window[2:-2, 2:-2]
    py, px = (int(v) + 2 for v in np.unravel_index(np.argmax(inner), inner.shape))
    patch = window[py - 2 : py + 3, px - 2 : px + 3].astype(np.float64)
    if patch.max() <= 0:
        return 0.0, 0.0
    dy, dx = _quadratic_peak(np.log(np.maximum(patch, 1e-3 * patch.max())))
    return float(px + dx - r), float(py + dy - r)


def _quadratic_peak(patch: FloatArray) -> tuple[float, float]:
    """Peak (y, x) of the least-squares quadratic through a patch, from its centre; the centre where there is none."""
    y, x = (v.ravel() - 2.0 for v in np.mgrid[:5, :5])
    design = np.stack([np.ones(25), x, y, x * x, y * y, x * y], axis=1)
    _, bx, by, axx, ayy, axy = np.linalg.lstsq(design, patch.ravel(), rcond=None)[0]
    curvature = np.array([[2 * axx, axy], [axy, 2 * ayy]])
    if axx >= 0 or ayy >= 0 or np.linalg.det(curvature) <= 0:
        return 0.0, 0.0
    px, py = np.linalg.solve(curvature, [-bx, -by])
    return float(np.clip(py, -2, 2)), float(np.clip(px, -2, 2))


def _solve_redundant(pairs: npt.NDArray[np.intp], shifts: FloatArray, n: int, n_rounds: int = 30) -> FloatArray:
    """Displacements (n, 2) from pairwise ones, least squares with weights that fall with the residual (Cauchy)."""
    design = np.zeros((len(pairs), n))
    design[np.arange(len(pairs)), pairs[:, 0]] = -1
    design[np.arange(len(pairs)), pairs[:, 1]] = 1
    weight = np.ones(len(pairs))
    solution = np.zeros((n, 2))
    for _ in range(n_rounds):
        root = np.sqrt(weight)[:, None]
        # One more row fixes the mean, which pairs cannot tell.
        system = np.vstack([design * root, np.ones((1, n))])
        solution = np.linalg.lstsq(system, np.vstack([shifts * root, np.zeros((1, 2))]), rcond=None)[0]
        residual = np.hypot(*(design @ solution - shifts).T)
        scale = max(2 * float(np.median(residual)), 1e-6)
        weight = 1 / (1 + (residual / scale) ** 2)
    return solution
