"""Second stages from one experiment file each: a read-out of position maps, a verifier, a finder of duplicates."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from smlm_pb._version import __version__
from smlm_pb.configuration import read_yaml, validate
from smlm_pb.errors import ConfigurationError
from smlm_pb.losses.map_grid import MapGrid
from smlm_pb.losses.sampling_argmax import LOSSES
from smlm_pb.refinement.second_stage import KINDS, StageCard, save_stage
from smlm_pb.simulation.scene_settings import SceneSettings

if TYPE_CHECKING:
    from smlm_pb.localization import Model
    from smlm_pb.training.second_stage_examples import Examples

OnProgress = Callable[[str, int, int], None]
#: Share of the scenes that is not trained on, but calibrated and judged with.
_HELD_OUT = 0.15


class _Stage(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: int = Field(0, ge=0, lt=2**63, description="seed of initial weights and of everything that is simulated")
    learning_rate: float = Field(2e-3, gt=0, le=0.1, description="peak learning rate of AdamW")


class _BehindModel(_Stage):
    model: str = Field("default", description="shipped model or model folder whose molecules are looked at again")
    scenes: dict[str, Any] = Field(
        default_factory=dict, description="range of experiments; what is left out is what the model was made for"
    )
    n_scenes: int = Field(1600, ge=20, description="simulated scenes")
    crop_px: int = Field(48, ge=16, le=512, description="side of a scene, px")
    batch_size: int = Field(256, ge=8, description="molecules per step")
    hidden: int = Field(96, ge=4, le=1024, description="width of the two hidden layers")

    @field_validator("scenes")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            SceneSettings(**value)
        except (ConfigurationError, TypeError) as error:
            raise ValueError(str(error)) from error
        return value


class ReadoutExperiment(_BehindModel):
    """A head that turns the window of a molecule into a position map."""

    kind: Literal["readout"] = "readout"
    name: str = Field("readout", description="name for people")
    steps: int = Field(4000, ge=1, description="optimisation steps")
    least_probability: float = Field(0.3, ge=0, lt=1, description="molecules less likely are not in the table")
    loss: str = Field("energy", description=f"one of {', '.join(LOSSES)}", examples=["energy"])
    basis: Literal["uniform", "triangular", "gaussian"] = Field("triangular", description="density around a cell")
    cells: int = Field(13, ge=3, le=65, description="cells along a side of the map, odd")
    step: float = Field(0.6, gt=0, le=4, description="distance of two cells, in units of the stated precision")

    @field_validator("loss")
    @classmethod
    def _loss_is_known(cls, value: str) -> str:
        if value not in LOSSES:
            raise ValueError(f"loss = {value} is unknown: use {', '.join(LOSSES)}")
        return value

    @property
    def grid(self) -> MapGrid:
        """The map."""
        return MapGrid(self.cells, self.step, self.basis)


class VerifierExperiment(_BehindModel):
    """A classifier that judges again whether a molecule is there."""

    kind: Literal["verifier"] = "verifier"
    name: str = Field("verifier", description="name for people")
    steps: int = Field(4000, ge=1, description="optimisation steps")
    least_probability: float = Field(0.05, ge=0, lt=1, description="molecules less likely are not in the table")


class DuplicatesExperiment(_Stage):
    """A network that finds rows that stand for the same molecule."""

    kind: Literal["duplicates"] = "duplicates"
    name: str = Field("duplicates", description="name for people")
    steps: int = Field(4000, ge=1, description="optimisation steps")
    tables_per_step: int = Field(4, ge=1, description="simulated tables per step")
    hidden: int = Field(32, ge=4, le=256, description="width of states and messages")
    learning_rate: float = Field(4e-3, gt=0, le=0.1, description="peak learning rate of AdamW")


SecondStageExperiment = ReadoutExperiment | VerifierExperiment | DuplicatesExperiment
_EXPERIMENTS: dict[str, type[Any]] = {
    "readout": ReadoutExperiment,
    "verifier": VerifierExperiment,
    "duplicates": DuplicatesExperiment,
}


def read_experiment(kind: str, path: str | Path | None = None, **changes: Any) -> SecondStageExperiment:
    """Read what decides the training of a second stage.

    Parameters
    ----------
    kind : {"readout", "verifier", "duplicates"}
        Which.
    path : str or Path, optional
        YAML file; every key it leaves out has a default, and so has everything without a file.
    **changes
        Values that replace those of the file.

    Returns
    -------
    SecondStageExperiment

    Raises
    ------
    ConfigurationError
        When the kind is unknown, or the file or a key is wrong.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"There is no second stage '{kind}': use {', '.join(KINDS)}.")
    content = {} if path is None else read_yaml(path)
    experiment: SecondStageExperiment = validate(_EXPERIMENTS[kind], {**content, **changes}, str(path or kind))
    return experiment


