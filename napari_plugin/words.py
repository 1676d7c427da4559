"""The library's messages in the words of the panel."""

from __future__ import annotations

import re

#: The library names the arguments of its functions; the panel has rows.
_ROWS = {
    "pixel_size_nm": "Pixel size",
    "offset_adu": "Offset",
    "e_per_adu": "e⁻ per ADU",
    "em_gain": "EM gain",
    "read_noise_e": "Read noise",
    "camera_pixel_size_nm": "Pixel size",
    "psf_sigma_px": "PSF width",
}
#: What stands behind a figure without any truth.
EXPECTED_TIP = (
    "Expected Jaccard index: true molecules (within one pixel) ÷ (true + false + missed), told by the probabilities.\n"
    "Molecules that leave no candidate are unknown to it: very dim ones, and several within the width of one spot,\n"
    "which are seen as one. In crowds, as along filaments, a comparison with the truth comes out lower."
)
_NAME = re.compile(r"(?<![\w./\\-])(?:" + "|".join(_ROWS) + r")(?![\w/\\])")
#: A training is a command of its own, and speaks of its options.
_OPTION = re.compile(r"--(" + "|".join(name.replace("_", "-") for name in _ROWS) + r")\b")
#: What only Python or the command has, and where the panel has it.
_PLACES = {
    "smlm_pb.training.propose_like": "tab Train",
    "smlm-pb train --like": "tab Train",
    "name one, save(path, format=NAME)": "choose one in the dialog",
    "must match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$'": "may hold letters, digits, '.', '_' and '-' only",
    " (camera=Camera(...))": " in the tab Localize",
    "use method 'blur' or 'histogram'": "choose another Drawing",
    "has no meaning; give radius_nm": "has no meaning; choose a table with precisions",
    "give the table before that step": "choose the molecules before that step",
    "give the table before.": "choose the molecules before.",
    "choose another name or allow overwriting (overwrite=True)": "choose another name",
}
#: Names of files may be longer than a line.
_LONG_WORD = re.compile(r"<[^>]*>|[^\s<]{30,}")
_PIECE = re.compile(r"(?:&\w+;|[^_\-./\\]){1,20}[_\-./\\]*|[_\-./\\]+")
_MAY_BREAK = "\u200b"


def breakable(text: str) -> str:
    """Let long words, such as names of files, be broken into lines; tags of HTML stay as they are.

    Parameters
    ----------
    text : str
        What a label is to show.

    Returns
    -------
    str
        Looks the same, with zero-width spaces.
    """

    def pieces(match: re.Match[str]) -> str:
        word = match[0]
        return word if word.startswith("<") else _PIECE.sub(lambda piece: piece[0] + _MAY_BREAK, word)

    return _LONG_WORD.sub(pieces, text)


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
