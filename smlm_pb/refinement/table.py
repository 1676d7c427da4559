"""Refine a table of molecules by the likelihood of the pixels, block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError, TableError
from smlm_pb.localizations import Localizations
from smlm_pb.refinement.acceptance import FitTable, choose, measure
from smlm_pb.refinement.reference import Reference

if TYPE_CHECKING:
    import torch

    from smlm_pb.refinement.windows import Block, Layout, Molecules

Mode = Literal["auto", "on", "off"]
MODES: tuple[Mode, ...] = ("auto", "on", "off")
FloatArray = npt.NDArray[np.float64]

#: Molecules closer than this many PSF widths are fitted together: beyond, they share 2 % of their information.
LINK_IN_SIGMA = 4.0
#: Largest number of molecules that are fitted together.
LARGEST_GROUP = 8
#: ``auto`` fits the positions of groups up to this size; in larger ones the network is better.
LARGEST_AUTO_GROUP = 8
_ITERATIONS, _ITERATIONS_FROZEN = 20, 6
#: Precision that is assumed of a table without one, px.
_UNKNOWN_SIGMA_PX = 0.3
#: Columns that refinement adds, next to those it replaces.
ADDED_COLUMNS = ("sigma_photons", "chi2", "log_likelihood_ratio", "refinement")


def refine(
    locs: Localizations,
    electrons: npt.ArrayLike,
    *,
    first_frame: int = 0,
    psf_sigma_px: float,
    read_variance_e2: npt.ArrayLike = 0.0,
    excess_noise_factor: float = 1.0,
    mode: Mode = "auto",
    prior_inflation: float = 2.0,
    reference: Reference | None = None,
    device: str | torch.device = "cpu",
) -> Localizations:
    """Refine molecules by joint maximum likelihood, with the table's values as prior.

    Molecules that overlap are fitted together (position, photons, common background); molecules outside the
    group shine into its window but are held. Pixels have variance F²·expected + read variance.

    Parameters
    ----------
    locs : Localizations
        Rows of the frames in ``electrons``. ``photons``, ``background``, ``sigma_x`` and ``sigma_y`` are used where
        the table has them, and otherwise guessed from the pixels.
    electrons : array (frames, height, width)
        Photo-electrons; pixels that are no numbers are left out.
    first_frame : int
        Frame number of the first frame in ``electrons``.
    psf_sigma_px : float
        Standard deviation of the point-spread function, px.
    read_variance_e2 : float or array (height, width)
        Variance of the read noise, e⁻² (``Camera.read_variance_e2``).
    excess_noise_factor : float
        F² of the camera: 2 with electron multiplication, else 1.
    mode : {"auto", "on", "off"}
        ``on``: every fit that converged close to its start replaces the network's value. ``auto``: only fits of small
        groups that the pixels agree with and that are more precise than the network. ``off``: nothing is done.
    prior_inflation : float
        The standard deviations of the table are multiplied by this to make the prior, because it was drawn from the
        same pixels.
    reference : Reference, optional
        What is usual in the movie, by which ``auto`` judges; measured from this block when left out. Give the one of
        :func:`measure_reference` where a movie is refined block by block.
    device : str or torch.device
        Where the fits run: ``auto``, ``cpu``, ``cuda``…

    Returns
    -------
    Localizations
        The same rows in the same order. Refined rows have new ``x``, ``y``, ``photons``, ``background``, ``sigma_x``,
        ``sigma_y``. All rows get ``sigma_photons``, ``chi2`` (1 where the model fits), ``log_likelihood_ratio`` and
        ``refinement``: 0 network kept, 1 refined, 2 fit rejected and network kept.

    Raises
    ------
    ConfigurationError
        When an option is impossible.
    TableError
        When the table holds frames that are not in ``electrons``.

    References
    ----------
    Smith et al., Nature Methods 7, 373 (2010); Huang et al., Nature Methods 10, 653 (2013).
    """
    options = FitOptions(psf_sigma_px, read_variance_e2, excess_noise_factor, prior_inflation, device)
    check_mode(mode)
    if mode == "off":
        return locs
    frames = check_frames(locs, electrons, first_frame, read_variance_e2)
    if len(locs) == 0:
        return locs.with_columns(**{name: np.empty(0) for name in _RESULT_COLUMNS})
    network, fits = fit_table(locs, frames, first_frame, options, mode)
    reference = reference or measure(network, fits)
    return locs.with_columns(**choose(network, fits, mode, excess_noise_factor, psf_sigma_px, reference))


def measure_reference(
    locs: Localizations,
    electrons: npt.ArrayLike,
    *,
    first_frame: int = 0,
    psf_sigma_px: float,
    read_variance_e2: npt.ArrayLike = 0.0,
    excess_noise_factor: float = 1.0,
    prior_inflation: float = 2.0,
    device: str | torch.device = "cpu",
) -> Reference:
    """Measure what is usual in a movie, by which ``auto`` judges; some hundred molecules suffice.

    Parameters
    ----------
    locs, electrons, first_frame, psf_sigma_px, read_variance_e2, excess_noise_factor, prior_inflation, device
        As for :func:`refine`.

    Returns
    -------
    Reference
        For the argument of this name of :func:`refine`.

    Raises
    ------
    ConfigurationError, TableError
        As :func:`refine`.
    """
    options = FitOptions(psf_sigma_px, read_variance_e2, excess_noise_factor, prior_inflation, device)
    frames = check_frames(locs, electrons, first_frame, read_variance_e2)
    if len(locs) == 0:
        return Reference()
    return measure(*fit_table(locs, frames, first_frame, options, "auto"))


def fit_table(
    locs: Localizations, frames: npt.NDArray[np.floating[Any]], first_frame: int, options: FitOptions, mode: str
) -> tuple[dict[str, FloatArray], FitTable]:
    """Fit all molecules of a table.

    Returns
    -------
    network : dict of arrays (molecules,)
        The columns before, where they are impossible with what was guessed instead; in electrons.
    fits : FitTable
        In effective electrons.
    """
    from smlm_pb.devices import choose_device
    from smlm_pb.refinement.windows import lay_out, make_block

    excess, device = options.excess_noise_factor, options.device
    block = make_block(
        frames,
        psf_sigma_px=options.psf_sigma_px,
        read_variance_e2=np.asarray(options.read_variance_e2, dtype=np.float64),
        excess_noise_factor=excess,
        device=choose_device(device) if isinstance(device, str) else device,
    )
    molecules = read_molecules(locs, block, first_frame, excess, options.prior_inflation)
    layout = lay_out(molecules, block, link_px=LINK_IN_SIGMA * options.psf_sigma_px, largest=LARGEST_GROUP)
    frozen = layout.groups.crowd_sizes > (LARGEST_AUTO_GROUP if mode == "auto" else len(locs))
    fits = fit_all(layout, molecules, block, frozen, kurtosis=3.0 if excess > 1 else 1.0)
    return network_columns(locs, molecules, excess), fits


_RESULT_COLUMNS = ("x", "y", "photons", "background", "sigma_x", "sigma_y", *ADDED_COLUMNS)


@dataclass(frozen=True)
class FitOptions:
    """Options of a fit; see :func:`refine`. Impossible ones raise ConfigurationError."""

    psf_sigma_px: float
    read_variance_e2: npt.ArrayLike
    excess_noise_factor: float
    prior_inflation: float
    device: str | torch.device

    def __post_init__(self) -> None:
        for name, lowest, example in (
            ("psf_sigma_px", 0.3, "1.2"),
            ("excess_noise_factor", 1.0, "2 with electron multiplication"),
            ("prior_inflation", 1.0, "2"),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= lowest):
                raise ConfigurationError(f"{name} = {value} must be a number ≥ {lowest:g}, e.g. {example}.")
        variance = np.asarray(self.read_variance_e2, dtype=np.float64)
        if variance.ndim not in (0, 2) or not bool(np.all(np.isfinite(variance) & (variance >= 0))):
            raise ConfigurationError(
                "read_variance_e2 must be a number ≥ 0 or one per pixel (height, width), in e⁻², e.g. 2.6."
            )


def check_mode(mode: str) -> None:
    """Refuse a mode that does not exist."""
    if mode not in MODES:
        raise ConfigurationError(f"refine = {mode!r} is unknown: use {', '.join(MODES)}.")


def check_frames(
    locs: Localizations, electrons: npt.ArrayLike, first_frame: int, read_variance_e2: npt.ArrayLike
) -> npt.NDArray[np.floating[Any]]:
    """Refuse frames that do not belong to the table; returns them as an array (frames, height, width)."""
    frames = np.asarray(electrons)
    if frames.ndim != 3 or frames.dtype.kind not in "fiu":
        raise ConfigurationError(
            f"electrons has shape {frames.shape} and type {frames.dtype}: give photo-electrons (frames, height, width)."
        )
    size = np.shape(read_variance_e2)
    if size and size != frames.shape[1:]:
        raise ConfigurationError(
            f"read_variance_e2 is {size[0]}×{size[1]} pixels, the frames are {frames.shape[1]}×{frames.shape[2]}: crop "
            "the map to the region that was read out."
        )
    number = locs["frame"].astype(np.int64) - first_frame
    if number.size and (number.min() < 0 or number.max() >= len(frames)):
        raise TableError(
            f"The table holds frames {locs['frame'].min()} to {locs['frame'].max()}, the pixels given are of frames "
            f"{first_frame} to {first_frame + len(frames) - 1}: give the rows and the frames that belong together."
        )
    return frames if frames.dtype.kind == "f" else frames.astype(np.float32)


def read_molecules(
    locs: Localizations, block: Block, first_frame: int, excess_noise_factor: float, prior_inflation: float
) -> Molecules:
    """The rows of a table as start and prior of the fits, in effective electrons."""
    from smlm_pb.refinement.windows import Molecules

    frame = (locs["frame"].astype(np.int64) - first_frame).astype(np.intp)
    x, y = locs["x"].astype(np.float64), locs["y"].astype(np.float64)
    guess = _guess(block, frame, x, y)
    background = _sound(locs, "background", guess[0] * excess_noise_factor, at_least=0.0) / excess_noise_factor
    photons = _sound(locs, "photons", guess[1] * excess_noise_factor, at_least=1.0) / excess_noise_factor
    unknown = np.full(len(locs), _UNKNOWN_SIGMA_PX)
    sigma_x, sigma_y = (
        np.clip(_sound(locs, name, unknown, at_least=1e-4), 1e-3, 1.0) for name in ("sigma_x", "sigma_y")
    )
    return Molecules(
        frame=frame,
        x=x.copy(),
        y=y.copy(),
        photons=photons.copy(),
        background=background,
        x0=x,
        y0=y,
        prior_x=prior_inflation * sigma_x,
        prior_y=prior_inflation * sigma_y,
        log_photons0=np.log(photons),
    )


def _sound(locs: Localizations, name: str, otherwise: FloatArray, *, at_least: float) -> FloatArray:
    """A column, with ``otherwise`` where it is missing or impossible."""
    if name not in locs:
        return otherwise
    values = locs[name].astype(np.float64)
    return np.where(np.isfinite(values) & (values >= at_least), values, otherwise)


def _guess(block: Block, frame: npt.NDArray[np.intp], x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Background (the frame's 30 % quantile) and photons (from the brightest of nine pixels)."""
    images = (block.frames - block.read_variance).cpu().numpy()
    level = np.quantile(images.reshape(len(images), -1), 0.3, axis=1).clip(min=0.0)
    height, width = images.shape[1:]
    offsets = np.arange(-1, 2)
    rows = (np.rint(y).astype(np.intp)[:, None] + offsets).clip(0, height - 1)
    columns = (np.rint(x).astype(np.intp)[:, None] + offsets).clip(0, width - 1)
    peak = images[frame[:, None, None], rows[:, :, None], columns[:, None, :]].max(axis=(1, 2))
    area = 2.0 * math.pi * (block.psf_sigma_px**2 + 1.0 / 12.0)
    return level[frame], ((peak - level[frame]) * area).clip(min=20.0)


