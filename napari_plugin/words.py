"""The library's messages in the words of the panel."""

from __future__ import annotations

import re

#: The library names options as the command line and Python do; the panel has rows.
_ROWS = {
    "pixel_size_nm": "Pixel size",
    "offset_adu": "Offset",
    "e_per_adu": "e⁻ per ADU",
    "em_gain": "EM gain",
    "psf_sigma_px": "PSF width",
    "frames": "Frames",
}
_OPTION = re.compile(r"--(" + "|".join(name.replace("_", "-") for name in _ROWS) + r")\b")
_NAME = re.compile(r"\b(" + "|".join(name for name in _ROWS if "_" in name) + r")\b")


def in_panel_words(message: str) -> str:
    """Replace names of options by the labels of the panel's rows.

    Parameters
    ----------
    message : str
        A warning or an error of the library.

    Examples
    --------
    >>> in_panel_words("assumed to be 1.2 px: give --psf-sigma-px.")
    'assumed to be 1.2 px: give PSF width.'
    """
    message = _OPTION.sub(lambda match: _ROWS[match[1].replace("-", "_")], message)
    return _NAME.sub(lambda match: _ROWS[match[1]], message)
