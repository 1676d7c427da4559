"""What decides a label-free training."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from smlm_pb.errors import ConfigurationError

#: Steps and rounds of a training from nothing, and of one that starts from a trained model.
NEW, STARTED = {"steps": 1500, "rounds": 8}, {"steps": 400, "rounds": 5}
#: Detector steps are few while the kernel is still poor: round r of n begins at the share (r/n)^1.5 of all steps.
_RAMP = 1.5
#: Closest molecules that are told apart, in widths of the PSF: first only those that cannot be wings of a neighbour.
_SEPARATION = (4.0, 3.2, 2.5, 2.0, 1.7)
_SEPARATION_STARTED = (2.5, 2.0, 1.7)


@dataclass(frozen=True)
class LabelFreeSettings:
    """Length and size of a label-free training.

    Parameters
    ----------
    steps : int
        Detector steps.
    rounds : int
        Rounds of x-steps and τ-steps, spread over the detector steps.
    seed : int
        Seed of initial weights, crops and noise.
    batch_size, crop_px : int
        Crops per detector step, and their side, px.
    channels, blocks : int
        Size of a new network; a trained one keeps its own.
    renoised : float
        Share of the crops of a step that are drawn anew from the learned molecules, kernel and background, with fresh
        noise, instead of being cut from the movie.
    learning_rate : float
        Peak learning rate of the detector.
    most_per_px2 : float
        K: most molecules of a frame, per square pixel.
    calibration_scenes : int
        Simulated scenes, with the learned PSF, on which the stated precision is calibrated at the end.

    Raises
    ------
    ConfigurationError
        When a value is impossible.
    """

    steps: int = NEW["steps"]
    rounds: int = NEW["rounds"]
    seed: int = 0
    batch_size: int = 8
    crop_px: int = 32
    channels: int = 32
    blocks: int = 3
    renoised: float = 0.5
    learning_rate: float = 1e-3
    most_per_px2: float = 0.06
    calibration_scenes: int = 1024

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("rounds", 1),
            ("seed", 0),
            ("batch_size", 1),
            ("crop_px", 16),
            ("channels", 4),
            ("blocks", 1),
            ("calibration_scenes", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigurationError(f"Label-free training: {name} = {value!r} must be a whole number >= {least}.")
        if not 0 <= self.renoised < 1:
            raise ConfigurationError(f"Label-free training: renoised = {self.renoised!r} must be 0 or more, below 1.")
        for name in ("learning_rate", "most_per_px2"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigurationError(f"Label-free training: {name} = {getattr(self, name)!r} must be above 0.")

    @classmethod
    def of(
        cls, *, started: bool, steps: int | None = None, rounds: int | None = None, **others: Any
    ) -> LabelFreeSettings:
        """Defaults of a new training, or of one that starts from a trained model.

        Parameters
        ----------
        started : bool
            Whether it starts from a trained model.
        steps, rounds : int, optional
            In place of the defaults.
        **others
            Further parameters.
        """
        usual: dict[str, Any] = {**(STARTED if started else NEW)}
        if started:
            usual["learning_rate"] = 3e-4
        given = {"steps": steps, "rounds": rounds}
        return cls(**{**usual, **others, **{name: value for name, value in given.items() if value is not None}})

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def round_begins(self) -> list[int]:
        """The step before which each round is due."""
        return [round(self.steps * (index / self.rounds) ** _RAMP) for index in range(self.rounds)]

    def separation_px(self, number: int, psf_sigma_px: float, *, started: bool) -> float:
        """Closest molecules that round ``number`` tells apart without asking whether one would do, px."""
        factors = _SEPARATION_STARTED if started else _SEPARATION
        return factors[min(number, len(factors) - 1)] * psf_sigma_px