def network_columns(locs: Localizations, molecules: Molecules, excess_noise_factor: float) -> dict[str, FloatArray]:
    """What stays where a fit is not taken."""
    known = {name: locs[name].astype(np.float64) for name in ("x", "y")}
    known["photons"] = np.exp(molecules.log_photons0) * excess_noise_factor
    known["background"] = molecules.background * excess_noise_factor
    unknown = np.full(len(locs), _UNKNOWN_SIGMA_PX)
    for name in ("sigma_x", "sigma_y"):
        known[name] = _sound(locs, name, unknown, at_least=1e-4)
    return known


def fit_all(
    layout: Layout, molecules: Molecules, block: Block, frozen: npt.NDArray[np.bool_], *, kurtosis: float
) -> FitTable:
    """Fit all groups; those that others shine into a second time, with the others where their fits put them.

    Parameters
    ----------
    layout, molecules, block
        What is fitted; positions and photons of ``molecules`` are replaced by the fitted ones.
    frozen : array (groups,), bool
        Groups whose positions are held.
    kurtosis : float
        See :func:`smlm_pb.refinement.fitting.fit_spots`.

    Returns
    -------
    FitTable
        One row per molecule.
    """
    from smlm_pb.refinement.fisher_scoring import maximize
    from smlm_pb.refinement.fitting import fit_spots
    from smlm_pb.refinement.windows import batches, cut_out, members_of

    table = FitTable.empty(layout, len(molecules.x))
    lonely = layout.n_outside == 0
    updates: list[tuple[npt.NDArray[np.intp], FloatArray]] = []
    for part, held in ((~lonely & frozen, True), (~lonely & ~frozen, False)):
        for batch in batches(layout, block, np.flatnonzero(part)):
            spots, theta = cut_out(layout, molecules, block, batch, frozen=held)
            theta, arrived = maximize(spots, theta, iterations=_ITERATIONS_FROZEN if held else _ITERATIONS)
            usable = arrived.cpu().numpy()
            updates.append((members_of(layout.groups, batch)[usable], theta.cpu().numpy().astype(np.float64)[usable]))
    for members, fitted in updates:
        # Only what moved little is believed to be where the fit says.
        take_over(molecules, members, fitted, within_px=block.psf_sigma_px)
    for part, held in ((frozen, True), (~frozen, False)):
        for batch in batches(layout, block, np.flatnonzero(part)):
            spots, theta = cut_out(layout, molecules, block, batch, frozen=held)
            steps = _ITERATIONS_FROZEN if held else _ITERATIONS
            fit = fit_spots(spots, theta, iterations=steps, kurtosis=kurtosis, quick=held)
            table.fill(members_of(layout.groups, batch), fit, spots, held=held)
    return table


def take_over(molecules: Molecules, members: npt.NDArray[np.intp], theta: FloatArray, *, within_px: float) -> None:
    """Write fitted parameters of groups back, where molecules stayed within a distance of their start."""
    n = members.shape[1]
    x, y, log_photons = theta[:, :n], theta[:, n : 2 * n], theta[:, 2 * n : 3 * n]
    near = np.hypot(x - molecules.x0[members], y - molecules.y0[members]) <= within_px
    rows = members[near]
    molecules.x[rows], molecules.y[rows] = x[near], y[near]
    molecules.photons[rows] = np.exp(log_photons[near]).clip(1.0, 1e7)
