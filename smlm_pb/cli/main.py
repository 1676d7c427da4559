"""``smlm-pb VERB ...``: find the verb, import only that one, turn whatever goes wrong into one clear line."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from smlm_pb._version import __version__
from smlm_pb.cli.faults import EXIT_OK, EXIT_USAGE, describe_fault, one_line
from smlm_pb.cli.wording import as_options, options_of, speak_of

#: Every verb with its line in ``smlm-pb --help``; its module is imported only when the verb is used.
VERBS: dict[str, str] = {
    "localize": "find the molecules in one or many movies",
    "watch": "find the molecules of a movie while it is being recorded",
    "refine": "read the positions of a table again from the pixels",
    "verify": "judge again whether the molecules of a table exist",
    "render": "draw the super-resolved image of a table of molecules",
    "evaluate": "compare a table of molecules with the known truth",
    "errors": "tell what each kind of error costs",
    "twin": "tell what errors cost on a movie without known truth",
    "drift": "find the drift of the stage and remove it",
    "filter": "keep the molecules that fulfil a condition",
    "duplicates": "keep one row of molecules that are listed several times",
    "link": "join the localizations of each blink into one molecule",
    "quality": "judge a table of molecules without knowing the truth",
    "repeatability": "measure precision on a movie itself, by photon splitting",
    "superposition": "find the density up to which a model works on a sample",
    "residuals": "show what a table leaves unexplained of its movie",
    "report": "show a table of molecules, and how good it is, on one page",
    "run": "do all steps from a movie to a report as one file says",
    "calibrate": "measure pixel size, distortion and colour shift on a target",
    "convert": "translate a table of molecules between file formats",
    "simulate": "make a movie with known molecules from a recipe",
    "train": "train a network from an experiment file",
    "models": "list the shipped models and what they are made for",
    "demo": "localize the shipped sample movie from start to picture",
}

_EPILOG = """\
exit codes:
  0    everything was done
  1    some inputs failed, the others were done
  2    wrong option, or an input that cannot be used
  70   a bug in smlm-pb (--debug shows the traceback)
  130  interrupted; what was finished is kept

'smlm-pb VERB --help' explains a verb. Positions are in camera pixels; the centre of the first pixel is 0.0.
"""


#: What stands for a value and not for an option. argparse by itself knows -5 and -0.5 only, before Python 3.14.
_NEGATIVE_NUMBER = re.compile(r"-(?:\.?\d|(?:inf|infinity|nan)$)", re.IGNORECASE)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help with the default of every option that has one worth showing."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(_terminal_width(), 100))
        # argparse forgets that verbs are indented, and would put the line of a long one below it.
        self._action_max_length = max(map(len, VERBS)) + 4

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        hidden = (None, False, True, argparse.SUPPRESS)
        if not text or "(default" in text or any(action.default is value for value in hidden):
            return text
        return f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line; it never guesses options, and takes negative numbers in any form."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", HelpFormatter)
        super().__init__(*args, **kwargs)
        # Rewriting the arguments instead would show users another number than they gave.
        self._negative_number_matcher = _NEGATIVE_NUMBER

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where help is to be found, and leave with exit code 2."""
        self.exit(EXIT_USAGE, f"smlm-pb: error: {one_line(message)}. See '{self.prog} --help'.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; ``sys.argv[1:]`` when not given.

    Returns
    -------
    int
        The exit code: 0 done, 1 some inputs failed, 2 usage or input error, 70 bug, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    speak_of({})
    with _warnings_as_lines(), _termination_as_interrupt():
        try:
            return _run(arguments)
        except SystemExit as leave:
            return leave.code if isinstance(leave.code, int) else (EXIT_OK if leave.code is None else EXIT_USAGE)
        except BrokenPipeError:
            # The reader (`| head`) has seen enough; keep the interpreter from complaining at exit.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_OK
        except BaseException as error:
            fault = describe_fault(error)
            if "--debug" in arguments:
                import traceback

                traceback.print_exc()
            print(fault.line, file=sys.stderr)
            return fault.exit_code


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Build the parser that knows all verbs by name and the options of one.

    Parameters
    ----------
    verb : str, optional
        The verb whose module is imported for its options; none when not given.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = Parser(
        prog="smlm-pb",
        description="Turn movies of blinking molecules (PALM, STORM, DNA-PAINT)\n"
        "into tables of molecule positions with uncertainties that can be believed.",
        epilog=_EPILOG,
    )
    parser.set_defaults(quiet=False, debug=False, progress="auto")
    _add_global_options(parser)
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", prog="smlm-pb")
    for name, help_line in VERBS.items():
        if name == verb:
            importlib.import_module(f"smlm_pb.cli.{name}").add_parser(subparsers)
            options = subparsers.choices[name]
            general = options.add_argument_group("general")
            _add_global_options(general)
            general.add_argument(
                "--progress",
                choices=("auto", "bar", "lines", "json", "none"),
                default=argparse.SUPPRESS,
                metavar="HOW",
                help="how to report progress on stderr: bar, lines, json (one object per line, for scripts), none,"
                " or auto: a bar on a terminal, lines elsewhere (default: auto)",
            )
        else:
            subparsers.add_parser(name, help=help_line, add_help=False)
    return parser


def _run(arguments: list[str]) -> int:
    """Do what is asked; from then on messages speak of the options of the verb."""
    verb = next((token for token in arguments if not token.startswith("-")), None)
    if verb is not None and verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"the verbs are {', '.join(VERBS)}."
        print(
            f"smlm-pb: error: there is no verb '{one_line(verb)}'; {hint} See 'smlm-pb --help'.",
            file=sys.stderr,
        )
        return EXIT_USAGE
    parser = build_parser(verb)
    args = parser.parse_args(arguments)
    if verb is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    speak_of(options_of(parser, verb))
    exit_code: int = importlib.import_module(f"smlm_pb.cli.{verb}").run(args)
    sys.stdout.flush()
    return exit_code


def _add_global_options(parser: argparse._ActionsContainer) -> None:
    # SUPPRESS keeps a verb's parser from resetting what was given before the verb.
    parser.add_argument("--version", action="version", version=f"smlm-pb {__version__}")
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS,
        help="only warnings and errors, no progress",
    )
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the full traceback of an error"
    )


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size().columns - 2


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show the package's warnings as one line each, as errors are."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            from smlm_pb.cli.progress import say

            say(f"smlm-pb: warning: {as_options(one_line(str(message)))}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Treat the end signal of a batch system like Ctrl-C: finished work is kept and open files are closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker has nothing to keep
            os._exit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    sys.exit(main())
