"""Under which conditions a table was made: what its history tells, and what its columns tell where that is silent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from smlm_pb.camera import Camera
from smlm_pb.errors import TableError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations


@dataclass(frozen=True)
class TableConditions:
    """Conditions of a localization.

    Parameters
    ----------
    camera : Camera or None
        Camera; maps are known by their median only. None where the table does not tell.
    psf_sigma_px : float or None
        Width of the point-spread function, px: fitted by the refinement, given or estimated for the localization, or
        the median of the column ``psf_sigma_x``.
    frames : (int, int)
        First frame that was localized, and the one after the last.
    model : str or None
        Name of the model.
    model_sha256 : str
        Hash of its weights; empty where unknown.
    threshold : float or "auto"
        As it was asked for.
    threshold_used : float or None
        Smallest probability that was kept.
    refine : str
        Mode of the refinement.
    expected_per_found : float
        Molecules that are expected to be there per molecule found; 1 where the probabilities do not tell.
    """

    camera: Camera | None
    psf_sigma_px: float | None
    frames: tuple[int, int]
    model: str | None
    model_sha256: str
    threshold: float | str
    threshold_used: float | None
    refine: str
    expected_per_found: float

    @property
    def n_frames(self) -> int:
        """Frames that were looked at."""
        return self.frames[1] - self.frames[0]


def conditions_of(locs: Localizations) -> TableConditions:
    """Read the conditions out of a table's history and columns.

    Raises
    ------
    TableError
        When the table is linked: a row is then no localization of a single frame.
    """
    if "n_localizations" in locs:
        raise TableError(
            "The table is linked, and a row is no longer one molecule in one frame; give the table before."
        )
    step = locs.last_step("localize")
    known = step.get("conditions") or {}
    stored = known.get("camera")
    camera = Camera.from_dict(stored) if stored else None
    refinement = step.get("refinement") or {}
    width = refinement.get("psf_sigma_px") or known.get("psf_sigma_px") or _median_width(locs)
    expected = step.get("threshold") or {}
    kept = expected.get("molecules") or 0
    there = (expected.get("true") or 0.0) + (expected.get("missed") or 0.0)
    asked, model = step.get("asked") or {}, step.get("model") or {}
    return TableConditions(
        camera=camera,
        psf_sigma_px=None if width is None else float(width),
        frames=frames_of(locs),
        model=model.get("name"),
        model_sha256=str(model.get("sha256") or ""),
        threshold=asked.get("threshold", "auto"),
        threshold_used=expected.get("threshold"),
        refine=str(refinement.get("mode", "off")),
        expected_per_found=float(there / kept) if kept and there else 1.0,
    )


def frames_of(locs: Localizations) -> tuple[int, int]:
    """First frame that was localized, and the one after the last: what was asked for, or else the whole movie."""
    step = locs.last_step("localize")
    start, stop = (step.get("conditions") or {}).get("frames") or (0, locs.info.n_frames)
    return int(start), max(int(stop), locs.end_frame())


def _median_width(locs: Localizations) -> float | None:
    if "psf_sigma_x" not in locs or not len(locs):
        return None
    width = float(np.nanmedian(locs["psf_sigma_x"].astype(np.float64)))
    return width if np.isfinite(width) and width > 0 else None


def camera_of(locs: Localizations, **given: float | None) -> Camera | None:
    """The camera of a table's history, with the values that are given in its place.

    Parameters
    ----------
    locs : Localizations
        The table.
    **given : float or None
        ``offset_adu``, ``e_per_adu``, ``em_gain``, ``read_noise_e``; None where the history is to tell.

    Returns
    -------
    Camera or None
        None where the history does not tell the camera, and offset and gain are not both given.

    Raises
    ------
    CameraError
        When a value is impossible.
    """
    values = {name: value for name, value in given.items() if value is not None}
    known = conditions_of(locs).camera
    if known is None and not {"offset_adu", "e_per_adu"} <= set(values):
        return None
    return replace(known or Camera(), **values)  # type: ignore[arg-type]
