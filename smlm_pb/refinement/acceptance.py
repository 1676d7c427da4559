"""Which fits replace the network's values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smlm_pb.refinement.reference import Reference, usual_disagreement, usual_precision, usual_width_error

if TYPE_CHECKING:
    from smlm_pb.refinement.fitting import Fit
    from smlm_pb.refinement.spots import Spots
    from smlm_pb.refinement.windows import Layout

FloatArray = npt.NDArray[np.float64]
#: Values of the column ``refinement``.
KEPT, ACCEPTED, REJECTED = 0, 1, 2

#: A fit that ends further from its start than this many PSF widths has found something else.
_FURTHEST_IN_SIGMA = 1.0
#: A fit whose molecule is not brighter than this many of its errors has found nothing.
_FAINTEST = 1.0
#: 95 % of perfect fits have a smaller score-test statistic of the second moments.
_CLEAN_MISSHAPE = 7.8
#: Photons over their error of molecules that tell the PSF width.
_BRIGHT = 8.0


@dataclass(frozen=True)
class AutoRule:
    """When ``auto`` believes a fit; a group is taken as a whole or not at all.

    Parameters
    ----------
    chi2_excess : float
        Largest excess of chi-square, in standard deviations.
    misshape : float
        Largest score-test statistic of the second moments: 9 is exceeded by 3 % of perfect fits.
    disagreement : float
        Largest distance from the network's position along an axis, in standard deviations of what is usual.
    suspicion : float
        Largest ratio of the standard deviation the network states to the one it usually states at this bound.
    telling : float
        Photons over their error from which on a neighbour hidden in a lone spot shows in its shape: suspicion does not
        count there.
    photons_over_error : float
        Smallest ratio of photons to their error.
    width_error : float
        Largest error of the PSF width, relative, that the molecules show on the whole.
    """

    chi2_excess: float = 3.5
    misshape: float = 9.0
    disagreement: float = 8.0
    suspicion: float = 1.3
    telling: float = 60.0
    photons_over_error: float = 4.0
    width_error: float = 0.04


AUTO = AutoRule()


@dataclass
class FitTable:
    """Fits of all molecules of a block, row by row, in effective electrons."""

    group: npt.NDArray[np.intp]
    crowd_size: npt.NDArray[np.intp]
    values: dict[str, FloatArray] = field(default_factory=dict)
    arrived: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    held: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))

    @classmethod
    def empty(cls, layout: Layout, n: int) -> FitTable:
        """A table for ``n`` molecules to be filled batch by batch."""
        group = layout.groups.of_rows()
        values = {name: np.zeros(n) for name in _VALUES}
        return cls(group, layout.groups.crowd_sizes[group], values, np.zeros(n, dtype=bool), np.zeros(n, dtype=bool))

    def __getitem__(self, name: str) -> FloatArray:
        return self.values[name]

    def fill(self, members: npt.NDArray[np.intp], fit: Fit, spots: Spots, *, held: bool) -> None:
        """Take over a fitted batch; ``members`` are its rows (groups, molecules)."""
        n = members.shape[1]
        theta, variance, precision = (
            v.cpu().numpy().astype(np.float64) for v in (fit.theta, fit.variance, spots.prior_precision)
        )
        columns = [slice(i * n, (i + 1) * n) for i in range(3)]
        self.values["x"][members], self.values["y"][members] = theta[:, columns[0]], theta[:, columns[1]]
        photons = np.exp(theta[:, columns[2]].clip(-20.0, 20.0))
        self.values["photons"][members] = photons
        self.values["background"][members] = theta[:, -1:]
        for axis, column in zip("xy", columns, strict=False):
            self.values[f"variance_{axis}"][members] = variance[:, column]
            self.values[f"prior_precision_{axis}"][members] = precision[:, column]
        self.values["sigma_photons"][members] = photons * np.sqrt(variance[:, columns[2]].clip(min=0.0))
        for name in ("chi2", "chi2_excess", "misshape", "width_score", "width_information", "log_likelihood_ratio"):
            self.values[name][members] = getattr(fit, name).cpu().numpy()
        self.arrived[members] = fit.arrived.cpu().numpy()[:, None]
        self.held[members] = held


_VALUES = (
    "x", "y", "photons", "background", "variance_x", "variance_y", "prior_precision_x", "prior_precision_y",
    "sigma_photons", "chi2", "chi2_excess", "misshape", "width_score", "width_information", "log_likelihood_ratio",
)  # fmt: skip


def combined_sigma(variance: FloatArray, prior_precision: FloatArray, sigma: FloatArray) -> FloatArray:
    """Standard deviation of a position that was fitted with a prior drawn from the same pixels.

    The estimate is (1 − a)·fit + a·network with the influence a of the prior. The network's error is that of the
    fit plus something independent where the network is the less precise of the two, and the other way round, so
    that the covariance of the two is the smaller variance.

    Parameters
    ----------
    variance : array
        Inverse Fisher information with the prior, px².
    prior_precision : array
        Of the prior that was used, 1/px².
    sigma : array
        Standard deviation of the network's position, px.

    Returns
    -------
    array
        px.
    """
    influence = np.clip(variance * prior_precision, 0.0, 1.0 - 1e-9)
    fit = variance / (1.0 - influence)
    network = sigma**2
    total = (
        (1.0 - influence) ** 2 * fit
        + influence**2 * network
        + 2.0 * influence * (1.0 - influence) * np.minimum(fit, network)
    )
    return np.sqrt(total)


def choose(
    network: dict[str, FloatArray],
    fits: FitTable,
    mode: str,
    excess_noise_factor: float,
    psf_sigma_px: float,
    reference: Reference,
    rule: AutoRule = AUTO,
) -> dict[str, npt.NDArray[np.generic]]:
    """Decide row by row, and put the columns of the table together.

    Parameters
    ----------
    network : dict of arrays (molecules,)
        Columns before the fit, in electrons.
    fits : FitTable
        The fits.
    mode : {"auto", "on"}
        See :func:`smlm_pb.refinement.refine`.
    excess_noise_factor : float
        Turns effective electrons back into electrons.
    psf_sigma_px : float
        PSF width, px.
    reference : Reference
        What is usual in the movie; used by ``auto``.
    rule : AutoRule
        Limits of ``auto``.

    Returns
    -------
    dict of arrays (molecules,)
        New columns.
    """
    sigma = {
        axis: combined_sigma(fits[f"variance_{axis}"], fits[f"prior_precision_{axis}"], network[f"sigma_{axis}"])
        for axis in "xy"
    }
    failed = ~fits.held & _failed(network, fits, psf_sigma_px)
    flag = np.where(failed, REJECTED, ACCEPTED)
    if mode == "auto":
        doubtful = failed | _doubtful(network, fits, sigma, reference, rule)
        doubtful |= abs(reference.width_error_px) > rule.width_error * psf_sigma_px
        believed = np.bincount(fits.group, doubtful) == 0
        flag = np.where(believed[fits.group] & ~fits.held, ACCEPTED, np.where(failed, REJECTED, KEPT))
    taken = flag == ACCEPTED
    fitted = {
        "x": fits["x"],
        "y": fits["y"],
        "photons": fits["photons"] * excess_noise_factor,
        "background": fits["background"] * excess_noise_factor,
        "sigma_x": sigma["x"],
        "sigma_y": sigma["y"],
    }
    columns: dict[str, npt.NDArray[np.generic]] = {
        name: np.where(taken, values, network[name]) for name, values in fitted.items()
    }
    largest = float(np.finfo(np.float32).max)
    for name, scale in (("sigma_photons", excess_noise_factor), ("chi2", 1.0), ("log_likelihood_ratio", 1.0)):
        columns[name] = np.nan_to_num(fits[name] * scale, nan=0.0, posinf=largest).clip(max=largest)
    columns["refinement"] = flag
    return columns


def _failed(network: dict[str, FloatArray], fits: FitTable, psf_sigma_px: float) -> npt.NDArray[np.bool_]:
    moved = np.hypot(fits["x"] - network["x"], fits["y"] - network["y"])
    sound = np.isfinite(fits["x"]) & np.isfinite(fits["y"]) & np.isfinite(fits["photons"])
    bright = fits["photons"] > _FAINTEST * fits["sigma_photons"]
    failed: npt.NDArray[np.bool_] = ~(fits.arrived & sound & bright & (moved <= _FURTHEST_IN_SIGMA * psf_sigma_px))
    return failed


def measure(network: dict[str, FloatArray], fits: FitTable) -> Reference:
    """What is usual: σ from the lone molecules and pairs that the model fits well, width from lone molecules."""
    clean = fits.arrived & ~fits.held & (fits.crowd_size <= 2)
    clean &= (fits["misshape"] < _CLEAN_MISSHAPE) & (fits["photons"] > 3.0 * fits["sigma_photons"])
    lone = fits.arrived & (fits.crowd_size == 1) & (fits["photons"] > _BRIGHT * fits["sigma_photons"])
    moved = [((fits[axis] - network[axis]) / network[f"sigma_{axis}"])[clean] for axis in "xy"]
    return Reference(
        *usual_precision(_mean_sigma(network)[clean], _bound(fits)[clean]),
        width_error_px=usual_width_error(fits["width_score"][lone], fits["width_information"][lone]),
        disagreement=usual_disagreement(np.concatenate(moved)),
    )


def _mean_sigma(network: dict[str, FloatArray]) -> FloatArray:
    return np.sqrt((network["sigma_x"] ** 2 + network["sigma_y"] ** 2) / 2.0)


def _bound(fits: FitTable) -> FloatArray:
    return np.sqrt((fits["variance_x"] + fits["variance_y"]) / 2.0)


def _doubtful(
    network: dict[str, FloatArray],
    fits: FitTable,
    sigma: dict[str, FloatArray],
    reference: Reference,
    rule: AutoRule,
) -> npt.NDArray[np.bool_]:
    telling = (fits.crowd_size == 1) & (fits["photons"] >= rule.telling * fits["sigma_photons"])
    suspicious = _mean_sigma(network) > rule.suspicion * reference.usual_sigma(_bound(fits))
    doubtful: npt.NDArray[np.bool_] = (
        (fits["chi2_excess"] > rule.chi2_excess)
        | (fits["misshape"] > rule.misshape)
        | (fits["photons"] < rule.photons_over_error * fits["sigma_photons"])
        | (suspicious & ~telling)
    )
    for axis in "xy":
        stated = network[f"sigma_{axis}"]
        doubtful |= np.abs(fits[axis] - network[axis]) > rule.disagreement * reference.disagreement * stated
        doubtful |= sigma[axis] > stated
    return doubtful
