"""What a second stage sees of a molecule: the pixels around it, compared with what the table says is there.

The window is given in standard deviations of the noise, with the derivatives of the molecule's own light beside it, so
that one small network serves every brightness, background and PSF width, and one step of maximum likelihood is a
weighted sum of what it is given. Lengths are in the *unit* of each molecule: its stated precision, or the Cramér–Rao
bound of a lone molecule as bright where that is larger.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: Side of the window, px: ±2.8 widths of the widest PSF that models are made for.
WINDOW_PX = 9
#: Planes of the window. Light is in units of the pixel's noise.
CHANNELS = ("residual", "own", "slope_x", "slope_y", "others", "used")
#: Numbers beside the window; the order matters to :func:`turned`.
SCALARS = (
    "unit", "photons", "background", "psf", "logit", "information", "chi2", "crowding", "nearest",
    "signal", "amplitude", "significance",
)  # fmt: skip
VECTORS = ("offset", "score", "step", "pull")
FACTS = (
    *SCALARS,
    *(f"{name}_{axis}" for name in VECTORS for axis in "xy"),
    "sigma_xy_ratio",
    "information_difference",
    "information_cross",
)
_SLOPES = (CHANNELS.index("slope_x"), CHANNELS.index("slope_y"))
_FIRST_VECTOR = len(SCALARS)
_DIFFERENCES = (FACTS.index("sigma_xy_ratio"), FACTS.index("information_difference"))
_CROSS = FACTS.index("information_cross")
#: Limits of the unit, px.
_UNIT_PX = (0.005, 1.0)
_LARGEST_RESIDUAL, _LARGEST_SCORE, _LARGEST_STEP, _LARGEST_LOGIT = 10.0, 20.0, 5.0, 7.0
_FURTHEST_IN_SIGMA = 6.0


class Looks(NamedTuple):
    """What is seen of each molecule."""

    channels: npt.NDArray[np.float32]
    """(molecules, planes, 9, 9), see :data:`CHANNELS`."""
    facts: npt.NDArray[np.float32]
    """(molecules, numbers), see :data:`FACTS`."""
    unit_px: FloatArray
    """(molecules,): what lengths are measured in, px."""

    @classmethod
    def join(cls, parts: list[Looks]) -> Looks:
        """Put several blocks below each other."""
        if not parts:
            planes = (0, len(CHANNELS), WINDOW_PX, WINDOW_PX)
            return cls(np.empty(planes, np.float32), np.empty((0, len(FACTS)), np.float32), np.empty(0))
        return cls(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def look(
    frames: npt.NDArray[np.floating[Any]],
    columns: dict[str, npt.NDArray[Any]],
    *,
    psf_sigma_px: float,
    read_variance_e2: float | npt.NDArray[Any] = 0.0,
) -> Looks:
    """Look at the molecules of some frames.

    Parameters
    ----------
    frames : array (frames, height, width)
        Effective electrons (divided by the excess noise factor): variance = mean + read variance. Pixels that hold no
        number are left out.
    columns : dict of arrays (molecules,)
        ``frame`` (from 0 within ``frames``), ``x``, ``y``, ``sigma_x``, ``sigma_y`` in px, ``photons`` in effective
        electrons, ``background`` in effective electrons per pixel, ``probability``.
    psf_sigma_px : float
        PSF width, px.
    read_variance_e2 : float or array (height, width)
        Read variance of effective electrons.

    Returns
    -------
    Looks
    """
    n = len(columns["x"])
    if n == 0:
        return Looks.join([])
    values = {name: np.asarray(column, np.float64) for name, column in columns.items() if name != "frame"}
    frame = np.asarray(columns["frame"], np.intp)
    variance = np.broadcast_to(np.asarray(read_variance_e2, np.float64), frames.shape[1:])
    unit = _unit(values, psf_sigma_px, float(np.median(variance)))
    column, row = np.rint(values["x"]).astype(np.intp), np.rint(values["y"]).astype(np.intp)
    offset = np.stack((values["x"] - column, values["y"] - row), axis=1)
    own, slopes = _own_light(offset, values["photons"], psf_sigma_px)
    likely = values["photons"] * values["probability"]
    windows = _Windows(frames.shape, frame, row, column)
    others = windows.cut(_expected(frames.shape, frame, values, likely, psf_sigma_px))
    others = (others - values["probability"][:, None, None] * own).clip(min=0.0)
    pixels = windows.cut(np.asarray(frames, np.float64))
    used = windows.inside & np.isfinite(pixels)
    read = windows.cut(np.broadcast_to(variance, frames.shape[1:])[None], of_frame=np.zeros_like(frame))
    expected = own + others + values["background"].clip(min=0.0)[:, None, None]
    noise = np.sqrt((expected + read).clip(min=0.1))
    residual = np.where(used, (np.nan_to_num(pixels) - expected) / noise, 0.0)
    planes = np.stack((residual, own / noise, slopes[0] / noise, slopes[1] / noise, others / noise), axis=1)
    planes[:, 2:4] *= unit[:, None, None, None]
    planes *= used[:, None]
    facts = _facts(values, planes, used / noise, offset, unit, psf_sigma_px, frame)
    planes[:, 0] = planes[:, 0].clip(-_LARGEST_RESIDUAL, _LARGEST_RESIDUAL)
    planes[:, (1, 4)] = np.arcsinh(planes[:, (1, 4)])
    return Looks(np.concatenate((planes, used[:, None]), axis=1).astype(np.float32), facts.astype(np.float32), unit)


def turned(channels: Any, facts: Any, target: Any, *, flip_x: bool, flip_y: bool, swap: bool) -> tuple[Any, Any, Any]:
    """What would be seen of a mirrored or transposed scene: the same physics, more examples.

    Parameters
    ----------
    channels, facts : Tensor
        Of :class:`Looks`.
    target : Tensor (molecules, 2)
        Positions as (y, x).
    flip_x, flip_y, swap : bool
        Mirror along x, along y, then exchange the axes.

    Returns
    -------
    tuple of Tensor
        New channels, facts and targets.
    """
    channels, facts, target = channels.clone(), facts.clone(), target.clone()
    for flip, axis, dimension in ((flip_x, 0, 3), (flip_y, 1, 2)):
        if flip:
            channels = channels.flip(dimension)
            channels[:, _SLOPES[axis]] *= -1
            facts[:, _FIRST_VECTOR + axis : _FIRST_VECTOR + 2 * len(VECTORS) : 2] *= -1
            facts[:, _CROSS] *= -1
            target[:, 1 - axis] *= -1
    if swap:
        channels = channels.transpose(2, 3)
        planes = list(range(len(CHANNELS)))
        planes[_SLOPES[0]], planes[_SLOPES[1]] = _SLOPES[1], _SLOPES[0]
        order = list(range(len(FACTS)))
        for first in range(_FIRST_VECTOR, _FIRST_VECTOR + 2 * len(VECTORS), 2):
            order[first], order[first + 1] = first + 1, first
        channels, facts, target = channels[:, planes], facts[:, order], target.flip(1)
        facts[:, list(_DIFFERENCES)] *= -1
    return channels, facts, target


class _Windows:
    """Where in the frames the windows lie."""

    def __init__(self, shape: tuple[int, ...], frame: npt.NDArray[np.intp], row: Any, column: Any) -> None:
        reach = np.arange(WINDOW_PX) - WINDOW_PX // 2
        rows, columns = row[:, None] + reach, column[:, None] + reach
        height, width = shape[1:]
        self.inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        self._frame = frame
        self._rows, self._columns = rows.clip(0, height - 1), columns.clip(0, width - 1)

    def cut(self, images: npt.NDArray[Any], of_frame: npt.NDArray[np.intp] | None = None) -> FloatArray:
        frame = self._frame if of_frame is None else of_frame
        cut: FloatArray = images[frame[:, None, None], self._rows[:, :, None], self._columns[:, None, :]]
        return cut


def _unit(values: dict[str, FloatArray], psf_sigma_px: float, read_variance: float) -> FloatArray:
    from smlm_pb.refinement.crlb import mortensen_mle

    stated = np.sqrt((values["sigma_x"] ** 2 + values["sigma_y"] ** 2) / 2.0)
    background = values["background"].clip(0.0) + read_variance
    bound = mortensen_mle(values["photons"].clip(1.0), background, psf_sigma_px)
    return np.maximum(np.nan_to_num(stated, posinf=_UNIT_PX[1]), bound).clip(*_UNIT_PX)


def _own_light(offset: FloatArray, photons: FloatArray, sigma: float) -> tuple[FloatArray, tuple[FloatArray, ...]]:
    """Expected light of each molecule in its window, and its derivatives by x and y, e⁻ and e⁻/px."""
    from smlm_pb.simulation.rendering import pixel_integral_derivatives

    reach = np.arange(WINDOW_PX) - WINDOW_PX // 2
    ex, dx, _ = pixel_integral_derivatives(reach - offset[:, :1], sigma)
    ey, dy, _ = pixel_integral_derivatives(reach - offset[:, 1:], sigma)
    ey, dy = photons[:, None] * ey, photons[:, None] * dy
    own = ey[:, :, None] * ex[:, None, :]
    return own, (ey[:, :, None] * dx[:, None, :], dy[:, :, None] * ex[:, None, :])


def _expected(
    shape: tuple[int, ...], frame: npt.NDArray[np.intp], values: dict[str, FloatArray], light: FloatArray, sigma: float
) -> FloatArray:
    """Light of all molecules, each weighted by its probability, (frames, height, width)."""
    from smlm_pb.simulation.rendering import render_tiled

    images = np.zeros(shape)
    order = np.argsort(frame, kind="stable")
    bounds = np.searchsorted(frame[order], np.arange(shape[0] + 1))
    for number in np.unique(frame):
        members = order[bounds[number] : bounds[number + 1]]
        widths = np.full(len(members), sigma)
        images[number] = render_tiled(
            values["x"][members], values["y"][members], light[members], widths, (shape[1], shape[2])
        )
    return images


def _facts(
    values: dict[str, FloatArray],
    planes: FloatArray,
    level: FloatArray,
    offset: FloatArray,
    unit: FloatArray,
    sigma: float,
    frame: npt.NDArray[np.intp],
) -> FloatArray:
    residual, own, others = planes[:, 0], planes[:, 1], planes[:, 4]
    slopes = planes[:, 2:4]
    score = np.einsum("nhw,nahw->na", residual, slopes)
    information = np.einsum("nahw,nbhw->nab", slopes, slopes)
    step = np.linalg.solve(information + np.eye(2), score[:, :, None])[:, :, 0]
    pull = np.einsum("nhw,nahw->na", others, slopes)
    trace = information[:, 0, 0] + information[:, 1, 1]
    probability = values["probability"].clip(1e-3, 1.0 - 1e-3)
    chi2 = (residual**2).sum((1, 2)) / np.maximum(1, (level > 0).sum((1, 2)))
    amplitude, significance = _amplitude(residual, own, others, level)
    light = (others * own).sum((1, 2)) / np.maximum((own**2).sum((1, 2)), 1e-6)
    scalars = (
        np.log(unit / sigma),
        np.log(values["photons"].clip(1.0)),
        np.log1p(values["background"].clip(0.0)),
        np.full(len(unit), sigma),
        np.log(probability / (1.0 - probability)).clip(-_LARGEST_LOGIT, _LARGEST_LOGIT),
        np.log(trace + 1e-3),
        np.log(chi2 + 0.1).clip(max=5.0),
        np.log(light + 1e-3),
        _nearest(values, frame, sigma),
        np.log((own**2).sum((1, 2)) + 0.1),
        amplitude.clip(-1.0, 3.0),
        np.arcsinh(significance.clip(-1e3, 1e3)),
    )
    ratio = np.log(values["sigma_x"].clip(1e-3) / values["sigma_y"].clip(1e-3)).clip(-2.0, 2.0)
    return np.column_stack(
        (
            *scalars,
            offset,
            score.clip(-_LARGEST_SCORE, _LARGEST_SCORE),
            step.clip(-_LARGEST_STEP, _LARGEST_STEP),
            pull.clip(-_LARGEST_SCORE, _LARGEST_SCORE),
            ratio,
            (information[:, 0, 0] - information[:, 1, 1]) / (trace + 1e-3),
            information[:, 0, 1] / (trace + 1e-3),
        )
    )


def _amplitude(
    residual: FloatArray, own: FloatArray, others: FloatArray, level: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """How much of the molecule the pixels want, with background and the light of others free, and in its errors.

    1 where the molecule is there as the table says, 0 where the pixels can do without it.
    """
    shapes = np.stack((own, level, others), axis=1)
    normal = np.einsum("nahw,nbhw->nab", shapes, shapes)
    change = np.einsum("nahw,nhw->na", shapes, residual)
    scale = np.sqrt(np.einsum("naa->na", normal)) + 1e-6
    # The others are known better than a free fit would: where they shine like the molecule, they stay as they are.
    inverse = np.linalg.inv(normal / (scale[:, :, None] * scale[:, None, :]) + np.diag((1e-6, 1e-4, 3e-2)))
    amplitude = 1.0 + np.einsum("na,na->n", inverse[:, 0], change / scale) / scale[:, 0]
    return amplitude, amplitude * scale[:, 0] / np.sqrt(inverse[:, 0, 0])


def _nearest(values: dict[str, FloatArray], frame: npt.NDArray[np.intp], sigma: float) -> FloatArray:
    """Distance of the nearest other molecule of the frame in PSF widths, at most 6."""
    from scipy.spatial import cKDTree

    furthest = _FURTHEST_IN_SIGMA * sigma
    points = np.column_stack((values["x"], values["y"], frame * (2.0 * furthest + 1.0)))
    distance, _ = cKDTree(points).query(points, k=2, distance_upper_bound=furthest)
    return np.minimum(distance[:, 1], furthest) / sigma
