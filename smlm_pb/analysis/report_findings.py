"""Everything a report tells, gathered before anything is drawn."""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from smlm_pb.analysis.table_conditions import frames_of
from smlm_pb.errors import SmlmPbError

if TYPE_CHECKING:
    from smlm_pb.analysis.quality_report import Quality
    from smlm_pb.analysis.residual_result import ResidualMap
    from smlm_pb.analysis.split_comparison import Repeatability
    from smlm_pb.analysis.twin import DigitalTwin
    from smlm_pb.evaluation import Evaluation, PullByDensity, Reliability
    from smlm_pb.localizations import Localizations

FloatArray = npt.NDArray[np.float64]
Result = TypeVar("Result")


@dataclass
class Findings:
    """What is known of a table.

    Parameters
    ----------
    locs : Localizations
        The table the report is about.
    quality : Quality or None
        Judgement without truth; None for an empty table.
    frame_edges : array (n + 1,)
        Stretches of the movie.
    over_time : dict
        Per stretch: localizations per frame, median photons, median background.
    localize_step : dict
        The step of the history that found the molecules; empty where the table does not tell.
    warnings : tuple of str
        What the user should look at.
    evaluation : Evaluation or None
    reliability : Reliability or None
    pull : PullByDensity or None
        Comparison with the truth, where it is given.
    repeatability : Repeatability or None
        Photon splitting, where it was done.
    twin : DigitalTwin or None
        What errors cost on a simulated movie like this one, where that was done.
    residuals : ResidualMap or None
        What the table leaves unexplained of its movie, where that was looked at.
    reasons : dict
        Why something could not be computed.
    """

    locs: Localizations
    quality: Quality | None = None
    frame_edges: FloatArray = field(default_factory=lambda: np.zeros(0))
    over_time: dict[str, FloatArray] = field(default_factory=dict)
    localize_step: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    evaluation: Evaluation | None = None
    reliability: Reliability | None = None
    pull: PullByDensity | None = None
    repeatability: Repeatability | None = None
    twin: DigitalTwin | None = None
    residuals: ResidualMap | None = None
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def median(self) -> dict[str, float]:
        """Medians of photons, background, sigma_nm and probability, as far as known."""
        return {} if self.quality is None else {name: spread[2] for name, spread in self.quality.spreads.items()}

    def judgements(self) -> list[str]:
        """What the computed figures say against the table."""
        notes = [] if self.quality is None else list(self.quality.notes)
        notes += [] if self.repeatability is None else list(self.repeatability.notes)
        return notes + ([] if self.evaluation is None else list(self.evaluation.notes))

    @property
    def frames(self) -> tuple[int, int]:
        """First frame that was localized, and the one after the last."""
        return frames_of(self.locs)

    @property
    def per_frame(self) -> float:
        """Mean number of rows per frame that was localized."""
        return len(self.locs) / max(self.frames[1] - self.frames[0], 1)

    @property
    def kind(self) -> str:
        """What a row is."""
        return "blinks" if self.is_linked else "localizations"

    @property
    def is_linked(self) -> bool:
        """Whether the rows are blinks, not single frames of them."""
        return "n_localizations" in self.locs


def gather(
    locs: Localizations,
    *,
    truth: Localizations | None = None,
    unlinked: Localizations | None = None,
    repeatability: Repeatability | None = None,
    twin: DigitalTwin | None = None,
    residuals: ResidualMap | None = None,
) -> Findings:
    """Compute all that a report tells of a table.

    Parameters
    ----------
    locs : Localizations
        The table.
    truth : Localizations, optional
        The true molecules.
    unlinked : Localizations, optional
        The table before linking: precision is measured and the truth compared frame by frame.
    repeatability : Repeatability, optional
        From :func:`smlm_pb.analysis.repeatability`.
    twin : DigitalTwin, optional
        From :func:`smlm_pb.analysis.digital_twin`.
    residuals : ResidualMap, optional
        From :func:`smlm_pb.analysis.residual_map`.

    Returns
    -------
    Findings
        With a reason for everything that could not be computed.
    """
    found = Findings(locs, repeatability=repeatability, twin=twin, residuals=residuals)
    found.localize_step = locs.last_step("localize")
    single = locs if unlinked is None else unlinked
    heard: list[str] = []
    with _listening(heard):
        if len(locs):
            _judge(found, single)
        else:
            found.reasons["molecules"] = "The table holds no molecules."
        if truth is not None:
            _compare(found, single, truth)
    found.warnings = tuple(dict.fromkeys([*_alarms(locs), *found.judgements(), *heard]))
    return found


def _judge(found: Findings, single: Localizations) -> None:
    from dataclasses import replace

    from smlm_pb.analysis.quality_report import quality

    judged = quality(found.locs)
    if found.is_linked and "n_localizations" not in single and len(single):
        # Of blinks only spreads and resolution can be told; the rest needs every frame.
        apart = quality(single)
        reasons = {**{k: v for k, v in judged.reasons.items() if k != "NeNA"}, **apart.reasons}
        judged = replace(apart, spreads=judged.spreads, frc=judged.frc, reasons=reasons)
    elif found.is_linked:
        reason = "The molecules are linked; NeNA needs every frame of a molecule."
        judged = replace(judged, nena=None, reasons={**judged.reasons, "NeNA": reason})
    found.quality = judged
    found.reasons.update(judged.reasons)
    start, stop = found.frames
    found.frame_edges = np.unique(np.linspace(start, stop, min(60, stop - start) + 1).round())
    found.over_time = _over_time(found.locs, found.frame_edges)


def _over_time(locs: Localizations, edges: FloatArray) -> dict[str, FloatArray]:
    frame = locs["frame"].astype(np.float64)
    curves = {"per_frame": np.histogram(frame, edges)[0] / np.diff(edges)}
    which = np.searchsorted(edges, frame, side="right") - 1
    order = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[order], np.arange(len(edges)))
    for name in ("photons", "background"):
        if name in locs:
            parts = np.split(locs[name][order].astype(np.float64), bounds[1:-1])
            curves[name] = np.array([np.nanmedian(p) if np.isfinite(p).any() else np.nan for p in parts])
    return curves


def _compare(found: Findings, single: Localizations, truth: Localizations) -> None:
    from smlm_pb.evaluation import evaluate, pull_by_density, reliability

    # Molecules in frames that nobody looked at are not missed.
    start, stop = found.frames
    truth = truth.select((truth["frame"] >= start) & (truth["frame"] < stop))
    found.evaluation = _or_reason(found, "truth", lambda: evaluate(single, truth))
    if found.evaluation is None:
        return
    if "probability" in single and len(single):
        found.reliability = _or_reason(found, "probabilities", lambda: reliability(single, truth))
    if "sigma_x" in single and "sigma_y" in single and len(single):
        found.pull = _or_reason(found, "pull", lambda: pull_by_density(single, truth))


def _or_reason(found: Findings, name: str, compute: Callable[[], Result]) -> Result | None:
    try:
        return compute()
    except SmlmPbError as error:
        found.reasons[name] = str(error)
        return None


@contextmanager
def _listening(heard: list[str]) -> Iterator[None]:
    """Collect the warnings of the package instead of showing them; those of others stay what they are."""
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        yield
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            heard.append(str(warning.message))
        else:
            python_warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _alarms(locs: Localizations) -> list[str]:
    """What the steps of the history warned of."""
    return [str(text) for step in locs.provenance for text in step.get("warnings", []) or []]
