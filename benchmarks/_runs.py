"""One run of the program on one movie, and what it is worth against the truth."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.evaluation import best_threshold, evaluate, match, reliability
from smlm_pb.localizations import Localizations

if TYPE_CHECKING:
    from smlm_pb.localization import FinishedBlock, Model


@dataclass(frozen=True)
class Run:
    """What the public interface gave for one movie.

    Parameters
    ----------
    molecules : Localizations
        What a user gets: at or above the automatic threshold.
    candidates : Localizations
        Everything above the floor, to try other thresholds.
    threshold : float
        The automatic threshold.
    expected_jaccard : float or None
        What the run promises at that threshold, without any truth.
    conditions : dict
        Camera, PSF width and background that were used, and where they come from.
    warnings : tuple of str
        What the user was told.
    seconds : float
        Wall time of the call.
    """

    molecules: Localizations
    candidates: Localizations
    threshold: float
    expected_jaccard: float | None
    conditions: dict[str, Any]
    warnings: tuple[str, ...]
    seconds: float


def localize(movie: Any, model: Model, **options: Any) -> Run:
    """Call :func:`smlm_pb.localize` with the automatic threshold, and keep the other candidates too."""
    import smlm_pb

    parts: list[Localizations] = []

    def keep(block: FinishedBlock) -> None:
        parts.append(block.candidates)

    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        molecules = smlm_pb.localize(movie, model=model, on_block=keep, **options)
    seconds = time.perf_counter() - began
    step = molecules.provenance[-1]
    return Run(
        molecules=molecules,
        candidates=Localizations.concatenate(parts) if parts else molecules,
        threshold=step["threshold"]["threshold"],
        expected_jaccard=step["threshold"]["jaccard"],
        conditions=step["conditions"],
        warnings=tuple(str(warning.message) for warning in told),
        seconds=seconds,
    )


def seed_of(*parts: float) -> int:
    """A seed for one condition and repetition: movies that share one would share their molecules and noise."""
    return int(np.random.SeedSequence([round(1000 * part) for part in parts]).generate_state(1)[0])


def bound_px(truth: Localizations, photons: float, background_e: float, width_px: float, read_noise_e: float) -> float:
    """Cramér–Rao bound of molecules that stand alone, each at its own place within the pixel; root mean square, px."""
    from smlm_pb.refinement.crlb import crlb

    bound = crlb(
        photons,
        background_e,
        width_px,
        read_variance_e2=read_noise_e**2,
        dx=truth["x"] - np.rint(truth["x"]),
        dy=truth["y"] - np.rint(truth["y"]),
    )
    return float(np.sqrt(np.mean(np.concatenate([bound.sigma_x, bound.sigma_y]) ** 2)))


def write_movie(path: Path, blocks: Iterable[npt.NDArray[np.uint16]]) -> Path:
    """Write frames (n, y, x) as one TIFF stack of single pages, which every program reads as time."""
    import tifffile

    with tifffile.TiffWriter(path) as writer:
        for block in blocks:
            for frame in block:
                writer.write(frame, photometric="minisblack", contiguous=False, metadata=None)
    return path


def score(run: Run, truth: Localizations, *, tolerance_nm: float, border_nm: float) -> dict[str, Any]:
    """Everything that the sweep over densities reports of one movie.

    Parameters
    ----------
    run : Run
        The run.
    truth : Localizations
        What was there.
    tolerance_nm : float
        Matching distance.
    border_nm : float
        Margin of the field of view that is left out of the figures called ``inner``.

    Returns
    -------
    dict
        Plain numbers; errors are per axis, in nm.
    """
    whole = evaluate(run.molecules, truth, tolerance_nm=tolerance_nm, chance=False, check=False).at(tolerance_nm)
    inner = evaluate(
        run.molecules, truth, tolerance_nm=tolerance_nm, border_nm=border_nm, chance=False, check=False
    ).at(tolerance_nm)
    best = best_threshold(run.candidates, truth, tolerance_nm=tolerance_nm)
    calibration = reliability(run.candidates, truth, tolerance_nm=tolerance_nm)
    errors = matched_errors(run.molecules, truth, tolerance_nm)
    return {
        "molecules": len(run.molecules),
        "truth": len(truth),
        "threshold": run.threshold,
        "expected_jaccard": run.expected_jaccard,
        "jaccard": whole.jaccard,
        "precision": whole.precision,
        "recall": whole.recall,
        "jaccard_inner": inner.jaccard,
        "precision_inner": inner.precision,
        "recall_inner": inner.recall,
        "best_jaccard": best.best_jaccard,
        "best_threshold": best.best,
        "rmse_nm": np.sqrt((whole.rmse_x_nm**2 + whole.rmse_y_nm**2) / 2),
        "robust_error_nm": robust_deviation(errors.error_nm),
        "bias_x_nm": whole.bias_x_nm,
        "bias_y_nm": whole.bias_y_nm,
        "pull": float(np.std(errors.pull)) if errors.pull.size else None,
        "robust_pull": robust_deviation(errors.pull),
        "reported_nm": float(np.sqrt(np.mean(errors.sigma_nm**2))) if errors.sigma_nm.size else None,
        "photon_ratio": whole.photon_ratio,
        "calibration_error": calibration.expected_calibration_error,
        "reliability": {
            "count": calibration.count,
            "reported": np.nan_to_num(calibration.mean_probability * calibration.count),
            "existing": np.nan_to_num(calibration.observed * calibration.count),
        },
    }


@dataclass(frozen=True)
class MatchedErrors:
    """Errors of matched molecules, x and y one after the other.

    Parameters
    ----------
    error_nm, sigma_nm : array (2 n,)
        Prediction minus truth, and the precision that was reported.
    """

    error_nm: npt.NDArray[np.float64]
    sigma_nm: npt.NDArray[np.float64]

    @property
    def pull(self) -> npt.NDArray[np.float64]:
        """Error in units of the reported precision."""
        return self.error_nm / self.sigma_nm


def matched_errors(pred: Localizations, truth: Localizations, tolerance_nm: float) -> MatchedErrors:
    """Pair the tables and list the errors."""
    pairs = match(pred, truth, tolerance_nm)
    pixel = truth.info.pixel_size_nm or float("nan")
    errors = [pred[a][pairs.pred].astype(np.float64) - truth[a][pairs.truth].astype(np.float64) for a in "xy"]
    sigmas = [pred[f"sigma_{a}"][pairs.pred].astype(np.float64) for a in "xy"]
    return MatchedErrors(np.concatenate(errors) * pixel, np.concatenate(sigmas) * pixel)


def robust_deviation(values: npt.NDArray[np.float64]) -> float:
    """Standard deviation of the normal distribution with the same median absolute value; NaN without values."""
    return float(1.4826 * np.median(np.abs(values))) if values.size else float("nan")
