"""A recipe file in; movie, truth and recipe on disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import Cancelled, OutputError
from smlm_pb.simulation.movie import iterate_frames, truth_table
from smlm_pb.simulation.recipe import Recipe

#: Movies above this size need the BigTIFF variant; the classic one ends at 4 GiB, compression not counted.
_CLASSIC_TIFF_BYTES = 3_900_000_000


def simulate_to_file(
    recipe_path: str | Path,
    out_dir: str | Path,
    *,
    seed: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Path]:
    """Simulate the movie of a recipe file into a folder.

    Nothing appears under its final name before everything is complete.

    Parameters
    ----------
    recipe_path : str or Path
        The recipe, a YAML file.
    out_dir : str or Path
        Folder for ``<recipe>.tif`` (OME-TIFF), ``<recipe>_truth.csv`` (ThunderSTORM, with the protocol file that
        holds the pixel size) and a copy of the recipe; made if it is not there.
    seed : int, optional
        Seed of all randomness in place of the recipe's own; the copy of the recipe then holds this one.
    overwrite : bool
        Whether to replace what is there.
    on_progress : callable, optional
        Called with (frames done, frames in all).
    should_stop : callable, optional
        Asked before each frame; True ends the work and leaves nothing behind.

    Returns
    -------
    list of Path
        What was written: movie, truth, recipe (unless it lies in the same folder already).

    Raises
    ------
    ConfigurationError
        When the recipe is wrong.
    OutputError
        When results are there already, or the folder cannot be made or written to.
    Cancelled
        When ``should_stop`` said so.
    """
    from smlm_pb.formats import write_table

    recipe_path, out_dir = Path(recipe_path), Path(out_dir)
    recipe = Recipe.from_yaml(recipe_path)
    stem = recipe_path.stem
    copies_recipe = _check_targets(recipe_path, out_dir, seed=seed, overwrite=overwrite)
    with _work_folder(out_dir, stem) as folder:
        columns: list[dict[str, npt.NDArray[Any]]] = []
        write_movie(
            folder / f"{stem}.tif",
            recipe,
            _pages(recipe, seed, columns, on_progress=on_progress, should_stop=should_stop),
        )
        written = [folder / f"{stem}.tif"]
        written += write_table(truth_table(recipe, columns, seed), folder / f"{stem}_truth.csv", format="thunderstorm")
        if copies_recipe:
            written.append(_copy_recipe(recipe_path, folder / recipe_path.name, recipe, seed))
        _refuse_existing([out_dir / path.name for path in written], overwrite=overwrite)
        for path in written:
            path.replace(out_dir / path.name)
    return [out_dir / path.name for path in written]


def write_movie(path: Path, recipe: Recipe, pages: Iterator[npt.NDArray[np.uint16]]) -> None:
    """Write frames as a compressed OME-TIFF that states the pixel size.

    Parameters
    ----------
    path : Path
        The file.
    recipe : Recipe
        Length and size of the movie, pixel size and exposure.
    pages : iterator of array (height, width)
        The frames.
    """
    import tifffile

    pixel_um = recipe.pixel_size_nm / 1000.0
    metadata: dict[str, Any] = {
        "axes": "TYX",
        "Name": recipe.name,
        "PhysicalSizeX": pixel_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": pixel_um,
        "PhysicalSizeYUnit": "µm",
    }
    if recipe.exposure_ms is not None:
        metadata |= {"TimeIncrement": recipe.exposure_ms / 1000.0, "TimeIncrementUnit": "s"}
    tifffile.imwrite(
        path,
        pages,
        shape=(recipe.frames, *recipe.shape),
        dtype=np.uint16,
        ome=True,
        bigtiff=recipe.frames * recipe.height * recipe.width * 2 > _CLASSIC_TIFF_BYTES,
        photometric="minisblack",
        compression="zlib",
        # Programs that do not read OME find the pixel size here.
        resolution=(1e4 / pixel_um, 1e4 / pixel_um),
        resolutionunit="CENTIMETER",
        metadata=metadata,
    )


def _check_targets(recipe_path: Path, out_dir: Path, *, seed: int | None, overwrite: bool) -> bool:
    """Refuse what must not be replaced; returns whether the recipe is to be copied."""
    if out_dir.exists() and not out_dir.is_dir():
        raise OutputError(f"{out_dir} is a file; give a folder.")
    copy = out_dir / recipe_path.name
    copies_recipe = not (copy.exists() and copy.samefile(recipe_path))
    if not copies_recipe and seed is not None:
        raise OutputError(
            f"With another seed the copy of the recipe would replace {recipe_path} itself;"
            " choose another output folder."
        )
    targets = [out_dir / f"{recipe_path.stem}.tif", out_dir / f"{recipe_path.stem}_truth.csv"]
    targets += [copy] if copies_recipe else []
    _refuse_existing(targets, overwrite=overwrite)
    return copies_recipe


def _refuse_existing(targets: list[Path], *, overwrite: bool) -> None:
    there = [path for path in targets if path.exists()]
    if there and not overwrite:
        raise OutputError(f"{there[0]} exists already; allow overwriting, or choose another output folder.")


@contextmanager
def _work_folder(out_dir: Path, stem: str) -> Iterator[Path]:
    """Give a folder beside the targets, so that finished files are moved and not copied, and take it away."""
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{stem}-", dir=out_dir)
    except OSError as error:
        raise OutputError(
            f"{out_dir} cannot be written to: {error.strerror or error}; choose another folder."
        ) from error
    with folder as name:
        yield Path(name)


def _pages(
    recipe: Recipe,
    seed: int | None,
    columns: list[dict[str, npt.NDArray[Any]]],
    *,
    on_progress: Callable[[int, int], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Iterator[npt.NDArray[np.uint16]]:
    """Yield the frames for the file, and collect their truth in ``columns``."""
    for index, frame in enumerate(iterate_frames(recipe, seed)):
        if should_stop is not None and should_stop():
            raise Cancelled(f"simulation stopped after {index} of {recipe.frames} frames; nothing was written.")
        columns.append(frame.columns)
        # Before the frame is handed over: the writer does not come back after the last one.
        if on_progress is not None:
            on_progress(index + 1, recipe.frames)
        yield frame.adu


def _copy_recipe(source: Path, target: Path, recipe: Recipe, seed: int | None) -> Path:
    other_seed = seed is not None and seed != recipe.seed
    # The place of a PSF file is told relative to the recipe, and the copy lies elsewhere.
    if not other_seed and recipe.psf.file is None:
        shutil.copyfile(source, target)
        return target
    import yaml

    values = {**recipe.as_dict(), **({"seed": seed} if other_seed else {})}
    what = f" with seed {seed}" if other_seed else ""
    header = f"# {source.name}{what}, every default written out.\n"
    target.write_text(header + yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return target
