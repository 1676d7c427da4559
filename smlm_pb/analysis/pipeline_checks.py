"""The steps of a pipeline that judge: quality, residuals, digital twin, superposition.

They change no table. Each leaves a JSON file with its figures and a picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smlm_pb.analysis.pipeline_file import (
        Pipeline,
        QualityStep,
        ResidualsStep,
        SuperpositionStep,
        TwinStep,
    )
    from smlm_pb.localization.job import OnProgress, ShouldStop
    from smlm_pb.localizations import Localizations

#: Steps that judge, in the order in which they are done.
CHECKS = ("quality", "residuals", "twin", "superposition")


@dataclass(frozen=True)
class Tables:
    """What the steps look at.

    Parameters
    ----------
    localized : Localizations
        As localized: neither filtered nor moved.
    single : Localizations
        After all steps but linking.
    """

    localized: Localizations
    single: Localizations


@dataclass(frozen=True)
class Checked:
    """What a step found: the result itself, one sentence, plain values, and how to draw it."""

    result: Any
    text: str
    values: dict[str, Any]
    draw: Callable[[], Figure]


def check_files(out: Path, name: str, step: str) -> list[Path]:
    """Files that a step leaves: its figures first."""
    files = [out / f"{name}_{step}.json", out / f"{name}_{step}.png"]
    return [*files, out / f"{name}_suspects.csv"] if step == "residuals" else files


def refuse_impossible(pipeline: Pipeline, start: Localizations | None) -> None:
    """Say before anything is done why a step cannot be; ``start`` is the table the pipeline starts from, if any."""
    from smlm_pb.analysis.residuals import pixel_conditions
    from smlm_pb.analysis.table_conditions import conditions_of

    if pipeline.twin is not None:
        _check_twin(pipeline)
        if start is not None:
            conditions_of(start)
    if pipeline.residuals is not None and start is not None:
        pixel_conditions(start, None, pipeline.residuals.psf_sigma_px, None)


def _check_twin(pipeline: Pipeline) -> None:
    from smlm_pb.localization.model import find_model

    assert pipeline.twin is not None
    if pipeline.twin.model is not None:
        find_model(pipeline.twin.model)


def run_check(
    step: str,
    pipeline: Pipeline,
    tables: Tables,
    files: list[Path],
    on_progress: OnProgress | None,
    should_stop: ShouldStop | None,
) -> Checked:
    """Do one of the steps that judge and write its files.

    Parameters
    ----------
    step : str
        One of :data:`CHECKS`.
    pipeline : Pipeline
        Its settings, and the movie.
    tables : Tables
        What there is to judge.
    files : list of Path
        From :func:`check_files`.
    on_progress, should_stop : callable, optional
        As for :func:`smlm_pb.localize`.

    Returns
    -------
    Checked

    Raises
    ------
    SmlmPbError
        What the function of that step says.
    """
    from smlm_pb.analysis.figures import save_figure
    from smlm_pb.formats import write_table
    from smlm_pb.formats.output import written_whole

    follow: dict[str, Any] = {"on_progress": on_progress, "should_stop": should_stop}
    settings = getattr(pipeline, step)
    if step == "quality":
        checked = _quality(tables.single, settings)
    elif step == "residuals":
        checked = _residuals(tables.localized, settings, pipeline, follow)
        write_table(checked.result.suspects, files[2], overwrite=True)
    elif step == "twin":
        checked = _twin(tables.localized, settings, pipeline, follow)
    else:
        checked = _superposition(tables.localized, settings, pipeline, follow)
    with written_whole(files[0], True) as temporary:
        temporary.write_text(json.dumps(checked.values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    save_figure(checked.draw(), files[1], overwrite=True)
    return checked


def _quality(locs: Localizations, settings: QualityStep) -> Checked:
    from smlm_pb.analysis.quality_figure import quality_figure
    from smlm_pb.analysis.quality_report import quality

    found = quality(locs, n_blocks=settings.blocks, n_repeats=settings.repeats, seed=settings.seed)
    parts = []
    if found.nena is not None:
        parts.append(f"precision {found.nena.sigma_nm:.3g} nm (NeNA)")
    if found.frc is not None:
        parts.append(f"resolution {found.frc.resolution_nm:.3g} nm (FRC)")
    text = ", ".join(parts) or "neither precision nor resolution could be measured"
    return Checked(found, text, found.as_dict(), lambda: quality_figure(locs, found))


def _residuals(locs: Localizations, settings: ResidualsStep, pipeline: Pipeline, follow: dict[str, Any]) -> Checked:
    from smlm_pb.analysis.residual_figure import residual_figure
    from smlm_pb.analysis.residuals import residual_map

    found = residual_map(
        locs,
        pipeline.movie,
        psf_sigma_px=settings.psf_sigma_px,
        max_frames=settings.max_frames,
        tile_px=settings.tile_px,
        least_score=settings.least_score,
        device=_device(pipeline),
        **follow,
    )
    return Checked(found, _sentence(found.advice()), found.as_dict(), lambda: residual_figure(found))


def _twin(locs: Localizations, settings: TwinStep, pipeline: Pipeline, follow: dict[str, Any]) -> Checked:
    from smlm_pb.analysis.twin import digital_twin
    from smlm_pb.evaluation.error_table import budget_figure

    found = digital_twin(
        locs,
        model=settings.model or (None if pipeline.localize is None else pipeline.localize.model),
        psf_sigma_px=settings.psf_sigma_px,
        n_frames=settings.n_frames,
        tolerance_nm=settings.tolerance_nm,
        by=settings.by,
        device=_device(pipeline),
        seed=settings.seed,
        **follow,
    )
    return Checked(found, _sentence(found.advice()), found.as_dict(), lambda: budget_figure([found.budget]))


def _superposition(
    locs: Localizations, settings: SuperpositionStep, pipeline: Pipeline, follow: dict[str, Any]
) -> Checked:
    from smlm_pb.analysis.superposing import superposition
    from smlm_pb.analysis.superposition_figure import superposition_figure
    from smlm_pb.analysis.table_conditions import conditions_of

    known = conditions_of(locs)
    if known.camera is None:
        raise ConfigurationError(
            "Step superposition: the table does not tell its camera; start with localize, or use the command "
            "smlm-pb superposition."
        )
    model = known.model if pipeline.localize is None else pipeline.localize.model
    found = superposition(
        pipeline.movie,
        model=model or "default",
        camera=known.camera,
        pixel_size_nm=locs.info.pixel_size_nm,
        psf_sigma_px=known.psf_sigma_px,
        frames=known.frames,
        device=_device(pipeline),
        added=settings.added,
        max_frames=settings.max_frames,
        gap_frames=settings.gap_frames,
        tolerance_nm=settings.tolerance_nm,
        least_jaccard=settings.least_jaccard,
        **follow,
    )
    return Checked(found, _sentence(found.advice()), found.as_dict(), lambda: superposition_figure(found))


def _device(pipeline: Pipeline) -> str:
    return "auto" if pipeline.localize is None else pipeline.localize.device


def _sentence(text: str) -> str:
    return text.rstrip(".")
