"""``smlm-pb simulate RECIPE``: a movie with known molecules."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from smlm_pb.cli.common import add_overwrite_option, add_seed_option, existing_file
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.progress import show_progress

_DESCRIPTION = """\
Make a movie with known molecules from a recipe.

The recipe is a YAML file, for example:

  frames: 300
  height: 64
  width: 64
  pixel_size_nm: 100
  psf: {sigma_px: 1.1}
  structure: {kind: filaments, count: 8}
  molecules:
    density_per_um2: 2.0
    photons: 3000
    blinking: {on_frames: 1.5, off_frames: 300}
  background: {photons_per_px: 20, shape: haze}
  camera: {offset_adu: 100, e_per_adu: 0.5, read_noise_e: 1.6}

Kinds of structure: empty, uniform, filaments, rings, clusters, star, grid, mixture. Instead of a Gaussian,
psf: {file: psf.tif} takes the shape of a measured spot (TIFF or .npy beside the recipe).
Written are RECIPE.tif (OME-TIFF with the pixel size), RECIPE_truth.csv (the true molecules, ThunderSTORM
format) and a copy of the recipe.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser(
        "simulate", help="make a movie with known molecules from a recipe", description=_DESCRIPTION
    )
    parser.add_argument("recipe", type=existing_file, metavar="RECIPE", help="recipe file (YAML)")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="folder for the results; made if it is not there"
    )
    add_seed_option(parser)
    add_overwrite_option(parser)


def run(args: argparse.Namespace) -> int:
    """Simulate, and print the paths of what was written."""
    from smlm_pb.simulation.files import simulate_to_file

    with show_progress(args, args.recipe.name) as on_progress:
        written = simulate_to_file(
            args.recipe, args.out, seed=args.seed, overwrite=args.overwrite, on_progress=on_progress
        )
    for path in written:
        print(path)
    return EXIT_OK
