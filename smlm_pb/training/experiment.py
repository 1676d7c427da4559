"""The experiment file: everything that decides a training run, validated before anything starts."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from smlm_pb.configuration import read_yaml, validate
from smlm_pb.errors import ConfigurationError
from smlm_pb.networks import NetworkSettings
from smlm_pb.simulation.scene_settings import SceneSettings
from smlm_pb.training.data_settings import ConsistencySettings, DataSettings
from smlm_pb.training.methods import DEFAULT_METHOD, METHODS, find_method


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    outlier_density_per_px2: float = Field(
        0.0,
        ge=0,
        description="density of molecules that belong to no candidate, if they are shared out by stated precision; "
        "0 shares them out by the kernel",
    )
    photon_weight: float = Field(0.05, ge=0, description="weight of the photon error of matched candidates")
    background_weight: float = Field(0.5, ge=0, description="weight of the background error")
    background_at_molecules: float = Field(
        0.0, ge=0, description="extra weight of the background error in the pixels around a molecule"
    )
    scene_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how much more molecules of sparse scenes count: scenes of c molecules weigh ((c + 5) / 65)^-value",
    )


class ValidationSettings(_Section):
    """When and on what the run is judged."""

    every_steps: int = Field(1000, ge=1, description="steps between validations")
    scenes: int = Field(96, ge=1, description="simulated scenes, the same at every validation")
    seed: int = Field(987_654, ge=0, description="seed of those scenes")
    tolerance_px: float = Field(0.5, gt=0, description="matching distance for the Jaccard index, px")
    calibration_scenes: int = Field(
        2048,
        ge=0,
        description="fresh scenes on which probability and precision are calibrated at the end; 0 leaves them",
    )
    sparse_calibration_scenes: int = Field(
        0,
        ge=0,
        description="further ones for the calibration, all of them sparse: of the molecules of ordinary scenes few are "
        "alone, and what is true of those is learned slowly",
    )


class ClassSettings(_Section):
    """One class of molecules."""

    name: str = Field(min_length=1, description="name of the class", examples=["red"])
    share: float = Field(1.0, gt=0, description="share of the molecules, relative to the other classes")
    width_x: float = Field(1.0, ge=0.3, le=4, description="PSF width along x, in units of the PSF width that is told")
    width_y: float = Field(1.0, ge=0.3, le=4, description="PSF width along y, likewise")
    photons: float = Field(1.0, gt=0, description="brightness in units of that of the scenes")


class Experiment(_Section):
    """One training run."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="name of the model that results",
        examples=["my-microscope"],
    )
    description: str = Field("", description="what the model is for, shown to users")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of initial weights and of every scene")
    method: str = Field(
        DEFAULT_METHOD,
        description="way of teaching: the default, or a baseline of the literature; it brings its own defaults for "
        "`network` and `loss`",
    )
    network: NetworkSettings = Field(default_factory=lambda: NetworkSettings())
    start_from: str | None = Field(
        None,
        description="shipped model or model folder whose weights the run starts from; same network settings, but "
        "`blocks` may be more, `reach_px` another, and `told` more",
    )
    scenes: dict[str, Any] = Field(default_factory=dict, description="range of experiments that scenes are drawn from")
    classes: tuple[ClassSettings, ...] = Field(
        (), description="classes of molecules in one movie (two colours, two PSFs) that the network tells apart"
    )
    data: DataSettings | None = Field(
        None, description="movie with positions or counts to learn from; simulated scenes where left out"
    )
    consistency: ConsistencySettings | None = Field(
        None, description="movie without labels, in which the network must count alike in two views of a crop"
    )
    loss: LossSettings = Field(default_factory=lambda: LossSettings())
    validation: ValidationSettings = Field(default_factory=lambda: ValidationSettings())
    steps: int = Field(20_000, ge=1, description="optimisation steps")
    batch_size: int = Field(8, ge=1, description="scenes per step")
    crop_px: int = Field(48, ge=16, le=512, description="side of a training scene, px")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw",
        description="'muon' orthogonalises the updates of the backbone's convolutions and learns faster from nothing; "
        "where a run starts from a model it gains nothing",
    )
    learning_rate: float = Field(
        1e-3, gt=0, le=0.1, description="peak learning rate of AdamW; that of orthogonalised updates is twice as high"
    )
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
    like: dict[str, Any] | None = Field(
        None, description="the movie whose measured values the scenes follow; goes onto the model's card"
    )

    @model_validator(mode="before")
    @classmethod
    def _method_defaults(cls, content: Any) -> Any:
        name = content.get("method", DEFAULT_METHOD) if isinstance(content, Mapping) else None
        method = METHODS.get(name) if isinstance(name, str) else None
        if method is None:
            return content  # said below, with the name
        defaults = {"network": {"read_out": method.read_out, **method.network}, "loss": dict(method.loss)}
        given = {section: content.get(section, {}) for section in defaults}
        merged = {
            section: {**defaults[section], **value} for section, value in given.items() if isinstance(value, Mapping)
        }
        return {**content, **merged}

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        try:
            find_method(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("scenes")
    @classmethod
    def _known_scene_keys(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            # Together first: two values may only fit each other.
            with contextlib.suppress(TypeError, ValueError):
                SceneSettings(**value)
            for key, one in value.items():
                _check_scene_setting(key, one)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Experiment:
        told = self.scenes.get("context_frames", 0)
        if told != self.network.context_frames:
            raise ValueError(
                f"scenes.context_frames = {told} must equal network.context_frames = {self.network.context_frames}"
            )
        if self.loss.tile_px > self.crop_px:
            raise ValueError(f"loss.tile_px = {self.loss.tile_px} must not exceed crop_px = {self.crop_px}")
        if self.consistency is not None and self.consistency.tile_px > self.crop_px:
            raise ValueError(
                f"consistency.tile_px = {self.consistency.tile_px} must not exceed crop_px = {self.crop_px}"
            )
        return self

    @model_validator(mode="after")
    def _network_fits_method(self) -> Experiment:
        wanted = METHODS[self.method].read_out
        if self.network.read_out != wanted:
            raise ValueError(
                f"network.read_out = '{self.network.read_out}' does not go with method '{self.method}', which has "
                f"'{wanted}': leave network.read_out out, or choose another method"
            )
        counts = self.data is not None and self.data.counts is not None
        if wanted != "offsets" and (counts or self.consistency is not None):
            raise ValueError(
                f"method '{self.method}' draws molecules and cannot learn from counts: leave out "
                f"{'data.counts' if counts else 'consistency'}, or choose another method"
            )
        return self

    @model_validator(mode="after")
    def _classes_fit(self) -> Experiment:
        if not self.classes:
            return self
        try:
            self.scene_settings()
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        n = len(self.classes)
        if self.network.n_candidates % n:
            raise ValueError(
                f"network.n_candidates = {self.network.n_candidates} must be a multiple of the {n} classes: each class "
                "has candidates of its own in every pixel"
            )
        if self.method != DEFAULT_METHOD or self.data is not None or self.consistency is not None:
            raise ValueError("classes go with simulated scenes and the default method only: leave out the others")
        if self.network.context_frames:
            raise ValueError("classes do not go with network.context_frames = 1: set it to 0")
        return self

    def scene_settings(self) -> SceneSettings:
        """The range of experiments scenes are drawn from."""
        classes = [one.model_dump() for one in self.classes]
        return SceneSettings(**{**self.scenes, **({"classes": classes} if classes else {})})

    @classmethod
    def from_yaml(cls, path: str | Path) -> Experiment:
        """Read an experiment file.

        Raises
        ------
        ConfigurationError
            When the file cannot be read, or a key or value is wrong: with the key, the rule and the remedy.

        Notes
        -----
        A measured PSF (``scenes.psf_file``) is looked for beside the file.
        """
        content = read_yaml(path)
        scenes = content.get("scenes")
        if isinstance(scenes, dict) and isinstance(scenes.get("psf_file"), str):
            content["scenes"] = {**scenes, "psf_file": str(Path(path).resolve().parent / scenes["psf_file"])}
        return cls.from_dict(content, source=str(path))

    @classmethod
    def from_dict(cls, content: dict[str, Any], *, source: str = "experiment") -> Experiment:
        """Validate plain values.

        Raises
        ------
        ConfigurationError
            Naming the key, the value, the rule and the remedy.
        """
        return validate(cls, content, source)


def _check_scene_setting(key: str, value: Any) -> None:
    """Check one key by itself, so that a value of the wrong kind is named."""
    known = list(SceneSettings.__dataclass_fields__)
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys here are {', '.join(known)}"
        raise ValueError(f"unknown key {key}; {hint}")
    try:
        SceneSettings(**{key: value})
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key} = {value!r} holds something else than numbers; correct the value") from error
