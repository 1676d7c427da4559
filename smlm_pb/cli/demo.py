"""``smlm-pb demo``: localize the shipped sample movie, compare with the known truth, draw the picture."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb.cli.common import add_device_option, add_overwrite_option
from smlm_pb.cli.faults import EXIT_OK
from smlm_pb.cli.progress import note, show_progress, tell_of_first_use

if TYPE_CHECKING:
    from smlm_pb.localizations import Localizations
    from smlm_pb.movies import Movie

#: What a user would know of the camera that recorded the sample.
OFFSET_ADU, E_PER_ADU = 100.0, 0.5
_FILES = ("filaments.tif", "filaments_truth.csv")
_TOLERANCE_NM = 50.0
_ROWS_SHOWN = 6
_PIXEL_NM = 10.0

_DESCRIPTION = """\
Localize the sample movie that comes with the package: simulated filaments, labelled with blinking molecules so
densely that their spots overlap. The table, and a picture of what the camera saw beside what was found, are
written to DIR.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("demo", description=_DESCRIPTION)
    parser.add_argument(
        "--out", type=Path, default=Path("demo_output"), metavar="DIR", help="folder for the results; made if missing"
    )
    parser.add_argument("--model", default="default", metavar="NAME|DIR", help="model to localize with")
    add_device_option(parser)
    add_overwrite_option(parser)


def run(args: argparse.Namespace) -> int:
    """Localize, show, compare, draw."""
    from smlm_pb.cli.quick import import_torch, keep_numpy_to_one_thread

    keep_numpy_to_one_thread()
    from smlm_pb.formats import read_table
    from smlm_pb.formats.output import check_target
    from smlm_pb.localization import load_model, localize_to_file
    from smlm_pb.movies import open_movie

    picture = args.out / "filaments.png"
    if args.out.is_dir():
        check_target(picture, args.overwrite)
    import_torch()
    model = load_model(args.model, args.device)
    with ExitStack() as stack:
        sample = files("smlm_pb.sample_data")
        path, truth_path = (stack.enter_context(as_file(sample / name)) for name in _FILES)
        camera = f"--offset-adu {OFFSET_ADU:g} --e-per-adu {E_PER_ADU:g}"
        note(args, f"The same as: smlm-pb localize {path} {camera} --out {args.out}")
        tell_of_first_use(args, model)
        with show_progress(args, path.name) as on_progress:
            table = localize_to_file(
                path,
                args.out,
                model=model,
                overwrite=args.overwrite,
                on_progress=on_progress,
                offset_adu=OFFSET_ADU,
                e_per_adu=E_PER_ADU,
            )
        molecules = read_table(table)
        print(f"{len(molecules)} molecules in {molecules.info.n_frames} frames, the first {_ROWS_SHOWN}:\n")
        print(_first_rows(molecules), end="\n\n")
        print(_compare(molecules, read_table(truth_path)), end="\n\n")
        _draw(open_movie(path), molecules, picture, overwrite=args.overwrite)
    print(f"table:   {table}  (opens in Picasso; 'smlm-pb convert' translates it for other programs)")
    print(f"picture: {picture}")
    return EXIT_OK


def _first_rows(molecules: Localizations) -> str:
    """The first rows as text, each column with its unit."""
    from smlm_pb.columns import COLUMN_BY_NAME, CORE_COLUMNS

    names = [name for name in CORE_COLUMNS if name in molecules]
    units = [COLUMN_BY_NAME[name].unit for name in names]
    decimals = {"frame": 0, "photons": 0, "background": 1, "probability": 2}
    rows = [
        [f"{molecules[name][row]:.{decimals.get(name, 3)}f}" for name in names]
        for row in range(min(_ROWS_SHOWN, len(molecules)))
    ]
    table = [names, [f"({unit})" if unit else "" for unit in units], *rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table)


def _compare(molecules: Localizations, truth: Localizations) -> str:
    """One paragraph on how well the known molecules were found."""
    from smlm_pb.evaluation import evaluate

    result = evaluate(molecules, truth, tolerance_nm=_TOLERANCE_NM, check=False)
    score = result.at(_TOLERANCE_NM)
    return (
        f"Against the known truth, {result.density_per_um2:.2g} molecules per µm² and frame, within "
        f"{_TOLERANCE_NM:g} nm:\n"
        f"  found      {score.recall:.1%} of the molecules (by chance {score.chance_recall:.1%})\n"
        f"  correct    {score.precision:.1%} of what was found\n"
        f"  Jaccard    {score.jaccard:.3f} (by chance {score.chance_jaccard:.3f})\n"
        f"  error      {score.rmse_x_nm:.1f} nm in x, {score.rmse_y_nm:.1f} nm in y (root mean square)"
    )


def _draw(movie: Movie, molecules: Localizations, path: Path, *, overwrite: bool) -> None:
    """What the camera saw, all frames summed, beside the molecules, on the same field of view."""
    import numpy as np
    from matplotlib.figure import Figure

    from smlm_pb.analysis import render
    from smlm_pb.analysis.picture import draw_scale_bar, to_picture
    from smlm_pb.formats.output import written_whole

    frames = movie.read(0, movie.n_frames).astype(np.float64)
    movie.close()
    seen = frames.mean(axis=0) - np.percentile(frames, 1)
    found = render(molecules, pixel_size_nm=_PIXEL_NM)
    panels = (
        (f"the camera: {movie.n_frames} frames averaged", to_picture(np.clip(seen, 0, None), colormap="hot")),
        (f"smlm-pb: {len(molecules)} molecules", draw_scale_bar(to_picture(found.image), found.pixel_size_nm)),
    )
    figure = Figure(figsize=(12, 6.4), facecolor="black", layout="constrained")
    for axes, (title, image) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title, color="white", fontsize=15)
        axes.set_axis_off()
    with written_whole(path, overwrite) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
