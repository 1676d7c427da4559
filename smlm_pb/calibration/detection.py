"""Finding corners and holes in the picture of a target."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smlm_pb.calibration.boards import KINDS
from smlm_pb.errors import ConfigurationError, ModelError, MovieError

if TYPE_CHECKING:
    from smlm_pb.calibration.grid_network import GridNetwork
    from smlm_pb.networks import PointField

FloatArray = npt.NDArray[np.float64]

#: Points below this probability are not listed.
DEFAULT_THRESHOLD = 0.5
_SHARE_FLOOR = 0.05
_SMALLEST_PX = 16
#: Cells whose features are computed at a time; bounds memory.
_BAND_CELLS = 1 << 18


@dataclass(frozen=True)
class GridPoints:
    """Points of a target, in no particular order.

    Parameters
    ----------
    x, y : array (n,)
        Positions in px.
    sigma_x, sigma_y : array (n,)
        Stated precision in px.
    probability : array (n,)
        That there is such a point.
    kind : str
        ``checkerboard`` or ``holes``.
    """

    x: FloatArray
    y: FloatArray
    sigma_x: FloatArray
    sigma_y: FloatArray
    probability: FloatArray
    kind: str

    def __len__(self) -> int:
        return len(self.x)

    @property
    def positions(self) -> FloatArray:
        """Positions (n, 2) as (x, y)."""
        return np.stack((self.x, self.y), axis=1)


def find_points(
    image: npt.NDArray[Any],
    *,
    kind: str,
    threshold: float = DEFAULT_THRESHOLD,
    shrink: int = 1,
    model: str | Path | None = None,
) -> GridPoints:
    """Find the corners of a checkerboard, or the holes of a grid.

    Parameters
    ----------
    image : array (height, width)
        Picture of the target; brightness in any units.
    kind : {"checkerboard", "holes"}
        What it shows.
    threshold : float
        Smallest probability of a point.
    shrink : int
        The picture is made smaller by this factor before: for holes wider than about 10 px, or strong blur.
    model : path, optional
        Folder of a model made by ``smlm-pb calibrate train``; the shipped one when not given.

    Returns
    -------
    GridPoints

    Raises
    ------
    ConfigurationError
        When an option is impossible.
    MovieError
        When the picture is too small, not two-dimensional, or without contrast.
    ModelError
        When the model is damaged.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"Unknown kind of target {kind!r}; choose from {', '.join(KINDS)}.")
    if not 0 < threshold < 1:
        raise ConfigurationError(f"threshold = {threshold} is no probability; give a number between 0 and 1.")
    if shrink < 1:
        raise ConfigurationError(f"shrink = {shrink} is impossible; give a whole number from 1.")
    picture = _check_image(image, shrink)
    if shrink > 1:
        height, width = (n // shrink * shrink for n in picture.shape)
        picture = picture[:height, :width].reshape(height // shrink, shrink, -1, shrink).mean((1, 3))
    rows = _candidates(picture, kind, model)
    rows = rows[rows["probability"] >= threshold]
    from smlm_pb.calibration.grid_network import CELL_PX, to_pixels

    x, y = (shrink * (to_pixels(rows[a].astype(np.float64)) + 0.5) - 0.5 for a in "xy")
    scale = shrink * CELL_PX
    sigma_x, sigma_y = (scale * rows[f"sigma_{a}"].astype(np.float64) for a in "xy")
    return GridPoints(x, y, sigma_x, sigma_y, rows["probability"].astype(np.float64), kind)


def _check_image(image: npt.NDArray[Any], shrink: int) -> FloatArray:
    picture = np.asarray(image)
    if picture.ndim != 2:
        raise MovieError(
            f"The picture of a target is one frame (height, width), not an array of shape {picture.shape}."
        )
    if min(picture.shape) // shrink < _SMALLEST_PX:
        raise MovieError(
            f"A picture of {picture.shape[0]}×{picture.shape[1]} px is too small for a target"
            f"{f' that is shrunk {shrink}-fold' if shrink > 1 else ''}: it needs {_SMALLEST_PX} px on each side."
        )
    picture = picture.astype(np.float64)
    if not np.isfinite(picture).all():
        raise MovieError("The picture of the target holds values that are not finite: mend or crop it.")
    if picture.max() <= picture.min():
        raise MovieError("The picture of the target has the same value everywhere: check exposure and channel.")
    return picture


def _candidates(picture: FloatArray, kind: str, model: str | Path | None) -> npt.NDArray[Any]:
    """Pooled candidates of the picture, positions in cells."""
    import torch

    from smlm_pb.calibration.grid_network import CELL_PX, condition_of_kind, prepare
    from smlm_pb.localization.candidates import select_candidates
    from smlm_pb.localization.pooling import pool_shares

    network = load_network(model)
    padded = np.pad(picture, [(0, n % CELL_PX) for n in picture.shape], mode="edge")
    field = _in_bands(network, torch.from_numpy(prepare(padded))[None], condition_of_kind([kind]))
    rows = pool_shares(select_candidates(field, first_frame=0, floor=_SHARE_FLOOR).rows)
    last_y, last_x = ((n - 0.5 - (CELL_PX - 1) / 2) / CELL_PX for n in picture.shape)
    return np.asarray(rows[(rows["x"] < last_x) & (rows["y"] < last_y)])


def _in_bands(network: GridNetwork, image: Any, condition: Any) -> PointField:
    """Candidates of a large picture, a few rows of cells at a time."""
    import torch

    from smlm_pb.calibration.grid_network import CELL_PX
    from smlm_pb.networks import PointField

    rows, columns = (n // CELL_PX for n in image.shape[-2:])
    band, margin = max(1, _BAND_CELLS // columns), network.radius
    parts = []
    with torch.inference_mode():
        for top in range(0, rows, band):
            first, last = max(0, top - margin), min(rows, top + band + margin)
            field = network(image[..., first * CELL_PX : last * CELL_PX, :], condition)
            kept = slice(top - first, top - first + min(band, rows - top))
            parts.append([maps[..., kept, :] for maps in field if maps is not None])
    return PointField(*(torch.cat(maps, dim=-2) for maps in zip(*parts, strict=True)))


def load_network(folder: str | Path | None = None) -> GridNetwork:
    """Load the network for targets.

    Parameters
    ----------
    folder : path, optional
        Made by ``smlm-pb calibrate train``; the shipped one when not given.

    Raises
    ------
    ModelError
        When it is not there or damaged.
    """
    if folder is None:
        from smlm_pb.localization.model import models_folder

        folder = models_folder() / "grid"
    return _load(str(Path(folder).resolve()))


@functools.lru_cache(maxsize=2)
def _load(folder: str) -> GridNetwork:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from smlm_pb.calibration.grid_network import GridNetwork
    from smlm_pb.calibration.grid_training import CARD_FILE, WEIGHTS_FILE

    try:
        card = json.loads((Path(folder) / CARD_FILE).read_text(encoding="utf-8"))
        content = (Path(folder) / WEIGHTS_FILE).read_bytes()
        if hashlib.sha256(content).hexdigest() != card["weights_sha256"]:
            raise ModelError(f"Weights in {folder} are not those of the model's card: train or install it again.")
        network = GridNetwork(int(card["channels"]))
        network.load_state_dict(load(content))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is no model for calibration targets: it needs {CARD_FILE} and {WEIGHTS_FILE}, which "
            "'smlm-pb calibrate train' makes."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"The model for calibration targets in {folder} is damaged ({error}).") from error
    return network.eval().requires_grad_(False)
