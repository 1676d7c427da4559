"""``smlm-pb convert IN OUT``: a table of molecules from one program's format into another's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smlm_pb.cli.common import add_overwrite_option, finite_float, non_negative_int, positive_float, positive_int
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.wording import as_options

_DESCRIPTION = """\
Translate a table of molecules between file formats.

Origin, axes, frame numbers and units are converted by each format's declared convention, and what was converted
or assumed is printed. The format of IN is recognised by its content, that of OUT follows from its ending
(.hdf5: Picasso and smlm-pb; .csv: our columns; .mat: SMAP; .smlm; .parquet) unless --from or --to name it:

  smlm-pb convert storm.csv storm_locs.hdf5 --pixel-size-nm 100
  smlm-pb convert movie_locs.hdf5 movie_thunderstorm.csv --to thunderstorm
"""


class _ListFormats(argparse.Action):
    """Print the formats and leave, as ``--version`` does."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from smlm_pb.formats import FORMATS

        width = max(map(len, FORMATS))
        for form in FORMATS.values():
            endings = " ".join(form.extensions)
            print(f"{form.name:<{width}}  {form.title} ({endings}): {form.convention.describe()}")
        parser.exit()


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser(
        "convert", help="translate a table of molecules between file formats", description=_DESCRIPTION
    )
    parser.add_argument("source", type=Path, metavar="IN", help="table to read")
    parser.add_argument("target", type=Path, metavar="OUT", help="table to write")
    parser.add_argument(
        "--from", dest="source_format", metavar="FORMAT", help="format of IN, where it is not recognised"
    )
    parser.add_argument(
        "--to", dest="target_format", metavar="FORMAT", help="format of OUT, where its ending is not enough"
    )
    parser.add_argument("--formats", action=_ListFormats, help="list the formats and their conventions")
    group = parser.add_argument_group("what IN does not say")
    group.add_argument("--pixel-size-nm", type=positive_float, metavar="NM", help="pixel size in the sample, in nm")
    group.add_argument("--width", type=positive_int, metavar="PX", help="width of the movie")
    group.add_argument("--height", type=positive_int, metavar="PX", help="height of the movie")
    group.add_argument("--n-frames", type=positive_int, metavar="N", help="number of frames of the movie")
    group.add_argument(
        "--origin-px",
        type=finite_float,
        metavar="PX",
        help="coordinate that IN gives to the centre of the first pixel, if not what its format declares",
    )
    group.add_argument(
        "--first-frame",
        type=non_negative_int,
        metavar="N",
        help="number of the first frame in IN, if not what its format declares",
    )
    add_overwrite_option(parser)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was converted and assumed."""
    from smlm_pb.errors import OutputError
    from smlm_pb.formats import FORMATS, describe_writing, read_table, sniff, write_table
    from smlm_pb.formats.registry import format_for_writing

    target_form = format_for_writing(args.target, args.target_format)
    if args.target.exists() and args.source.exists() and args.target.samefile(args.source):
        raise OutputError(f"{args.target} is the table to read; choose another name for the result.")
    source_format = args.source_format or sniff(args.source)
    locs = read_table(
        args.source,
        source_format,
        pixel_size_nm=args.pixel_size_nm,
        height=args.height,
        width=args.width,
        n_frames=args.n_frames,
        origin_px=args.origin_px,
        first_frame=args.first_frame,
    )
    step = locs.provenance[-1] if locs.provenance else {}
    read_step = step if step.get("step") == "read" else {}
    written = write_table(
        locs.with_provenance({"step": "convert", "from": source_format, "to": target_form.name}),
        args.target,
        target_form.name,
        overwrite=args.overwrite,
    )
    if not args.quiet:
        convention = read_step.get("convention") or FORMATS[source_format].convention.describe()
        print(f"{args.source}: {len(locs)} molecules, {FORMATS[source_format].title}: {convention}")
        _print_lines(read_step.get("notes", []))
        print(f"{args.target}: {target_form.title}: {target_form.convention.describe()}")
        _print_lines(describe_writing(locs, target_form))
    for path in written:
        print(path)
    return EXIT_OK


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"  - {as_options(line)}")
