"""What a run is asked for, and under which conditions it really runs: given, read from the file, or estimated."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field, fields, replace
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.camera import Camera
from smlm_pb.errors import ConfigurationError
from smlm_pb.localization.candidates import DEFAULT_FLOOR
from smlm_pb.localization.precision import check_name
from smlm_pb.localization.threshold import check_threshold
from smlm_pb.population import Population
from smlm_pb.refinement import check_mode

if TYPE_CHECKING:
    from smlm_pb.movies import Movie

#: Where a value comes from.
GIVEN, FROM_FILE, ESTIMATED, ASSUMED = "given", "from the file", "estimated", "assumed"
#: What is done unless something else is asked for; ``auto`` costs time and adds columns.
DEFAULT_REFINE = "off"
#: Camera values that can be given one by one.
CAMERA_VALUES = ("offset_adu", "e_per_adu", "em_gain", "read_noise_e")


@dataclass(frozen=True)
class JobSettings:
    """What the user asked for; what is None is found out.

    Parameters
    ----------
    camera : Camera, optional
        The whole camera, also with maps; the single values below replace its own.
    pixel_size_nm : float, optional
        Edge of a camera pixel in the sample, nm.
    offset_adu, e_per_adu, em_gain, read_noise_e : float, optional
        See :class:`smlm_pb.camera.Camera`.
    psf_sigma_px : float, optional
        Width of the point-spread function, px.
    threshold : float or "auto"
        Smallest probability that is kept.
    frames : (int, int or None), optional
        First frame and the one after the last.
    floor : float
        Smallest probability of a candidate that is considered at all.
    refine : {"off", "auto", "on"}
        Whether molecules are refined by likelihood; see :func:`smlm_pb.refinement.refine`.
    precision : {"auto", "float32", "bfloat16", "int8"}
        Arithmetic of the network; see :func:`smlm_pb.localization.precision.choose_precision`.

    Raises
    ------
    ConfigurationError, CameraError
        When a value is impossible.
    """

    camera: Camera | None = None
    pixel_size_nm: float | None = None
    offset_adu: float | None = None
    e_per_adu: float | None = None
    em_gain: float | None = None
    read_noise_e: float | None = None
    psf_sigma_px: float | None = None
    threshold: float | str = "auto"
    frames: tuple[int, int | None] | None = None
    floor: float = DEFAULT_FLOOR
    refine: str = DEFAULT_REFINE
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.camera is not None and not isinstance(self.camera, Camera):
            raise ConfigurationError(f"camera is a {type(self.camera).__name__}: give a smlm_pb.Camera.")
        replace(self.camera or Camera(), **self.given_camera_values)  # refuses what no camera can have
        for name, example in (("pixel_size_nm", 100), ("psf_sigma_px", 1.2)):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{name} = {value!r} must be a number > 0, e.g. {example}.")
        if not (_is_number(self.floor) and 0 < self.floor < 1):
            raise ConfigurationError(f"floor = {self.floor!r} must lie between 0 and 1, e.g. {DEFAULT_FLOOR:g}.")
        threshold = check_threshold(self.threshold)
        if threshold is not None:
            object.__setattr__(self, "threshold", threshold)
            # What is asked for is listed; at 0 that would be every candidate of every pixel.
            object.__setattr__(self, "floor", max(min(self.floor, threshold), 1e-4))
        check_mode(self.refine)
        check_name(self.precision)
        if self.frames is not None:
            object.__setattr__(self, "frames", _checked_frames(self.frames))

    @property
    def given_camera_values(self) -> dict[str, Any]:
        """The camera values that were given one by one."""
        return {name: value for name in CAMERA_VALUES if (value := getattr(self, name)) is not None}

    def as_dict(self) -> dict[str, Any]:
        """Plain values; equal for equal settings, also where the camera has maps."""
        plain: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["frames"] = None if self.frames is None else list(self.frames)
        plain["camera"] = None if self.camera is None else _camera_identity(self.camera)
        return plain


@dataclass(frozen=True)
class Conditions:
    """Everything that a run needs to know of a movie.

    Parameters
    ----------
    camera : Camera
        Turns ADU into photo-electrons.
    pixel_size_nm : float or None
        Edge of a camera pixel, nm; None where nobody knows it.
    psf_sigma_px : float
        Width of the point-spread function, px.
    background_e : float
        Typical background, e⁻ per pixel.
    frames : (int, int)
        First frame and the one after the last.
    origin : dict
        For every value whether it was given, read from the file, estimated or assumed.
    warnings : tuple of str
        What the user should know, one sentence each.
    least_significance : float
        How significant the light of a lone molecule must be, standard deviations of the noise; 0 where every candidate
        above the threshold is asked for. See :mod:`smlm_pb.localization.significance`.
    precision : str
        Arithmetic of the network.
    population : Population or None
        What the network is told of the movie's molecules; None where too few were found in the sample, or where the
        network has no use for it.
    """

    camera: Camera
    pixel_size_nm: float | None
    psf_sigma_px: float
    background_e: float
    frames: tuple[int, int]
    origin: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    least_significance: float = 0.0
    precision: str = "float32"
    population: Population | None = None

    @property
    def n_frames(self) -> int:
        """Frames to look at."""
        return self.frames[1] - self.frames[0]

    def describe(self) -> str:
        """One line for people: every value and where it comes from."""
        camera = self.camera
        values = {
            "pixel_size_nm": "pixel size unknown"
            if self.pixel_size_nm is None
            else f"{self.pixel_size_nm:g} nm pixels",
            "offset_adu": f"offset {np.median(camera.offset_adu):.4g} ADU",
            "e_per_adu": f"{np.median(camera.e_per_adu):.3g} e⁻/ADU",
            "em_gain": f"EM gain {camera.em_gain:g}",
            "psf_sigma_px": f"PSF {self.psf_sigma_px:.3g} px",
            "background_e": f"background {self.background_e:.3g} e⁻/px",
        }
        if self.origin.get("read_noise_e") in (GIVEN, ESTIMATED):
            values["read_noise_e"] = f"read noise {np.median(camera.read_noise_e):.3g} e⁻"
        told = [f"{text} ({self.origin[name]})" if name in self.origin else text for name, text in values.items()]
        return ", ".join(told)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; camera maps are summarised by their median."""
        return {**asdict(replace(self, camera=Camera())), "camera": self.camera.as_dict()}

    @classmethod
    def restore(cls, stored: dict[str, Any], settings: JobSettings) -> Conditions:
        """The conditions of an interrupted run, to the last digit.

        Parameters
        ----------
        stored : dict
            From :meth:`as_dict`.
        settings : JobSettings
            The same that the run was started with; its camera's maps are taken as they are.
        """
        camera = dict(stored["camera"])
        for name in camera:
            if settings.camera is not None and np.ndim(getattr(settings.camera, name)) == 2:
                camera[name] = getattr(settings.camera, name)
        camera |= settings.given_camera_values
        population = stored.get("population")
        plain = {
            **stored,
            "frames": tuple(stored["frames"]),
            "warnings": tuple(stored["warnings"]),
            "population": Population(**population) if population else None,
        }
        return cls(**{**plain, "camera": Camera.from_dict(camera)})


