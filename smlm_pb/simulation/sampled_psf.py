"""A point-spread function that is known by samples only: measured on beads, or learned from a movie.

The samples tell the share of a molecule's light that a camera pixel gets, over the distance between the pixel's centre
and the molecule: pixel integration is in them already, as in any picture of a bead. Between the samples a cubic spline
interpolates. A molecule is where the centre of its light is.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    import os

    from smlm_pb.simulation.geometry import Float64Array

#: Fewest and most samples along a side.
_FEWEST, _MOST = 5, 2049
#: Light at the border, and light below zero, relative to the peak: more is background, not PSF.
_MOST_AT_BORDER, _MOST_NEGATIVE = 0.05, 0.02
_KEY = "samples_per_px"


class SampledPsf:
    """A PSF from samples on a square grid.

    Parameters
    ----------
    samples : array (side, side)
        Share of the light per camera pixel at distances that are multiples of ``1 / samples_per_px`` px, rows along y.
    samples_per_px : float
        Samples per camera pixel and axis.
    """

    def __init__(self, samples: npt.NDArray[np.floating[Any]], samples_per_px: float) -> None:
        from scipy.interpolate import RectBivariateSpline

        values = np.asarray(samples, dtype=np.float64)
        self.samples, self.samples_per_px = values, float(samples_per_px)
        self._axes = [(np.arange(n) - (n - 1) / 2) / samples_per_px for n in values.shape]
        # An asymmetric PSF moves the light: where a molecule is means where its light is.
        total = values.sum()
        self._centre = (float(values.sum(1) @ self._axes[0] / total), float(values.sum(0) @ self._axes[1] / total))
        self._reach = min(float(axis[-1]) - abs(c) for axis, c in zip(self._axes, self._centre, strict=True))
        self._spline = RectBivariateSpline(*self._axes, values)
        self._widths: tuple[float, float] | None = None

    def at(self, y: Float64Array, x: Float64Array) -> Float64Array:
        """Share of the light at distances (px) from the molecule, on the grid of ``y`` and ``x``, both increasing."""
        values: Float64Array = self._spline(y + self._centre[0], x + self._centre[1])
        return np.maximum(values, 0.0)

    def render(
        self,
        x: npt.NDArray[np.floating[Any]],
        y: npt.NDArray[np.floating[Any]],
        photons: npt.NDArray[np.floating[Any]],
        shape: tuple[int, int],
    ) -> Float64Array:
        """Expected image of molecules.

        Parameters
        ----------
        x, y, photons : array (molecules,)
            Positions of the centre of their light, px, and photo-electrons.
        shape : (int, int)
            Height and width, px.

        Returns
        -------
        array (height, width), float64
        """
        image = np.zeros(shape)
        reach = self._reach
        for one_x, one_y, light in zip(x.tolist(), y.tolist(), photons.tolist(), strict=True):
            top, left = max(0, int(np.ceil(one_y - reach))), max(0, int(np.ceil(one_x - reach)))
            rows = np.arange(top, min(shape[0], int(np.floor(one_y + reach)) + 1))
            columns = np.arange(left, min(shape[1], int(np.floor(one_x + reach)) + 1))
            if len(rows) and len(columns):
                spot = self.at(rows - one_y, columns - one_x)
                image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += light * spot
        return image

    def gaussian_widths(self) -> tuple[float, float]:
        """Standard deviations (x, y) in px of the pixel-integrated Gaussian that fits the samples best."""
        if self._widths is None:
            self._widths = self._fit_widths()
        return self._widths

    def _fit_widths(self) -> tuple[float, float]:
        from scipy.optimize import least_squares

        from smlm_pb.simulation.rendering import pixel_integral_derivatives

        distances = [axis - c for axis, c in zip(self._axes, self._centre, strict=True)]
        scale = self.samples.max()

        def residual(parameters: Float64Array) -> Float64Array:
            light, width_y, width_x = np.exp(parameters)
            rows, columns = (
                pixel_integral_derivatives(d, w)[0] for d, w in zip(distances, (width_y, width_x), strict=True)
            )
            return (light * np.outer(rows, columns) - self.samples / scale).ravel()

        fit = least_squares(residual, np.log([1 / scale, 1.2, 1.2]))
        _, width_y, width_x = np.exp(fit.x)
        return float(width_x), float(width_y)


def read_psf(path: str | os.PathLike[str], samples_per_px: float | None = None) -> SampledPsf:
    """Read a PSF from a file.

    Parameters
    ----------
    path : path
        TIFF or ``.npy`` with one picture of the PSF, without background: of a bead (one sample per pixel), averaged
        from many at a finer grid, or as ``smlm-pb train --unlabelled`` writes it. Only its shape counts, not its scale.
    samples_per_px : float, optional
        Samples per camera pixel; by default what the file tells, else 1.

    Returns
    -------
    SampledPsf
        The light of one molecule adds up to 1.

    Raises
    ------
    ConfigurationError
        When the file cannot be read or is no picture of a PSF: with the reason.
    """
    path = Path(path)
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        raise ConfigurationError(f"PSF {path} cannot be read ({error.strerror}): check the path.") from None
    return _read_cached(str(path), samples_per_px, stamp)


@lru_cache(maxsize=8)
def _read_cached(path: str, samples_per_px: float | None, stamp: int) -> SampledPsf:
    # Every training scene asks for the file; it is read again only when it has changed.
    values, told = _read_samples(Path(path))
    density = samples_per_px if samples_per_px is not None else told if told is not None else 1.0
    clean = _checked(values, f"PSF {path}")
    return SampledPsf(clean * density**2 / clean.sum(), density)


def write_psf(path: str | os.PathLike[str], samples: npt.NDArray[np.floating[Any]], samples_per_px: float) -> None:
    """Write a PSF as a TIFF that :func:`read_psf` and any viewer opens.

    Parameters
    ----------
    path : path
        The file.
    samples : array (side, side)
        Share of the light per camera pixel.
    samples_per_px : float
        Samples per camera pixel; it stands in the file.
    """
    import tifffile

    description = json.dumps({_KEY: samples_per_px, "meaning": "share of a molecule's light in a camera pixel"})
    tifffile.imwrite(path, np.asarray(samples, dtype=np.float32), description=description, metadata=None)


def _read_samples(path: Path) -> tuple[Float64Array, float | None]:
    """Values of the file, and the samples per pixel where it tells them."""
    import tifffile

    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False).astype(np.float64), None
        with tifffile.TiffFile(path) as tif:
            return tif.asarray().astype(np.float64), _told(tif.pages.first.description)
    except (OSError, ValueError, TypeError, tifffile.TiffFileError) as error:
        raise ConfigurationError(
            f"PSF {path} cannot be read ({' '.join(str(error).split())}): give a TIFF or .npy file with one picture."
        ) from None


def _told(description: str) -> float | None:
    try:
        value = float(json.loads(description)[_KEY])
    except (KeyError, TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None


def _checked(values: Float64Array, name: str) -> Float64Array:
    values = np.squeeze(values)
    if values.ndim != 2:
        raise ConfigurationError(f"{name} has the shape {values.shape}: give one picture (rows, columns).")
    if not _FEWEST <= min(values.shape) <= max(values.shape) <= _MOST:
        raise ConfigurationError(
            f"{name} has {values.shape[0]} × {values.shape[1]} samples: along each side {_FEWEST} to {_MOST} are "
            "needed; cut out the spot."
        )
    if not np.isfinite(values).all():
        raise ConfigurationError(f"{name} holds values that are no numbers: write it anew.")
    peak = values.max()
    if peak <= 0:
        raise ConfigurationError(f"{name} holds no light: its largest value is {peak:g}.")
    edge = np.concatenate((values[[0, -1]].ravel(), values[1:-1, [0, -1]].ravel()))
    if abs(edge.mean()) > _MOST_AT_BORDER * peak:
        raise ConfigurationError(
            f"{name}: at its border are still {100 * edge.mean() / peak:.0f} % of the peak: subtract the background, "
            "or cut out a larger region around the spot."
        )
    if values.min() < -_MOST_NEGATIVE * peak:
        raise ConfigurationError(
            f"{name} reaches down to {100 * values.min() / peak:.0f} % of the peak: a PSF is not negative; "
            "subtract less background, or average more beads."
        )
    return np.maximum(values, 0.0)
