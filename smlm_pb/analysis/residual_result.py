"""What is left over when the molecules of a table are taken out of their movie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]

#: Values of the column ``suspicion``.
MISSED, FALSE, MERGED = 1, 2, 3
SUSPICIONS = {"missed": MISSED, "false": FALSE, "merged": MERGED}
#: From this part of the molecules on, a suspicion is worth a sentence.
_WORTH_TELLING = 0.02
#: From this part of the molecules in crowds on, suspicions about single ones mean little.
_MOSTLY_CROWDED = 0.5


@dataclass(frozen=True)
class ResidualMap:
    """The result of :func:`residual_map`.

    Parameters
    ----------
    n_frames, n_molecules : int
        Frames that were looked at, and molecules of the table in them.
    suspects : Localizations
        One row per suspicion: ``frame``, ``x``, ``y``, ``photons``, ``suspicion`` (1 missed, 2 false, 3 merged) and
        ``score`` (in standard deviations: of the light left over, of the molecule itself, of its shape).
    chi2 : array (tiles along y, tiles along x)
        Mean squared residual of the pixels of each tile in units of its expectation: 1 where the molecules of the table
        and noise explain the movie.
    chi2_total, chi2_background : float
        The same of all pixels, and of those far from any molecule; the latter tells whether the gain is right.
    tile_px : int
        Side of a tile.
    mean_residual : array (height, width)
        Sum of the residuals over the frames divided by the root of their number: of standard deviation 1 where nothing
        is systematically wrong.
    psf_sigma_px : float
        Width that was used, px.
    psf_sigma_error_px : float
        By how much lone molecules are wider than that.
    pixel_size_nm : float or None
        Edge of a camera pixel.
    notes : tuple of str
        What the reader must know.
    """

    n_frames: int
    n_molecules: int
    suspects: Localizations
    chi2: FloatArray
    chi2_total: float
    chi2_background: float
    tile_px: int
    mean_residual: FloatArray
    psf_sigma_px: float
    psf_sigma_error_px: float
    pixel_size_nm: float | None
    notes: tuple[str, ...]

    def count(self, suspicion: str) -> int:
        """Number of suspicions of one kind: missed, false or merged."""
        return int(np.count_nonzero(self.suspects["suspicion"] == SUSPICIONS[suspicion]))

    def share(self, suspicion: str) -> float:
        """The same per molecule of the table; NaN for an empty table."""
        return self.count(suspicion) / self.n_molecules if self.n_molecules else math.nan

    def advice(self) -> str:
        """What to do about the most frequent suspicion, in one sentence."""
        worst = max(SUSPICIONS, key=self.count)
        n, share = self.count(worst), self.share(worst)
        if not n or share < _WORTH_TELLING:
            return "The pixels agree with the table: next to nothing looks missed, false or merged."
        part = f"{100 * share:.0f} per 100 molecules found" if math.isfinite(share) else f"{n} in all"
        return {
            "missed": f"Light of {part} is left over: lower the threshold, or check the camera values.",
            "false": f"{part} are not needed to explain the pixels: raise the threshold; in a crowd, where the pixels "
            "cannot tell, fewer molecules at a time help.",
            "merged": f"{part} look like several at once: lower the activation laser, or use a model for higher "
            "densities.",
        }[worst]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the list of suspects."""

        def plain(value: float) -> float | None:
            return None if math.isnan(value) else value

        return {
            "n_frames": self.n_frames,
            "n_molecules": self.n_molecules,
            **{f"n_{name}": self.count(name) for name in SUSPICIONS},
            "chi2_total": plain(self.chi2_total),
            "chi2_background": plain(self.chi2_background),
            "chi2": [[plain(value) for value in row] for row in self.chi2.tolist()],
            "tile_px": self.tile_px,
            "psf_sigma_px": self.psf_sigma_px,
            "psf_sigma_error_px": self.psf_sigma_error_px,
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """Lay the findings out as lines for people."""
        lines = [f"{self.n_frames} frames with {self.n_molecules} molecules"]
        for name, text in (
            ("missed", "light without a molecule"),
            ("false", "molecules the pixels do not need"),
            ("merged", "molecules that look like several"),
        ):
            share = self.share(name)
            part = f" ({100 * share:.1f} per 100 molecules found)" if math.isfinite(share) else ""
            lines.append(f"suspected {name:<7} {self.count(name):>6}  {text}{part}")
        worst = np.unravel_index(int(np.nanargmax(self.chi2)), self.chi2.shape)
        y, x = (int(k) * self.tile_px for k in worst)
        lines.append(
            f"χ² per pixel {self.chi2_total:.3f}, far from molecules {self.chi2_background:.3f}; largest "
            f"{float(self.chi2[worst]):.3f} in the tile at y = {y}, x = {x} px"
        )
        return "\n".join([*lines, self.advice(), *(f"Note: {note}" for note in self.notes)])

    def __str__(self) -> str:
        return self.table()


def remarks(psf_sigma_px: float, width_error_px: float, chi2_background: float, crowded: float) -> list[str]:
    """What limits the meaning of the figures."""
    notes = []
    if crowded > _MOSTLY_CROWDED:
        notes.append(
            f"{100 * crowded:.0f} % of the molecules stand in crowds so dense that the pixels hardly tell which "
            "of them exist: suspicions of false and merged ones are little reliable; a digital twin tells more (twin)."
        )
    if abs(width_error_px) > 0.03 * psf_sigma_px:
        notes.append(
            f"Lone molecules have a width of {psf_sigma_px + width_error_px:.3f} px, not {psf_sigma_px:.3f} px, which "
            "looks like merging or leaves light over; give the right psf_sigma_px."
        )
    if math.isfinite(chi2_background) and not 0.85 < chi2_background < 1.2:
        gain = "too large" if chi2_background > 1 else "too small"
        notes.append(
            f"Far from molecules the noise has {chi2_background:.2f} times the variance it should have: e_per_adu is "
            f"{gain}, the offset is wrong, or the background is structured; scores are not to be trusted."
        )
    return notes
