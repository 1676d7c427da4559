"""How good a second stage is on examples it was not trained with, and the calibration that follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from smlm_pb.localization.sigma_calibration import SigmaCalibration, Stated
from smlm_pb.losses.map_grid import MapGrid
from smlm_pb.networks.second_look import SecondLook, outputs_of, stated_logit
from smlm_pb.training.second_stage_examples import Examples

FloatArray = npt.NDArray[np.float64]


def judge_maps(network: SecondLook, grid: MapGrid, examples: Examples) -> tuple[dict[str, Any], dict[str, Any]]:
    """Calibrate the spread of maps, and compare them with the table.

    Parameters
    ----------
    network, grid : SecondLook, MapGrid
        The read-out.
    examples : Examples
        Held out.

    Returns
    -------
    calibration, accuracy : dict
        Curves for the card; errors per axis in units of each molecule's stated precision, and pulls.
    """
    known = examples.select(examples.exists)
    moments = grid.moments(outputs_of(network, known.looks.channels, known.looks.facts).double())
    unit = known.looks.unit_px[:, None]
    sigma = np.sqrt(torch.diagonal(moments.covariance, dim1=1, dim2=2).numpy()) * unit
    error = known.error_px - moments.mean.numpy() * unit
    limit, crowded = known.stated["limit_px"], known.stated["crowding"]
    both = [Stated(sigma[:, k], limit, crowded) for k in (0, 1)]
    stated = Stated(sigma.T.reshape(-1), np.tile(limit, 2), np.tile(crowded, 2))
    in_scene = np.bincount(known.scene)[known.scene]
    calibration = SigmaCalibration.fit(stated, error.T.reshape(-1), np.tile(1.0 / in_scene, 2))
    pull = np.stack([error[:, k] / calibration.apply(both[k]) for k in (0, 1)])
    before = np.stack((known.stated["sigma_y"], known.stated["sigma_x"]), axis=1)
    accuracy = {
        "molecules": len(error),
        "rmse_px": _number(np.sqrt(np.mean(error**2))),
        "rmse_px_before": _number(np.sqrt(np.mean(known.error_px**2))),
        "error_in_stated": _number(np.sqrt(np.mean((error / unit) ** 2))),
        "error_in_stated_before": _number(np.sqrt(np.mean((known.error_px / unit) ** 2))),
        "pull": _number(pull.std()),
        "pull_before": _number((known.error_px / before).std()),
        "within_68": _number(np.mean(np.abs(pull) < 1.0)),
        "within_95": _number(np.mean(np.abs(pull) < 1.96)),
    }
    return calibration.as_dict(), accuracy


def judge_verifier(network: SecondLook, examples: Examples) -> dict[str, Any]:
    """Compare probabilities after and before a second look: area under the ROC curve, Brier score, calibration."""
    exists = examples.exists
    before = examples.stated["probability"]
    change = outputs_of(network, examples.looks.channels, examples.looks.facts)[:, 0].numpy()
    after = 1.0 / (1.0 + np.exp(-(stated_logit(before).astype(np.float64) + change)))
    found: dict[str, Any] = {"molecules": len(exists), "true": _number(exists.mean())}
    for suffix, p in (("", after), ("_before", before)):
        found[f"roc_area{suffix}"] = _number(roc_area(p, exists))
        found[f"brier{suffix}"] = _number(np.mean((p - exists) ** 2))
        found[f"calibration_error{suffix}"] = _number(calibration_error(p, exists))
    return found


def roc_area(score: npt.NDArray[Any], exists: npt.NDArray[np.bool_]) -> float:
    """Probability that a true molecule scores higher than a false one (Mann–Whitney); NaN without either."""
    from scipy.stats import rankdata

    n_true, n_false = int(exists.sum()), int((~exists).sum())
    if not (n_true and n_false):
        return float("nan")
    return float((rankdata(score)[exists].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false))


def calibration_error(p: npt.NDArray[Any], exists: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Mean difference of stated and observed frequency over equal bins of probability; NaN of nothing."""
    if not len(p):
        return float("nan")
    which = np.minimum((p * bins).astype(np.intp), bins - 1)
    gap = np.abs(np.bincount(which, p - exists, minlength=bins))
    return float(gap.sum() / len(p))


def _number(value: Any) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
