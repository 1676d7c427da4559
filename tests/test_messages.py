"""Messages of the library speak of the arguments of its functions; each door puts them into its own words."""

import argparse
import ast
import re
from pathlib import Path

import pytest

import smlm_pb
from napari_plugin.words import in_panel_words
from smlm_pb.cli import main as cli
from smlm_pb.cli.wording import as_options, options_of

PACKAGE = Path(smlm_pb.__file__).parent
OPTION = re.compile(r"(?<![\w(-])--[a-z][a-z-]*")
#: Texts that are no messages: a page about the command, the command that is kept with a model, style sheets.
NO_MESSAGES = {"formats/documentation.py", "calibration/grid_training.py", "analysis/report_style.py"}


def texts_of(source):
    """Every string of a module that is not a docstring, with its line."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        if isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def core_modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith("cli/") and name not in NO_MESSAGES:
            yield name, path


def test_no_message_of_the_library_names_an_option_of_the_command():
    found = [
        f"{name}:{line}: {text[-60:]!r}"
        for name, path in core_modules()
        for line, text in texts_of(path.read_text(encoding="utf-8"))
        if OPTION.search(text)
    ]
    assert found == []


def test_the_search_for_such_messages_finds_one():
    source = '"""--in a docstring"""\nraise ValueError(f"{1} is there: give --overwrite.")\n'
    assert [line for line, text in texts_of(source) if OPTION.search(text)] == [2]


def arguments_in_messages():
    """What the library calls arguments, as ``name=True``, in its messages."""
    for _, path in core_modules():
        for _, text in texts_of(path.read_text(encoding="utf-8")):
            yield from re.findall(r"(?<![\w.])([a-z]\w*)=True\b(?!\))", text)


def test_every_argument_that_a_message_recommends_is_an_option_of_some_verb():
    known = set()
    for verb in cli.VERBS:
        known |= set(options_of(cli.build_parser(verb), verb))
    recommended = set(arguments_in_messages())
    assert {"overwrite", "resume"} <= recommended
    assert recommended <= known


def test_options_of_verbs_within_verbs_are_known():
    parser = argparse.ArgumentParser()
    inner = parser.add_subparsers().add_parser("calibrate").add_subparsers().add_parser("register")
    inner.add_argument("--shift-px")
    assert as_options("give shift_px where needed", options_of(parser, "calibrate")) == "give --shift-px where needed"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give pixel_size_nm, e.g. 100.", "give Pixel size, e.g. 100."),
        ("check offset_adu, e_per_adu and em_gain", "check Offset, e⁻ per ADU and EM gain"),
        ("give --psf-sigma-px", "give PSF width"),
        ("make a model for such movies (smlm_pb.training.propose_like)", "make a model for such movies (tab Train)"),
        ("give offset_adu and e_per_adu (camera=Camera(...)).", "give Offset and e⁻ per ADU in the tab Localize."),
        ("/data/offset_adu/a.tif is damaged", "/data/offset_adu/a.tif is damaged"),
    ],
)
def test_messages_in_the_words_of_the_panel(message, shown):
    assert in_panel_words(message) == shown
