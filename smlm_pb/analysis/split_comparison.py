"""What two half-exposures of the same frames say about precision and repeatability."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

IntArray = npt.NDArray[np.intp]

_LEAST_PAIRS = 30
#: Pairs farther apart than this many measured precisions of their difference belong to different molecules.
_GATE = 4.5
_N_BINS = 6


@dataclass(frozen=True)
class PhotonBin:
    """Molecules of similar brightness.

    Parameters
    ----------
    low, high : float
        Photons of the whole exposure (e⁻).
    pairs : int
        Molecules found in both halves.
    sigma_px, stated_sigma_px : float
        Measured and stated precision per axis (mean of x and y), whole exposure, px.
    repeatability : float
        Found in both halves / found in any, of molecules of this brightness.
    """

    low: float
    high: float
    pairs: int
    sigma_px: float
    stated_sigma_px: float
    repeatability: float


@dataclass(frozen=True)
class Repeatability:
    """The result of :func:`repeatability`.

    Parameters
    ----------
    n_frames : int
        Frames that were split.
    n_first, n_second, n_pairs : int
        Molecules found in each half-exposure, and in both.
    repeatability : float
        ``n_pairs / (n_first + n_second - n_pairs)``; 1 when everything is found twice.
    sigma_x_px, sigma_y_px : float
        Measured precision of a molecule of the whole exposure, px (root mean square over the molecules).
    standard_error_x_px, standard_error_y_px : float
        Statistical uncertainty of these.
    stated_sigma_x_px, stated_sigma_y_px : float
        What the table states for the same molecules (root mean square).
    pull_x, pull_y : float
        Standard deviation of ``(x1 - x2) / √(σ1² + σ2²)`` over the halves; 1 when the stated precision is honest.
    median_photons : float
        Of these molecules in the whole exposure, e⁻.
    pixel_size_nm : float or None
        Edge of a camera pixel.
    by_photons : tuple of PhotonBin
        The same for molecules of similar brightness, dim to bright.
    conditions : dict
        Camera values, PSF width and threshold of the halves.
    notes : tuple of str
        What the reader must know.
    """

    n_frames: int
    n_first: int
    n_second: int
    n_pairs: int
    repeatability: float
    sigma_x_px: float
    sigma_y_px: float
    standard_error_x_px: float
    standard_error_y_px: float
    stated_sigma_x_px: float
    stated_sigma_y_px: float
    pull_x: float
    pull_y: float
    median_photons: float
    pixel_size_nm: float | None
    by_photons: tuple[PhotonBin, ...]
    conditions: dict[str, Any]
    notes: tuple[str, ...]

    def in_nm(self, value_px: float) -> float | None:
        """A length in nm; None where the pixel size is unknown."""
        return None if self.pixel_size_nm is None else value_px * self.pixel_size_nm

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, lengths in px and, where the pixel size is known, also in nm."""
        plain = {**vars(self), "by_photons": [dict(vars(part)) for part in self.by_photons], "notes": list(self.notes)}
        for name in [name for name in plain if name.endswith("_px")]:
            plain[f"{name.removesuffix('_px')}_nm"] = self.in_nm(plain[name])
        return plain

    def table(self) -> str:
        """Lay the findings out as lines for people."""
        lines = [
            f"{self.n_frames} frames split: {self.n_first} and {self.n_second} molecules in the halves, "
            f"{self.n_pairs} in both: repeatability {self.repeatability:.3f}",
        ]
        for axis in "xy":
            measured, error = getattr(self, f"sigma_{axis}_px"), getattr(self, f"standard_error_{axis}_px")
            stated, pull = getattr(self, f"stated_sigma_{axis}_px"), getattr(self, f"pull_{axis}")
            lines.append(
                f"precision {axis}: measured {self._shown(measured)} ± {self._shown(error)}, stated "
                f"{self._shown(stated)}; actual / stated per molecule {pull:.2f}"
            )
        head = ("photons", "pairs", "measured", "stated", "repeatability")
        rows = [head] + [
            (
                f"{part.low:.0f}–{part.high:.0f}",
                str(part.pairs),
                self._shown(part.sigma_px),
                self._shown(part.stated_sigma_px),
                f"{part.repeatability:.3f}",
            )
            for part in self.by_photons
        ]
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def __str__(self) -> str:
        return self.table()

    def _shown(self, value_px: float) -> str:
        value_nm = self.in_nm(value_px)
        return f"{value_px:.4f} px" if value_nm is None else f"{value_nm:.2f} nm"


