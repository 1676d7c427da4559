"""``smlm-pb twin LOCS``: what errors cost on a real movie, by a simulated one that is like it."""

from __future__ import annotations

import argparse
from typing import Any

from smlm_pb.cli.common import (
    add_camera_options,
    add_device_option,
    existing_file,
    non_negative_int,
    positive_float,
    positive_int,
    threshold,
)
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.findings import add_findings_options, check_findings, publish_findings

_DESCRIPTION = """\
Tell what each kind of error costs on a movie whose truth is not known, and what to do about it.

A movie like it is simulated: the camera and PSF width of the table's history, its molecules in number, places and
brightness, its background. It is localized in the same way, and its errors are told apart as by 'smlm-pb errors'. The
table must not be linked.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("twin", description=_DESCRIPTION)
    parser.add_argument("locs", type=existing_file, metavar="LOCS", help="table of molecules, any known format")
    parser.add_argument("--from", dest="format", metavar="FORMAT", help="format of LOCS (default: recognized)")
    parser.add_argument(
        "--model", metavar="NAME|DIR", help="model to localize the twin with (default: the one LOCS was made with)"
    )
    parser.add_argument("--threshold", type=threshold, metavar="P", help="as for localize (default: as for LOCS)")
    add_camera_options(parser)
    parser.add_argument(
        "--psf-sigma-px",
        type=positive_float,
        metavar="PX",
        help="width of the point-spread function, where LOCS is silent",
    )
    add_device_option(parser)
    parser.add_argument("--n-frames", type=positive_int, default=100, metavar="N", help="length of the twin")
    parser.add_argument(
        "--tolerance-nm", type=positive_float, default=50.0, metavar="NM", help="distance of a right answer"
    )
    parser.add_argument(
        "--by",
        nargs="+",
        choices=("photons", "neighbour", "background", "border", "frame"),
        default=["neighbour", "photons"],
        help="break the errors down by properties of the molecules (default: neighbour photons)",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, metavar="N", help="seed of the twin")
    add_findings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Simulate, localize, classify and print."""
    from smlm_pb.analysis.table_conditions import camera_of
    from smlm_pb.analysis.twin import digital_twin
    from smlm_pb.cli.progress import show_progress
    from smlm_pb.evaluation.error_table import budget_figure
    from smlm_pb.formats import read_table

    check_findings(args)
    locs = read_table(args.locs, format=args.format, pixel_size_nm=args.pixel_size_nm)
    camera = camera_of(locs, offset_adu=args.offset_adu, e_per_adu=args.e_per_adu, em_gain=args.em_gain)
    with show_progress(args, "digital twin") as on_progress:
        twin = digital_twin(
            locs,
            model=args.model,
            camera=camera,
            psf_sigma_px=args.psf_sigma_px,
            threshold=args.threshold,
            n_frames=args.n_frames,
            tolerance_nm=args.tolerance_nm,
            by=args.by,
            device=args.device,
            seed=args.seed,
            on_progress=on_progress,
        )
    publish_findings(
        args, {"locs": str(args.locs), **twin.as_dict()}, twin.table(), lambda: budget_figure([twin.budget])
    )
    return EXIT_OK
