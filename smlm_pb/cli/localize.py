"""``smlm-pb localize MOVIE…``: find the molecules in one or many movies."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb.cli.common import (
    CAMERA_OPTIONS,
    add_camera_options,
    add_device_option,
    add_frames_option,
    add_model_options,
    add_precision_option,
    add_read_noise_option,
    positive_int,
)
from smlm_pb.cli.faults import EXIT_BUG, EXIT_OK, EXIT_SOME_FAILED, EXIT_USAGE, describe_fault
from smlm_pb.cli.progress import note, say, show_progress, tell_of_first_use
from smlm_pb.errors import Cancelled, ConfigurationError, SmlmPbError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smlm_pb.cli.inputs import Found
    from smlm_pb.cli.progress import OnProgress
    from smlm_pb.localization.cluster import Cluster
    from smlm_pb.localization.job import Job
    from smlm_pb.localization.to_file import FileResult, FileRun

REPORT_FILE = "localize_report.json"

_DESCRIPTION = """\
Find the molecules in one or many movies. For each movie NAME.tif the table NAME_locs.hdf5 is written (it
opens in Picasso), with NAME_locs.yaml beside it; 'smlm-pb convert' translates it for other programs.

MOVIE is a TIFF stack, a folder of single frames, a folder of stacks, a .npy or .zarr array, or a pattern in
quotation marks. A movie that cannot be used does not stop the others; it is named at the end.
"""

_EPILOG = """\
examples:
  smlm-pb localize movie.tif --pixel-size-nm 100
  smlm-pb localize 'day1/**/*.tif' --out results --offset-adu 100 --e-per-adu 0.46 --pixel-size-nm 108
  smlm-pb localize day1 --out results --resume
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("localize", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("movies", nargs="+", metavar="MOVIE", help="file, folder or pattern")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for the results; made if it is not there (default: the present folder)",
    )
    add_camera_options(parser)
    add_read_noise_option(parser)
    add_model_options(parser)
    add_device_option(parser)
    add_precision_option(parser)
    add_frames_option(parser)
    parser.add_argument(
        "--refine",
        choices=("off", "auto", "on"),
        default="off",
        help="refine molecules by maximum likelihood: auto where the pixels agree with the model and it is the more"
        " precise, on everywhere; adds sigma_photons, chi2, log_likelihood_ratio and refinement to the table",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist already")
    existing.add_argument(
        "--resume",
        action="store_true",
        help="continue what was interrupted; movies that are done are passed over",
    )
    several = parser.add_argument_group("several processes or machines", "Needs pip install 'smlm-pb[distributed]'.")
    where = several.add_mutually_exclusive_group()
    where.add_argument("--workers", type=positive_int, metavar="N", help="find the molecules in N processes")
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="find the molecules on the workers of this Dask scheduler (its address, or its scheduler file); they see"
        " the movies under the same paths",
    )
    parser.add_argument(
        "--summary",
        choices=("table", "json"),
        default="table",
        help=f"what is printed at the end; the JSON is also written to DIR/{REPORT_FILE}",
    )


@dataclass
class _Outcome:
    """What became of one movie."""

    path: Path
    result: FileResult | None = None
    problem: str = ""
    is_bug: bool = False


