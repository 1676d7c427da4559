"""Put the published results into the pages of ``docs/``, so that they never tell other numbers than the files.

Between ``<!-- results: NAME -->`` and ``<!-- end -->`` come the tables and the figure of ``results/NAME.json``. A
benchmark that has not been run yet leaves its place empty.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _report import RESULTS, Table, run_as_program, write_text

DOCS = Path(__file__).parents[1] / "docs"
_PLACE = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, metavar="MD", help="one page (default: all of docs/)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="folder of the JSON files")
    args = parser.parse_args(argv)
    for page in [args.page] if args.page else sorted(DOCS.rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = _PLACE.sub(lambda place, to=page: f"{place[1]}{section(place[2], args.results, to)}{place[3]}", before)
        if after != before:
            write_text(page, after)
        if args.page or _PLACE.search(before):
            print(f"{page}: {'rewritten' if after != before else 'was up to date'}")
    return 0


def section(name: str, results: Path, page: Path) -> str:
    """Tables, figure and origin of one benchmark, in Markdown; empty without results."""
    path = results / f"{name}.json"
    if not path.exists():
        return ""
    record = json.loads(path.read_text(encoding="utf-8"))
    parts = [Table(**table).markdown() for table in record["tables"]]
    picture = path.with_suffix(".png")
    if picture.exists():
        parts.append(f"![{name}]({_relative(picture, page.parent)})")
    parts.append(f"*{_origin(record)}*")
    return "\n\n".join(parts) + "\n"


def _origin(record: dict[str, Any]) -> str:
    machine = record["machine"]
    facts = [f"smlm-pb {record['version']}"]
    if "model" in record:
        facts.append(f"model `{record['model']['name']}` ({record['model']['weights_sha256'][:8]})")
    seeds = record["settings"].get("seeds")
    if seeds:
        facts.append(f"{seeds} seeds (± is their standard deviation)" if seeds > 1 else "1 seed")
    facts.append(f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}")
    facts.append(record["date"])
    return "; ".join(facts)


def _relative(path: Path, folder: Path) -> str:
    import os

    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


if __name__ == "__main__":
    run_as_program(main)
