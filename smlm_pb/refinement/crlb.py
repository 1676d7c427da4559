"""The Cramér–Rao bound: how precise any unbiased localization of a molecule can be.

The bound is numeric: for the pixel-integrated Gaussian μ_k(θ) of :mod:`smlm_pb.psf` and independent pixels
with variance F²·μ_k + v_k it inverts the Fisher information

    I_ij = Σ_k (∂μ_k/∂θ_i) (∂μ_k/∂θ_j) / (F² μ_k + v_k)

(Smith et al., Nature Methods 7, 373, 2010; read noise v as in Huang et al., Nature Methods 10, 653, 2013;
excess noise F² as in Mortensen et al., Nature Methods 7, 377, 2010). Overlapping molecules share one
information matrix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smlm_pb.simulation.rendering import pixel_integral_derivatives

Float64Array = npt.NDArray[np.float64]

#: Molecules per block: bounds the memory of the derivative images to some 100 MB.
_MOLECULES_AT_ONCE = 4096
#: Directions with less than this share of information count as not determined at all.
_SINGULAR = 1e-12


class Crlb(NamedTuple):
    """Smallest possible standard deviations; ``inf`` where the data do not determine a parameter."""

    sigma_x: Float64Array
    """Along the columns, in px."""
    sigma_y: Float64Array
    """Along the rows, in px."""
    sigma_photons: Float64Array
    """Of the photo-electrons, in e⁻."""
    sigma_background: Float64Array
    """Of the background, in e⁻/px."""
    sigma_psf_sigma: Float64Array | None
    """Of the PSF width, in px; None where the width is taken as known."""


def crlb(
    photons: npt.ArrayLike,
    background_e: npt.ArrayLike,
    psf_sigma_px: npt.ArrayLike,
    *,
    read_variance_e2: npt.ArrayLike = 0.0,
    excess: float = 1.0,
    box: int = 15,
    dx: npt.ArrayLike = 0.0,
    dy: npt.ArrayLike = 0.0,
    estimate_sigma: bool = False,
    neighbour_dx: npt.ArrayLike | None = None,
    neighbour_dy: npt.ArrayLike | None = None,
    neighbour_photons: npt.ArrayLike | None = None,
) -> Crlb:
    """Bound the precision of molecules, each estimated in its own box together with its neighbours.

    Scalars and arrays broadcast against each other, so that one call does a whole table.

    Parameters
    ----------
    photons, background_e, psf_sigma_px : float or array (molecules,)
        Photo-electrons in e⁻, background in e⁻/px, PSF width in px.
    read_variance_e2 : float or array (molecules,)
        Variance of the read noise in e⁻², referred to photo-electrons (``Camera.read_variance_e2``).
    excess : float
        Excess noise factor F² of the camera: 2 with electron multiplication, else 1.
    box : int
        Side of the square of pixels that is used, odd.
    dx, dy : float or array (molecules,)
        Position of the molecule relative to the centre of the box's middle pixel, in px.
    estimate_sigma : bool
        Whether the PSF width is estimated too (one per box), or known.
    neighbour_dx, neighbour_dy, neighbour_photons : array (molecules, neighbours), optional
        Positions relative to the centre of the middle pixel in px, and photo-electrons, of other molecules
        in the box. They are estimated as well; entries with 0 photons stand for no neighbour.

    Returns
    -------
    Crlb
        Arrays of the broadcast shape.

    Raises
    ------
    ValueError
        When ``box`` is not a positive odd number, or photons or width are not positive.
    """
    if box < 1 or box % 2 == 0:
        raise ValueError(f"box = {box} must be an odd number of pixels ≥ 1, e.g. 15.")
    values = [np.asarray(v, dtype=np.float64) for v in (photons, background_e, psf_sigma_px, read_variance_e2)]
    values += [np.asarray(v, dtype=np.float64) for v in (dx, dy)]
    shape = np.broadcast_shapes(*(v.shape for v in values))
    n, b, sigma, variance, x, y = (np.broadcast_to(v, shape).reshape(-1) for v in values)
    if np.any(n <= 0) or np.any(sigma <= 0) or np.any(b < 0):
        raise ValueError("The bound needs photons > 0, psf_sigma_px > 0 and background_e ≥ 0.")
    group_x, group_y, group_n = x[:, None], y[:, None], n[:, None]
    if neighbour_photons is not None and neighbour_dx is not None and neighbour_dy is not None:
        count = np.atleast_2d(np.asarray(neighbour_photons)).shape[-1]
        others = [
            np.broadcast_to(np.asarray(v, dtype=np.float64), (*shape, count)).reshape(-1, count)
            for v in (neighbour_dx, neighbour_dy, neighbour_photons)
        ]
        group_x, group_y, group_n = (
            np.concatenate(pair, axis=1) for pair in zip((group_x, group_y, group_n), others, strict=True)
        )
    half = box // 2
    pixels = np.arange(-half, half + 1)
    deviations = np.empty((x.size, 5 if estimate_sigma else 4))
    first = [0, 1, 2, -1] if not estimate_sigma else [0, 1, 2, -2, -1]
    for start in range(0, x.size, _MOLECULES_AT_ONCE):
        part = slice(start, start + _MOLECULES_AT_ONCE)
        information = fisher_information(
            group_x[part],
            group_y[part],
            group_n[part],
            b[part],
            sigma[part],
            columns=pixels,
            rows=pixels,
            read_variance_e2=variance[part],
            excess=excess,
            estimate_sigma=estimate_sigma,
        )
        deviations[part] = standard_deviations(information)[:, first]
    columns = [deviations[:, i].reshape(shape) for i in range(deviations.shape[1])]
    return Crlb(columns[0], columns[1], columns[2], columns[3], columns[4] if estimate_sigma else None)


def crlb_group(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    photons: npt.ArrayLike,
    background_e: float,
    psf_sigma_px: float,
    *,
    read_variance_e2: float = 0.0,
    excess: float = 1.0,
    margin_px: float | None = None,
    shape: tuple[int, int] | None = None,
    estimate_sigma: bool = False,
) -> Crlb:
    """Bound the precision of molecules of one frame that are all estimated together.

    Parameters
    ----------
    x, y, photons : array (molecules,)
        Positions in px and photo-electrons in e⁻.
    background_e, psf_sigma_px : float
        Background in e⁻/px and PSF width in px, common to all.
    read_variance_e2, excess, estimate_sigma
        As in :func:`crlb`.
    margin_px : float, optional
        Pixels up to this far from the outermost molecules are used; 5 σ by default.
    shape : (int, int), optional
        Height and width of the frame; pixels outside are not used.

    Returns
    -------
    Crlb
        ``sigma_background`` (and ``sigma_psf_sigma``) hold one value per molecule, all equal.
    """
    xs, ys, ns = (np.asarray(v, dtype=np.float64).reshape(1, -1) for v in (x, y, photons))
    margin = 5.0 * psf_sigma_px if margin_px is None else margin_px
    height, width = shape if shape is not None else (np.inf, np.inf)
    low = 0 if shape is not None else -np.inf
    columns, rows = (
        np.arange(max(low, np.floor(v.min() - margin)), min(end - 1, np.ceil(v.max() + margin)) + 1)
        for v, end in ((xs, width), (ys, height))
    )
    information = fisher_information(
        xs,
        ys,
        ns,
        np.array([background_e], dtype=np.float64),
        np.array([psf_sigma_px], dtype=np.float64),
        columns=columns,
        rows=rows,
        read_variance_e2=np.array([read_variance_e2], dtype=np.float64),
        excess=excess,
        estimate_sigma=estimate_sigma,
    )
    deviations = standard_deviations(information)[0]
    m = xs.size
    common = np.broadcast_to(deviations[3 * m :, None], (deviations.size - 3 * m, m))
    return Crlb(
        deviations[0 : 3 * m : 3],
        deviations[1 : 3 * m : 3],
        deviations[2 : 3 * m : 3],
        common[0],
        common[1] if estimate_sigma else None,
    )


def crlb_table(
    frame: npt.ArrayLike,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    photons: npt.ArrayLike,
    background_e: npt.ArrayLike,
    psf_sigma_px: float,
    *,
    read_variance_e2: float = 0.0,
    excess: float = 1.0,
    box: int = 15,
    reach_px: float | None = None,
    max_neighbours: int = 12,
) -> Crlb:
    """Bound the precision of every molecule of a movie, crowding included.

    Each molecule is estimated together with its nearest neighbours in the same frame. Neighbours of
    neighbours are left out, which makes the bound slightly too small where a whole frame hangs together.

    Parameters
    ----------
    frame, x, y, photons : array (molecules,)
        Frame, position in px, photo-electrons in e⁻.
    background_e : float or array (molecules,)
        Background in e⁻/px.
    psf_sigma_px : float
        PSF width in px.
    read_variance_e2, excess, box
        As in :func:`crlb`.
    reach_px : float, optional
        Molecules up to this distance are neighbours; 5 σ by default.
    max_neighbours : int
        Only so many nearest neighbours are estimated together.

    Returns
    -------
    Crlb
        Arrays (molecules,).
    """
    from scipy.spatial import cKDTree

    fs, xs, ys, ns = (np.asarray(v, dtype=np.float64) for v in (frame, x, y, photons))
    if xs.size == 0:
        nothing = np.empty(0)
        return Crlb(nothing, nothing, nothing, nothing, None)
    reach = 5.0 * psf_sigma_px if reach_px is None else reach_px
    # Frames lie further apart than the reach in a third dimension: one tree serves the whole movie.
    points = np.column_stack([xs, ys, fs * (2.0 * reach + 1.0)])
    distance, index = cKDTree(points).query(points, k=max_neighbours + 1, distance_upper_bound=reach)
    near = np.isfinite(distance) & (index != np.arange(xs.size)[:, None])
    index = np.where(near, index, 0)
    centre_x, centre_y = np.rint(xs), np.rint(ys)
    return crlb(
        ns,
        background_e,
        psf_sigma_px,
        read_variance_e2=read_variance_e2,
        excess=excess,
        box=box,
        dx=xs - centre_x,
        dy=ys - centre_y,
        neighbour_dx=xs[index] - centre_x[:, None],
        neighbour_dy=ys[index] - centre_y[:, None],
        neighbour_photons=np.where(near, ns[index], 0.0),
    )


def fisher_information(
    x: Float64Array,
    y: Float64Array,
    photons: Float64Array,
    background_e: Float64Array,
    psf_sigma_px: Float64Array,
    *,
    columns: npt.NDArray[Any],
    rows: npt.NDArray[Any],
    read_variance_e2: Float64Array,
    excess: float = 1.0,
    estimate_sigma: bool = False,
) -> Float64Array:
    """Compute the information matrices of groups of molecules.

    Parameters
    ----------
    x, y, photons : array (groups, molecules)
        Positions in px and photo-electrons in e⁻; 0 photons mark an empty slot.
    background_e, psf_sigma_px, read_variance_e2 : array (groups,)
        Background in e⁻/px, PSF width in px, variance of the read noise in e⁻².
    columns, rows : array (width,), (height,)
        Coordinates of the pixels that are used.
    excess : float
        Excess noise factor F².
    estimate_sigma : bool
        Whether the PSF width is a parameter.

    Returns
    -------
    array (groups, parameters, parameters)
        Parameters are x, y, photons of each molecule in turn, then the background, then the PSF width.
        Rows and columns of empty slots are zero.
    """
    groups, molecules = x.shape
    sigma = psf_sigma_px[:, None, None]
    ex, dx, sx = pixel_integral_derivatives(columns - x[:, :, None], sigma)
    ey, dy, sy = pixel_integral_derivatives(rows - y[:, :, None], sigma)
    n = photons[:, :, None, None]
    present = (photons > 0)[:, :, None, None]
    spot = ey[:, :, :, None] * ex[:, :, None, :]
    jacobian = np.empty((groups, 3 * molecules + 1 + estimate_sigma, rows.size, columns.size))
    jacobian[:, 0 : 3 * molecules : 3] = n * ey[:, :, :, None] * dx[:, :, None, :]
    jacobian[:, 1 : 3 * molecules : 3] = n * dy[:, :, :, None] * ex[:, :, None, :]
    jacobian[:, 2 : 3 * molecules : 3] = spot * present
    jacobian[:, 3 * molecules] = 1.0
    if estimate_sigma:
        widening = sy[:, :, :, None] * ex[:, :, None, :] + ey[:, :, :, None] * sx[:, :, None, :]
        jacobian[:, -1] = (n * widening).sum(axis=1)
    expected = (n * spot).sum(axis=1) + background_e[:, None, None]
    variance = excess * expected + read_variance_e2[:, None, None]
    # A pixel that can receive nothing at all (no light, no background, no noise) tells nothing either.
    weighted = jacobian / np.sqrt(np.maximum(variance, 1e-12))[:, None]
    weighted = weighted.reshape(groups, weighted.shape[1], -1)
    information: Float64Array = weighted @ weighted.transpose(0, 2, 1)
    return information


def standard_deviations(information: Float64Array) -> Float64Array:
    """Take √diag(I⁻¹) of information matrices, ``inf`` for parameters that the data do not determine.

    Parameters
    ----------
    information : array (groups, parameters, parameters)
        Fisher information.

    Returns
    -------
    array (groups, parameters)
    """
    scale = np.sqrt(np.einsum("gii->gi", information))
    safe = np.where(scale > 0, scale, 1.0)
    normalised = information / (safe[:, :, None] * safe[:, None, :])
    values, vectors = np.linalg.eigh(normalised)
    determined = values > _SINGULAR
    weights = vectors**2
    # What of a parameter lies in undetermined directions is rounding noise below this share.
    lost = np.sum(weights * ~determined[:, None, :], axis=2) > 1e-9
    inverse = np.where(determined, 1.0 / np.where(determined, values, 1.0), 0.0)
    deviations = np.sqrt(np.einsum("gik,gk->gi", weights, inverse)) / safe
    deviations[lost | (scale <= 0)] = np.inf
    return deviations


def mortensen_mle(
    photons: npt.ArrayLike, background_e: npt.ArrayLike, psf_sigma_px: npt.ArrayLike, *, excess: float = 1.0
) -> Float64Array:
    """Bound the precision of an isolated molecule in closed form (Mortensen et al., 2010, eq. 5).

    With σ_a² = σ² + 1/12 and τ = 2πσ_a²b/N, var = F² (σ_a²/N) / (1 + ∫₀¹ ln t / (1 + t/τ) dt); the integral
    is τ·Li₂(−1/τ).

    Parameters
    ----------
    photons, background_e, psf_sigma_px : float or array
        Photo-electrons in e⁻, background in e⁻/px, PSF width in px.
    excess : float
        Excess noise factor F².

    Returns
    -------
    array
        Standard deviation along one axis in px.
    """
    from scipy.special import spence

    n, b, sigma = (np.asarray(v, dtype=np.float64) for v in (photons, background_e, psf_sigma_px))
    variance_a = sigma**2 + 1.0 / 12.0
    # At τ below 1e-12 the integral is below 1e-9: the limit without background.
    tau = np.maximum(2.0 * np.pi * variance_a * b / n, 1e-12)
    information = 1.0 + tau * spence(1.0 + 1.0 / tau)
    deviation: Float64Array = np.asarray(np.sqrt(excess * variance_a / n / information))
    return deviation
