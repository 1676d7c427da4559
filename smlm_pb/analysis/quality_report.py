"""What can be said of a table of molecules without knowing the truth.

Precision from molecules that stay on (NeNA), resolution (FRC), how the number of localizations develops, spreads of
photons, background and precision, and whether positions cling to the camera's pixels: a uniform sub-pixel histogram
is the first thing to ask of a network that predicts offsets from pixel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.precision import Nena, nena
from smlm_pb.analysis.resolution import Frc, frc
from smlm_pb.analysis.table_conditions import frames_of
from smlm_pb.errors import SmlmPbError, TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]

# Blocks of the field whose positions may all lie at one phase of the pixel; with fewer than this nothing can be said.
_BLOCK_PX = 2.0
_FEWEST_PLACES = 20
_SPREAD_COLUMNS = ("photons", "background", "sigma_nm", "probability", "chi2")


@dataclass(frozen=True)
class SubPixel:
    """Where positions lie within their pixel, along one axis.

    Parameters
    ----------
    edges_px : array (n_bins + 1,)
        Edges of the bins, from −0.5 to 0.5 around the centre of the pixel.
    fraction : array (n_bins,)
        Fraction of the positions per bin; even when nothing clings to the pixels.
    attraction : float
        Strength of the modulation with the period of a pixel: 0 for even, up to 1; positive when positions gather at
        the centres, negative when they gather at the edges.
    expected_by_chance : float
        Standard error of the strength. Places of the sample count, not localizations: those of one place lie at the
        same phase, however many they are. Infinite where there are too few places to say.
    """

    edges_px: FloatArray
    fraction: FloatArray
    attraction: float
    expected_by_chance: float

    @property
    def is_suspicious(self) -> bool:
        """Whether the modulation is both certain and large enough to show."""
        return abs(self.attraction) > max(0.05, 5 * self.expected_by_chance)


@dataclass(frozen=True)
class Quality:
    """The result of :func:`quality`.

    Parameters
    ----------
    n_localizations, n_frames : int
        Rows, and frames that were localized.
    per_frame : float
        Mean number of localizations per frame.
    per_block : array (n_blocks,)
        Mean number per frame in consecutive stretches of the movie.
    spreads : dict
        For each known quantity its 5th, 25th, 50th, 75th and 95th percentile.
    nena : Nena or None
    frc : Frc or None
    reasons : dict
        Why one of them could not be computed.
    sub_pixel : dict
        :class:`SubPixel` for ``x`` and ``y``.
    notes : tuple of str
        What the reader should look at.
    first_frame : int
        First frame that was localized.
    """

    n_localizations: int
    n_frames: int
    per_frame: float
    per_block: FloatArray
    spreads: dict[str, tuple[float, ...]]
    nena: Nena | None
    frc: Frc | None
    reasons: dict[str, str]
    sub_pixel: dict[str, SubPixel]
    notes: tuple[str, ...]
    first_frame: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "n_localizations": self.n_localizations,
            "n_frames": self.n_frames,
            "per_frame": self.per_frame,
            "per_block": [float(v) for v in self.per_block],
            "percentiles_5_25_50_75_95": {name: list(values) for name, values in self.spreads.items()},
            "nena": None if self.nena is None else self.nena.as_dict(),
            "frc": None if self.frc is None else self.frc.as_dict(),
            "reasons": dict(self.reasons),
            "sub_pixel": {
                axis: {"fraction": [float(v) for v in found.fraction], "attraction": found.attraction}
                for axis, found in self.sub_pixel.items()
            },
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """Lay the findings out as lines for people."""
        lines = [
            f"{self.n_localizations} localizations in {self.n_frames} frames, {self.per_frame:.3g} per frame",
        ]
        if self.nena is not None:
            pull = "" if self.nena.pull is None else f"; actual / reported precision {self.nena.pull:.2f}"
            lines.append(
                f"precision (NeNA): {self.nena.sigma_nm:.1f} ± {self.nena.standard_error_nm:.1f} nm per axis, "
                f"{self.nena.staying_fraction:.0%} stay on from frame to frame{pull}"
            )
        if self.frc is not None:
            lines.append(
                f"resolution (FRC, 1/7, blocks of frames): {self.frc.resolution_nm:.0f} ± {self.frc.spread_nm:.0f} nm"
            )
        lines += [f"{name}: {reason}" for name, reason in self.reasons.items()]
        for name, (low, _, median, _, high) in self.spreads.items():
            lines.append(f"{name}: median {median:.4g}, 5–95 % {low:.4g} – {high:.4g}")
        for axis, found in self.sub_pixel.items():
            lines.append(
                f"sub-pixel {axis}: attraction {found.attraction:+.3f}"
                + (
                    f" ± {found.expected_by_chance:.3f}"
                    if math.isfinite(found.expected_by_chance)
                    else ", too few places of the sample to judge"
                )
            )
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def __str__(self) -> str:
        return self.table()


def quality(
    locs: Localizations,
    *,
    pixel_size_nm: float | None = None,
    n_blocks: int = 50,
    n_repeats: int = 5,
    seed: int = 0,
) -> Quality:
    """Judge a table of molecules without truth.

    Parameters
    ----------
    locs : Localizations
        Not linked (NeNA needs every frame of a molecule).
    pixel_size_nm : float, optional
        Edge of a camera pixel, where the table does not know it.
    n_blocks : int
        Stretches of the movie: for the development over time and for the halves of the FRC.
    n_repeats : int
        Splits of the FRC.
    seed : int
        Seed of everything random.

    Returns
    -------
    Quality
        What cannot be computed is None, with its reason.

    Raises
    ------
    TableError
        When the table is empty.
    """
    if not len(locs):
        raise TableError("The table has no molecules, so there is nothing to judge.")
    if pixel_size_nm is not None:
        from dataclasses import replace

        locs = locs.with_info(replace(locs.info, pixel_size_nm=pixel_size_nm))
    found: dict[str, Any] = {"NeNA": None, "FRC": None}
    reasons = {}
    for name, compute in (
        ("NeNA", lambda: nena(locs, seed=seed)),
        ("FRC", lambda: frc(locs, n_blocks=n_blocks, n_repeats=n_repeats, seed=seed)),
    ):
        try:
            found[name] = compute()
        except SmlmPbError as error:
            reasons[name] = str(error)
    start, stop = frames_of(locs)
    sub_pixel = {a: sub_pixel_histogram(locs[a], across_px=locs[b]) for a, b in ("xy", "yx")}
    return Quality(
        n_localizations=len(locs),
        n_frames=stop - start,
        per_frame=len(locs) / (stop - start),
        per_block=_per_block(locs["frame"], start, stop, n_blocks),
        spreads=_spreads(locs),
        nena=found["NeNA"],
        frc=found["FRC"],
        reasons=reasons,
        sub_pixel=sub_pixel,
        notes=_notes(found["NeNA"], found["FRC"], sub_pixel),
        first_frame=start,
    )


def sub_pixel_histogram(
    position_px: npt.NDArray[Any], n_bins: int = 20, *, across_px: npt.NDArray[Any] | None = None
) -> SubPixel:
    """Histogram of positions within their pixel.

    Parameters
    ----------
    position_px : array (n,)
        Positions along one axis, the centre of the first pixel at 0.
    n_bins : int
        Bins per pixel.
    across_px : array (n,), optional
        Positions along the other axis, which tell places apart.

    Returns
    -------
    SubPixel
    """
    position = np.asarray(position_px, np.float64)
    edges = np.linspace(-0.5, 0.5, n_bins + 1)
    if not len(position):
        return SubPixel(edges, np.zeros(n_bins), 0.0, math.inf)
    offset = position - np.floor(position + 0.5)
    counts = np.histogram(offset, edges)[0]
    attraction = float(np.cos(2 * np.pi * offset).mean())
    return SubPixel(edges, counts / len(position), attraction, _error_over_places(position, offset, across_px))


def _error_over_places(position: FloatArray, offset: FloatArray, across_px: npt.NDArray[Any] | None) -> float:
    """Standard error of the mean of cos(2π·offset) when all positions of one block of the field count as one."""
    across = np.zeros(len(position)) if across_px is None else np.asarray(across_px, np.float64)
    blocks = np.floor((np.stack([position, across], axis=1) + 0.5) / _BLOCK_PX).astype(np.int64)
    _, block = np.unique(blocks, axis=0, return_inverse=True)
    n_in = np.bincount(block.ravel()).astype(np.float64)
    n_effective = n_in.sum() ** 2 / (n_in**2).sum()
    if n_effective < _FEWEST_PLACES:
        return math.inf
    cosine = np.cos(2 * np.pi * offset)
    excess = np.bincount(block.ravel(), cosine - cosine.mean())
    return float(np.sqrt((excess**2).sum() * len(n_in) / (len(n_in) - 1)) / n_in.sum())


def _per_block(frame: npt.NDArray[Any], start: int, stop: int, n_blocks: int) -> FloatArray:
    edges = np.unique(np.linspace(start, stop, min(n_blocks, stop - start) + 1).round())
    return np.asarray(np.histogram(frame, edges)[0] / np.diff(edges))


def _spreads(locs: Localizations) -> dict[str, tuple[float, ...]]:
    spreads = {}
    for name in _SPREAD_COLUMNS:
        if name == "sigma_nm":
            has_sigma = "sigma_x" in locs and "sigma_y" in locs and locs.info.pixel_size_nm is not None
            values = locs.derived(name) if has_sigma else np.zeros(0)
        else:
            values = locs[name] if name in locs else np.zeros(0)
        values = values[np.isfinite(values)]
        if len(values):
            spreads[name] = tuple(float(v) for v in np.percentile(values, [5, 25, 50, 75, 95]))
    return spreads


def _notes(precision: Nena | None, resolution: Frc | None, sub_pixel: dict[str, SubPixel]) -> tuple[str, ...]:
    notes = []
    if precision is not None and precision.pull is not None and not 0.8 < precision.pull < 1.25:
        better = "too small" if precision.pull > 1 else "too large"
        notes.append(f"The reported precisions are {better}: the actual ones are {precision.pull:.2f} times as large.")
    if resolution is not None and resolution.note:
        notes.append(resolution.note)
    for axis, found in sub_pixel.items():
        if found.is_suspicious:
            where = "centres" if found.attraction > 0 else "edges"
            notes.append(
                f"Positions along {axis} gather at the {where} of the pixels (attraction {found.attraction:+.2f}): "
                "the localizer is biased, its point-spread function is too narrow or too wide, or the sample itself "
                "repeats with the pixels."
            )
    return tuple(notes)
