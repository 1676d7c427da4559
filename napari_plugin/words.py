"""The library's messages in the words of the panel."""

from __future__ import annotations

import re

#: The library names the arguments of its functions; the panel has rows.
_ROWS = {
    "pixel_size_nm": "Pixel size",
    "offset_adu": "Offset",
    "e_per_adu": "e⁻ per ADU",
    "em_gain": "EM gain",
    "psf_sigma_px": "PSF width",
}
_NAME = re.compile(r"(?<![\w./\\-])(?:" + "|".join(_ROWS) + r")(?![\w/\\])")
#: A training is a command of its own, and speaks of its options.
_OPTION = re.compile(r"--(" + "|".join(name.replace("_", "-") for name in _ROWS) + r")\b")
#: What only Python or the command has, and where the panel has it.
_PLACES = {"smlm_pb.training.propose_like": "tab Train", "smlm-pb train --like": "tab Train"}


def in_panel_words(message: str) -> str:
    """Put the labels of the panel's rows where a message speaks of arguments.

    Parameters
    ----------
    message : str
        A warning or an error of the library.

    Examples
    --------
    >>> in_panel_words("assumed to be 1.2 px: give psf_sigma_px.")
    'assumed to be 1.2 px: give PSF width.'
    """
    for elsewhere, here in _PLACES.items():
        message = message.replace(elsewhere, here)
    message = _OPTION.sub(lambda match: _ROWS[match[1].replace("-", "_")], message)
    return _NAME.sub(lambda match: _ROWS[match[0]], message)
