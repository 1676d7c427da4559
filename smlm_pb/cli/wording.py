"""Messages of the library in the words of the command line.

The library speaks of the arguments of its functions; whoever sits at a terminal needs the options of the command.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

# "pixel_size_nm (--pixel-size-nm)": the library knows that both kinds of reader exist.
_BOTH = re.compile(r"\b[a-z]\w* \((--[a-z][a-z-]+)\)")


def options_of(parser: argparse.ArgumentParser, verb: str) -> dict[str, str]:
    """The option of a verb for every argument of a function, as far as they have the same name.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser with all verbs.
    verb : str
        The verb.

    Returns
    -------
    dict
        Options by the names of their arguments.
    """
    found: dict[str, str] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and verb in action.choices:
            for option in action.choices[verb]._actions:
                long = [name for name in option.option_strings if name.startswith("--")]
                if long:
                    found[option.dest] = long[0]
    return found


def as_options(message: str, options: Mapping[str, str]) -> str:
    """Put options where a message speaks of arguments.

    Parameters
    ----------
    message : str
        What the library says.
    options : mapping
        From :func:`options_of`.

    Returns
    -------
    str
    """
    text = _BOTH.sub(r"\1", message)
    if ".yaml" in text or ".yml" in text:  # keys of a file are not options
        return text

    def option(found: re.Match[str]) -> str:
        name, switched_on = found["name"], found["on"]
        if name not in options or ("_" not in name and not switched_on):
            return found[0]
        return options[name]

    return re.sub(r"(?<![\w./\\-])(?P<name>[a-z]\w*)\b(?P<on>=True\b)?(?![\w(/\\])", option, text)
