"""The width of the point-spread function of a movie, from its isolated bright molecules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import TableError
from smlm_pb.refinement.groups import neighbour_pairs
from smlm_pb.refinement.reference import weighted_median
from smlm_pb.refinement.table import FitOptions, check_frames, fit_table

if TYPE_CHECKING:
    import torch

    from smlm_pb.localizations import Localizations
    from smlm_pb.refinement.acceptance import FitTable

FloatArray = npt.NDArray[np.float64]
#: Nobody else within so many widths: no neighbour shines into the pixels that count.
_ALONE_IN_SIGMA = 7.0
#: Photons over their error: dim molecules tell little of the width, and some of them are none.
_BRIGHT = 10.0
_FEWEST, _MOST = 20, 3000
_ROUNDS, _STEP_PX = 12, 0.15


class PsfWidth(NamedTuple):
    """The width of the point-spread function, measured."""

    sigma_px: float
    """Standard deviation of the Gaussian, px."""
    error_px: float
    """Standard error, from the scatter of the molecules, px."""
    n_molecules: int
    """Isolated bright molecules it was measured from."""


def fit_psf_sigma(
    locs: Localizations,
    electrons: npt.ArrayLike,
    *,
    first_frame: int = 0,
    psf_sigma_px: float,
    read_variance_e2: npt.ArrayLike = 0.0,
    excess_noise_factor: float = 1.0,
    device: str | torch.device = "cpu",
) -> PsfWidth:
    """Fit one PSF width to the isolated bright molecules of some frames.

    Fisher scoring of the width; position, photons and background of every molecule follow. The median over molecules is
    taken, so that those that differ (two in one place, out of focus) do not matter.

    Parameters
    ----------
    locs : Localizations
        Rows of the frames in ``electrons``; all that are there, so that it is known who is alone.
    electrons : array (frames, height, width)
        Photo-electrons.
    first_frame : int
        Frame number of the first frame in ``electrons``.
    psf_sigma_px : float
        Start, px; may be wrong by a third.
    read_variance_e2, excess_noise_factor, device
        As for :func:`smlm_pb.refinement.refine`.

    Returns
    -------
    PsfWidth

    Raises
    ------
    TableError
        When there are too few isolated bright molecules.
    ConfigurationError
        When an option is impossible.
    """
    frames = check_frames(locs, electrons, first_frame, read_variance_e2)
    alone = locs.select(_alone(locs, _ALONE_IN_SIGMA * psf_sigma_px))
    sigma, bright = float(psf_sigma_px), False
    steps = weights = np.empty(0)
    for _ in range(_ROUNDS):
        options = FitOptions(sigma, read_variance_e2, excess_noise_factor, 3.0, device)
        fits = fit_table(alone, frames, first_frame, options, "on")[1] if len(alone) else None
        chosen = _chosen(fits) if fits is not None else np.empty(0, dtype=np.intp)
        if chosen.size < _FEWEST or fits is None:
            raise TableError(
                f"The PSF width needs at least {_FEWEST} bright molecules without neighbours, these frames hold "
                f"{chosen.size}: give more frames, or the width itself (psf_sigma_px)."
            )
        if not bright:
            # The choice is made once: otherwise molecules at the limit would keep the rounds from coming to rest.
            alone, bright = alone.select(np.sort(chosen)), True
            continue
        steps = fits["width_score"] / fits["width_information"].clip(min=1e-9)
        weights = fits["width_information"] * fits.arrived
        step = weighted_median(steps, weights)
        sigma = float(np.clip(sigma + np.clip(step, -_STEP_PX, _STEP_PX), 0.35, 6.0))
        if abs(step) < 1e-4:
            break
    # Of a median, for a normal distribution: 1.253 times the error of a mean.
    spread = 1.4826 * weighted_median(np.abs(steps), weights)
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    return PsfWidth(sigma, 1.253 * spread / math.sqrt(effective), len(alone))


def _alone(locs: Localizations, reach_px: float) -> npt.NDArray[np.bool_]:
    alone = np.ones(len(locs), dtype=bool)
    x, y = locs["x"].astype(np.float64), locs["y"].astype(np.float64)
    alone[neighbour_pairs(locs["frame"], x, y, reach_px).ravel()] = False
    return alone


def _chosen(fits: FitTable) -> npt.NDArray[np.intp]:
    """The brightest of those whose fit arrived."""
    ratio = np.where(fits.arrived, fits["photons"] / fits["sigma_photons"].clip(min=1e-9), 0.0)
    order = np.argsort(-ratio)[:_MOST]
    return order[ratio[order] > _BRIGHT]
