"""What a finished run amounts to: numbers for people, gathered block by block in constant memory."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.localization.range_tiles import MoleculesByTile, TileGrid

if TYPE_CHECKING:
    from smlm_pb.localization.model_card import ModelCard
    from smlm_pb.localization.threshold import Expectation
    from smlm_pb.localizations import Localizations

#: Dense and dim are told to the user only beyond this factor: the range of a model has no sharp edge.
_TOLERANCE = 1.25
#: With fewer molecules a median says little.
_MIN_MOLECULES = 20
_STEPS_PER_E = 200
_LOG_RANGE = (-12.0, 18.0)


class MedianOfMany:
    """Median of positive values that are too many to keep, to 0.5 %."""

    def __init__(self) -> None:
        low, high = _LOG_RANGE
        self._count = np.zeros(int((high - low) * _STEPS_PER_E), np.int64)

    def add(self, values: npt.NDArray[np.floating[Any]]) -> None:
        """Take in values (n,) > 0."""
        logarithm = np.log(np.maximum(values.astype(np.float64), np.exp(_LOG_RANGE[0])))
        index = ((logarithm - _LOG_RANGE[0]) * _STEPS_PER_E).astype(np.int64)
        self._count += np.bincount(np.clip(index, 0, len(self._count) - 1), minlength=len(self._count))

    def median(self) -> float | None:
        """The median, or None without values."""
        total = int(self._count.sum())
        if not total:
            return None
        step = int(np.searchsorted(np.cumsum(self._count), (total + 1) / 2))
        return float(np.exp(_LOG_RANGE[0] + (step + 0.5) / _STEPS_PER_E))


@dataclass(frozen=True)
class Summary:
    """A finished run in numbers.

    Parameters
    ----------
    frames : int
        Frames that were looked at.
    molecules : int
        Rows of the table.
    density_per_px2 : float
        Molecules per pixel and frame.
    median_sigma_px : float or None
        Median localization precision (root mean square of x and y), px.
    median_photons, median_background_e : float or None
        Medians over the molecules, e⁻ and e⁻ per pixel.
    tiles : MoleculesByTile or None
        The same by parts of the field; None where nothing was added.
    """

    frames: int
    molecules: int
    density_per_px2: float
    median_sigma_px: float | None
    median_photons: float | None
    median_background_e: float | None
    tiles: MoleculesByTile | None = field(default=None, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; without the tiles."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tiles"}


class SummaryBuilder:
    """Gathers a summary from the rows that are kept."""

    def __init__(self, frames: int, frame_px: int) -> None:
        self._frames, self._frame_px = frames, frame_px
        self._molecules = 0
        self._tiles: MoleculesByTile | None = None
        self._sigma, self._photons, self._background = MedianOfMany(), MedianOfMany(), MedianOfMany()

    def add(self, rows: Localizations) -> None:
        """Take in some rows of the table."""
        if self._tiles is None:
            self._tiles = MoleculesByTile(TileGrid.of_frame(rows.info.height, rows.info.width))
        self._tiles.add(rows)
        self._molecules += len(rows)
        self._sigma.add(np.sqrt((rows["sigma_x"] ** 2 + rows["sigma_y"] ** 2) / 2))
        self._photons.add(rows["photons"])
        self._background.add(rows["background"])

    def finish(self) -> Summary:
        """The summary of everything that was added."""
        return Summary(
            frames=self._frames,
            molecules=self._molecules,
            density_per_px2=self._molecules / max(1, self._frames * self._frame_px),
            median_sigma_px=self._sigma.median(),
            median_photons=self._photons.median(),
            median_background_e=self._background.median(),
            tiles=self._tiles,
        )


def warn_about(
    summary: Summary, expectation: Expectation, card: ModelCard, *, name: str, excess_noise_factor: float
) -> list[str]:
    """Say where the molecules that were found lie outside what the model was trained for.

    Parameters
    ----------
    summary : Summary
        The run.
    expectation : Expectation
        What is expected at its threshold; missed molecules count towards the density.
    card : ModelCard
        Range of validity, in effective electrons.
    name : str
        Name of the movie.
    excess_noise_factor : float
        Of the camera: photons divided by it are effective electrons.

    Returns
    -------
    list of str
        One sentence each, with what to do.
    """
    if summary.molecules < _MIN_MOLECULES:
        return []
    warnings = []
    density = summary.density_per_px2 * (expectation.true + expectation.missed) / max(1, expectation.molecules)
    if density > card.density_per_px2[1] * _TOLERANCE:
        warnings.append(
            f"Movie {name}: {density:.3g} molecules per pixel and frame are more than model '{card.name}' was trained "
            f"for ({card.density_per_px2[1]:g}): many will be missed; record with fewer molecules on, or train a "
            "model for this density."
        )
    if summary.median_photons is not None:
        photons = summary.median_photons / excess_noise_factor
        low, high = card.photons
        if not low / _TOLERANCE <= photons <= high * _TOLERANCE:
            warnings.append(
                f"Movie {name}: molecules of {photons:.3g} e⁻ (median) lie outside the {low:g} to {high:g} e⁻ that "
                f"model '{card.name}' was trained for: check offset_adu, e_per_adu and em_gain, or use another model."
            )
    return warnings
