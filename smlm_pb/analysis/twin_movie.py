"""A simulated movie that is like a real one: molecules where the table has them, as bright, on the same background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.movie_length import refuse_endless

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]

#: The background of the table's molecules is smoothed over this many pixels.
_SMOOTH_PX = 8.0


@dataclass(frozen=True)
class TwinSource:
    """What the frames are drawn from.

    Parameters
    ----------
    x, y, jitter, photons : array (rows,)
        Positions and precision in px, photo-electrons, of the rows of the table.
    per_frame : array (frames,)
        Rows in every frame that was localized.
    background : array (height, width)
        Background in e⁻ per pixel.
    camera : Camera
        The camera.
    psf_sigma_px : float
        Width of the point-spread function, px.
    """

    x: FloatArray
    y: FloatArray
    jitter: FloatArray
    photons: FloatArray
    per_frame: npt.NDArray[np.intp]
    background: FloatArray
    camera: Camera
    psf_sigma_px: float

    @classmethod
    def of(cls, locs: Localizations, frames: tuple[int, int], camera: Camera, psf_sigma_px: float) -> TwinSource:
        """Take positions, photons, background and numbers from a table."""
        start, stop = frames
        refuse_endless(stop - start, locs)
        sigma = np.zeros(len(locs))
        if "sigma_x" in locs and "sigma_y" in locs:
            sigma = np.sqrt((locs["sigma_x"].astype(np.float64) ** 2 + locs["sigma_y"].astype(np.float64) ** 2) / 2)
        return cls(
            x=locs["x"].astype(np.float64),
            y=locs["y"].astype(np.float64),
            jitter=np.clip(np.nan_to_num(sigma, nan=0.0), 0.05, 1.0),
            photons=np.maximum(locs["photons"].astype(np.float64), 1.0),
            per_frame=np.bincount(locs["frame"].astype(np.intp) - start, minlength=stop - start)[: stop - start],
            background=background_map(locs),
            camera=camera,
            psf_sigma_px=psf_sigma_px,
        )

    def simulate(
        self, n_frames: int, factor: float, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.uint16], dict[str, npt.NDArray[Any]]]:
        """Draw a movie.

        Parameters
        ----------
        n_frames : int
            Its length.
        factor : float
            True molecules per molecule of the table.
        rng : numpy.random.Generator
            Source of randomness.

        Returns
        -------
        adu : array (frames, height, width), uint16
            Camera values.
        columns : dict
            The truth: frame, x, y, photons, background, psf_sigma_x, psf_sigma_y.
        """
        from smlm_pb.simulation.rendering import render_tiled

        height, width = shape = self.background.shape
        adu = np.empty((n_frames, *shape), np.uint16)
        parts: list[tuple[Any, ...]] = []
        # Frames of all parts of the movie, so that bleaching is in the twin as well.
        like = (np.arange(n_frames) + rng.random(n_frames)) / n_frames * len(self.per_frame)
        for k, real in enumerate(np.minimum(like.astype(np.intp), len(self.per_frame) - 1)):
            wanted = factor * self.per_frame[real]
            n = int(wanted) + int(rng.random() < wanted - int(wanted))
            row = rng.integers(0, len(self.x), n)
            # Neither the exact places nor their place within the pixel are to be those that were found.
            x = np.clip(self.x[row] + rng.normal(0, self.jitter[row]), -0.49, width - 0.51)
            y = np.clip(self.y[row] + rng.normal(0, self.jitter[row]), -0.49, height - 0.51)
            photons = self.photons[row]
            light = render_tiled(x, y, photons, np.full(n, self.psf_sigma_px), shape)
            adu[k] = self.camera.digitize(light + self.background, rng)
            below = self.background[np.rint(y).astype(int).clip(0), np.rint(x).astype(int).clip(0)]
            parts.append((np.full(n, k), x, y, photons, below))
        columns = {
            name: np.concatenate([part[i] for part in parts])
            for i, name in enumerate(("frame", "x", "y", "photons", "background"))
        }
        width_column = np.full(len(columns["x"]), self.psf_sigma_px)
        return adu, {**columns, "psf_sigma_x": width_column, "psf_sigma_y": width_column}


def background_map(locs: Localizations) -> FloatArray:
    """Background of the frame from that of its molecules, smoothed; their median where no molecule is near.

    Parameters
    ----------
    locs : Localizations
        With the column ``background``.

    Returns
    -------
    array (height, width)
        e⁻ per pixel.
    """
    from scipy.ndimage import gaussian_filter

    height, width = locs.info.height, locs.info.width
    values = np.maximum(locs["background"].astype(np.float64), 0.0)
    typical = float(np.median(values))
    row = np.rint(locs["y"].astype(np.float64)).astype(np.intp).clip(0, height - 1)
    column = np.rint(locs["x"].astype(np.float64)).astype(np.intp).clip(0, width - 1)
    # Single rows far off the others say more of a neighbour than of the background.
    low, high = np.percentile(values, [2, 98])
    cell = row * width + column
    total = np.bincount(cell, np.clip(values, low, high), height * width).reshape(height, width)
    count = np.bincount(cell, minlength=height * width).reshape(height, width).astype(np.float64)
    smooth_total, smooth_count = (gaussian_filter(v, _SMOOTH_PX, mode="constant") for v in (total, count))
    # A few rows' worth of the median keeps places without molecules from following a single one.
    weight = 3.0 / (2 * np.pi * _SMOOTH_PX**2)
    found: FloatArray = (smooth_total + weight * typical) / (smooth_count + weight)
    return found
