"""Doing what a pipeline file says: every step rehearsed before the first one starts, every result kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.analysis.pipeline_checks import CHECKS, Tables, check_files, refuse_impossible, run_check
from smlm_pb.errors import SmlmPbError

if TYPE_CHECKING:
    from smlm_pb.analysis.drift import Drift
    from smlm_pb.analysis.pipeline_file import DriftStep, FilterStep, LinkStep, Pipeline, RenderStep
    from smlm_pb.localization.job import OnProgress, ShouldStop
    from smlm_pb.localizations import Localizations, MovieInfo

#: What each step adds to the name of its table; the commands do the same.
SUFFIXES = {"filter": "_filtered", "drift": "_undrifted", "link": "_linked"}
_ENDING = ".hdf5"

#: What refinement adds to a table.
_REFINED_COLUMNS = ["sigma_photons", "chi2", "log_likelihood_ratio", "refinement"]

OnStep = Callable[[str, str], None]


@dataclass
class PipelineResult:
    """What a pipeline has written.

    Parameters
    ----------
    files : dict
        File of every step, by its name; ``settings`` is the pipeline with all defaults filled in.
    rows : dict
        Rows of the table after each step.
    """

    files: dict[str, Path] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    """Where everything goes."""

    tables: dict[str, Path]
    checks: dict[str, list[Path]]
    images: tuple[Path, ...]
    report: Path | None
    settings: Path

    @property
    def targets(self) -> list[Path]:
        kept = [path for name, path in self.tables.items() if name not in ("start", "localize")]
        checks = [path for files in self.checks.values() for path in files]
        return [*kept, *checks, *([self.report] if self.report else []), self.settings]


def run_pipeline(
    pipeline: Pipeline,
    *,
    out_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_begin: Callable[[str], None] | None = None,
    on_step: OnStep | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> PipelineResult:
    """Run a pipeline.

    Parameters
    ----------
    pipeline : Pipeline
        What to do.
    out_dir : path, optional
        Folder of the results, instead of the one the pipeline names; made if missing.
    overwrite : bool
        Replace results that exist.
    resume : bool
        Continue a localization that was interrupted, keep one that is complete; the quick steps after it are done
        again.
    on_begin : callable, optional
        Called with the name of each step when it begins.
    on_step : callable, optional
        Called with (name of the step, what came out) after each step.
    on_progress, should_stop : callable, optional
        As for :func:`smlm_pb.localize`, for the steps that take long.

    Returns
    -------
    PipelineResult

    Raises
    ------
    SmlmPbError
        Before anything is done, when an input, an option or a target is wrong; results of finished steps stay.
    """
    out = Path(pipeline.out if out_dir is None else out_dir)
    plan = _plan(pipeline, out)
    truth = _check(pipeline, plan, replace_results=overwrite or resume)
    result = PipelineResult()

    def begin(step: str) -> None:
        if on_begin is not None:
            on_begin(step)

    def tell(step: str, path: Path, text: str, rows: int | None = None) -> None:
        result.files[step] = path
        if rows is not None:
            result.rows[step] = rows
        if on_step is not None:
            on_step(step, text)

    _make_folder(out)
    _write_settings(pipeline, plan.settings, overwrite or resume)
    result.files["settings"] = plan.settings
    if pipeline.localize is not None:
        begin("localize")
    locs = _start(pipeline, out, plan, overwrite, resume, on_progress, should_stop, tell)
    localized, unlinked, drift = locs, None, None
    for name in SUFFIXES:
        settings = getattr(pipeline, name)
        if settings is None:
            continue
        begin(name)
        before = locs
        if name == "drift":
            locs, drift = _correct_drift(before, settings, on_progress, should_stop)
            text = _describe_drift(drift)
        else:
            locs = _APPLY[name](before, settings)
            text = f"{len(locs)} of {len(before)} rows"
        if name == "link" and not settings.keep_rows:
            unlinked = before
        _save(locs, plan.tables[name])
        tell(name, plan.tables[name], text, len(locs))
    tables = Tables(localized, locs if unlinked is None else unlinked)
    checked: dict[str, Any] = {}
    for name, files in plan.checks.items():
        begin(name)
        with _named(name):
            done = run_check(name, pipeline, tables, files, on_progress, should_stop)
        checked[name] = done.result
        tell(name, files[0], done.text)
    if pipeline.render is not None:
        begin("render")
        drawn = _render(locs, pipeline.render, plan.images)
        tell("render", plan.images[0], drawn)
    if pipeline.report is not None and plan.report is not None:
        begin("report")
        found = {"drift": drift, **{name: checked.get(name) for name in ("twin", "residuals")}}
        _report(pipeline, locs, localized, unlinked, truth, found, plan.report, on_progress, should_stop)
        tell("report", plan.report, "written")
    return result


# -- before the start --------------------------------------------------------------------------------------


def _plan(pipeline: Pipeline, out: Path) -> _Plan:
    from smlm_pb.localization.to_file import TABLE_ENDING, table_path
    from smlm_pb.movies.tiff import movie_name

    if pipeline.locs is not None:
        start = Path(pipeline.locs)
        name = start.name.removesuffix(TABLE_ENDING) if start.name.endswith(TABLE_ENDING) else start.stem
        tables = {"start": start}
        stem = start.stem
    else:
        movie = Path(str(pipeline.movie))
        name = movie.name if movie.is_dir() and movie.suffix != ".zarr" else movie_name(movie)
        tables = {"localize": table_path(name, out)}
        stem = tables["localize"].name.removesuffix(_ENDING)
    for step, suffix in SUFFIXES.items():
        if getattr(pipeline, step) is not None:
            stem += suffix
            tables[step] = out / f"{stem}{_ENDING}"
    endings = () if pipeline.render is None else pipeline.render.endings
    return _Plan(
        tables=tables,
        checks={step: check_files(out, name, step) for step in CHECKS if getattr(pipeline, step) is not None},
        images=tuple(out / f"{name}.{ending}" for ending in dict.fromkeys(endings)),
        report=None if pipeline.report is None else out / f"{name}_report.html",
        settings=out / f"{name}_pipeline.yaml",
    )


def _check(pipeline: Pipeline, plan: _Plan, *, replace_results: bool) -> Localizations | None:
    """Find whatever is wrong before any work; returns the truth where there is one."""
    from smlm_pb.analysis.picture import check_image
    from smlm_pb.formats import read_table
    from smlm_pb.formats.output import check_target
    from smlm_pb.localizations import Localizations
    from smlm_pb.movies import open_movie

    info: MovieInfo | None = None
    if pipeline.movie is not None:
        movie = open_movie(pipeline.movie)
        info = movie.info
        movie.close()
    if pipeline.locs is not None:
        table = read_table(pipeline.locs)
        refuse_impossible(pipeline, table)
        sample = _example(table.column_names, table.info)
    else:
        assert info is not None
        assert pipeline.localize is not None
        refuse_impossible(pipeline, None)
        step = pipeline.localize
        _check_model(step.model, "auto" if step.scheduler else step.device)
        columns = [*Localizations.empty(info).column_names]
        columns += [] if pipeline.localize.refine == "off" else _REFINED_COLUMNS
        sample = _example(columns, info, pipeline.localize.pixel_size_nm)
    for check, targets in ((check_target, plan.targets), (check_image, plan.images)):
        for target in targets:
            if target.parent.is_dir():
                check(target, replace_results)
    truth = None
    if pipeline.report is not None and pipeline.report.truth is not None:
        truth = read_table(pipeline.report.truth)
    _rehearse(pipeline, sample)
    return truth


def _check_model(model: str, device: str) -> None:
    from smlm_pb.devices import choose_device
    from smlm_pb.localization.model import find_model
    from smlm_pb.localization.model_card import ModelCard

    ModelCard.load(find_model(model))
    choose_device(device)


def _example(columns: Any, info: MovieInfo, pixel_size_nm: float | None = None) -> Localizations:
    """Two molecules with the columns the real table will have."""
    from dataclasses import replace

    from smlm_pb.localizations import Localizations

    known = replace(info, pixel_size_nm=pixel_size_nm or info.pixel_size_nm)
    return Localizations({name: np.arange(1.0, 3.0) for name in columns}, known)


def _rehearse(pipeline: Pipeline, sample: Localizations) -> None:
    """Apply the steps to two molecules: the functions themselves say what they do not accept."""
    for name in ("filter", "link"):
        settings = getattr(pipeline, name)
        if settings is None:
            continue
        with _named(name):
            changed = _APPLY[name](sample, settings)
        sample = changed if len(changed) else sample
    if pipeline.render is not None:
        with _named("render"):
            _draw(sample, pipeline.render, rehearsal=True)


@contextmanager
def _named(step: str) -> Iterator[None]:
    """Add to a complaint which step it is about."""
    try:
        yield
    except SmlmPbError as error:
        raise type(error)(f"Step {step}: {error}") from error


# -- the steps ---------------------------------------------------------------------------------------------


def _start(
    pipeline: Pipeline,
    out: Path,
    plan: _Plan,
    overwrite: bool,
    resume: bool,
    on_progress: OnProgress | None,
    should_stop: ShouldStop | None,
    tell: Callable[..., None],
) -> Localizations:
    """The table to begin with: localized now, or there already."""
    from smlm_pb.formats import read_table
    from smlm_pb.localization.to_file import localize_to_file

    if pipeline.localize is None:
        return read_table(plan.tables["start"])
    options = pipeline.localize.model_dump()
    workers, scheduler, device = options.pop("workers"), options.pop("scheduler"), options.pop("device")
    with ExitStack() as stack:
        cluster = None
        if workers is not None or scheduler is not None:
            from smlm_pb.localization.cluster import Cluster

            cluster = stack.enter_context(Cluster(workers=workers, scheduler=scheduler, device=device))
        path = localize_to_file(
            pipeline.movie,
            out,
            **options,
            device="auto" if scheduler else device,
            cluster=cluster,
            overwrite=overwrite and not resume,
            resume=resume,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    locs = read_table(path)
    tell("localize", path, f"{len(locs)} molecules", len(locs))
    return locs


def _filter(locs: Localizations, settings: FilterStep) -> Localizations:
    from smlm_pb.analysis.filters import filter_by, filter_neighbours, filter_region

    for condition in settings.conditions:
        locs = filter_by(locs, condition)
    if settings.roi is not None:
        locs = filter_region(locs, settings.roi)
    if settings.min_neighbours is not None and settings.radius_nm is not None:
        locs = filter_neighbours(locs, radius_nm=settings.radius_nm, min_neighbours=settings.min_neighbours)
    return locs


def _link(locs: Localizations, settings: LinkStep) -> Localizations:
    from smlm_pb.analysis.linking import link

    return link(
        locs,
        radius_nm=settings.radius_nm,
        radius_sigma=settings.radius_sigma,
        max_dark_frames=settings.max_dark_frames,
        merge=not settings.keep_rows,
        dark_times=settings.dark_times,
    )


def _correct_drift(
    locs: Localizations, settings: DriftStep, on_progress: OnProgress | None, should_stop: ShouldStop | None
) -> tuple[Localizations, Drift]:
    from smlm_pb.analysis.drift import correct_drift

    return correct_drift(
        locs,
        method=settings.method,
        max_drift_nm=settings.max_drift_nm,
        n_stretches=settings.stretches,
        check=settings.check,
        seed=settings.seed,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def _describe_drift(drift: Drift) -> str:
    if not drift.accepted:
        return f"not corrected, because {drift.reason}"
    along_x, along_y = drift.range_nm
    return f"{along_x:.0f} nm along x and {along_y:.0f} nm along y were removed"


_APPLY: dict[str, Callable[[Localizations, Any], Localizations]] = {"filter": _filter, "link": _link}


def _draw(locs: Localizations, settings: RenderStep | None, *, rehearsal: bool = False) -> Any:
    from dataclasses import replace

    from smlm_pb.analysis.picture import to_picture
    from smlm_pb.analysis.rendering import render

    assert settings is not None
    if rehearsal:  # the same options on a field so small that drawing costs nothing
        locs = locs.with_info(replace(locs.info, height=4, width=4))
    method: Any = settings.method or ("gaussian" if settings.blur_nm is None else "blur")
    image = render(
        locs,
        pixel_size_nm=max(settings.pixel_size_nm, 10.0) if rehearsal else settings.pixel_size_nm,
        method=method,
        blur_nm=settings.blur_nm,
        min_blur_nm=settings.min_blur_nm,
        roi=None if rehearsal else settings.roi,
        colour_by=settings.colour_by,
        colour_limits=settings.colour_limits,
        colormap=settings.colormap or "turbo",
    )
    if rehearsal:
        to_picture(image.image, colormap=settings.colormap or "hot")
    return image


def _render(locs: Localizations, settings: RenderStep, targets: tuple[Path, ...]) -> str:
    from smlm_pb.analysis.picture import save_image

    image = _draw(locs, settings)
    for target in targets:
        save_image(
            image,
            target,
            colormap=settings.colormap or "hot",
            percentile=settings.percentile,
            gamma=settings.gamma,
            scale_bar=settings.scale_bar,
            dtype=settings.dtype,
            overwrite=True,
        )
    height, width = image.image.shape[:2]
    return f"{image.n_molecules} molecules on {height} × {width} pixels of {settings.pixel_size_nm:g} nm"


def _report(
    pipeline: Pipeline,
    locs: Localizations,
    localized: Localizations,
    unlinked: Localizations | None,
    truth: Localizations | None,
    found: dict[str, Any],
    path: Path,
    on_progress: OnProgress | None,
    should_stop: ShouldStop | None,
) -> None:
    from smlm_pb.analysis.photon_splitting import repeatability_of_table
    from smlm_pb.analysis.report import write_report

    assert pipeline.report is not None
    splitting = None
    if pipeline.report.repeatability:
        settings = pipeline.localize
        splitting = repeatability_of_table(
            localized,
            pipeline.movie,
            model="default" if settings is None else settings.model,
            device="auto" if settings is None else settings.device,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    write_report(
        locs,
        path,
        movie=pipeline.movie,
        truth=truth,
        unlinked=unlinked,
        **found,
        repeatability=splitting,
        title=pipeline.report.title,
        pixel_size_nm=pipeline.report.pixel_size_nm,
        overwrite=True,
    )


def _save(locs: Localizations, path: Path) -> None:
    from smlm_pb.formats import write_table

    write_table(locs, path, overwrite=True)


def _make_folder(folder: Path) -> None:
    from smlm_pb.errors import OutputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder {folder} cannot be made ({error.strerror}): choose another folder for the results."
        ) from error


def _write_settings(pipeline: Pipeline, path: Path, overwrite: bool) -> None:
    import yaml

    from smlm_pb.formats.output import written_whole

    text = yaml.safe_dump(pipeline.as_dict(), sort_keys=False, allow_unicode=True)
    with written_whole(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
