"""Messages of the library in the words of the command line.

The library speaks of the arguments of its functions; whoever sits at a terminal needs the options of the command.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from types import MappingProxyType

# An argument of a function where nothing else can be meant: "overwrite=True", "start='default'".
_GIVEN = re.compile(
    r"(?<![\w./\\-])(?P<name>[a-z]\w*)=(?:(?P<on>True)|'(?P<text>[^']*)'|(?P<plain>[A-Z]+|\d[\d.]*))(?!\w)"
)
# Its name alone.
_NAMED = re.compile(r"(?<![\w./\\-])(?P<name>[a-z]\w*)\b(?![\w(/\\=])")
#: What only Python has, and what the command line has instead.
_FUNCTIONS = {
    "smlm_pb.training.propose_like": "smlm-pb train --like",
    "smlm_pb.formats.read_table": "smlm-pb convert --n-frames",
    "open_movie(path, allow_truncated=True)": "'smlm-pb watch'",
}
_READ, _WRITE = "load(path, format=NAME)", "save(path, format=NAME)"


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
            _collect(action.choices[verb], found)
    return found


def _collect(parser: argparse.ArgumentParser, found: dict[str, str]) -> None:
    for option in parser._actions:
        if isinstance(option, argparse._SubParsersAction):
            for inner in option.choices.values():
                _collect(inner, found)
        long = [name for name in option.option_strings if name.startswith("--")]
        if long:
            found[option.dest] = long[0]


class _Verb:
    """The options of the verb that runs."""

    options: Mapping[str, str] = MappingProxyType({})


def speak_of(options: Mapping[str, str]) -> None:
    """From now on a verb with these options runs; see :func:`options_of`."""
    _Verb.options = options


def as_options(message: str, options: Mapping[str, str] | None = None) -> str:
    """Put options where a message speaks of arguments.

    Parameters
    ----------
    message : str
        What the library says.
    options : mapping, optional
        From :func:`options_of`; those of the verb that runs when left out.

    Returns
    -------
    str
    """
    options = _Verb.options if options is None else options
    for function, command in _FUNCTIONS.items():
        message = message.replace(function, command)
    reads = any(name.endswith("format") and option == "--from" for name, option in options.items())
    message = message.replace(_READ, "--from NAME" if reads else "'smlm-pb convert --from NAME'")
    message = message.replace(_WRITE, "--to NAME" if "target_format" in options else "'smlm-pb convert --to NAME'")

    def given(found: re.Match[str]) -> str:
        option, value = options.get(found["name"]), found["text"] or found["plain"]
        return found[0] if option is None else option if found["on"] else f"{option} {value}"

    def named(found: re.Match[str]) -> str:
        return options.get(found[0], found[0]) if "_" in found[0] else found[0]

    text = _GIVEN.sub(given, message)
    if ".yaml" in text or ".yml" in text:  # keys of a file are not options
        return text
    return _NAMED.sub(named, text)
