"""What the verbs that turn one table into another share: reading, naming and writing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from smlm_pb.cli.common import add_overwrite_option, existing_file, positive_float

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations


def add_table_options(parser: argparse.ArgumentParser, suffix: str) -> None:
    """Add ``LOCS --out --from --to --pixel-size-nm --overwrite``; the default result is named with the suffix."""
    parser.set_defaults(suffix=suffix)
    parser.add_argument("locs", type=existing_file, metavar="LOCS", help="table of molecules, any known format")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"table to write (default: LOCS with {suffix} before .hdf5)"
    )
    parser.add_argument("--from", dest="format", metavar="FORMAT", help="format of LOCS (default: recognized)")
    parser.add_argument("--to", dest="target_format", metavar="FORMAT", help="format of FILE (default: by its ending)")
    parser.add_argument(
        "--pixel-size-nm", type=positive_float, metavar="NM", help="camera pixel, where the table does not know it"
    )
    add_overwrite_option(parser)


def read_input(args: argparse.Namespace) -> tuple[Localizations, Path]:
    """Read the table and name the result; refuses early a result that must not be written."""
    from smlm_pb.errors import OutputError
    from smlm_pb.formats import read_table
    from smlm_pb.formats.output import check_target

    target: Path = args.out if args.out is not None else args.locs.with_name(f"{args.locs.stem}{args.suffix}.hdf5")
    check_target(target, args.overwrite)
    if target.exists() and target.samefile(args.locs):
        raise OutputError(f"{target} is the table that is read; choose another name for the result.")
    return read_table(args.locs, format=args.format, pixel_size_nm=args.pixel_size_nm), target


def write_output(args: argparse.Namespace, locs: Localizations, target: Path, *, quiet: bool = False) -> None:
    """Write the result and print the names of the files, unless stdout is meant for something else."""
    from smlm_pb.formats import write_table

    for path in write_table(locs, target, args.target_format, overwrite=args.overwrite):
        if not quiet:
            print(path)