def compare_halves(
    first: Localizations,
    second: Localizations,
    whole: Localizations,
    *,
    search_px: float = 1.0,
    tolerance_px: float | None = None,
) -> Repeatability:
    """Compare what was found in two half-exposures of the same frames.

    Parameters
    ----------
    first, second : Localizations
        Molecules of the halves, with the stated precision in ``sigma_x`` and ``sigma_y``.
    whole : Localizations
        Molecules of the undivided frames: their stated precision is what the measured one is compared with.
    search_px : float
        Partners farther apart than this are never considered; about the width of the point-spread function.
    tolerance_px : float, optional
        Largest distance of a pair; found from the data when not given.

    Returns
    -------
    Repeatability

    Raises
    ------
    TableError
        When fewer than 30 molecules are found in both halves and in the whole.
    """
    one, two = _pair(first, second, search_px, tolerance_px)
    n_found = len(first) + len(second) - len(one)
    middle = {axis: (first[axis][one].astype(np.float64) + second[axis][two]) / 2 for axis in "xy"}
    between = first.select(one).with_columns(**middle)
    known, partner = _closest(between, whole, search_px)
    if len(known) < _LEAST_PAIRS:
        raise TableError(
            f"Only {len(known)} molecules were found in both half-exposures, at least {_LEAST_PAIRS} are needed: "
            "split more frames (max_frames), or check that the movie shows molecules."
        )
    one, two = one[known], two[known]
    measured = _measure(first.select(one), second.select(two), whole.select(partner))
    photons = whole["photons"][partner].astype(np.float64)
    return Repeatability(
        n_frames=whole.info.n_frames,
        n_first=len(first),
        n_second=len(second),
        n_pairs=len(known),
        repeatability=len(known) / n_found,
        **measured,
        median_photons=float(np.median(photons)),
        pixel_size_nm=whole.info.pixel_size_nm,
        by_photons=_by_photons(first, second, whole, one, two, partner),
        conditions={},
        notes=(),
    )


def _measure(first: Localizations, second: Localizations, whole: Localizations) -> dict[str, float]:
    """Measured and stated precision per axis of molecules that are row by row the same."""
    figures: dict[str, float] = {}
    for axis in "xy":
        difference = first[axis].astype(np.float64) - second[axis]
        stated = np.sqrt(
            first[f"sigma_{axis}"].astype(np.float64) ** 2 + second[f"sigma_{axis}"].astype(np.float64) ** 2
        )
        sigma = float(np.std(difference, ddof=1)) / 2
        figures[f"sigma_{axis}_px"] = sigma
        figures[f"standard_error_{axis}_px"] = sigma / math.sqrt(2 * (len(difference) - 1))
        figures[f"stated_sigma_{axis}_px"] = _rms(whole[f"sigma_{axis}"])
        figures[f"pull_{axis}"] = float(np.std(difference / stated, ddof=1))
    return figures


def _by_photons(
    first: Localizations, second: Localizations, whole: Localizations, one: IntArray, two: IntArray, partner: IntArray
) -> tuple[PhotonBin, ...]:
    """Bins of equally many pairs; what is single is sorted in by twice the photons of its half."""
    photons = (first["photons"][one] + second["photons"][two]).astype(np.float64)
    n_bins = max(1, min(_N_BINS, len(photons) // _LEAST_PAIRS))
    edges = np.quantile(photons, np.linspace(0, 1, n_bins + 1))
    lone = [2.0 * np.delete(half["photons"], rows).astype(np.float64) for half, rows in ((first, one), (second, two))]
    bins = []
    for k, (low, high) in enumerate(itertools.pairwise(edges)):
        last = k == n_bins - 1
        here = (photons >= low) & ((photons <= high) if last else (photons < high))
        if np.count_nonzero(here) < 3:
            continue
        figures = _measure(first.select(one[here]), second.select(two[here]), whole.select(partner[here]))
        single = sum(int(np.count_nonzero((half >= low) & (half < high))) for half in lone)
        bins.append(
            PhotonBin(
                low=float(low),
                high=float(high),
                pairs=int(here.sum()),
                sigma_px=math.hypot(figures["sigma_x_px"], figures["sigma_y_px"]) / math.sqrt(2),
                stated_sigma_px=math.hypot(figures["stated_sigma_x_px"], figures["stated_sigma_y_px"]) / math.sqrt(2),
                repeatability=float(here.sum() / (here.sum() + single)),
            )
        )
    return tuple(bins)


def _pair(
    first: Localizations, second: Localizations, search_px: float, tolerance_px: float | None
) -> tuple[IntArray, IntArray]:
    """Pairs of the two halves: closest first, then only those as close as the measured precision lets expect."""
    one, two = _closest(first, second, search_px if tolerance_px is None else tolerance_px)
    if tolerance_px is not None or len(one) < _LEAST_PAIRS:
        return one, two
    square = np.zeros(len(one))
    for axis in "xy":
        difference = first[axis][one].astype(np.float64) - second[axis][two]
        variance = first[f"sigma_{axis}"][one].astype(np.float64) ** 2 + second[f"sigma_{axis}"][two] ** 2
        square += difference**2 / np.maximum(variance, 1e-12)
    near = np.ones(len(square), bool)
    for _ in range(5):
        # Of two Gaussian differences of width s the median square is 2 ln 2 s²; strangers hardly move a median.
        scale = math.sqrt(float(np.median(square[near])) / (2 * math.log(2)))
        near = square <= (_GATE * scale) ** 2
    return one[near], two[near]


def _closest(a: Localizations, b: Localizations, reach_px: float) -> tuple[IntArray, IntArray]:
    """Rows of both tables that are each other's partners, closest first, in the same frame."""
    from smlm_pb.evaluation.matching import find_candidates, positions, solve

    candidates = find_candidates(positions(a), positions(b), reach_px)
    chosen = solve(candidates, "greedy")
    return candidates.pred[chosen], candidates.truth[chosen]


def _rms(values: npt.NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))
