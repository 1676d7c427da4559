"""What adding frames has shown: a table of densities, and what it means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DensityLevel:
    """What is found when some frames are added.

    Parameters
    ----------
    added : int
        Frames per sum.
    n_sums, n_molecules, n_found : int
        Sums, molecules in them (found in the single frames), localizations in them.
    density_per_px2, density_per_um2 : float
        Molecules per pixel and per µm²; the latter NaN where the pixel size is unknown.
    jaccard, precision, recall : float
        Of the localizations against the molecules.
    rmse_px : float
        Root mean square of the distance of pairs, px; errors of the single frames included.
    threshold : float
        Smallest probability that was kept.
    """

    added: int
    n_sums: int
    n_molecules: int
    n_found: int
    density_per_px2: float
    density_per_um2: float
    jaccard: float
    precision: float
    recall: float
    rmse_px: float
    threshold: float


@dataclass(frozen=True)
class Superposition:
    """The result of :func:`superposition`.

    Parameters
    ----------
    n_frames : int
        Single frames that were used.
    density_per_px2 : float
        Molecules found per pixel and single frame.
    levels : tuple of DensityLevel
        Few frames added to many.
    tolerance_px : float
        Distance up to which a molecule counts as found again.
    least_jaccard : float
        Jaccard index from which on a density counts as usable.
    usable_per_px2 : float
        Largest density at which the index is still reached, interpolated; a lower limit where
        ``reaches_the_end``. NaN where already the first sum fails.
    reaches_the_end : bool
        Whether the index is reached at the largest density that was tried.
    pixel_size_nm : float or None
        Edge of a camera pixel.
    conditions : dict
        Camera values, PSF width, model.
    notes : tuple of str
        What the reader must know.
    """

    n_frames: int
    density_per_px2: float
    levels: tuple[DensityLevel, ...]
    tolerance_px: float
    least_jaccard: float
    usable_per_px2: float
    reaches_the_end: bool
    pixel_size_nm: float | None
    conditions: dict[str, Any]
    notes: tuple[str, ...]

    def per_um2(self, density_per_px2: float) -> float:
        """A density in molecules per µm²; NaN where the pixel size is unknown."""
        return math.nan if self.pixel_size_nm is None else density_per_px2 / (self.pixel_size_nm / 1000) ** 2

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is unknown is None."""

        def plain(value: Any) -> Any:
            return None if isinstance(value, float) and math.isnan(value) else value

        found = {name: plain(value) for name, value in vars(self).items() if name not in ("levels", "notes")}
        levels = [{name: plain(value) for name, value in vars(level).items()} for level in self.levels]
        return {
            **found,
            "density_per_um2": plain(self.per_um2(self.density_per_px2)),
            "usable_per_um2": plain(self.per_um2(self.usable_per_px2)),
            "levels": levels,
            "notes": list(self.notes),
        }

    def advice(self) -> str:
        """What the figures mean for the movie, in one sentence."""
        here = self._shown(self.density_per_px2)
        if math.isnan(self.usable_per_px2):
            return (
                f"Already twice the density of this movie ({here}) is too much for the model: "
                "lower the activation laser, or use a model for higher densities."
            )
        usable = self._shown(self.usable_per_px2)
        room = self.usable_per_px2 / self.density_per_px2
        more = "at least " if self.reaches_the_end else ""
        return (
            f"The model works on this sample up to {more}{usable}, {room:.1f} times the density of this movie ({here})."
        )

    def table(self) -> str:
        """Lay the findings out as lines for people."""
        head = ("frames added", "molecules", "per px", "per µm²", "Jaccard", "precision", "recall", "error (px)")
        rows = [head] + [
            (
                str(level.added),
                str(level.n_molecules),
                f"{level.density_per_px2:.4f}",
                "–" if math.isnan(level.density_per_um2) else f"{level.density_per_um2:.2f}",
                f"{level.jaccard:.3f}",
                f"{level.precision:.3f}",
                f"{level.recall:.3f}",
                "–" if math.isnan(level.rmse_px) else f"{level.rmse_px:.3f}",
            )
            for level in self.levels
        ]
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*lines, self.advice(), *(f"Note: {note}" for note in self.notes)])

    def __str__(self) -> str:
        return self.table()

    def _shown(self, density_per_px2: float) -> str:
        if self.pixel_size_nm is None:
            return f"{density_per_px2:.3g} molecules per pixel"
        return f"{self.per_um2(density_per_px2):.2g} molecules per µm²"
