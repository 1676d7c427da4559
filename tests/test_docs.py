"""The documentation against the program: links lead somewhere, commands parse, columns are those of the code."""

import re
import shlex
from pathlib import Path

import pytest

from smlm_pb.cli import main as cli
from smlm_pb.columns import COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands():
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in block.splitlines():
                if line.startswith("smlm-pb "):
                    yield pytest.param(line, id=f"{page.name}: {line}")


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", goal.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in [anchor(heading) for heading in headings], target


def test_every_page_can_be_reached_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.parent.name == "docs" and f"({page.name})" not in index] == ["index.md"]


@pytest.mark.parametrize("line", list(commands()))
def test_commands_have_the_options_they_show(line, tmp_path, monkeypatch):
    arguments = shlex.split(line, comments=True)[1:]
    monkeypatch.chdir(tmp_path)
    for argument in arguments:  # inputs that a verb wants to see
        if re.search(r"\.[a-z]+\d?$", argument):
            Path(argument).parent.mkdir(parents=True, exist_ok=True)
            Path(argument).touch()
    cli.build_parser(arguments[0]).parse_args(arguments)


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "architecture"], ids=lambda page: page.name)
def test_python_compiles(page):
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_every_column_is_documented_as_declared(column):
    always = " (always there)" if column.required else ""
    row = f"| `{column.name}` | {column.unit or '–'} | {column.meaning}{always} |"
    assert row in (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8").splitlines()


def test_every_verb_is_shown():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [verb for verb in cli.VERBS if f"smlm-pb {verb}" not in text] == []
