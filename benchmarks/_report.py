"""What all benchmarks share: options, a record of where and how they ran, tables for people, files for the page.

A benchmark is one script with ``main(argv)``. It writes ``NAME.json`` (settings, machine, model, tables, all
numbers) and ``NAME.png`` into its results folder and prints the tables.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.localization import Model

RESULTS = Path(__file__).parent / "results"
#: Trial runs never replace the published results.
QUICK_RESULTS = Path(__file__).parents[1] / "runs" / "benchmarks"

#: One colour per role, the same in all figures; they stay apart for colour-blind readers (Okabe and Ito, 2008).
COLOURS = {
    "ours": "#0072B2",
    "ours, second": "#56B4E9",
    "other": "#D55E00",
    "other, second": "#E69F00",
    "goal": "#009E73",
    "reference": "#7F7F7F",
}


@dataclass(frozen=True)
class Table:
    """A small table for people.

    Parameters
    ----------
    title : str
        What it shows, one line.
    columns : sequence of str
        Headings, with units.
    rows : sequence of sequence of str
        Cells, ready to print.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Lay out for a terminal: first column to the left, numbers to the right."""
        cells = [list(self.columns), *(list(row) for row in self.rows)]
        widths = [max(len(row[k]) for row in cells) for k in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if k == 0 else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        lines.insert(1, "-" * sum(widths, 2 * (len(widths) - 1)))
        return "\n".join([self.title, *lines])

    def markdown(self) -> str:
        """Lay out for a page."""
        head = "| " + " | ".join(self.columns) + " |"
        rule = "|---" + "|---:" * (len(self.columns) - 1) + "|"
        body = ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([f"*{self.title}*", "", head, rule, *body])


def make_parser(description: str, *, model: bool = True, seeds: int | None = None) -> argparse.ArgumentParser:
    """Declare the options that all benchmarks share.

    Parameters
    ----------
    description : str
        What is measured.
    model : bool
        Whether a model is measured (``--model``).
    seeds : int, optional
        Default number of repetitions with fresh randomness (``--seeds``); None where nothing is simulated.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if model:
        parser.add_argument("--model", default="default", metavar="NAME|DIR", help="shipped model, or a model's folder")
        parser.add_argument(
            "--refine",
            choices=("off", "auto", "on"),
            default="off",
            help="refinement by maximum likelihood; other than off, results are named NAME_refined (default: off)",
        )
        parser.add_argument("--device", default="cpu", help="where the network runs (default: cpu)")
    if seeds is not None:
        parser.add_argument("--seeds", type=int, default=seeds, metavar="N", help=f"repetitions (default: {seeds})")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads of the network (default: torch's)")
    parser.add_argument("--quick", action="store_true", help="a few frames only: shows that it runs, measures nothing")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: benchmarks/results; runs/ with --quick)",
    )
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options and apply those that hold for the whole process."""
    args = parser.parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    # Of paths only the last part: folders are those of one machine.
    args.command = " ".join(["python", f"benchmarks/{Path(parser.prog).name}", *(Path(part).name for part in given)])
    args.out = args.out or (QUICK_RESULTS if args.quick else RESULTS)
    if args.quick and "seeds" in args:
        args.seeds = 1
    if args.threads is not None:
        import torch

        from smlm_pb.localization.threads import use_threads

        torch.set_num_threads(args.threads)
        use_threads(args.threads)
    return args


def load(args: argparse.Namespace) -> Model:
    """Load the model that is measured."""
    from smlm_pb.localization import load_model

    return load_model(args.model, args.device)


def publish(
    name: str,
    args: argparse.Namespace,
    *,
    tables: Sequence[Table],
    results: Any,
    settings: dict[str, Any],
    figure: Figure | None = None,
    model: Model | None = None,
) -> Path:
    """Print the tables; write ``NAME.json`` and ``NAME.png``.

    Parameters
    ----------
    name : str
        Name of the benchmark.
    args : argparse.Namespace
        From :func:`parse`.
    tables : sequence of Table
        What is printed, and shown on the page.
    results : dict or list
        All numbers; NaN becomes ``null``.
    settings : dict
        What decides the numbers.
    figure : Figure, optional
        The picture.
    model : Model, optional
        The model that was measured.

    Returns
    -------
    Path
        The JSON file.
    """
    from smlm_pb._version import __version__

    record: dict[str, Any] = {
        "benchmark": name,
        "command": args.command,
        "quick": args.quick,
        "version": __version__,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "settings": settings,
        "tables": [asdict(table) for table in tables],
        "results": results,
    }
    if model is not None:
        record["model"] = {
            "name": model.card.name,
            "weights_sha256": model.card.weights_sha256,
            "steps": model.card.training.get("steps"),
        }
    args.out.mkdir(parents=True, exist_ok=True)
    target: Path = args.out / f"{_full_name(name, args)}.json"
    write_text(target, to_json(record) + "\n")
    if figure is not None:
        picture = target.with_suffix(".png")
        temporary = picture.with_name(f".{picture.name}.part")
        figure.savefig(temporary, format="png", dpi=110)
        temporary.replace(picture)
    print("\n\n".join(table.text() for table in tables))
    print(f"\nwritten: {target}{' and .png' if figure is not None else ''}")
    return target


def _full_name(name: str, args: argparse.Namespace) -> str:
    """Name of the results: those of other shipped models and of refined tables stand beside those of the default."""
    model = getattr(args, "model", "default")
    is_shipped = Path(model).name == model
    parts = [name, *([model] if is_shipped and model != "default" else [])]
    return "_".join([*parts, *(["refined"] if getattr(args, "refine", "off") != "off" else [])])


def run_as_program(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark as a program; what the user can mend ends in one line."""
    from smlm_pb.errors import SmlmPbError

    try:
        sys.exit(main())
    except SmlmPbError as error:
        sys.exit(f"error: {error}")


def describe_machine() -> dict[str, Any]:
    """Processor, cores and threads; what every time depends on."""
    import torch

    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def new_figure(columns: int, rows: int = 1, *, width: float = 4.6, height: float = 3.6) -> tuple[Figure, Any]:
    """Make a figure with ``rows × columns`` axes; the axes come as a 2-D array."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def to_json(value: Any) -> str:
    """Indented JSON with numbers short enough to read; lists of plain numbers stay on one line."""
    return _format(_plain(value), "")


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation over repetitions, for a table."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return "–"
    mean = sum(finite) / len(finite)
    if len(finite) < 2:
        return f"{mean:.{digits}f}"
    deviation = math.sqrt(sum((v - mean) ** 2 for v in finite) / (len(finite) - 1))
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def mean(values: Sequence[float | None]) -> float:
    """Mean of the finite values; NaN without any."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    return sum(finite) / len(finite) if finite else float("nan")


def _plain(value: Any) -> Any:
    import numpy as np

    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value if value is None else str(value)


def _format(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(k, ensure_ascii=False)}: {_format(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + indent + "}"
    if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        return "[\n" + ",\n".join(inner + _format(v, inner) for v in value) + "\n" + indent + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:  # only Linux has it
        pass
    return platform.processor() or platform.machine()
