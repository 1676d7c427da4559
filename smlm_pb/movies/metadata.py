"""What a TIFF file says of the microscope: pixel size, exposure, camera."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from smlm_pb.pixel_size import is_plausible

if TYPE_CHECKING:
    from tifffile import TiffFile

_NM_PER_UNIT = {
    "nm": 1.0, "nanometer": 1.0, "nanometre": 1.0,
    "µm": 1e3, "μm": 1e3, "um": 1e3, "micron": 1e3, "microns": 1e3, "micrometer": 1e3, "micrometre": 1e3,
    "mm": 1e6, "millimeter": 1e6, "cm": 1e7, "centimeter": 1e7, "m": 1e9,
    "inch": 2.54e7, "in": 2.54e7, "å": 0.1, "pm": 1e-3,
}  # fmt: skip
_MS_PER_UNIT = {"s": 1e3, "ms": 1.0, "µs": 1e-3, "us": 1e-3, "min": 6e4, "ns": 1e-6}
_MICROMANAGER_TAG = 51123


def read_tiff_metadata(tif: TiffFile) -> tuple[float | None, dict[str, Any]]:
    """Gather what a TIFF file says of its acquisition.

    MicroManager's values come before OME's, those before ImageJ's, those before the plain resolution tags.

    Parameters
    ----------
    tif : tifffile.TiffFile
        An open file with at least one page.

    Returns
    -------
    pixel_size_nm : float or None
        None where the file says nothing, or nothing plausible (see :mod:`smlm_pb.pixel_size`).
    metadata : dict
        ``pixel_size_source``, ``exposure_ms``, ``frame_interval_ms``, ``camera`` (name and settings),
        ``notes``; only those that the file states.
    """
    found: list[tuple[str, float, float]] = []
    metadata: dict[str, Any] = {"notes": []}
    for reader in (_from_micromanager, _from_ome, _from_imagej, _from_resolution):
        pixel, more = reader(tif)
        if pixel is not None:
            found.append(pixel)
        metadata = {**more, **metadata, "notes": [*metadata["notes"], *more.get("notes", [])]}
    for source, x_nm, y_nm in found:
        if not is_plausible(x_nm):
            continue
        if abs(x_nm - y_nm) > 0.01 * x_nm:
            metadata["notes"].append(
                f"{source} states pixels of {x_nm:g}×{y_nm:g} nm: not square, so the pixel size is left open"
            )
            return None, metadata
        metadata["pixel_size_source"] = source
        return x_nm, metadata
    if found and found[0][0] != "the resolution tags":
        source, x_nm, _ = found[0]
        metadata["notes"].append(f"{source} states a pixel size of {x_nm:g} nm, which no microscope has: ignored")
    return None, metadata


_Found = tuple[tuple[str, float, float] | None, dict[str, Any]]


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        match = re.match(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)", value)
        value = match.group(1) if match else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 and number != float("inf") else None


def _unit_nm(unit: object) -> float | None:
    text = str(unit).replace("\\u00B5", "µ").replace("\\u00b5", "µ").strip().lower()
    return _NM_PER_UNIT.get(text)


def _pixel(source: str, x: Any, y: Any, unit_nm: float | None) -> tuple[str, float, float] | None:
    x_size, y_size = _number(x), _number(y)
    if x_size is None or unit_nm is None:
        return None
    return source, x_size * unit_nm, (x_size if y_size is None else y_size) * unit_nm


def _from_micromanager(tif: TiffFile) -> _Found:
    tag = tif.pages.first.tags.get(_MICROMANAGER_TAG)
    frame = tag.value if tag is not None else {}
    if isinstance(frame, (str, bytes)):
        try:
            frame = json.loads(frame)
        except ValueError:
            frame = {}
    if not isinstance(frame, Mapping):
        frame = {}
    whole = (tif.micromanager_metadata or {}) if tif.is_micromanager else {}
    summary = whole.get("Summary")
    if not isinstance(summary, Mapping):
        summary = {}
    if not frame and not summary:
        return None, {}
    size = _number(frame.get("PixelSizeUm")) or _number(summary.get("PixelSize_um"))
    more: dict[str, Any] = {}
    exposure = _number(frame.get("Exposure-ms"))
    if exposure is not None:
        more["exposure_ms"] = exposure
    interval = _number(summary.get("Interval_ms"))
    if interval is not None:
        more["frame_interval_ms"] = interval
    camera = frame.get("Camera") or frame.get("Core-Camera")
    if isinstance(camera, str) and camera:
        settings = {key[len(camera) + 1 :]: value for key, value in frame.items() if key.startswith(f"{camera}-")}
        more["camera"] = {"name": camera, **settings}
    return _pixel("MicroManager", size, size, 1e3), more


def _ome_root(tif: TiffFile) -> ElementTree.Element | None:
    """Parse the OME-XML in the first page's description, if there is one."""
    description = tif.pages.first.tags.get("ImageDescription")
    text = description.value if description is not None else ""
    if not isinstance(text, str) or "<OME" not in text[:4096]:
        return None
    return ElementTree.fromstring(text[text.index("<") :].rstrip("\0 \n"))