def run(args: argparse.Namespace) -> int:
    """Localize movie after movie; report at the end."""
    from smlm_pb.cli.quick import import_torch, keep_numpy_to_one_thread

    keep_numpy_to_one_thread()
    from smlm_pb.cli.inputs import find_movies
    from smlm_pb.localization.settings import JobSettings
    from smlm_pb.localization.to_file import FileRun

    settings = JobSettings(
        **{name: getattr(args, name) for name in CAMERA_OPTIONS},
        read_noise_e=args.read_noise_e,
        psf_sigma_px=args.psf_sigma_px,
        threshold=args.threshold,
        frames=args.frames,
        refine=args.refine,
        precision=args.precision,
    )
    movies = find_movies(args.movies)
    _refuse_equal_targets(movies, args.out)
    outcomes: list[_Outcome] = []
    told: list[str] = []
    with ExitStack() as stack:
        file_run = FileRun(
            settings,
            args.out,
            overwrite=args.overwrite,
            resume=args.resume,
            model=args.model,
            device="auto" if args.scheduler else args.device,
            cluster=_open_cluster(args, stack),
        )
        if any(movie.problem is None for movie in movies):
            import_torch()
            tell_of_first_use(args, file_run.load_model())  # a wrong model or device is wrong for every movie
        try:
            for number, movie in enumerate(movies, start=1):
                label = movie.path.name if len(movies) == 1 else f"{movie.path.name} ({number}/{len(movies)})"
                outcomes.append(_localize(movie, label, file_run, args, told))
        except (Cancelled, KeyboardInterrupt):
            if outcomes:
                _report(outcomes, args)
            raise
    return _report(outcomes, args)


def _open_cluster(args: argparse.Namespace, stack: ExitStack) -> Cluster | None:
    if args.workers is None and args.scheduler is None:
        return None
    from smlm_pb.localization.cluster import Cluster

    return stack.enter_context(Cluster(workers=args.workers, scheduler=args.scheduler, device=args.device))


def _localize(movie: Found, label: str, file_run: FileRun, args: argparse.Namespace, told: list[str]) -> _Outcome:
    """One movie; whatever is wrong with it is kept for the report. ``told``: engines that were printed already."""
    try:
        if movie.problem is not None:
            raise movie.problem
        with ExitStack() as stack:
            reports: list[OnProgress] = []

            def on_start(job: Job) -> None:
                engine = f"network '{job.model.card.name}' on {job.describe_engine()}"
                if engine not in told:
                    told.append(engine)
                    note(args, engine)
                note(args, f"{label}: {job.conditions.describe()}")
                reports.append(stack.enter_context(show_progress(args, label)))

            result = file_run(movie.path, on_start=on_start, on_progress=lambda done, total: reports[-1](done, total))
    except Cancelled:
        raise
    except Exception as error:
        if args.debug:
            import traceback

            traceback.print_exc()
        fault = describe_fault(error)
        problem = fault.line.removeprefix("smlm-pb: error: ")
        return _Outcome(movie.path, problem=problem, is_bug=fault.exit_code == EXIT_BUG)
    if not result.frames_done:
        note(args, f"{label}: was complete already.")
    return _Outcome(movie.path, result=result)


def _refuse_equal_targets(movies: Sequence[Found], out: Path) -> None:
    """Two movies of the same name would write the same table."""
    from smlm_pb.localization.to_file import table_path
    from smlm_pb.movies.tiff import movie_name

    targets: dict[Path, Path] = {}
    for movie in movies:
        name = movie.path.name if movie.path.is_dir() and movie.path.suffix != ".zarr" else movie_name(movie.path)
        target = table_path(name, out)
        if target in targets:
            raise ConfigurationError(
                f"{targets[target]} and {movie.path} would both be written to {target}: localize them in two runs with "
                "different --out."
            )
        targets[target] = movie.path


# -- report ------------------------------------------------------------------------------------------------


def _report(outcomes: list[_Outcome], args: argparse.Namespace) -> int:
    """Print and write what became of all movies; return the exit code."""
    failed = [outcome for outcome in outcomes if outcome.result is None]
    report = {"movies": [_as_dict(outcome) for outcome in outcomes]}
    done = len(outcomes) - len(failed)
    if done:
        _write_report(args.out / REPORT_FILE, report)
    if args.summary == "json":
        print(json.dumps(report, indent=2, allow_nan=False))
    elif done:
        print(_table([outcome.result for outcome in outcomes if outcome.result is not None]))
    for outcome in failed:
        where = "" if str(outcome.path) in outcome.problem or len(outcomes) == 1 else f"{outcome.path}: "
        say(f"smlm-pb: error: {where}{outcome.problem}")
    if len(outcomes) > 1 and failed:
        say(f"smlm-pb: {done} of {len(outcomes)} movies were localized; {len(failed)} could not be.")
    if any(outcome.is_bug for outcome in failed):
        return EXIT_BUG
    if failed:
        return EXIT_SOME_FAILED if done else EXIT_USAGE
    return EXIT_OK


