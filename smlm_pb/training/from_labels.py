"""A training from positions that another program, a person or another channel has given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smlm_pb.errors import ConfigurationError, SmlmPbError
from smlm_pb.formats import read_table, sniff
from smlm_pb.localization.model import DEFAULT_MODEL, Model, load_model
from smlm_pb.localization.settings import Conditions, JobSettings
from smlm_pb.localizations import Localizations
from smlm_pb.movies import Movie, open_movie
from smlm_pb.training.data_settings import LabelTable
from smlm_pb.training.experiment import Experiment
from smlm_pb.training.label_shift import LabelShift, label_shift
from smlm_pb.training.labelled_movie import label_sigma, load_labels
from smlm_pb.training.movie_measure import find
from smlm_pb.training.proposal import (
    SMALL_NETWORK,
    Proposal,
    card_ranges,
    movie_conditions,
    movie_section,
    name_of,
    optimizer_for,
    own_training,
)

if TYPE_CHECKING:
    import os

#: Steps of a training from nothing, and of one that starts from a model.
STEPS, FINE_TUNE_STEPS = 3000, 1000
_RATE, _FINE_TUNE_RATE = 2e-3, 2e-4
#: Share of simulated scenes where the run starts from a model, which must not forget what labels do not tell.
_SIMULATED_SHARE = 0.5
_CROP_PX = 32
#: Error of positions of which nothing is known, and of clicks, px.
_UNKNOWN_SIGMA_PX, _CLICK_SIGMA_PX = 0.3, 0.5
#: Frames in which labels are compared with a model.
_COMPARED_FRAMES = 60
#: Labels that scatter this much more than they state are told.
_UNDERSTATED = 1.7


@dataclass(frozen=True)
class _Source:
    """One table, the error that is assumed of it, and how it compares with a model."""

    settings: LabelTable
    table: Localizations
    shift: LabelShift | None
    sigma_px: float
    why: str


def propose_from_labels(
    movie: str | os.PathLike[str],
    tables: Sequence[str | os.PathLike[str]],
    *,
    start: str | os.PathLike[str] | None = None,
    label_sigma_px: float | Sequence[float] | None = None,
    label_frames: str = "auto",
    subtract_shift: bool = False,
    simulated_share: float | None = None,
    name: str | None = None,
    offset_adu: float | None = None,
    e_per_adu: float | None = None,
    em_gain: float | None = None,
    psf_sigma_px: float | None = None,
    pixel_size_nm: float | None = None,
    frames: tuple[int, int | None] | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Proposal:
    """Look at a movie and tables of positions in it, and propose a training; nothing is trained or written.

    Parameters
    ----------
    movie : path
        The movie.
    tables : sequence of path
        Positions in it, in any format that :func:`smlm_pb.formats.read_table` reads: from another program, clicked
        (points of napari), or carried over from another channel. Several tables are several opinions: each training
        crop follows one of them.
    start : path or str, optional
        Model to fine-tune; a new network is trained where left out.
    label_sigma_px : float or one per table, optional
        Error of the positions per axis beyond what ``sigma_x`` and ``sigma_y`` of the table state: of a registration,
        of a hand. Where left out, the table's own errors are taken; without them, what the labels scatter around a
        trained model; without that, 0.3 px, or 0.5 px for clicks.
    label_frames : {"auto", "all", "labelled"}
        Whether frames without labels are empty (all) or were not looked at (labelled); auto takes clicks for the
        latter and all other tables for the former.
    subtract_shift : bool
        Take off the common shift between the labels and a trained model.
    simulated_share : float, optional
        Share of each batch that is simulated, 0 to below 1; half with ``start``, none without.
    name : str, optional
        Name of the model that results.
    offset_adu, e_per_adu, em_gain, psf_sigma_px, pixel_size_nm, frames
        As for :func:`smlm_pb.localize`; what is not given is estimated.
    steps, seed : int
        Length and seed of the training.
    device : str
        Where the model runs that the labels are compared with.

    Returns
    -------
    Proposal

    Raises
    ------
    TableError, MovieError, CameraError, ModelError, ConfigurationError
        When an input is wrong.

    Examples
    --------
    >>> proposal = propose_from_labels("movie.tif", ["table.csv"], e_per_adu=0.5)  # doctest: +SKIP
    >>> smlm_pb.training.train(proposal.experiment, "runs/mine")  # doctest: +SKIP
    """
    if not tables:
        raise ConfigurationError("There is no table of labels: give at least one.")
    given = _one_per_table(label_sigma_px, len(tables))
    model = None if start is None else load_model(str(start), device)
    settings = JobSettings(
        offset_adu=offset_adu,
        e_per_adu=e_per_adu,
        em_gain=em_gain,
        psf_sigma_px=psf_sigma_px,
        pixel_size_nm=pixel_size_nm,
        frames=frames,
    )
    opened = open_movie(movie)
    try:
        conditions = movie_conditions(opened, settings, model)
        judge = model or load_model(DEFAULT_MODEL, device)
        sources = [
            _look_at(opened, Path(path), sigma, label_frames, subtract_shift, conditions, judge)
            for path, sigma in zip(tables, given, strict=True)
        ]
    finally:
        opened.close()
    section = {
        **movie_section(movie, conditions),
        "pixel_size_nm": conditions.pixel_size_nm,
        "labels": [source.settings.model_dump(mode="json") for source in sources],
        "simulated_share": (_SIMULATED_SHARE if start else 0.0) if simulated_share is None else simulated_share,
    }
    experiment = _experiment(
        section, sources, conditions, start=None if start is None else str(start), model=model, steps=steps, seed=seed,
        name=name or name_of(opened.name, "labels"), shape=(opened.height, opened.width),
    )  # fmt: skip
    facts, warnings = _tell(sources, judge.card.name, conditions, subtract_shift)
    return Proposal(experiment, facts, tuple(dict.fromkeys((*conditions.warnings, *warnings))))


def _one_per_table(sigma: float | Sequence[float] | None, n: int) -> list[float | None]:
    values: list[float | None]
    if sigma is None:
        values = [None] * n
    elif isinstance(sigma, (int, float)):
        values = [float(sigma)] * n
    else:
        values = [float(value) for value in sigma]
        values = values * n if len(values) == 1 else values
    if len(values) != n:
        raise ConfigurationError(
            f"label_sigma_px has {len(values)} values for {n} tables: give one for all, or one per table."
        )
    return values


def _look_at(
    movie: Movie,
    path: Path,
    sigma: float | None,
    label_frames: str,
    subtract: bool,
    conditions: Conditions,
    judge: Model,
) -> _Source:
    """Read one table, hold it against a trained model, and decide how far it is trusted."""
    if label_frames not in ("auto", "all", "labelled"):
        raise ConfigurationError(f"label_frames = {label_frames!r} must be auto, all or labelled.")
    form = sniff(path)
    clicks = form == "napari"
    table = read_table(path, form, pixel_size_nm=conditions.pixel_size_nm)
    kept = (table["frame"] >= conditions.frames[0]) & (table["frame"] < conditions.frames[1])
    seen = table.select(kept)
    shift = _compare(movie, seen, conditions, judge)
    own = not clicks and any(np.any(seen[name] > 0) for name in ("sigma_x", "sigma_y") if name in seen)
    extra, why = 0.0, "stated in the table"
    if sigma is not None:
        extra, why = sigma, "given" if not own else "given, and what the table states"
    elif not own:
        extra, why = _assumed(shift, clicks)
    settings = LabelTable(
        table=str(path.expanduser().resolve()),
        format=form,
        sigma_px=round(extra, 4),
        own_sigma=own,
        shift_px=(round(shift.x_px, 4), round(shift.y_px, 4)) if shift is not None and subtract else (0.0, 0.0),
        frames=("labelled" if clicks else "all") if label_frames == "auto" else label_frames,
    )
    errors = np.concatenate(label_sigma(seen, settings)) if len(seen) else np.zeros(1)
    return _Source(settings, seen, shift, float(np.median(errors)), why)


def _assumed(shift: LabelShift | None, clicks: bool) -> tuple[float, str]:
    if shift is not None:
        return max(0.02, shift.scatter_px), "measured against the model"
    return (_CLICK_SIGMA_PX if clicks else _UNKNOWN_SIGMA_PX), "assumed"


def _compare(movie: Movie, table: Localizations, conditions: Conditions, judge: Model) -> LabelShift | None:
    """Hold labels of some frames against what a trained model finds there; None where it cannot tell."""
    labelled = np.unique(table["frame"])
    if not len(labelled) or labelled[-1] >= movie.n_frames:
        return None
    some = labelled[np.unique(np.linspace(0, len(labelled) - 1, _COMPARED_FRAMES).round().astype(int))]
    adu = np.concatenate([movie.read(int(k), int(k) + 1) for k in some])
    try:
        found = find(adu, judge, conditions.camera, conditions.psf_sigma_px)
    except SmlmPbError:
        return None
    chosen = table.select(np.isin(table["frame"], some))
    renumbered = chosen.with_columns(frame=np.searchsorted(some, chosen["frame"]).astype(np.uint32))
    return label_shift(renumbered, found)


def _experiment(
    section: dict[str, Any],
    sources: Sequence[_Source],
    conditions: Conditions,
    *,
    start: str | None,
    model: Model | None,
    steps: int | None,
    seed: int,
    name: str,
    shape: tuple[int, int],
) -> Experiment:
    """The experiment: its softness follows the errors of the labels."""
    steps = steps or (FINE_TUNE_STEPS if start else STEPS)
    sigma = float(np.median([source.sigma_px for source in sources]))
    crop = min(_CROP_PX, *shape)
    own = own_training(start) if start else {}
    plain: dict[str, Any] = {
        "name": name,
        "description": f"Learned from {', '.join(Path(s.settings.table).name for s in sources)}"
        + (f", starting from '{model.card.name}'" if model else ""),
        "seed": seed,
        "network": model.card.network if model else SMALL_NETWORK,
        "start_from": start,
        "data": section,
        "loss": soft_loss(sigma, crop_px=crop, fine_tune=start is not None),
        "validation": {
            "every_steps": max(1, steps // 10),
            "tolerance_px": round(max(0.5, 2.5 * sigma), 3),
            "calibration_scenes": 2048 if section["simulated_share"] else 0,
        },
        "steps": steps,
        "crop_px": crop,
        "optimizer": optimizer_for(start),
        "learning_rate": _FINE_TUNE_RATE if start else _RATE,
        "ema_decay": min(0.999, 1 - 10 / max(steps, 20)),
        "psf_sigma_jitter": own.get("psf_sigma_jitter", 0.03),
        "workers": 1 if section["simulated_share"] else 0,
    }
    labels = load_labels(Experiment.from_dict(plain).data, sources[0].settings)  # type: ignore[arg-type]
    density = len(labels.x) / labels.frames.electrons.size
    return Experiment.from_dict({**plain, "scenes": card_ranges(conditions, labels.photons, density)})


def soft_loss(label_sigma_px: float, *, crop_px: int, fine_tune: bool) -> dict[str, Any]:
    """Settings of the loss for labels that err: a wide kernel first, then one no narrower than the error.

    Parameters
    ----------
    label_sigma_px : float
        Typical error of a label per axis, px.
    crop_px : int
        Side of a training crop, which bounds the tiles.
    fine_tune : bool
        Whether the network already finds molecules: nothing is annealed then.

    Returns
    -------
    dict
        The ``loss`` section. The weight of counting rises in the first third of the run (thesis Eq. 5.18 mixes the two
        losses by such a schedule). Tiles are larger the more the labels err, because labels near a tile's border are
        counted on its wrong side.

    References
    ----------
    J. Schroeter, PhD thesis, Cardiff University (2021), section 5.5.
    """
    end = max(0.3, label_sigma_px)
    first = end if fine_tune else max(0.9, 2 * label_sigma_px)
    tile = 8 if label_sigma_px < 0.3 else 16
    return {
        "bandwidth_px": {"start": round(first, 3), "end": round(end, 3), "reached_at": 0.6},
        "count_weight": {"start": 1.0 if fine_tune else 0.1, "end": 1.0, "reached_at": 0.3},
        "tile_px": min(tile, crop_px),
    }


def _tell(
    sources: Sequence[_Source], judge: str, conditions: Conditions, subtracted: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    facts, warnings = [], []
    for source in sources:
        name = Path(source.settings.table).name
        facts.append(
            f"{name}: {len(source.table)} positions in {len(np.unique(source.table['frame']))} frames, with an error "
            f"of {source.sigma_px:.3g} px per axis ({source.why})."
        )
        shift = source.shift
        if shift is None:
            warnings.append(
                f"{name}: the labels could not be compared with model '{judge}'; if they are all shifted by the same "
                "amount, the new model inherits that, and nothing in the training can tell."
            )
            continue
        told = shift.describe(judge, conditions.pixel_size_nm)
        if not shift.is_significant:
            facts.append(f"{name}: no common shift ({told}).")
        elif subtracted:
            facts.append(f"{name}: {told}; the shift is taken off.")
        else:
            half = "; half a pixel in both axes is the mark of another origin" if shift.looks_like_half_a_pixel else ""
            warnings.append(
                f"{name}: {told}{half}. A shift of all labels is inherited by the new model: take it off with "
                "subtract_shift=True unless the labels are right and the model is wrong."
            )
        if shift.scatter_px > _UNDERSTATED * max(source.sigma_px, 0.03):
            warnings.append(
                f"{name}: the labels scatter by {shift.scatter_px:.2g} px around model '{judge}', more than the "
                f"{source.sigma_px:.2g} px that are assumed: give label_sigma_px if they err more."
            )
    return tuple(facts), tuple(warnings)
