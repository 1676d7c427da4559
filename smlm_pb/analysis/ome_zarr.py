"""Rendered images as OME-Zarr: a pyramid of ever coarser images in small pieces, for pictures too large for a PNG.

OME-NGFF 0.4 on Zarr 2, which napari, Fiji (MoBIE, N5), QuPath and BioFormats read (Moore et al., Histochemistry and
Cell Biology 160, 223, 2023).
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb._version import __version__
from smlm_pb.errors import OutputError
from smlm_pb.formats.output import clear_errors, partial_path

FloatImage = npt.NDArray[np.float32]

CHUNK_PX = 512
#: The coarsest image is no longer than this.
COARSEST_PX = 512


def check_folder(path: Path, overwrite: bool) -> None:
    """Refuse a target that exists or lies in a folder that does not; anything but an OME-Zarr is never replaced.

    Raises
    ------
    OutputError
        With what to do about it.
    """
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist; create it first.")
    if not path.exists():
        return
    if not overwrite:
        raise OutputError(f"{path} exists already; choose another name or allow overwriting (overwrite=True).")
    if not (path / ".zgroup").is_file():
        raise OutputError(f"{path} exists and is no OME-Zarr; choose another name.")


def write_pyramid(
    values: FloatImage,
    path: Path,
    *,
    pixel_size_nm: float | None,
    origin_nm: tuple[float, float] = (0.0, 0.0),
    full: float = 1.0,
    name: str = "",
    overwrite: bool = False,
) -> None:
    """Write an image and its coarser versions.

    Parameters
    ----------
    values : float32 array (height, width) or (height, width, 3)
        The image.
    path : Path
        Folder to write, ``.ome.zarr``.
    pixel_size_nm : float or None
        Edge of a pixel; without it lengths are in pixels.
    origin_nm : (y, x)
        Place of the centre of the first pixel.
    full : float
        Value that viewers draw at full brightness.
    name : str
        Name of the image.
    overwrite : bool
        Whether an OME-Zarr of this name may be replaced.

    Raises
    ------
    OutputError
        When the target is refused, cannot be written, or the package zarr is missing.
    """
    try:
        import zarr
    except ImportError:
        raise OutputError(f"{path} needs the package zarr: install it with 'pip install smlm-pb[zarr]'.") from None
    check_folder(path, overwrite)
    temporary = partial_path(path)
    shutil.rmtree(temporary, ignore_errors=True)
    level = values if values.ndim == 2 else np.ascontiguousarray(np.moveaxis(values, 2, 0))
    try:
        with clear_errors(path):
            shapes: list[tuple[int, ...]] = []
            while True:
                _write_level(zarr, temporary / str(len(shapes)), level)
                shapes.append(level.shape)
                if max(level.shape[-2:]) <= COARSEST_PX:
                    break
                level = halve(level)
            _write_json(temporary / ".zgroup", {"zarr_format": 2})
            _write_json(temporary / ".zattrs", _attributes(shapes, pixel_size_nm, origin_nm, full, name))
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(temporary)
        raise


def halve(image: FloatImage) -> FloatImage:
    """Mean of every two by two pixels (last two axes); a last row or column without a partner counts twice."""
    height, width = image.shape[-2:]
    padding = [(0, 0)] * (image.ndim - 2) + [(0, height % 2), (0, width % 2)]
    even = np.pad(image, padding, mode="edge") if height % 2 or width % 2 else image
    rows = even[..., 0::2, :] + even[..., 1::2, :]
    return np.asarray((rows[..., 0::2] + rows[..., 1::2]) * np.float32(0.25), np.float32)


def _write_level(zarr: Any, folder: Path, image: FloatImage) -> None:
    from numcodecs import Blosc  # type: ignore[import-untyped]

    chunks = (1,) * (image.ndim - 2) + tuple(min(CHUNK_PX, n) for n in image.shape[-2:])
    options = {"mode": "w", "shape": image.shape, "chunks": chunks, "dtype": "<f4", "dimension_separator": "/"}
    options["compressor"] = Blosc(cname="lz4", clevel=5)
    version = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {"zarr_version": 2}
    array = zarr.open_array(str(folder), **options, **version)
    array[...] = image


def _attributes(
    shapes: list[tuple[int, ...]],
    pixel_size_nm: float | None,
    origin_nm: tuple[float, float],
    full: float,
    name: str,
) -> dict[str, Any]:
    """The metadata of OME-NGFF 0.4; lengths in µm."""
    n_channels = 1 if len(shapes[0]) == 2 else 3
    channel = [] if n_channels == 1 else [{"name": "c", "type": "channel"}]
    unit = {} if pixel_size_nm is None else {"unit": "micrometer"}
    step = 1.0 if pixel_size_nm is None else pixel_size_nm / 1000
    lead = [1.0] * len(channel), [0.0] * len(channel)
    datasets = []
    for k in range(len(shapes)):
        # The centre of the first pixel moves inwards as pixels grow.
        inwards = 0.5 * (2**k - 1) * step
        place = [origin / 1000 + inwards if unit else inwards for origin in origin_nm]
        datasets.append(
            {
                "path": str(k),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*lead[0], step * 2**k, step * 2**k]},
                    {"type": "translation", "translation": [*lead[1], *place]},
                ],
            }
        )
    axes = [*channel, *({"name": axis, "type": "space", **unit} for axis in "yx")]
    window = {"start": 0.0, "end": full, "min": 0.0, "max": full}
    colours = ("FFFFFF",) if n_channels == 1 else ("FF0000", "00FF00", "0000FF")
    labels = ("molecules per pixel",) if n_channels == 1 else ("red", "green", "blue")
    return {
        "multiscales": [{"version": "0.4", "name": name, "axes": axes, "datasets": datasets, "type": "mean"}],
        "omero": {
            "channels": [
                {"label": label, "color": colour, "active": True, "window": window}
                for label, colour in zip(labels, colours, strict=True)
            ]
        },
        "smlm-pb": {"version": __version__},
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    import json

    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
