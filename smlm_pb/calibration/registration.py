"""Bringing one colour channel onto another, with a picture of the same target in both."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.calibration.detection import DEFAULT_THRESHOLD
from smlm_pb.calibration.grid import FoundLattice, search_lattice
from smlm_pb.calibration.transform import Transform
from smlm_pb.calibration.transform_fit import fit_transform
from smlm_pb.errors import ConfigurationError, MovieError

FloatArray = npt.NDArray[np.float64]

_FEWEST_PAIRS = 9
#: Beyond this share of the pitch, a shift could as well be one to the other side.
_AMBIGUOUS = 0.35


@dataclass(frozen=True)
class Registration:
    """How one channel lies on the other.

    Parameters
    ----------
    transform : Transform
        From positions in the moving picture to positions in the reference picture.
    reference, moving : array (n, 2)
        Positions of the same points of the target in both, px.
    residual : array (n, 2)
        Reference minus mapped moving position, px.
    used : bool array (n,)
        Points that took part in the fit.
    held_out_px : float
        Registration error: root mean square distance of points to maps fitted without them.
    before_px : float
        Root mean square distance of the channels without registration (but with the shift that was told).
    pixel_size_nm : float, optional
        Of the reference, for the report.
    warnings : list of str
        What a user should know.
    """

    transform: Transform
    reference: FloatArray
    moving: FloatArray
    residual: FloatArray
    used: npt.NDArray[np.bool_]
    held_out_px: float
    before_px: float
    pixel_size_nm: float | None
    kind: str
    warnings: list[str] = field(default_factory=list)

    @property
    def residual_px(self) -> float:
        """Root mean square distance of the points that took part, px."""
        return float(np.sqrt(np.mean((self.residual[self.used] ** 2).sum(1))))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        nm = self.pixel_size_nm
        middle = self.transform.centre[None]
        jacobian = self.transform.jacobian(middle)[0]
        shift = (self.transform(middle) - middle)[0]
        return {
            "kind": self.kind,
            "n_pairs": len(self.reference),
            "n_used": int(self.used.sum()),
            "order": self.transform.order,
            "shift_x_px": float(shift[0]),
            "shift_y_px": float(shift[1]),
            "magnification": math.sqrt(abs(float(np.linalg.det(jacobian)))),
            "rotation_deg": math.degrees(math.atan2(jacobian[1, 0] - jacobian[0, 1], jacobian[0, 0] + jacobian[1, 1])),
            "before_px": self.before_px,
            "residual_px": self.residual_px,
            "held_out_px": self.held_out_px,
            "held_out_nm": None if nm is None else self.held_out_px * nm,
            "pixel_size_nm": nm,
            "warnings": self.warnings,
        }

    def table(self) -> str:
        """The findings as text."""
        d = self.as_dict()
        nm = "" if d["held_out_nm"] is None else f" ({d['held_out_nm']:.1f} nm)"
        lines = [
            f"target     {d['kind']}: {d['n_pairs']} points in both channels, {d['n_used']} of them used",
            f"transform  order {d['order']}; shift x {d['shift_x_px']:+.2f} px, y {d['shift_y_px']:+.2f} px, "
            f"magnification {d['magnification']:.5f}, rotation {d['rotation_deg']:+.3f}°",
            f"error      {d['before_px']:.2f} px before, {d['residual_px']:.3f} px after, "
            f"{d['held_out_px']:.3f} px{nm} at points left out",
        ]
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])


def register_grids(
    reference: npt.NDArray[Any],
    moving: npt.NDArray[Any],
    *,
    kind: str = "auto",
    order: int | str = "auto",
    shift_px: tuple[float, float] = (0.0, 0.0),
    threshold: float = DEFAULT_THRESHOLD,
    shrink: int | str = "auto",
    pixel_size_nm: float | None = None,
    model: str | Path | None = None,
) -> Registration:
    """Find the map from one channel to the other.

    Parameters
    ----------
    reference, moving : array (height, width)
        Pictures of the same target at rest, in the channel that stays and in the one that is moved onto it.
    kind, threshold, shrink, model
        See :func:`smlm_pb.calibration.grid.calibrate_grid`.
    order : int or "auto"
        Order of the polynomial, 1 (affine) to 5.
    shift_px : (float, float)
        What must about be added to x and y of the moving channel to arrive at the reference. A grid looks the same
        when it is moved by a pitch: the remaining shift must be less than half of one.
    pixel_size_nm : float, optional
        Pixel size of the reference, for errors in nm.

    Returns
    -------
    Registration

    Raises
    ------
    MovieError
        When a picture shows no lattice, or too few points are in both.
    ConfigurationError
        When an option is impossible.
    """
    if order != "auto" and not 1 <= int(order) <= 5:
        raise ConfigurationError(f"order = {order} is impossible; give 1 (affine) to 5, or auto.")
    if not all(math.isfinite(v) for v in shift_px):
        raise ConfigurationError(f"shift_px = {shift_px} is impossible; give two numbers.")
    found = []
    for name, image in (("reference", reference), ("moving", moving)):
        try:
            found.append(search_lattice(image, kind=kind, threshold=threshold, shrink=shrink, model=model))
        except MovieError as error:
            raise MovieError(f"In the {name} picture: {error}") from error
        kind = found[0].points.kind
    to, start = pair_places(found[0], found[1], np.asarray(shift_px, np.float64))
    if len(to) < _FEWEST_PAIRS:
        raise MovieError(
            f"Only {len(to)} points of the target are in both channels, {_FEWEST_PAIRS} are needed: check that both "
            "pictures show the same part of the target, and give shift_px where the channels lie far apart."
        )
    if order == "auto":
        fit = fit_transform(start, to, purpose="register")
    else:
        fit = fit_transform(start, to, purpose="register", order=int(order))
    height, width = np.asarray(reference).shape
    facts = {"points": int(fit.used.sum()), "held_out_px": fit.held_out_px, "kind": kind}
    moved = start + np.asarray(shift_px)
    result = Registration(
        transform=replace(fit.transform, pixel_size_nm=pixel_size_nm, height=height, width=width, facts=facts),
        reference=to,
        moving=start,
        residual=fit.residual,
        used=fit.used,
        held_out_px=fit.held_out_px,
        before_px=float(np.sqrt(np.mean(((to - moved) ** 2).sum(1)))),
        pixel_size_nm=pixel_size_nm,
        kind=kind,
    )
    result.warnings.extend(_warnings(result, moved, found[0], np.asarray(moving).shape))
    return result


def pair_places(reference: FoundLattice, moving: FoundLattice, shift_px: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Positions of the same places in both pictures.

    Each lattice has its own count of rows and columns. The one that most neighbours agree on is taken.
    """
    from scipy.spatial import cKDTree

    distance, index = cKDTree(reference.positions).query(moving.positions + shift_px)
    near = distance < 0.5 * reference.lattice.step_px
    there = reference.lattice.places[index[near]].astype(np.int64)
    here = moving.lattice.places[near].astype(np.int64)
    best_votes, best = 0, (np.eye(2, dtype=np.int64), np.zeros(2, np.int64))
    for swap, signs in itertools.product((False, True), itertools.product((1, -1), repeat=2)):
        turn = np.diag(signs)[:, ::-1] if swap else np.diag(signs)
        offsets, votes = np.unique(there - here @ turn.T, axis=0, return_counts=True)
        if len(votes) and votes.max() > best_votes:
            best_votes, best = int(votes.max()), (turn, offsets[votes.argmax()])
    turn, offset = best
    places = {
        (int(c), int(r)): position
        for (c, r), position in zip(reference.lattice.places, reference.positions, strict=True)
    }
    moved = moving.lattice.places.astype(np.int64) @ turn.T + offset
    both = [
        (places[int(c), int(r)], position)
        for (c, r), position in zip(moved, moving.positions, strict=True)
        if (int(c), int(r)) in places
    ]
    pairs = np.array(both, np.float64).reshape(-1, 2, 2)
    return pairs[:, 0], pairs[:, 1]


def _warnings(found: Registration, moved: FloatArray, reference: FoundLattice, shape: tuple[int, ...]) -> list[str]:
    notes = []
    step = reference.lattice.step_px
    offset = np.median(found.reference - moved, axis=0)
    if np.hypot(*offset) > _AMBIGUOUS * step:
        notes.append(
            f"the channels lie {np.hypot(*offset):.1f} px apart, near half of the pitch of {step:.1f} px: the target "
            "looks the same one pitch further; tell the shift (shift_px), from a bead or the edge of the target"
        )
    region = found.transform.region
    covered = (region[2] - region[0]) * (region[3] - region[1]) / (shape[0] * shape[1])
    if covered < 0.5:
        notes.append(f"the target covers {100 * covered:.0f} % of the picture; beyond it the map is extrapolated")
    if found.held_out_px > max(0.15, 4 * reference.sigma_px):
        notes.append(
            f"points left out are missed by {found.held_out_px:.2f} px, far more than a point's precision: the target "
            "moved between the pictures, or they do not show the same part of it"
        )
    return notes
