"""Pictures of targets from files, and what was measured into a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import OutputError

if TYPE_CHECKING:
    from smlm_pb.calibration.grid import GridCalibration
    from smlm_pb.calibration.registration import Registration

#: Frames of a movie of a target that are averaged at most.
_MOST_FRAMES = 200
GRID_FILES = ("grid.json", "points.csv", "undistort.json", "grid.png")
REGISTER_FILES = ("register.json", "transform.json", "pairs.csv", "register.png")


def read_picture(path: str | os.PathLike[str]) -> tuple[npt.NDArray[np.float64], float | None]:
    """Read the picture of a target; the frames of a movie are averaged.

    Returns
    -------
    picture : array (height, width)
        Mean of the first frames, at most 200.
    pixel_size_nm : float or None
        What the file says.

    Raises
    ------
    MovieError
        When it cannot be read.
    """
    from smlm_pb.movies import open_movie

    movie = open_movie(path)
    try:
        last = min(movie.n_frames, _MOST_FRAMES)
        total = np.zeros((movie.height, movie.width))
        for start in range(0, last, 20):
            total += movie.read(start, min(start + 20, last)).astype(np.float64).sum(0)
        return total / last, movie.pixel_size_nm
    finally:
        movie.close()


def prepare_folder(folder: Path, names: tuple[str, ...], overwrite: bool) -> None:
    """Refuse, before any work, a folder that holds such results or cannot be made.

    Raises
    ------
    OutputError
        With what to do about it.
    """
    taken = [name for name in names if (folder / name).exists()]
    if taken and not overwrite:
        raise OutputError(
            f"{folder} already holds {', '.join(taken)}: choose another folder, or allow overwriting (overwrite=True)."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Folder {folder} cannot be made ({error.strerror}): choose another one.") from error


def save_grid(found: GridCalibration, image: npt.NDArray[Any], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write findings, points, the map that undoes the distortion, and a picture."""
    from smlm_pb.analysis.figures import save_figure
    from smlm_pb.calibration.figures import grid_figure

    prepare_folder(folder, GRID_FILES, overwrite)
    findings, points, undistort, picture = (folder / name for name in GRID_FILES)
    lattice, p = found.found.lattice, found.found.points
    rows = np.column_stack(
        (
            lattice.column,
            lattice.row,
            found.found.positions,
            p.sigma_x[lattice.point],
            p.sigma_y[lattice.point],
            p.probability[lattice.point],
            found.residual,
            found.used,
        )
    )
    header = "column,row,x,y,sigma_x,sigma_y,probability,residual_x,residual_y,used"
    _write_csv(points, header, rows, overwrite)
    _write_json(findings, found.as_dict(), overwrite)
    found.undistort.save(undistort, overwrite=overwrite)
    save_figure(grid_figure(found, image), picture, overwrite=overwrite)
    return [findings, points, undistort, picture]


def save_registration(
    found: Registration,
    reference: npt.NDArray[Any],
    moving: npt.NDArray[Any],
    folder: Path,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write findings, the map, the pairs of points, and a picture."""
    from smlm_pb.analysis.figures import save_figure
    from smlm_pb.calibration.figures import registration_figure

    prepare_folder(folder, REGISTER_FILES, overwrite)
    findings, transform, pairs, picture = (folder / name for name in REGISTER_FILES)
    rows = np.column_stack((found.moving, found.reference, found.residual, found.used))
    _write_csv(pairs, "moving_x,moving_y,reference_x,reference_y,residual_x,residual_y,used", rows, overwrite)
    _write_json(findings, found.as_dict(), overwrite)
    found.transform.save(transform, overwrite=overwrite)
    save_figure(registration_figure(found, reference, moving), picture, overwrite=overwrite)
    return [findings, transform, pairs, picture]


def _write_json(path: Path, content: dict[str, Any], overwrite: bool) -> None:
    from smlm_pb.formats.output import written_whole

    with written_whole(path, overwrite) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_csv(path: Path, header: str, rows: npt.NDArray[Any], overwrite: bool) -> None:
    from smlm_pb.formats.output import written_whole

    with written_whole(path, overwrite) as temporary:
        np.savetxt(temporary, rows, fmt="%.6g", delimiter=",", header=header, comments="")
