"""The end of a run: from the candidates in its work file to the table, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.localization.candidates import join_rows
from smlm_pb.localization.job import Job, at_or_above, choose_threshold
from smlm_pb.localization.range_check import check_range
from smlm_pb.localization.refining import Refining
from smlm_pb.localization.summary import Summary, SummaryBuilder
from smlm_pb.localization.threshold import Expectation, ProbabilityHistogram

if TYPE_CHECKING:
    import numpy.typing as npt

    from smlm_pb.localization.work_file import WorkFile

#: Rows that are handed to the writer at a time.
_WRITE_ROWS = 1 << 15


def write_table(
    job: Job, work: WorkFile, target: Path, *, remarks: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Choose the threshold over all that was found and write the table, whole or not at all.

    Parameters
    ----------
    job : Job
        The run.
    work : WorkFile
        What it has found.
    target : Path
        The table; one that is there is replaced.
    remarks : dict, optional
        Added to the step of the history.

    Returns
    -------
    dict
        The step of the history that the run is.
    list of str
        Warnings for the user.

    Raises
    ------
    OutputError
        When the disk is full.
    """
    from smlm_pb.formats.native import NativeWriter

    histogram = ProbabilityHistogram()
    for block in work.blocks():
        histogram.add(block.candidates.rows["probability"], block.candidates.expected_unlisted)
    expectation = choose_threshold(job.settings, histogram)
    builder = SummaryBuilder(job.conditions.n_frames, job.movie.height * job.movie.width)
    with NativeWriter(target, job.info, overwrite=True) as writer:
        refining = Refining(job)
        for table in refining.tables(_kept_rows(work, expectation)):
            builder.add(table)
            writer.append(table)
        provenance, warnings = _conclude(job, expectation, builder.finish())
        provenance["refinement"] = refining.as_dict()
        provenance |= remarks or {}
        writer.provenance = [provenance]
    return provenance, warnings


def _kept_rows(work: WorkFile, expectation: Expectation) -> Iterator[npt.NDArray[Any]]:
    """Rows at or above the threshold, in portions that are worth a write."""
    waiting: list[npt.NDArray[Any]] = []
    for block in work.blocks():
        rows = block.candidates.rows
        waiting.append(rows.take(np.flatnonzero(at_or_above(rows["probability"], expectation.threshold))))
        if sum(map(len, waiting)) >= _WRITE_ROWS:
            yield join_rows(waiting)
            waiting.clear()
    if waiting:
        yield join_rows(waiting)


def _conclude(job: Job, expectation: Expectation, summary: Summary) -> tuple[dict[str, Any], list[str]]:
    report = check_range(job, summary, expectation)
    warnings = list(report.warnings)
    return {**job.provenance(expectation, summary, warnings), "range": report.as_dict()}, warnings