def train_second_stage(
    experiment: SecondStageExperiment,
    out: str | Path,
    *,
    device: str = "auto",
    command: str = "",
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> StageCard:
    """Train a second stage and write it into a folder.

    Parameters
    ----------
    experiment : SecondStageExperiment
        From :func:`read_experiment`.
    out : str or Path
        The folder.
    device : str
        Where the model runs; the second stage itself is small and stays on the processor.
    command : str
        What was typed, for the card.
    on_progress, should_stop : callable, optional
        Called with what is done, steps done and all steps; asked whether to stop.

    Returns
    -------
    StageCard
        With what was measured on examples that were held out.

    Raises
    ------
    ModelError
        When the model cannot be loaded.
    OutputError
        When the folder cannot be written.
    Cancelled
        When ``should_stop`` said so.
    """
    began = time.perf_counter()
    work = {"readout": _readout, "verifier": _verifier, "duplicates": _duplicates}[experiment.kind]
    network, found = work(experiment, device, on_progress, should_stop)  # type: ignore[operator]
    training = {
        "command": command,
        "seed": experiment.seed,
        "steps": experiment.steps,
        "seconds": round(time.perf_counter() - began),
        "version": __version__,
    }
    card = StageCard(kind=experiment.kind, name=experiment.name, network=network.settings, training=training, **found)
    described = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    save_stage(Path(out), network, card, described)
    return card


def scenes_for(model: Model, given: dict[str, Any]) -> SceneSettings:
    """The range of experiments a model was made for, with what is given in its place."""
    card = model.card
    made_for = {
        "psf_sigma_px": card.psf_sigma_px,
        "photons": card.photons,
        "background_e": card.background_e,
        "dense_density_per_px2": (min(0.01, card.density_per_px2[1] / 2), card.density_per_px2[1]),
    }
    return SceneSettings(**{**made_for, **given})


def _examples(
    experiment: ReadoutExperiment | VerifierExperiment,
    device: str,
    on_progress: OnProgress | None,
    should_stop: Callable[[], bool] | None,
) -> tuple[Examples, Examples, dict[str, Any]]:
    """Examples to train with, examples to judge with, and behind which model."""
    from smlm_pb.localization import load_model
    from smlm_pb.training.second_stage_examples import draw_examples

    model = load_model(experiment.model, device)
    examples = draw_examples(
        model,
        scenes_for(model, experiment.scenes),
        n_scenes=experiment.n_scenes,
        crop_px=experiment.crop_px,
        seed=experiment.seed,
        least_probability=experiment.least_probability,
        on_progress=_named(on_progress, "simulating"),
        should_stop=should_stop,
    )
    held_out = examples.scene >= (1.0 - _HELD_OUT) * experiment.n_scenes
    if not (examples.exists & held_out).any() or not (examples.exists & ~held_out).any():
        raise ConfigurationError(
            f"Model '{model.card.name}' finds too few molecules in {experiment.n_scenes} scenes to learn from: give "
            "more n_scenes, or brighter scenes."
        )
    behind = {"name": model.card.name, "sha256": model.card.weights_sha256}
    return examples.select(~held_out), examples.select(held_out), behind


def _readout(experiment: ReadoutExperiment, device: str, on_progress: Any, should_stop: Any) -> tuple[Any, dict]:
    from smlm_pb.training.second_stage_fit import fit_maps
    from smlm_pb.training.second_stage_judge import judge_maps

    examples, held_out, behind = _examples(experiment, device, on_progress, should_stop)
    network = fit_maps(
        examples,
        experiment.grid,
        loss=experiment.loss,
        steps=experiment.steps,
        batch_size=experiment.batch_size,
        learning_rate=experiment.learning_rate,
        hidden=experiment.hidden,
        seed=experiment.seed,
        on_step=_named(on_progress, "training"),
        should_stop=should_stop,
    )
    calibration, accuracy = judge_maps(network, experiment.grid, held_out)
    grid = {"cells": experiment.cells, "step": experiment.step, "basis": experiment.basis}
    return network, {"grid": grid, "behind": behind, "calibration": calibration, "accuracy": accuracy}


def _verifier(experiment: VerifierExperiment, device: str, on_progress: Any, should_stop: Any) -> tuple[Any, dict]:
    from smlm_pb.training.second_stage_fit import fit_verifier
    from smlm_pb.training.second_stage_judge import judge_verifier

    examples, held_out, behind = _examples(experiment, device, on_progress, should_stop)
    network = fit_verifier(
        examples,
        steps=experiment.steps,
        batch_size=experiment.batch_size,
        learning_rate=experiment.learning_rate,
        hidden=experiment.hidden,
        seed=experiment.seed,
        on_step=_named(on_progress, "training"),
        should_stop=should_stop,
    )
    return network, {"behind": behind, "accuracy": judge_verifier(network, held_out)}


def _duplicates(experiment: DuplicatesExperiment, device: str, on_progress: Any, should_stop: Any) -> tuple[Any, dict]:
    from smlm_pb.training.duplicates import judge_duplicates, train_duplicates

    network = train_duplicates(
        steps=experiment.steps,
        tables_per_step=experiment.tables_per_step,
        learning_rate=experiment.learning_rate,
        hidden=experiment.hidden,
        seed=experiment.seed,
        on_step=_named(on_progress, "training"),
        should_stop=should_stop,
    )
    return network, {"accuracy": judge_duplicates(network, seed=experiment.seed + 1)}


def _named(on_progress: OnProgress | None, what: str) -> Callable[[int, int], None] | None:
    if on_progress is None:
        return None
    return lambda done, total: on_progress(what, done, total)
