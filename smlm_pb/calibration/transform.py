"""Polynomial maps of the plane, as a file, and applied to a table.

A map takes positions of one picture to those of another: from the camera to a camera without distortion, or from one
colour channel to the other. It is a polynomial in the normalised position; order 1 is affine.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]

_FORMAT = "smlm-pb transform 1"
#: What a map is for: undo distortion, or bring one channel onto another.
PURPOSES = ("undistort", "register")


def exponents(order: int) -> list[tuple[int, int]]:
    """Powers of x and y of every term up to an order."""
    return [(total - j, j) for total in range(order + 1) for j in range(total + 1)]


@dataclass(frozen=True)
class Transform:
    """A polynomial map from positions in one picture to positions in another, both in px.

    Parameters
    ----------
    purpose : str
        One of :data:`PURPOSES`.
    order : int
        Order of the polynomial; 1 is affine.
    coefficients : array (2, terms)
        For x and y, in the order of :func:`exponents`.
    centre, scale : array (2,), float
        The position is normalised to ``(position - centre) / scale``.
    region : tuple of float
        Where it was measured: smallest x, smallest y, largest x, largest y, px.
    pixel_size_nm : float, optional
        Pixel size after the map.
    height, width : int, optional
        Size of the picture after the map.
    facts : dict
        What was measured: residual, number of points, sources.
    """

    purpose: str
    order: int
    coefficients: FloatArray
    centre: FloatArray
    scale: float
    region: tuple[float, float, float, float]
    pixel_size_nm: float | None = None
    height: int | None = None
    width: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, positions: FloatArray) -> FloatArray:
        """Map positions (n, 2) as (x, y)."""
        return np.asarray(terms(positions, self.order, self.centre, self.scale) @ self.coefficients.T)

    def jacobian(self, positions: FloatArray) -> FloatArray:
        """Derivatives (n, 2, 2): of the new x and y by the old x and y."""
        u = (positions - self.centre) / self.scale
        along_x, along_y = [], []
        for i, j in exponents(self.order):
            along_x.append(i * u[:, 0] ** max(i - 1, 0) * u[:, 1] ** j)
            along_y.append(j * u[:, 0] ** i * u[:, 1] ** max(j - 1, 0))
        by = [np.stack(part, axis=1) @ self.coefficients.T / self.scale for part in (along_x, along_y)]
        return np.stack(by, axis=2)

    def outside(self, positions: FloatArray) -> npt.NDArray[np.bool_]:
        """Positions beyond the region in which the map was measured."""
        low, high = np.array(self.region[:2]), np.array(self.region[2:])
        return np.asarray(((positions < low) | (positions > high)).any(1))

    def apply(self, locs: Localizations, *, drop_outside: bool = False) -> tuple[Localizations, int]:
        """Move the molecules of a table.

        Parameters
        ----------
        locs : Localizations
            Positions, and precisions where it has them, in px of the picture that the map starts from.
        drop_outside : bool
            Whether to leave out molecules beyond the region in which the map was measured.

        Returns
        -------
        locs : Localizations
            Positions and precisions moved; pixel size and frame size are those after the map, where it knows them.
        n_outside : int
            Molecules beyond the region.
        """
        from smlm_pb.localizations import MovieInfo

        positions = np.stack((locs["x"], locs["y"]), axis=1).astype(np.float64)
        outside = self.outside(positions)
        moved = self(positions)
        columns: dict[str, Any] = {"x": moved[:, 0], "y": moved[:, 1]}
        if "sigma_x" in locs and "sigma_y" in locs:
            variance = np.stack((locs["sigma_x"], locs["sigma_y"]), axis=1).astype(np.float64) ** 2
            sigma = np.sqrt(np.einsum("nij,nj->ni", self.jacobian(positions) ** 2, variance))
            columns |= {"sigma_x": sigma[:, 0], "sigma_y": sigma[:, 1]}
        info = MovieInfo(
            locs.info.n_frames,
            self.height or locs.info.height,
            self.width or locs.info.width,
            self.pixel_size_nm or locs.info.pixel_size_nm,
            locs.info.name,
        )
        step = {"step": f"calibrate apply ({self.purpose})", "outside": int(outside.sum()), "facts": self.facts}
        result = locs.with_columns(**columns).with_info(info).with_provenance(step)
        return (result.select(~outside) if drop_outside else result), int(outside.sum())

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the map as JSON.

        Raises
        ------
        OutputError
            When the file exists or cannot be written.
        """
        from smlm_pb.formats.output import written_whole

        content = {
            "format": _FORMAT,
            "purpose": self.purpose,
            "order": self.order,
            "terms": [f"x^{i} y^{j}" for i, j in exponents(self.order)],
            "coefficients_x": self.coefficients[0].tolist(),
            "coefficients_y": self.coefficients[1].tolist(),
            "centre": self.centre.tolist(),
            "scale": self.scale,
            "region": list(self.region),
            "pixel_size_nm": self.pixel_size_nm,
            "height": self.height,
            "width": self.width,
            "facts": self.facts,
        }
        with written_whole(Path(path), overwrite) as temporary:
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Transform:
        """Read a map.

        Raises
        ------
        ConfigurationError
            When the file is none.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT or content["purpose"] not in PURPOSES:
                raise ValueError("another format")
            coefficients = np.array([content["coefficients_x"], content["coefficients_y"]], np.float64)
            if coefficients.shape != (2, len(exponents(int(content["order"])))) or not np.isfinite(coefficients).all():
                raise ValueError("coefficients that do not fit its order")
            return cls(
                content["purpose"],
                int(content["order"]),
                coefficients,
                np.array(content["centre"], np.float64),
                float(content["scale"]),
                tuple(float(v) for v in content["region"]),  # type: ignore[arg-type]
                content["pixel_size_nm"],
                content["height"],
                content["width"],
                content["facts"],
            )
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read ({error.strerror}): check the path.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{path} is no transform of smlm-pb ({error}): give the .json that 'smlm-pb calibrate' wrote."
            ) from None


def terms(positions: FloatArray, order: int, centre: FloatArray, scale: float) -> FloatArray:
    """Every term of the polynomial at positions (n, 2): (n, terms)."""
    u = (positions - centre) / scale
    return np.stack([u[:, 0] ** i * u[:, 1] ** j for i, j in exponents(order)], axis=1)
