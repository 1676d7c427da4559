"""From an unlabelled movie to a model and the PSF it was taken with.

After MIST (B. Angles, Y. Jin, S. Kornblith, A. Tagliasacchi, K. M. Yi, "MIST: Multiple Instance Spatial Transformer",
CVPR 2021), with one shared kernel in the place of the auto-encoder, photons per molecule, a background per frame, and
the Poisson likelihood in the place of squared differences.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlm_pb.errors import Cancelled, ConfigurationError, OutputError
from smlm_pb.localization.model import Model, load_model
from smlm_pb.localization.settings import JobSettings
from smlm_pb.movies import open_movie
from smlm_pb.training.experiment import Experiment
from smlm_pb.training.label_free.export import export_run
from smlm_pb.training.label_free.recording import Recording, record
from smlm_pb.training.label_free.run import LabelFreeRun, OnRound
from smlm_pb.training.label_free.settings import LabelFreeSettings
from smlm_pb.training.loop import OnStep
from smlm_pb.training.proposal import name_of, own_training
from smlm_pb.training.validation import ValidationResult

if TYPE_CHECKING:
    import os

    import torch

    from smlm_pb.camera import Camera

#: Steps between checkpoints.
_CHECKPOINT_EVERY = 250


@dataclass(frozen=True)
class LabelFreeResult:
    """What a label-free training made.

    Parameters
    ----------
    model_folder : Path
        The model, for ``--model``; in it ``psf.tif`` and the pictures.
    psf_file, psf_picture, frames_picture : Path
        The learned PSF for the simulator and as a picture, and frames beside what explains them.
    steps, molecules : int
        Detector steps, and molecules that explain the frames.
    psf_sigma_x_px, psf_sigma_y_px : float
        Widths of the Gaussian that is most like the PSF, px.
    validation : ValidationResult
        Scores of the model on simulated frames with the learned PSF.
    warnings : tuple of str
        Why the result should not be believed blindly, one sentence each.
    """

    model_folder: Path
    psf_file: Path
    psf_picture: Path
    frames_picture: Path
    steps: int
    molecules: int
    psf_sigma_x_px: float
    psf_sigma_y_px: float
    validation: ValidationResult
    warnings: tuple[str, ...]


def learn_unlabelled(
    movie: Any,
    out: str | os.PathLike[str],
    *,
    start: str | os.PathLike[str] | None = None,
    name: str | None = None,
    camera: Camera | None = None,
    offset_adu: float | None = None,
    e_per_adu: float | None = None,
    em_gain: float | None = None,
    psf_sigma_px: float | None = None,
    frames: tuple[int, int | None] | None = None,
    settings: LabelFreeSettings | None = None,
    resume: bool = False,
    device: str = "auto",
    max_seconds: float | None = None,
    command: str = "",
    on_step: OnStep | None = None,
    on_round: OnRound | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> LabelFreeResult:
    """Learn a detector and the PSF of a movie together, without labels.

    Parameters
    ----------
    movie : path, array (frame, y, x), or Movie
        The movie.
    out : path
        Folder of the run; the model comes into ``out/NAME``.
    start : str or path, optional
        Trained model to refine together with the PSF; a new network without it.
    name : str, optional
        Name of the model that results; from the movie's when left out.
    camera, offset_adu, e_per_adu, em_gain, psf_sigma_px, frames
        As for :func:`smlm_pb.localize`; what is not given is estimated. The width is only where the PSF starts from.
    settings : LabelFreeSettings, optional
        Length and size; ``LabelFreeSettings.of(started=...)`` when left out.
    resume : bool
        Continue the run in ``out``; the result equals that of an uninterrupted one.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    max_seconds : float, optional
        Stop after this time, to be resumed.
    command : str
        Command line, for the model's card.
    on_step : callable, optional
        Called with (step, steps, loss terms) after each detector step.
    on_round : callable, optional
        Called after each round with what explains the movie then: molecules, photons, deviance.
    should_stop : callable, optional
        Asked after each step and part of the movie; when true the run stops, and what was reached is kept.

    Returns
    -------
    LabelFreeResult

    Raises
    ------
    MovieError
        When the movie is too short or small, saturated, or holds too few molecules.
    CameraError, ModelError, ConfigurationError
        When an input is wrong.
    OutputError
        When the folder holds a run already, or cannot be written.
    Cancelled
        When stopped before the first detector step.

    Examples
    --------
    >>> result = learn_unlabelled("movie.tif", "runs/own", offset_adu=100, e_per_adu=0.5)  # doctest: +SKIP
    >>> molecules = smlm_pb.localize("movie.tif", model=result.model_folder)  # doctest: +SKIP
    """
    from smlm_pb.devices import choose_device

    began = time.monotonic()
    folder = _folder(Path(out), resume=resume)
    chosen = choose_device(device)
    settings = settings or LabelFreeSettings.of(started=start is not None)
    given = JobSettings(
        camera=camera,
        offset_adu=offset_adu,
        e_per_adu=e_per_adu,
        em_gain=em_gain,
        psf_sigma_px=psf_sigma_px,
        frames=frames,
    )
    started = None if start is None else _start_model(str(start))
    opened = open_movie(movie)
    try:
        recording = record(opened, given, started, crop_px=settings.crop_px, device=chosen)
    finally:
        if opened is not movie:
            opened.close()
    experiment = _experiment(recording, settings, None if start is None else str(start), started, name)
    run = _opened(recording, experiment, settings, folder, chosen, resume=resume)
    deadline = None if max_seconds is None else began + max_seconds
    _work(run, deadline, on_step, on_round, should_stop)
    if run.trainer.step == 0:
        raise Cancelled("Training was stopped before its first step; there is nothing to continue, start it again.")
    run.save()
    exported = export_run(run, command=command)
    width_x, width_y = exported.widths_px
    return LabelFreeResult(
        exported.model_folder,
        exported.psf_file,
        exported.psf_picture,
        exported.frames_picture,
        run.trainer.step,
        run.history[-1]["molecules"],
        width_x,
        width_y,
        exported.validation,
        tuple(dict.fromkeys((*recording.conditions.warnings, *exported.warnings))),
    )


def _folder(folder: Path, *, resume: bool) -> Path:
    if not resume and (folder / "checkpoint.safetensors").exists():
        raise OutputError(f"{folder} already holds a run: continue it with resume=True, or choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Folder {folder} cannot be made ({error.strerror}): choose another one.") from error
    return folder


def _start_model(start: str) -> Model:
    model = load_model(start, "cpu")
    if model.card.network.get("context_frames") or model.card.network.get("read_out", "offsets") != "offsets":
        raise ConfigurationError(
            f"Model {start}: label-free training refines models that look at single frames and regress offsets, which "
            "this one does not; start from 'default', or from nothing."
        )
    return model


def _experiment(
    recording: Recording, settings: LabelFreeSettings, start: str | None, model: Model | None, name: str | None
) -> Experiment:
    """The detector and its training; what scenes are like the movie is known only at the end."""
    network: dict[str, Any] = {"channels": settings.channels, "blocks": settings.blocks}
    loss: dict[str, Any] = {}
    if model is not None and start is not None:
        network = model.card.network
        loss = _final_loss(own_training(start).get("loss"))
    origin = f", refined from '{model.card.name}'" if model is not None else ""
    return Experiment.from_dict(
        {
            "name": name or name_of(recording.name, "unlabelled"),
            "description": f"Movies like {recording.name}, learned from it without labels{origin}",
            "seed": settings.seed,
            "network": network,
            "start_from": start,
            "loss": loss,
            "validation": {
                "every_steps": settings.steps,
                "scenes": max(16, min(96, settings.calibration_scenes)),
                "calibration_scenes": settings.calibration_scenes,
            },
            "steps": settings.steps,
            "batch_size": settings.batch_size,
            "crop_px": settings.crop_px,
            "learning_rate": settings.learning_rate,
            "warmup": 0.05,
            "ema_decay": min(0.999, 1 - 10 / max(settings.steps, 20)),
            "workers": 0,
            "like": {
                "movie": recording.name,
                "fingerprint": recording.fingerprint,
                "frames": list(recording.conditions.frames),
                "psf_sigma_px": round(recording.conditions.psf_sigma_px, 4),
                "label_free": settings.as_dict(),
            },
        }
    )


def _final_loss(loss: Any) -> dict[str, Any]:
    """The loss of the start model's training with its schedules at their ends."""
    final = dict(loss or {})
    for key, value in (("bandwidth_px", 0.3), ("count_weight", 1.0)):
        end = final[key]["end"] if key in final else value
        final[key] = {"start": end, "end": end, "reached_at": 1.0}
    return final


def _opened(
    recording: Recording,
    experiment: Experiment,
    settings: LabelFreeSettings,
    folder: Path,
    device: torch.device,
    *,
    resume: bool,
) -> LabelFreeRun:
    run = LabelFreeRun(recording, experiment, settings, folder, device)
    if resume:
        run.restore()
    return run


def _work(
    run: LabelFreeRun,
    deadline: float | None,
    on_step: OnStep | None,
    on_round: OnRound | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    """Rounds and detector steps in turn, until done or stopped."""

    def ended() -> bool:
        late = deadline is not None and time.monotonic() > deadline
        return late or (should_stop is not None and should_stop())

    while not run.finished:
        if run.round_is_due:
            if not run.explain(ended):
                return
            if on_round is not None:
                on_round(run.history[-1])
            continue
        terms = run.improve()
        if on_step is not None:
            on_step(run.trainer.step, run.settings.steps, terms)
        if run.trainer.step % _CHECKPOINT_EVERY == 0:
            run.save()
        if ended():
            return
