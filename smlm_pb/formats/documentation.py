"""The page about table formats, made from what the formats and columns declare.

``python -m smlm_pb.formats.documentation > docs/formats.md`` renews it; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from smlm_pb.columns import COLUMNS
from smlm_pb.formats.registry import DEFAULT_BY_EXTENSION, FORMATS

_INTRODUCTION = """\
# Table formats

<!-- Made by `python -m smlm_pb.formats.documentation > docs/formats.md`; changes made by hand are lost. -->

```
smlm-pb convert IN OUT [--from FORMAT] [--to FORMAT] [--pixel-size-nm NM]
```

```python
locs = smlm_pb.read_table("table.csv", pixel_size_nm=100)
smlm_pb.write_table(locs, "table_locs.hdf5")
```

The format of a file is recognised by its content; `--from` overrides that. The format to write follows from `--to`,
or from the ending:

{defaults}

Programs disagree by up to a pixel on where a picture begins, on whether frames count from 0 or 1, and once on which
axis is x. Every format below declares its convention, and tables are converted by that declaration; what was
converted and what had to be assumed is printed and kept in the table's provenance.

In memory, and in the native file: camera pixels, **centre of the first pixel = 0**, x = column, y = row, frames
from 0, photons are detected photo-electrons.

* **Pixel size**: tables in nm can only be read with it. It is taken from `--pixel-size-nm`, else from the file (or
  the file beside it), else from what the format prescribes; without any there is an error, never a guess.
* **Size of the movie**: where a file does not tell, it is taken from the outermost molecules, and said so
  (`height`, `width`, `n_frames` of `read_table` set it).
* **Another origin** than the declared one: `--origin-px`, `--first-frame`.
* **Unknown columns** are kept under their own name. Columns a format has no name for are added under ours, where
  the format allows it.
* **Units** in a header win over those declared. Intensities in camera counts are not taken for photons.
* **Rows** are never dropped, except those without a finite position or a valid frame; how many is said.

## Formats

"First pixel" is the coordinate, in pixels, that the format gives to the centre of the first pixel.
*Assumed* means that no source states it.
"""


def formats_page() -> str:
    """Give the whole page as Markdown."""
    defaults = _markdown(
        ("ending", "format"), [(f"`{ending}`", f"`{name}`") for ending, name in DEFAULT_BY_EXTENSION.items()]
    )
    parts = [
        _INTRODUCTION.format(defaults=defaults),
        _format_table(),
        _COLUMNS_TEXT,
        _column_table(),
        _foreign_tables(),
    ]
    return "\n".join(parts)


def _format_table() -> str:
    rows = []
    for form in FORMATS.values():
        convention = form.convention
        origin = f"{convention.origin_px:g}" + ("" if convention.documented else " *assumed*")
        rows.append(
            (
                f"`{form.name}`",
                form.title,
                " ".join(f"`{ending}`" for ending in form.extensions),
                origin,
                convention.x_axis,
                str(convention.first_frame),
                convention.length_unit,
                "read, write" if form.writable else "read",
                form.note,
            )
        )
    return _markdown(
        ("name", "program", "ending", "first pixel", "x is the", "first frame", "unit", "", "remarks"), rows
    )


_COLUMNS_TEXT = """
## Columns

`frame`, `x` and `y` are required; everything else is there when it is known.
"""


def _column_table() -> str:
    rows = [(f"`{column.name}`", column.unit, f"`{column.dtype}`", column.meaning) for column in COLUMNS]
    return _markdown(("name", "unit", "type", "meaning"), rows)


def _foreign_tables() -> str:
    """Names in each format; several spellings are understood, the first one is written."""
    parts = ["\n## Names in other programs\n", "Where several are given, the first is written and all are read.\n"]
    for form in FORMATS.values():
        if form.names_key != form.name:
            continue
        rows = [
            (f"`{column.name}`", ", ".join(f"`{name}`" for name in names))
            for column in COLUMNS
            if (names := column.foreign_names(form.name))
        ]
        parts.append(f"### {form.title}\n\n{_markdown(('here', 'there'), rows)}")
    return "\n".join(parts)


def _markdown(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(formats_page(), end="")