def frame_range(frames: tuple[int, int | None] | None, movie: Movie) -> tuple[tuple[int, int], list[str]]:
    """The frames of a movie that were asked for.

    Returns
    -------
    (int, int)
        First frame and the one after the last.
    list of str
        A warning when the movie has fewer.

    Raises
    ------
    ConfigurationError
        When the movie has none of them.
    """
    start, stop = frames or (0, None)
    if start >= movie.n_frames:
        raise ConfigurationError(
            f"Movie {movie.name} has {movie.n_frames} frames, counted from 0: it has no frame {start}; correct frames."
        )
    if stop is None or stop <= movie.n_frames:
        return (start, movie.n_frames if stop is None else stop), []
    return (start, movie.n_frames), [
        f"Movie {movie.name}: frames up to {stop} were asked for, it has {movie.n_frames}: all of them are used."
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _checked_frames(frames: Any) -> tuple[int, int | None]:
    try:
        start, stop = frames
        start, stop = index(start or 0), None if stop is None else index(stop)
    except (TypeError, ValueError):
        raise ConfigurationError(f"frames = {frames!r} must be (first, last + 1), e.g. (0, 1000).") from None
    if start < 0 or (stop is not None and stop <= start):
        raise ConfigurationError(f"frames = {frames!r} must satisfy 0 ≤ first < last + 1, e.g. (0, 1000).")
    return start, stop


def _camera_identity(camera: Camera) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if np.ndim(value) == 2:
            array = np.ascontiguousarray(value, dtype="<f8")
            return f"map {hashlib.blake2b(array.tobytes(), digest_size=8).hexdigest()}"
        return list(value) if isinstance(value, tuple) else float(value)

    return {f.name: plain(getattr(camera, f.name)) for f in fields(camera)}
