"""One molecule looked at closely: its values, and the pixels around it against the model. No Qt in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import SmlmPbError
from smlm_pb.localizations import COLUMN_BY_NAME, Localizations

if TYPE_CHECKING:
    from smlm_pb.camera import Camera
    from smlm_pb.movies import Movie

#: Pixels shown on each side of a molecule.
RADIUS_PX = 6


@dataclass(frozen=True)
class Neighbourhood:
    """Pixels around a molecule.

    Parameters
    ----------
    data : array (height, width)
        Photo-electrons, or ADU where the camera is unknown.
    model : array (height, width) or None
        Expected photo-electrons of all molecules in the frame; None where their brightness is unknown.
    top, left : int
        Row and column of the first pixel.
    unit : str
        Of ``data``.
    """

    data: npt.NDArray[np.float32]
    model: npt.NDArray[np.float32] | None
    top: int
    left: int
    unit: str

    @property
    def residual(self) -> npt.NDArray[np.float32] | None:
        """Data minus model."""
        return None if self.model is None else self.data - self.model


def values_of(table: Localizations, row: int) -> list[tuple[str, str]]:
    """Name with unit, and value, of everything known of a molecule.

    Parameters
    ----------
    table : Localizations
        The molecules.
    row : int
        Which one.
    """
    pixel = table.info.pixel_size_nm
    lines = []
    for name, values in table.columns.items():
        value = values[row]
        unit = COLUMN_BY_NAME[name].unit if name in COLUMN_BY_NAME else ""
        shown = f"{value:.4g}" if np.asarray(value).dtype.kind == "f" else str(value)
        if name in ("x", "y"):
            shown = f"{value:.3f}"
        if unit == "px" and pixel is not None and np.asarray(value).dtype.kind == "f":
            in_nm = float(value) * pixel
            shown += f" px  ({in_nm:.1f} nm)" if abs(in_nm) < 100 else f" px  ({in_nm:.0f} nm)"
        elif unit:
            shown += f" {unit}"
        lines.append((name, shown))
    return lines


def nearest(table: Localizations, mask: npt.NDArray[np.bool_], frame: int, y: float, x: float) -> int | None:
    """Row of the shown molecule of a frame that lies nearest to a place, at most three pixels away."""
    rows = np.flatnonzero(mask & (table.frame == frame))
    if not len(rows):
        return None
    squared = (table.x[rows] - x) ** 2 + (table.y[rows] - y) ** 2
    best = int(np.argmin(squared))
    return int(rows[best]) if squared[best] <= 9.0 else None


def conditions_of(table: Localizations) -> tuple[Camera | None, float | None]:
    """Camera and PSF width with which a table was made, as far as its history tells."""
    from smlm_pb.camera import Camera

    for step in reversed(table.provenance):
        told: dict[str, Any] = step.get("conditions") or {}
        if not told:
            continue
        try:
            values = {key: value for key, value in told.get("camera", {}).items() if key != "estimated"}
            return Camera(**values), float(told["psf_sigma_px"])
        except (SmlmPbError, TypeError, ValueError, KeyError):
            return None, None
    return None, None


def neighbourhood(
    movie: Movie, table: Localizations, mask: npt.NDArray[np.bool_], row: int, radius_px: int = RADIUS_PX
) -> Neighbourhood:
    """Cut out the pixels around a molecule, and what its and its neighbours' light should look like there.

    Parameters
    ----------
    movie : Movie
        The movie the table belongs to.
    table : Localizations
        n molecules.
    mask : bool array (n,)
        Those that count.
    row : int
        The molecule.
    radius_px : int
        Pixels on each side.
    """
    frame, y, x = int(table.frame[row]), float(table.y[row]), float(table.x[row])
    row_px = int(np.clip(round(y), 0, movie.height - 1))
    column_px = int(np.clip(round(x), 0, movie.width - 1))
    top, left = max(0, row_px - radius_px), max(0, column_px - radius_px)
    bottom, right = min(movie.height, row_px + radius_px + 1), min(movie.width, column_px + radius_px + 1)
    adu = movie.read(frame, frame + 1)[0].astype(np.float32)
    camera, psf_sigma_px = conditions_of(table)
    if camera is None or psf_sigma_px is None:
        return Neighbourhood(adu[top:bottom, left:right], None, top, left, "ADU")
    electrons = camera.to_electrons(adu)[top:bottom, left:right]
    around = np.flatnonzero(
        mask
        & (table.frame == frame)
        & (np.abs(table.y - (top + bottom - 1) / 2) < 3 * radius_px)
        & (np.abs(table.x - (left + right - 1) / 2) < 3 * radius_px)
    )
    if row not in around:
        around = np.append(around, row)
    model = _expected(table.select(around), psf_sigma_px, top, left, electrons.shape, float(table.background[row]))
    return Neighbourhood(electrons, model, top, left, "e⁻")


def _expected(
    molecules: Localizations, psf_sigma_px: float, top: int, left: int, shape: tuple[int, ...], background_e: float
) -> npt.NDArray[np.float32]:
    import torch

    from smlm_pb.psf import render_gaussians

    image = render_gaussians(
        torch.from_numpy(molecules.x - np.float32(left)),
        torch.from_numpy(molecules.y - np.float32(top)),
        torch.from_numpy(np.asarray(molecules.photons)),
        psf_sigma_px,
        None,
        (1, shape[0], shape[1]),
        background=background_e,
    )
    return np.asarray(image[0].numpy(), dtype=np.float32)
