"""A second look at the molecules of a table: position maps, and whether each of them is there.

Both compare the pixels around a molecule with what the table says is there; a small network, trained on simulated
scenes behind a localization model, does the rest. The table must hold positions on the camera: not linked, not
corrected for drift.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import Cancelled, ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from smlm_pb.camera import Camera
    from smlm_pb.localizations import Localizations
    from smlm_pb.refinement.looks import Looks
    from smlm_pb.refinement.second_stage import Stage

FloatArray = npt.NDArray[np.float64]
OnProgress = Callable[[int, int], None]
#: How positions of a table can be refined against its movie.
METHODS = ("auto", "on", "map")
#: Rows and pixels that are looked at at a time.
_ROWS, _PIXELS = 4096, 1 << 22


def refine_table(
    locs: Localizations,
    movie: Any,
    *,
    method: str = "auto",
    readout: str | Path | Stage = "readout",
    camera: Camera | None = None,
    psf_sigma_px: float | None = None,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Localizations:
    """Refine the positions of a table, of whatever program, against the pixels of its movie.

    Parameters
    ----------
    locs : Localizations
        The table.
    movie : path, array (frame, y, x), or Movie
        The movie it was made from.
    method : {"auto", "on", "map"}
        ``auto``, ``on``: maximum likelihood, see :func:`smlm_pb.refinement.refine`. ``map``: position maps of a small
        network; see :func:`read_positions`.
    readout : str, path or Stage
        For ``map``: ``readout`` is the shipped one; or the folder that training made.
    camera : Camera, optional
        Where the table's history does not tell it.
    psf_sigma_px : float, optional
        The same for the PSF width, px.
    device : str
        Where likelihood fits run.
    on_progress, should_stop : callable, optional
        Called with rows done and all rows; asked whether to stop.

    Returns
    -------
    Localizations
        The same rows in the same order, with new positions and precisions.

    Raises
    ------
    TableError
        When the table is linked or corrected for drift, or camera or PSF width are unknown.
    MovieError
        When the movie cannot be read or has another frame size.
    ModelError
        When there is no such read-out.
    ConfigurationError
        When an option is impossible.
    Cancelled
        When ``should_stop`` said so.
    """
    if method not in METHODS:
        raise ConfigurationError(f"method = {method!r} is unknown: use {', '.join(METHODS)}.")
    if method == "map":
        stage = _as_stage(readout, "readout")
        _warn_of_other_model(locs, stage)

        def work(part: Localizations, electrons: Any, how: dict[str, Any]) -> Localizations:
            return read_positions(part, electrons, stage, **how)

        step = {"step": "refine", "method": method, "readout": stage.as_dict()}
    else:
        work = _Likelihood(method, device)
        step = {"step": "refine", "method": method}
    return _over_movie(locs, movie, work, step, camera, psf_sigma_px, on_progress, should_stop)


def verify(
    locs: Localizations,
    movie: Any,
    *,
    verifier: str | Path | Stage = "verifier",
    camera: Camera | None = None,
    psf_sigma_px: float | None = None,
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Localizations:
    """Judge again whether the molecules of a table exist, by a small network that looks at each of them.

    Parameters
    ----------
    locs : Localizations
        With ``probability``; best a table with a low threshold, e.g. of ``localize(…, threshold=0.1)``.
    movie, camera, psf_sigma_px, on_progress, should_stop
        As for :func:`refine_table`.
    verifier : str, path or Stage
        ``verifier`` is the shipped one; or the folder that training made.

    Returns
    -------
    Localizations
        The same rows; ``probability`` is the new one, ``first_probability`` the one before.

    Raises
    ------
    TableError, MovieError, ModelError, Cancelled
        As :func:`refine_table`; also when there is no column ``probability``.
    """
    from smlm_pb.evaluation.calibration import checked_probability

    checked_probability(locs)
    stage = _as_stage(verifier, "verifier")
    _warn_of_other_model(locs, stage)

    def work(part: Localizations, electrons: Any, how: dict[str, Any]) -> Localizations:
        return verify_block(part, electrons, stage, **how)

    step = {"step": "verify", "verifier": stage.as_dict()}
    return _over_movie(locs, movie, work, step, camera, psf_sigma_px, on_progress, should_stop)


def keep_likely(locs: Localizations, threshold: float | str = "auto") -> Localizations:
    """Keep the molecules above a threshold on their probability.

    Parameters
    ----------
    locs : Localizations
        With ``probability``.
    threshold : float or "auto"
        ``auto``: the one with the best expected Jaccard index, by the rule of :func:`smlm_pb.localize`.

    Returns
    -------
    Localizations
        Its history tells the threshold and what is expected of it.

    Raises
    ------
    ConfigurationError
        When the threshold is impossible.
    """
    from smlm_pb.localization.threshold import ProbabilityHistogram, check_threshold

    made = locs.last_step("localize")
    histogram = ProbabilityHistogram()
    # What the table was cut at, and what is expected below.
    histogram.add(locs["probability"], float((made.get("threshold") or {}).get("missed") or 0.0))
    asked = check_threshold(threshold)
    expected = histogram.best(floor=0.0) if asked is None else histogram.at(asked)
    kept = locs.select(locs["probability"] >= expected.threshold)
    return kept.with_provenance({"step": "threshold", "threshold": expected.as_dict()})


def read_positions(
    locs: Localizations,
    electrons: npt.NDArray[Any],
    readout: Stage,
    *,
    first_frame: int = 0,
    psf_sigma_px: float,
    read_variance_e2: npt.ArrayLike = 0.0,
    excess_noise_factor: float = 1.0,
) -> Localizations:
    """Read positions out of maps, for the molecules of a block of frames.

    Parameters
    ----------
    locs : Localizations
        Rows of these frames.
    electrons : array (frames, height, width)
        Photo-electrons.
    readout : Stage
        From :func:`smlm_pb.refinement.second_stage.load_stage`.
    first_frame, psf_sigma_px, read_variance_e2, excess_noise_factor
        As for :func:`smlm_pb.refinement.refine`.

    Returns
    -------
    Localizations
        With new ``x``, ``y``, ``sigma_x``, ``sigma_y`` (px) and ``correlation_xy``.
    """
    if len(locs) == 0:
        return locs.with_columns(correlation_xy=np.zeros(0, np.float32))
    looks, columns = looks_of_table(locs, electrons, first_frame, psf_sigma_px, read_variance_e2, excess_noise_factor)
    mean, covariance = map_moments(readout, looks)
    unit = looks.unit_px
    sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)) * unit[:, None]
    factor = calibration_factors(readout, columns, sigma, psf_sigma_px, read_variance_e2, excess_noise_factor)
    correlation = covariance[:, 0, 1] / np.sqrt(covariance[:, 0, 0] * covariance[:, 1, 1])
    sigma = sigma * factor
    return locs.with_columns(
        y=columns["y"] + mean[:, 0] * unit,
        x=columns["x"] + mean[:, 1] * unit,
        sigma_y=sigma[:, 0],
        sigma_x=sigma[:, 1],
        correlation_xy=correlation.astype(np.float32),
    )


def map_moments(readout: Stage, looks: Looks) -> tuple[FloatArray, FloatArray]:
    """Mean (molecules, 2) and covariance (molecules, 2, 2) of position maps as (y, x), in units of each molecule."""
    moments = map_grid(readout).moments(map_logits(readout, looks).double())
    return moments.mean.numpy(), moments.covariance.numpy()


def map_grid(readout: Stage) -> Any:
    """The :class:`smlm_pb.losses.map_grid.MapGrid` of a read-out."""
    from smlm_pb.losses.map_grid import MapGrid

    return MapGrid(**readout.card.grid)


def map_logits(readout: Stage, looks: Looks) -> Any:
    """Logits of the position maps (molecules, cells²), a Tensor."""
    from smlm_pb.networks.second_look import outputs_of

    return outputs_of(readout.network, looks.channels, looks.facts)


def verify_block(
    locs: Localizations,
    electrons: npt.NDArray[Any],
    verifier: Stage,
    *,
    first_frame: int = 0,
    psf_sigma_px: float,
    read_variance_e2: npt.ArrayLike = 0.0,
    excess_noise_factor: float = 1.0,
) -> Localizations:
    """Judge the molecules of a block of frames; see :func:`verify` and :func:`read_positions`."""
    from smlm_pb.networks.second_look import outputs_of, stated_logit

    before = locs["probability"]
    if len(locs) == 0:
        return locs.with_columns(first_probability=before)
    looks, _ = looks_of_table(locs, electrons, first_frame, psf_sigma_px, read_variance_e2, excess_noise_factor)
    change = outputs_of(verifier.network, looks.channels, looks.facts)[:, 0].numpy().astype(np.float64)
    logit = (stated_logit(before) + change).clip(-50.0, 50.0)
    return locs.with_columns(probability=1.0 / (1.0 + np.exp(-logit)), first_probability=before)


class _Likelihood:
    """Maximum likelihood, block by block; what is usual in the movie is measured on the first block."""

    def __init__(self, method: str, device: str) -> None:
        self._method, self._device, self._reference = method, device, None

    def __call__(self, part: Localizations, electrons: Any, how: dict[str, Any]) -> Localizations:
        from smlm_pb.refinement import measure_reference, refine

        if self._reference is None and len(part):
            self._reference = measure_reference(part, electrons, device=self._device, **how)  # type: ignore[assignment]
        return refine(
            part,
            electrons,
            mode=self._method,  # type: ignore[arg-type]
            reference=self._reference,
            device=self._device,
            **how,
        )


def looks_of_table(
    locs: Localizations,
    electrons: npt.NDArray[Any],
    first_frame: int,
    psf_sigma_px: float,
    read_variance_e2: npt.ArrayLike,
    excess: float,
) -> tuple[Looks, dict[str, npt.NDArray[Any]]]:
    """What is seen of every row, and the columns it was seen with, in effective electrons.

    Parameters
    ----------
    locs, electrons, first_frame, psf_sigma_px, read_variance_e2
        As for :func:`read_positions`.
    excess : float
        Excess noise factor of the camera.

    Returns
    -------
    looks : Looks
        One per row.
    columns : dict of arrays
        ``frame`` (within the block), ``x``, ``y``, ``sigma_x``, ``sigma_y``, ``photons``, ``background``,
        ``probability``; guessed from the pixels where the table has none.
    """
    import torch

    from smlm_pb.refinement.looks import look
    from smlm_pb.refinement.table import check_frames, read_molecules
    from smlm_pb.refinement.windows import make_block

    frames = check_frames(locs, electrons, first_frame, read_variance_e2)
    block = make_block(
        frames,
        psf_sigma_px=psf_sigma_px,
        read_variance_e2=np.asarray(read_variance_e2, np.float64),
        excess_noise_factor=excess,
        device=torch.device("cpu"),
    )
    # Columns that are missing are guessed from the pixels, as the likelihood does.
    molecules = read_molecules(locs, block, first_frame, excess, 1.0)
    likely = locs["probability"].astype(np.float64).clip(0, 1) if "probability" in locs else np.ones(len(locs))
    columns: dict[str, npt.NDArray[Any]] = {
        "x": molecules.x,
        "y": molecules.y,
        "sigma_x": molecules.prior_x,
        "sigma_y": molecules.prior_y,
        "photons": molecules.photons,
        "background": molecules.background,
        "probability": likely,
    }
    seen = look(
        frames / excess,
        {**columns, "frame": molecules.frame},
        psf_sigma_px=psf_sigma_px,
        read_variance_e2=np.asarray(read_variance_e2, np.float64) / excess**2,
    )
    return seen, {**columns, "frame": molecules.frame}


def calibration_factors(
    readout: Stage,
    columns: dict[str, npt.NDArray[Any]],
    sigma: FloatArray,
    psf_sigma_px: float,
    read_variance_e2: npt.ArrayLike,
    excess: float,
) -> FloatArray:
    """By what the spread of the maps is multiplied, (molecules, 2)."""
    from smlm_pb.localization.crowding import crowding
    from smlm_pb.localization.sigma_calibration import SigmaCalibration, Stated
    from smlm_pb.refinement.crlb import mortensen_mle

    calibration = SigmaCalibration.from_dict(readout.card.calibration)
    if calibration is None:
        return np.ones(sigma.shape)
    background = columns["background"].clip(0) + float(np.median(np.asarray(read_variance_e2))) / excess**2
    limit = mortensen_mle(columns["photons"].clip(1.0), background, psf_sigma_px)
    crowded = crowding(columns, psf_sigma_px)
    return np.stack(
        [calibration.apply(Stated(sigma[:, k], limit, crowded)).astype(np.float64) / sigma[:, k] for k in (0, 1)],
        axis=1,
    )


def _over_movie(
    locs: Localizations,
    movie: Any,
    work: Callable[[Localizations, Any, dict[str, Any]], Localizations],
    step: dict[str, Any],
    camera: Camera | None,
    psf_sigma_px: float | None,
    on_progress: OnProgress | None,
    should_stop: Callable[[], bool] | None,
) -> Localizations:
    """Apply something to the rows and frames of a table, some at a time, and put the rows back in their order."""
    from smlm_pb.analysis.residuals import check_movie, pixel_conditions
    from smlm_pb.localizations import Localizations
    from smlm_pb.movies import open_movie

    camera, sigma, _ = pixel_conditions(locs, camera, psf_sigma_px, None)
    how = {
        "psf_sigma_px": sigma,
        "read_variance_e2": camera.read_variance_e2,
        "excess_noise_factor": camera.excess_noise_factor,
    }
    opened = open_movie(movie)
    try:
        check_movie(locs, opened)
        order = np.argsort(locs["frame"], kind="stable")
        parts = []
        done = 0
        for rows in _portions(locs["frame"][order].astype(np.int64), opened.height * opened.width):
            if should_stop is not None and should_stop():
                raise Cancelled(f"Stopped looking at movie {opened.name}; nothing was written.")
            part = locs.select(order[rows])
            first, stop = (int(part["frame"][0]), int(part["frame"][-1]) + 1) if len(part) else (0, 1)
            electrons = camera.to_electrons(opened.read(first, stop))
            parts.append(work(part, electrons, {**how, "first_frame": first}))
            done += len(part)
            if on_progress is not None:
                on_progress(done, len(locs))
    finally:
        if opened is not movie:
            opened.close()
    back = np.empty(len(order), np.intp)
    back[order] = np.arange(len(order))
    told = {**step, "psf_sigma_px": sigma, "camera": camera.as_dict()}
    return Localizations.concatenate(parts).select(back).with_provenance(told)


def _portions(frame: npt.NDArray[np.int64], frame_px: int) -> Iterator[slice]:
    """Parts of whole frames that fit into memory; at least one, also of nothing."""
    most_frames = max(1, _PIXELS // frame_px)
    start = 0
    while start < len(frame):
        stop = int(np.searchsorted(frame, frame[start] + most_frames))
        if stop - start > _ROWS:
            first = int(np.searchsorted(frame, frame[start], side="right"))
            stop = max(first, int(np.searchsorted(frame, frame[start + _ROWS])))
        yield slice(start, stop)
        start = stop
    if len(frame) == 0:
        yield slice(0, 0)


def _as_stage(stage: str | Path | Stage, kind: str) -> Stage:
    from smlm_pb.refinement.second_stage import Stage, load_stage

    return stage if isinstance(stage, Stage) else load_stage(stage, kind)


def _warn_of_other_model(locs: Localizations, stage: Stage) -> None:
    """What was learned of the errors of one model does not hold for another."""
    from smlm_pb.analysis.table_conditions import conditions_of

    known, behind = conditions_of(locs), stage.card.behind
    if not behind or known.model_sha256 == behind.get("sha256"):
        return
    made_by = f"by model '{known.model}'" if known.model else "by an unknown program"
    warnings.warn(
        f"The {stage.card.kind} was trained behind model '{behind.get('name')}' and the table was made {made_by}: its "
        f"{'precisions' if stage.card.kind == 'readout' else 'probabilities'} may not hold; train one behind the model "
        "that made the table.",
        UserWarning,
        stacklevel=3,
    )
