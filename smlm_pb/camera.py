"""The camera: from analogue-to-digital units (ADU) to photo-electrons and back.

All physics in this package is stated in photo-electrons (e⁻). A *photon* in our tables is a detected
photo-electron, as in Picasso; ThunderSTORM and DECODE additionally divide by the quantum efficiency.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import CameraError

FloatArray = npt.NDArray[np.floating[Any]]
#: A scalar, or one value per pixel ``(height, width)`` for sCMOS cameras.
ScalarOrMap = float | FloatArray

#: What sCMOS cameras have one value per pixel of.
_MAPS = ("offset_adu", "e_per_adu", "read_noise_e")


@dataclass(frozen=True)
class Camera:
    """A camera as its data sheet describes it.

    Parameters
    ----------
    offset_adu : float or array (height, width)
        Camera offset (baseline) in ADU.
    e_per_adu : float or array (height, width)
        Photo-electrons per ADU *before* electron multiplication (the field's "sensitivity").
    em_gain : float
        Electron-multiplication gain; 1 for CCD and sCMOS.
    read_noise_e : float or array (height, width)
        Standard deviation of the read noise in e⁻ at the output, before division by ``em_gain``.
    quantum_efficiency : float
        Photo-electrons per photon; used by the simulator only.
    bad_pixels : sequence of (int, int)
        Rows and columns of pixels that tell nothing of the light, such as hot ones: in photo-electrons they are what
        those around them suggest. The simulator does not know them.

    Raises
    ------
    CameraError
        When a value is impossible.
    """

    offset_adu: ScalarOrMap = 100.0
    e_per_adu: ScalarOrMap = 1.0
    em_gain: float = 1.0
    read_noise_e: ScalarOrMap = 1.6
    quantum_efficiency: float = 1.0
    estimated: tuple[str, ...] = field(default=(), compare=False)
    bad_pixels: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        rules = (
            ("offset_adu", lambda v: abs(v) < 1e9, "be finite and below 1e9", "use the mean of a dark movie, e.g. 100"),
            ("e_per_adu", lambda v: (v > 0) & (v < 1e9), "be > 0 and < 1e9", "use the data sheet's e⁻/ADU, e.g. 0.5"),
            ("em_gain", lambda v: (v >= 1) & (v < 1e6), "be ≥ 1 and < 1e6", "use 1 without electron multiplication"),
            ("read_noise_e", lambda v: np.isfinite(v) & (v >= 0), "be ≥ 0", "use the data sheet's e⁻, e.g. 1.6"),
            ("quantum_efficiency", lambda v: (v > 0) & (v <= 1), "lie in (0, 1]", "use the data sheet's value"),
        )
        for name, is_valid, rule, remedy in rules:
            value = getattr(self, name)
            shown = repr(value) if np.isscalar(value) or value is None else "map"
            try:
                if value is None or isinstance(value, str):  # numpy reads "0.5", but nobody can calculate with it
                    raise TypeError
                numbers = np.asarray(value, dtype=float)
            except (TypeError, ValueError):
                raise CameraError(f"Camera value {name} = {shown} is not a number: {remedy}.") from None
            if numbers.ndim not in ((0, 2) if name in _MAPS else (0,)):
                kind = "one number, or a map (height, width)" if name in _MAPS else "one number"
                raise CameraError(f"Camera value {name} has shape {numbers.shape}; it must be {kind}.")
            if not np.all(is_valid(numbers)):
                raise CameraError(f"Camera value {name} = {shown} must {rule}: {remedy}.")
            if isinstance(value, (list, tuple)):
                object.__setattr__(self, name, numbers)
        object.__setattr__(self, "bad_pixels", _checked_places(self.bad_pixels))

    @property
    def excess_noise_factor(self) -> float:
        """F², by which electron multiplication multiplies the photon-noise variance: 2 with it, 1 without."""
        return 2.0 if self.em_gain > 1 else 1.0

    @property
    def read_variance_e2(self) -> ScalarOrMap:
        """Read-noise variance referred to the photo-electrons before multiplication, in e⁻²."""
        return (self.read_noise_e / self.em_gain) ** 2

    def to_electrons(self, adu: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Convert ADU to photo-electrons.

        Parameters
        ----------
        adu : array (..., height, width)
            Raw camera values.

        Returns
        -------
        array (..., height, width), float32
            Photo-electrons; may be negative where the read noise is.

        Raises
        ------
        CameraError
            When a per-pixel map has another size than the frames.
        """
        self._check_maps(np.shape(adu))
        factor = np.asarray(self.e_per_adu, dtype=np.float32) / np.float32(self.em_gain)
        electrons = (np.asarray(adu, dtype=np.float32) - np.asarray(self.offset_adu, dtype=np.float32)) * factor
        if self.bad_pixels:
            from smlm_pb.bad_pixels import fill_in

            fill_in(electrons, np.array(self.bad_pixels))
        return electrons

    def digitize(
        self, expected_e: npt.ArrayLike, rng: np.random.Generator, *, dtype: npt.DTypeLike = np.uint16
    ) -> npt.NDArray[Any]:
        """Draw camera values for expected photo-electrons: photon noise, multiplication, read noise, rounding.

        Parameters
        ----------
        expected_e : array (..., height, width)
            Expected photo-electrons per pixel.
        rng : numpy.random.Generator
            Source of randomness.
        dtype : dtype
            Integer type of the camera; values are clipped to its range.

        Returns
        -------
        array (..., height, width) of ``dtype``
            Camera values in ADU.

        Raises
        ------
        CameraError
            When a per-pixel map has another size than the frames.
        """
        self._check_maps(np.shape(expected_e))
        electrons = rng.poisson(np.maximum(np.asarray(expected_e, dtype=np.float64), 0.0)).astype(np.float64)
        if self.em_gain > 1:
            # The multiplication register's output for n electrons is Gamma(n, gain) (Hirsch et al., 2013).
            electrons = np.where(electrons > 0, rng.gamma(np.maximum(electrons, 1e-9), self.em_gain), 0.0)
        electrons += rng.normal(0.0, 1.0, electrons.shape) * self.read_noise_e
        adu = np.rint(electrons / self.e_per_adu + self.offset_adu)
        limits = np.iinfo(np.dtype(dtype))
        return np.clip(adu, limits.min, limits.max).astype(dtype)

    def _check_maps(self, shape: tuple[int, ...]) -> None:
        for name in _MAPS:
            size = np.shape(getattr(self, name))
            if size and size != shape[-2:]:
                raise CameraError(
                    f"Camera map {name} is {size[0]}×{size[1]} pixels, the frames are"
                    f" {'×'.join(map(str, shape[-2:]))}: crop the map to the region of the chip that was read out."
                )
        if self.bad_pixels and not (np.array(self.bad_pixels) < shape[-2:]).all():
            raise CameraError(
                f"Camera value bad_pixels names places beyond the frames of {'×'.join(map(str, shape[-2:]))} pixels: "
                "count rows and columns from the first pixel that was read out."
            )

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Camera:
        """The camera of :meth:`as_dict`; maps may stand in it again.

        Raises
        ------
        CameraError
            When a value is impossible.
        """
        places = tuple((row, column) for row, column in plain.get("bad_pixels", ()))
        return cls(**{**plain, "estimated": tuple(plain.get("estimated", ())), "bad_pixels": places})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for provenance; maps are summarised by their median."""
        return {
            name: value
            if isinstance(value, (int, float))
            else (list(value) if isinstance(value, tuple) else float(np.median(value)))
            for name, value in asdict(self).items()
        }


def _checked_places(places: object) -> tuple[tuple[int, int], ...]:
    """Rows and columns as plain numbers; CameraError where they are none."""
    try:
        array = np.asarray(places, dtype=object).reshape(-1, 2)
        plain = tuple((operator.index(row), operator.index(column)) for row, column in array)
    except (TypeError, ValueError):
        plain = ((-1, -1),)
    if any(min(place) < 0 for place in plain):
        raise CameraError("Camera value bad_pixels must hold pairs of row and column, from 0 on, e.g. [(12, 200)].")
    return plain