def ome_sizes(tif: TiffFile) -> dict[str, int]:
    """Read the lengths of the axes (keys T, Z, C, Y, X) that the OME-XML states; empty without OME-XML."""
    try:
        root = _ome_root(tif)
    except ElementTree.ParseError:
        return {}
    pixels = root.find(".//{*}Pixels") if root is not None else None
    if pixels is None:
        return {}
    return {axis: int(size) for axis in "TZCYX" if (size := pixels.get(f"Size{axis}", "")).isdecimal()}


def imagej_count(tif: TiffFile) -> int:
    """Count the images that ImageJ's header speaks of; 0 if there is no such header."""
    header = tif.imagej_metadata if tif.is_imagej else None
    try:
        return int((header or {}).get("images", 0))
    except (TypeError, ValueError):
        return 0


def _from_ome(tif: TiffFile) -> _Found:
    try:
        root = _ome_root(tif)
    except ElementTree.ParseError:
        return None, {"notes": ["the OME-XML header is damaged and was ignored"]}
    if root is None:
        return None, {}
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return None, {}
    unit = _unit_nm(pixels.get("PhysicalSizeXUnit", "µm"))
    pixel = _pixel("OME-XML", pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeY"), unit)
    more: dict[str, Any] = {}
    plane = pixels.find("{*}Plane[@ExposureTime]")
    if plane is not None:
        exposure = _number(plane.get("ExposureTime"))
        scale = _MS_PER_UNIT.get(plane.get("ExposureTimeUnit", "s"))
        if exposure is not None and scale is not None:
            more["exposure_ms"] = exposure * scale
    interval = _number(pixels.get("TimeIncrement"))
    scale = _MS_PER_UNIT.get(pixels.get("TimeIncrementUnit", "s"))
    if interval is not None and scale is not None:
        more["frame_interval_ms"] = interval * scale
    detector = root.find(".//{*}Detector")
    if detector is not None:
        more["camera"] = {
            {"Model": "name", "Gain": "gain", "Offset": "offset"}.get(key, key): value
            for key, value in detector.attrib.items()
            if key != "ID"
        }
    return pixel, more


def _from_imagej(tif: TiffFile) -> _Found:
    description = tif.imagej_metadata if tif.is_imagej else None
    if not description:
        return None, {}
    more: dict[str, Any] = {}
    interval = _number(description.get("finterval"))
    scale = _MS_PER_UNIT.get(str(description.get("tunit", "s")).strip().lower().removesuffix("ec"))
    if interval is not None and scale is not None:
        more["frame_interval_ms"] = interval * scale
    unit = _unit_nm(description.get("unit", ""))
    if unit is None:
        return None, more
    return _from_tags(tif, "ImageJ", unit), more


def _from_resolution(tif: TiffFile) -> _Found:
    if tif.is_imagej:  # ImageJ's resolution is in its own unit
        return None, {}
    tag = tif.pages.first.tags.get("ResolutionUnit")
    unit = {2: 2.54e7, 3: 1e7}.get(int(tag.value)) if tag is not None else None
    return (_from_tags(tif, "the resolution tags", unit) if unit is not None else None), {}


def _from_tags(tif: TiffFile, source: str, unit_nm: float) -> tuple[str, float, float] | None:
    """Turn the tags XResolution and YResolution (pixels per unit, as rationals) into a pixel size."""
    sizes: list[float] = []
    for name in ("XResolution", "YResolution"):
        tag = tif.pages.first.tags.get(name)
        try:
            pixels, units = tag.value if tag is not None else (0, 0)
            sizes.append(units / pixels)
        except (TypeError, ValueError, ZeroDivisionError):
            return None
    return _pixel(source, sizes[0], sizes[1], unit_nm)
