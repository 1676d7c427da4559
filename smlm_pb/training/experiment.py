"""The experiment file: everything that decides a training run, validated before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from smlm_pb.errors import ConfigurationError
from smlm_pb.networks import NetworkSettings
from smlm_pb.simulation.scene_settings import SceneSettings


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(_Section):
    """A value that moves geometrically from ``start`` to ``end`` and then stays."""

    start: float = Field(gt=0, description="value at the first step")
    end: float = Field(gt=0, description="value once reached")
    reached_at: float = Field(0.5, gt=0, le=1, description="share of all steps after which `end` is reached")

    def at(self, progress: float) -> float:
        """Value at ``progress`` (0 = first step, 1 = last)."""
        share = min(1.0, progress / self.reached_at)
        return float(self.start * (self.end / self.start) ** share)


class LossSettings(_Section):
    """Weights and schedules of the objective."""

    uncertainty_aware: bool = Field(True, description="kernels averaged over each candidate's stated precision")
    bandwidth_px: Schedule = Field(
        default_factory=lambda: Schedule(start=0.9, end=0.3, reached_at=0.6),
        description="kernel width lambda, px",
    )
    count_weight: Schedule = Field(
        default_factory=lambda: Schedule(start=0.1, end=1.0, reached_at=0.3),
        description="weight of the counting loss",
    )
    tile_px: int = Field(8, ge=2, le=64, description="side of the tiles in which molecules are also counted, px")
    tile_weight: float = Field(0.3, ge=0, description="weight of the tiles' counts relative to the frame's")
    position_weight: float = Field(0.1, ge=0, description="weight of the Gaussian likelihood of matched positions")
    photon_weight: float = Field(0.05, ge=0, description="weight of the photon error of matched candidates")
    background_weight: float = Field(0.5, ge=0, description="weight of the background error")


class ValidationSettings(_Section):
    """When and on what the run is judged."""

    every_steps: int = Field(1000, ge=1, description="steps between validations")
    scenes: int = Field(96, ge=1, description="simulated scenes, the same at every validation")
    seed: int = Field(987_654, description="seed of those scenes")
    tolerance_px: float = Field(0.5, gt=0, description="matching distance for the Jaccard index, px")


class Experiment(_Section):
    """One training run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the model that results")
    description: str = Field("", description="what the model is for, shown to users")
    seed: int = Field(0, description="seed of initial weights and of every scene")
    network: NetworkSettings = Field(default_factory=lambda: NetworkSettings())
    scenes: dict[str, Any] = Field(default_factory=dict, description="range of experiments; keys of SceneSettings")
    loss: LossSettings = Field(default_factory=lambda: LossSettings())
    validation: ValidationSettings = Field(default_factory=lambda: ValidationSettings())
    steps: int = Field(20_000, ge=1, description="optimisation steps")
    batch_size: int = Field(8, ge=1, description="scenes per step")
    crop_px: int = Field(48, ge=16, le=512, description="side of a training scene, px")
    learning_rate: float = Field(1e-3, gt=0, le=0.1, description="peak learning rate of AdamW")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of steps in which the learning rate rises")
    weight_decay: float = Field(1e-4, ge=0, description="decoupled weight decay")
    gradient_clip: float = Field(1.0, gt=0, description="largest gradient, in units of its running median norm × 2")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights that are kept")
    psf_sigma_jitter: float = Field(
        0.03, ge=0, le=0.3, description="relative error of the PSF width told to the network"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="arithmetic of the backbone; losses stay float32"
    )
    float32_at: float = Field(
        0.9, ge=0, le=1, description="share of steps after which the backbone also runs in float32"
    )
    checkpoint_every_steps: int = Field(500, ge=1, description="steps between checkpoints")
    workers: int = Field(1, ge=0, le=64, description="processes that simulate; 0 = in the training process")

    @field_validator("scenes")
    @classmethod
    def _known_scene_keys(cls, value: dict[str, Any]) -> dict[str, Any]:
        known = SceneSettings.__dataclass_fields__
        for key in value:
            if key not in known:
                raise ValueError(f"unknown key '{key}'; known: {', '.join(known)}")
        SceneSettings(**value)
        return value

    @model_validator(mode="after")
    def _tiles_fit(self) -> Experiment:
        if self.loss.tile_px > self.crop_px:
            raise ValueError(f"loss.tile_px = {self.loss.tile_px} must not exceed crop_px = {self.crop_px}")
        return self

    def scene_settings(self) -> SceneSettings:
        """The range of experiments scenes are drawn from."""
        return SceneSettings(**self.scenes)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Experiment:
        """Read an experiment file.

        Raises
        ------
        ConfigurationError
            When the file cannot be read, or a key or value is wrong: with the key, the rule and the remedy.
        """
        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"Experiment file {path} cannot be read: {error.strerror}.") from error
        except yaml.YAMLError as error:
            where = getattr(error, "problem_mark", None)
            line = f" line {where.line + 1}" if where is not None else ""
            raise ConfigurationError(f"Experiment file {path}{line} is not valid YAML: correct the syntax.") from error
        if not isinstance(content, dict):
            raise ConfigurationError(f"Experiment file {path} must hold keys and values, e.g. 'name: my-model'.")
        return cls.from_dict(content, source=str(path))

    @classmethod
    def from_dict(cls, content: dict[str, Any], *, source: str = "experiment") -> Experiment:
        """Validate plain values.

        Raises
        ------
        ConfigurationError
            Naming the key, the value, the rule and the remedy.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ConfigurationError(f"{source}: {_explain(error)}") from error
        except ConfigurationError as error:
            raise ConfigurationError(f"{source}: scenes: {error}") from error


def _explain(error: ValidationError) -> str:
    """All problems in one line: key, value, rule, remedy."""
    problems = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "the file"
        if item["type"] == "extra_forbidden":
            known = ", ".join(_known_keys(item["loc"][:-1]))
            problems.append(f"unknown key '{key}' (remove it, or use one of: {known})")
        elif item["type"] == "missing":
            problems.append(f"key '{key}' is missing (add it)")
        else:
            problems.append(
                f"{key} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')} (correct the value)"
            )
    return "; ".join(problems) + "."


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Experiment
    for part in location:
        model = model.model_fields[str(part)].annotation
    return list(model.model_fields)
