"""Run Picasso, another program for localization, in its own environment on our movies.

Picasso (Schnitzbauer et al., Nature Protocols 12, 1198, 2017) is not needed by this package; install it elsewhere:
``python -m venv picasso && picasso/bin/pip install picassosr``.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _runs import write_movie

from smlm_pb.errors import ConfigurationError
from smlm_pb.formats import read_table
from smlm_pb.localizations import Localizations, MovieInfo


@dataclass(frozen=True)
class PicassoSettings:
    """What a user of Picasso chooses.

    Parameters
    ----------
    fit : str
        ``lq`` or ``mle``.
    box : int
        Side of the box in px.
    gradient : float
        Smallest net gradient of a spot, in ADU.
    """

    fit: str
    box: int
    gradient: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def run_picasso(
    python: Path,
    movies: Mapping[str, Any],
    settings: PicassoSettings,
    *,
    offset_adu: float,
    e_per_adu: float,
    pixel_size_nm: float,
) -> dict[str, Localizations]:
    """Localize movies with Picasso's command line, all in one process, since it compiles its code at every start.

    Parameters
    ----------
    python : Path
        Interpreter of the environment that Picasso is installed in.
    movies : mapping from str to array (frame, y, x), uint16
        Movies by name.
    settings : PicassoSettings
        Fit, box and threshold.
    offset_adu, e_per_adu, pixel_size_nm : float
        The camera; Picasso calls the first two baseline and sensitivity.

    Returns
    -------
    dict of str to Localizations
        A movie in which Picasso found nothing has an empty table.

    Raises
    ------
    ConfigurationError
        When Picasso cannot be run.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, movie in movies.items():
            write_movie(folder / f"{name}.tif", [np.asarray(movie)])
        call_picasso(
            python,
            folder / "*.tif",
            settings,
            offset_adu=offset_adu,
            e_per_adu=e_per_adu,
            pixel_size_nm=pixel_size_nm,
        )
        return {name: _read(folder / f"{name}_locs.hdf5", movie, pixel_size_nm) for name, movie in movies.items()}


def call_picasso(
    python: Path,
    movies: Path,
    settings: PicassoSettings,
    *,
    offset_adu: float,
    e_per_adu: float,
    pixel_size_nm: float,
) -> None:
    """Picasso's command on a movie, or on all that a pattern names; tables are written beside the movies.

    Parameters
    ----------
    python : Path
        Interpreter of the environment that Picasso is installed in.
    movies : Path
        A file, or a pattern.
    settings : PicassoSettings
        Fit, box and threshold.
    offset_adu, e_per_adu, pixel_size_nm : float
        The camera.

    Raises
    ------
    ConfigurationError
        When Picasso cannot be run.
    """
    # Picasso takes whole numbers, without a decimal point, for baseline and pixel size.
    options = {
        "-a": settings.fit,
        "-b": settings.box,
        "-g": f"{settings.gradient:g}",
        "-bl": f"{offset_adu:g}",
        "-s": e_per_adu,
        "-ga": 1,
        "-px": f"{pixel_size_nm:g}",
        "-d": 0,
    }
    flags = [str(part) for option in options.items() for part in option]
    command = [str(python), "-m", "picasso", "localize", str(movies), *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ConfigurationError(f"{python} cannot be run ({error.strerror}); give the Python of Picasso.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigurationError(f"Picasso failed in {python}: {last}")


#: Runs in Picasso's environment: movies from the disk, everything compiled before the clock starts.
_WARM = """
import json, os, sys, time
fit, box, gradient, offset, e_per_adu, pixel_nm, processors, repeats, *paths = sys.argv[1:]
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(processors)])
from picasso import io, localize
camera = {"Baseline": float(offset), "Sensitivity": float(e_per_adu), "Gain": 1, "Pixelsize": float(pixel_nm)}
found = {}
for path in paths:
    movie, _ = io.load_movie(path)
    seconds = []
    for _ in range(int(repeats) + 1):
        began = time.perf_counter()
        spots = localize.identify(movie, float(gradient), int(box), threaded=True, return_info=False)
        localize.fit(movie, camera_info=camera, identifications=spots, box=int(box), fitting_method=fit)
        seconds.append(time.perf_counter() - began)
    found[path] = {"seconds": sorted(seconds[1:])[int(repeats) // 2], "molecules": len(spots)}
print("RESULT" + json.dumps(found))
"""


def time_picasso(
    python: Path,
    movies: Mapping[str, Path],
    settings: PicassoSettings,
    *,
    offset_adu: float,
    e_per_adu: float,
    pixel_size_nm: float,
    processors: int,
    repeats: int,
) -> dict[str, dict[str, float]]:
    """Time Picasso's Python interface after one run to warm up: spots found and fitted, from files.

    Parameters
    ----------
    python : Path
        Interpreter of the environment that Picasso is installed in.
    movies : mapping from str to Path
        Movies by name.
    settings : PicassoSettings
        Fit, box and threshold.
    offset_adu, e_per_adu, pixel_size_nm : float
        The camera.
    processors : int
        Processor cores that it may use.
    repeats : int
        The median of so many runs counts.

    Returns
    -------
    dict of str to dict
        ``seconds`` and ``molecules`` of each movie.

    Raises
    ------
    ConfigurationError
        When Picasso cannot be run.
    """
    import json

    fit = {"lq": "gausslq", "mle": "gaussmle"}[settings.fit]
    numbers = (settings.box, settings.gradient, offset_adu, e_per_adu, pixel_size_nm, processors, repeats)
    command = [str(python), "-c", _WARM, fit, *map(str, numbers), *map(str, movies.values())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ConfigurationError(f"{python} cannot be run ({error.strerror}); give the Python of Picasso.") from None
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
    if done.returncode or line is None:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigurationError(f"Picasso failed in {python}: {last}")
    found = json.loads(line.removeprefix("RESULT"))
    return {name: found[str(path)] for name, path in movies.items()}


def _read(path: Path, movie: Any, pixel_size_nm: float) -> Localizations:
    n_frames, height, width = np.shape(movie)
    info = MovieInfo(n_frames, height, width, pixel_size_nm, path.stem)
    if not path.exists():
        return Localizations.empty(info)
    return read_table(path, pixel_size_nm=pixel_size_nm).with_info(info)
