"""What a target tells, as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from smlm_pb.calibration.grid import GridCalibration
    from smlm_pb.calibration.registration import Registration

_LONGEST_SHARE = 0.06


def grid_figure(found: GridCalibration, image: npt.NDArray[Any]) -> Figure:
    """The points on the picture, the residual of each, and the distortion.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown; call its ``savefig``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    picture, residual, distortion = figure.subplots(1, 3)
    at = found.found.positions
    _show(picture, image)
    picture.plot(*at[found.used].T, "+", color="C1", markersize=5)
    picture.plot(*at[~found.used].T, "x", color="C3", markersize=5)
    first = found.found.lattice
    corner = at[np.lexsort((first.column, first.row))[0]]
    picture.plot(*corner, "o", color="C2", fillstyle="none")
    picture.set_title(
        f"{len(first)} points, pixel {found.pixel_size_nm:.2f} ± {found.pixel_size_error_nm:.2f} nm", fontsize=9
    )
    _arrows(residual, at[found.used], found.residual[found.used], found.shape, found.pixel_size_nm)
    residual.set_title(f"residual, {found.residual_px:.3f} px rms per axis", fontsize=9)
    moved = found.undistort(at) - at
    _arrows(distortion, at, moved, found.shape, found.pixel_size_nm)
    distortion.set_title(f"distortion, up to {found.distortion_px:.2f} px", fontsize=9)
    return figure


def registration_figure(found: Registration, reference: npt.NDArray[Any], moving: npt.NDArray[Any]) -> Figure:
    """Both channels in one picture, the way of each point, and what remains.

    Returns
    -------
    matplotlib.figure.Figure
        Not shown; call its ``savefig``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    both, way, residual = figure.subplots(1, 3)
    shape = np.asarray(reference).shape
    _show(both, reference)
    both.plot(*found.reference.T, "+", color="C0", markersize=5, label="reference")
    both.plot(*found.moving.T, "x", color="C1", markersize=4, label="moving")
    both.plot(*found.transform(found.moving).T, ".", color="C2", markersize=2, label="moved")
    both.legend(fontsize=7, loc="upper right")
    both.set_title(f"{len(found.reference)} points in both channels", fontsize=9)
    _arrows(way, found.moving, found.reference - found.moving, shape, found.pixel_size_nm)
    way.set_title(f"from moving to reference, {found.before_px:.2f} px rms", fontsize=9)
    used = found.used
    _arrows(residual, found.reference[used], found.residual[used], shape, found.pixel_size_nm)
    residual.set_title(f"what remains, {found.held_out_px:.3f} px rms at points left out", fontsize=9)
    return figure


def _show(axes: Axes, image: npt.NDArray[Any]) -> None:
    low, high = np.percentile(image, (0.5, 99.8))
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")
    axes.set(xlabel="x (px)", ylabel="y (px)")


def _arrows(
    axes: Axes, at: npt.NDArray[Any], way: npt.NDArray[Any], shape: tuple[int, ...], pixel_size_nm: float | None
) -> None:
    """Arrows, enlarged until the long ones can be seen; the axis tells by how much."""
    height, width = shape[:2]
    long = max(float(np.percentile(np.hypot(*way.T), 95)), 1e-6)
    scale = long / (_LONGEST_SHARE * max(height, width))
    axes.quiver(
        *at.T, *way.T, np.hypot(*way.T), angles="xy", scale_units="xy", scale=scale, cmap="viridis", width=0.003
    )
    nm = "" if pixel_size_nm is None else f" ({long * pixel_size_nm:.3g} nm)"
    told = f"x (px); arrows ×{1 / scale:.3g}, long ones {long:.2g} px{nm}"
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xlabel=told, aspect="equal")
