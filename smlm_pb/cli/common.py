"""Options that several verbs share: the same name, unit and default everywhere, and the same as in Python.

Each ``add_*`` function declares options on a verb's parser; ``camera_arguments`` turns them into what the
library takes. The types raise :class:`argparse.ArgumentTypeError`, which becomes the one-line error.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import Any

CAMERA_OPTIONS = ("pixel_size_nm", "offset_adu", "e_per_adu", "em_gain")


def add_camera_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--pixel-size-nm --offset-adu --e-per-adu --em-gain``; the movie fills in what is not given."""
    group = parser.add_argument_group("camera", "What is not given is read or estimated from the movie, and reported.")
    group.add_argument("--pixel-size-nm", type=positive_float, metavar="NM", help="pixel size in the sample, in nm")
    group.add_argument(
        "--offset-adu",
        type=finite_float,
        metavar="ADU",
        help="camera offset in ADU (Picasso: Baseline; ThunderSTORM: Base level)",
    )
    group.add_argument(
        "--e-per-adu",
        type=positive_float,
        metavar="E",
        help="photo-electrons per ADU before EM gain (Picasso: Sensitivity; ThunderSTORM: Photoelectrons per"
        " A/D count)",
    )
    group.add_argument("--em-gain", type=positive_float, metavar="GAIN", help="electron-multiplication gain; 1 without")


def add_read_noise_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--read-noise-e``."""
    parser.add_argument(
        "--read-noise-e",
        type=non_negative_float,
        metavar="E",
        help="standard deviation of the camera's read noise in e⁻, before division by an EM gain (default: 1.6, or more"
        " where the movie shows more noise than the other camera values explain)",
    )


def camera_arguments(args: argparse.Namespace) -> dict[str, float]:
    """Return the camera options that were given, as keyword arguments for :func:`smlm_pb.localize`."""
    given = {name: getattr(args, name) for name in CAMERA_OPTIONS}
    return {name: value for name, value in given.items() if value is not None}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--model --threshold --psf-sigma-px``."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default="default",
        metavar="NAME|DIR",
        help="a shipped model ('smlm-pb models' lists them) or the folder of one of your own",
    )
    group.add_argument(
        "--threshold",
        type=threshold,
        default="auto",
        metavar="P",
        help="keep molecules whose probability is at least P (0 to 1); auto: the threshold with the best"
        " expected Jaccard index",
    )
    group.add_argument(
        "--psf-sigma-px",
        type=positive_float,
        metavar="PX",
        help="standard deviation of the point-spread function in pixels; estimated from the movie when not given",
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        type=device,
        default="auto",
        metavar="NAME",
        help="where the network runs: auto, cpu, cuda, cuda:N or mps",
    )


def add_precision_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--precision``."""
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "int8"),
        default="auto",
        help="arithmetic of the network; auto: 8-bit integers or bfloat16 on processors that have them, whichever is"
        " faster, once it was checked on simulated frames that this changes nothing",
    )


def add_frames_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--frames A:B``."""
    parser.add_argument(
        "--frames",
        type=frame_range,
        metavar="A:B",
        help="only frames A to B-1, counted from 0; ':100' and '100:' work too (default: all)",
    )


def add_seed_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``."""
    parser.add_argument(
        "--seed",
        type=non_negative_int,
        metavar="N",
        help="seed of the randomness: the same seed gives the same result",
    )


def add_overwrite_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist already")


def finite_float(text: str) -> float:
    """Parse a finite number."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def positive_float(text: str) -> float:
    """Parse a finite number > 0."""
    value = finite_float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} must be > 0")
    return value


def non_negative_float(text: str) -> float:
    """Parse a finite number ≥ 0."""
    value = finite_float(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return value


def non_negative_int(text: str) -> int:
    """Parse an integer ≥ 0."""
    if not re.fullmatch(r"\d+", text.strip()):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def positive_int(text: str) -> int:
    """Parse an integer ≥ 1."""
    value = non_negative_int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value


def threshold(text: str) -> float | str:
    """Parse ``auto`` or a probability."""
    if text == "auto":
        return text
    value = finite_float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 1, or be 'auto'")
    return value


def device(text: str) -> str:
    """Parse the name of a device; whether it exists is found out when it is used."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not one of auto, cpu, cuda, cuda:N, mps")
    return text


def frame_range(text: str) -> tuple[int, int | None]:
    """Parse ``A:B`` into ``(A, B)``: from 0, B not included, ``None`` for an open end."""
    match = re.fullmatch(r"(\d*):(\d*)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not A:B with whole numbers, e.g. 0:1000, :100 or 100:")
    start = int(match[1] or 0)
    stop = int(match[2]) if match[2] else None
    if stop is not None and stop <= start:
        raise argparse.ArgumentTypeError(f"'{text}' holds no frame: B must be larger than A")
    return start, stop


def existing_file(text: str) -> Path:
    """Parse the path of a file that must be there."""
    path = Path(text)
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise argparse.ArgumentTypeError(f"{path} {problem}; check the path")
    return path


def tolerances(values: list[Any]) -> tuple[float, ...]:
    """Return sorted, distinct values of a variadic option such as ``--tolerance-nm 25 50``."""
    return tuple(sorted({float(value) for value in values}))
