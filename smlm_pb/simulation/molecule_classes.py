"""Classes of molecules in one movie: two colours, or two PSFs, side by side on one camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smlm_pb.errors import ConfigurationError

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MoleculeClass:
    """What sets the molecules of one class apart.

    Parameters
    ----------
    name : str
        Name of the class.
    share : float
        Share of the molecules, relative to the other classes.
    width_x, width_y : float
        Width of the PSF along x and y, in units of the PSF width that the user tells.
    photons : float
        Brightness in units of that of the experiment.
    """

    name: str
    share: float = 1.0
    width_x: float = 1.0
    width_y: float = 1.0
    photons: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError(f"Class name {self.name!r} must be a text.")
        for key in ("share", "width_x", "width_y", "photons"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf:
                raise ConfigurationError(f"Class {self.name}: {key} = {value!r} must be a number > 0.")
        for key in ("width_x", "width_y"):
            if not 0.3 <= getattr(self, key) <= 4:
                raise ConfigurationError(f"Class {self.name}: {key} = {getattr(self, key)} must lie in [0.3, 4].")


def checked_classes(classes: Any) -> tuple[MoleculeClass, ...]:
    """Classes from what a file holds: none, or two and more with different names.

    Raises
    ------
    ConfigurationError
        When they are no classes.
    """
    try:
        made = tuple(one if isinstance(one, MoleculeClass) else MoleculeClass(**dict(one)) for one in classes or ())
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"Classes must be a list of {{name, share, width_x, width_y, photons}} ({error}); correct the list."
        ) from error
    if len(made) == 1:
        raise ConfigurationError("One class is none: give two or more, or leave classes out.")
    names = [one.name for one in made]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"Classes need different names, not {', '.join(names)}.")
    return made


def draw_labels(rng: np.random.Generator, classes: Sequence[MoleculeClass], n: int) -> Labels:
    """Class of each of ``n`` molecules."""
    share = np.array([one.share for one in classes])
    return np.asarray(rng.choice(len(classes), n, p=share / share.sum()), np.int64)


def labels_of_numbers(classes: Sequence[MoleculeClass], molecule: npt.NDArray[np.integer]) -> Labels:
    """Class of molecules by their numbers: a molecule keeps its class from frame to frame."""
    share = np.array([one.share for one in classes])
    # Multiples of the golden ratio are spread evenly, whatever part of the numbers is asked for.
    position = np.mod(molecule * 0.6180339887498949, 1.0)
    return np.asarray(np.searchsorted(np.cumsum(share / share.sum())[:-1], position, side="right"), np.int64)


def factors(classes: Sequence[MoleculeClass], labels: Labels, key: str) -> npt.NDArray[np.float64]:
    """``width_x``, ``width_y`` or ``photons`` of the class of every molecule."""
    return np.asarray(np.array([getattr(one, key) for one in classes], np.float64)[labels], np.float64)
