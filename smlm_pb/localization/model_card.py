"""The card of a model: what it is for, how it was made, how good it is, and where it stops being valid."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from smlm_pb.errors import ModelError

CARD_FILE = "card.json"
WEIGHTS_FILE = "weights.safetensors"
Range = tuple[float, float]


@dataclass(frozen=True)
class ModelCard:
    """What a user should know of a model, and what the program needs to build it.

    Parameters
    ----------
    name, description : str
        Name, and one sentence on what it is for.
    network : dict
        Settings of the network.
    psf_sigma_px, photons, background_e, density_per_px2 : (float, float)
        Range of validity: what the training simulated.
    training : dict
        Experiment, command, seed, steps, seconds, version.
    accuracy : dict
        Measured results.
    weights_sha256 : str
        Hash of the weights file.
    sigma_calibration : dict
        Curve from stated to calibrated precision, see :class:`smlm_pb.localization.sigma_calibration.SigmaCalibration`.
    statement_calibration : dict
        From stated probability and precision to those that hold, see
        :class:`smlm_pb.localization.statement_calibration.StatementCalibration`.
    neighbour_pull : dict
        How strongly close candidates pull each other's stated places, see
        :class:`smlm_pb.localization.neighbour_pull.NeighbourPull`.
    classes : list of str
        Names of the classes that the model tells apart; empty where there is one kind of molecules.
    read_noise_e : (float, float)
        Read noise of the training; more of it is shown to the network as background, see
        :mod:`smlm_pb.localization.noise_floor`.
    """

    name: str
    description: str
    network: dict[str, Any]
    psf_sigma_px: Range
    photons: Range
    background_e: Range
    density_per_px2: Range
    training: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    sigma_calibration: dict[str, Any] = field(default_factory=dict)
    statement_calibration: dict[str, Any] = field(default_factory=dict)
    neighbour_pull: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    read_noise_e: Range = (0.3, 3.0)

    def to_json(self) -> str:
        """The card as it stands in its file."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def save(self, folder: Path) -> None:
        """Write the card into a model's folder, whole or not at all."""
        part = folder / f".{CARD_FILE}.partial"
        part.write_text(self.to_json(), encoding="utf-8")
        part.replace(folder / CARD_FILE)

    @classmethod
    def load(cls, folder: Path) -> ModelCard:
        """Read the card in a model's folder.

        Raises
        ------
        ModelError
            When there is none, or it is damaged.
        """
        path = folder / CARD_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for name in ("psf_sigma_px", "photons", "background_e", "density_per_px2", "read_noise_e"):
                if name == "read_noise_e" and name not in content:  # cards of former versions
                    continue
                low, high = content[name]
                content[name] = (float(low), float(high))
            return cls(**content)
        except FileNotFoundError:
            raise ModelError(
                f"{folder} is not a model: it holds no {CARD_FILE}; give the folder that training made."
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"Model card {path} is damaged ({error}): reinstall or retrain the model.") from error