def _write_report(path: Path, report: dict[str, Any]) -> None:
    from smlm_pb.formats.output import written_whole

    try:
        with written_whole(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except SmlmPbError as error:
        say(f"smlm-pb: warning: {error}")


def _as_dict(outcome: _Outcome) -> dict[str, Any]:
    if outcome.result is None:
        return {"movie": str(outcome.path), "error": outcome.problem}
    result, step = outcome.result, outcome.result.provenance
    sigma_px, pixel_nm = step["result"]["median_sigma_px"], step["conditions"]["pixel_size_nm"]
    return {
        "movie": str(outcome.path),
        "table": str(result.path),
        **step["result"],
        "median_sigma_nm": sigma_px * pixel_nm if sigma_px is not None and pixel_nm is not None else None,
        "threshold": step["threshold"],
        "conditions": step["conditions"],
        "frames_done": result.frames_done,
        "seconds": round(result.seconds, 3),
        "frames_per_s": _rate(result),
        "range": step.get("range"),
        "warnings": step["warnings"],
    }


def _rate(result: FileResult) -> float | None:
    """Frames per second; None where all had been done before."""
    return round(result.frames_done / result.seconds, 3) if result.frames_done and result.seconds > 0 else None


def _table(results: list[FileResult]) -> str:
    head = ("movie", "frames", "molecules", "frames/s", "precision", "expected J", "threshold")
    rows = [head, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    paths = [f"written: {result.path}" for result in results] if len(results) <= 3 else []
    remarks = [line for result in results for line in (_doubtful(result), _outside(result)) if line]
    return "\n".join([*lines, *remarks, *(paths or [f"written: {len(results)} tables in {results[0].path.parent}"])])


def _doubtful(result: FileResult) -> str:
    """One line where the camera values cannot be right: numbers, and what is outside of a range, rest on them."""
    from smlm_pb.localization.camera_check import DOES_NOT_FIT

    step = result.provenance
    if not any(DOES_NOT_FIT in warning for warning in step["warnings"]):
        return ""
    return f"camera values do not fit the noise: {step['movie']['name']}; all numbers rest on them: see the warnings"


def _outside(result: FileResult) -> str:
    """One line where a movie, or a part of it, lies outside of what the model was trained for."""
    step = result.provenance
    levels = [level for row in step.get("range", {}).get("tile_level", []) for level in row]
    names = {"density_per_px2": "density", "photons": "photons", "background_e": "background", "psf_sigma_px": "PSF"}
    causes = [
        names[name]
        for name, quantity in step.get("range", {}).get("quantities", {}).items()
        if quantity["level"] or any(map(any, quantity["tile_level"]))
    ]
    if not causes:
        return ""
    where = f"in {sum(map(bool, levels))} of {len(levels)} tiles" if any(levels) else "on the whole"
    model, movie = step["model"]["name"], step["movie"]["name"]
    return f"outside of the range of model {model}: {movie} {where} ({', '.join(causes)}); see the warnings"


def _row(result: FileResult) -> tuple[str, ...]:
    step = result.provenance
    sigma_px, pixel_nm = step["result"]["median_sigma_px"], step["conditions"]["pixel_size_nm"]
    precision = "-"
    if sigma_px is not None:
        precision = f"{sigma_px * pixel_nm:.1f} nm" if pixel_nm is not None else f"{sigma_px:.3f} px"
    jaccard, rate = step["threshold"]["jaccard"], _rate(result)
    return (
        step["movie"]["name"],
        str(step["result"]["frames"]),
        str(step["result"]["molecules"]),
        "-" if rate is None else f"{rate:.3g}",
        precision,
        "-" if jaccard is None else f"{jaccard:.3f}",
        f"{step['threshold']['threshold']:.3f}" + (" (auto)" if step["threshold"]["automatic"] else ""),
    )
