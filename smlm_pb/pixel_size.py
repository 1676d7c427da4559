"""Whether a pixel size can be one in the sample: asked of what a file states and of what a user gives."""

from __future__ import annotations

#: Of any localization microscope, nm. What lies outside (72 dpi = 352 778 nm, "1 px", 0.1 for µm) is no pixel size.
PLAUSIBLE_PIXEL_SIZE_NM = (10.0, 2000.0)


def is_plausible(pixel_size_nm: float) -> bool:
    """Whether a microscope can have such pixels."""
    low, high = PLAUSIBLE_PIXEL_SIZE_NM
    return low <= pixel_size_nm <= high


def tell_implausible(pixel_size_nm: float) -> list[str]:
    """What to tell users who gave a pixel size: one sentence without its end, none where the size is plausible."""
    if is_plausible(pixel_size_nm):
        return []
    low, high = PLAUSIBLE_PIXEL_SIZE_NM
    return [
        f"pixel_size_nm = {pixel_size_nm:g} was given, but pixels are {low:g} to {high:g} nm in the sample (0.1 µm is "
        "100)"
    ]
