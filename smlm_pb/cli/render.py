"""``smlm-pb render LOCS``: draw the super-resolved image of a table of molecules."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from smlm_pb.cli.common import (
    add_overwrite_option,
    existing_file,
    finite_float,
    non_negative_float,
    positive_float,
)
from smlm_pb.cli.faults import EXIT_OK

#: Tables of more rows are read in parts of so many.
STREAM_ROWS = 1 << 21

_DESCRIPTION = """\
Draw the super-resolved image of a table of molecules.

gaussian draws every molecule as wide as its own precision, blur all with the same width, histogram counts
molecules per pixel. A name ending in .png gives a picture with a scale bar, .tif the values with physical scale,
.ome.zarr the same as a pyramid of ever coarser images. HDF5 tables of any length are read in parts.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser(
        "render", help="draw the super-resolved image of a table of molecules", description=_DESCRIPTION
    )
    parser.add_argument("locs", type=existing_file, metavar="LOCS", help="table of molecules, any known format")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".png, .tif or .ome.zarr (default: LOCS with the ending .png)",
    )
    parser.add_argument("--from", dest="format", metavar="FORMAT", help="format of LOCS (default: recognized)")
    parser.add_argument(
        "--image-pixel-nm",
        "--pixel-size-nm",
        dest="pixel_size_nm",
        type=positive_float,
        default=10.0,
        metavar="NM",
        help="edge of a pixel of the image, not of the camera (--pixel-size-nm means the same here)",
    )
    parser.add_argument(
        "--method", choices=("gaussian", "histogram", "blur"), help="see above (default: gaussian; blur with --blur-nm)"
    )
    parser.add_argument("--blur-nm", type=non_negative_float, metavar="NM", help="width (standard deviation) of blur")
    parser.add_argument(
        "--min-blur-nm", type=non_negative_float, default=0.0, metavar="NM", help="least width of gaussian"
    )
    parser.add_argument(
        "--roi", type=finite_float, nargs=4, metavar=("Y0", "X0", "Y1", "X1"), help="region in camera pixels"
    )
    parser.add_argument("--colour-by", "--color-by", metavar="COLUMN", help="colour molecules by frame, z, any column")
    parser.add_argument(
        "--colour-limits",
        "--color-limits",
        type=finite_float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values at the ends of the colours (default: 1st and 99th percentile)",
    )
    parser.add_argument("--colormap", metavar="NAME", help="matplotlib colormap (default: hot; turbo with --colour-by)")
    parser.add_argument(
        "--percentile",
        type=positive_float,
        default=99.7,
        metavar="P",
        help="percentile of the filled pixels that is drawn at full brightness",
    )
    parser.add_argument(
        "--gamma", type=positive_float, default=1.0, metavar="G", help="below 1 makes dim structures visible"
    )
    parser.add_argument("--no-scale-bar", dest="scale_bar", action="store_false", help="leave out the scale bar")
    parser.add_argument("--dtype", choices=("float32", "uint16"), default="float32", help="values of a TIFF")
    parser.add_argument(
        "--camera-pixel-size-nm", type=positive_float, metavar="NM", help="camera pixel, where the table lacks it"
    )
    add_overwrite_option(parser)


def run(args: argparse.Namespace) -> int:
    """Render and write."""
    from smlm_pb.analysis import render, save_image
    from smlm_pb.analysis.picture import check_image
    from smlm_pb.cli.progress import note

    out = args.out if args.out is not None else args.locs.with_suffix(".png")
    check_image(out, args.overwrite)
    method: Any = args.method or ("gaussian" if args.blur_nm is None else "blur")
    limits = None if args.colour_limits is None else tuple(args.colour_limits)
    locs, limits = _read(args, limits)
    rendering = render(
        locs,
        pixel_size_nm=args.pixel_size_nm,
        method=method,
        blur_nm=args.blur_nm,
        min_blur_nm=args.min_blur_nm,
        roi=None if args.roi is None else tuple(args.roi),
        colour_by=args.colour_by,
        colour_limits=limits,
        colormap=args.colormap or "turbo",
        camera_pixel_size_nm=args.camera_pixel_size_nm,
    )
    save_image(
        rendering,
        out,
        colormap=args.colormap or "hot",
        percentile=args.percentile,
        gamma=args.gamma,
        scale_bar=args.scale_bar,
        dtype=args.dtype,
        overwrite=args.overwrite,
    )
    height, width = rendering.image.shape[:2]
    note(
        args,
        f"{out}: {rendering.n_molecules} molecules on {height} × {width} pixels of {args.pixel_size_nm:g} nm"
        f" ({method}).",
    )
    return EXIT_OK


def _read(args: argparse.Namespace, limits: Any) -> tuple[Any, Any]:
    """The table, in parts where it is long, and the limits of the colours, which all parts must share."""
    from smlm_pb.analysis.rendering import limits_of
    from smlm_pb.formats import iterate_table, read_table, row_count

    pixel = args.camera_pixel_size_nm
    n_rows = row_count(args.locs, args.format)
    if n_rows is None or n_rows <= STREAM_ROWS:
        return read_table(args.locs, format=args.format, pixel_size_nm=pixel), limits
    columns = None if args.colour_by is not None else ("sigma_x", "sigma_y")

    def parts() -> Any:
        return iterate_table(args.locs, args.format, rows=STREAM_ROWS, columns=columns, pixel_size_nm=pixel)

    if args.colour_by is not None and limits is None:
        limits = limits_of(parts(), args.colour_by)
    return parts(), limits
