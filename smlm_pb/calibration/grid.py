"""Pixel size and distortion from the picture of one target of known pitch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.calibration.boards import KINDS
from smlm_pb.calibration.detection import DEFAULT_THRESHOLD, GridPoints, find_points
from smlm_pb.calibration.lattice import Lattice, find_lattice
from smlm_pb.calibration.transform import Transform
from smlm_pb.calibration.transform_fit import fit_transform
from smlm_pb.errors import ConfigurationError, MovieError

FloatArray = npt.NDArray[np.float64]

_SHRINKS = (1, 2, 4)
#: A search that explains this share of its points, with so few gaps, needs no other.
_GOOD_SHARE, _GOOD_OCCUPANCY = 0.7, 0.8
_JACKKNIFE = 20


@dataclass(frozen=True)
class FoundLattice:
    """Points of a target with their places."""

    points: GridPoints
    lattice: Lattice
    shrink: int

    @property
    def positions(self) -> FloatArray:
        """Positions (n, 2) of the points on the lattice, px."""
        return self.points.positions[self.lattice.point]

    @property
    def sigma_px(self) -> float:
        """Typical stated precision of a point, px."""
        both = np.concatenate((self.points.sigma_x[self.lattice.point], self.points.sigma_y[self.lattice.point]))
        return float(np.sqrt(np.median(both**2)))


@dataclass(frozen=True)
class GridCalibration:
    """What a target tells of a microscope.

    Parameters
    ----------
    found : FoundLattice
        The points.
    shape : (int, int)
        Height and width of the picture.
    pitch_nm : float
        Distance of neighbouring points of the target.
    pixel_size_nm, pixel_size_error_nm : float
        Edge of a pixel in the middle of the picture (or where the target is nearest to it): geometric mean of x and y,
        and its standard error.
    pixel_size_x_nm, pixel_size_y_nm : float
        Along columns and rows.
    axes_angle_deg : float
        Angle between the camera's x and y on the target; 90 unless it is sheared.
    rotation_deg : float
        How the target lies in the picture.
    mirrored : bool
        Whether the picture is a mirror image of the target's places.
    undistort : Transform
        From the camera to a camera with this pixel size everywhere.
    residual : array (n, 2)
        What the map leaves unexplained of every point, px.
    used : bool array (n,)
        Points that took part in the fit.
    held_out_px : float
        Root mean square distance of points to maps fitted without them.
    distortion_px : float
        Largest displacement between the picture and one without distortion, at a point of the target.
    warnings : list of str
        What a user should know.
    """

    found: FoundLattice
    shape: tuple[int, int]
    pitch_nm: float
    pixel_size_nm: float
    pixel_size_error_nm: float
    pixel_size_x_nm: float
    pixel_size_y_nm: float
    axes_angle_deg: float
    rotation_deg: float
    mirrored: bool
    undistort: Transform
    residual: FloatArray
    used: npt.NDArray[np.bool_]
    held_out_px: float
    distortion_px: float
    warnings: list[str] = field(default_factory=list)

    @property
    def residual_px(self) -> float:
        """Root mean square residual per axis of the points that took part, px."""
        return float(np.sqrt(np.mean(self.residual[self.used] ** 2)))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        lattice = self.found.lattice
        return {
            "kind": self.found.points.kind,
            "pitch_nm": self.pitch_nm,
            "n_points": len(self.found.points),
            "n_on_lattice": len(lattice),
            "columns": int(lattice.column.max() + 1),
            "rows": int(lattice.row.max() + 1),
            "occupancy": lattice.occupancy,
            "pitch_px": lattice.step_px,
            "pixel_size_nm": self.pixel_size_nm,
            "pixel_size_error_nm": self.pixel_size_error_nm,
            "pixel_size_x_nm": self.pixel_size_x_nm,
            "pixel_size_y_nm": self.pixel_size_y_nm,
            "axes_angle_deg": self.axes_angle_deg,
            "rotation_deg": self.rotation_deg,
            "mirrored": self.mirrored,
            "order": self.undistort.order,
            "distortion_px": self.distortion_px,
            "distortion_nm": self.distortion_px * self.pixel_size_nm,
            "residual_px": self.residual_px,
            "residual_nm": self.residual_px * self.pixel_size_nm,
            "held_out_px": self.held_out_px,
            "stated_sigma_px": self.found.sigma_px,
            "warnings": self.warnings,
        }

    def table(self) -> str:
        """The findings as text."""
        d = self.as_dict()
        nm = self.pixel_size_nm
        lines = [
            f"target      {d['kind']}: {d['n_on_lattice']} points on {d['columns']} × {d['rows']} places, "
            f"{d['pitch_px']:.2f} px apart; {100 * d['occupancy']:.1f} % of the places between them found",
            f"pixel size  {nm:.3f} ± {self.pixel_size_error_nm:.3f} nm (x {self.pixel_size_x_nm:.3f}, "
            f"y {self.pixel_size_y_nm:.3f}), in the middle of the picture",
            f"axes        {self.axes_angle_deg:.3f}° to each other; target turned by {self.rotation_deg:.2f}°"
            + (", mirrored" if self.mirrored else ""),
            f"distortion  up to {self.distortion_px:.2f} px ({self.distortion_px * nm:.0f} nm); "
            f"polynomial of order {self.undistort.order}",
            f"residual    {self.residual_px:.3f} px ({self.residual_px * nm:.1f} nm) per axis; points left out "
            f"{self.held_out_px / math.sqrt(2):.3f} px; stated precision of a point {self.found.sigma_px:.3f} px",
        ]
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])


def search_lattice(
    image: npt.NDArray[Any],
    *,
    kind: str = "auto",
    threshold: float = DEFAULT_THRESHOLD,
    shrink: int | str = "auto",
    model: str | Path | None = None,
) -> FoundLattice:
    """Find a target in a picture: its kind, the size at which it is seen best, its points and their places.

    Parameters
    ----------
    image : array (height, width)
        The picture.
    kind : str
        ``checkerboard``, ``holes`` or ``auto``.
    threshold : float
        Smallest probability of a point.
    shrink : int or "auto"
        Factor by which the picture is made smaller before; ``"auto"`` tries 1, 2 and 4.
    model : path, optional
        See :func:`find_points`.

    Raises
    ------
    MovieError
        When there is no lattice, with the reason of the best attempt.
    """
    if kind != "auto" and kind not in KINDS:
        raise ConfigurationError(f"Unknown kind of target {kind!r}; choose auto or {', '.join(KINDS)}.")
    best: FoundLattice | None = None
    reason: MovieError | None = None
    for factor in _SHRINKS if shrink == "auto" else (int(shrink),):
        for one in KINDS if kind == "auto" else (kind,):
            try:
                points = find_points(image, kind=one, threshold=threshold, shrink=factor, model=model)
                found = FoundLattice(points, find_lattice(points.positions), factor)
            except MovieError as error:
                reason = reason or error
                continue
            # A smaller picture must find clearly more, because it is less precise.
            if best is None or _worth(found) > (1.15 if factor > best.shrink else 1.0) * _worth(best):
                best = found
        if best is not None and _is_good(best):
            break
    if best is None:
        assert reason is not None
        raise reason
    return best


def _worth(found: FoundLattice) -> float:
    share = len(found.lattice) / len(found.points)
    return len(found.lattice) * share * found.lattice.occupancy


def _is_good(found: FoundLattice) -> bool:
    share = len(found.lattice) / len(found.points)
    return share >= _GOOD_SHARE and found.lattice.occupancy >= _GOOD_OCCUPANCY


def calibrate_grid(
    image: npt.NDArray[Any],
    *,
    pitch_nm: float,
    kind: str = "auto",
    order: int | str = "auto",
    threshold: float = DEFAULT_THRESHOLD,
    shrink: int | str = "auto",
    pixel_size_nm: float | None = None,
    model: str | Path | None = None,
) -> GridCalibration:
    """Measure pixel size and distortion on the picture of a square grid.

    Parameters
    ----------
    image : array (height, width)
        Picture of the target; several frames are best averaged before.
    pitch_nm : float
        Side of a square of the checkerboard, or distance of neighbouring holes, in nm.
    kind : str
        ``checkerboard``, ``holes``, or ``auto``: what explains more of the picture.
    order : int or "auto"
        Order of the distortion, 1 to 5; ``"auto"``: the lowest of 1 to 3 that predicts points left out as well as any.
    threshold : float
        Smallest probability of a point.
    shrink : int or "auto"
        See :func:`search_lattice`.
    pixel_size_nm : float, optional
        What the microscope says, to be compared.
    model : path, optional
        See :func:`find_points`.

    Returns
    -------
    GridCalibration

    Raises
    ------
    MovieError
        When no lattice is found.
    ConfigurationError
        When an option is impossible.
    """
    if not (math.isfinite(pitch_nm) and pitch_nm > 0):
        raise ConfigurationError(f"pitch_nm = {pitch_nm} is impossible; give the pitch of the target in nm.")
    if order != "auto" and not 1 <= int(order) <= 5:
        raise ConfigurationError(f"order = {order} is impossible; give 1 (affine) to 5, or auto.")
    found = search_lattice(image, kind=kind, threshold=threshold, shrink=shrink, model=model)
    height, width = np.asarray(image).shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    positions, places = found.positions, found.lattice.places
    seen = fit_transform(places, positions, purpose="undistort", order=order)
    place = _place_of(seen.transform, middle, places, positions)
    jacobian = seen.transform.jacobian(place[None])[0]
    used = seen.used
    step_px, turn = _similarity(jacobian)
    anchor = seen.transform(place[None])[0]
    ideal = anchor + step_px * (places - place) @ turn.T
    undistort = fit_transform(positions[used], ideal[used], purpose="undistort", order=seen.transform.order)
    moved = undistort.transform(positions)
    size_x, size_y, angle = _pixel(jacobian, pitch_nm)
    size = pitch_nm / step_px
    error = _jackknife(places[used], positions[used], seen.transform.order, place, pitch_nm)
    facts = {"pitch_nm": pitch_nm, "pixel_size_nm": size, "points": int(used.sum()), "kind": found.points.kind}
    result = GridCalibration(
        found=found,
        shape=(height, width),
        pitch_nm=float(pitch_nm),
        pixel_size_nm=size,
        pixel_size_error_nm=error,
        pixel_size_x_nm=size_x,
        pixel_size_y_nm=size_y,
        axes_angle_deg=angle,
        rotation_deg=math.degrees(math.atan2(turn[1, 0], turn[0, 0])),
        mirrored=bool(np.linalg.det(jacobian) < 0),
        undistort=replace(undistort.transform, pixel_size_nm=size, height=height, width=width, facts=facts),
        residual=seen.residual,
        used=used,
        held_out_px=seen.held_out_px,
        distortion_px=float(np.hypot(*(moved - positions)[used].T).max()),
    )
    result.warnings.extend(_warnings(result, pixel_size_nm))
    return result


def _place_of(seen: Transform, middle: FloatArray, places: FloatArray, positions: FloatArray) -> FloatArray:
    """Place on the target that is seen at a position, or the nearest that the target covers."""
    nearest = int(np.argmin(np.hypot(*(positions - middle).T)))
    place = places[nearest].copy()
    for _ in range(10):
        step = np.linalg.solve(seen.jacobian(place[None])[0], middle - seen(place[None])[0])
        place = np.clip(place + step, places.min(0), places.max(0))
    return np.asarray(place)


def _similarity(jacobian: FloatArray) -> tuple[float, FloatArray]:
    """Size and orientation (polar decomposition) of a linear map; a mirror image stays one."""
    u, _, vt = np.linalg.svd(jacobian)
    return math.sqrt(abs(float(np.linalg.det(jacobian)))), u @ vt


def _pixel(jacobian: FloatArray, pitch_nm: float) -> tuple[float, float, float]:
    """Edges of a pixel on the target along x and y in nm, and the angle between them in degrees."""
    to_nm = pitch_nm * np.linalg.inv(jacobian)
    along_x, along_y = to_nm[:, 0], to_nm[:, 1]
    lengths = float(np.hypot(*along_x)), float(np.hypot(*along_y))
    cosine = float(np.clip(along_x @ along_y / (lengths[0] * lengths[1]), -1, 1))
    return lengths[0], lengths[1], math.degrees(math.acos(cosine))


def _jackknife(places: FloatArray, positions: FloatArray, order: int, place: FloatArray, pitch_nm: float) -> float:
    """Standard error of the pixel size, leaving out one twentieth of the points at a time."""
    n = min(_JACKKNIFE, len(places) // 2)
    part = np.random.default_rng(0).permutation(len(places)) % n
    sizes = []
    for k in range(n):
        kept = part != k
        again = fit_transform(places[kept], positions[kept], purpose="undistort", order=order)
        sizes.append(pitch_nm / _similarity(again.transform.jacobian(place[None])[0])[0])
    return float(np.sqrt((n - 1) * np.var(sizes)))


def _warnings(found: GridCalibration, told_nm: float | None) -> list[str]:
    lattice, notes = found.found.lattice, []
    size = found.pixel_size_nm
    if told_nm is not None and abs(size / told_nm - 1) > max(0.005, 3 * found.pixel_size_error_nm / size):
        notes.append(
            f"the pixel size differs by {100 * (size / told_nm - 1):+.1f} % from the {told_nm:g} nm that were told: "
            "check the pitch of the target and the magnification"
        )
    if abs(found.pixel_size_x_nm / found.pixel_size_y_nm - 1) > 0.005:
        notes.append(
            f"pixels are {100 * (found.pixel_size_x_nm / found.pixel_size_y_nm - 1):+.2f} % longer along x than y: "
            "a tilted target looks like that, and a camera that is not square"
        )
    if lattice.occupancy < 0.9:
        notes.append(
            f"{100 * (1 - lattice.occupancy):.0f} % of the places between points that were found are empty: dim, "
            "blurred or missing points"
        )
    if found.residual_px > max(3 * found.found.sigma_px, 0.1):
        notes.append(
            f"the residual of {found.residual_px:.2f} px is far above the precision of a point: the target is not "
            "regular, or the distortion is of higher order than was fitted"
        )
    height, width = found.shape
    region = found.undistort.region
    covered = (region[2] - region[0]) * (region[3] - region[1]) / (height * width)
    if covered < 0.5:
        notes.append(
            f"the target covers {100 * covered:.0f} % of the picture; beyond it the distortion is extrapolated"
        )
    return notes
